"""What LceQuantize makes of -0.0 on 64-bit ARM, and what the gate does about it.

The engine's published source, `larq_compute_engine/core/bitpacking`: `bitpack_matrix` hands a
tensor to `bitpack_array` in one piece if its channels are a multiple of 32, and row by row
otherwise. On AArch64 `bitpack_array` gives whole blocks of 4 x 32 floats to
`bitpack_aarch64_4x32`, which loads the upper half of each float and collects the sign bits: -0.0
has one. The rest goes to `bitpack_bitfield`, which compares with `< 0`: -0.0 is not less.
"""

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from conftest import randomize

import larq_nas
from larq_nas.deploy.flatbuffer import pack
from larq_nas.deploy.operations import Operations, sign_bits
from larq_nas.layers import BinaryConv2D, classifier

layers = tf.keras.layers


def bitpack_array(numbers: np.ndarray) -> list[bool]:
    """Return which numbers are packed as -1, one after another as the source says."""
    left, negative = list(numbers), []
    while len(left) >= 128:
        block, left = left[:128], left[128:]
        negative += [int(np.float32(x).view("u4")) >> 31 == 1 for x in block]
    return negative + [bool(x < 0) for x in left]


@pytest.mark.parametrize(
    "shape", [(4, 4, 32), (3, 5, 64), (2, 2, 8), (3, 3, 130), (1, 1, 200), (7,)]
)
def test_the_emulation_follows_the_published_source(shape: tuple[int, ...]) -> None:
    generator = np.random.default_rng(0)
    numbers = generator.choice([-0.0, 0.0, -1.5, 2.0, -1e-40], (2, *shape)).astype("float32")
    for image, found in zip(numbers, sign_bits(numbers), strict=True):
        rows = image.reshape(-1) if shape[-1] % 32 == 0 else image.reshape(-1, shape[-1])
        expected = [bitpack_array(row) for row in np.atleast_2d(rows)]
        np.testing.assert_array_equal(found.reshape(np.shape(expected)), expected)


def test_without_negative_zeros_it_is_what_the_engine_gives_here() -> None:
    inputs = tf.keras.Input((6, 6, 64))
    model = randomize(tf.keras.Model(inputs, classifier(BinaryConv2D(8, 3)(inputs), 3)))
    operations = Operations(larq_nas.convert(model).flatbuffer, "default")
    step = next(step for step in operations.steps if step.kind == "LceQuantize")
    numbers = np.random.default_rng(0).normal(size=(5, 1, 6, 6, 64)).astype("float32")
    (found,) = operations.run(step, {step.reads[0]: numbers}, 5)
    np.testing.assert_array_equal(found, pack(sign_bits(numbers)))
    zeros = np.where(numbers < -1, np.float32(-0.0), numbers)
    (found,) = operations.run(step, {step.reads[0]: zeros}, 5)
    np.testing.assert_array_equal(found, pack(zeros < 0))
    assert not np.array_equal(found, pack(sign_bits(zeros)))


def turned(x: tf.Tensor) -> tf.Tensor:
    """Return the inputs of a {0, 1} layer as its rewriting once did: a ReLU's 0 becomes -0.0."""
    return BinaryConv2D(16, 3, name="flipped")(layers.ReLU()(x) * -1.0)


def test_the_flip_without_a_threshold_is_told(images: np.ndarray) -> None:
    inputs = tf.keras.Input((8, 8, 32))
    model = randomize(tf.keras.Model(inputs, classifier(turned(inputs), 3)))
    conversion = larq_nas.convert(model, rewrite=False)
    (there,) = [parity for parity in conversion.parity if parity.kernel == "aarch64"]
    here = conversion.parity[0]
    assert here.exact == 1.0
    assert there.exact == 0.0
    assert any("64-bit ARM" in line and "read -0.0" in line for line in conversion.warnings)


def test_the_rewriting_of_zero_and_one_gives_no_negative_zero() -> None:
    inputs = x = tf.keras.Input((8, 8, 32))
    settings = {"kernel_quantizer": "ste_sign", "padding": "same", "pad_values": 0.0}
    for number in range(2):
        x = layers.ReLU()(layers.BatchNormalization()(x))
        quantizer = lq.quantizers.SteHeaviside()
        x = lq.layers.QuantConv2D(
            32, 3, input_quantizer=quantizer, name=f"zero_one{number}", **settings
        )(x)
    model = randomize(tf.keras.Model(inputs, classifier(x, 3)))
    conversion = larq_nas.convert(model)
    assert conversion.audit.fallbacks == []
    assert conversion.parity[-1].kernel == "aarch64"
    assert conversion.parity[-1].operations > 0
    images = np.random.default_rng(0).normal(size=(16, 8, 8, 32)).astype("float32")
    assert Operations(conversion.flatbuffer, "aarch64").negative_zeros([images]) == {}
    assert not any("64-bit ARM" in line for line in conversion.warnings)
