"""Errors of larq_nas, and the wording they share."""

import contextlib
import functools
import importlib.util
import math
import numbers
import os
import re
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

__all__ = [
    "ConversionError",
    "DivergenceError",
    "InputError",
    "LarqNasError",
    "ProcessLostError",
]

# What decorates a function has a frame too, and what calls back, as Keras does callbacks.
_INSIDE = (
    f"{Path(__file__).parent}{os.sep}",
    *(
        f"{folder}{os.sep}"
        for name in ("keras", "keras_tuner", "tensorflow")
        if (spec := importlib.util.find_spec(name)) is not None
        for folder in spec.submodule_search_locations or ()
    ),
    contextlib.__file__,
    functools.__file__,
)


class LarqNasError(Exception):
    """Base of every error that larq_nas raises on purpose; its text is one line."""


class InputError(LarqNasError, ValueError):
    """Something handed to larq_nas cannot be used; nothing was trained or overwritten."""


class ConversionError(LarqNasError, RuntimeError):
    """A model cannot be deployed as it is: a layer fell back to float, or outputs differ."""


class DivergenceError(LarqNasError, RuntimeError):
    """A loss or a weight became NaN or infinite; the last good checkpoint is kept."""


class ProcessLostError(LarqNasError, RuntimeError):
    """Another process of a strategy ended; what was saved is kept."""


def unknown_name(
    kind: str, name: object, known: Iterable[str], meant: Mapping[str, str] | None = None
) -> InputError:
    """Return the error for an unknown `name`, with what it is `meant` for, or the nearest one."""
    names, meaning = sorted(known), (meant or {}).get(str(name).lower())
    close = [meaning] if meaning else get_close_matches(str(name), names, n=1, cutoff=0.4)
    hint = f"; did you mean `{close[0]}`?" if close else "."
    return InputError(f"Unknown {kind} `{name}`{hint} Known: {', '.join(names)}.")


def require_known(
    kind: str, name: object, known: Collection[str], meant: Mapping[str, str] | None = None
) -> None:
    """Raise `InputError` for a name that is not known; `meant` are other words for known ones."""
    if name not in known:
        raise unknown_name(kind, name, known, meant)


def warn(text: str) -> None:
    """Warn, naming the line which called larq_nas."""
    for told in _TOLD[-1:]:
        told.add([text])
    warnings.warn(text, stacklevel=callers_level())


class _Told:
    """What a call has warned of, each text once and in order.

    # Attributes
        keep: takes all texts whenever there is a further one.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.keep: Callable[[list[str]], None] | None = None

    def add(self, texts: Iterable[str]) -> None:
        before = len(self.texts)
        self.texts = list(dict.fromkeys([*self.texts, *texts]))
        if self.keep and len(self.texts) > before:
            self.keep(self.texts)


_TOLD: list[_Told] = []


@contextlib.contextmanager
def collecting_warnings() -> Iterator[None]:
    """Collect what a call warns of, for the run that it opens later."""
    _TOLD.append(_Told())
    try:
        yield
    finally:
        _TOLD.pop()


@contextlib.contextmanager
def keeping_warnings(before: Sequence[str], keep: Callable[[list[str]], None]) -> Iterator[None]:
    """Give `keep` what was kept before and what a call has warned of, now and with each further."""
    with contextlib.ExitStack() as stack:
        whole = _TOLD[-1] if _TOLD and _TOLD[-1].keep else None
        if not _TOLD or whole:
            stack.enter_context(collecting_warnings())
        told = _TOLD[-1]
        new, told.texts, told.keep = told.texts, list(before), keep
        told.add(new)
        try:
            yield
        finally:
            told.keep = None
            if whole:
                # Of a run within another, such as the search by a seed.
                whole.add(told.texts)


def callers_level() -> int:
    """Return the `stacklevel` of `warnings.warn` that names the line which called larq_nas."""
    frame, level = sys._getframe(1), 1
    while frame.f_code.co_filename.startswith(_INSIDE) and frame.f_back is not None:
        frame, level = frame.f_back, level + 1
    return level


_RAISED = re.compile(r"\w*(Error|Exception): ")
_IN_LAYER = "Exception encountered when calling "
_IN_GRAPH = re.compile(r"^\{\{function_node .*?\}\} | \[Op:\w+\].*$")


def first_line(error: BaseException) -> str:
    """Return the line of an error that says what is wrong, without its full stop."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    if lines[0] == "in user code:":
        # AutoGraph's traceback comes first.
        raised = [number for number, line in enumerate(lines) if _RAISED.match(line)]
        lines = lines[raised[0] if raised else -1 :]
        lines[0] = _RAISED.sub("", lines[0], count=1)
    if lines[0] == "Graph execution error:":
        # Where it was traced comes first; the line after the cause names the node.
        nodes = [number for number, line in enumerate(lines) if line.startswith("[[{{node")]
        lines = lines[nodes[0] - 1 :] if nodes else lines[-1:]
    if lines[0].startswith(_IN_LAYER) and len(lines) > 1:
        lines[0] = f"{lines[0].removeprefix(_IN_LAYER).rstrip('.')}: {lines[1]}"
    return _IN_GRAPH.sub("", lines[0]).rstrip(".:")


