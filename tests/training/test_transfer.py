import numpy as np
from conftest import random_architecture, randomize

from larq_nas.layers import REAL_WEIGHTS, building_in
from larq_nas.spaces import Bats
from larq_nas.training.transfer import initialize_scales, transfer_weights


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
