"""Tuner of keras-tuner that trains the candidates which the oracle hands out."""

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import grpc
import numpy as np

from larq_nas.errors import LarqNasError, first_line
from larq_nas.files import replacing
from larq_nas.heartbeat import heartbeat
from larq_nas.searchers.evolution.candidates import CONFIRMATION, Evaluator, Plan
from larq_nas.searchers.evolution.oracle import (
    CONFIRMATION_ROUND,
    CORRECT,
    FAILURE,
    STATE,
    EvolutionOracle,
    FailedTrialError,
    FatalError,
    Trial,
    TrialStatus,
    keras_tuner,
)
from larq_nas.searchers.evolution.processes import chief_address, current_role, is_loopback
from larq_nas.searchers.searcher import Callbacks

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
_MOST_CONFIRMED = 64


class EvolutionTuner(keras_tuner.Tuner):
    """Trains the candidates that an `EvolutionOracle` hands out, and keeps the weights of the best.

    `results_summary`, `get_best_hyperparameters` and the trials' directory are keras-tuner's. All
    but the chief need an evaluator, which is made when it is needed, another for the confirmation;
    `is_over` tells workers whether the chief has left for good.
    """

    def __init__(
        self,
        oracle: EvolutionOracle,
        evaluator: Callable[[bool], Evaluator],
        directory: Path,
        keep: int,
        is_over: Callable[[], bool] = lambda: False,
        callbacks: Callbacks = (),
    ) -> None:
        self.oracle: Any
        self._make_evaluator = evaluator
        self._evaluators: dict[bool, Evaluator] = {}
        self._rungs = oracle.rungs
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
        self._evaluator(False)
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
        values = trial.hyperparameters.values
        candidate = {k: v for k, v in values.items() if not k.startswith("tuner/")}
        folder = Path(self.get_trial_dir(trial.trial_id))
        is_confirmation = values.get("tuner/round") == CONFIRMATION_ROUND
        epochs = values.get("tuner/epochs", self._rungs[-1])
        source = values.get("tuner/trial_id")
        goes_on = not is_confirmation and epochs != self._rungs[-1]
        plan = Plan(
            # All of the confirmation see the same batches; of a search each has its own.
            CONFIRMATION if is_confirmation else values.get("tuner/candidate", int(trial.trial_id)),
            (epochs,) if is_confirmation else tuple(e for e in self._rungs if e <= epochs),
            Path(self.get_trial_dir(source)) / STATE if source else None,
            folder / STATE if goes_on else None,
            folder / CORRECT if is_confirmation else None,
        )
        evaluator = self._evaluator(is_confirmation)
        measured = evaluator.measure(candidate, plan, self._callbacks)
        figures = self._figures(candidate, measured.accuracy)
        if not is_confirmation:
            self._save_weights(trial, figures["fitness"], evaluator)
        return {"fitness": figures["fitness"], **measured._asdict()}

    def _evaluator(self, is_confirmation: bool) -> Evaluator:
        if is_confirmation not in self._evaluators:
            self._evaluators[is_confirmation] = self._make_evaluator(is_confirmation)
        return self._evaluators[is_confirmation]

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
            (Path(self.get_trial_dir(trial.trial_id)) / FAILURE).write_text(trial.message)
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
        """Return the trials whose weights are kept: of a candidate that of its last rung."""
        found: dict[Any, Trial] = {}
        for trial in self.oracle.get_best_trials(len(self._rungs) * self._keep + _MOST_CONFIRMED):
            values = trial.hyperparameters.values
            is_candidate = values.get("tuner/round") != CONFIRMATION_ROUND
            if trial.status == TrialStatus.COMPLETED and is_candidate:
                found.setdefault(values.get("tuner/candidate", trial.trial_id), trial)
        return list(found.values())[: self._keep]

    def _save_weights(self, trial: Trial, fitness: float, evaluator: Evaluator) -> None:
        best = self._best()
        if self._keep and (len(best) < self._keep or fitness > best[-1].score):
            with replacing(Path(self.get_trial_dir(trial.trial_id)) / _WEIGHTS) as path:
                np.savez(path, **evaluator.weights())

    def _drop_weights(self) -> None:
        best = {trial.trial_id for trial in self._best()}
        for path in Path(self.project_dir).glob(f"trial_*/{_WEIGHTS}"):
            if path.parent.name.removeprefix("trial_") not in best:
                path.unlink(missing_ok=True)


def _selves(error: BaseException) -> Iterator[Any]:
    """Yield the objects whose methods an error came through."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        yield frame.f_locals.get("self")
