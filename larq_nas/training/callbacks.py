"""Keras callbacks of a run: for which stages, checks before they train, and states to resume by."""

import dataclasses
import hashlib
import io
import json
import logging
import os
import re
import string
import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, overload

import numpy as np
import tensorflow as tf

from larq_nas.errors import InputError, first_line, is_number, unknown_name, warn
from larq_nas.files import write_atomically
from larq_nas.log import counted, log

Callback: TypeAlias = tf.keras.callbacks.Callback
GivenCallbacks: TypeAlias = (
    Callback | Sequence[Callback] | Mapping[str, Callback | Sequence[Callback]] | None
)
"""One callback or several for all stages of a run, or those of each stage by its name."""

_keras: Any = tf.keras.callbacks
_RATES = (_keras.LearningRateScheduler, _keras.ReduceLROnPlateau)
_WITHOUT_METRICS = ("epoch", "batch")


@dataclass(frozen=True)
class StageLogs:
    """What a stage logs at the end of an epoch.

    # Arguments
        metrics: names of the metrics that every epoch has.
        sometimes: names of those that some epochs have.
        several: whether the stage is several trainings, one after the other.
        resizes: whether weights change their shapes, so that those of an epoch fit no other.
    """

    metrics: tuple[str, ...]
    sometimes: tuple[str, ...] = ()
    several: bool = False
    resizes: bool = False

    def without(self, names: Collection[str]) -> "StageLogs":
        """Return what is logged but for some that only some epochs have."""
        left = tuple(name for name in self.sometimes if name not in names)
        return dataclasses.replace(self, sometimes=left)


Stages: TypeAlias = Mapping[str, StageLogs | None]
"""The stages of a run in their order; `None` where it is not known what they log."""


class StageCallbacks(Sequence[Callback]):
    """The callbacks of a run; a sequence of all of them, whatever stage they are of.

    # Attributes
        limit: what ends the stages of the search in time; `None` if nothing does.
    """

    def __init__(
        self, by_stage: Mapping[str, Sequence[Callback]], epochs: Mapping[str, int] | None = None
    ) -> None:
        self._by_stage = {stage: tuple(own) for stage, own in by_stage.items()}
        self._epochs = dict(epochs or {})
        self.limit: TimeLimit | None = None
        every = [callback for own in self._by_stage.values() for callback in own]
        self._all = list({id(callback): callback for callback in every}.values())
        # Before any stage changes them.
        self._given = {id(callback): digests(callback) for callback in self._all}

    def of(self, stage: str) -> tuple[Callback, ...]:
        """Return the callbacks of a stage."""
        return self._by_stage.get(stage, ())

    def after(self, stage: str) -> dict[str, int]:
        """Return the epochs of the stages after one, where they are known."""
        order = list(self._by_stage)
        later = order[order.index(stage) + 1 :] if stage in order else []
        return {name: self._epochs[name] for name in later if self._epochs.get(name)}

    def given(self, callback: Callback) -> Mapping[str, str]:
        """Return digests of what a callback held when it was given."""
        return self._given[id(callback)]

    @overload
    def __getitem__(self, index: int) -> Callback: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Callback]: ...
    def __getitem__(self, index: int | slice) -> Callback | Sequence[Callback]:
        return self._all[index]

    def __len__(self) -> int:
        return len(self._all)


def callbacks_of(callbacks: Sequence[Callback], stage: str) -> list[Callback]:
    """Return the callbacks of a stage: of a plain sequence all."""
    return list(callbacks.of(stage) if isinstance(callbacks, StageCallbacks) else callbacks)


