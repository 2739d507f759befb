"""An oracle that notices when a worker is gone, and gives what it had to another."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from larq_nas.tuning.kept import FINAL, KeptOracle
from larq_nas.tuning.keras_tuner import Trial, TrialStatus, keras_tuner
from larq_nas.tuning.workers import LiveWorkers, Watch

__all__ = ["FAILURE", "WatchedOracle", "cause"]

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
