"""Write the directory of a package."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from larq_nas.architecture import Architecture
from larq_nas.deploy.conversion import Conversion, digest
from larq_nas.deploy.convert import read_images
from larq_nas.deploy.meaning import meanings
from larq_nas.deploy.operations import Kernel
from larq_nas.deploy.package.card import card
from larq_nas.deploy.package.facts import Accuracy, Facts, choose_kernel
from larq_nas.deploy.package.programs import android, cpp
from larq_nas.deploy.package.standalone import STANDALONE
from larq_nas.deploy.package.standalone import standalone as standalone_files
from larq_nas.errors import InputError
from larq_nas.files import require_ours, write_atomically
from larq_nas.graph.calls import functional
from larq_nas.latency import Latency

_MODEL, _CARD, _CPP, _ANDROID = "model.tflite", "README.md", "main.cc", "Network.java"
_GOLDEN = "golden.bin"
_MOST_IMAGES = 512
_FILES = (_MODEL, _GOLDEN, _CARD, _CPP, _ANDROID, *STANDALONE)


def write_package(
    directory: str | Path,
    conversion: Conversion,
    model: tf.keras.Model,
    *,
    architecture: Architecture | None = None,
    accuracy: Accuracy | float | None = None,
    images: tf.data.Dataset | np.ndarray | Sequence[np.ndarray] | None = None,
    latencies: Sequence[Latency] = (),
    kernel: Kernel | None = None,
    standalone: bool = True,
    class_names: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    preprocessing: str = "",
) -> None:
    """Write all that it takes to deploy a model into `directory`.

    That is `model.tflite`; a card, `README.md`; `golden.bin`, inputs with the outputs that a
    device must give; `main.cc` and `Network.java`, which run the model and this test in C++ and
    on Android; and `network.py` with `network.json` and `weights.npz`, which rebuild the network
    from Keras and Larq alone. Nothing is written if any of it cannot be.

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
        images: images as the model reads them, in any form that `larq_nas.convert` takes; the card
            takes the range of values from them, and the golden test its inputs. Of a data set the
            first 512 are read. By default the golden test has random inputs.
        latencies: what an inference takes, for the card.
        kernel: the kernel to deploy with, one that was compared; by default Larq Compute
            Engine's own default, or else the first that was compared.
        standalone: whether to write `network.py`, `network.json` and `weights.npz`.
        class_names: names of the classes, for the card and the programs; of several outputs,
            a dictionary from their names. A single probability may have two: below 0.5, above.
            By default `images.class_names`, if they have any.
        preprocessing: how an image becomes what the model reads, such as `"x / 127.5 - 1"`, for
            the card; by default `images.preprocessing`, as `larq_nas.datasets.load` sets it.

    # Raises
        ConversionError: if `network.py` cannot hold the model, naming the layer.
        InputError: if the directory holds other files or cannot be written to, or if
            `conversion` is of another model.
    """
    directory = Path(directory).expanduser()
    require_ours(directory, "a package", lambda path: path.name in (*_FILES, "__pycache__"))
    if digest(model) != conversion.weights:
        raise InputError(
            f"`conversion` must be of `{model.name}` as it is now, but its weights differ: convert "
            "it again."
        )
    if not isinstance(preprocessing, str):
        raise InputError(f"`preprocessing` must be a text, but got {preprocessing!r}.")
    model = functional(model)
    if class_names is None and len(model.outputs) == 1:
        known = getattr(images, "class_names", ())
        class_names = known if len(known) == model.outputs[0].shape[-1] else None
    preprocessing = preprocessing or getattr(images, "preprocessing", "")
    most = _MOST_IMAGES if isinstance(images, tf.data.Dataset) else sys.maxsize
    examples = None if images is None else read_images(images, model, most, "images")[0]
    if isinstance(accuracy, int | float):
        accuracy = Accuracy(accuracy)
    facts = Facts(
        model,
        conversion,
        choose_kernel(conversion, kernel),
        meanings(model, class_names, classifies=bool(accuracy or architecture)),
        examples,
        architecture,
        accuracy,
        latencies,
        preprocessing.strip().rstrip("."),
    )
    files: dict[str, str | bytes] = {
        _MODEL: conversion.flatbuffer,
        _GOLDEN: facts.golden.to_bytes(),
    }
    files |= standalone_files(model) if standalone else {}
    files |= {_CPP: cpp(facts), _ANDROID: android(facts), _CARD: card(facts, standalone)}
    _write(directory, files)


def _write(directory: Path, files: dict[str, str | bytes]) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name in set(_FILES) - files.keys():
            (directory / name).unlink(missing_ok=True)
        for name, content in files.items():
            write_atomically(directory / name, content)
    except OSError as error:
        raise InputError(f"Cannot write the package `{directory}`: {error.strerror}.") from None