def resolve_callbacks(
    given: GivenCallbacks, groups: Mapping[str, Stages], epochs: Mapping[str, int]
) -> StageCallbacks:
    """Return callbacks by their stages, or refuse what would fail, or mislead, when they are used.

    # Arguments
        given: what the user gave.
        groups: the stages of a run, by the name of their group.
        epochs: the epochs of stages, where they are known.
    """
    idle = {stage for stage, number in epochs.items() if not number}
    stages = {name: logs for group in groups.values() for name, logs in group.items()}
    by_stage: dict[str, list[Callback]] = {name: [] for name in stages}
    if isinstance(given, Mapping):
        for name, own in given.items():
            members = list(groups.get(name, [name]))
            if not set(members) <= set(stages):
                raise unknown_name("stage of `callbacks`", name, {*groups, *stages})
            if set(members) <= idle:
                warn(f"`callbacks` of `{name}` have no effect: it has no epochs.")
            for stage in members:
                known = {id(callback) for callback in by_stage[stage]}
                by_stage[stage] += [one for one in _listed(own) if id(one) not in known]
    else:
        for stage in stages:
            by_stage[stage] = _listed(given)
    active = {stage: own for stage, own in by_stage.items() if stage not in idle}
    for callback in StageCallbacks(active):
        used = {s: stages[s] for s, own in active.items() if any(c is callback for c in own)}
        _check(callback, used, groups)
        _warn_of_columns(callback, used)
    return StageCallbacks(by_stage, epochs)


def _listed(given: Any) -> list[Callback]:
    """Return callbacks as a list, or raise `InputError` for what is none."""
    several = isinstance(given, Iterable) and not isinstance(given, str)
    listed = list(given) if several else [] if given is None else [given]
    for callback in listed:
        if not isinstance(callback, tf.keras.callbacks.Callback):
            raise InputError(
                f"`callbacks` must hold objects of tf.keras.callbacks.Callback, but got "
                f"{callback!r}."
            )
    return listed


def _check(callback: Callback, stages: Stages, groups: Mapping[str, Stages]) -> None:
    """Refuse a callback that these stages cannot use as Keras's documentation has it."""
    kind = type(callback).__name__
    if isinstance(callback, _RATES):
        raise InputError(
            f"`callbacks` cannot set the learning rate, but got {kind}: the recipe does (its "
            "`learning_rate` and `schedule`)."
        )
    if isinstance(callback, _keras.BackupAndRestore):
        raise InputError(
            f"`callbacks` cannot resume a run, but got {kind}: give `directory`, and the same call "
            "goes on where it was."
        )
    _check_place(callback)
    if isinstance(callback, _keras.ModelCheckpoint):
        _check_name(callback)
    if isinstance(callback, (_keras.EarlyStopping, _keras.ModelCheckpoint)):
        _check_metrics(callback, stages, groups)
    _check_files(callback, stages, groups)


# What writes, and the attribute that tells where.
_PLACES = {
    _keras.CSVLogger: "filename",
    _keras.ModelCheckpoint: "filepath",
    _keras.TensorBoard: "log_dir",
}


def _check_place(callback: Any) -> None:
    """Refuse a file or folder that cannot be made, which shows hours later."""
    for kind, attribute in _PLACES.items():
        path = str(getattr(callback, attribute)) if isinstance(callback, kind) else ""
        if not path or "://" in path:
            continue
        folder = Path(path).absolute().parent
        there = next(one for one in (folder, *folder.parents) if one.exists())
        cause = ""
        if not there.is_dir():
            cause = f"`{there}` is a file"
        elif not os.access(there, os.W_OK):
            cause = f"`{there}` is not writable"
        elif kind is _keras.CSVLogger and there != folder:
            cause = f"there is no folder `{folder}`"
        if cause:
            raise InputError(
                f"{type(callback).__name__} cannot write `{path}`, as {cause}: give it a file in a "
                "folder that is there."
            )


def _check_name(callback: Any) -> None:
    """Refuse a name of files that Keras cannot fill in, or not when it saves."""
    path = callback.filepath
    try:
        fields = _named_metrics(callback)
        path.format(epoch=1, batch=1, **dict.fromkeys(fields, 0.5))
    except (ValueError, LookupError, AttributeError) as error:
        raise InputError(
            f"ModelCheckpoint cannot fill in its file name `{path}` ({first_line(error)}): write "
            "{epoch} and metrics by name, such as {val_loss:.2f}."
        ) from None
    needed = fields | ({callback.monitor} if callback.save_best_only else set())
    late = sorted(name for name in needed if name.startswith("val_"))
    if late and callback.save_freq != "epoch":
        raise InputError(
            f"ModelCheckpoint saves after batches, by its `save_freq`, but `{late[0]}` is measured "
            "after epochs: leave `save_freq` out."
        )


