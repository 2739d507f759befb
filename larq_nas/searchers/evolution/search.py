"""Evolution of widths: settings, and a run in one process or many."""

import dataclasses
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import tensorflow as tf

from larq_nas.architecture import Architecture
from larq_nas.choices import Expansion
from larq_nas.cost import LATENCY, Limits, SpaceCosts
from larq_nas.data.data import Data
from larq_nas.errors import (
    DivergenceError,
    InputError,
    require_at_least,
    require_bool,
    require_count,
    require_fields,
    require_not_negative,
    require_positive,
    require_whole,
    use_plain_numbers,
    warn,
)
from larq_nas.files import read_table, write_table
from larq_nas.log import counted, log
from larq_nas.process_state import seed_everything
from larq_nas.report.charts import Section, dots, lines
from larq_nas.run_directory import RunDirectory
from larq_nas.searchers.estimate import require_training_memory
from larq_nas.searchers.evolution.candidates import (
    CandidateTraining,
    Inheritance,
    Rebuilt,
    Shared,
    load_widest,
    require_one_trace,
    train_widest,
)
from larq_nas.searchers.evolution.fitness import Fitness, front, require_objectives, scores_of
from larq_nas.searchers.evolution.generation import (
    Breeder,
    Candidate,
    Genes,
    Strategy,
    resolve_strategy,
)
from larq_nas.searchers.evolution.processes import current_role
from larq_nas.searchers.evolution.tuner import (
    EvolutionOracle,
    EvolutionTuner,
    Trial,
    TrialStatus,
    cause,
)
from larq_nas.searchers.searcher import SEARCH_SPLIT, Callbacks
from larq_nas.spaces import Space
from larq_nas.spaces.chooser import Widest
from larq_nas.training.callbacks import StageCallbacks, StageLogs
from larq_nas.training.recipe import Recipe


def write_candidates(run: RunDirectory, oracle: EvolutionOracle) -> None:
    """Write `candidates.csv` and the logs: a row for each candidate so far, by their numbers."""
    rows = []
    number = 0
    for generation, candidates in enumerate(oracle.generations, 1):
        for candidate in candidates:
            number += 1
            trial = oracle.trials.get(f"{number - 1:04d}")
            if trial is None:
                continue
            figures = oracle.figures(trial) if trial.status == TrialStatus.COMPLETED else {}
            failure = cause(trial) if trial.status == TrialStatus.FAILED else ""
            row = {"candidate": number, "generation": generation, **candidate, **figures}
            rows.append({**row, "failure": failure})
            if figures:
                _write_hparams(run.logs("candidates") / f"{number:04d}", candidate, figures)
    if rows:
        write_table(run.candidates, rows)


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
    """Return what a report shows of an evolution: its candidates, and the front of the best."""
    if not run.candidates.exists():
        return []
    rows = read_table(run.candidates, "candidate", "generation")
    done = [row for row in rows if "accuracy" in row]
    if not done:
        return []
    best = max(done, key=lambda row: (row["fitness"], -row["candidate"]))
    told = [{**row, "kind": "chosen" if row is best else "candidate"} for row in done]
    step = -(-len(told) // _DRAWN)
    told = [row for place, row in enumerate(told) if place % step == 0 or row["kind"] == "chosen"]
    charts = []
    for cost in (name for name in _FIGURES if name in best):
        chart = dots(
            told,
            cost,
            "accuracy",
            color="kind",
            line=_front(done, cost),
            title=f"Candidates by {cost}, and their Pareto front",
            percent=True,
        )
        charts.append(chart)
    fitness = []
    for generation in sorted({row["generation"] for row in done}):
        own = [row["fitness"] for row in done if row["generation"] == generation]
        all_so_far = [row["fitness"] for row in done if row["generation"] <= generation]
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
        f"accuracy - {settings.get('trade_off')} x FLOPs / FLOPs of the uniform network, at "
        f"least 0. Candidate {best['candidate']} has the highest; what is chosen is trained anew."
        f"{f' {lost} failed.' if lost else ''}"
        f"{f' {len(told)} are drawn.' if len(told) < len(done) else ''}"
    )
    table = sorted(done, key=lambda row: -row["fitness"])[:_BEST]
    return [Section("Candidates", text, charts, rows=[_rounded(row) for row in table])]


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


