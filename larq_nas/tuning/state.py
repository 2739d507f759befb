"""Files of keras-tuner's state that are whole whenever a process is killed."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

from larq_nas.errors import InputError
from larq_nas.files import write_atomically

__all__ = ["read_state", "write_state"]

_PREVIOUS = ".previous"


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


def read_state(path: Path) -> Any:
    """Return what is in `path`, or if it is damaged what was there before.

    # Raises
        InputError: if neither can be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        damage = f"`{path}` is damaged ({error})"
    try:
        state = json.loads(_previous(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(
            f"{damage}, and there is no earlier one: restore it, or delete `{path.parent}` to "
            "search again."
        ) from None
    warnings.warn(f"{damage}: going on from the one before it.", stacklevel=2)
    shutil.copyfile(_previous(path), path)
    return state


def _previous(path: Path) -> Path:
    return path.with_name(f"{path.stem}{_PREVIOUS}{path.suffix}")
