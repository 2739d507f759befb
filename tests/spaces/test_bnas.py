import dataclasses
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from conftest import one_hot_supernet, quick, random_architecture, randomize
from counting import parameters

import larq_nas
from larq_nas.deploy.flatbuffer import operators
from larq_nas.errors import InputError
from larq_nas.layers import BINARY_SEARCH, DEPLOYED, BinaryConv2D, Domain, Zeros, building_in
from larq_nas.quantizers import XnorSign
from larq_nas.spaces import Bnas
from larq_nas.spaces.chooser import Fix
from larq_nas.supernet.relax import Relax
from larq_nas.training.transfer import transfer_weights

SMALL = Bnas(cells=3, channels=8, nodes=2)


class Unpruned(Fix):
    """Keeps every zero operation as zeros that are computed, added and concatenated."""

    def _zero(self, x: tf.Tensor, operations, prefix: str) -> list[tf.Tensor]:
        some = next(operation for operation in operations.values() if operation)
        shape = some(x, f"{prefix}_shape").shape[1:]
        return [Zeros(shape, name=f"{prefix}_zeros")(x)]


def unpruned(architecture: larq_nas.Architecture, shape: tuple[int, int, int]) -> tf.keras.Model:
    return architecture.resolve().build(Unpruned(architecture.choices), shape, 10)


@pytest.mark.slow
def test_published_network_has_the_papers_parameters() -> None:
    """The paper counts what only zeros read, too; the network leaves that out."""
    architecture = larq_nas.Architecture.published("bnas_cifar")
    assert parameters(unpruned(architecture, (32, 32, 3))) == 5_578_252
    names = [layer.name for layer in architecture.build((32, 32, 3), 10).layers]
    assert "cell5_pre1_conv" in names
    assert "cell6_pre1_conv" not in names


@pytest.mark.parametrize("seed", quick([None, *range(4)], 0, 1))
def test_without_its_zeros_a_network_is_the_same(seed: int | None, images: np.ndarray) -> None:
    """The published cell, and random ones: nodes without inputs anywhere in the cell."""
    published = larq_nas.Architecture.published("bnas_cifar").with_settings(cells=4, channels=8)
    space = Bnas(cells=4, channels=8, nodes=3, operations=("zero", "max_pool_3x3", "conv_3x3"))
    architecture = published if seed is None else random_architecture(space, seed)
    whole = randomize(unpruned(architecture, (8, 8, 1)))
    pruned = architecture.build((8, 8, 1), 10)
    transfer_weights(whole, pruned)
    assert len(pruned.layers) < len(whole.layers)
    np.testing.assert_allclose(pruned(images), whole(images), rtol=1e-5, atol=1e-6)


def test_no_operation_is_left_of_zeros(images: np.ndarray) -> None:
    """What is added to the channels is padding: as cheap as copying them."""
    published = larq_nas.Architecture.published("bnas_cifar").with_settings(cells=4, channels=32)
    model = randomize(published.build((8, 8, 1), 10))
    assert not any(isinstance(layer, Zeros) for layer in model.layers)
    conversion = larq_nas.convert(model, images)
    kinds = Counter(operator.kind for operator in operators(conversion.flatbuffer))
    binary = sum(isinstance(layer, BinaryConv2D) for layer in model.layers)
    assert kinds["LceBconv2d"] == binary
    # Two live nodes of four in each cell: they are joined, and padded once.
    assert kinds["CONCATENATION"] == kinds["PAD"] == 4
    assert not {"ZEROS_LIKE", "FILL", "ZERO"} & kinds.keys()


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


@pytest.mark.parametrize("seed", quick([None, 0, 1], 1))
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
    assert isinstance(conv.kernel_quantizer, XnorSign)
    kernel = np.random.default_rng(0).normal(size=conv.kernel.shape).astype("float32")
    kept = conv.kernel_constraint(tf.constant(kernel)).numpy()
    centred = kernel - kernel.mean(axis=2, keepdims=True)
    np.testing.assert_allclose(kept, np.clip(centred, -1, 1), atol=1e-6)


