import numpy as np
import pytest
import tensorflow as tf

from larq_nas.layers import BinaryConv2D
from larq_nas.layers.conv import block_diagonal, exporting


def native(layer: BinaryConv2D, x: np.ndarray) -> np.ndarray:
    """The same convolution from signs, padding with ones and TensorFlow's own groups."""
    kernel = layer.kernel.latent_variable.numpy() if layer.kernel_quantizer else layer.kernel
    kernel = np.where(kernel >= 0, 1.0, -1.0) if layer.kernel_quantizer else kernel
    signs = np.where(x >= 0, 1.0, -1.0).astype("float32")
    pads = [(0, 0)]
    for size, k, s, d in zip(
        x.shape[1:3], layer.kernel_size, layer.strides, layer.dilation_rate, strict=True
    ):
        total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
        pads.append((total // 2, total - total // 2))
    signs = np.pad(signs, [*pads, (0, 0)], constant_values=1.0)
    parts = zip(np.split(signs, layer.groups, -1), np.split(kernel, layer.groups, -1), strict=True)
    outputs = [
        tf.nn.conv2d(
            part, tf.cast(k, tf.float32), layer.strides, "VALID", dilations=layer.dilation_rate
        )
        for part, k in parts
    ]
    return np.concatenate(outputs, axis=-1)


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize(
    ("kernel_size", "strides", "dilation_rate"), [(3, 1, 1), (5, 1, 2), (3, 2, 2), (1, 2, 1)]
)
@pytest.mark.parametrize("kernel_quantizer", ["ste_sign", None])
@pytest.mark.parametrize("size", [7, 8])
def test_equals_a_convolution_written_out(
    groups: int,
    kernel_size: int,
    strides: int,
    dilation_rate: int,
    kernel_quantizer: str | None,
    size: int,
) -> None:
    layer = BinaryConv2D(
        12,
        kernel_size,
        strides=strides,
        dilation_rate=dilation_rate,
        groups=groups,
        kernel_quantizer=kernel_quantizer,
    )
    x = np.random.default_rng(0).normal(size=(2, size, size, 8)).astype("float32")
    outputs = layer(x).numpy()
    np.testing.assert_allclose(outputs, native(layer, x), rtol=1e-5, atol=1e-5)
    assert outputs.shape == layer.compute_output_shape(x.shape)
    with exporting():
        np.testing.assert_allclose(layer(x).numpy(), outputs, rtol=1e-5, atol=1e-5)


def test_groups_train_as_native_groups_do() -> None:
    layer = BinaryConv2D(12, 3, groups=4, kernel_quantizer=None, activation="relu")
    x = tf.random.stateless_normal((2, 8, 8, 8), (0, 1))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x) ** 2)
    gradient = tape.gradient(loss, layer.kernel)
    with tf.GradientTape() as tape, exporting():
        loss = tf.reduce_sum(layer(x) ** 2)
    np.testing.assert_allclose(gradient, tape.gradient(loss, layer.kernel), rtol=1e-4, atol=1e-3)


def test_block_diagonal_keeps_groups_apart() -> None:
    kernel = tf.ones((1, 1, 2, 6))
    dense = block_diagonal(kernel, 3).numpy()[0, 0]
    np.testing.assert_array_equal(dense, np.kron(np.eye(3), np.ones((2, 2))))


def test_bias_and_activation_also_when_exported() -> None:
    layer = BinaryConv2D(
        4, 3, groups=2, use_bias=True, activation="relu", bias_initializer="random_normal"
    )
    x = tf.random.stateless_normal((2, 6, 6, 4), (0, 1))
    outputs = layer(x)
    assert float(tf.reduce_min(outputs)) >= 0
    with exporting():
        np.testing.assert_allclose(layer(x), outputs, atol=1e-5)


def test_reloads_from_its_config(tmp_path) -> None:
    inputs = tf.keras.Input((8, 8, 4))
    model = tf.keras.Model(inputs, BinaryConv2D(4, 3, groups=2, dilation_rate=2, strides=2)(inputs))
    model.save(tmp_path / "model.keras")
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype("float32")
    np.testing.assert_array_equal(tf.keras.models.load_model(tmp_path / "model.keras")(x), model(x))


def test_strides_of_a_1x1_kernel_train_where_tensorflow_ends_the_process() -> None:
    rng = np.random.default_rng(0)
    images = tf.constant(rng.standard_normal((2, 64, 64, 4)).astype("float32"))
    layer = BinaryConv2D(8, 1, strides=2, input_quantizer=None, kernel_quantizer=None)

    for _ in range(20):
        with tf.GradientTape() as tape:
            outputs = layer(images)
            loss = tf.reduce_sum(outputs**2)
        gradient = tape.gradient(loss, layer.kernel)

    read = images.numpy()[:, ::2, ::2].reshape(-1, 4)
    kernel = layer.kernel.numpy().reshape(4, 8)
    np.testing.assert_allclose(outputs.numpy().reshape(-1, 8), read @ kernel, rtol=1e-4, atol=1e-5)
    written = 2 * read.T @ (read @ kernel)
    np.testing.assert_allclose(gradient.numpy().reshape(4, 8), written, rtol=1e-3, atol=1e-2)
