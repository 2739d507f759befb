"""Files of keras-tuner's state that are whole whenever a process is killed."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from larq_nas.errors import callers_level
from larq_nas.files import write_atomically

__all__ = ["read_state", "write_state"]

_PREVIOUS = ".previous"
_DAMAGES = (OSError, ValueError, LookupError, TypeError, AttributeError)

State = TypeVar("State")


def write_state(path: Path, state: Any, keep_previous: bool = False) -> None:
    """Write `state` as JSON in one step.

    # Arguments
        path: the file.
        state: what JSON can hold.
        keep_previous: whether the file as it was stays beside it.
    """
    if keep_previous and path.exists():
        write_atomically(_previous(path), path.read_bytes())
    write_atomically(path, json.dumps(state))


def read_state(path: Path, use: Callable[[Any], State]) -> State | None:
    """Return what `use` makes of the state in `path`, or if it is damaged of the one before it.

    # Arguments
        path: the file.
        use: reads a state, and fails if it is not whole.

    # Returns
        `None` if neither can be read.
    """
    try:
        return use(_read(path))
    except _DAMAGES as error:
        damage = f"`{path}` is damaged ({type(error).__name__}: {error})"
    try:
        state = use(_read(_previous(path)))
    except _DAMAGES:
        warnings.warn(f"{damage}: what it held is made again.", stacklevel=callers_level())
        return None
    warnings.warn(f"{damage}: going on from the one before it.", stacklevel=callers_level())
    shutil.copyfile(_previous(path), path)
    return state


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _previous(path: Path) -> Path:
    return path.with_name(f"{path.stem}{_PREVIOUS}{path.suffix}")
