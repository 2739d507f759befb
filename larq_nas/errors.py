"""What larq_nas raises, and the wording shared by those errors."""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["ConversionError", "DivergenceError", "InputError", "LarqNasError"]


class LarqNasError(Exception):
    """Base of every error that larq_nas raises on purpose; its text is one line."""


class InputError(LarqNasError, ValueError):
    """Something handed to larq_nas cannot be used; nothing was trained or overwritten."""


class ConversionError(LarqNasError, RuntimeError):
    """A model cannot be deployed as it is: a layer fell back to float, or outputs differ."""


class DivergenceError(LarqNasError, RuntimeError):
    """A loss or a weight became NaN or infinite; the last good checkpoint is kept."""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> InputError:
    """Return the error for an unknown `name`, with the nearest known one."""
    names = sorted(known)
    close = get_close_matches(str(name), names, n=1, cutoff=0.4)
    hint = f"; did you mean `{close[0]}`?" if close else "."
    return InputError(f"Unknown {kind} `{name}`{hint} Known: {', '.join(names)}.")


def require_positive(**values: float | None) -> None:
    """Raise `InputError` for the first value that is not above 0; `None` passes."""
    for name, value in values.items():
        if value is not None and not value > 0:
            raise InputError(f"`{name}` must be positive, but got {value}.")


def require_whole(**values: int | None) -> None:
    """Raise `InputError` for the first value that is not a whole number above 0."""
    for name, value in values.items():
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int):
            raise InputError(f"`{name}` must be a whole number, but got {value!r}.")
        require_positive(**{name: value})
