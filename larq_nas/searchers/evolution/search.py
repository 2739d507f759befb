"""Evolution of operations, widths and depths: settings, and a run in one process or many."""

import dataclasses
import json
import math
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from larq_nas.architecture import Architecture, write_ranking
from larq_nas.choices import Value, all_alive
from larq_nas.cost import LATENCY, Limits, SpaceCosts
from larq_nas.data.data import Data
from larq_nas.data.validation import DataFacts
from larq_nas.errors import (
    DivergenceError,
    InputError,
    first_line,
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
from larq_nas.files import write_table
from larq_nas.log import counted, log
from larq_nas.process_state import seed_everything
from larq_nas.report.charts import Section
from larq_nas.run_directory import RunDirectory
from larq_nas.searchers.estimate import require_training_memory
from larq_nas.searchers.evolution.candidates import (
    CandidateTraining,
    Evaluator,
    Inheritance,
    Rebuilt,
    Scratch,
    Shared,
    load_widest,
    require_one_trace,
    train_widest,
)
from larq_nas.searchers.evolution.fitness import (
    OBJECTIVES,
    Fitness,
    front,
    require_objectives,
    scores_of,
)
from larq_nas.searchers.evolution.generation import (
    Breeder,
    Candidate,
    Genes,
    Strategy,
    resolve_strategy,
)
from larq_nas.searchers.evolution.initial import initial_candidates, plain_values, read_initial
from larq_nas.searchers.evolution.oracle import (
    CORRECT,
    Confirmation,
    EvolutionOracle,
    Training,
    cause,
)
from larq_nas.searchers.evolution.processes import current_role
from larq_nas.searchers.evolution.record import sections, write_candidates, write_front
from larq_nas.searchers.evolution.tuner import EvolutionTuner
from larq_nas.searchers.searcher import SEARCH_SPLIT, Callbacks
from larq_nas.spaces import Space
from larq_nas.spaces.chooser import Fix, Widest
from larq_nas.training.callbacks import StageCallbacks, StageLogs
from larq_nas.training.recipe import Recipe

_WAIT_SECONDS = 0.5
_NARROWER = "give the space smaller `ratios`"
_SMALLER = "give the space fewer cells, channels or filters"


@dataclass(frozen=True)
class EvolutionSearch:
    """An evolution that is ready to run; candidates are networks of `space.proxy()`."""

    searcher: "Evolution"
    space: Space
    data: Data
    generations: int
    recipe: Recipe
    breeder: Breeder
    fitness: Fitness
    incumbents: tuple[Candidate, ...]

    def run(
        self, directory: RunDirectory, callbacks: Callbacks = (), verbose: int | str = "auto"
    ) -> Architecture:
        """Return the architecture found: of the Pareto front, the one of the highest fitness."""
        self._announce(verbose)
        training = self._training()
        if self._inherits:
            epochs = self.searcher.epochs_of_widest
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
        while self._inherits and not directory.widest.exists():
            time.sleep(_WAIT_SECONDS)
        training, oracle = self._training(), self._oracle(_ignore, _ignore, _never)
        self._tuner(oracle, training, directory, callbacks).search()

    @property
    def _inherits(self) -> bool:
        return not self.fitness.costs.choices

    def _training(self) -> CandidateTraining:
        seed_everything(self.data.seed)
        # All of the images but those that are held out.
        size = self.searcher.subset and min(self.searcher.subset, self.data.facts.train_examples)
        data = self.data.subset(size)
        return CandidateTraining(data, self.searcher.last_rung, self.recipe)

    def _oracle(
        self,
        announce: Callable[[str], None],
        record: Callable[[EvolutionOracle], None],
        is_over: Callable[[str], bool],
    ) -> EvolutionOracle:
        searcher = self.searcher
        confirmation = Confirmation(searcher.confirm, searcher.epochs_to_confirm, self.incumbents)
        return EvolutionOracle(
            self.breeder,
            self.generations,
            tuple(searcher.objectives),
            self.fitness.figures,
            None if current_role() == "alone" else searcher.worker_timeout,
            announce,
            record,
            is_over,
            searcher.rungs or (searcher.candidate_epochs,),
            confirmation if searcher.confirm else None,
        )

    def _tuner(
        self,
        oracle: EvolutionOracle,
        training: CandidateTraining,
        run: RunDirectory,
        callbacks: Callbacks,
    ) -> EvolutionTuner:
        def evaluator(is_confirmation: bool) -> Evaluator:
            proxy, genes = self.space.proxy(), self.breeder.genes
            if is_confirmation:
                longer = dataclasses.replace(training, epochs=self.searcher.epochs_to_confirm)
                return Scratch(proxy, longer, genes)
            if not self._inherits:
                return Scratch(proxy, training, genes)
            kind = Shared if self.searcher.shared else Rebuilt
            return kind(self.space, training, load_widest(self.space, training, run))

        return EvolutionTuner(
            oracle, evaluator, run.directory, self.searcher.keep, run.architecture.exists, callbacks
        )

    def _conclude(
        self, oracle: EvolutionOracle, run: RunDirectory, verbose: int | str
    ) -> Architecture:
        """Write what was found, and return the best."""
        write_candidates(run, oracle)
        done = oracle.completed()
        if not done:
            failed = oracle.failures[0]
            raise DivergenceError(
                f"Every candidate of the first generation failed, {len(oracle.failures)} of them; "
                f"the first: {cause(failed)}. Mend that, or use a lower learning rate, in another "
                "directory."
            )
        # Those that reached the last rung that any did: figures of shorter trainings are others.
        rungs = {training.number: training.rung or 0 for training, _ in done}
        last = max(rungs.values())
        tried = [(training, trial) for training, trial in done if training.rung == last]
        figures = [dict(oracle.figures(trial)) for _, trial in tried]
        objectives = tuple(self.searcher.objectives)
        best = front([scores_of(one, objectives) for one in figures])
        write_front(run, [(self._architecture(tried[i][0]), figures[i]) for i in best])
        chosen = max(best, key=lambda i: (figures[i]["fitness"], -i))
        if verbose:
            self._report(len(rungs), len(oracle.failures), len(best), figures[chosen])
        ranked = sorted(range(len(tried)), key=lambda i: (-figures[i]["fitness"], i))
        order = [tried[i][0] for i in ranked]
        named: dict[int, Training] = {}
        # What was trained longer tells more.
        for one in (*self._named(oracle, run, tried[chosen][0], verbose), *order):
            named.setdefault(one.number, one)
        ranking = [self._architecture(one) for one in named.values()][:_RANKED]
        write_ranking(run.ranking, ranking)
        return ranking[0]

    def _named(
        self, oracle: EvolutionOracle, run: RunDirectory, best: Training, verbose: int | str
    ) -> list[Training]:
        """Return what the confirmation names, the others of it, and the best of the search."""
        confirmed = self._confirmed(oracle, run, verbose)
        keys = {self.breeder.identity(one) for one in self.incumbents}
        if (
            not confirmed
            and self.breeder.identity(best.candidate) in keys
            and self.searcher.confirm
        ):
            warn(f"No candidate was found that is better than {_GIVEN}, which is returned.")
        return [*confirmed, best]

    def _confirmed(
        self, oracle: EvolutionOracle, run: RunDirectory, verbose: int | str
    ) -> list[Training]:
        """Return what the confirmation names, then the others of it, and write `confirmed.csv`.

        It names the candidate of the highest fitness, but where the search was given a network:
        that one, unless another is better than it by more than the standard error of their
        difference. The difference is of the same images, of which most are classified alike, so
        it is known better than either accuracy.
        """
        confirmed = oracle.completed(is_confirmation=True)
        asked = [training for training in oracle.trainings if training.rung is None]
        if len(confirmed) < len(asked):
            lost = {one.number for one in asked} - {one.number for one, _ in confirmed}
            warn(
                f"{counted(len(lost), 'training')} of the confirmation failed, of candidate "
                f"{', '.join(str(number + 1) for number in sorted(lost))}: the best is named "
                f"without {'it' if len(lost) == 1 else 'them'}."
            )
        if not confirmed:
            return []
        keys = {self.breeder.identity(one) for one in self.incumbents}
        figures = {t.number: dict(oracle.figures(trial)) for t, trial in confirmed}
        trainings = {training.number: training for training, _ in confirmed}
        given = [n for n, t in trainings.items() if self.breeder.identity(t.candidate) in keys]
        incumbent = max(given, key=lambda n: (figures[n]["fitness"], -n), default=None)
        correct = {
            training.number: _read_correct(
                run.directory / "trials" / f"trial_{trial.trial_id}" / CORRECT
            )
            for training, trial in confirmed
        }
        others = [number for number in figures if number != incumbent] or list(figures)
        named = max(others, key=lambda n: (figures[n]["fitness"], -n))
        if incumbent is not None and incumbent != named:
            gain = figures[named]["fitness"] - figures[incumbent]["fitness"]
            error = 100 * standard_error(correct[named], correct[incumbent])
            told = f"{gain:+.2f} ± {error:.2f} points from it"
            if gain > error and verbose:
                log.info(
                    f"Candidate {named + 1} is better than the network that the search was given: "
                    f"{told}"
                )
            elif gain <= error:
                warn(
                    f"No candidate was found that is better than {_GIVEN}, which is "
                    f"returned: the best, number {named + 1}, is {told} (± one "
                    "standard error). Longer trainings (`rungs`, `confirm_epochs`) and a larger "
                    "`search_split` tell more apart."
                )
                named = incumbent
        rows = []
        for number in sorted(figures):
            is_incumbent = number == incumbent
            row: dict[str, Any] = {
                "candidate": number + 1,
                "role": "incumbent" if is_incumbent else "candidate",
                "chosen": int(number == named),
                "epochs": self.searcher.epochs_to_confirm,
                **{name: figures[number][name] for name in ("fitness", "accuracy")},
            }
            if incumbent is not None and not is_incumbent:
                row["gain"] = figures[number]["fitness"] - figures[incumbent]["fitness"]
                row["standard_error"] = 100 * standard_error(correct[number], correct[incumbent])
            rows.append(row)
        write_table(run.confirmed, rows)
        order = sorted(figures, key=lambda n: (n != named, -figures[n]["fitness"], n))
        return [trainings[number] for number in order]

    def _architecture(self, training: Training) -> Architecture:
        values = self.breeder.genes.values(training.candidate)
        return Architecture(self.space.name, self.space.settings(), values)

    def _report(self, done: int, failed: int, best: int, figures: dict[str, Any]) -> None:
        lost = f", {failed} failed" if failed else ""
        of_front = f"; {best} on the Pareto front" if len(self.searcher.objectives) > 1 else ""
        log.info(
            f"Trained {counted(done, 'candidate')}{lost}{of_front}. Best: "
            f"accuracy {figures['accuracy']:.2%}, fitness {figures['fitness']:.2f}, "
            f"{figures['flops'] / self.fitness.original:.2f} times the operations of the original",
        )

    def _announce(self, verbose: int | str) -> None:
        if not verbose:
            return
        searcher, facts = self.searcher, self.data.facts
        images = min(searcher.subset or facts.train_examples, facts.train_examples)
        steps = max(1, images // facts.batch_size)
        rungs = searcher.rungs or (searcher.candidate_epochs,)
        each, left = rungs[0] * searcher.population, searcher.population
        for before, after in pairwise(rungs):
            left = max(1, int(left * before / after))
            each += left * (after - before)
        last = searcher.epochs_to_confirm * (searcher.confirm + bool(self.incumbents))
        total = each * self.generations + (last if searcher.confirm else 0)
        climbs = f", the best up to {rungs[-1]}" if len(rungs) > 1 else ""
        log.info(
            f"Evolution: {counted(self.generations, 'generation')} of "
            f"{searcher.population} candidates, each {counted(rungs[0], 'epoch')} of "
            f"{counted(steps, 'step')}{climbs}"
            f"{f', and {last} to confirm the best' if searcher.confirm else ''}: "
            f"{counted(total, 'epoch')} in all; "
            f"{self.breeder.genes.size:,} candidates in all to choose from",
        )


_RANKED = 64
_GIVEN = (
    "the network that the search was given (one of `initial`, or else ratio 1 or the published "
    "cells)"
)


def _read_correct(path: Path) -> np.ndarray:
    """Return which of the held-out images a training of the confirmation has right."""
    try:
        found: np.ndarray = np.load(path)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"`{path}` is damaged ({type(error).__name__}: {first_line(error)}): delete its "
            "folder, and the same call trains that network again."
        ) from error
    return found


def standard_error(first: np.ndarray, second: np.ndarray) -> float:
    """Return the standard error of the difference of two accuracies on the same images."""
    differences = first.astype(np.float64) - second.astype(np.float64)
    if len(differences) < 2:
        return math.inf
    return float(differences.std(ddof=1) / math.sqrt(len(differences)))


def _ignore(told: object) -> None:
    """Take what is told to nobody."""


def _never(what: str) -> bool:
    """Return that there is time, whatever that would end."""
    return False


@dataclass(frozen=True)
class Evolution:
    r"""Evolve the operations, widths and depths of a network.

    Candidates are trained for a few epochs on a part of the data, and measured on images held out
    of it. Each is worth, as Shen et al. have it,

    \\[ f = \max(100 \, Acc - \lambda \frac{FLOPs}{FLOPs_{original}}, 0) \\]

    A generation is bred from the best candidates so far. In a space of widths alone the widest
    network is trained first, and every candidate starts with the first channels of its layers;
    where operations or depths are chosen too, candidates start from random weights. Cells are
    searched in the smaller network that their space has for it (`search_cells`).

    The search never returns less than it was given: the best candidates and the incumbent (ratio 1
    everywhere, the published cells of the space, `initial`) are trained again, longer and alike.

    !!! example
        ```python
        searcher = larq_nas.searchers.Evolution(
            population=16, rungs=(1, 4), subset=5000, strategy="aging", trade_off=0
        )
        model = larq_nas.search(train, validation, space=my_space, searcher=searcher, epochs=10)
        ```

    # Arguments
        population: number of candidates of a generation.
        candidate_epochs: epochs each is trained for; in a space of widths 0 measures what it
            inherits.
        widest_epochs: epochs the widest network of a space of widths is trained for first, by
            default 150; 0 leaves its weights random.
        subset: number of images that candidates and the widest network train on, as many of each
            class as can be; `None` for all.
        search_split: share of the training images, or of `subset`, that is held out of them to
            compare candidates on.
        trade_off: lambda: points of accuracy that are given for the operations of the original
            binary network, which has every ratio 1, or else the first operations and all blocks. By
            default the paper's 4 in a space of widths, and 0 elsewhere.
        strategy: `"genetic"`, `"aging"` or `"random"`, or a
            `larq_nas.searchers.evolution.Strategy`, of larq_nas or of your own.
        objectives: what to maximize: `("fitness",)` as the paper does, or several of `"accuracy"`,
            `"flops"` and the costs of a budget such as `"weight_bytes"` or `"binary_macs"`, for a
            Pareto front.
        recipe: how candidates are trained, in its last stage; by default that of the found network.
        keep: number of candidates whose weights are kept.
        shared: whether one trace serves all candidates of a space of widths; without, each is a
            network of its own: the same results, slower.
        worker_timeout: seconds after which the candidate of a silent worker is given to another.
        rungs: epochs after which candidates of a generation are compared, in place of
            `candidate_epochs`: of `(1, 4)` all train 1 epoch, and the best quarter goes on to 4.
        initial: networks that the first generation begins with: `"uniform"` and `"uniform:0.5"`
            (that ratio for every width, the first operations, all blocks), names of published
            architectures, files, runs, or the folder `pareto` of one.
        confirm: how many of the best candidates are trained again, and compared with the incumbent;
            0 returns what has the highest fitness. An incumbent that they are not better than, by
            more than a standard error, is returned.
        confirm_epochs: epochs of that, by default four times those of a candidate.

    # References
        - [Searching for Accurate Binary Neural Architectures](https://arxiv.org/abs/1909.07378)
        - [Regularized Evolution for Image Classifier Architecture
          Search](https://arxiv.org/abs/1802.01548)
        - [Hyperband](https://arxiv.org/abs/1603.06560)
    """

    name: ClassVar[str] = "evolution"
    default_epochs: ClassVar[int] = 50
    several_devices: ClassVar[bool] = False
    several_processes: ClassVar[bool] = True
    continues: ClassVar[bool] = True
    ranks: ClassVar[bool] = True
    smallest_ratio: ClassVar[float | None] = None

    population: int = 32
    candidate_epochs: int = 10
    widest_epochs: int | None = None
    subset: int | None = None
    search_split: float = SEARCH_SPLIT
    trade_off: float | None = None
    strategy: str | Strategy = "genetic"
    objectives: tuple[str, ...] = ("fitness",)
    recipe: Recipe | None = None
    keep: int = 3
    shared: bool = True
    worker_timeout: float = 60.0
    rungs: tuple[int, ...] | None = None
    initial: tuple[str | Path | Architecture, ...] = ()
    confirm: int = 3
    confirm_epochs: int | None = None

    def __post_init__(self) -> None:
        use_plain_numbers(self)
        require_fields(require_whole, self, "population", "subset", "confirm_epochs")
        require_at_least(2, population=self.population)
        require_fields(require_count, self, "candidate_epochs", "keep", "confirm")
        for name in ("widest_epochs", "trade_off"):
            if getattr(self, name) is not None:
                require = require_count if name == "widest_epochs" else require_not_negative
                require(**{name: getattr(self, name)})
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
        if self.rungs is not None:
            object.__setattr__(self, "rungs", _read_rungs(self.rungs))
        object.__setattr__(self, "initial", read_initial(self.initial))

    @property
    def last_rung(self) -> int:
        """Epochs of the longest training of a candidate."""
        return self.rungs[-1] if self.rungs else self.candidate_epochs

    @property
    def epochs_to_confirm(self) -> int:
        """Epochs of each training of the confirmation."""
        return self.confirm_epochs or _CONFIRM_TIMES * max(1, self.last_rung)

    @property
    def epochs_of_widest(self) -> int:
        """Epochs of the widest network."""
        return _WIDEST_EPOCHS if self.widest_epochs is None else self.widest_epochs

    @property
    def stages(self) -> dict[str, StageLogs]:
        """What the widest network and candidates log, where they train."""
        found = {"widest": StageLogs(("loss", "accuracy"))} if self.epochs_of_widest else {}
        if self.last_rung or self.confirm:
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
        name, of_strategy = strategy.name, {}
        if dataclasses.is_dataclass(strategy):
            of_strategy = dataclasses.asdict(strategy)  # type: ignore[arg-type]
            try:
                json.dumps(of_strategy)
            except (TypeError, ValueError) as error:
                raise InputError(
                    f"Settings of strategy `{name}` must be what JSON holds, by which a "
                    f"run is known again: {first_line(error)}."
                ) from None
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
            "strategy": {"name": name, **of_strategy},
            "recipe": self.recipe.settings() if self.recipe else None,
            "rungs": list(self.rungs) if self.rungs else None,
            "initial": [
                json.loads(one.to_json()) if isinstance(one, Architecture) else one
                for one in self.initial
            ],
        }

    def prepare(
        self, space: Space, data: Data, limits: Limits | None, epochs: int, recipe: Recipe
    ) -> EvolutionSearch:
        """Return an evolution; see `larq_nas.searchers.Searcher`."""
        recipe = self.recipe or recipe
        recipe = recipe.of(recipe.stages[-1])
        facts = data.facts
        costs = limits.costs if limits else SpaceCosts(space, facts.input_shape, facts.classes)
        genes = Genes.of({**costs.choices, **costs.expansions})
        self._require(space, costs, genes)
        images = facts.train_examples + facts.validation_examples
        if self.subset is not None and self.subset > images:
            raise InputError(
                f"`subset` must be at most the {images} training images, but got {self.subset}."
            )
        if self.subset is not None:
            data.require_subset(self.subset)
        if costs.choices:
            widest: dict[str, Value] = {n: max(a.ratios) for n, a in costs.expansions.items()}
            choose = Fix({**plain_values(costs), **widest})
            network = space.proxy().build(choose, facts.input_shape, facts.classes)
            require_training_memory(network, facts.batch_size, "A candidate", _SMALLER)
        else:
            self._require_inheritance(space, recipe, facts)
        reference = {**plain_values(costs), **dict.fromkeys(costs.expansions, 1)}
        trade_off = self.trade_off
        if trade_off is None:
            trade_off = 0.0 if costs.choices else _TRADE_OFF
        fitness = Fitness(costs, trade_off, genes.values, reference)
        initial = initial_candidates(
            self.initial, space, costs, genes, limits, with_own=bool(self.confirm)
        )
        if len(initial) > self.population:
            raise InputError(
                f"`population` must be at least the {len(initial)} networks that the first "
                f"generation begins with, but got {self.population}."
            )
        breeder = Breeder(
            genes,
            resolve_strategy(self.strategy),
            self.population,
            data.seed,
            partial(_fits, costs, limits, genes),
            _identity(costs, genes),
            initial,
        )
        return EvolutionSearch(self, space, data, epochs, recipe, breeder, fitness, initial)

    def _require(self, space: Space, costs: SpaceCosts, genes: Genes) -> None:
        """Raise `InputError` for a space or settings with which there is nothing to compare."""
        if genes.size == 1:
            raise InputError(
                f"Space `{space.name}` has one network, and nothing to choose: give it several "
                "operations, numbers of blocks or `ratios`, and no `expansion`."
            )
        for name in genes.options:
            if name in _COLUMNS or name.startswith(_OF_TRIALS):
                raise InputError(
                    f"Choice `{name}` of space `{space.name}` has the name of a column of "
                    "candidates.csv, or begins as settings of trials do: rename it."
                )
        if costs.choices and self.widest_epochs:
            raise InputError(
                "`widest_epochs` is for a space that chooses widths alone, but "
                f"`{next(iter(costs.choices))}` of space `{space.name}` is another choice: leave "
                "it out."
            )
        if costs.choices and not self.last_rung:
            raise InputError(
                f"`candidate_epochs` must be 1 or more in space `{space.name}`, whose candidates "
                "start from random weights, but got 0."
            )
        for name, asked in costs.expansions.items():
            left = sorted(set(map(float, asked.ratios)) - set(genes.options[name]))
            if left:
                warn(
                    f"Ratios {', '.join(f'{one:g}' for one in left)} of choice `{name}` give "
                    "widths that others give too, and are left out."
                )
        for name in self.objectives:
            if name == LATENCY and name not in costs.quantities:
                raise InputError(
                    "Objective `latency` needs a `budget` of latency and `latency_table`, of the "
                    "device that it is about."
                )

    def _require_inheritance(self, space: Space, recipe: Recipe, facts: DataFacts) -> None:
        """Raise `InputError` for what candidates cannot take from the widest network."""
        choose = Widest()
        widest = space.build(choose, facts.input_shape, facts.classes)
        Inheritance(widest, choose)
        require_training_memory(widest, facts.batch_size, "The widest network", _NARROWER)
        if self.shared:
            require_one_trace(space, recipe, facts)


