"""Options and errors that commands share."""

import dataclasses
import inspect
import json
import re
import runpy
import sys
import textwrap
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import click
import tensorflow as tf
from terminaltables import AsciiTable

from larq_nas.data import datasets
from larq_nas.data.data import ClassWeight
from larq_nas.errors import InputError, LarqNasError, first_line
from larq_nas.imports import load_object
from larq_nas.methods import METHODS, Method, resolve
from larq_nas.run_directory import read_settings, read_times
from larq_nas.searchers import Searcher
from larq_nas.spaces import SpaceLike
from larq_nas.spaces import resolve as resolve_space

__all__ = [
    "DataOptions",
    "Numbers",
    "StageEpochs",
    "assignments_option",
    "data_options",
    "image_size",
    "load_code",
    "load_model",
    "load_teacher",
    "model_path",
    "named",
    "one_line_errors",
    "plan_of",
    "print_outcome",
    "read_space",
    "recipe_options",
    "require_directory",
    "run_options",
    "settings_by_part",
    "settings_option",
    "settings_table",
    "shaped",
    "space_settings",
    "verbosity",
]

_SIZE = re.compile(r"(\d+)x(\d+)x(\d+)")
_FURTHER = re.compile(r"\s*[,; ]\s*(?=[A-Za-z_][\w.]*\s*=)")
_OF_BATCHES = re.compile(r"batches of up to (\d+) images|\.batch\((\d+)\)")
_OF_IMAGES = re.compile(r"images of up to (\d+)x\1 pixels")
_OF_PART = re.compile(r"(?:give )?the (space|searcher|recipe)(?:'s)? `([\w.]+(?:=[^`]*)?)`")
_PARTS = ("space", "searcher", "recipe")
_INTERRUPTED = 130  # as shells have it
_OPTIONS_OF_THEIR_OWN = ("method", "budget", "epochs", "train_epochs", *_PARTS)


def one_line_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turn expected errors and warnings into one line each, which names what was typed."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            try:
                command(*args, **kwargs)
            except LarqNasError as error:
                raise click.ClickException(_as_typed(str(error))) from None
            except KeyboardInterrupt:
                click.echo(
                    "Stopped. What is finished is kept: the same command goes on from there.",
                    err=True,
                )
                raise SystemExit(_INTERRUPTED) from None

    return wrapped


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    click.echo(f"Warning: {_as_typed(str(message))}", err=True)


def _as_typed(message: str) -> str:
    """Return a message that names options in place of the arguments of Python behind them."""
    context = click.get_current_context(silent=True)
    if context is None:
        return message
    typed = {
        param.name: param.opts[0]
        for param in context.command.params
        if isinstance(param, click.Option) and param.name
    }
    given: Mapping[str, Any] = context.params.get("settings") or {}
    bare = Counter(name.rpartition(".")[2] for name in given)
    # One name in several parts does not tell which was meant.
    typed |= {
        name.rpartition(".")[2]: f"--set {name}"
        for name in given
        if bare[name.rpartition(".")[2]] == 1
    }
    if "batch_size" in typed:
        message = _OF_BATCHES.sub(r"`--batch-size \1\2`", message)
    if "image_size" in typed:
        message = _OF_IMAGES.sub(r"`--image-size \1`", message)
    if "settings" in typed:
        message = _OF_PART.sub(_setting_as_typed, message)
    for name, option in typed.items():
        message = message.replace(f"`{name}`", f"`{option}`")
        if not option.startswith("--set "):
            message = message.replace(f"`{name}=", f"`{option} ")
    return message


def _setting_as_typed(found: re.Match[str]) -> str:
    """Return settings of a part as options."""
    return "`" + " ".join(f"--set {found[1]}.{one}" for one in found[2].split()) + "`"


def assignments_option(name: str, parameter: str, help_text: str) -> Callable[..., Any]:
    """Return an option `NAME=VALUE` that may be repeated, which gives a dictionary."""
    return click.option(
        name,
        parameter,
        multiple=True,
        metavar="NAME=VALUE",
        callback=_assignments,
        help=help_text,
    )


def settings_option(help_text: str) -> Callable[..., Any]:
    """Return the option `--set NAME=VALUE`, which gives a dictionary `settings`."""
    return assignments_option("--set", "settings", help_text)


