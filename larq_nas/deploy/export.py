"""To the bytes of a Larq Compute Engine flatbuffer, and through its interpreter."""

import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from larq_nas.errors import ConversionError, InputError, first_line
from larq_nas.layers.conv import exporting

__all__ = ["engine", "export", "export_function", "export_several", "input_shape", "run"]


def export(model: tf.keras.Model) -> bytes:
    """Return `model` as a flatbuffer for images one at a time, rewritten but not checked.

    # Arguments
        model: a built model with one input of static shape `(batch, height, width, channels)`
            and one output.

    # Raises
        ConversionError: if the converter fails, or is not installed.
    """
    from larq_nas.deploy.rewriting import lower  # which measures what it exports

    lowered = lower(model)
    return export_function(lowered, input_shape(model), lowered.variables)


def export_function(
    function: Callable[[tf.Tensor], Any], shape: tuple[int, ...], variables: list[tf.Variable]
) -> bytes:
    """Return a function of one image as a flatbuffer; see `export_several`."""
    return export_several(function, [shape], variables)


def export_several(
    function: Callable[..., Any], shapes: Sequence[tuple[int, ...]], variables: list[tf.Variable]
) -> bytes:
    """Return a function of several tensors as a flatbuffer.

    The traced function is saved directly: the same operations as `model.save` gives, in a
    fraction of the time.

    # Arguments
        function: what to convert.
        shapes: shapes of what it takes, without the batch; its inputs are named `input0000` and
            so on if there are several, `image` if there is one.
        variables: the variables it reads.
    """
    converter = engine()
    module = tf.Module()
    names = [f"input{n:04d}" for n in range(len(shapes))] if len(shapes) > 1 else ["image"]
    signature = [
        tf.TensorSpec((1, *shape), tf.float32, name=name)
        for shape, name in zip(shapes, names, strict=True)
    ]
    with exporting(), tempfile.TemporaryDirectory() as folder:
        traced = tf.function(function, signature).get_concrete_function()
        # Lambdas read variables that no layer tracks.
        module.variables_of_model = [*variables, *traced.variables]
        tf.saved_model.save(module, folder, signatures=traced)
        try:
            flatbuffer: bytes = converter.convert_saved_model(folder)
        except Exception as error:
            raise ConversionError(f"The converter failed: {first_line(error)}.") from error
    return flatbuffer


def run(
    flatbuffer: bytes, images: np.ndarray | list[np.ndarray], kernel: str, **options: bool
) -> list[np.ndarray]:
    """Return the outputs of `flatbuffer` for `images`, as a list.

    # Arguments
        flatbuffer: the converted model.
        images: float32, shape `(examples, height, width, channels)`; a list for several inputs.
        kernel: name of the kernel, for errors.
        **options: options of Larq Compute Engine's interpreter.
    """
    try:
        outputs = engine().testing.Interpreter(flatbuffer, **options).predict(images)
    except RuntimeError as error:
        raise ConversionError(
            f"The {kernel} kernel cannot run the model ({first_line(error)}); use other layers "
            "for the operations it names."
        ) from error
    return outputs if isinstance(outputs, list) else [outputs]


def input_shape(model: tf.keras.Model) -> tuple[int, ...]:
    """Return the shape of one image, or raise `InputError` if it is not known."""
    if not isinstance(model, tf.keras.Model):
        raise InputError(f"`model` must be a tf.keras.Model, but got {model!r}.")
    if not model.inputs:
        raise InputError(
            "`model` must be functional, or Sequential with an input shape: wrap it as "
            "tf.keras.Model(images, model(images)) with images = tf.keras.Input(shape)."
        )
    if isinstance(model.output, dict) or isinstance(model.input, dict):
        raise InputError("`model` must have plain tensors as input and output, not dictionaries.")
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise InputError(
            f"`model` must have one input and one output, but has {len(model.inputs)} "
            f"and {len(model.outputs)}."
        )
    for layer in model._flatten_layers():
        if layer.compute_dtype in ("float16", "bfloat16", "float64"):
            raise InputError(
                f"`model` must compute in float32, but layer `{layer.name}` computes in "
                f"{layer.compute_dtype}: build it with the precision policy float32, and set its "
                "weights."
            )
    shape = tuple(model.inputs[0].shape[1:])
    if None in shape:
        raise InputError(f"`model` must have a static input shape, but got {shape}.")
    return shape


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
