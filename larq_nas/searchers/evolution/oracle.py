"""Crash-safe keras-tuner oracle that hands out candidates by generation.

From TensorFlow 2.16 on, larq needs `tf_keras`, while keras-tuner asks the package `keras` for its
version, finds 3, and refuses models of Keras 2. It is told another version while it is imported.
"""

import importlib
import json
import os
import shutil
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus

from larq_nas.errors import InputError, callers_level
from larq_nas.files import write_atomically
from larq_nas.searchers.evolution.fitness import scores_of
from larq_nas.searchers.evolution.generation import Breeder, Genome, Scored

__all__ = [
    "FAILURE",
    "EvolutionOracle",
    "Trial",
    "TrialStatus",
    "cause",
    "keras_tuner",
    "read_state",
]


def _import() -> ModuleType:
    if os.environ.get("TF_USE_LEGACY_KERAS") != "1":
        return importlib.import_module("keras_tuner")
    keras = importlib.import_module("keras")
    version = keras.version
    keras.version = lambda: "2.99"  # type: ignore[attr-defined]
    try:
        return importlib.import_module("keras_tuner")
    finally:
        keras.version = version  # type: ignore[attr-defined]


_import()


_PREVIOUS = ".previous"
_DAMAGES = (OSError, ValueError, LookupError, TypeError, AttributeError)

State = TypeVar("State")


def write_state(path: Path, state: Any, keep_previous: bool = False) -> None:
    """Write `state` as JSON in one step.

    # Arguments
        path: the file.
        state: what JSON can hold.
        keep_previous: whether the file as it was stays beside it.
    """
    if keep_previous and path.exists():
        write_atomically(_previous(path), path.read_bytes())
    write_atomically(path, json.dumps(state))


def read_state(path: Path, use: Callable[[Any], State]) -> State | None:
    """Return what `use` makes of the state in `path`, or if it is damaged of the one before it.

    # Arguments
        path: the file.
        use: reads a state, and fails if it is not whole.

    # Returns
        `None` if neither can be read.
    """
    try:
        return use(_read(path))
    except _DAMAGES as error:
        damage = f"`{path}` is damaged ({type(error).__name__}: {error})"
    try:
        state = use(_read(_previous(path)))
    except _DAMAGES:
        warnings.warn(f"{damage}: what it held is made again.", stacklevel=callers_level())
        return None
    warnings.warn(f"{damage}: going on from the one before it.", stacklevel=callers_level())
    shutil.copyfile(_previous(path), path)
    return state


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _previous(path: Path) -> Path:
    return path.with_name(f"{path.stem}{_PREVIOUS}{path.suffix}")


FINAL = (TrialStatus.COMPLETED, TrialStatus.FAILED)
"""How a trial can have ended."""


class KeptOracle(keras_tuner.Oracle):
    """An oracle that goes on exactly, wherever it was killed.

    keras-tuner writes in place, and asks for a trial again that ended just before.
    """

    def save(self) -> None:
        write_state(Path(self._get_oracle_fname()), self.get_state(), keep_previous=True)

    def _save_trial(self, trial: Trial) -> None:
        write_state(Path(self._get_trial_dir(trial.trial_id)) / "trial.json", trial.get_state())

    def reload(self) -> None:
        """Go on from what is in the project's directory, if anything is."""
        paths = sorted(Path(self._project_dir).glob("trial_*/trial.json"))
        file, unused = Path(self._get_oracle_fname()), self.get_state()
        if not paths and not file.exists():
            return
        read = [read_state(path, Trial.from_state) for path in paths]
        self.trials = {trial.trial_id: trial for trial in read if trial}
        # A field that is missing fails here already.
        state = read_state(file, lambda found: {name: found[name] for name in unused}) or unused
        # A trial is written before this state is, which may not know how it ended.
        state["ongoing_trials"] = {
            name: trial_id
            for name, trial_id in state["ongoing_trials"].items()
            if trial_id in self.trials and self.trials[trial_id].status not in FINAL
        }
        self.set_state(state)
        self.after_reload()
        self._retry_queue = self._unfinished()
        ended = [i for i in sorted(self.trials) if self.trials[i].status in FINAL]
        known = [i for i in state["end_order"] if i in ended]
        self.end_order = known + [i for i in ended if i not in known]

    def _unfinished(self) -> list[str]:
        """Return the trials that nobody has and nobody ended, the first last."""
        held = {trial.trial_id for trial in self.ongoing_trials.values()}
        found = [i for i, trial in self.trials.items() if trial.status not in FINAL]
        return sorted(set(found) - held, key=int, reverse=True)

    def after_reload(self) -> None:
        """Check what was read against what the oracle is."""