def use_plain_numbers(settings: Any) -> None:
    """Give the fields of a dataclass Python's numbers in place of NumPy's, which JSON lacks."""
    for field in fields(settings):
        value = getattr(settings, field.name)
        plain = plain_number(value)
        if plain is not value:
            object.__setattr__(settings, field.name, plain)


def plain_number(value: Any) -> Any:
    """Return Python's number for one of NumPy, or those in a list; all else stays as it is."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple | list) and any(isinstance(one, np.generic) for one in value):
        return type(value)(plain_number(one) for one in value)
    if isinstance(value, dict) and any(isinstance(one, np.generic) for one in value.values()):
        return {name: plain_number(one) for name, one in value.items()}
    return value


def require_fields(check: Callable[..., None], settings: Any, *names: str) -> None:
    """Check fields of a dataclass by their names; `None` passes where it is the default."""
    optional = {field.name for field in fields(settings) if field.default is None}
    for name in names:
        value = getattr(settings, name)
        if value is not None or name not in optional:
            check(**{name: value})


def require_falling(settings: Any, name: str) -> None:
    """Raise `InputError` if the field `final_<name>` is above `<name>`."""
    first, last = getattr(settings, name), getattr(settings, f"final_{name}")
    if last is not None and last > first:
        raise InputError(f"`final_{name}` must be at most `{name}`, {first}, but got {last}.")


def require_bool(**values: object) -> None:
    """Raise `InputError` for the first value that is neither True nor False."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise InputError(f"`{name}` must be True or False, but got {value!r}.")


def require_positive(**values: float) -> None:
    """Raise `InputError` for the first value that is not a finite number above 0."""
    for name, value in values.items():
        _require_number(name, value)
        if not value > 0:
            raise InputError(f"`{name}` must be positive, but got {value}.")


def require_not_negative(**values: float) -> None:
    """Raise `InputError` for the first value that is not 0 or a finite number above."""
    require_at_least(0, **values)


def require_at_least(least: float, **values: float) -> None:
    """Raise `InputError` for the first value that is not `least` or a finite number above."""
    for name, value in values.items():
        _require_number(name, value)
        if value < least:
            raise InputError(f"`{name}` must be {least:g} or more, but got {value}.")


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a value is a number of Python's own or of NumPy's, and no truth value."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


_MOST = float(np.finfo(np.float32).max)


def _require_number(name: str, value: object) -> None:
    if is_number(value) and _MOST < abs(value) < math.inf:
        raise InputError(f"`{name}` must be a number up to {_MOST:.3g}, but got a larger one.")
    if not is_number(value) or not math.isfinite(value):
        odd = isinstance(value, numbers.Number) and not isinstance(value, int | float)
        kind = f" ({type(value).__name__})" if odd else ""
        raise InputError(f"`{name}` must be a finite number, but got {value!r}{kind}.")


def require_whole(**values: int) -> None:
    """Raise `InputError` for the first value that is not a whole number above 0."""
    for name, value in values.items():
        _require_integer(name, value)
        require_positive(**{name: value})


def require_count(**values: int) -> None:
    """Raise `InputError` for the first value that is not a whole number, 0 or more."""
    for name, value in values.items():
        _require_integer(name, value)
        require_not_negative(**{name: value})


def _require_integer(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InputError(f"`{name}` must be a whole number, but got {value!r}.")
    if abs(int(value)) >= _BOUND:
        raise InputError(f"`{name}` must be a whole number below 2**31, but got {value!r}.")


_BOUND = 2**31  # of numbers that TensorFlow takes for a size


def require_at_most(most: int, **values: int | None) -> None:
    """Raise `InputError` for the first value above `most`; `None` passes."""
    for name, value in values.items():
        if value is not None and value > most:
            raise InputError(f"`{name}` must be at most {most:,}, but got {value:,}.")
