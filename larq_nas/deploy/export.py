"""Export a model to a flatbuffer with Larq Compute Engine's converter."""

import contextlib
import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from larq_nas.deploy.flatbuffer import input_names, output_names
from larq_nas.errors import ConversionError, InputError, LarqNasError
from larq_nas.graph.calls import functional
from larq_nas.layers.conv import exporting
from larq_nas.process_state import restoring_root_log

if TYPE_CHECKING:
    from larq_nas.deploy.rewriting import Lowered

_STANDARD_ERROR = 2


def export(model: tf.keras.Model) -> bytes:
    """Return `model` as a flatbuffer for images one at a time, rewritten but not checked.

    # Raises
        ConversionError: if the converter fails, or is not installed.
    """
    from larq_nas.deploy.rewriting import lower  # which measures what it exports

    return export_lowered(lower(model))


def export_lowered(lowered: "Lowered") -> bytes:
    """Return a network in the form that is converted as a flatbuffer."""
    model = lowered.model
    dtypes = [tf.as_dtype(tensor.dtype) for tensor in model.inputs]
    return export_function(lowered, input_shapes(model), lowered.variables, dtypes)


def export_function(
    function: Callable[..., Any],
    shapes: Sequence[tuple[int, ...]],
    variables: Sequence[tf.Variable],
    dtypes: Sequence[tf.DType] = (),
) -> bytes:
    """Return a function of tensors as a flatbuffer.

    The traced function is saved directly: the same operations as `model.save` gives, in a
    fraction of the time. Inputs are named `image`, or `input0000` and so on if there are several;
    outputs, of a function that returns a list, `output0000` and so on. Shapes are without the
    batch, and types float32 by default.

    # Raises
        ConversionError: if TensorFlow cannot trace the function, or the converter fails.
    """
    converter = engine()
    module = tf.Module()
    names = [f"input{n:04d}" for n in range(len(shapes))] if len(shapes) > 1 else ["image"]
    dtypes = dtypes or [tf.float32] * len(shapes)
    signature = [
        tf.TensorSpec((1, *shape), dtype, name=name)
        for shape, dtype, name in zip(shapes, dtypes, names, strict=True)
    ]

    def named(*images: tf.Tensor) -> Any:
        outputs = function(*images)
        if not isinstance(outputs, list):
            return outputs
        if len(outputs) > 1:  # one tensor may be two outputs, and needs two names then
            outputs = [tf.identity(output) for output in outputs]
        return {f"output{n:04d}": output for n, output in enumerate(outputs)}

    with (
        exporting(),
        errors_alone(),
        tempfile.TemporaryDirectory() as folder,
        engine_messages() as messages,
    ):
        try:
            traced = tf.function(named, signature).get_concrete_function()
            # Lambdas read variables that no layer tracks.
            module.variables_of_model = [*variables, *traced.variables]
            tf.saved_model.save(module, folder, signatures=traced)
            flatbuffer: bytes = converter.convert_saved_model(folder)
        except LarqNasError:
            raise
        except Exception as error:
            raise ConversionError(f"The converter failed: {cause_of(error, messages)}.") from error
    return flatbuffer


@contextlib.contextmanager
def errors_alone() -> Iterator[None]:
    """Let TensorFlow log errors alone: it tells of files that are gone when that is read."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with restoring_root_log():
            yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def engine_messages() -> Iterator[list[str]]:
    """Collect the lines that the engine writes to the standard error of the process.

    Its converter and its kernels are C++ and report the cause of an error there alone. What they
    write where nothing fails is of no use to a reader, and is dropped.
    """
    messages: list[str] = []
    try:
        original = os.dup(_STANDARD_ERROR)
    except OSError:  # there is none, as in a window without a console
        yield messages
        return
    with tempfile.TemporaryFile() as file:
        sys.stderr.flush()
        os.dup2(file.fileno(), _STANDARD_ERROR)
        try:
            yield messages
        except Exception:
            file.seek(0)
            messages += file.read().decode(errors="replace").splitlines()
            raise
        finally:
            os.dup2(original, _STANDARD_ERROR)
            os.close(original)


def cause_of(error: Exception, messages: Sequence[str] = ()) -> str:
    """Return why the engine failed, in one line: its own line, if it wrote one."""
    lines = [line.strip() for line in (*messages, *str(error).splitlines()) if line.strip()]
    telling = [line for line in lines if "error: " in line.lower() and " at larq_" not in line]
    chosen = (telling or lines or [type(error).__name__])[0]
    own = re.sub(r"^.*?error: ", "", chosen, flags=re.IGNORECASE)
    return re.sub(r"^\S+\.cc\S* ", "", own).rstrip(".")[:300]


@contextlib.contextmanager
def running(kernel: str, what: str) -> Iterator[None]:
    """Raise `ConversionError` if the engine cannot run something, saying what."""
    messages: list[str] = []
    try:
        with engine_messages() as messages:
            yield
    except RuntimeError as error:
        raise ConversionError(
            f"The {kernel} kernel cannot run {what} ({cause_of(error, messages)}); use other "
            "layers for the operations it names."
        ) from error


def run(
    flatbuffer: bytes,
    images: np.ndarray | Sequence[np.ndarray],
    kernel: str,
    **options: bool,
) -> list[np.ndarray]:
    """Return the outputs of `flatbuffer` for `images`, as a list in the model's order."""
    given = [images] if isinstance(images, np.ndarray) else list(images)
    # An interpreter has its own order; the names are in the model's.
    order = np.argsort(np.argsort(input_names(flatbuffer))) if len(given) > 1 else [0]
    with running(kernel, "the model"):
        interpreter = engine().testing.Interpreter(flatbuffer, **options)
        found = interpreter.predict([given[number] for number in order])
    outputs = found if isinstance(found, list) else [found]
    return (
        [outputs[n] for n in np.argsort(output_names(flatbuffer))] if len(outputs) > 1 else outputs
    )


def input_shapes(model: tf.keras.Model) -> list[tuple[int, ...]]:
    """Return the shape of one image for each input, or raise `InputError` if one is not known."""
    model = functional(model)
    for layer in model._flatten_layers():
        if layer.compute_dtype in ("float16", "bfloat16", "float64"):
            raise InputError(
                f"`model` must compute in float32, but layer `{layer.name}` computes in "
                f"{layer.compute_dtype}: build it with the precision policy float32, and set its "
                "weights."
            )
    shapes = [tuple(tensor.shape[1:]) for tensor in model.inputs]
    for shape in shapes:
        if None in shape:
            raise InputError(f"`model` must have a static input shape, but got {shape}.")
    return shapes


def engine() -> Any:
    """Return Larq Compute Engine, or raise `ConversionError` if it is not installed."""
    try:
        import larq_compute_engine
    except ImportError:
        raise ConversionError(
            "This needs larq-compute-engine, which is not installed here: "
            "pip install larq-compute-engine==0.16.0 (a device can be measured without it)."
        ) from None
    return larq_compute_engine
