"""The tuner that trains candidates, in one process or as one of many workers."""

import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from larq_nas.candidates import Measured
from larq_nas.errors import InputError, first_line
from larq_nas.files import replacing
from larq_nas.tuning.keras_tuner import Trial, TrialStatus, keras_tuner
from larq_nas.tuning.oracle import EvolutionOracle
from larq_nas.tuning.patient import Patient
from larq_nas.tuning.role import current_role
from larq_nas.tuning.watched import FAILURE

__all__ = ["Evaluator", "EvolutionTuner"]

_IDLE_SECONDS = 0.2
_WEIGHTS = "weights.npz"


class Evaluator(Protocol):
    """Trains candidates, as `larq_nas.candidates.Shared` and `Rebuilt` do."""

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
