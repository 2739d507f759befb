"""Crash-safe oracle of keras-tuner: it hands out candidates, generation by generation.

From TensorFlow 2.16 on, larq needs `tf_keras`, while keras-tuner asks the package `keras` for its
version, finds 3, and refuses models of Keras 2. It is told another version while it is imported.
"""

import dataclasses
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

from larq_nas.errors import InputError, warn
from larq_nas.files import write_atomically
from larq_nas.log import counted
from larq_nas.searchers.evolution.fitness import scores_of
from larq_nas.searchers.evolution.generation import Breeder, Candidate, Scored, ordered
from larq_nas.training.callbacks import duration

_LEGACY = os.environ.get("TF_USE_LEGACY_KERAS") == "1"
with mock.patch("keras.version", return_value="2.99", create=True) if _LEGACY else nullcontext():
    import keras_tuner as keras_tuner
    from keras_tuner.engine.trial import Trial as Trial
    from keras_tuner.engine.trial import TrialStatus as TrialStatus
    from keras_tuner.errors import FailedTrialError as FailedTrialError
    from keras_tuner.errors import FatalError as FatalError


_DAMAGES = (OSError, ValueError, LookupError, TypeError, AttributeError)

State = TypeVar("State")


def read_state(path: Path, use: Callable[[Any], State]) -> State | None:
    """Return what `use` makes of the state in `path`, or if it is damaged of the one before it.

    `use` fails for a state that is not whole; if neither can be read, `None` is returned.
    """
    try:
        return use(_read(path))
    except _DAMAGES as error:
        damage = f"`{path}` is damaged ({type(error).__name__}: {error})"
    try:
        state = use(_read(_previous(path)))
    except _DAMAGES:
        warn(f"{damage}: what it held is made again.")
        return None
    warn(f"{damage}: going on from the one before it.")
    shutil.copyfile(_previous(path), path)
    return state


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _previous(path: Path) -> Path:
    return path.with_name(f"{path.stem}.previous{path.suffix}")


class LiveWorkers(set[str]):
    """Names of workers, without those that are lost: keras-tuner's chief ends with the last."""

    def __init__(self, is_lost: Callable[[str], bool]) -> None:
        super().__init__()
        self._is_lost = is_lost

    def __len__(self) -> int:
        return sum(not self._is_lost(name) for name in self)

    def remove(self, name: str) -> None:
        # Asked again, a worker that was told to stop is told again.
        self.discard(name)


def cause(trial: Trial) -> str:
    """Return why a trial failed, in a line."""
    lines = [line for line in (trial.message or "").splitlines() if line.strip()]
    return lines[0] if lines else "its accuracy is not a number"


_FINAL = (TrialStatus.COMPLETED, TrialStatus.FAILED)
FAILURE = "failure.txt"
_MOST_LOSSES = 3


# What a training leaves: for those that go on from it, and which held-out images it has right.
STATE, CORRECT = "state.npz", "correct.npy"
CONFIRMATION_ROUND = "confirmation"


@dataclass(frozen=True)
class Training:
    """A training of a candidate: a trial.

    # Arguments
        number: number of the candidate, from 0.
        candidate: its genes.
        generation: number of the generation it is of, from 0.
        rung: the rung it climbs, from 0; `None` for the confirmation.
        source: number of the trial that it goes on from.
    """

    number: int
    candidate: Candidate
    generation: int
    rung: int | None = 0
    source: int | None = None


@dataclass(frozen=True)
class Confirmation:
    """The last round: the best candidates and the incumbent, trained alike and compared.

    # Arguments
        best: number of candidates, beside the incumbent.
        epochs: epochs of each.
        incumbents: the networks that the search was given, of which the best is compared.
    """

    best: int
    epochs: int
    incumbents: tuple[Candidate, ...] = ()


