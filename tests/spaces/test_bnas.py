import numpy as np
import pytest
import tensorflow as tf
from conftest import random_architecture, randomize
from counting import parameters

import larq_nas
from larq_nas.choosers import Relax
from larq_nas.errors import InputError
from larq_nas.layers import BinaryConv2D
from larq_nas.spaces import Bnas

SMALL = Bnas(cells=3, channels=8, nodes=2)


def preprocess_parameters(inputs: int, filters: int) -> int:
    return inputs * filters + 2 * inputs


def test_published_network_has_the_papers_parameters() -> None:
    model = larq_nas.Architecture.published("bnas_cifar").build((32, 32, 3), 10)
    # The published reduction cell reads c(k-1) through zeros alone. The paper's count holds
    # its preprocess nevertheless; the network leaves it out, and computes the same.
    unread = preprocess_parameters(4 * 36, 72) + preprocess_parameters(4 * 72, 144)
    assert parameters(model) + unread == 5_578_252
    names = [layer.name for layer in model.layers]
    assert "cell5_pre1_conv" in names
    assert "cell6_pre1_conv" not in names


def test_cells_as_the_paper_lays_them_out() -> None:
    model = larq_nas.Architecture.published("bnas_cifar").build((32, 32, 3), 10)
    assert model.get_layer("stem_bn").input_shape == (None, 32, 32, 3)
    assert model.get_layer("cell7_pre0_conv").kernel_size == (3, 3)
    assert model.get_layer("cell8_pre0_conv").kernel_size == (1, 1)
    assert not model.get_layer("cell7_pre0_bn").trainable_weights
    assert model.get_layer("cell0_node2_in0_dilated_conv_3x3_conv").dilation_rate == (2, 2)
    assert model.get_layer("cell0_concat").output_shape == (None, 32, 32, 72)
    assert model.get_layer("cell0_pad").output_shape == (None, 32, 32, 144)
    names = [layer.name for layer in model.layers]
    assert not any("zeros" in name for name in names)
    assert "cell0_add" not in names
    added = model.get_layer("cell5_add").input
    assert [tensor._keras_history.layer.name for tensor in added] == ["cell5_pad", "cell4_add"]
    skip = model.get_layer("cell6_skip_conv")
    assert type(skip) is tf.keras.layers.Conv2D
    assert skip.kernel.shape == (2, 2, 144, 288)
    assert skip.use_bias


def test_imagenet_network_starts_at_an_eighth() -> None:
    published = larq_nas.Architecture.published("bnas_imagenet")
    model = published.with_settings(cells=3, channels=8).build((64, 64, 3), 10)
    assert [model.get_layer(f"stem{i}_conv").filters for i in range(3)] == [4, 8, 8]
    assert model.get_layer("cell0_pre0_conv").strides == (2, 2)
    assert len(model.get_layer("cell0_pre0_bn").trainable_weights) == 2
    assert model.get_layer("cell0_concat").output_shape == (None, 8, 8, 32)


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_small_network_converts(seed: int | None, images: np.ndarray) -> None:
    """The published cell, of which some nodes are zeros, and others."""
    published = larq_nas.Architecture.published("bnas_cifar").with_settings(cells=3, channels=8)
    architecture = published if seed is None else random_architecture(SMALL, seed)
    model = randomize(architecture.build((8, 8, 1), 10))
    assert any(isinstance(layer, BinaryConv2D) for layer in model.layers)
    conversion = larq_nas.convert(model, images)
    assert conversion.audit.fallbacks == []
    real = {row.layer for row in conversion.audit.layers if not row.binary}
    assert real == {"stem_conv", "cell1_skip_conv", "cell2_skip_conv", "head_dense"}
    assert all(parity.equal for parity in conversion.parity)


def test_weights_are_binarized_as_in_xnor_net() -> None:
    model = random_architecture(SMALL, 0).build((8, 8, 1), 10)
    conv = next(layer for layer in model.layers if isinstance(layer, BinaryConv2D))
    kernel = np.random.default_rng(0).normal(size=conv.kernel.shape).astype("float32")
    np.testing.assert_allclose(
        conv.kernel_quantizer(tf.constant(kernel)),
        np.sign(kernel) * np.abs(kernel).mean(axis=(0, 1, 2)),
        rtol=1e-6,
    )
    kept = conv.kernel_constraint(tf.constant(kernel)).numpy()
    centred = kernel - kernel.mean(axis=2, keepdims=True)
    np.testing.assert_allclose(kept, np.clip(centred, -1, 1), atol=1e-6)


def test_zero_competes() -> None:
    choose = Relax()
    SMALL.build(choose, (8, 8, 1), 10)
    choice = choose.choices["normal/2"]
    assert choice.keep_zero
    zero = np.eye(7)[[choice.operations.index("zero")] * 2]
    assert choice.strongest(zero) == [("zero", 0), ("zero", 1)]


def test_settings_that_cannot_be_used_are_refused() -> None:
    with pytest.raises(InputError, match="Unknown operation `conv_3x4`; did you mean `conv_3x3`"):
        Bnas(operations=("conv_3x4",))
