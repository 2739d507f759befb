"""What goes wrong with a device, in one line."""

from larq_nas.errors import LarqNasError

__all__ = ["DeviceError", "OutputsError", "last_line"]


class DeviceError(LarqNasError, RuntimeError):
    """A device cannot be reached, or cannot measure; nothing is wrong with what it was given."""


class OutputsError(DeviceError):
    """The benchmark program on a device measures, but cannot write the outputs of a network."""


def last_line(text: str) -> str:
    """Return the last line of `text` that is not empty, without its full stop."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else ""
