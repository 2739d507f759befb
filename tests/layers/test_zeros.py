import numpy as np
import pytest
import tensorflow as tf

from larq_nas.layers import Zeros, concatenate


@pytest.mark.parametrize(
    "zeros", ["..", ".0", "0.", "0.0", ".0.", "00.", "..00", ".0.0.", "0..0..0", "00"]
)
def test_zeros_become_padding(zeros: str) -> None:
    """A dot is a tensor, of 1, 2, 3, ... channels, and a 0 as many zeros."""
    inputs, tensors = [], []
    for channels, zero in enumerate(zeros, start=1):
        inputs.append(tf.keras.Input((4, 4, channels)))
        tensors.append(Zeros((4, 4, channels))(inputs[-1]) if zero == "0" else inputs[-1])
    model = tf.keras.Model(inputs, concatenate(tensors, prefix="cell"))
    generator = np.random.default_rng(0)
    arrays = [generator.normal(size=(2, *x.shape[1:])).astype("float32") for x in inputs]
    kept = [0 * array if zero == "0" else array for array, zero in zip(arrays, zeros, strict=True)]
    np.testing.assert_array_equal(model(arrays), np.concatenate(kept, axis=-1))
    if "." in zeros:
        assert not any(isinstance(layer, Zeros) for layer in model.layers)
    again = tf.keras.Model.from_config(model.get_config())
    np.testing.assert_array_equal(again(arrays), model(arrays))


def test_other_shapes_are_concatenated_with_their_zeros() -> None:
    x = tf.keras.Input((3,))
    model = tf.keras.Model(x, concatenate([x, Zeros((2,))(x)], prefix="cell"))
    np.testing.assert_array_equal(model(np.ones((1, 3))), [[1, 1, 1, 0, 0]])
