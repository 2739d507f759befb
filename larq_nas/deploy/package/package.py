"""The directory that is handed to whoever deploys a model."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from larq_nas.architecture import Architecture
from larq_nas.cost import profile
from larq_nas.deploy.conversion import Conversion, digest
from larq_nas.deploy.package.card import card
from larq_nas.deploy.package.facts import Accuracy, Facts, choose_kernel
from larq_nas.deploy.package.snippets import android, cpp
from larq_nas.deploy.package.standalone import NETWORK, WEIGHTS
from larq_nas.deploy.package.standalone import standalone as standalone_files
from larq_nas.deploy.parity import Kernel
from larq_nas.errors import InputError
from larq_nas.files import LEFTOVERS, write_atomically
from larq_nas.latency import Latency

__all__ = ["write_package"]

_MODEL, _CARD, _CPP, _ANDROID = "model.tflite", "README.md", "main.cc", "Network.java"
_FILES = (_MODEL, _CARD, _CPP, _ANDROID, NETWORK, WEIGHTS)


def write_package(
    directory: str | Path,
    conversion: Conversion,
    model: tf.keras.Model,
    *,
    architecture: Architecture | None = None,
    accuracy: Accuracy | float | None = None,
    images: np.ndarray | None = None,
    latencies: Sequence[Latency] = (),
    kernel: Kernel | None = None,
    standalone: bool = True,
) -> None:
    """Write all that it takes to deploy a model into `directory`.

    That is `model.tflite`; a card, `README.md`; `main.cc` and `Network.java`, which run it in
    C++ and on Android; and `network.py` with `weights.npz`, which rebuild the network from
    Keras and Larq alone. Nothing is written if any of it cannot be.

    !!! example
        ```python
        import larq_nas.deploy.package

        conversion = larq_nas.convert(model, validation)
        larq_nas.deploy.package.write_package("packages/digits", conversion, model)
        ```

    # Arguments
        directory: a new or empty directory, or one that holds a package, which is replaced.
        conversion: what `larq_nas.convert` made of the model.
        model: the model.
        architecture: the architecture it was built of, for the card.
        accuracy: its accuracy, for the card; a number from 0 to 1 if no more is known.
        images: images as the model reads them, from which the card takes the range of values.
        latencies: what an inference takes, for the card.
        kernel: the kernel to deploy with, one that was compared; by default Larq Compute
            Engine's own default, or else the first that was compared.
        standalone: whether to write `network.py` and `weights.npz`.

    # Raises
        ConversionError: if `network.py` cannot hold the model, naming the layer.
        InputError: if the directory holds other files or cannot be written to, or if
            `conversion` is of another model.
    """
    directory = Path(directory)
    _require_free(directory)
    if digest(model) != conversion.weights:
        raise InputError(
            f"`conversion` must be of `{model.name}` as it is now, but its weights differ: convert "
            "it again."
        )
    if images is not None and not isinstance(images, np.ndarray):
        raise InputError(f"`images` must be an array, but got {type(images).__name__}.")
    if isinstance(accuracy, int | float):
        accuracy = Accuracy(accuracy)
    facts = Facts(
        model,
        conversion,
        profile(model),
        choose_kernel(conversion, kernel),
        architecture,
        accuracy,
        None if images is None else (float(np.min(images)), float(np.max(images))),
        latencies,
    )
    files: dict[str, str | bytes] = {_MODEL: conversion.flatbuffer}
    files |= standalone_files(model) if standalone else {}
    files |= {_CPP: cpp(facts), _ANDROID: android(facts), _CARD: card(facts, standalone)}
    _write(directory, files)


def _require_free(directory: Path) -> None:
    """Raise `InputError` if `directory` is a file, or holds more than a package."""
    if not directory.exists():
        return
    if not directory.is_dir():
        raise InputError(f"`directory` must be a directory, but `{directory}` is a file.")
    leftovers = {path.name for path in directory.glob(LEFTOVERS)}
    others = sorted(
        {path.name for path in directory.iterdir()} - {*_FILES, "__pycache__"} - leftovers
    )
    if others:
        raise InputError(
            f"`directory` must be new, empty or hold a package, but `{directory}` holds other "
            f"files, such as {others[0]}."
        )


def _write(directory: Path, files: dict[str, str | bytes]) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name in set(_FILES) - files.keys():
            (directory / name).unlink(missing_ok=True)
        for name, content in files.items():
            write_atomically(directory / name, content)
    except OSError as error:
        raise InputError(f"Cannot write the package `{directory}`: {error.strerror}.") from None
