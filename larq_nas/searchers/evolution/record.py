"""Record of an evolution: its candidates, its Pareto front, and what a report shows of them."""

import math
import shutil
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import tensorflow as tf
from scipy.stats import kendalltau

from larq_nas.architecture import Architecture
from larq_nas.files import read_table, write_table
from larq_nas.log import counted
from larq_nas.report.charts import Section, dots, lines
from larq_nas.run_directory import RunDirectory
from larq_nas.searchers.evolution.fitness import front
from larq_nas.searchers.evolution.oracle import EvolutionOracle, TrialStatus, cause


def write_candidates(run: RunDirectory, oracle: EvolutionOracle) -> None:
    """Write `candidates.csv` and the logs: a row for each candidate so far, by their numbers.

    Figures are of the last rung it was on; of a search with several, each has its accuracy too.
    """
    rows: dict[int, dict[str, Any]] = {}
    done: dict[int, bool] = {}
    several = len(oracle.rungs) > 1
    names = {place: f"accuracy_{epochs}" for place, epochs in enumerate(oracle.rungs)}
    for place, training in enumerate(oracle.trainings):
        trial = oracle.trials.get(f"{place:04d}")
        if trial is None or training.rung is None:
            continue
        is_done = trial.status == TrialStatus.COMPLETED
        figures = dict(oracle.figures(trial)) if is_done else {}
        row = rows.get(training.number) or {
            "candidate": training.number + 1,
            "generation": training.generation + 1,
            **training.candidate,
            **({"epochs": 0, **dict.fromkeys(names.values())} if several else {}),
        }
        if several and is_done:
            row["epochs"] = oracle.rungs[training.rung]
            row[names[training.rung]] = figures["accuracy"]
        failure = cause(trial) if trial.status == TrialStatus.FAILED else ""
        rows[training.number] = {**row, **figures, "failure": failure}
        done[training.number] = is_done
    for number, row in rows.items():
        if done[number]:
            genes = {name: row[name] for name in oracle.candidates[number]}
            figures = {
                k: v for k, v in row.items() if k not in genes and isinstance(v, float | int)
            }
            _write_hparams(run.logs("candidates") / f"{number + 1:04d}", genes, figures)
    if rows:
        write_table(run.candidates, [rows[number] for number in sorted(rows)])


def _write_hparams(folder: Path, values: Mapping[str, Any], figures: Mapping[str, Any]) -> None:
    """Write a candidate for the page "HParams" of TensorBoard, once."""
    # It takes a while to import, and an evolution alone needs it.
    from tensorboard.plugins.hparams import api

    if any(path.stat().st_size for path in folder.glob("*")):
        return
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default(step=0):
        api.hparams(dict(values), trial_id=folder.name)
        for name, figure in figures.items():
            tf.summary.scalar(name, float(figure))
    writer.close()


def write_front(run: RunDirectory, found: Sequence[tuple[Architecture, Mapping[str, Any]]]) -> None:
    """Write `pareto/`: the architectures that none is better than, and a table of them."""
    ordered = sorted(found, key=lambda pair: pair[1]["flops"])
    shutil.rmtree(run.pareto, ignore_errors=True)
    run.pareto.mkdir()
    rows = []
    for number, (architecture, figures) in enumerate(ordered, 1):
        name = f"{number:03d}.json"
        architecture.save(run.pareto / name)
        rows.append({"file": name, **figures})
    write_table(run.pareto / "front.csv", rows)


_FIGURES = ("binary_macs", "weight_bytes", "flatbuffer_bytes", "flops")


def sections(run: RunDirectory) -> list[Section]:
    """Return what a report shows of an evolution: candidates, rungs and the confirmation."""
    if not run.candidates.exists():
        return []
    rows = read_table(run.candidates, "candidate", "generation")
    done = [row for row in rows if "accuracy" in row]
    if not done:
        return []
    confirmed = read_table(run.confirmed, "candidate", "role") if run.confirmed.exists() else []
    found = [_candidates(run, rows, done, confirmed)]
    if len(rungs := _rungs_of(done)) > 1:
        found.append(_climbs(done, rungs))
    if confirmed:
        found.append(_confirmation(confirmed))
    return found


_RUNG = "accuracy_"


