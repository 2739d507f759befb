"""Errors in one line, settings and models from files, for all commands."""

import json
import re
import runpy
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import click
import tensorflow as tf

from larq_nas.errors import InputError, LarqNasError, first_line
from larq_nas.run_directory import read_settings
from larq_nas.spaces import SpaceLike
from larq_nas.spaces.space import load_function

__all__ = [
    "image_size",
    "load_code",
    "load_model",
    "model_path",
    "named",
    "one_line_errors",
    "read_space",
    "settings_option",
]

_SIZE = re.compile(r"(\d+)x(\d+)x(\d+)")


def one_line_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turn expected errors and warnings into one line each."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            try:
                command(*args, **kwargs)
            except LarqNasError as error:
                raise click.ClickException(str(error)) from None
            except KeyboardInterrupt:
                raise click.ClickException(
                    "Stopped. What is finished is kept: the same command goes on from there."
                ) from None

    return wrapped


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    click.echo(f"Warning: {message}", err=True)


def settings_option(help_text: str) -> Callable[..., Any]:
    """Return the option `--set NAME=VALUE`, which gives a dictionary `settings`."""
    return click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="NAME=VALUE",
        callback=_assignments,
        help=help_text,
    )


def _assignments(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    settings = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals:
            raise click.BadParameter(f"expected NAME=VALUE, but got {value!r}")
        settings[name] = _parsed({"True": "true", "False": "false"}.get(text, text))
        if isinstance(settings[name], str) and (name == "operations" or "," in text):
            settings[name] = [_parsed(part) for part in named(text)]
    return settings


def named(text: str) -> list[str]:
    """Return the parts of a list that is written with commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def read_space(reference: str) -> SpaceLike:
    return load_function(reference) if ":" in reference else reference


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
