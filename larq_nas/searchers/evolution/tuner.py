"""keras-tuner tuner that trains candidates, and waits while the chief restarts."""

import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import grpc
import numpy as np
import tensorflow as tf

from larq_nas.errors import InputError, LarqNasError, first_line
from larq_nas.files import replacing
from larq_nas.searchers.evolution.candidates import Measured
from larq_nas.searchers.evolution.oracle import (
    FAILURE,
    EvolutionOracle,
    Trial,
    TrialStatus,
    keras_tuner,
)
from larq_nas.searchers.evolution.processes import current_role

__all__ = ["EvolutionTuner"]


_CALL_SECONDS, _RETRY_SECONDS, _MOST_SECONDS = 20, 0.5, 3600
_PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


class Patient:
    """Calls keras-tuner's client again while the chief is away.

    Without it, a call that the chief's end interrupts counts as a candidate that failed. Every
    call may be repeated: a worker is given the trial it has, and a trial ends once.

    # Arguments
        client: keras-tuner's client.
        is_over: whether the search has ended, and the chief will not come back.
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


class Evaluator(Protocol):
    """Trains candidates, as `larq_nas.searchers.evolution.candidates.Shared` and `Rebuilt` do."""

    def measure(
        self,
        values: Mapping[str, float],
        number: int,
        callbacks: Sequence[tf.keras.callbacks.Callback] = (),
    ) -> Measured:
        """Train a candidate and measure it."""

    def weights(self) -> dict[str, Any]:
        """Return the weights of the candidate trained last."""


class EvolutionTuner(keras_tuner.Tuner):
    """Trains the candidates that an `EvolutionOracle` hands out.

    `results_summary`, `get_best_hyperparameters` and the trials' directory are keras-tuner's.

    # Arguments
        oracle: hands out the candidates.
        evaluator: trains them; needed by all but the chief.
        directory: directory of the run; trials are kept in `trials` there.
        keep: number of candidates whose weights are kept.
        is_over: whether the search has ended, for workers that the chief has left.
        callbacks: Keras callbacks of each training.
    """

    def __init__(
        self,
        oracle: EvolutionOracle,
        evaluator: Callable[[], Evaluator],
        directory: Path,
        keep: int,
        is_over: Callable[[], bool] = lambda: False,
        callbacks: Sequence[tf.keras.callbacks.Callback] = (),
    ) -> None:
        self.oracle: Any
        self._prepare_evaluator = evaluator
        self._evaluator: Evaluator | None = None
        self._figures = oracle._figures
        self._breeder = oracle.breeder
        self._keep = keep
        self._callbacks = callbacks
        self._heartbeat = oracle.heartbeat
        # keras-tuner reloads only after the first trial has ended, and prints a line about it.
        if current_role() != "worker":
            oracle._set_project_dir(str(directory), "trials")
            oracle.reload()
        super().__init__(oracle=oracle, directory=str(directory), project_name="trials")
        if current_role() == "worker":
            self.oracle = Patient(self.oracle, is_over)

    def reload(self) -> None:
        """Nothing: it is done before."""

    def save(self) -> None:
        """Save the oracle, which is all there is; of a file of its own keras-tuner would tell."""
        if current_role() != "worker":
            self.oracle.save()

    def search(self, *args: Any, **kwargs: Any) -> None:
        """Train candidates until there are no more; the chief hands them out until then."""
        if current_role() == "chief":
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
        values = {name: float(value) for name, value in trial.hyperparameters.values.items()}
        measured = self._evaluator.measure(values, int(trial.trial_id), self._callbacks)
        figures = self._figures(self._breeder.genes.genome(values), measured.accuracy)
        self._save_weights(trial, figures["fitness"])
        return {
            "fitness": figures["fitness"],
            "accuracy": measured.accuracy,
            "loss": measured.loss,
        }

    def _attempt(self, trial: Trial) -> None:
        """Train a candidate; what goes wrong is its failure, but where it is the user's."""
        try:
            self._run_and_update_trial(trial)
            trial.status = TrialStatus.COMPLETED
        except InputError:
            raise
        except Exception as error:
            if any(one is callback for one in _selves(error) for callback in self._callbacks):
                raise
            trial.status = TrialStatus.FAILED
            reason = f"{type(error).__name__}: {first_line(error)}"
            trial.message = f"{reason}\n\n{traceback.format_exc()}"

    def on_trial_end(self, trial: Trial) -> None:
        if trial.message:
            # keras-tuner does not send it to the chief.
            (Path(self.get_trial_dir(trial.trial_id)) / FAILURE).write_text(trial.message)
        self.oracle.end_trial(trial)
        self._drop_weights()

    @contextmanager
    def _heartbeats(self, trial: Trial) -> Iterator[None]:
        """Let the chief know that this worker is there, while a candidate trains."""
        if current_role() != "worker":
            yield
            return
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(self._heartbeat):
                self.oracle.update_trial(trial.trial_id, {})

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

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
        kept = {trial.trial_id for trial in self._best()}
        for path in Path(self.project_dir).glob(f"trial_*/{_WEIGHTS}"):
            if path.parent.name.removeprefix("trial_") not in kept:
                path.unlink(missing_ok=True)


def _selves(error: BaseException) -> Iterator[Any]:
    """Yield the objects whose methods an error came through."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        yield frame.f_locals.get("self")
