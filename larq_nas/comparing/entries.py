"""What is compared: architectures by name, made binary and brought to one size."""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from larq_nas.architecture import Architecture
from larq_nas.choosers import Sample
from larq_nas.errors import InputError
from larq_nas.spaces import Space, WidthSpace, names, resolve

__all__ = ["Entry", "read_entries"]

_RANDOM = re.compile(r"random(?::(\d+))?")


@dataclass(frozen=True)
class Entry:
    """Architectures that are one row of a comparison: one, or several random ones.

    # Arguments
        label: what the row is called.
        architectures: what is trained.
        changes: settings that are not as published, as its user reads them.
    """

    label: str
    architectures: tuple[Architecture, ...]
    changes: tuple[str, ...] = ()

    def folders(self, directory: Path, seed: int) -> list[Path]:
        """Return where the runs of a seed are kept, in the order of the architectures."""
        place = directory / re.sub(r"[^\w.-]", "_", self.label)
        if len(self.architectures) == 1:
            return [place / f"seed{seed}"]
        return [place / f"{n}_seed{seed}" for n in range(len(self.architectures))]


def read_entries(
    sources: Sequence[str | Path | Architecture],
    settings: Mapping[str, Any],
    space: Space,
    input_shape: tuple[int, int, int],
    classes: int,
) -> list[Entry]:
    """Return what is compared, each network built once.

    # Arguments
        sources: see `larq_nas.compare`.
        settings: settings of spaces, for each that has them.
        space: where random architectures are drawn from.
        input_shape: `(height, width, channels)` of the images, in pixels.
        classes: number of classes.

    # Raises
        InputError: if a source cannot be read or built, or nothing has one of the settings.
    """
    if isinstance(sources, str) or not sources:
        raise InputError(f"`architectures` must be a list of them, but got {sources!r}.")
    entries: list[Entry] = []
    used: set[str] = set()
    for source in sources:
        entry = _read(source, settings, space, input_shape, classes, used)
        if entry.label in {other.label for other in entries}:
            raise InputError(f"`architectures` must hold each one once, but got {source!r} twice.")
        entries.append(entry)
    for name in settings.keys() - used:
        raise InputError(f"None of the architectures has a setting `{name}`: leave it out.")
    for entry in entries:
        for architecture in entry.architectures:
            architecture.build(input_shape, classes)
    return entries


def _read(
    source: str | Path | Architecture,
    settings: Mapping[str, Any],
    space: Space,
    input_shape: tuple[int, int, int],
    classes: int,
    used: set[str],
) -> Entry:
    drawn = _RANDOM.fullmatch(source) if isinstance(source, str) else None
    if drawn:
        return _random(int(drawn[1] or 1), settings, space, input_shape, classes, used)
    published = Architecture.published_names()
    if isinstance(source, str) and source in names() and source not in published:
        resolved = resolve(source)
        if not isinstance(resolved, WidthSpace):
            raise InputError(
                f"`{source}` is a space, not an architecture: compare random:5 of it with "
                "`space`, or the directory of a run."
            )
        found = Architecture(source, {"expansion": 1})
    else:
        found = Architecture.read(source)
    label = found.space if isinstance(source, Architecture) else _label(source)
    changes = _changes(found.resolve(), settings, used)
    told = tuple(f"{name}={value}" for name, value in changes.items())
    return Entry(label, (found.with_settings(**changes),), told)


def _label(source: str | Path) -> str:
    path = Path(source)
    return path.parent.name if path.name == "architecture.json" else path.name


def _random(
    count: int,
    settings: Mapping[str, Any],
    space: Space,
    input_shape: tuple[int, int, int],
    classes: int,
    used: set[str],
) -> Entry:
    if not count:
        raise InputError("`random:0` is no architecture: ask for 1 or more.")
    changes = _changes(space, settings, used)
    sized = resolve(space, changes) if changes else space
    found = []
    for seed in range(count):
        choose = Sample(_Drawn(seed))
        sized.build(choose, input_shape, classes)
        found.append(Architecture(sized.name, sized.settings(), choose.values))
    return Entry(f"random {space.name}", tuple(found))


def _changes(space: Space, settings: Mapping[str, Any], used: set[str]) -> dict[str, Any]:
    """Return the settings that a space has, and that make it binary."""
    known: set[str] = {one.name for one in fields(space)} if is_dataclass(space) else set()
    changes = {name: value for name, value in settings.items() if name in known}
    used.update(changes)
    if getattr(space, "precision", "binary") != "binary" and "precision" not in changes:
        changes["precision"] = "binary"
    return changes


class _Drawn:
    """Draws like `keras_tuner.HyperParameters`, from a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def Choice(self, name: str, values: list[Any]) -> Any:  # noqa: N802 - keras-tuner's name
        return self._random.choice(values)