@pytest.mark.parametrize("seed", quick(range(2), 0))
@pytest.mark.parametrize("domain", quick([BINARY_SEARCH, DEPLOYED], 1))
def test_one_hot_supernet_is_the_derived_network(
    seed: int, domain: Domain, images: np.ndarray
) -> None:
    architecture = random_architecture(SMALL, seed)
    supernet = one_hot_supernet(architecture, SMALL, domain)
    with building_in(domain):
        derived = architecture.build((8, 8, 1), 10)
    transfer_weights(supernet, derived)
    expected, got = supernet(images).numpy(), derived(images).numpy()
    close = np.isclose(got, expected, rtol=1e-4, atol=1e-4 * expected.std()).all(axis=1)
    assert close.mean() >= 0.95, f"only {close.mean():.0%} of the rows are equal"


def test_it_is_searched_as_published() -> None:
    """Candidates are binary, what brings the inputs to width is real, pools are normalized."""
    with building_in(Bnas.search_domain):
        model = SMALL.build(Relax(), (8, 8, 1), 10)
    candidate = model.get_layer("cell1_node2_in0_conv_3x3_conv")
    assert isinstance(candidate.kernel_quantizer, XnorSign)
    for name in ("cell1_pre0_conv", "cell2_pre0_conv", "cell1_pre1_conv"):
        assert type(model.get_layer(name)) is tf.keras.layers.Conv2D
    assert model.get_layer("cell2_pre0_conv").strides == (2, 2)
    norms = [
        layer
        for layer in model.layers
        if isinstance(layer, tf.keras.layers.BatchNormalization) and "skip" not in layer.name
    ]
    assert any(layer.name.endswith("max_pool_3x3_bn") for layer in norms)
    assert [layer.name for layer in norms if layer.trainable_weights] == ["stem_bn"]


def test_cells_without_skips_are_those_of_darts() -> None:
    published = larq_nas.Architecture.published("bnas_cifar")
    model = published.with_settings(cells=5, channels=8, skips=False).build((32, 32, 3), 10)
    assert not [layer.name for layer in model.layers if "skip" in layer.name]
    assert not [layer.name for layer in model.layers if layer.name.endswith("_add")]


def test_v2_groups_the_stem() -> None:
    published = larq_nas.Architecture.published("bnas_imagenet")
    settings = published.settings
    assert (settings["cells"], settings["channels"]) == (12, 64)
    # BATS prints 4 (section 6.3). 34 channels, the half of size E, divide by 2 alone.
    sizes = {64: [1, 4, 4], 68: [1, 2, 2], 128: [1, 4, 4]}
    for grouped, channels in ((False, 64), *((True, channels) for channels in sizes)):
        small = published.with_settings(cells=3, channels=channels, stem_groups=grouped)
        model = small.build((32, 32, 3), 10)
        groups = [model.get_layer(f"stem{i}_conv").groups for i in range(3)]
        assert groups == (sizes[channels] if grouped else [1, 1, 1])


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("bnas_cifar", (20, 36)),
        ("bnas_imagenet", (12, 64)),
        ("bnas_imagenet_e", (12, 68)),
        ("bnas_imagenet_f", (15, 68)),
        ("bnas_imagenet_g", (11, 74)),
        ("bnas_imagenet_h", (16, 128)),
    ],
)
def test_published_sizes(name: str, size: tuple[int, int]) -> None:
    architecture = larq_nas.Architecture.published(name)
    assert (architecture.settings["cells"], architecture.settings["channels"]) == size
    stem = "cifar" if name == "bnas_cifar" else "imagenet"
    assert architecture.settings.get("stem", "cifar") == stem
    if stem == "imagenet":
        assert architecture.choices == larq_nas.Architecture.published("bnas_imagenet").choices


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
    with pytest.raises(InputError, match="`skips` must be True or False, but got 'no'"):
        Bnas(skips="no")
    with pytest.raises(InputError, match="`stem_groups` is for the ImageNet stem"):
        Bnas(stem_groups=True)
    with pytest.raises(InputError, match="but 74 channels do not divide so: take channels=76"):
        Bnas(stem="imagenet", channels=74, stem_groups=True)


def test_the_stem_of_a_supernet_is_grouped_where_that_divides() -> None:
    published = Bnas(cells=12, channels=64, stem="imagenet", stem_groups=True)
    assert published.proxy().stem_groups  # of 16 channels
    assert not dataclasses.replace(published, search_channels=14).proxy().stem_groups
