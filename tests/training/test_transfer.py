import numpy as np
import tensorflow as tf
from conftest import random_architecture, randomize

import larq_nas
from larq_nas.layers import REAL_WEIGHTS, BinaryConv2D, building_in
from larq_nas.spaces import Bats
from larq_nas.training.transfer import constrain, initialize_scales, transfer_weights


def test_real_weights_become_signs_and_mean_magnitudes() -> None:
    """XNOR-Net's scale, mean |W| per filter, also behind the two halves of a reduce."""
    architecture = random_architecture(Bats(cells=3, channels=8, nodes=1), 0)
    with building_in(REAL_WEIGHTS):
        real = randomize(architecture.build((8, 8, 1), 10))
    binary = architecture.build((8, 8, 1), 10)
    transfer_weights(real, binary)
    initialize_scales(binary)
    np.testing.assert_array_equal(
        real.get_layer("stem_conv").kernel, binary.get_layer("stem_conv").kernel
    )
    kernel = real.get_layer("cell0_pre1_conv").kernel.numpy()
    scale = binary.get_layer("cell0_pre1_scale").scale.numpy()
    np.testing.assert_allclose(scale, np.abs(kernel).mean(axis=(0, 1, 2)), rtol=1e-6)
    for half in ("even", "odd"):
        kernel = real.get_layer(f"cell2_pre0_{half}_conv").kernel.numpy()
        scale = binary.get_layer(f"cell2_pre0_{half}_scale").scale.numpy()
        np.testing.assert_allclose(scale, np.abs(kernel).mean(axis=(0, 1, 2)), rtol=1e-6)


def test_kernels_start_as_their_constraints_keep_them() -> None:
    """XNOR-Net's weights are centred before their first sign is taken, not only after."""
    model = architecture_of_bnas()
    kernels = [layer.kernel for layer in model.layers if isinstance(layer, BinaryConv2D)]
    before = [np.abs(kernel.numpy().mean(axis=2)).max() for kernel in kernels]
    constrain(model)
    assert min(before) > 1e-3
    assert max(np.abs(kernel.numpy().mean(axis=2)).max() for kernel in kernels) < 1e-6


def test_any_layer_may_have_constraints() -> None:
    x = tf.keras.Input((8, 3))
    lstm = tf.keras.layers.LSTM(4, kernel_constraint=tf.keras.constraints.MaxNorm(0.1))
    model = tf.keras.Model(x, tf.keras.layers.Dense(2, bias_constraint="non_neg")(lstm(x)))
    model.layers[-1].bias.assign([-1.0, 1.0])
    constrain(model)
    assert np.linalg.norm(lstm.cell.kernel.numpy(), axis=0).max() < 0.1001
    np.testing.assert_array_equal(model.layers[-1].bias, [0, 1])


def architecture_of_bnas() -> tf.keras.Model:
    architecture = larq_nas.Architecture.published("bnas_cifar")
    return architecture.with_settings(cells=3, channels=4).build((16, 16, 3), 10)
