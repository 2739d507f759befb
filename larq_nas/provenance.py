"""Where a result comes from: the versions, and the command or call that repeats it."""

import dataclasses
import inspect
import math
import platform
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["call", "provenance", "typed"]

_PACKAGES = ("larq_nas", "tensorflow", "tensorflow-cpu", "larq", "larq-compute-engine", "numpy")
_COMMAND: ContextVar[str | None] = ContextVar("command", default=None)
_DATA = ("train", "validation")


@contextmanager
def typed(arguments: Sequence[str]) -> Iterator[None]:
    """Remember what was typed after `larq-nas` while a `with` block runs."""
    token = _COMMAND.set(shlex.join(["larq-nas", *arguments]))
    try:
        yield
    finally:
        _COMMAND.reset(token)


def provenance(function: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the versions, and the command that was typed or else the call, as JSON holds them."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {"versions": versions, "call": _COMMAND.get() or call(function, arguments)}


def call(function: Callable[..., Any], arguments: Mapping[str, Any]) -> str:
    """Return the call of a function of larq_nas, with the arguments that are not its defaults.

    The directory is left out: a run may have been moved.
    """
    given = []
    for name, parameter in inspect.signature(function).parameters.items():
        value = arguments[name]
        if name == "directory" or _same(value, parameter.default):
            continue
        if name in _DATA:
            given.append(name)
        elif parameter.default is parameter.empty:
            given.append(_written(value, name))
        else:
            given.append(f"{name}={_written(value, name)}")
    return f"larq_nas.{function.__name__}({', '.join(given)})"


def _same(value: Any, default: Any) -> bool:
    return value is default or (type(value) is type(default) and value == default)


def _written(value: Any, name: str) -> str:
    """Return a value as it is written in Python; the name of its argument if it is an object.

    A collection with an object is named as a whole: of two objects, both would have that name.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _constructor(value)
    if isinstance(value, Mapping):
        written = {_written(key, name): _written(one, name) for key, one in value.items()}
        if name in {*written, *written.values()}:
            return name
        return f"{{{', '.join(f'{key}: {one}' for key, one in written.items())}}}"
    if isinstance(value, list | tuple):
        items = [_written(one, name) for one in value]
        if name in items:
            return name
        inner = ", ".join(items)
        if isinstance(value, list):
            return f"[{inner}]"
        return f"({inner},)" if len(items) == 1 else f"({inner})"
    if isinstance(value, Path):
        return repr(str(value))
    if isinstance(value, float) and not math.isfinite(value):
        return f"float({str(value)!r})"
    if value is None or isinstance(value, bool | int | float | str | range):
        return repr(value)
    own = str(getattr(value, "__name__", ""))
    return own if own.isidentifier() else name


def _constructor(value: Any) -> str:
    kind = type(value)
    package = ".".join(kind.__module__.split(".")[:2])
    where = f"{package}." if package.startswith("larq_nas.") else ""
    given = []
    for field in dataclasses.fields(value):
        own = getattr(value, field.name)
        if field.init and not _same(own, field.default):
            given.append(f"{field.name}={_written(own, field.name)}")
    return f"{where}{kind.__name__}({', '.join(given)})"