def _check_metrics(callback: Any, stages: Stages, groups: Mapping[str, Stages]) -> None:
    """Refuse to monitor, or to name files by, a metric that a stage does not have."""
    kind = type(callback).__name__
    monitors = not isinstance(callback, _keras.ModelCheckpoint) or callback.save_best_only
    for stage, logs in stages.items():
        if logs is None:
            continue
        known = {*logs.metrics, *logs.sometimes}
        if monitors and callback.monitor not in known:
            able = [s for s, one in stages.items() if one is None or callback.monitor in _all(one)]
            raise InputError(
                f"{kind} monitors `{callback.monitor}`, which stage `{stage}` does not have (it "
                f"has {', '.join(sorted(known))}): {_other_metric(able)}"
                f"{_mend(callback, able, stages, groups)}."
            )
        for name in sorted(_named_metrics(callback) - set(logs.metrics)):
            able = [s for s, one in stages.items() if one is None or name in one.metrics]
            raise InputError(
                f"{kind} names files by `{name}`, which stage `{stage}` does not have after each "
                f"epoch (it has {', '.join(sorted(logs.metrics))}): {_other_metric(able)}"
                f"{_mend(callback, able, stages, groups)}."
            )


def _check_files(callback: Any, stages: Stages, groups: Mapping[str, Stages]) -> None:
    """Refuse files that one stage, or one training of a stage, writes over those of another."""
    kind, last = type(callback).__name__, list(stages)[-1:]
    repeated = [stage for stage, logs in stages.items() if logs and logs.several]
    resizing = [stage for stage, logs in stages.items() if logs and logs.resizes]
    if resizing and getattr(callback, "restore_best_weights", False):
        raise InputError(
            f"{kind} cannot restore weights in stage `{resizing[0]}`, which changes the widths of "
            "its network: leave `restore_best_weights` out."
        )
    if isinstance(callback, _keras.ModelCheckpoint):
        if resizing:
            others = [stage for stage in stages if stage not in resizing]
            raise InputError(
                f"{kind} cannot save the network of stage `{resizing[0]}`, whose widths change: "
                f"{_mend(callback, others[-1:], stages, groups)}."
            )
        if repeated:
            others = [stage for stage in stages if stage not in repeated]
            raise InputError(
                f"{kind} cannot be used in stage `{repeated[0]}`, whose many trainings write over "
                f"each other's files: {_mend(callback, others[-1:], stages, groups)}."
            )
        if len(stages) > 1 and callback.save_best_only:
            raise InputError(
                f"{kind} keeps the best of stages {_joined(stages)}, which need not be of the "
                f"last one, whose network is another: {_mend(callback, last, stages, groups)}."
            )
        if len(stages) > 1 and "{epoch" in callback.filepath:
            raise InputError(
                f"{kind} names files by the epoch, which each of stages {_joined(stages)} counts "
                f"from 1: {_mend(callback, last, stages, groups)}."
            )
    starts_anew = isinstance(callback, _keras.CSVLogger) and not callback.append
    if starts_anew and (len(stages) > 1 or repeated):
        mend = "give each stage one" if len(stages) > 1 else "give it `append=True`"
        raise InputError(
            f"{kind} starts its file anew in each training of stages {_joined(stages)}: {mend}, or "
            "read history.csv of the run, which has all."
        )


def _warn_of_columns(callback: Callback, stages: Stages) -> None:
    """Warn of figures that a table leaves out, as it has the columns of its first stage."""
    first, *later = (set(_all(logs)) if logs else None for logs in stages.values())
    if not isinstance(callback, _keras.CSVLogger) or first is None:
        return
    # Keras adds columns for validation data that a stage may not have.
    first |= {f"val_{name}" for name in first}
    lost = sorted({name for names in later for name in names or ()} - first)
    if lost:
        warn(
            f"{type(callback).__name__} has the columns of stage `{next(iter(stages))}` alone: "
            f"{', '.join(f'`{name}`' for name in lost)} is left out; give each stage one, or read "
            "history.csv of the run, which has all."
        )


def _all(logs: StageLogs) -> tuple[str, ...]:
    return logs.metrics + logs.sometimes


def _joined(stages: Stages) -> str:
    return ", ".join(f"`{stage}`" for stage in stages)


