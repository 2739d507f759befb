"""The directory of a run: its lock, its settings and its files."""

import csv
import json
import math
import shutil
import tempfile
import time
import weakref
import zlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from larq_nas.errors import InputError, first_line, keeping_warnings
from larq_nas.files import (
    LEFTOVERS,
    LOCK,
    lock_directory,
    require_ours,
    unwritable,
    write_atomically,
    write_table,
)
from larq_nas.heartbeat import heartbeat

__all__ = [
    "RunDirectory",
    "differences",
    "flat",
    "read_times",
]


_SCHEMA = 4
_SETTINGS = "settings.json"
_WAIT_SECONDS = 0.5
_KEEP_SECONDS = 10.0
_TRAINING = "train"
"""What the names of the stages of a training begin with."""
_FOLDERS = ("confirm", "pick", "retrain", "baselines")
"""Folders of trainings that the end of a search leads to."""


class RunDirectory:
    """A directory that holds one run and nothing else.

    Every file in it is whole: it was finished, or it is not there. What is there is not
    done again. Within a `with` block, no other process can work in it.

    # Arguments
        directory: the directory; `None` for a temporary one.
        settings: the settings of the run.
        resume: whether a run that is there may be continued.
        start: what is kept of the call that starts it, and not compared: versions, the call, cells.
        continues: whether a run of fewer `epochs` may go on to more, where nothing else is other.

    # Attributes
        is_temporary: whether it will be deleted.

    # Raises
        InputError: on entering, if the directory cannot be used, holds a run of other
            settings, or another process works in it.
    """

    def __init__(
        self,
        directory: str | Path | None,
        settings: Mapping[str, Any],
        resume: bool = True,
        start: Mapping[str, Any] | None = None,
        continues: bool = False,
    ) -> None:
        if not isinstance(directory, str | Path | None):
            raise InputError(f"`directory` must be a path, but got {directory!r}.")
        self.is_temporary = directory is None
        if directory is None:
            directory = tempfile.mkdtemp(prefix="larq_nas-")
            # A TemporaryDirectory that nobody has closed warns.
            weakref.finalize(self, shutil.rmtree, directory, ignore_errors=True)
        self.directory = Path(directory).expanduser()
        self.settings = json.loads(json.dumps(dict(settings)))
        self._resume = resume
        self.continues = continues
        self.start = dict(start or {})
        self._lock: FileLock | None = None
        self._keeping: AbstractContextManager[None] | None = None
        self.is_copy = False
        self.architecture = self.directory / "architecture.json"
        self.history = self.directory / "history.csv"
        self.probabilities = self.directory / "probabilities.csv"
        self.widths = self.directory / "widths.csv"
        self.stages = self.directory / "stages.json"
        self.candidates = self.directory / "candidates.csv"
        self.pareto = self.directory / "pareto"
        self.seeds = self.directory / "seeds.csv"
        self.ranking = self.directory / "ranking.json"
        self.confirmed = self.directory / "confirmed.csv"
        self.retrained = self.directory / "retrained.csv"
        self.widest = self.directory / "widest.weights.h5"
        self.model = self.directory / "model.keras"
        self.sample = self.directory / "sample.npy"
        self.flatbuffer = self.directory / "model.tflite"
        self.time_limit = self.directory / "time_limit.json"
        self.warnings = self.directory / "warnings.json"
        self.times = self.directory / "times.json"
        self.result = self.directory / "result.json"
        self.report = self.directory / "report.html"
        self.latencies = self.directory / "latencies.json"

    @classmethod
    def copy_of(cls, run: "RunDirectory") -> "RunDirectory":
        """Return a run of its own, in a temporary directory, that has done what `run` has.

        # Raises
            InputError: if the files cannot be read or written.
        """
        copy = cls(None, run.settings)
        ends = (run.logs("").name, run.flatbuffer.name, run.sample.name, run.result.name)
        ignored = shutil.ignore_patterns(LOCK, LEFTOVERS, *ends)
        try:
            shutil.copytree(run.directory, copy.directory, ignore=ignored, dirs_exist_ok=True)
        except OSError as error:
            raise InputError(
                f"`{run.directory}` cannot be copied to `{copy.directory}`: {first_line(error)}."
            ) from None
        copy.is_copy = True
        return copy

    def part(self, name: str) -> "RunDirectory":
        """Return a directory within this one, for one of several trainings of a search."""
        directory = self.directory / name
        directory.mkdir(parents=True, exist_ok=True)
        return RunDirectory(directory, {})

    def digest(self) -> int:
        """Return 24 bits that stand for what the directory holds: names and sizes of files."""
        held = sorted(
            (path.relative_to(self.directory).as_posix(), path.stat().st_size)
            for path in self.directory.rglob("*")
            if path.is_file()
            and path not in (self.warnings, self.times, self.report, self.latencies)
            and path.name != LOCK
            and not path.match(f"{LEFTOVERS}/*")
        )
        return zlib.crc32(json.dumps(held).encode()) & 0xFFFFFF

    def checkpoints(self, stage: str) -> Path:
        """Return where the checkpoints of `stage` are kept."""
        return self.directory / "checkpoints" / stage

    def logs(self, stage: str) -> Path:
        """Return where the TensorBoard logs of `stage` are kept."""
        return self.directory / "logs" / stage

    def wait_for_chief(self, seconds: float = math.inf) -> None:
        """Wait until the chief of the run has opened the directory.

        # Arguments
            seconds: how long at most.

        # Raises
            InputError: if it was not opened by then, or the chief has other settings.
        """
        if not self.wait_for(self.directory / _SETTINGS, seconds):
            raise InputError(
                f"`directory` must be one that all processes share, but `{self.directory}` is "
                "not the chief's here."
            )
        # One that goes on to more epochs is the chief's to open first.
        while self.goes_on:
            time.sleep(_WAIT_SECONDS)
        self._compare(read_settings(self.directory, to_continue=True), "the chief's run")

    def wait_for(self, path: Path, seconds: float = math.inf) -> bool:
        """Wait until the chief has written a file, and return whether it has."""
        start = time.monotonic()
        while not path.exists():
            if time.monotonic() > start + seconds:
                return False
            time.sleep(_WAIT_SECONDS)
        return True

    def check(self) -> None:
        """Raise `InputError` if the directory holds a run that cannot be continued."""
        try:
            present = (self.directory / _SETTINGS).exists()
        except OSError as error:
            raise unwritable(self.directory, error) from None
        if not present:
            require_ours(self.directory, "a run")
            return
        self._compare(self._extended(read_settings(self.directory, to_continue=True)))
        if not self._resume:
            raise InputError(
                f"`{self.directory}` holds a run already: resume it, or use another directory."
            )

    @property
    def goes_on(self) -> bool:
        """Whether it holds a run of fewer epochs, which entering it makes one of more."""
        if not self.continues or not (self.directory / _SETTINGS).exists():
            return False
        found = read_settings(self.directory, to_continue=True)
        return found.get("epochs") != self._extended(found).get("epochs")

    def _extended(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of a run with what may be asked for later: epochs, a test set."""
        extended = dict(found)
        before, asked = found.get("epochs"), self.settings.get("epochs")
        if self.continues and isinstance(before, int) and isinstance(asked, int):
            extended["epochs"] = max(before, asked)
        if "test" in self.settings:
            extended.setdefault("test", self.settings["test"])
        return extended

    def __enter__(self) -> "RunDirectory":
        try:
            if not (self.directory / _SETTINGS).exists():
                # Before a lock is put into a directory that is not ours.
                require_ours(self.directory, "a run")
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock = lock_directory(self.directory)
            self._open()
            self._keeping = keeping_warnings(self.read_warnings(), self._keep_warnings)
            self._keeping.__enter__()
        except OSError as error:
            self.__exit__()
            raise unwritable(self.directory, error) from None
        except InputError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._keeping:
            self._keeping.__exit__(None, None, None)
            self._keeping = None
        if self._lock:
            self._lock.release()
            self._lock = None

    def read_warnings(self) -> list[str]:
        """Return what the run has warned of, those calls too that were killed or resumed."""
        try:
            found: list[str] = list(map(str, json.loads(self.warnings.read_text("utf-8"))))
        except (OSError, ValueError, TypeError):
            return []
        return found

    def read_times(self) -> dict[str, float]:
        """Return the seconds that the search and the training have taken, in all calls together."""
        return read_times(self.directory)

    def keep_latency(self, measured: Mapping[str, Any]) -> None:
        """Keep a latency of `model.tflite`, in place of one of that device, kernel and threads.

        # Arguments
            measured: see `larq_nas.latency.Latency.summary`.
        """
        bytes_ = self.flatbuffer.read_bytes()
        record = {"flatbuffer": f"{zlib.crc32(bytes_):08x}", **measured}
        alike = ("flatbuffer", "device", "kernel", "threads")
        others = [
            one
            for one in self.read_latencies()
            if any(one.get(name) != record[name] for name in alike)
        ]
        write_atomically(self.latencies, json.dumps([*others, record], indent=1) + "\n")

    def read_latencies(self) -> list[dict[str, Any]]:
        """Return the latencies that were measured of `model.tflite` as it is."""
        try:
            kept = json.loads(self.latencies.read_text(encoding="utf-8"))
            digest = f"{zlib.crc32(self.flatbuffer.read_bytes()):08x}"
            return [one for one in kept if one["flatbuffer"] == digest]
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return []

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add the seconds of a `with` block to those of a part, also if the process is killed."""
        before, began = self.read_times(), time.monotonic()

        def keep() -> None:
            taken = before.get(part, 0.0) + time.monotonic() - began
            write_atomically(self.times, json.dumps({**before, part: round(taken, 1)}) + "\n")

        try:
            with heartbeat(keep, _KEEP_SECONDS):
                yield
        finally:
            keep()

    def _keep_warnings(self, texts: list[str]) -> None:
        write_atomically(self.warnings, json.dumps(texts, indent=2) + "\n")

    def _open(self) -> None:
        settings_path = self.directory / _SETTINGS
        self.check()
        self._remove_leftovers()
        if settings_path.exists():
            found = read_settings(self.directory, to_continue=True)
            if self.settings == found:
                return
            # Killed before the settings are written, the same call removes the rest.
            if self.goes_on:
                self._remove_what_follows_the_search()
        record = {"schema": _SCHEMA, "settings": self.settings, "start": self.start}
        write_atomically(settings_path, json.dumps(record, indent=2, sort_keys=True) + "\n")

    def _remove_leftovers(self) -> None:
        for path in self.directory.glob(LEFTOVERS):
            shutil.rmtree(path, ignore_errors=True)

    def _remove_what_follows_the_search(self) -> None:
        """Remove what was made of the end of a search, so that it has another.

        Killed within, the run is one that was killed earlier, whichever number of epochs is asked
        for next: the result goes before the model, and the model before what it was made by.
        """
        self._remove(self.result, self.report, self.model, self.flatbuffer, self.sample)
        for of_stages in (self.checkpoints(""), self.logs("")):
            self._remove(*of_stages.glob(f"{_TRAINING}*"))
        if self.history.exists():
            with open(self.history, newline="", encoding="utf-8") as file:
                rows = [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]
            write_table(self.history, [r for r in rows if not r["stage"].startswith(_TRAINING)])
        self._remove(self.architecture, self.ranking, self.seeds, self.confirmed, self.retrained)
        self._remove(*map(self.directory.joinpath, _FOLDERS))
        # Of the search that ended: the one that goes on tells its own.
        self._remove(self.time_limit, self.warnings)
        times = {part: taken for part, taken in self.read_times().items() if part == "search"}
        write_atomically(self.times, json.dumps(times) + "\n")

    def _remove(self, *paths: Path) -> None:
        """Remove files, and folders whole or not at all."""
        for path in paths:
            if path.is_dir():
                with tempfile.TemporaryDirectory(dir=self.directory, prefix=LEFTOVERS[:-1]) as gone:
                    path.rename(Path(gone) / path.name)
            else:
                path.unlink(missing_ok=True)

    def _compare(self, found: Mapping[str, Any], what: str = "a run") -> None:
        old, new = flat(found), flat(self.settings)
        changed = differences(old, new)
        if changed:
            raise InputError(
                f"`{self.directory}` holds {what} with other settings ({changed}): "
                f"{_hint_on_data(old, new)}{self._hint_on_epochs(old, new)}use those, or another "
                "directory."
            )

    def _hint_on_epochs(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
        """Return why a run of some epochs is not one of others that was ended earlier."""
        changed = {
            key.partition(".")[0] for key in old.keys() | new.keys() if old.get(key) != new.get(key)
        }
        is_search = "searcher.name" in new
        hints = []
        if is_search and "epochs" in changed:
            hints.append(
                "a search goes on to more epochs, but not back to fewer"
                if self.continues
                else f"searcher `{new['searcher.name']}` cannot go on to other epochs, as learning "
                "rates and temperatures run along all of them from the first on"
            )
        if ("train_epochs" if is_search else "epochs") in changed:
            hints.append(
                "learning rates run along all epochs of a training, so that one of others is "
                f"another from its first step: larq-nas train {self.architecture} makes it"
            )
        return "".join(f"{hint}; " for hint in hints)


def _hint_on_data(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Return what to do where the same examples come in another order."""
    was, now = (str(one.get("data.content_and_order", "")) for one in (old, new))
    half = len(was) // 2
    if not half or was == now or was[:half] != now[:half]:
        return ""
    return (
        "the data holds the same examples in another order, so shuffle it by "
        ".shuffle(buffer, seed=0, reshuffle_each_iteration=False), or not at all; "
    )


def read_times(directory: Path) -> dict[str, float]:
    """Return the seconds of the parts of a run, if it has kept any."""
    try:
        kept = json.loads((directory / "times.json").read_text(encoding="utf-8"))
        return {str(part): float(seconds) for part, seconds in kept.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def read_settings(directory: Path, to_continue: bool = False) -> dict[str, Any]:
    """Return the settings of the run in `directory`; see `read_record`."""
    settings: dict[str, Any] = read_record(directory, to_continue)["settings"]
    return settings


def read_record(directory: Path, to_continue: bool = False) -> dict[str, Any]:
    """Return the settings of the run in `directory`, and what is kept of its start.

    # Raises
        InputError: if there is none, or it is of a later larq_nas, or of an earlier one and is to
            be continued.
    """
    path = directory / _SETTINGS
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        schema, settings = record["schema"], record["settings"]
        if type(schema) is not int or not isinstance(settings, dict):
            raise TypeError
    except OSError as error:
        raise InputError(f"`{directory}` holds no run: {error.strerror}, {path.name}.") from None
    except (ValueError, TypeError, KeyError):
        raise InputError(f"`{path}` is not the settings of a run: use another directory.") from None
    if schema not in range(1, _SCHEMA + 1):
        raise InputError(
            f"`{path}` has schema {schema}, but this larq_nas reads up to {_SCHEMA}: upgrade with "
            "pip install -U larq_nas."
        )
    if to_continue and schema < _SCHEMA:
        raise InputError(
            f"`{directory}` is a run of an earlier larq_nas, which this one cannot go on with: use "
            "another directory; an architecture.json in it is read by larq-nas train."
        )
    start = record.get("start")
    return {"settings": settings, "start": start if isinstance(start, dict) else {}}


# What hashes, and many values at once, stand for.
_IN_WORDS = {
    "choices": "other questions of the space",
    "data.content_and_order": "other training images, labels or order of them",
    "data.validation_content": "other validation images or labels",
    "latency_table": "another table of latencies",
    "network": "another network",
    "test": "other test images or labels, or none",
}
_AS_A_WHOLE = ("choices", "test")
_TOLD, _LENGTH = 12, 60


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Return which of two flat settings differ, and what each was and is, for a reader."""
    changed = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    parts = {key.removesuffix(".name") for key in changed if key.endswith(".name")}
    told: dict[str, None] = {}
    for key in changed:
        part = key.partition(".")[0]
        # The settings of another space or searcher are others, and so are a space's questions.
        if part in parts and key != f"{part}.name":
            continue
        if part == "choices" and any(other.startswith("space.") for other in changed):
            continue
        words = _IN_WORDS.get(part if part in _AS_A_WHOLE else key)
        if words and (part in _AS_A_WHOLE or (key in old and key in new)):
            told[words] = None
        else:
            told[f"{key} was {_short(old.get(key))}, now {_short(new.get(key))}"] = None
    further = [f"and {len(told) - _TOLD} more"] if len(told) > _TOLD else []
    return "; ".join([*list(told)[:_TOLD], *further])


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LENGTH else f"{text[: _LENGTH - 3]}..."


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as one mapping, with names such as `recipe.optimizer`."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
