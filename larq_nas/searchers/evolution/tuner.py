"""Crash-safe oracle and tuner of keras-tuner: one hands out candidates, the other trains them.

From TensorFlow 2.16 on, larq needs `tf_keras`, while keras-tuner asks the package `keras` for its
version, finds 3, and refuses models of Keras 2. It is told another version while it is imported.
"""

import json
import os
import shutil
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import grpc
import numpy as np

from larq_nas.errors import InputError, LarqNasError, first_line, warn
from larq_nas.files import replacing, write_atomically
from larq_nas.heartbeat import heartbeat
from larq_nas.log import counted
from larq_nas.searchers.evolution.candidates import Rebuilt, Shared
from larq_nas.searchers.evolution.fitness import scores_of
from larq_nas.searchers.evolution.generation import Breeder, Candidate, Scored
from larq_nas.searchers.evolution.processes import chief_address, current_role, is_loopback
from larq_nas.searchers.searcher import Callbacks
from larq_nas.training.callbacks import duration

_LEGACY = os.environ.get("TF_USE_LEGACY_KERAS") == "1"
with mock.patch("keras.version", return_value="2.99", create=True) if _LEGACY else nullcontext():
    import keras_tuner
    from keras_tuner.engine.trial import Trial as Trial
    from keras_tuner.engine.trial import TrialStatus as TrialStatus
    from keras_tuner.errors import FailedTrialError, FatalError


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
_FAILURE = "failure.txt"
_MOST_LOSSES = 3


