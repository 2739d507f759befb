"""No sign reads -0.0, which AArch64 takes for negative."""

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from convolutions import SIGNS, conv, model_of, on_zero_one

from larq_nas.deploy.export import export_lowered, run
from larq_nas.deploy.flatbuffer import extract, operators, read_model
from larq_nas.deploy.operations import KERNELS as OPTIONS
from larq_nas.deploy.rewriting import Lowered, lower

layers = tf.keras.layers


def negative_zeros(lowered: Lowered, images: np.ndarray) -> int:
    """Return how many -0.0 the signs of a flatbuffer read, which AArch64 takes for -1."""
    flatbuffer = export_lowered(lowered)
    model, found = read_model(flatbuffer), 0
    graph = model.subgraphs[0]
    for number, operator in enumerate(operators(flatbuffer)):
        if operator.kind == "LceQuantize":
            (read,) = graph.operators[number].inputs
            values = images
            if read not in graph.inputs:
                part = extract(model, range(number), graph.inputs, [read])
                (values,) = run(part, images, "reference", **OPTIONS["reference"])
            found += int(np.sum((values == 0) & np.signbit(values)))
    expected = lowered.model(images).numpy()
    (got,) = run(flatbuffer, images, "indirect", **OPTIONS["indirect"])
    np.testing.assert_allclose(got.reshape(expected.shape), expected, atol=1e-4)
    return found


def with_zeros() -> np.ndarray:
    """Return images that hold 0.0 and -0.0."""
    images = np.random.default_rng(0).normal(size=(8, 9, 10, 36)).astype("float32")
    images[:, :3], images[:, 3:5] = 0.0, -0.0
    return images


@pytest.mark.parametrize(
    "before",
    [
        layers.ReLU(),
        lambda x: layers.Add()([layers.ReLU()(x), layers.ReLU()(layers.Conv2D(36, 1)(x))]),
        lambda x: layers.MaxPool2D(2)(layers.ReLU()(x)),
        lambda x: layers.BatchNormalization(center=False)(layers.ReLU()(x)),
        lambda x: x,
    ],
    ids=["relu", "sum", "pool", "batch norm", "image"],
)
def test_inputs_of_zero_and_one_never_become_negative_zeros(before) -> None:
    quantizer = lq.quantizers.SteHeaviside()
    model = model_of(lambda x: on_zero_one(quantizer, name="reader")(before(x)))
    assert negative_zeros(lower(model), with_zeros()) == 0


@tf.keras.utils.register_keras_serializable("tests")
class ScaledBothWays(layers.Layer):
    """Multiplies half of the channels with negative numbers."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs * np.linspace(-1, 1, inputs.shape[-1]).astype("float32")


def masked(x: tf.Tensor) -> tf.Tensor:
    return layers.Multiply()([x, layers.ReLU()(conv(36)(x))])


def negative_norm(x: tf.Tensor) -> tf.Tensor:
    negative = tf.keras.initializers.Constant(-1.0)
    return layers.BatchNormalization(center=False, gamma_initializer=negative)(layers.ReLU()(x))


@pytest.mark.parametrize(
    ("before", "added"),
    [
        (lambda x: ScaledBothWays()(layers.ReLU()(x)), 1),
        (masked, 1),
        (lambda x: layers.MaxPool2D(2)(masked(x)), 1),
        (lambda x: layers.Flatten()(masked(x)), 1),
        (lambda x: x, 1),
        (lambda x: tf.nn.relu6(x + 3.0) * x * (1 / 6), 1),
        # Behind a convolution the offset is its own.
        (lambda x: ScaledBothWays()(conv(36, activation="relu")(x)), 0),
        (negative_norm, 1),
    ],
    ids=["scaled", "mask", "pooled mask", "rows", "image", "swish", "convolution", "norm"],
)
def test_signs_can_be_kept_from_negative_zeros(before, added: int) -> None:
    def block(x: tf.Tensor) -> tf.Tensor:
        x = before(x)
        if len(x.shape) == 2:
            dense = lq.layers.QuantDense(8, name="reader", **SIGNS)(x)
            return layers.Reshape((1, 1, 8))(dense)
        return conv(36, name="reader")(x)

    inputs = tf.keras.Input((9, 10, 36))
    model = tf.keras.Model(inputs, block(inputs))
    plain = lower(model)
    guard = [index for index, call in enumerate(plain.calls) if call.name == "reader"]
    guarded = lower(model, guard=guard)
    assert negative_zeros(plain, with_zeros()) > 0
    # The image itself is the first sign's in some of these; none of it is at the reader's.
    own = sum(call.name != "reader" and call.facts.binary_inputs for call in plain.calls)
    zeros = np.sum(np.signbit(with_zeros()) & (with_zeros() == 0))
    assert negative_zeros(guarded, with_zeros()) == own * zeros
    assert any("-0.0 kept from a sign" in line for line in guarded.reasons)
    kinds = [
        [operator.kind for operator in operators(export_lowered(lowered))]
        for lowered in (plain, guarded)
    ]
    assert kinds[1].count("ADD") - kinds[0].count("ADD") == added
    assert kinds[1].count("LceBMaxPool2d") == kinds[0].count("LceBMaxPool2d")