class LiveWorkers(set[str]):
    """Names of workers; one that was not heard of for long no longer counts.

    keras-tuner's chief ends when there are none left.

    # Arguments
        watch: knows when each was heard of.
    """

    def __init__(self, watch: "Watch") -> None:
        super().__init__()
        self._watch = watch

    def __len__(self) -> int:
        return sum(not self._watch.is_lost(name) for name in self)

    def remove(self, name: str) -> None:
        # Asked again, a worker that was told to stop is told again.
        self.discard(name)


class Watch:
    """Remembers when workers were heard of.

    # Arguments
        timeout: seconds after which a silent worker is lost; `None` for never.
    """

    def __init__(self, timeout: float | None) -> None:
        self.timeout = timeout
        self._heard: dict[str, float] = {}
        self.losses: Counter[str] = Counter()

    def hear(self, name: str) -> None:
        """Note that a worker is there."""
        self._heard[name] = time.monotonic()

    def is_lost(self, name: str) -> bool:
        """Return whether a worker was silent for too long; a new name is heard of now."""
        heard = self._heard.setdefault(name, time.monotonic())
        return self.timeout is not None and time.monotonic() - heard > self.timeout

    def lost(self, holders: Mapping[str, str]) -> dict[str, str]:
        """Return those of `holders` that are lost, with what they hold, and count it.

        # Arguments
            holders: the trial that each worker has.
        """
        found = {name: trial for name, trial in holders.items() if self.is_lost(name)}
        self.losses.update(found.values())
        return found


FAILURE = "failure.txt"

_MOST_LOSSES = 3


class WatchedOracle(KeptOracle):
    """An oracle that outlives its workers.

    A worker that is silent for too long is taken for lost, and its trial given to another; a
    trial that loses one worker after the other has failed.

    # Arguments
        worker_timeout: seconds after which a silent worker is lost; `None` for never.
        announce: called with each line for the user.
        **settings: those of `keras_tuner.Oracle`.
    """

    def __init__(
        self, worker_timeout: float | None, announce: Callable[[str], None], **settings: Any
    ) -> None:
        super().__init__(**settings)
        self._watch = Watch(worker_timeout)
        self._announce = announce
        self.tuner_ids = LiveWorkers(self._watch)
        self.verbose = 0

    @property
    def heartbeat(self) -> float:
        """Seconds between the signs of life of a worker."""
        return (self._watch.timeout or 60) / 5

    @keras_tuner.synchronized
    def create_trial(self, tuner_id: str) -> Trial:
        self._watch.hear(tuner_id)
        self._take_from_the_lost()
        trial: Trial = super().create_trial(tuner_id)
        return trial

    def _take_from_the_lost(self) -> None:
        holders = {name: trial.trial_id for name, trial in self.ongoing_trials.items()}
        for name, trial_id in self._watch.lost(holders).items():
            self.ongoing_trials.pop(name)
            if self._watch.losses[trial_id] < _MOST_LOSSES:
                self._announce(
                    f"Worker {name} has not been heard of for {self._watch.timeout:g} s: candidate "
                    f"{int(trial_id) + 1} is given to another"
                )
                self._retry_queue.append(trial_id)
            else:
                trial = self.trials[trial_id]
                trial.status = TrialStatus.FAILED
                trial.message = f"{_MOST_LOSSES} workers were lost while they trained it"
                self._finish(trial)

    @keras_tuner.synchronized
    def update_trial(self, trial_id: str, metrics: Mapping[str, float], step: int = 0) -> Trial:
        for name, ongoing in self.ongoing_trials.items():
            if ongoing.trial_id == trial_id:
                self._watch.hear(name)
        trial: Trial = self.trials[trial_id]
        if metrics and trial.status not in FINAL:
            return super().update_trial(trial_id, metrics, step)
        return trial

    @keras_tuner.synchronized
    def end_trial(self, trial: Trial) -> None:
        if trial.trial_id in self.end_order:
            # A worker that was taken for lost has come back with what another has finished.
            return
        if trial.status != TrialStatus.COMPLETED:
            trial.message = trial.message or self._failure(trial.trial_id)
        super().end_trial(trial)
        self._finish(self.trials[trial.trial_id])

    def _failure(self, trial_id: str) -> str | None:
        """Return why a trial failed, which keras-tuner's workers do not send."""
        path = Path(self._get_trial_dir(trial_id)) / FAILURE
        return path.read_text(encoding="utf-8") if path.exists() else None

    def _finish(self, trial: Trial) -> None:
        """Keep a trial that has ended, and tell of it."""
        self.tell(trial)
        if trial.status == TrialStatus.FAILED:
            if trial.trial_id not in self.end_order:
                self.end_order.append(trial.trial_id)
            self._save_trial(trial)
            self.save()

    def tell(self, trial: Trial) -> None:
        """Tell the user how a trial ended."""

    def get_state(self) -> dict[str, Any]:
        return {**super().get_state(), "lost": dict(self._watch.losses)}

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self._watch.losses.update(state["lost"])


