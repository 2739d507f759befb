"""Networks to hold a found one against: its uniform twin, and the best of random candidates."""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from larq_nas.architecture import Architecture
from larq_nas.choices import Expansion
from larq_nas.cost import LATENCY, SpaceCosts
from larq_nas.errors import DivergenceError, InputError, LarqNasError, first_line, warn
from larq_nas.files import replacing, write_atomically
from larq_nas.log import log
from larq_nas.run_directory import RunDirectory
from larq_nas.searchers import Searcher
from larq_nas.searchers.evolution.processes import current_role
from larq_nas.training.distribution import process_count

__all__ = [
    "BASELINES",
    "BaselinesLike",
    "add_baselines",
    "at_random",
    "cost_of",
    "read_baselines",
    "require_trainable",
    "settings_of",
    "uniform_twin",
]

BASELINES = ("uniform", "random")
"""The networks that may be trained beside a found one."""

BaselinesLike: TypeAlias = bool | str | Sequence[str]
"""Names of `BASELINES`; `True` stands for `"uniform"`, and `False` for none."""

# The ratio of a twin is a multiple of a thousandth: it can be written, and a channel more or less
# of a layer of a thousand is told apart.
_STEPS = 1000
_FIGURES = ("accuracy", "loss", "test_accuracy", "test_loss")


@dataclass(frozen=True)
class Twin:
    """The network of one ratio for all widths that costs what a found one does, or less.

    `quantity` is the cost that both are held to.
    """

    architecture: Architecture
    ratio: float
    costs: Mapping[str, Any]
    quantity: str


def uniform_twin(found: Architecture, costs: SpaceCosts, limits: Sequence[str] = ()) -> Twin | None:
    """Return the uniform network that costs as much as the found one at most, and most of these.

    Operations and numbers of blocks are those of the found one.

    # Arguments
        found: a network of the space.
        costs: the costs of its space.
        limits: names of the costs in the budget: the first is what counts. Without, that is
            `binary_macs`, or `macs` of a network that has none.

    # Returns
        The twin; `None` if each uniform network costs more.
    """
    ratios = [float(found.choices[name]) for name in costs.expansions]  # type: ignore[arg-type]
    own = costs.exact(found.choices)
    quantity = next(iter(limits), "binary_macs" if own["binary_macs"] else "macs")

    def at(ratio: float) -> tuple[Architecture, Mapping[str, Any]]:
        values = {**found.choices, **dict.fromkeys(costs.expansions, ratio)}
        return dataclasses.replace(found, choices=values), costs.exact(values)

    def fits(ratio: float) -> bool:
        return bool(at(ratio)[1][quantity] <= own[quantity])

    # Costs grow with every width: a network whose widths all have the smallest of the found ratios
    # costs no more than the found one, and one of the largest no less.
    one_channel = (math.nextafter(1 / asked.filters, 1) for asked in costs.expansions.values())
    least = max(min(ratios), *one_channel)
    best = max(ratios)
    if not fits(best):
        low, high = math.ceil(least * _STEPS), math.ceil(best * _STEPS)
        best = least
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle / _STEPS) else (low, middle)
        if fits(low / _STEPS):
            best = max(best, low / _STEPS)
        elif not fits(best):
            return None
    network, of_network = at(best)
    return Twin(network, best, of_network, quantity)


def read_baselines(
    given: BaselinesLike, searcher: Searcher, widths: Mapping[str, Expansion], several: bool
) -> tuple[str, ...]:
    """Return which networks are trained beside the found one, or raise `InputError`.

    # Arguments
        given: what the user asked for.
        searcher: the searcher.
        widths: the widths that the space asks for.
        several: whether several seeds are searched.
    """
    names = {True: ("uniform",), False: ()}[given] if isinstance(given, bool) else given
    names = (names,) if isinstance(names, str) else names
    if not isinstance(names, list | tuple) or not all(name in BASELINES for name in names):
        raise InputError(
            f"`baselines` must be True, False or names of {', '.join(BASELINES)}, but got "
            f"{given!r}."
        )
    if "uniform" in names and not widths:
        raise InputError(
            "`baselines` has no uniform network of a space without widths: leave `uniform` out; "
            "random networks are compared by larq-nas compare RUN random:5."
        )
    if "random" in names:
        if several:
            raise InputError(
                "`baselines` of random candidates are of one search, but `seeds` asks for several: "
                "leave one of them out."
            )
        at_random(searcher)
    return tuple(name for name in BASELINES if name in names)


