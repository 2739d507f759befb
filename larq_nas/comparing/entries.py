"""What is compared: architectures by name, made binary and brought to one size."""

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

from larq_nas.architecture import Architecture
from larq_nas.choosers import Sample
from larq_nas.errors import InputError, unknown_name
from larq_nas.pipeline.check import DataFacts
from larq_nas.spaces import Space, SpaceLike, WidthSpace, names, resolve
from larq_nas.train import require_living
from larq_nas.training.ready import require_stages
from larq_nas.training.recipe import Recipe

__all__ = ["Entry", "drawn_from", "read_entries"]

_RANDOM = re.compile(r"random(?::(\d+))?")


@dataclass(frozen=True)
class Entry:
    """Architectures that are one row of a comparison: one, or several random ones.

    # Arguments
        label: what the row is called.
        architectures: what is trained.
        space: the space they are of.
        told: its settings, what was changed, and what it does not have.
    """

    label: str
    architectures: tuple[Architecture, ...]
    space: Space
    told: tuple[str, ...]

    @property
    def folder(self) -> str:
        """The name of the folder of its runs."""
        return re.sub(r"[^\w.-]", "_", self.label)

    def folders(self, directory: Path, seed: int) -> list[Path]:
        """Return where the runs of a seed are kept, in the order of the architectures."""
        place = directory / self.folder
        if len(self.architectures) == 1:
            return [place / f"seed{seed}"]
        return [place / f"{n}_seed{seed}" for n in range(len(self.architectures))]


@dataclass
class _Reader:
    """Reads entries, and remembers which settings were used."""

    settings: Mapping[str, Any]
    space: Space
    facts: DataFacts
    used: set[str] = field(default_factory=set)

    def read(self, source: str | Path | Architecture) -> Entry:
        """Return what `source` stands for; digits of its own tell it apart that has no name."""
        drawn = _RANDOM.fullmatch(source) if isinstance(source, str) else None
        if drawn:
            return self._random(int(drawn[1] or 1))
        if isinstance(source, Architecture):
            digits = zlib.crc32(source.to_json().encode())
            return self._one(f"{source.space} {digits:08x}", source)
        if not isinstance(source, str | Path):
            raise InputError(
                "`architectures` must hold names, paths and objects of larq_nas.Architecture, but "
                f"got {source!r}."
            )
        if source in names() and source not in Architecture.published_names():
            return self._one(str(source), _backbone(str(source)))
        if source not in Architecture.published_names():
            _require_file(source)
        return self._one(_label(source), Architecture.read(source))

    def _one(self, label: str, found: Architecture) -> Entry:
        own = self.space if found.space == self.space.name and found.space not in names() else None
        before = found.resolve(own)
        changes = self._changes(before)
        found = found.with_settings(**changes) if changes else found
        space = found.resolve(own)
        return Entry(label, (found,), space, self._told(before, space))

    def _random(self, count: int) -> Entry:
        if not count:
            raise InputError("`random:0` is no architecture: ask for 1 or more.")
        changes = self._changes(self.space)
        space = resolve(self.space, changes) if changes else self.space
        found = []
        for seed in range(count):
            choose = Sample.seeded(seed)
            space.build(choose, self.facts.input_shape, self.facts.classes)
            found.append(Architecture(space.name, space.settings(), choose.values))
        label = f"{count} random {space.name}"
        return Entry(label, tuple(found), space, self._told(self.space, space))

    def _told(self, before: Space, after: Space) -> tuple[str, ...]:
        """Return what a row is: rows may differ in more than their cells."""
        old, new = before.settings(), after.settings()
        told = [
            f"{name}={value}" + (f" (was {old[name]})" if old[name] != value else "")
            for name, value in new.items()
            if isinstance(value, int | float | str)
        ]
        return *told, *(f"no {name}" for name in self.settings if name not in new)

    def _changes(self, space: Space) -> dict[str, Any]:
        """Return the settings that a space has, and that make it binary as BATS does."""
        known = {one.name for one in fields(space)} if is_dataclass(space) else set[str]()
        changes = {name: value for name, value in self.settings.items() if name in known}
        self.used.update(changes)
        if getattr(space, "precision", "binary") != "binary":
            binary = {"precision": "binary", "activation": "prelu"}
            changes = {name: v for name, v in binary.items() if name in known} | changes
        return changes


def read_entries(
    sources: Sequence[str | Path | Architecture],
    settings: Mapping[str, Any],
    space: Space,
    facts: DataFacts,
    recipe: Recipe,
    adds: bool = False,
) -> list[Entry]:
    """Return what is compared, each network built once for each stage of its training.

    # Arguments
        sources: see `larq_nas.compare`.
        settings: settings of spaces, for each that has them.
        space: where random architectures are drawn from.
        facts: the data that they are compared on.
        recipe: how they are trained.
        adds: whether there are others already, which may have the settings that these have not.

    # Raises
        InputError: if a source cannot be read or built, or nothing has one of the settings.
    """
    if not isinstance(sources, list | tuple) or not sources:
        raise InputError(f"`architectures` must be a list of one or more, but got {sources!r}.")
    reader = _Reader(settings, space, facts)
    entries: list[Entry] = []
    for source in sources:
        entry = reader.read(source)
        for other in entries:
            if other.folder == entry.folder or other.architectures == entry.architectures:
                raise InputError(
                    f"`architectures` must be different ones, of different names, but got "
                    f"`{other.label}` and `{entry.label}`."
                )
        entries.append(entry)
    for name in () if adds else settings.keys() - reader.used:
        raise InputError(f"None of the architectures has a setting `{name}`: leave it out.")
    for entry in entries:
        try:
            for architecture in entry.architectures:
                require_living(architecture, entry.space, facts)
                require_stages(
                    partial(architecture.build, facts.input_shape, facts.classes, entry.space),
                    recipe,
                )
        except InputError as error:
            raise InputError(
                f"`{entry.label}` cannot be built in these settings: {error}"
            ) from None
    return entries


def drawn_from(space: SpaceLike) -> Space:
    """Return a space; by the name of a published architecture, in the settings of that."""
    if isinstance(space, str) and space in Architecture.published_names():
        return Architecture.published(space).resolve()
    return resolve(space)


def _backbone(name: str) -> Architecture:
    if not isinstance(resolve(name), WidthSpace):
        raise InputError(
            f"`{name}` is a space, not an architecture: compare random:5 of it with `space`, or "
            "the directory of a run."
        )
    return Architecture(name, {"expansion": 1, "binarization": "bats"})


def _require_file(source: str | Path) -> None:
    """Raise `InputError` for a name of nothing, in words of all that may be compared."""
    path = Path(source)
    if not path.exists() and not path.suffix:
        backbones = [name for name in names() if isinstance(resolve(name), WidthSpace)]
        known = (*Architecture.published_names(), *backbones, "random:5")
        raise unknown_name("architecture", source, known)


def _label(source: str | Path) -> str:
    path = Path(source)
    path = path.parent if path.name == "architecture.json" else path
    return path.as_posix().strip("./") or path.resolve().name