def _rungs_of(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the epochs at which candidates were compared, where there are several."""
    names = dict.fromkeys(name for row in rows for name in row if name.startswith(_RUNG))
    return sorted(int(name.removeprefix(_RUNG)) for name in names)


def _candidates(
    run: RunDirectory,
    rows: Sequence[Mapping[str, Any]],
    done: Sequence[Mapping[str, Any]],
    confirmed: Sequence[Mapping[str, Any]],
) -> Section:
    last = max(row.get("epochs", 0) for row in done)
    compared = [row for row in done if row.get("epochs", 0) == last]
    best = max(compared, key=lambda row: (row["fitness"], -row["candidate"]))
    named = {row["candidate"] for row in confirmed if row.get("chosen")} or {best["candidate"]}
    given = {row["candidate"] for row in confirmed if row["role"] == "incumbent"}
    told = []
    for row in done:
        kind = "candidate" if row.get("epochs", 0) == last else "left on an earlier rung"
        kind = "given" if row["candidate"] in given else kind
        told.append({**row, "kind": "chosen" if row["candidate"] in named else kind})
    step = -(-len(told) // _DRAWN)
    marked = ("chosen", "given")
    told = [row for place, row in enumerate(told) if place % step == 0 or row["kind"] in marked]
    charts = []
    for cost in (name for name in _FIGURES if name in best):
        chart = dots(
            told,
            cost,
            "accuracy",
            color="kind",
            line=_front(compared, cost),
            title=f"Candidates by {cost}, and their Pareto front",
            percent=True,
        )
        charts.append(chart)
    fitness = []
    for generation in sorted({row["generation"] for row in compared}):
        own = [row["fitness"] for row in compared if row["generation"] == generation]
        all_so_far = [row["fitness"] for row in compared if row["generation"] <= generation]
        for label, value in (("best so far", max(all_so_far)), ("mean", sum(own) / len(own))):
            fitness.append({"generation": generation, "value": label, "fitness": value})
    charts.append(lines(fitness, "generation", "fitness", color="value", title="Fitness"))
    lost = len(rows) - len(done)
    settings = run.settings.get("searcher", {})
    every = run.settings.get("data", {}).get("train_examples", 0)
    images = round(settings.get("search_split", 0) * min(settings.get("subset") or every, every))
    one = f", of which one is {1 / images:.1%}" if images else ""
    text = (
        f"{len(done)} candidates were trained briefly and measured on about {images} images held "
        f"out of the training data{one}, never on those that are reported. Fitness is 100 x "
        "accuracy less the trade-off for operations, at least 0. Candidate "
        f"{best['candidate']} has the highest; what is chosen is trained anew."
        f"{f' {lost} failed.' if lost else ''}"
        f"{f' {len(told)} are drawn.' if len(told) < len(done) else ''}"
    )
    table = sorted(compared, key=lambda row: -row["fitness"])[:_BEST]
    return Section("Candidates", text, charts, rows=[_rounded(row) for row in table])


def _climbs(done: Sequence[Mapping[str, Any]], rungs: Sequence[int]) -> Section:
    """Return how candidates went from rung to rung, and whether rungs agree on their order."""
    drawn = [
        {"candidate": row["candidate"], "epochs": epochs, "accuracy": row[f"{_RUNG}{epochs}"]}
        for row in done
        if row["epochs"] > rungs[0]
        for epochs in rungs
        if f"{_RUNG}{epochs}" in row
    ]
    chart = lines(
        drawn[:_DRAWN],
        "epochs",
        "accuracy",
        color="candidate",
        title="Candidates that went on, by epochs",
        percent=True,
    )
    spent, full = sum(row["epochs"] for row in done), rungs[-1] * len(done)
    table = []
    for low, high in pairwise(rungs):
        pairs = [
            (row[f"{_RUNG}{low}"], row[f"{_RUNG}{high}"]) for row in done if f"{_RUNG}{high}" in row
        ]
        table.append(
            {
                "from": counted(low, "epoch"),
                "to": counted(high, "epoch"),
                "candidates": len(pairs),
                "Kendall tau": _tau(pairs),
            }
        )
    text = (
        f"Candidates took {counted(spent, 'epoch')}, {spent / full:.0%} of training all of them "
        f"for {rungs[-1]}. Kendall's tau tells how far the order of those that went on stayed: 1 "
        "is the same order, 0 chance."
    )
    return Section("Rungs", text, [chart], rows=table)


def _tau(pairs: Sequence[tuple[float, float]]) -> Any:
    if len(pairs) < 3:
        return "too few candidates"
    tau = float(kendalltau(*zip(*pairs, strict=True)).statistic)
    return round(tau, 2) if math.isfinite(tau) else "all alike"


def _confirmation(confirmed: Sequence[Mapping[str, Any]]) -> Section:
    chosen = next(row for row in confirmed if row.get("chosen"))
    given = any(row["role"] == "incumbent" for row in confirmed)
    rule = (
        "The network that the search was given is returned unless another is above it by more than "
        "one standard error of their difference on the same images."
    )
    text = (
        f"The best candidates{' and the network that was given' if given else ''} were trained "
        f"once more, from random weights, for {counted(chosen['epochs'], 'epoch')} each, and "
        f"compared on the images held out. Candidate {chosen['candidate']} "
        f"{'was given, and ' if chosen['role'] == 'incumbent' else ''}is chosen. "
        f"{rule if given else ''}"
    )
    rows = []
    for row in sorted(confirmed, key=lambda row: -row["fitness"]):
        gain = f"{row['gain']:+.2f} ± {row['standard_error']:.2f}" if "gain" in row else ""
        rows.append(
            {
                "candidate": row["candidate"],
                "role": "given" if row["role"] == "incumbent" else "found",
                "accuracy": f"{row['accuracy']:.2%}",
                "fitness": round(row["fitness"], 2),
                "above what was given": gain,
                "chosen": "yes" if row.get("chosen") else "",
            }
        )
    return Section("Confirmation", text, rows=rows)


_BEST, _DRAWN = 20, 400


def _front(rows: Sequence[Mapping[str, Any]], cost: str) -> list[Mapping[str, Any]]:
    """Return the rows that no cheaper one is as accurate as, from the cheapest on."""
    best = front([(row["accuracy"], -row[cost]) for row in rows])
    found = [{cost: rows[i][cost], "accuracy": rows[i]["accuracy"]} for i in best]
    return sorted(found, key=lambda row: row[cost])


def _rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with its figures first, behind which are the values of the choices."""
    first = {name: row[name] for name in ("candidate", "generation", "fitness", "accuracy")}
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in {**first, **row}.items()}