def at_random(searcher: Any) -> Searcher:
    """Return the same searcher that proposes candidates at random.

    # Raises
        InputError: if it proposes none, or does so already.
    """
    fields = dataclasses.fields(searcher) if dataclasses.is_dataclass(searcher) else ()
    if not {"strategy", "initial", "confirm"} <= {one.name for one in fields}:
        raise InputError(
            f"`baselines` of random candidates need a searcher that proposes some, as evolution, "
            f"but got `{searcher.name}`: compare its result by larq-nas compare RUN random:5."
        )
    if getattr(searcher.strategy, "name", searcher.strategy) == "random":
        raise InputError("`baselines` has `random`, but the search itself is random: leave it out.")
    # What it was given is no random network.
    made: Searcher = dataclasses.replace(searcher, strategy="random", initial=(), confirm=0)
    return made


def require_trainable(names: Sequence[str], strategy: object, train_epochs: int) -> None:
    """Raise `InputError` for baselines that would not be trained as the found network is."""
    if not train_epochs:
        raise InputError("`baselines` are trained as the found network: give `train_epochs`.")
    if process_count(strategy) > 1:
        raise InputError(
            "`baselines` are trained in one process: ask for them by the same call without the "
            "strategy's other processes, once the search has ended."
        )
    if "random" in names and current_role() != "alone":
        raise InputError(
            "`baselines` of random candidates are searched in one process: ask for them by the "
            "same call without workers, once the search has ended."
        )


def cost_of(names: Sequence[str], epochs: int, train_epochs: int) -> str:
    """Return what baselines take, for a reader."""
    costs = {
        "uniform": f"the uniform twin takes {train_epochs} epochs of training",
        "random": f"random candidates take a search of {epochs} epochs and {train_epochs} epochs "
        "of training",
    }
    return f"Baselines, after the found network: {'; '.join(costs[name] for name in names)}"


