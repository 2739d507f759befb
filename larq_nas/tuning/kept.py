"""An oracle whose files are whole whenever a process is killed."""

from pathlib import Path

from larq_nas.tuning.keras_tuner import Trial, TrialStatus, keras_tuner
from larq_nas.tuning.state import read_state, write_state

__all__ = ["FINAL", "KeptOracle"]

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