def _assignments(
    _: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, Any]:
    settings = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals:
            raise click.BadParameter(f"expected NAME=VALUE, but got {value!r}")
        pairs = _FURTHER.split(value.strip())
        if len(pairs) > 1:
            option = parameter.opts[0]
            raise click.BadParameter(
                f"expected one NAME=VALUE, but got {value!r}: repeat {option}, as in "
                f"{' '.join(f'{option} {pair}' for pair in pairs)}"
            )
        if name.strip() in settings:
            raise click.BadParameter(f"{name.strip()} was given twice: leave one out")
        settings[name.strip()] = text if parameter.name == "budget" else _parsed(text)
    return settings


def space_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of spaces alone, or raise `InputError` for those of other parts."""
    changes = settings_by_part(settings)
    for part in ("searcher", "recipe"):
        for name in changes[part]:
            raise InputError(f"`--set {part}.{name}` is for larq-nas search: leave it out.")
    return changes["space"]


def plan_of(
    method: str | None,
    space: str | None,
    searcher: str | None,
    recipe: str | None,
    settings: Mapping[str, Any],
) -> Method:
    """Return the method that the options describe, with `settings` changed in its parts."""
    changes = settings_by_part(settings)
    named_space = None if space is None else read_space(space)
    named_searcher = None if searcher is None else read_searcher(searcher)
    plan = resolve(method, named_space, named_searcher, recipe)
    if changes["space"]:
        # The settings may make it the network of another method.
        changed = resolve_space(plan.space, shaped(plan.space, changes["space"]))
        plan = resolve(method, changed, named_searcher, recipe)
    return resolve(
        plan,
        searcher=shaped(plan.searcher, changes["searcher"]) or None,
        recipe=shaped(plan.recipe, changes["recipe"]) or None,
    )


def settings_by_part(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return settings by the part that they are of; those of no part are the space's."""
    changes: dict[str, dict[str, Any]] = {part: {} for part in _PARTS}
    for name, value in settings.items():
        part, dot, setting = name.rpartition(".")
        if name in _OPTIONS_OF_THEIR_OWN or name.replace("_", "-") in _options():
            raise InputError(f"`--set {name}` is no setting: give --{name.replace('_', '-')}.")
        if part not in (*_PARTS, "") or not setting or name.startswith("."):
            raise InputError(
                f"`--set` takes space.NAME=VALUE, searcher.NAME=VALUE or recipe.NAME=VALUE, but "
                f"got {name}."
            )
        if setting in changes[part if dot else "space"]:
            raise InputError(f"`--set {name}` was given twice: leave one out.")
        changes[part if dot else "space"][setting] = value
    return changes


def _options() -> set[str]:
    """Return the options of the command, by which `--set` is not meant."""
    context = click.get_current_context(silent=True)
    params = context.command.params if context else ()
    return {one.opts[0].removeprefix("--") for one in params} - {"settings"}


def shaped(owner: object, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return changes in which one value stands for a list of one, where a list is wanted."""
    return {
        name: (value,)
        if isinstance(getattr(owner, name, None), tuple) and not isinstance(value, list | tuple)
        else value
        for name, value in changes.items()
    }


def settings_table(plan: Method) -> str:
    """Return each setting of a method's parts, its value and what it is."""
    tables = []
    for part in _PARTS:
        owner: Any = getattr(plan, part)
        described = _described(type(owner))
        kept = owner.settings() if part == "recipe" else {}
        rows = [
            [
                f"{part}.{one.name}",
                _wrapped(_written(kept.get(one.name, getattr(owner, one.name))), 24),
                _wrapped(described.get(one.name, ""), 52),
            ]
            for one in (dataclasses.fields(owner) if dataclasses.is_dataclass(owner) else ())
            if part == "recipe" or one.name != "recipe"  # that of the network
        ]
        title = getattr(owner, "name", type(owner).__name__.lower())
        tables.append(AsciiTable([["--set", "value", "what it is"], *rows], f"{part}: {title}"))
    return "\n".join(table.table for table in tables)


def _wrapped(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, width, break_long_words=False))


def _written(value: Any) -> str:
    """Return a value as it is typed behind `--set NAME=`."""
    if isinstance(value, tuple | list) and not any(isinstance(one, dict) for one in value):
        return ",".join(map(_written, value))
    return value if isinstance(value, str) else json.dumps(value, default=repr)


def _described(kind: type) -> dict[str, str]:
    """Return what the docstrings of a class and its bases say of their arguments."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        text = inspect.cleandoc(base.__doc__ or "").partition("# Arguments\n")[2]
        text = text.partition("\n\n")[0]
        for name, said in re.findall(r"(?m)^    (\w+): ((?:.*\n?)(?:        .*\n?)*)", text):
            # A terminal shows no formulas.
            found[name] = re.sub(r"\\+[()]?", "", " ".join(said.split()))
    return found


def named(text: str) -> list[str]:
    """Return the parts of a list that is written with commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _parsed(text: str) -> Any:
    """Return what a value stands for: JSON, a number, a list with commas, or text."""
    text = {"True": "true", "False": "false", "None": "null"}.get(text, text)
    for read in (json.loads, float):
        try:
            return read(text)
        except ValueError:
            pass
    return [_parsed(part) for part in named(text)] if "," in text else text