_COLUMNS = ("candidate", "generation", "epochs", "failure", *OBJECTIVES)
_OF_TRIALS = ("tuner/", "accuracy_")
_WIDEST_EPOCHS, _TRADE_OFF, _CONFIRM_TIMES = 150, 4.0, 4


def _read_rungs(rungs: object) -> tuple[int, ...]:
    """Return epochs that rise, or raise `InputError`."""
    if not isinstance(rungs, tuple | list) or not rungs:
        raise InputError(f"`rungs` must be numbers of epochs such as (1, 4), but got {rungs!r}.")
    for epochs in rungs:
        require_whole(rungs=epochs)
    if any(after <= before for before, after in pairwise(rungs)):
        raise InputError(f"`rungs` must rise, as (1, 4) do, but got {tuple(rungs)}.")
    return tuple(rungs)


def _fits(costs: SpaceCosts, limits: Limits | None, genes: Genes, candidate: Candidate) -> bool:
    """Return whether a candidate computes anything, and keeps to the budget.

    One that cannot be built passes: its training tells why.
    """
    values = genes.values(candidate)
    try:
        if costs.cells:
            chosen, _ = costs.decode(values)
            if not all_alive(costs.cells, costs.choices, chosen):
                return False
        return limits is None or limits.allow(values)
    except Exception:  # noqa: BLE001 - of the user's own function
        return True


def _identity(costs: SpaceCosts, genes: Genes) -> Callable[[Candidate], Hashable]:
    """Return what is the same for candidates whose networks are the same."""
    known: dict[tuple[Any, ...], Hashable] = {}

    def identity(candidate: Candidate) -> Hashable:
        key = tuple(candidate.values())
        if not costs.choices:
            return key
        if key not in known:
            try:
                known[key] = costs.identity(genes.values(candidate))
            except Exception:  # noqa: BLE001 - of the user's own function
                known[key] = key
        return known[key]

    return identity
