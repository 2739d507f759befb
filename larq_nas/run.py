"""The directory of a run: its settings, and what it has finished."""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from larq_nas.errors import InputError
from larq_nas.files import write_atomically

__all__ = ["Run"]

_SCHEMA = 1


class Run:
    """A directory that holds one run and nothing else.

    Every file in it is whole: it was finished, or it is not there. What is there is not
    done again.

    # Arguments
        directory: the directory; `None` for a temporary one.
        settings: the settings of the run.
        resume: whether a run that is there may be continued.

    # Raises
        InputError: if the directory cannot be used, or holds a run of other settings.
    """

    def __init__(
        self, directory: str | Path | None, settings: Mapping[str, Any], resume: bool = True
    ) -> None:
        if directory is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="larq_nas-")
            directory = self._temporary.name
        self.directory = Path(directory)
        self._lock: TextIO | None = None
        self.settings = json.loads(json.dumps(dict(settings)))
        self._open(resume)
        self.architecture = self.directory / "architecture.json"
        self.history = self.directory / "history.csv"
        self.model = self.directory / "model.keras"
        self.flatbuffer = self.directory / "model.tflite"
        self.result = self.directory / "result.json"

    def __enter__(self) -> "Run":
        """Keep other processes out until the block ends, or the process does."""
        try:
            import fcntl
        except ImportError:  # Windows has no such locks
            return self
        self._lock = open(self.directory / ".lock", "w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise InputError(
                f"Another process works in `{self.directory}`: wait for it, or use another "
                "directory."
            ) from None
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock:
            self._lock.close()

    def checkpoints(self, stage: str) -> Path:
        """Return where the checkpoints of `stage` are kept."""
        return self.directory / "checkpoints" / stage

    def logs(self, stage: str) -> Path:
        """Return where the TensorBoard logs of `stage` are kept."""
        return self.directory / "logs" / stage

    def _open(self, resume: bool) -> None:
        settings_path = self.directory / "settings.json"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.directory)
            present = sorted(set(os.listdir(self.directory)) - {".lock"})
            if settings_path.exists():
                self._compare(read_settings(self.directory), resume)
            elif present:
                raise InputError(
                    f"`directory` must be new, empty or hold a run, but `{self.directory}` "
                    f"holds other files, such as {present[0]}."
                )
            record = {"schema": _SCHEMA, "settings": self.settings}
            write_atomically(settings_path, json.dumps(record, indent=2, sort_keys=True) + "\n")
        except OSError as error:
            raise InputError(
                f"`directory` must be writable, but `{self.directory}` is not: {error.strerror}."
            ) from None

    def _compare(self, found: Mapping[str, Any], resume: bool) -> None:
        old, new = _flat(found), _flat(self.settings)
        changed = [
            f"{key} was {old.get(key)!r}, now {new.get(key)!r}"
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key)
        ]
        if changed:
            raise InputError(
                f"`{self.directory}` holds a run with other settings ({'; '.join(changed)}): "
                "use those, or another directory."
            )
        if not resume:
            raise InputError(
                f"`{self.directory}` holds a run already: resume it, or use another directory."
            )


def read_settings(directory: Path) -> dict[str, Any]:
    """Return the settings of the run in `directory`."""
    path = directory / "settings.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        schema, settings = record["schema"], record["settings"]
    except OSError as error:
        raise InputError(f"`{directory}` holds no run: {error.strerror}, {path.name}.") from None
    except (ValueError, TypeError, KeyError):
        raise InputError(f"`{path}` is not the settings of a run: use another directory.") from None
    if schema != _SCHEMA:
        raise InputError(f"`{path}` has schema {schema}, but this larq_nas reads {_SCHEMA}.")
    return dict(settings)


def remove_leftovers(directory: Path) -> None:
    """Remove what a killed process was writing in `directory`."""
    for path in directory.glob(".writing-*"):
        shutil.rmtree(path, ignore_errors=True)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
