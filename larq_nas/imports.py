"""Objects that a user's own Python file or module defines."""

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from larq_nas.errors import InputError, first_line

__all__ = ["load_object"]


def load_object(reference: str, what: str) -> Any:
    """Return what `path/to/file.py:name` or `package.module:name` names, such as a space."""
    source, _, name = reference.rpartition(":")
    try:
        if source.endswith(".py"):
            module = _load_file(Path(source))
        else:
            _make_importable(Path.cwd())
            module = importlib.import_module(source)
        return getattr(module, name)
    except Exception as error:
        raise InputError(f"Cannot load {what} `{reference}`: {first_line(error)}.") from error


def _make_importable(folder: Path) -> None:
    """Let a file import its neighbours, as a script that Python runs could."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _load_file(path: Path) -> Any:
    _make_importable(path.parent.resolve())
    spec = importlib.util.spec_from_file_location(f"_larq_nas_own_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"`{path}` is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[f"_larq_nas_own_{path.stem}"] = module
    spec.loader.exec_module(module)
    return module