def _named_metrics(callback: Callback) -> set[str]:
    """Return the metrics in the file names of a callback that saves."""
    if not isinstance(callback, _keras.ModelCheckpoint):
        return set()
    fields = {name for _, name, _, _ in string.Formatter().parse(callback.filepath) if name}
    return fields - set(_WITHOUT_METRICS)


def _other_metric(able: Sequence[str]) -> str:
    return "" if able else "use another metric, or "


def _mend(
    callback: Callback, able: Sequence[str], stages: Stages, groups: Mapping[str, Stages]
) -> str:
    """Return what to write so that a callback is of stages that can use it, and is not refused."""
    kind = type(callback).__name__
    names = {frozenset(members): group for group, members in groups.items()}
    names |= {frozenset([stage]): stage for stage in stages}
    for own in (able, able[-1:]):
        name = names.get(frozenset(own))
        if own and name and _is_sound(callback, {stage: stages[stage] for stage in own}, groups):
            return f'give callbacks={{"{name}": [{kind}(...)]}}'
    return "leave it out"


def _is_sound(callback: Callback, stages: Stages, groups: Mapping[str, Stages]) -> bool:
    try:
        _check(callback, stages, groups)
    except InputError:
        return False
    return True


class _UnkeptError(Exception):
    """A value of a callback that cannot be kept."""


# What Keras sets on every callback, and callbacks whose state is of their own open files.
_OF_KERAS = frozenset(vars(tf.keras.callbacks.Callback())) | {"model", "params"}
_STATELESS = (_keras.TensorBoard, _keras.ProgbarLogger)


_CONTAINERS = {kind.__name__: kind for kind in (list, tuple, dict, set, deque)}


