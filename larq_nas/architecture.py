"""The result of a search: a value for each choice, in a small JSON file."""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tensorflow as tf

from larq_nas.choices import Value
from larq_nas.errors import InputError, require_count, require_whole, unknown_name
from larq_nas.files import write_atomically
from larq_nas.process_state import keeps_process_state
from larq_nas.report.notebook import table
from larq_nas.spaces.chooser import Fix, Sample
from larq_nas.spaces.space import Space, SpaceLike, names, resolve, resolve_recorded

__all__ = ["Architecture"]

_SCHEMA = 1
_INNERMOST_LIST = re.compile(r"\[\n\s*([^\[\]{}]*?)\n\s*\]")
_BREAK = re.compile(r"\n\s*")
_PUBLISHED = Path(__file__).parent / "architectures"
_KEYS = {"schema", "space", "settings", "choices"}


@dataclass(frozen=True)
class Architecture:
    """A point of a search space; it rebuilds the network anywhere.

    !!! example
        ```python
        architecture = larq_nas.Architecture.load("runs/digits/architecture.json")
        model = architecture.build((32, 32, 3), classes=10)
        deeper = architecture.with_settings(cells=20).build((32, 32, 3), classes=10)
        print(architecture)  # each node as a sum of operations on states, such as conv_3x3(0)
        ```

    # Arguments
        space: name of the search space.
        settings: the space's settings.
        choices: value of each choice by name: an operation's name, or a list of
            `[operation, input]`.
    """

    space: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    choices: Mapping[str, Value] = field(default_factory=dict)

    @classmethod
    @keeps_process_state
    def random(
        cls, space: SpaceLike, input_shape: tuple[int, int, int], classes: int, seed: int
    ) -> "Architecture":
        """Draw an architecture of a space, every option of each choice being as likely.

        One that has a cell of zeros on every path is drawn again.

        # Arguments
            space: a space, its name or a function.
            input_shape: `(height, width, channels)` of the images, in pixels.
            classes: number of classes.
            seed: the same seed draws the same.
        """
        require_count(seed=seed)
        require_whole(classes=classes)
        resolved, choose = resolve(space), Sample.seeded(seed)
        resolved.build(choose, input_shape, classes)
        while not choose.alive():
            choose = Sample(choose.hyperparameters)
            resolved.build(choose, input_shape, classes)
        return cls(resolved.name, resolved.settings(), choose.values)

    def build(
        self, input_shape: tuple[int, int, int], classes: int, space: SpaceLike | None = None
    ) -> tf.keras.Model:
        """Build the network: plain Keras and Larq layers, freshly initialized.

        # Arguments
            input_shape: `(height, width, channels)` of the images, in pixels.
            classes: number of classes.
            space: the search space, needed if it is a function of your own.

        # Returns
            A functional `tf.keras.Model` from images to logits, shape `(batch, classes)`.

        # Raises
            InputError: if the choices are not those of the space.
        """
        resolved = self.resolve(space)
        choose = Fix(self.choices)
        model = resolved.build(choose, input_shape, classes)
        if choose.unused():
            raise InputError(
                f"The architecture holds choices that space `{self.space}` does not ask: "
                f"{', '.join(choose.unused())}; build it in settings that ask for them, such as "
                "other `cells` or `nodes`."
            )
        return model

    def with_settings(self, **settings: Any) -> "Architecture":
        """Return the same choices in a space of other settings, such as more cells.

        # Raises
            InputError: if larq_nas knows the space, and it has no such setting or value.
        """
        if self.space in names():
            resolve(self.space, {**self.settings, **settings})
        return dataclasses.replace(self, settings={**self.settings, **settings})

    def save(self, path: str | Path) -> None:
        """Write the architecture to `path` as JSON, whole or not at all."""
        write_atomically(path, self.to_json())

    def to_json(self) -> str:
        """Return the architecture as JSON text."""
        record = {"schema": _SCHEMA, **dataclasses.asdict(self)}
        text = json.dumps(record, indent=2, sort_keys=True)
        return _INNERMOST_LIST.sub(lambda m: f"[{re.sub(_BREAK, ' ', m[1])}]", text) + "\n"

    @classmethod
    def load(cls, path: str | Path) -> "Architecture":
        """Read an architecture from `path`.

        # Raises
            InputError: if the file is missing, cut short, not an architecture, or written
                by a newer larq_nas.
        """
        try:
            text = Path(path).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"Cannot read architecture `{path}`: {_reason(error)}.") from None
        try:
            record = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(
                f"`{path}` is cut short or not JSON (line {error.lineno}: {error.msg}); "
                "restore it from a copy or search again."
            ) from None
        return cls._from_record(record, path)

    @classmethod
    def read(cls, source: "str | Path | Architecture") -> "Architecture":
        """Return an architecture: given, published by that name, of that run, or in that file."""
        if isinstance(source, Architecture):
            return source
        if not isinstance(source, str | Path):
            raise InputError(
                "`architecture` must be an Architecture, a file, a run or a published name, but "
                f"got {source!r}."
            )
        path = Path(source).expanduser()
        if path.is_dir() and source not in cls.published_names():
            return cls.load(path / "architecture.json")
        if path.is_file() or path.suffix:
            return cls.load(source)
        return cls.published(str(source))

    @classmethod
    def published(cls, name: str) -> "Architecture":
        """Return a published architecture, in the settings of its paper.

        !!! example
            ```python
            architecture = larq_nas.Architecture.published("bats")
            model = architecture.build((32, 32, 3), classes=10)
            ```

        # Arguments
            name: one of `Architecture.published_names()`.

        # Raises
            InputError: if there is none of that name.
        """
        if name in names() and name not in cls.published_names():
            raise InputError(
                f"`{name}` is a space, not an architecture: build it as "
                f"larq_nas.Architecture({name!r}, settings), or search it."
            )
        if name not in cls.published_names():
            raise unknown_name("published architecture", name, cls.published_names())
        return cls.load(_PUBLISHED / f"{name}.json")

    @staticmethod
    def published_names() -> list[str]:
        """Return the names that `Architecture.published` knows."""
        return sorted(path.stem for path in _PUBLISHED.glob("*.json"))

    @classmethod
    def _from_record(cls, record: object, path: str | Path) -> "Architecture":
        if not isinstance(record, dict) or not record.keys() >= _KEYS:
            raise InputError(
                f"`{path}` is not a larq_nas architecture: it must hold {', '.join(sorted(_KEYS))}."
            )
        schema = record["schema"]
        if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
            raise InputError(f"`schema` of `{path}` must be a whole number, but got {schema!r}.")
        if schema > _SCHEMA:
            raise InputError(
                f"`{path}` has schema {schema}, but this larq_nas reads up to {_SCHEMA}: "
                "upgrade with pip install -U larq_nas."
            )
        kinds = {"space": str, "settings": dict, "choices": dict}
        for key, kind in kinds.items():
            if not isinstance(record[key], kind):
                raise InputError(
                    f"`{key}` of `{path}` must be a JSON {'string' if kind is str else 'object'}, "
                    f"but got {record[key]!r}."
                )
        return cls(record["space"], record["settings"], record["choices"])

    def __str__(self) -> str:
        settings = ", ".join(f"{name}={value}" for name, value in self.settings.items())
        lines, group = [f"{self.space}{settings and f': {settings}'}"], ""
        for name, value in self.choices.items():
            kind, _, rest = name.partition("/")
            if rest and kind != group:
                lines.append(f"  {kind}")
            group = kind
            if isinstance(value, list):
                value = " + ".join(f"{operation}({index})" for operation, index in value)
            lines.append(f"    {rest} = {value}" if rest else f"  {name} = {value}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        settings = ", ".join(f"{name}={value}" for name, value in self.settings.items())
        rows = [("space", self.space), ("settings", settings), *self.choices.items()]
        return table(rows)

    def resolve(self, space: SpaceLike | None = None) -> Space:
        """Return the space it is of, in its settings; one of your own must be given."""
        return resolve_recorded(self.space, self.settings, space)


def write_ranking(path: str | Path, architectures: Sequence[Architecture]) -> None:
    """Write architectures to `path` as a list in JSON, the best first."""
    records = [json.loads(one.to_json()) for one in architectures]
    write_atomically(path, json.dumps(records, indent=1) + "\n")


def read_ranking(path: str | Path) -> list[Architecture]:
    """Read the architectures that a search has ranked, the best first.

    # Raises
        InputError: if there is none, or it is damaged.
    """
    try:
        records = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(records, list):
            raise TypeError
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"`{path}` is not the list of architectures that a search leaves, the best first "
            f"({type(error).__name__})."
        ) from None
    return [Architecture._from_record(record, path) for record in records]


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return "it is not a text file"