class EvolutionOracle(keras_tuner.Oracle):
    """Hands out the candidates of one generation after the other.

    What can be trained at once is a round: a generation, those of it that climb the next rung, and
    at the end the confirmation. A round follows from the scores of those before and the seed alone,
    whoever scored them and in whichever order. Every training is a trial of keras-tuner.

    It goes on exactly, wherever it was killed; keras-tuner's own writes in place, and asks for a
    trial again that ended just before. It outlives its workers: one that is silent for longer than
    `worker_timeout` seconds is taken for lost, and its trial given to another; a trial that loses
    one worker after the other has failed.

    # Arguments
        breeder: makes generations.
        generations: how many.
        objectives: what is maximized.
        figures: returns costs and fitness of a candidate of some accuracy.
        worker_timeout: seconds after which a silent worker is lost.
        announce: takes lines of progress.
        record: is called when all trainings of a round have ended.
        is_over: tells whether there is no time for another generation.
        rungs: epochs at which candidates are compared, of which the best go on.
        confirmation: what is trained again before the best is named.
    """

    def __init__(
        self,
        breeder: Breeder,
        generations: int,
        objectives: tuple[str, ...],
        figures: Callable[[Candidate, float], Mapping[str, float]],
        worker_timeout: float | None = None,
        announce: Callable[[str], None] = print,
        record: Callable[["EvolutionOracle"], None] = lambda oracle: None,
        is_over: Callable[[str], bool] = lambda what: False,
        rungs: tuple[int, ...] = (0,),
        confirmation: Confirmation | None = None,
    ) -> None:
        parameters = keras_tuner.HyperParameters()
        for name, options in breeder.genes.options.items():
            parameters.Choice(name, _plain(options))
        super().__init__(
            objective=keras_tuner.Objective("fitness", "max"),
            # Without: with it, a worker would be told to stop while others may be lost.
            max_trials=None,
            hyperparameters=parameters,
            allow_new_entries=False,
            tune_new_entries=False,
            # keras-tuner takes 0 for a random seed; its own is not used.
            seed=breeder.seed + 1,
            # Counted here, where a generation of failures ends the search with its cause.
            max_consecutive_failed_trials=2**31,
        )
        self.breeder = breeder
        self.rungs = rungs
        self.confirmation = confirmation
        self.asked_generations = self.wanted_generations = generations
        self.objectives = objectives
        self.rounds: list[tuple[Training, ...]] = []
        self.verbose = 0
        self.tuner_ids = LiveWorkers(self._is_lost)
        self._timeout = worker_timeout
        self._heard: dict[str, float] = {}
        self._losses: Counter[str] = Counter()
        self._began: float | None = None
        self._figures = figures
        self._announce = announce
        self._record = record
        self._is_over = is_over

    @property
    def heartbeat(self) -> float:
        """Seconds between the signs of life of a worker."""
        return (self._timeout or 60) / 5

    @property
    def trainings(self) -> list[Training]:
        """All trainings, in the order of their trials."""
        return [training for one in self.rounds for training in one]

    @property
    def generations(self) -> list[tuple[Candidate, ...]]:
        """The candidates of each generation."""
        firsts = (one for one in self.rounds if one[0].rung == 0)
        return [tuple(training.candidate for training in one) for one in firsts]

    @property
    def candidates(self) -> list[Candidate]:
        """All candidates, in the order of their numbers."""
        return [candidate for generation in self.generations for candidate in generation]

    def completed(self, is_confirmation: bool = False) -> list[tuple[Training, Trial]]:
        """Return the trainings that ended well, and their trials, in the order of their numbers."""
        found = []
        for number, training in enumerate(self.trainings):
            trial = self.trials.get(f"{number:04d}")
            if trial is None or (training.rung is None) != is_confirmation:
                continue
            if trial.status == TrialStatus.COMPLETED:
                found.append((training, trial))
        return found

    @property
    def failures(self) -> list[Trial]:
        """The trials that failed."""
        return [trial for trial in self.trials.values() if trial.status == TrialStatus.FAILED]

    @property
    def all_failed(self) -> bool:
        """Whether every candidate of the first generation failed."""
        first = len(self.generations[0]) if self.rounds else 0
        return 0 < first <= len(self.failures) == len(self.trials)

    def _ended(self, count: int) -> bool:
        """Return whether the first trainings have all ended."""
        trials = [self.trials.get(f"{number:04d}") for number in range(count)]
        return all(trial is not None and trial.status in _FINAL for trial in trials)

    def scored(self) -> list[Scored]:
        """Return the candidates of which a training has ended, in the order of their numbers."""
        found: dict[int, Scored] = {}
        for number, training in enumerate(self.trainings):
            trial = self.trials.get(f"{number:04d}")
            if trial is None or trial.status not in _FINAL or training.rung is None:
                continue
            done = trial.status == TrialStatus.COMPLETED
            scores = scores_of(self.figures(trial), self.objectives) if done else None
            found[training.number] = Scored(training.candidate, scores, training.rung)
        return [found[number] for number in sorted(found)]

    def figures(self, trial: Trial) -> Mapping[str, float]:
        """Return accuracy, fitness and costs of a completed trial."""
        return self._figures(self._values(trial), trial.metrics.get_last_value("accuracy"))

    def _values(self, trial: Trial) -> Candidate:
        return self.trainings[int(trial.trial_id)].candidate

    def _parameters(self, training: Training) -> dict[str, Any]:
        """Return what a trial is of: the genes, and as keras-tuner names it, how it is trained."""
        found = _scalars(training.candidate)
        if training.rung is None:
            epochs = self.confirmation.epochs if self.confirmation else 0
            return {**found, "tuner/epochs": epochs, "tuner/round": CONFIRMATION_ROUND}
        if len(self.rungs) == 1:
            return found
        found |= {"tuner/epochs": self.rungs[training.rung], "tuner/round": training.rung}
        if training.source is not None:
            found |= {
                "tuner/initial_epoch": self.rungs[training.rung - 1],
                "tuner/trial_id": f"{training.source:04d}",
            }
        return {**found, "tuner/candidate": training.number}

    @keras_tuner.synchronized
    def create_trial(self, tuner_id: str) -> Trial:
        self._heard[tuner_id] = time.monotonic()
        self._take_from_the_lost()
        trial: Trial = super().create_trial(tuner_id)
        return trial

    def _is_lost(self, name: str) -> bool:
        """Return whether a worker was silent for too long; a new name is heard of now."""
        heard, timeout = self._heard.setdefault(name, time.monotonic()), self._timeout
        return timeout is not None and time.monotonic() - heard > timeout

    def _take_from_the_lost(self) -> None:
        lost = {n: t.trial_id for n, t in self.ongoing_trials.items() if self._is_lost(n)}
        self._losses.update(lost.values())
        for name, trial_id in lost.items():
            self.ongoing_trials.pop(name)
            if self._losses[trial_id] < _MOST_LOSSES:
                self._announce(
                    f"Worker {name} has not been heard of for {self._timeout:g} s: candidate "
                    f"{int(trial_id) + 1} is given to another"
                )
                self._retry_queue.append(trial_id)
            else:
                trial = self.trials[trial_id]
                trial.status = TrialStatus.FAILED
                trial.message = f"{_MOST_LOSSES} workers were lost while they trained it"
                self._finish(trial)

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        number = int(trial_id)
        if number == len(self.trainings):
            if not self._ended(number):
                return {"status": TrialStatus.IDLE}
            if not self._add_round():
                return {"status": TrialStatus.STOPPED}
        values = self._parameters(self.trainings[number])
        return {"status": TrialStatus.RUNNING, "values": values}

    def _add_round(self) -> bool:
        """Add what follows from the rounds so far; return whether there is anything."""
        if self.all_failed:
            return False
        if self.rounds:
            self._record(self)
        if self.rounds and self.rounds[-1][0].rung is None:
            return False
        if not (self._climb() or self._breed() or self._confirm()):
            return False
        # Of a training nobody goes on with, the state is of no use.
        sources = {training.source for training in self.rounds[-1]}
        for path in Path(self._project_dir).glob(f"trial_*/{STATE}"):
            if int(path.parent.name.removeprefix("trial_")) not in sources:
                path.unlink()
        return True

    def _climb(self) -> bool:
        """Add the best of the last round on the next rung, if there is one."""
        last = self.rounds[-1] if self.rounds else ()
        rung = last[0].rung if last else None
        if rung is None or rung + 1 == len(self.rungs):
            return False
        first = len(self.trainings) - len(last)
        scored = []
        for place, training in enumerate(last):
            trial = self.trials[f"{first + place:04d}"]
            done = trial.status == TrialStatus.COMPLETED
            scores = scores_of(self.figures(trial), self.objectives) if done else None
            scored.append(Scored(training.candidate, scores))
        # Half of them where epochs double, a quarter where they are four times as many.
        share = self.rungs[rung] / self.rungs[rung + 1]
        best = ordered(scored)[: max(1, int(len(last) * share))]
        if not best:
            return False
        self.rounds.append(
            tuple(
                dataclasses.replace(last[place], rung=rung + 1, source=first + place)
                for place in sorted(best)
            )
        )
        self._announce(
            f"Generation {last[0].generation + 1}: the best {len(best)} of {len(last)} go on to "
            f"{counted(self.rungs[rung + 1], 'epoch')}"
        )
        return True

    def _breed(self) -> bool:
        """Add a generation, if one is wanted and there are new candidates."""
        done = len(self.generations)
        if done == self.wanted_generations:
            return False
        if done and self._is_over(f"The evolution ended after generation {done}"):
            self.wanted_generations = done
            return False
        # If this process saw the first generation whole.
        if done == 1 and self._began is not None:
            each = time.monotonic() - self._began
            others = duration(each * (self.wanted_generations - 1))
            self._announce(
                f"The first generation took {duration(each)}: about {others} for the others"
            )
        generation = self.breeder.generation(done, self.scored())
        notes = [counted(len(generation.candidates), "new candidate")]
        if generation.repeated:
            notes.append(f"{counted(generation.repeated, 'duplicate')} left out")
        if generation.over_budget:
            notes.append(
                f"{generation.over_budget} over the budget were made smaller, or left out where "
                "that gave none that fits and is new"
            )
        self._announce(f"Generation {done + 1}/{self.wanted_generations}: {', '.join(notes)}")
        if not generation.candidates:
            self._announce("No further candidate was found: the search ends here")
            self.wanted_generations = done
            return False
        first = len(self.candidates)
        self.rounds.append(
            tuple(
                Training(first + place, candidate, done)
                for place, candidate in enumerate(generation.candidates)
            )
        )
        if not done:
            self._began = time.monotonic()
        return True

    def _confirm(self) -> bool:
        """Add the training of the best candidates and of the incumbent, once more and alike."""
        if not self.confirmation or self._is_over("The best is named without confirmation"):
            return False
        scored, best = self.scored(), {}
        figures = {
            training.number: self.figures(trial)
            for training, trial in self.completed()
            # One that failed on a later rung has no place among those of that rung.
            if scored[training.number].scores is not None
        }
        ranks = [one.rung for one in scored]
        order = sorted(figures, key=lambda n: (-ranks[n], -figures[n]["fitness"], n))
        keys = {self.breeder.identity(one) for one in self.confirmation.incumbents}
        given = [n for n in order if self.breeder.identity(scored[n].candidate) in keys]
        for number in [*order[: self.confirmation.best], *given[:1]]:
            best[number] = Training(number, scored[number].candidate, len(self.generations), None)
        if len(best) < 2:
            return False
        self.rounds.append(tuple(best[number] for number in sorted(best)))
        told = ", ".join(str(number + 1) for number in sorted(best))
        self._announce(
            f"Confirmation: candidates {told} are trained anew for "
            f"{counted(self.confirmation.epochs, 'epoch')} each, and compared"
        )
        return True

    @keras_tuner.synchronized
    def update_trial(self, trial_id: str, metrics: Mapping[str, float], step: int = 0) -> Trial:
        for name, ongoing in self.ongoing_trials.items():
            if ongoing.trial_id == trial_id:
                self._heard[name] = time.monotonic()
        trial: Trial = self.trials[trial_id]
        if metrics and trial.status not in _FINAL:
            return super().update_trial(trial_id, metrics, step)
        return trial

    @keras_tuner.synchronized
    def end_trial(self, trial: Trial) -> None:
        if trial.trial_id in self.end_order:
            # A worker that was taken for lost has come back with what another has finished.
            return
        if trial.status != TrialStatus.COMPLETED and not trial.message:
            # keras-tuner's workers do not send it.
            path = Path(self._get_trial_dir(trial.trial_id)) / FAILURE
            trial.message = path.read_text(encoding="utf-8") if path.exists() else None
        super().end_trial(trial)
        self._finish(self.trials[trial.trial_id])

    def _finish(self, trial: Trial) -> None:
        """Keep a trial that has ended, and tell of it."""
        training = self.trainings[int(trial.trial_id)]
        where = f"Candidate {training.number + 1}/{len(self.candidates)}"
        if trial.status == TrialStatus.COMPLETED:
            figures = self.figures(trial)
            # Figures of shorter or longer trainings are others.
            done = self.completed(is_confirmation=training.rung is None)
            alike = [one for other, one in done if other.rung == training.rung]
            best = max(self.figures(one)["fitness"] for one in alike)
            self._announce(
                f"{where}: accuracy {figures['accuracy']:.2%}, fitness {figures['fitness']:.2f} "
                f"(best {best:.2f})"
            )
        elif trial.status == TrialStatus.FAILED:
            told = ", ".join(
                f"{name}={value if isinstance(value, str) else format(value, 'g')}"
                for name, value in training.candidate.items()
            )
            self._announce(f"{where} ({told}) failed: {cause(trial)}")
            if trial.trial_id not in self.end_order:
                self.end_order.append(trial.trial_id)
            self._save_trial(trial)
            self.save()

    def get_state(self) -> dict[str, Any]:
        state: dict[str, Any] = super().get_state()
        return {
            **state,
            "lost": dict(self._losses),
            # keras-tuner lists a set, in another order in each process.
            "tried_so_far": sorted(state["tried_so_far"]),
            "rounds": [list(map(dataclasses.asdict, one)) for one in self.rounds],
            "wanted_generations": self.wanted_generations,
            "asked_generations": self.asked_generations,
            "random_state": [self.breeder.seed, len(self.generations)],
        }

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self._losses.update(state["lost"])
        self.rounds = [tuple(Training(**training) for training in one) for one in state["rounds"]]
        # What ended a search of fewer generations early ends one of more after others.
        if state["asked_generations"] == self.asked_generations:
            self.wanted_generations = state["wanted_generations"]

    def save(self) -> None:
        path = Path(self._get_oracle_fname())
        if path.exists():
            write_atomically(_previous(path), path.read_bytes())
        write_atomically(path, json.dumps(self.get_state()))

    def _save_trial(self, trial: Trial) -> None:
        path = Path(self._get_trial_dir(trial.trial_id)) / "trial.json"
        write_atomically(path, json.dumps(trial.get_state()))

    def reload(self) -> None:
        """Go on from what is in the project's directory, if anything is."""
        trials, file = Path(self._project_dir), Path(self._get_oracle_fname())
        unused = self.get_state()
        if not file.exists() and not any(trials.glob("trial_*/trial.json")):
            return
        # A field that is missing fails here already.
        state = read_state(file, lambda found: {name: found[name] for name in unused}) or unused
        goes_on = state["asked_generations"] != self.asked_generations
        if goes_on:
            self._forget_confirmation(state)
        read = [read_state(path, Trial.from_state) for path in sorted(trials.glob("*/trial.json"))]
        self.trials = {trial.trial_id: trial for trial in read if trial}
        if goes_on:
            # Written before a state that was not, as the search was killed between the two.
            for trial_id, trial in list(self.trials.items()):
                if trial.hyperparameters.values.get("tuner/round") == CONFIRMATION_ROUND:
                    shutil.rmtree(trials / f"trial_{trial_id}", ignore_errors=True)
                    del self.trials[trial_id]
        # A trial is written before this state is, which may not know how it ended.
        state["ongoing_trials"] = {
            name: trial_id
            for name, trial_id in state["ongoing_trials"].items()
            if trial_id in self.trials and self.trials[trial_id].status not in _FINAL
        }
        self.set_state(state)
        self._mend()
        # What nobody has and nobody ended is tried again, the first last.
        held = {trial.trial_id for trial in self.ongoing_trials.values()}
        open_ = {i for i, trial in self.trials.items() if trial.status not in _FINAL}
        self._retry_queue = sorted(open_ - held, key=int, reverse=True)
        ended = [i for i in sorted(self.trials) if self.trials[i].status in _FINAL]
        known = [i for i in state["end_order"] if i in ended]
        self.end_order = known + [i for i in ended if i not in known]

    def _forget_confirmation(self, state: dict[str, Any]) -> None:
        """Remove the confirmation of a search of fewer generations: others follow in its place."""
        last = state["rounds"][-1] if state["rounds"] else []
        if not last or last[0]["rung"] is not None:
            return
        state["rounds"].pop()
        first = sum(map(len, state["rounds"]))
        for path in Path(self._project_dir).glob("trial_*"):
            if int(path.name.removeprefix("trial_")) >= first:
                shutil.rmtree(path, ignore_errors=True)
        state["end_order"] = [i for i in state["end_order"] if int(i) < first]
        state["start_order"] = [i for i in state["start_order"] if int(i) < first]
        state["ongoing_trials"] = {}

    def _mend(self) -> None:
        """Make what the state did not know from the trials, and trials again that are lost."""
        numbers = {int(trial_id) for trial_id in self.trials}
        wanted = max(numbers, default=-1) + 1
        while len(self.trainings) < wanted and self._ended(len(self.trainings)):
            if not self._add_round():
                break
        # Those of a round that cannot be made before others are trained again.
        for number in sorted(number for number in numbers if number >= len(self.trainings)):
            del self.trials[f"{number:04d}"]
        for number in range(min(wanted, len(self.trainings))):
            trial_id, values = f"{number:04d}", self._parameters(self.trainings[number])
            if number not in numbers:
                hyperparameters = self.hyperparameters.copy()
                hyperparameters.values = values
                self.trials[trial_id] = Trial(hyperparameters, trial_id, TrialStatus.RUNNING)
                self._run_times.pop(trial_id, None)
            elif self.trials[trial_id].hyperparameters.values != values:
                raise InputError(
                    f"Trial {trial_id} in `{self._project_dir}` is not of this search: delete "
                    "that folder to search again."
                )


def _scalars(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as they are in JSON, and as keras-tuner sends them: ratios are floats."""
    return {k: v if isinstance(v, str) or type(v) is int else float(v) for k, v in values.items()}


def _plain(options: Sequence[Any]) -> list[Any]:
    """Return options of one type, as keras-tuner wants them."""
    mixed = any(isinstance(option, float) for option in options)
    return [float(option) if mixed else option for option in options]
