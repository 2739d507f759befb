"""What differs between settings, in words."""

from collections.abc import Mapping
from typing import Any

__all__ = ["differences", "flat"]


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Return which of two flat settings differ, and what each was and is."""
    return "; ".join(
        f"{key} was {old.get(key)!r}, now {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    )


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as one mapping, with names such as `recipe.optimizer`."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
