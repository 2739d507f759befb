"""Finds the layer at which a flatbuffer starts to differ from Keras."""

import numpy as np
import tensorflow as tf

from larq_nas.deploy.audit import weighted_layers
from larq_nas.deploy.export import export_function, input_shape, run
from larq_nas.deploy.flatbuffer import output_names
from larq_nas.deploy.parity import KERNELS, Kernel

__all__ = ["first_differing_layer"]

_IMAGES = 8


def first_differing_layer(model: tf.keras.Model, images: np.ndarray, kernel: Kernel) -> str | None:
    """Return the name of the first layer whose outputs differ from Keras's, if one does.

    The model is converted once more with the output of every convolution and dense layer, so
    an error that only comes from fusing them may not show.

    # Arguments
        model: the model that converts to wrong numbers.
        images: float32, shape `(examples, height, width, channels)`.
        kernel: the kernel that gives wrong numbers.
    """
    own = {layer.name: layer for layer in model.layers}
    names = [layer.name for layer, _ in weighted_layers(model) if layer.name in own]
    probe = tf.keras.Model(model.inputs, [own[name].get_output_at(0) for name in names])

    def outputs(image: tf.Tensor) -> dict[str, tf.Tensor]:
        values = tf.nest.flatten(probe(image, training=False))
        return {f"output{index:04d}": value for index, value in enumerate(values)}

    flatbuffer = export_function(outputs, input_shape(model), model.variables)
    images = images[:_IMAGES]
    outputs_of_kernel = run(flatbuffer, images, kernel, **KERNELS[kernel])
    by_name = dict(zip(output_names(flatbuffer), outputs_of_kernel, strict=True))
    got = [by_name[name] for name in sorted(by_name)]
    expected = [value.numpy() for value in tf.nest.flatten(probe(images, training=False))]
    for name, one, other in zip(names, expected, got, strict=True):
        differing = np.abs(one - other.reshape(one.shape)) > 1e-3 * max(float(one.std()), 1e-6)
        # A sign that rounding turned changes few numbers; a wrong kernel changes many.
        if differing.mean() > 0.01:
            return name
    return None