_WAIT_SECONDS = 0.5
_NARROWER = "give the space smaller `ratios`"


@dataclass(frozen=True)
class EvolutionSearch:
    """An evolution that is ready to run."""

    searcher: "Evolution"
    space: Space
    data: Data
    generations: int
    recipe: Recipe
    breeder: Breeder
    fitness: Fitness

    def run(
        self, directory: RunDirectory, callbacks: Callbacks = (), verbose: int | str = "auto"
    ) -> Architecture:
        """Return the architecture found: of the Pareto front, the one of the highest fitness."""
        self._announce(verbose)
        training = self._training()
        epochs = self.searcher.widest_epochs
        train_widest(self.space, epochs, training, directory, callbacks, verbose)
        announce = log.info if verbose else _ignore
        limit = callbacks.limit if isinstance(callbacks, StageCallbacks) else None
        if limit:
            limit.begin("candidates")
        is_over = limit.is_over if limit else _never
        oracle = self._oracle(announce, partial(write_candidates, directory), is_over)
        self._tuner(oracle, training, directory, callbacks).search()
        return self._conclude(oracle, directory, verbose)

    def work(self, directory: RunDirectory, callbacks: Callbacks = ()) -> None:
        """Train candidates that the chief hands out, until there are no more."""
        while not directory.widest.exists():
            time.sleep(_WAIT_SECONDS)
        training, oracle = self._training(), self._oracle(_ignore, _ignore, _never)
        self._tuner(oracle, training, directory, callbacks).search()

    def _training(self) -> CandidateTraining:
        seed_everything(self.data.seed)
        # All of the images but those that are held out.
        size = self.searcher.subset and min(self.searcher.subset, self.data.facts.train_examples)
        data = self.data.subset(size)
        return CandidateTraining(data, self.searcher.candidate_epochs, self.recipe)

    def _oracle(
        self,
        announce: Callable[[str], None],
        record: Callable[[EvolutionOracle], None],
        is_over: Callable[[str], bool],
    ) -> EvolutionOracle:
        return EvolutionOracle(
            self.breeder,
            self.generations,
            tuple(self.searcher.objectives),
            self.fitness.figures,
            None if current_role() == "alone" else self.searcher.worker_timeout,
            announce,
            record,
            is_over,
        )

    def _tuner(
        self,
        oracle: EvolutionOracle,
        training: CandidateTraining,
        run: RunDirectory,
        callbacks: Callbacks,
    ) -> EvolutionTuner:
        kind = Shared if self.searcher.shared else Rebuilt

        def evaluator() -> Shared | Rebuilt:
            return kind(self.space, training, load_widest(self.space, training, run))

        return EvolutionTuner(
            oracle, evaluator, run.directory, self.searcher.keep, run.architecture.exists, callbacks
        )

    def _conclude(
        self, oracle: EvolutionOracle, run: RunDirectory, verbose: int | str
    ) -> Architecture:
        """Write what was found, and return the best."""
        write_candidates(run, oracle)
        done = [t for t in oracle.trials.values() if t.status == TrialStatus.COMPLETED]
        done.sort(key=lambda trial: int(trial.trial_id))
        if not done:
            failed = oracle.failures[0]
            raise DivergenceError(
                f"Every candidate of the first generation failed, {len(oracle.failures)} of them; "
                f"the first: {cause(failed)}. Mend that, or use a lower learning rate, in another "
                "directory."
            )
        figures = [dict(oracle.figures(trial)) for trial in done]
        objectives = tuple(self.searcher.objectives)
        best = front([scores_of(one, objectives) for one in figures])
        write_front(run, [(self._architecture(oracle, done[i]), figures[i]) for i in best])
        chosen = max(best, key=lambda i: (figures[i]["fitness"], -i))
        if verbose:
            self._report(len(done), len(oracle.failures), len(best), figures[chosen])
        return self._architecture(oracle, done[chosen])

    def _architecture(self, oracle: EvolutionOracle, trial: Trial) -> Architecture:
        values: Any = oracle.candidates[int(trial.trial_id)]
        return Architecture(self.space.name, self.space.settings(), dict(values))

    def _report(self, done: int, failed: int, best: int, figures: dict[str, Any]) -> None:
        lost = f", {failed} failed" if failed else ""
        of_front = f"; {best} on the Pareto front" if len(self.searcher.objectives) > 1 else ""
        log.info(
            f"Trained {counted(done, 'candidate')}{lost}{of_front}. Best: "
            f"accuracy {figures['accuracy']:.2%}, fitness {figures['fitness']:.2f}, "
            f"{figures['flops'] / self.fitness.original:.2f} times the operations of the original",
        )

    def _announce(self, verbose: int | str) -> None:
        if verbose:
            searcher, facts = self.searcher, self.data.facts
            images = min(searcher.subset or facts.train_examples, facts.train_examples)
            steps = max(1, images // facts.batch_size)
            log.info(
                f"Evolution: {counted(self.generations, 'generation')} of "
                f"{searcher.population} candidates, each "
                f"{counted(searcher.candidate_epochs, 'epoch')} of {counted(steps, 'step')}; "
                f"{self.breeder.genes.size:,} candidates in all to choose from",
            )


def _ignore(told: object) -> None:
    """Take what is told to nobody."""


def _never(what: str) -> bool:
    """Return that there is time, whatever that would end."""
    return False


@dataclass(frozen=True)
class Evolution:
    r"""Evolve the widths of a network (Shen et al.).

    The widest network of the space is trained first. Every candidate starts with the first
    channels of its layers, trains for a few epochs on a part of the data, and is worth

    \\[ f = \max(100 \, Acc - \lambda \frac{FLOPs}{FLOPs_{original}}, 0) \\]

    A generation is bred from the best candidates so far. The defaults are the paper's.

    !!! example
        ```python
        searcher = larq_nas.searchers.Evolution(population=12, candidate_epochs=2, subset=5000)
        model = larq_nas.search(
            train, validation, space="vgg_small", searcher=searcher, epochs=10
        )
        ```

    # Arguments
        population: number of candidates of a generation.
        candidate_epochs: epochs each is trained for; 0 measures what it inherits.
        widest_epochs: epochs the widest network is trained for first; 0 leaves its weights random.
        subset: number of images that candidates and the widest network train on, as many of each
            class as can be; `None` for all.
        search_split: share of the training images, or of `subset`, that is held out of them to
            compare candidates on.
        trade_off: lambda: points of accuracy that are given for the operations of the original
            binary network.
        strategy: `"genetic"`, `"aging"` or `"random"`, or a
            `larq_nas.searchers.evolution.Strategy`, of larq_nas or of your own.
        objectives: what to maximize: `("fitness",)` as the paper does, or several of `"accuracy"`,
            `"flops"` and the costs of a budget such as `"weight_bytes"` or `"binary_macs"`, for a
            Pareto front.
        recipe: how candidates are trained, in its last stage; by default that of the found network.
        keep: number of candidates whose weights are kept.
        shared: whether one trace serves all candidates; without, each is a network of its own:
            the same results, slower.
        worker_timeout: seconds after which the candidate of a silent worker is given to another.

    # References
        - [Searching for Accurate Binary Neural Architectures](https://arxiv.org/abs/1909.07378)
    """

    name: ClassVar[str] = "evolution"
    default_epochs: ClassVar[int] = 50
    several_devices: ClassVar[bool] = False
    several_processes: ClassVar[bool] = True
    continues: ClassVar[bool] = True
    smallest_ratio: ClassVar[float | None] = None

    population: int = 32
    candidate_epochs: int = 10
    widest_epochs: int = 150
    subset: int | None = None
    search_split: float = SEARCH_SPLIT
    trade_off: float = 4.0
    strategy: str | Strategy = "genetic"
    objectives: tuple[str, ...] = ("fitness",)
    recipe: Recipe | None = None
    keep: int = 3
    shared: bool = True
    worker_timeout: float = 60.0

    def __post_init__(self) -> None:
        use_plain_numbers(self)
        require_fields(require_whole, self, "population", "subset")
        require_at_least(2, population=self.population)
        require_fields(require_count, self, "candidate_epochs", "widest_epochs", "keep")
        require_not_negative(trade_off=self.trade_off)
        require_positive(worker_timeout=self.worker_timeout, search_split=self.search_split)
        if self.search_split >= 1:
            raise InputError(f"`search_split` must be below 1, but got {self.search_split}.")
        require_objectives(self.objectives)
        resolve_strategy(self.strategy)
        if not isinstance(self.recipe, Recipe | None):
            raise InputError(
                f"`recipe` must be a larq_nas.training.Recipe, but got {self.recipe!r}."
            )
        require_bool(shared=self.shared)

    @property
    def stages(self) -> dict[str, StageLogs]:
        """What the widest network and candidates log, where they train."""
        found = {"widest": StageLogs(("loss", "accuracy"))} if self.widest_epochs else {}
        if self.candidate_epochs:
            found["candidates"] = StageLogs(("loss", "accuracy"), several=True)
        return found

    def held_out(self, train_examples: int) -> float:
        """Return the share of the training images that candidates are compared on."""
        images = min(self.subset or train_examples, train_examples)
        return self.search_split * images / train_examples

    def report(self, directory: RunDirectory) -> list[Section]:
        """Return what a report of a run shows of the search."""
        return sections(directory)

    def settings(self) -> dict[str, Any]:
        """Return the settings as a run keeps them."""
        strategy: Any = resolve_strategy(self.strategy)
        of_strategy: dict[str, Any] = {}
        if dataclasses.is_dataclass(strategy):
            of_strategy = dataclasses.asdict(strategy)  # type: ignore[arg-type]
        settings = {
            entry.name: getattr(self, entry.name)
            for entry in dataclasses.fields(self)
            # What changes no result may be given to a run that is resumed.
            if entry.name not in ("shared", "worker_timeout", "keep")
        }
        return {
            "name": self.name,
            **settings,
            "objectives": list(self.objectives),
            "strategy": {"name": strategy.name, **of_strategy},
            "recipe": self.recipe.settings() if self.recipe else None,
        }

    def prepare(
        self, space: Space, data: Data, limits: Limits | None, epochs: int, recipe: Recipe
    ) -> EvolutionSearch:
        """Return an evolution of widths; see `larq_nas.searchers.Searcher`."""
        recipe = self.recipe or recipe
        recipe = recipe.of(recipe.stages[-1])
        facts = data.facts
        costs = limits.costs if limits else SpaceCosts(space, facts.input_shape, facts.classes)
        self._require_widths(space, costs)
        images = facts.train_examples + facts.validation_examples
        if self.subset is not None and self.subset > images:
            raise InputError(
                f"`subset` must be at most the {images} training images, but got {self.subset}."
            )
        # What candidates cannot take from the widest network shows here, before it is trained.
        choose = Widest()
        widest = space.build(choose, facts.input_shape, facts.classes)
        Inheritance(widest, choose)
        require_training_memory(widest, facts.batch_size, "The widest network", _NARROWER)
        if self.shared:
            require_one_trace(space, recipe, facts)
        fitness = Fitness(costs, self.trade_off)
        options = {name: _distinct(asked) for name, asked in costs.expansions.items()}
        fits = partial(_fits, limits) if limits else lambda candidate: True
        strategy = resolve_strategy(self.strategy)
        breeder = Breeder(Genes(options), strategy, self.population, data.seed, fits)
        return EvolutionSearch(self, space, data, epochs, recipe, breeder, fitness)

    def _require_widths(self, space: Space, costs: SpaceCosts) -> None:
        costs.require_no_operations(self.name)
        if not any(len(asked.ratios) > 1 for asked in costs.expansions.values()):
            raise InputError(
                f"Space `{space.name}` has no width to choose: give it several `ratios`, and no "
                "`expansion`."
            )
        for name in self.objectives:
            if name == LATENCY and name not in costs.quantities:
                raise InputError(
                    "Objective `latency` needs a `budget` of latency and `latency_table`, of the "
                    "device that it is about."
                )


def _fits(limits: Limits, candidate: Candidate) -> bool:
    """Return whether a candidate keeps to the budget, or cannot be built, which training tells."""
    try:
        return limits.allow(candidate)
    except Exception:  # noqa: BLE001 - of the user's own function
        return True


def _distinct(asked: Expansion) -> tuple[float, ...]:
    """Return the ratios of a choice that give different widths, the first of each."""
    first: dict[int, float] = {}
    for ratio, filters in zip(asked.ratios, asked.options, strict=True):
        first.setdefault(filters, ratio)
    if len(first) < len(asked.ratios):
        left = sorted(set(asked.ratios) - set(first.values()))
        warn(
            f"Ratios {', '.join(map(str, left))} of choice `{asked.name}` give widths that others "
            "give too, and are left out."
        )
    return tuple(first.values())