def _packed(value: Any, arrays: list[np.ndarray]) -> Any:
    """Return a value as JSON holds it, its arrays put into `arrays`."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, np.ndarray | np.generic) and np.asarray(value).dtype.kind in "biufcUS":
        arrays.append(np.asarray(value))
        return {"array": len(arrays) - 1, "scalar": isinstance(value, np.generic)}
    if type(value) in _CONTAINERS.values():
        listed = sorted(value, key=repr) if type(value) is set else value
        listed = value.items() if type(value) is dict else listed
        return {type(value).__name__: [_packed(one, arrays) for one in listed]}
    raise _UnkeptError


def _unpacked(packed: Any, arrays: Mapping[int, np.ndarray]) -> Any:
    if not isinstance(packed, dict):
        return packed
    if "array" in packed:
        array = arrays[packed["array"]]
        return array[()] if packed["scalar"] else array
    ((kind, values),) = packed.items()
    made: Any = _CONTAINERS[kind]
    return made(_unpacked(one, arrays) for one in values)


def _attributes(callback: Callback) -> dict[str, Any]:
    if isinstance(callback, _STATELESS):
        return {}
    return {name: value for name, value in vars(callback).items() if name not in _OF_KERAS}


def digests(callback: Callback) -> dict[str, str]:
    """Return a digest of each attribute of a callback: of its value, or of which object it is."""
    return {name: _digest(value) for name, value in _attributes(callback).items()}


def _digest(value: Any) -> str:
    arrays: list[np.ndarray] = []
    try:
        text = json.dumps(_packed(value, arrays))
    except _UnkeptError:
        return f"object {id(value)}"
    digest = hashlib.sha1(text.encode(), usedforsecurity=False)
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def states_of(callbacks: Sequence[Callback], stage: str) -> tuple[list[Callback], "CallbackStates"]:
    """Return the callbacks of a stage, and their states."""
    own = callbacks_of(callbacks, stage)
    given = callbacks.given if isinstance(callbacks, StageCallbacks) else digests
    return own, CallbackStates(own, [given(callback) for callback in own])


class CallbackStates(tf.train.experimental.PythonState):
    """What callbacks have changed of themselves in a stage: saved in its checkpoints.

    Numbers, text, arrays, and lists and mappings of them are kept; settings that are as they were
    given are not, so that others may be given to a run that is resumed.

    # Attributes
        callbacks: the callbacks.
        stopped: whether a callback has stopped the stage.
        ended: whether callbacks were told of its end.
    """

    def __init__(self, callbacks: Sequence[Callback], given: Sequence[Mapping[str, str]]) -> None:
        self.callbacks, self._given = callbacks, given
        self._read: list[dict[str, Any]] = []
        self._arrays: dict[int, np.ndarray] = {}
        self.stopped = self.ended = False

    def serialize(self) -> bytes:
        arrays: list[np.ndarray] = []
        states = [
            self._state(callback, given, arrays)
            for callback, given in zip(self.callbacks, self._given, strict=True)
        ]
        record = {"stopped": self.stopped, "ended": self.ended, "callbacks": states}
        text = np.frombuffer(json.dumps(record).encode(), np.uint8)
        file = io.BytesIO()
        np.savez(file, record=text, **{str(i): array for i, array in enumerate(arrays)})
        return file.getvalue()

    def _state(
        self, callback: Callback, given: Mapping[str, str], arrays: list[np.ndarray]
    ) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        lost = []
        for name, value in _attributes(callback).items():
            if _digest(value) == given.get(name):
                continue
            try:
                kept[name] = _packed(value, arrays)
            except _UnkeptError:
                if not callable(value) and not type(callback).__module__.startswith("keras."):
                    lost.append(name)
        return {"kind": type(callback).__name__, "kept": kept, "lost": lost}

    def deserialize(self, string_value: bytes) -> None:
        with np.load(io.BytesIO(string_value)) as file:
            record = json.loads(file["record"].tobytes())
            self._arrays = {int(name): file[name] for name in file.files if name != "record"}
        self._read = record["callbacks"]
        self.stopped, self.ended = record["stopped"], record["ended"]

    def apply(self, is_over: bool = False) -> None:
        """Give callbacks what they had at the last checkpoint; tell what is lost if it goes on."""
        rest = list(self._read)
        for callback in self.callbacks if self._read else ():
            kind = type(callback).__name__
            state = next((one for one in rest if one["kind"] == kind), None)
            if state is None and is_over:
                continue
            if state is None:
                warn(f"Callback {kind} was not there when the run was stopped: it starts anew.")
                continue
            rest.remove(state)
            for name, value in state["kept"].items():
                setattr(callback, name, _unpacked(value, self._arrays))
            if state["lost"] and not is_over:
                warn(
                    f"Callback {kind} has lost {', '.join(f'`{name}`' for name in state['lost'])}: "
                    "numbers, text, arrays, and lists and dictionaries of them are kept when a run "
                    "is resumed."
                )
        self._read = []

    def prepare(self) -> None:
        """Let those that write a file go on with it, if something of the stage was done."""
        for callback in self.callbacks if self._read else ():
            if isinstance(callback, _keras.CSVLogger):
                callback.append = True


_REPEATED = ("Early stopping conditioned on metric", "Can save best model only with")


@contextmanager
def warning_once() -> Iterator[None]:
    """Let Keras warn once of a metric that an epoch does not have, not after each such epoch."""
    told = set()

    def is_new(record: logging.LogRecord) -> bool:
        text = record.getMessage().partition(". Available")[0]
        known = text in told
        told.add(text)
        return not known or not text.startswith(_REPEATED)

    logger = tf.get_logger()
    logger.addFilter(is_new)
    try:
        yield
    finally:
        logger.removeFilter(is_new)


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}  # by the first letter
_MOST_SECONDS = 1e15
_TIME = re.compile(
    r"(\d+(?:\.\d+)?)\s*(s(?:ec(?:ond)?s?)?|min(?:ute)?s?|h(?:(?:ou)?rs?)?|d(?:ays?)?)\s*(?![a-z])"
)


def read_seconds(given: float | str) -> float:
    """Return the seconds that a number or text such as `"1.5h"` or `"1h 30min"` stands for."""
    seconds: Any = given
    if isinstance(given, str) and re.fullmatch(rf"(?:{_TIME.pattern})+", given.strip()):
        seconds = sum(float(number) * _UNITS[unit[0]] for number, unit in _TIME.findall(given))
    if not is_number(seconds) or not 0 < seconds < _MOST_SECONDS:
        raise InputError(
            "`time_limit` must be a number of seconds above 0, or text such as 90min, 2h or "
            f"1h 30min, but got {given!r}."
        )
    return float(seconds)


class TimeLimit(Callback):
    """Ends the stages of a search in time, each at the end of an epoch.

    A stage may take its share of the time that is left, which it has in common with those after it.

    # Arguments
        seconds: what all of them may take.
        stages: the stages that it ends, in their order.
        path: a file that keeps the seconds that were used, and what was ended.

    # Attributes
        stages: the stages that it ends.
    """

    def __init__(self, seconds: float, stages: Sequence[str], path: Path) -> None:
        super().__init__()
        self._seconds, self.stages, self._path = seconds, list(stages), path
        self._before, self._ended = _read_limit(path)
        self._began = time.monotonic()
        self._stage, self._until = "search", seconds

    def begin(self, stage: str) -> None:
        """Share what is left of the time between a stage and those after it."""
        self._stage = stage
        after = self.stages[self.stages.index(stage) :] if stage in self.stages else [stage]
        used, left = self._used(), len(after)
        self._until = used + max(0.0, self._seconds - used) / left

    def is_over(self, what: str) -> bool:
        """Return whether the time is over, and tell what that ends if it is."""
        over = self._used() >= self._until
        if over:
            told = f"{what}, as its time limit is over: the same seed may end elsewhere again."
            self._ended += [told] if told not in self._ended else []
            warn(told)
        self._keep()
        return over

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        last = self.params["epochs"]
        if epoch + 1 < last:
            what = f"Stage `{self._stage}` ended after epoch {epoch + 1} of {last}"
            self.model.stop_training = self.model.stop_training or self.is_over(what)
        else:
            self._keep()

    def _used(self) -> float:
        return self._before + time.monotonic() - self._began

    def _keep(self) -> None:
        kept = {"seconds": round(self._used(), 1), "ended": self._ended}
        write_atomically(self._path, json.dumps(kept))


def limits_of(callbacks: Sequence[Callback], stage: str) -> list[TimeLimit]:
    """Return what ends a stage in time, if anything does."""
    limit = callbacks.limit if isinstance(callbacks, StageCallbacks) else None
    if limit is None or stage not in limit.stages:
        return []
    limit.begin(stage)
    return [limit]


def read_ended(path: Path) -> list[str]:
    """Return what a time limit has ended, of a run that had one."""
    return _read_limit(path)[1]


def _read_limit(path: Path) -> tuple[float, list[str]]:
    """Return the seconds that were used, and what was ended."""
    if not path.exists():
        return 0.0, []
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return float(kept["seconds"]), [str(told) for told in kept["ended"]]
    except (ValueError, TypeError, KeyError):
        raise InputError(
            f"`{path}` is damaged: delete it, and the time of the run counts anew."
        ) from None


_SHORT = 60.0
_LONGER = 1.5


class TimeLeft(Callback):
    """Tells how long a stage will take, and what comes then; again where epochs become longer.

    # Arguments
        stage: its name.
        epochs: its epochs.
        after: those of later stages.
    """

    def __init__(self, stage: str, epochs: int, after: Mapping[str, int]) -> None:
        super().__init__()
        self._stage, self._epochs, self._after = stage, epochs, after
        self._first: int | None = None
        self._began = self._ended = self._each = 0.0
        self._steps = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self._first is None:
            self._first = epoch
            return
        # Behind the progress bar of the epoch before.
        each = self._ended - self._began
        if epoch == self._first + 1 and self._steps > 1:
            # The first step builds the graph, and is not timed.
            each *= self._steps / (self._steps - 1)
        # Those of a search are, once its architecture parameters learn too.
        if each > _LONGER * self._each:
            self._each = each
            self._tell(each, self._epochs - epoch)
        self._began = time.monotonic()

    def _tell(self, each: float, left: int) -> None:
        if each * left < _SHORT:
            return
        later = [f"`{name}`, {counted(number, 'epoch')}" for name, number in self._after.items()]
        log.info(
            f"Stage `{self._stage}`: about {duration(each * left)} left, for {left} of "
            f"{counted(self._epochs, 'epoch')}{'; then '.join(['', *later])}"
        )

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._steps == 0:
            self._began = time.monotonic()
        self._steps += 1

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._ended = time.monotonic()


def duration(seconds: float) -> str:
    """Return a time as it is said, such as `40 s`, `12 min` or `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
