"""Which part this process has in a search on many: alone, chief or worker."""

import os
from typing import Literal, TypeAlias

from larq_nas.errors import InputError

__all__ = ["Role", "current_role"]

Role: TypeAlias = Literal["alone", "chief", "worker"]
"""The only process; the one that hands candidates out; one that trains them."""

_NAMES = ("KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")


def current_role() -> Role:
    """Return the part of this process, as keras-tuner's environment variables say.

    # Raises
        InputError: if some of them are set and others are not.
    """
    given = [name for name in _NAMES if os.environ.get(name)]
    if "KERASTUNER_ORACLE_IP" not in given:
        return "alone"
    missing = [name for name in _NAMES if name not in given]
    if missing:
        raise InputError(
            f"{' and '.join(given)} are set in the environment, but not {', '.join(missing)}: a "
            "search on many processes needs all three."
        )
    return "chief" if "chief" in os.environ["KERASTUNER_TUNER_ID"] else "worker"
