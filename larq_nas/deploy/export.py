"""From a Keras model to the bytes of a Larq Compute Engine flatbuffer."""

import tempfile

import tensorflow as tf

from larq_nas.errors import ConversionError, InputError
from larq_nas.layers.conv import exporting

__all__ = ["export"]


def export(model: tf.keras.Model) -> bytes:
    """Return `model` as a flatbuffer for images one at a time, not yet checked.

    The traced function is saved directly: the same operations as `model.save` gives, in a
    fraction of the time.

    # Arguments
        model: a built model with one input of static shape `(batch, height, width, channels)`
            and one output.
    """
    try:
        import larq_compute_engine
    except ImportError:
        raise ConversionError(
            "Converting needs larq-compute-engine, which is not installed here: "
            "pip install larq-compute-engine==0.16.0"
        ) from None
    shape = input_shape(model)
    signature = [tf.TensorSpec((1, *shape), tf.float32, name="image")]
    module = tf.Module()
    module.variables_of_model = model.variables
    with exporting(), tempfile.TemporaryDirectory() as folder:
        traced = tf.function(lambda image: model(image, training=False), signature)
        tf.saved_model.save(module, folder, signatures=traced.get_concrete_function())
        flatbuffer: bytes = larq_compute_engine.convert_saved_model(folder)
    return flatbuffer


def input_shape(model: tf.keras.Model) -> tuple[int, ...]:
    """Return the shape of one image, or raise `InputError` if it is not known."""
    if not isinstance(model, tf.keras.Model):
        raise InputError(f"`model` must be a tf.keras.Model, but got {model!r}.")
    if not model.built or not model.inputs:
        raise InputError("`model` must be built: call it on a batch of images first.")
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise InputError(
            f"`model` must have one input and one output, but has {len(model.inputs)} "
            f"and {len(model.outputs)}."
        )
    shape = tuple(model.inputs[0].shape[1:])
    if None in shape:
        raise InputError(f"`model` must have a static input shape, but got {shape}.")
    return shape