def read_searcher(reference: str) -> str | Searcher:
    """Return the name of a searcher, or the searcher that a file or module defines."""
    if ":" not in reference:
        return reference
    found: Any = load_object(reference, "searcher")
    try:
        searcher: Searcher = found() if isinstance(found, type) else found
    except TypeError as error:
        raise InputError(f"Cannot make searcher `{reference}`: {first_line(error)}.") from error
    return searcher


def read_space(reference: str) -> SpaceLike:
    return load_object(reference, "space") if ":" in reference else reference


def model_path(source: Path) -> Path:
    if not source.is_dir() or (source / "saved_model.pb").exists():
        return source
    model = source / "model.keras"
    if not model.exists():
        read_settings(source)
        raise InputError(
            f"The run in `{source}` has no model yet: finish it with the same command."
        )
    return model


def load_code(paths: Sequence[Path]) -> dict[str, Any]:
    """Run Python files, and return the layers and functions that they define, by name."""
    found: dict[str, Any] = {}
    for path in paths:
        try:
            found |= runpy.run_path(str(path))
        except Exception as error:
            raise InputError(
                f"Cannot run `{path}`: {type(error).__name__}: {first_line(error)}."
            ) from error
    return {name: value for name, value in found.items() if callable(value)}


def load_model(path: Path, objects: Mapping[str, Any] | None = None) -> tf.keras.Model:
    """Load a Keras model, with layers and functions of its own by name."""
    if path.suffix == ".tflite":
        raise InputError(f"`{path}` is converted already: give the Keras model it was made of.")
    try:
        return tf.keras.models.load_model(path, custom_objects=objects, compile=False)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"Cannot load a Keras model from `{path}`: {first_line(error)}. (Layers of your own "
            "are named by `larq-nas convert --load FILE.py`, or the model is read in Python, by "
            "larq_nas.cost.profile or larq_nas.convert.)"
        ) from error


def image_size(text: str) -> tuple[int, int, int]:
    match = _SIZE.fullmatch(text.strip().lower())
    if match is None or "0" in match.groups():
        raise InputError(f"`--input` must be HEIGHTxWIDTHxCHANNELS, such as 32x32x3, got {text!r}.")
    height, width, channels = map(int, match.groups())
    return height, width, channels