class EvolutionOracle(keras_tuner.Oracle):
    """Hands out the candidates of one generation after the other.

    A generation follows from the scores of those before and the seed alone, whoever scored
    them and in whichever order. Every candidate is a trial of keras-tuner, with the same number.

    It goes on exactly, wherever it was killed; keras-tuner's own writes in place, and asks for a
    trial again that ended just before. It outlives its workers: one that is silent for longer than
    `worker_timeout` seconds is taken for lost, and its trial given to another; a trial that loses
    one worker after the other has failed. `figures` returns costs and fitness of a candidate of
    some accuracy, and `record` is called when all candidates of a generation have ended. `is_over`
    tells whether there is no time for another.
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
    ) -> None:
        parameters = keras_tuner.HyperParameters()
        for name, options in breeder.genes.options.items():
            parameters.Choice(name, [float(option) for option in options])
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
            max_consecutive_failed_trials=generations * breeder.population + 1,
        )
        self.breeder = breeder
        self.wanted_generations = generations
        self.objectives = objectives
        self.generations: list[tuple[Candidate, ...]] = []
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
    def candidates(self) -> list[Candidate]:
        """All candidates, in the order of their trials."""
        return [candidate for generation in self.generations for candidate in generation]

    @property
    def failures(self) -> list[Trial]:
        """The trials that failed."""
        return [trial for trial in self.trials.values() if trial.status == TrialStatus.FAILED]

    @property
    def all_failed(self) -> bool:
        """Whether every candidate of the first generation failed."""
        first = len(self.generations[0]) if self.generations else 0
        return 0 < first <= len(self.failures) == len(self.trials)

    def scored(self) -> list[Scored]:
        """Return the candidates whose trials have ended, in the order of their numbers."""
        found = []
        for trial_id in sorted(self.trials, key=int):
            trial = self.trials[trial_id]
            if trial.status in _FINAL and int(trial_id) < len(self.candidates):
                done = trial.status == TrialStatus.COMPLETED
                scores = scores_of(self.figures(trial), self.objectives) if done else None
                found.append(Scored(self.candidates[int(trial_id)], scores))
        return found

    def figures(self, trial: Trial) -> Mapping[str, float]:
        """Return accuracy, fitness and costs of a completed trial."""
        return self._figures(self._values(trial), trial.metrics.get_last_value("accuracy"))

    def _values(self, trial: Trial) -> Candidate:
        return self.candidates[int(trial.trial_id)]

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
        if number == len(self.candidates):
            if any(trial.status not in _FINAL for trial in self.trials.values()):
                return {"status": TrialStatus.IDLE}
            if not self._add_generation():
                return {"status": TrialStatus.STOPPED}
        return {"status": TrialStatus.RUNNING, "values": _floats(self.candidates[number])}

    def _add_generation(self) -> bool:
        """Add a generation; return whether there is one."""
        done = len(self.generations)
        if done == self.wanted_generations or self.all_failed:
            return False
        self._record(self)
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
        self.generations.append(generation.candidates)
        if not done:
            self._began = time.monotonic()
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
            path = Path(self._get_trial_dir(trial.trial_id)) / _FAILURE
            trial.message = path.read_text(encoding="utf-8") if path.exists() else None
        super().end_trial(trial)
        self._finish(self.trials[trial.trial_id])

    def _finish(self, trial: Trial) -> None:
        """Keep a trial that has ended, and tell of it."""
        where = f"Candidate {int(trial.trial_id) + 1}/{len(self.candidates)}"
        if trial.status == TrialStatus.COMPLETED:
            figures = self.figures(trial)
            best = max(t.score for t in self.trials.values() if t.score is not None)
            self._announce(
                f"{where}: accuracy {figures['accuracy']:.2%}, fitness {figures['fitness']:.2f} "
                f"(best {best:.2f})"
            )
        elif trial.status == TrialStatus.FAILED:
            widths = ", ".join(f"{name}={value:g}" for name, value in self._values(trial).items())
            self._announce(f"{where} ({widths}) failed: {cause(trial)}")
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
            "generations": [list(map(dict, one)) for one in self.generations],
            "wanted_generations": self.wanted_generations,
            "random_state": [self.breeder.seed, len(self.generations)],
        }

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self._losses.update(state["lost"])
        self.generations = [tuple(one) for one in state["generations"]]
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

    def _mend(self) -> None:
        """Make what the state did not know from the trials, and trials again that are lost."""
        numbers = {int(trial_id) for trial_id in self.trials}
        wanted = max(numbers, default=-1) + 1
        while len(self.candidates) < wanted and len(self.scored()) == len(self.candidates):
            if not self._add_generation():
                break
        # Those of a generation that cannot be bred before others are trained again.
        for number in sorted(number for number in numbers if number >= len(self.candidates)):
            del self.trials[f"{number:04d}"]
        for number in range(min(wanted, len(self.candidates))):
            trial_id, values = f"{number:04d}", self.candidates[number]
            if number not in numbers:
                hyperparameters = self.hyperparameters.copy()
                hyperparameters.values = _floats(values)
                self.trials[trial_id] = Trial(hyperparameters, trial_id, TrialStatus.RUNNING)
                self._run_times.pop(trial_id, None)
            elif self.trials[trial_id].hyperparameters.values != dict(values):
                raise InputError(
                    f"Trial {trial_id} in `{self._project_dir}` is not of this search: delete "
                    "that folder to search again."
                )


def _floats(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}


_CALL_SECONDS, _RETRY_SECONDS, _MOST_SECONDS = 20, 0.5, 3600
_PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


class RetryClient:
    """Calls keras-tuner's client again while the chief is away.

    Without it, a call that the chief's end interrupts counts as a candidate that failed. Every
    call may be repeated: a worker is given the trial it has, and a trial ends once.
    `is_over` tells whether the search has ended, and the chief will not come back.
    """

    def __init__(self, client: Any, is_over: Callable[[], bool]) -> None:
        self._client = client
        self._is_over = is_over
        # keras-tuner lets each call wait for an hour, whether or not the chief has left for good.
        sys.modules[type(client).__module__].TIMEOUT = _CALL_SECONDS  # type: ignore[attr-defined]

    def create_trial(self, tuner_id: str) -> Trial:
        """Return the next trial; one that says to stop if the search has ended."""
        stopped = Trial(None, "none", TrialStatus.STOPPED)
        return self._call(self._client.create_trial, tuner_id, over=stopped)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if not callable(found):
            return found
        return lambda *args, **kwargs: self._call(found, *args, **kwargs)

    def _call(self, method: Callable[..., Any], *args: Any, over: Any = None, **kwargs: Any) -> Any:
        started = time.monotonic()
        while True:
            try:
                return method(*args, **kwargs)
            except grpc.RpcError as error:
                if error.code() not in _PASSING:
                    raise
            if self._is_over():
                return over
            if time.monotonic() - started > _MOST_SECONDS:
                raise LarqNasError(
                    f"The chief was away for {_MOST_SECONDS} s: start it again with the same "
                    "command, and then this worker."
                )
            time.sleep(_RETRY_SECONDS)


_IDLE_SECONDS = 0.2
_WEIGHTS = "weights.npz"


class EvolutionTuner(keras_tuner.Tuner):
    """Trains the candidates that an `EvolutionOracle` hands out, and keeps the weights of the best.

    `results_summary`, `get_best_hyperparameters` and the trials' directory are keras-tuner's. All
    but the chief need an evaluator; `is_over` tells workers whether the chief has left for good.
    """

    def __init__(
        self,
        oracle: EvolutionOracle,
        evaluator: Callable[[], Shared | Rebuilt],
        directory: Path,
        keep: int,
        is_over: Callable[[], bool] = lambda: False,
        callbacks: Callbacks = (),
    ) -> None:
        self.oracle: Any
        self._prepare_evaluator = evaluator
        self._evaluator: Shared | Rebuilt | None = None
        self._figures = oracle._figures
        self._keep = keep
        self._callbacks = callbacks
        self._heartbeat = oracle.heartbeat
        # keras-tuner reloads only after the first trial has ended, and prints a line about it.
        if current_role() != "worker":
            oracle._set_project_dir(str(directory), "trials")
            oracle.reload()
        super().__init__(oracle=oracle, directory=str(directory), project_name="trials")
        if current_role() == "worker":
            self.oracle = RetryClient(self.oracle, is_over)

    def reload(self) -> None:
        """Nothing: it is done before."""

    def save(self) -> None:
        """Save the oracle, which is all there is; of a file of its own keras-tuner would tell."""
        if current_role() != "worker":
            self.oracle.save()

    def search(self, *args: Any, **kwargs: Any) -> None:
        """Train candidates until there are no more; the chief hands them out until then."""
        if current_role() == "chief":
            address = chief_address()
            if not is_loopback(address):
                self.oracle._announce(
                    f"The chief listens at {address}:{os.environ['KERASTUNER_ORACLE_PORT']} to all "
                    "who reach it, without a password"
                )
            # keras-tuner's chief listens where its workers are told to look.
            with mock.patch.dict(os.environ, KERASTUNER_ORACLE_IP=address):
                super().search(*args, **kwargs)
            return
        # What is wrong with it is wrong with every candidate.
        self._evaluator = self._prepare_evaluator()
        while True:
            trial = self.oracle.create_trial(self.tuner_id)
            if trial.status == TrialStatus.STOPPED:
                return
            if trial.status == TrialStatus.IDLE:
                time.sleep(_IDLE_SECONDS)
                continue
            with self._heartbeats(trial):
                self._attempt(trial)
            self.on_trial_end(trial)

    def run_trial(self, trial: Trial, *args: Any, **kwargs: Any) -> dict[str, float]:
        assert self._evaluator is not None
        values = _floats(trial.hyperparameters.values)
        measured = self._evaluator.measure(values, int(trial.trial_id), self._callbacks)
        figures = self._figures(values, measured.accuracy)
        self._save_weights(trial, figures["fitness"])
        return {"fitness": figures["fitness"], **measured._asdict()}

    def _attempt(self, trial: Trial) -> None:
        """Train a candidate; what goes wrong is its failure, but for callbacks and `FatalError`."""
        try:
            self._run_and_update_trial(trial)
            trial.status = TrialStatus.COMPLETED
        except FatalError:
            raise
        except Exception as error:
            if any(one is callback for one in _selves(error) for callback in self._callbacks):
                raise
            trial.status = TrialStatus.FAILED
            reason = first_line(error)
            if not isinstance(error, LarqNasError | FailedTrialError):
                reason = f"{type(error).__name__}: {reason}"
            trial.message = f"{reason}\n\n{traceback.format_exc()}"

    def on_trial_end(self, trial: Trial) -> None:
        if trial.message:
            # keras-tuner does not send it to the chief.
            (Path(self.get_trial_dir(trial.trial_id)) / _FAILURE).write_text(trial.message)
        self.oracle.end_trial(trial)
        self._drop_weights()

    @contextmanager
    def _heartbeats(self, trial: Trial) -> Iterator[None]:
        """Let the chief know that this worker is there, while a candidate trains."""
        if current_role() != "worker":
            yield
            return
        with heartbeat(partial(self.oracle.update_trial, trial.trial_id, {}), self._heartbeat):
            yield

    def _best(self) -> list[Trial]:
        best = self.oracle.get_best_trials(self._keep)
        return [trial for trial in best if trial.status == TrialStatus.COMPLETED]

    def _save_weights(self, trial: Trial, fitness: float) -> None:
        best = self._best()
        if self._keep and (len(best) < self._keep or fitness > best[-1].score):
            assert self._evaluator is not None
            with replacing(Path(self.get_trial_dir(trial.trial_id)) / _WEIGHTS) as path:
                np.savez(path, **self._evaluator.weights())

    def _drop_weights(self) -> None:
        best = {trial.trial_id for trial in self._best()}
        for path in Path(self.project_dir).glob(f"trial_*/{_WEIGHTS}"):
            if path.parent.name.removeprefix("trial_") not in best:
                path.unlink(missing_ok=True)


def _selves(error: BaseException) -> Iterator[Any]:
    """Yield the objects whose methods an error came through."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        yield frame.f_locals.get("self")