def cause(trial: Trial) -> str:
    """Return why a trial failed, in a line."""
    lines = [line for line in (trial.message or "").splitlines() if line.strip()]
    return lines[0] if lines else "its accuracy is not a number"


Figures = Callable[[Genome, float], Mapping[str, float]]
"""Returns costs and fitness of a candidate of that accuracy."""


class EvolutionOracle(WatchedOracle):
    """Hands out the candidates of one generation after the other.

    A generation follows from the scores of those before and the seed alone, whoever scored
    them and in whichever order. Every candidate is a trial of keras-tuner, with the same number.

    # Arguments
        breeder: makes the generations.
        generations: how many.
        objectives: what to maximize, by name.
        figures: costs and fitness of a candidate.
        worker_timeout: seconds after which what a silent worker had is given to another.
        announce: called with each line for the user.
        record: called with the oracle when all candidates of a generation have ended.
    """

    def __init__(
        self,
        breeder: Breeder,
        generations: int,
        objectives: tuple[str, ...],
        figures: Figures,
        worker_timeout: float | None = None,
        announce: Callable[[str], None] = print,
        record: Callable[["EvolutionOracle"], None] = lambda oracle: None,
    ) -> None:
        parameters = keras_tuner.HyperParameters()
        for name, options in breeder.genes.options.items():
            parameters.Choice(name, [float(option) for option in options])
        super().__init__(
            worker_timeout,
            announce,
            objective=keras_tuner.Objective("fitness", "max"),
            # Without: with it, a worker would be told to stop while others may be lost.
            max_trials=None,
            hyperparameters=parameters,
            allow_new_entries=False,
            tune_new_entries=False,
            # keras-tuner takes 0 for a random seed; its own is not used.
            seed=breeder.seed + 1,
            # Counted here, where a generation of failures ends the search with its cause.
            max_consecutive_failed_trials=generations * breeder.population + 1,
        )
        self.breeder = breeder
        self.wanted_generations = generations
        self.objectives = objectives
        self.generations: list[tuple[Genome, ...]] = []
        self._began: float | None = None
        self._figures = figures
        self._record = record

    @property
    def genomes(self) -> list[Genome]:
        """All candidates, in the order of their trials."""
        return [genome for generation in self.generations for genome in generation]

    def scored(self) -> list[Scored]:
        """Return the candidates whose trials have ended, in the order of their numbers."""
        found = []
        for trial_id in sorted(self.trials, key=int):
            trial = self.trials[trial_id]
            if trial.status in FINAL and int(trial_id) < len(self.genomes):
                found.append(Scored(self.genomes[int(trial_id)], self._scores(trial)))
        return found

    def figures(self, trial: Trial) -> Mapping[str, float]:
        """Return accuracy, fitness and costs of a completed trial."""
        accuracy = trial.metrics.get_last_value("accuracy")
        return self._figures(self.genomes[int(trial.trial_id)], accuracy)

    def _scores(self, trial: Trial) -> tuple[float, ...] | None:
        if trial.status != TrialStatus.COMPLETED:
            return None
        return scores_of(self.figures(trial), self.objectives)

    @property
    def failures(self) -> list[Trial]:
        """The trials that failed."""
        return [trial for trial in self.trials.values() if trial.status == TrialStatus.FAILED]

    @property
    def all_failed(self) -> bool:
        """Whether every candidate of the first generation failed."""
        first = len(self.generations[0]) if self.generations else 0
        return 0 < first <= len(self.failures) == len(self.trials)

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        number = int(trial_id)
        if number == len(self.genomes):
            if any(trial.status not in FINAL for trial in self.trials.values()):
                return {"status": TrialStatus.IDLE}
            if not self._add_generation():
                return {"status": TrialStatus.STOPPED}
        values = self.breeder.genes.values(self.genomes[number])
        return {
            "status": TrialStatus.RUNNING,
            "values": {name: float(value) for name, value in values.items()},
        }

    def _add_generation(self) -> bool:
        """Add a generation; return whether there is one."""
        done = len(self.generations)
        if done == self.wanted_generations or self.all_failed:
            return False
        self._record(self)
        if done == 1:
            self._announce_time()
        generation = self.breeder.generation(done, self.scored())
        notes = [f"{len(generation.genomes)} new candidates"]
        if generation.known:
            notes.append(f"{generation.known} drawn again left out")
        if generation.over_budget:
            notes.append(f"{generation.over_budget} over budget rejected")
        self._announce(f"Generation {done + 1}/{self.wanted_generations}: {', '.join(notes)}")
        if not generation.genomes:
            self._announce("No further candidate was found: the search ends here")
            self.wanted_generations = done
            return False
        self.generations.append(generation.genomes)
        if not done:
            self._began = time.monotonic()
        return True

    def _announce_time(self) -> None:
        """Tell how long the search will take, if this process saw the first generation whole."""
        if self._began is not None:
            each = time.monotonic() - self._began
            minutes = each * (self.wanted_generations - 1) / 60
            self._announce(
                f"The first generation took {each:.0f} s: about {minutes:.0f} min for the others"
            )

    def tell(self, trial: Trial) -> None:
        number = int(trial.trial_id)
        where = f"Candidate {number + 1}/{len(self.genomes)}"
        if trial.status == TrialStatus.COMPLETED:
            figures = self.figures(trial)
            best = max(t.score for t in self.trials.values() if t.score is not None)
            self._announce(
                f"{where}: accuracy {figures['accuracy']:.2%}, fitness {figures['fitness']:.2f} "
                f"(best {best:.2f})"
            )
        elif trial.status == TrialStatus.FAILED:
            self._announce(f"{where} failed: {cause(trial)}")

    def get_state(self) -> dict[str, Any]:
        state: dict[str, Any] = super().get_state()
        return {
            **state,
            # keras-tuner lists a set, in another order in each process.
            "tried_so_far": sorted(state["tried_so_far"]),
            "generations": [[list(genome) for genome in one] for one in self.generations],
            "wanted_generations": self.wanted_generations,
            "random_state": [self.breeder.seed, len(self.generations)],
        }

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self.generations = [tuple(map(tuple, one)) for one in state["generations"]]
        self.wanted_generations = state["wanted_generations"]

    def after_reload(self) -> None:
        """Make what the state did not know from the trials, and trials again that are lost."""
        numbers = {int(trial_id) for trial_id in self.trials}
        wanted = max(numbers, default=-1) + 1
        while len(self.genomes) < wanted and self._all_ended() and self._add_generation():
            pass
        # Those of a generation that cannot be bred before others are trained again.
        for number in sorted(number for number in numbers if number >= len(self.genomes)):
            del self.trials[f"{number:04d}"]
        for number in range(min(wanted, len(self.genomes))):
            values = self.breeder.genes.values(self.genomes[number])
            if number not in numbers:
                self._make_again(number, values)
            elif self.trials[f"{number:04d}"].hyperparameters.values != values:
                raise InputError(
                    f"Trial {number:04d} in `{self._project_dir}` is not of this search: delete "
                    "that folder to search again."
                )

    def _all_ended(self) -> bool:
        return len(self.scored()) == len(self.genomes)

    def _make_again(self, number: int, values: Mapping[str, Any]) -> None:
        """Add a trial that was lost, to be run."""
        hyperparameters = self.hyperparameters.copy()
        hyperparameters.values = {name: float(value) for name, value in values.items()}
        trial_id = f"{number:04d}"
        self.trials[trial_id] = Trial(hyperparameters, trial_id, TrialStatus.RUNNING)
        self._run_times.pop(trial_id, None)