def _class_weight(
    _: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> ClassWeight | None:
    if not values or values == ("balanced",):
        return values[0] if values else None
    weights: dict[int | str, float] = {}
    for text in values:
        name, equals, weight = text.rpartition("=")
        try:
            weights[name] = float(weight)
        except ValueError:
            equals = ""
        if not equals:
            raise click.BadParameter(f"expected balanced or CLASS=WEIGHT, but got {text!r}")
    return weights


_OPTIONS = (
    click.option(
        "--data",
        default="digits",
        show_default=True,
        help="Images: a folder with a sub-folder for each class, an .npz file, FILE.py:FUNCTION or "
        "MODULE:FUNCTION, digits (embedded), or any name of tensorflow-datasets.",
    ),
    click.option(
        "--data-dir", help="Where tensorflow-datasets keeps its data [env: TFDS_DATA_DIR]."
    ),
    click.option("--train-split", help="What to train on, such as 'train[:20%]'."),
    click.option("--validation-split", help="What to measure on, such as 'test'."),
    click.option(
        "--validation-share",
        type=float,
        help="Share of each class to measure on, of data in one part.  [default: 0.2]",
    ),
    click.option("--classes", type=int, help="Number of classes; by default what the data says."),
    click.option(
        "--class-weight",
        multiple=True,
        metavar="CLASS=WEIGHT",
        callback=_class_weight,
        help="Weight of a class, such as rare=5, for all of them; or balanced.",
    ),
    click.option(
        "--image-size", type=int, help="Resize images to this height and width, in pixels."
    ),
    click.option(
        "--resize",
        type=int,
        help="Resize to this first, and take the centre of --image-size; of training images "
        "--augment crop takes any part, and resized_crop any part of any size.",
    ),
    click.option("--batch-size", type=int, help="Images in a batch.  [default: 96]"),
    click.option(
        "--augment",
        help="Random changes to training images: standard (shift, mirror), cutout (a square of "
        "zeros, too), crop or resized_crop (see --resize).",
    ),
)


@dataclass(frozen=True)
class DataOptions:
    """A data set as the options describe it."""

    data: str
    data_dir: str | None
    train_split: str | None
    validation_split: str | None
    validation_share: float | None
    class_weight: ClassWeight | None
    classes: int | None
    image_size: int | None
    resize: int | None
    batch_size: int | None
    augment: str | None

    def load(self) -> tuple[tf.data.Dataset, tf.data.Dataset]:
        """Return training and validation data."""
        # One share for all seeds: no search has trained on what a later training validates on.
        return datasets.load(
            self.data,
            self.batch_size,
            data_dir=self.data_dir,
            train_split=self.train_split,
            validation_split=self.validation_split,
            validation_share=self.validation_share,
            image_size=self.image_size,
            resize=self.resize,
        )

    def load_test(self, given: str | None) -> tf.data.Dataset | float | None:
        """Return the test data that an option names, or its share."""
        try:
            return None if given is None else float(given)
        except ValueError:
            return datasets.load_test(
                str(given),
                self.data,
                self.batch_size,
                data_dir=self.data_dir,
                image_size=self.image_size,
                resize=self.resize,
            )


def data_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command` the options, as one argument `data`."""
    names = [field.name for field in dataclasses.fields(DataOptions)]

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        given = {name: kwargs.pop(name) for name in names}
        command(*args, data=DataOptions(**given), **kwargs)

    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped


test_option = click.option(
    "--test",
    help="Images to measure on once, at the end: a share of each class, such as 0.1; a split of "
    "tensorflow-datasets, such as test; or a folder, an .npz file or FILE.py:FUNCTION.",
)

_RECIPE_OPTIONS = (
    click.option(
        "--recipe",
        help=f"Method whose recipe the network is trained by: {', '.join(sorted(METHODS))}.",
    ),
    click.option(
        "--teacher",
        type=click.Path(exists=True, path_type=Path),
        help="Trained model to learn from as well: a run, a .keras or .h5 file, or a SavedModel.",
    ),
)


def recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give `command` the options of training."""
    for option in reversed(_RECIPE_OPTIONS):
        command = option(command)
    return command


def load_teacher(path: Path | None) -> tf.keras.Model | None:
    """Return the model that the option names."""
    return None if path is None else load_model(model_path(path))


_RUN_OPTIONS = (
    click.option(
        "--seed", type=int, default=0, show_default=True, help="Seed of everything random."
    ),
    click.option(
        "--directory",
        type=click.Path(path_type=Path),
        help="Where the run is kept. The same command again goes on where the run was.",
    ),
    click.option("--no-resume", is_flag=True, help="Refuse to go on with a run that is there."),
    click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, nothing else."),
)


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give `command` the options `seed`, `directory`, `no_resume` and `as_json`."""
    for option in reversed(_RUN_OPTIONS):
        command = option(command)
    return command


def require_directory(directory: Path | None) -> Path:
    """Return the directory of a run, which a command that runs must be given."""
    if directory is None:
        raise click.UsageError("Missing option '--directory'.")
    return directory


def verbosity(as_json: bool) -> int:
    """Return Keras's `verbose`: nothing beside JSON, no bars into a file."""
    return 0 if as_json else (1 if sys.stdout.isatty() else 2)


def print_outcome(directory: Path, as_json: bool) -> None:
    """Print the result as JSON if asked to, and fail if the conversion was refused."""
    result = json.loads((directory / "result.json").read_text(encoding="utf-8"))
    if as_json:
        whole = {"directory": str(directory), **result, "seconds": read_times(directory)}
        click.echo(json.dumps(whole, indent=2))
    if "refused" in result:
        raise click.ClickException(result["refused"])


class StageEpochs(click.ParamType):
    """Epochs of all stages of a training, or of each by its name."""

    name = "N or STAGE=N,..."

    def convert(self, value: Any, param: Any, ctx: Any) -> int | dict[str, int]:
        pairs = [part.split("=") for part in str(value).split(",")]
        try:
            if pairs == [[value]]:
                return int(value)
            found = {name.strip(): int(number) for name, number in pairs}
            if len(found) < len(pairs):
                raise ValueError
            return found
        except ValueError:
            self.fail(
                f"expected 600, or such as real=200,binary=400, but got {value!r}", param, ctx
            )


class Numbers(click.ParamType):
    """Whole numbers, separated by commas."""

    name = "N,N,..."

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        try:
            return tuple(int(number) for number in str(value).split(","))
        except ValueError:
            self.fail(f"expected whole numbers such as 5,11,17, but got {value!r}", param, ctx)