def settings_of(
    settings: Mapping[str, Any], searcher: Searcher, names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Return the settings of the runs of baselines: a training, and a search at random."""
    trained = {name: value for name, value in settings.items() if name not in _OF_SEARCH}
    found = {"uniform": {**trained, "epochs": settings["train_epochs"]}}
    if "random" in names:
        found["random"] = {**settings, "searcher": at_random(searcher).settings()}
    return found


_OF_SEARCH = (
    *("space", "choices", "network", "searcher", "budget", "latency_table"),
    *("epochs", "train_epochs", "retrain", "seeds", "pick_epochs"),
)


Find: TypeAlias = Callable[[RunDirectory], Architecture]
"""Searches among random candidates in a directory."""

Train: TypeAlias = Callable[[RunDirectory], Any]
"""Trains the architecture of a directory as the found one was trained."""


def add_baselines(
    run: RunDirectory,
    names: Sequence[str],
    costs: Callable[[], SpaceCosts],
    limits: Sequence[str],
    find: Find,
    train: Train,
    settings: Mapping[str, Mapping[str, Any]],
    verbose: int | str,
) -> None:
    """Train the baselines that were not, and write what they are into `result.json`.

    The uniform twin is computed in any case, of a space with widths.

    # Arguments
        run: the run of the found network, which has its result.
        names: which are trained.
        costs: returns the costs of the space.
        limits: names of the costs in the budget.
        find: finds the best random candidate.
        train: trains an architecture.
        settings: settings of the runs of the baselines, by name.
        verbose: 0 prints nothing.
    """
    result: dict[str, Any] = json.loads(run.result.read_text(encoding="utf-8"))
    before = {row["label"]: row for row in result.get("baselines", ())}
    asked = [name for name in names if not _is_measured(before.get(name, {}), result)]
    if result.get("baselines") and not asked:
        _tell(result, before.values(), verbose)
        return
    found = Architecture.load(run.architecture)
    rows = []
    try:
        of_space = costs()
        twin = uniform_twin(found, of_space, limits) if of_space.expansions else None
    except LarqNasError as error:
        # What a network costs that was trained and converted is known without it.
        warn(f"No uniform twin, as the costs of the space cannot be computed: {first_line(error)}.")
        return
    if "uniform" in before and "uniform" not in asked:
        rows.append(before["uniform"])
    elif twin is None and of_space.expansions:
        warn("No uniform network costs as little as the found one: it has no twin.")
    elif twin is not None:
        row = {"label": "uniform", "ratio": twin.ratio, "quantity": twin.quantity}
        rows.append({**row, **_facts(twin.architecture, of_space)})
        if rows[-1]["widths"] == _facts(found, of_space)["widths"]:
            # It is the found network.
            rows[-1] |= _measured(result)
        elif "uniform" in asked:
            of_twin = twin.architecture
            rows[-1] |= _trained(run, "uniform", settings, lambda part: of_twin, train, verbose)
    if "random" in asked:
        trained = _trained(run, "random", settings, find, train, verbose)
        path = run.directory / "baselines" / "random" / "architecture.json"
        if path.exists():
            rows.append({"label": "random", **_facts(Architecture.load(path), of_space), **trained})
    elif "random" in before:
        rows.append(before["random"])
    result["baselines"] = rows
    write_atomically(run.result, json.dumps(result, indent=2) + "\n")
    _tell(result, rows, verbose)


def _is_measured(row: Mapping[str, Any], result: Mapping[str, Any]) -> bool:
    """Return whether a baseline has the figures that the found network has."""
    return all(name in row for name in _FIGURES if name in result)


def _facts(architecture: Architecture, costs: SpaceCosts) -> dict[str, Any]:
    """Return the widths and the costs of a network, its flatbuffer as predicted."""
    widths = {
        name: asked.width(float(architecture.choices[name]))  # type: ignore[arg-type]
        for name, asked in costs.expansions.items()
    }
    exact = {name: float(value) for name, value in costs.exact(architecture.choices).items()}
    whole = {name: int(value) if value.is_integer() else value for name, value in exact.items()}
    return {"widths": widths, "costs": whole, "flatbuffer_bytes": whole["flatbuffer_bytes"]}


def _trained(
    run: RunDirectory,
    name: str,
    settings: Mapping[str, Mapping[str, Any]],
    find: Find,
    train: Train,
    verbose: int | str,
) -> dict[str, Any]:
    """Return what was measured of a baseline, trained now where it was not; nothing if it failed.

    What was found must not be lost by what it is held against.
    """
    place = run.directory / "baselines" / name
    if verbose:
        log.info(f"Baseline `{name}`: `{place}`")
    try:
        with RunDirectory(place, settings[name], start=run.start) as part:
            if not part.architecture.exists():
                _share_widest(run, part)
                with part.timed("search"):
                    find(part).save(part.architecture)
            train(part)
            return _measured(json.loads(part.result.read_text(encoding="utf-8")))
    except DivergenceError as error:
        warn(f"The baseline `{name}` is left out: {error}")
        return {}


def _measured(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run has measured of its network."""
    measured = {figure: told[figure] for figure in _FIGURES if figure in told}
    return {**measured, **({"flatbuffer_bytes": told["bytes"]} if "bytes" in told else {})}


def _share_widest(run: RunDirectory, part: RunDirectory) -> None:
    """Give a search of the same seed and data what the first has trained for all candidates."""
    if run.widest.exists() and not part.widest.exists():
        with replacing(part.widest) as path:
            Path(path).write_bytes(run.widest.read_bytes())


def _tell(result: Mapping[str, Any], rows: Any, verbose: int | str) -> None:
    """Print a line for each baseline."""
    for row in rows if verbose else ():
        log.info(describe(result, row))


def describe(result: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """Return a baseline beside the found network in a line."""
    quantity = row.get("quantity") or next(iter(result.get("budget") or ()), "binary_macs")
    used = {**result["costs"], "flatbuffer_bytes": result.get("bytes", math.nan)}
    costs = row["costs"] | {"flatbuffer_bytes": row["flatbuffer_bytes"]}
    what = "best of as many random candidates"
    if row["label"] == "uniform":
        what = f"uniform twin, every width times {row['ratio']:g}"
    unit = " us" if quantity == LATENCY else ""
    cost = f"{costs[quantity]:,.0f}{unit} {quantity} (found {used[quantity]:,.0f})"
    if "accuracy" not in row:
        return f"{what}: {cost}; `baselines` trains it"
    accuracies = f"accuracy {row['accuracy']:.2%} (found {result['accuracy']:.2%})"
    return f"{what}: {accuracies}, {cost}"
