import dataclasses
from typing import Any

import numpy as np
import pytest
from conftest import one_hot_supernet, quick, random_architecture, randomize
from counting import binary_macs, float_operations

import larq_nas
from larq_nas.deploy.flatbuffer import operators
from larq_nas.errors import InputError
from larq_nas.layers import DEPLOYED, SEARCH, BinaryConv2D, building_in
from larq_nas.layers.scale import Scale
from larq_nas.spaces import Bats
from larq_nas.supernet.relax import Relax
from larq_nas.training.transfer import transfer_weights

SMALL = Bats(cells=3, channels=8, nodes=2)
GROUPED = Bats(cells=2, channels=12, groups=4, nodes=2, activation="prelu")


@pytest.mark.parametrize("seed", quick(range(10), 4))
def test_one_hot_supernet_is_the_derived_network(seed: int, images: np.ndarray) -> None:
    """In the domain of the search, or in the deployed one."""
    space = GROUPED if seed % 5 == 4 else SMALL
    architecture = random_architecture(space, seed)
    domain = (SEARCH, DEPLOYED)[seed % 2]
    supernet = one_hot_supernet(architecture, space, domain)
    with building_in(domain):
        derived = architecture.build((8, 8, 1), 10)
    transfer_weights(supernet, derived)
    expected = supernet(images, training=False).numpy()
    got = derived(images, training=False).numpy()
    close = np.isclose(got, expected, rtol=1e-4, atol=1e-4 * expected.std()).all(axis=1)
    assert close.mean() >= 0.95, f"only {close.mean():.0%} of the rows are equal"
    np.testing.assert_array_equal(got.argmax(1)[close], expected.argmax(1)[close])


@pytest.mark.parametrize("seed", quick(range(5), 0))
def test_a_derived_network_converts(seed: int, images: np.ndarray) -> None:
    """Random ones of all spaces and sizes: benchmarks/deployment.py."""
    space = GROUPED if seed == 4 else SMALL
    model = randomize(random_architecture(space, seed).build((8, 8, 1), 10))
    conversion = larq_nas.convert(model, images)
    assert conversion.audit.fallbacks == []
    assert sum(row.binary for row in conversion.audit.layers) > 0
    assert [row.layer for row in conversion.audit.layers if not row.binary] == [
        "stem_conv",
        "head_dense",
    ]
    assert all(parity.equal for parity in conversion.parity)


@pytest.mark.parametrize("weights", ["binary", "real"])
@pytest.mark.parametrize("activations", ["binary", "real"])
def test_domains_of_table_4(weights: Any, activations: Any, images: np.ndarray) -> None:
    """What is not binary is neither quantized nor padded with ones; groups and dilation stay."""
    domain = dataclasses.replace(SEARCH, weights=weights, activations=activations)
    with building_in(domain):
        model = random_architecture(GROUPED, 0).build((8, 8, 1), 10)
    convolutions = [layer for layer in model.layers if isinstance(layer, BinaryConv2D)]
    assert len(convolutions) >= 8
    for layer in convolutions:
        assert (layer.kernel_quantizer is not None) == (weights == "binary")
        assert (layer.input_quantizer is not None) == (activations == "binary")
        assert layer.pad_values == (1 if activations == "binary" else 0)
    scales = [layer for layer in model.layers if isinstance(layer, Scale)]
    assert bool(scales) == (weights == "binary")


def test_the_float_twin_has_nothing_binary() -> None:
    space = dataclasses.replace(SMALL, precision="real")
    model = random_architecture(space, 0).build((8, 8, 1), 10)
    costs = larq_nas.cost.profile(model)
    assert costs.binary_macs == 0
    assert costs.macs > binary_macs(model)  # which counts the same layers as if they were binary
    method: Any = larq_nas.methods.resolve(space=space)
    assert (method.searcher.optimizer, method.searcher.learning_rate) == ("sgd", 0.1)
    assert (method.recipe.optimizer, method.recipe.learning_rate) == ("sgd", 0.1)


@pytest.mark.slow
def test_cells_as_the_paper_lays_them_out() -> None:
    """Reduction at 1/3 and 2/3 of the depth, where channels double and groups stay."""
    space = Bats(cells=20, channels=36, groups=12, activation="prelu")
    assert space.reductions == {6, 13}
    model = random_architecture(space, 0, (32, 32, 3)).build((32, 32, 3), 10)
    assert model.get_layer("stem_conv").filters == 108
    for cell, size, channels in ((0, 32, 36), (6, 16, 72), (13, 8, 144), (19, 8, 144)):
        assert model.get_layer(f"cell{cell}_concat").output_shape == (
            None,
            size,
            size,
            4 * channels,
        )
    convolutions = [
        layer for layer in model.layers if "_group_conv_" in layer.name and hasattr(layer, "groups")
    ]
    assert {layer.groups for layer in convolutions} == {12}
    assert "cell7_pre0_even_conv" in [layer.name for layer in model.layers]


@pytest.mark.slow
def test_published_network_costs_what_table_6_says() -> None:
    """On ImageNet: BOPs exactly; FLOPs within 1 % of 0.805e8, PReLU not among them."""
    published = larq_nas.Architecture.published("bats")
    architecture = published.with_settings(cells=14, channels=80, groups=16, stem="imagenet")
    model = architecture.build((224, 224, 3), 1000)
    assert binary_macs(model) == 1_149_657_600
    assert float_operations(model) == 80_103_360
    names = [layer.name for layer in model.layers]
    assert "cell0_pre0_even_conv" in names
    assert "cell0_pre1_conv" in names


@pytest.mark.slow
def test_imagenet_stem_reads_an_eighth_and_converts() -> None:
    space = Bats(cells=2, channels=40, nodes=1, stem="imagenet")
    model = randomize(random_architecture(space, 0, (32, 32, 3)).build((32, 32, 3), 10))
    assert model.get_layer("stem2_bn").output_shape == (None, 4, 4, 40)
    assert [model.get_layer(f"stem{i}_conv").groups for i in range(3)] == [1, 2, 2]
    images = np.random.default_rng(0).normal(size=(8, 32, 32, 3)).astype("float32")
    conversion = larq_nas.convert(model, images)
    assert conversion.audit.fallbacks == []
    assert all(parity.equal for parity in conversion.parity)


@pytest.mark.parametrize(("channels", "groups"), [(32, 1), (120, 6), (50, 1), (66, 3), (84, 3)])
def test_imagenet_stem_has_groups_that_divide_its_widths(channels: int, groups: int) -> None:
    model = random_architecture(
        Bats(cells=1, channels=channels, nodes=1, stem="imagenet"), 0, (16, 16, 3)
    ).build((16, 16, 3), 2)
    assert model.get_layer("stem1_conv").groups == groups


def test_cells_read_the_imagenet_stem_as_released() -> None:
    """No ReLU behind either output; 1x1 convolutions add what they read where widths agree."""
    space = Bats(cells=3, channels=20, nodes=4, stem="imagenet")
    model = random_architecture(space, 0, (32, 32, 3)).build((32, 32, 3), 10)
    layers = {layer.name: layer for layer in model.layers}
    assert {"stem0_relu", "stem1_relu"} <= set(layers)
    assert "stem2_relu" not in layers

    def reads(name: str) -> set[str]:
        before = layers[name].inbound_nodes[0].inbound_layers
        return {layer.name for layer in (before if isinstance(before, list) else [before])}

    assert reads("cell0_pre0_bn") == {"stem1_bn"}
    assert reads("cell0_pre1_bn") == {"stem2_bn"}
    # 20 channels on both sides, and else four times as many or twice as many again.
    added = [name for name in layers if "_pre" in name and name.endswith("_add")]
    assert added == ["cell0_pre1_add"]
    assert "stem2_bn" in reads("cell0_pre1_add")


def test_operations_are_those_of_table_1() -> None:
    choose = Relax()
    Bats(cells=1, channels=4, nodes=1).build(choose, (8, 8, 1), 10)
    (choice,) = choose.choices.values()
    assert set(choice.operations) == {
        "group_conv_3x3",
        "group_conv_5x5",
        "dilated_group_conv_3x3",
        "dilated_group_conv_5x5",
        "identity",
        "max_pool_3x3",
        "average_pool_3x3",
        "zero",
    }
    supernet = Bats(cells=4, channels=4, nodes=1).build(Relax(), (8, 8, 1), 10)
    names = [layer.name for layer in supernet.layers]
    conv = "cell0_node2_in0_dilated_group_conv_5x5"
    assert {f"{conv}_bn", f"{conv}_conv", f"{conv}_add"} <= set(names)


def test_search_space_of_the_proxy() -> None:
    space = Bats(cells=8, channels=32, search_cells=5, search_channels=16)
    assert (space.proxy().cells, space.proxy().channels) == (5, 16)
    assert Bats().proxy() == Bats()
    paper = {"cells": 20, "channels": 36, "groups": 12}
    space = Bats(**paper, search_channels=24, search_groups=8)
    assert (space.proxy().channels, space.proxy().groups) == (24, 8)  # 3 channels each
    assert (space.proxy().proxy(), space.groups) == (space.proxy(), 12)
    assert set(space.settings()) - set(Bats(**paper).settings()) == {"search_groups"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 0}, "`channels` must be positive, but got 0"),
        ({"channels": -4}, "`channels` must be positive, but got -4"),
        ({"cells": 0}, "`cells` must be positive, but got 0"),
        ({"nodes": 0}, "`nodes` must be positive"),
        ({"cells": 2.5}, "`cells` must be a whole number, but got 2.5"),
        ({"channels": 32, "groups": 12}, "`channels` must be divisible by `groups`"),
        ({"groups": 4, "search_channels": 18}, "`search_channels` must be divisible"),
        ({"search_groups": 3}, "`channels` must be divisible by `search_groups`, but got 32 ch"),
        (
            {"search_channels": 24, "search_groups": 5},
            "`search_channels` must .* by `search_groups`",
        ),
        ({"search_groups": 0}, "`search_groups` must be positive"),
        ({"operations": ("group_conv_3x4",)}, "did you mean `group_conv_3x3`"),
        ({"operations": ("zero", "max_pool_3x3", "zero")}, "must be different ones"),
        ({"operations": ("zero",)}, "must hold more than zero"),
        ({"stem": "imagenett"}, "Unknown stem `imagenett`; did you mean `imagenet`"),
        ({"activation": "rely"}, "Unknown activation `rely`; did you mean `relu`"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Bats(**settings)


def test_images_too_small_to_halve_are_refused() -> None:
    with pytest.raises(InputError, match="at least 4x4 pixels for 2 reduction cells, but got 3x8"):
        Bats().check((3, 8, 1))
    with pytest.raises(InputError, match="at least 32x32 pixels for the ImageNet stem and 2 red"):
        Bats(stem="imagenet").check((16, 32, 3))


@pytest.mark.slow
def test_operations_that_read_one_state_share_their_batch_norm_and_sign() -> None:
    kinds: dict[bool, list[str]] = {}
    for shared in (False, True):
        space = dataclasses.replace(SMALL, nodes=3, shared_norms=shared)
        # The same questions: the seed gives the same answers.
        model = randomize(random_architecture(space, 0).build((8, 8, 1), 10))
        conversion = larq_nas.convert(model)
        assert conversion.audit.fallbacks == []
        flatbuffer = conversion.flatbuffer
        kinds[shared] = [operator.kind for operator in operators(flatbuffer)]
    assert kinds[True].count("LceBconv2d") == kinds[False].count("LceBconv2d")
    for kind in ("LceQuantize", "ADD"):
        assert kinds[True].count(kind) < kinds[False].count(kind)


def test_searches_know_nothing_of_shared_batch_norms() -> None:
    with building_in(SEARCH):
        plain, shared = (
            dataclasses.replace(SMALL, shared_norms=shared).build(Relax(), (8, 8, 1), 10)
            for shared in (False, True)
        )
    assert [layer.name for layer in plain.layers] == [layer.name for layer in shared.layers]


def test_scales_before_signs_can_be_held_positive() -> None:
    space = dataclasses.replace(SMALL, positive_scales=True)
    model = random_architecture(space, 0).build((8, 8, 1), 10)
    norms = [layer for layer in model.layers if layer.name.endswith("_bn")]
    held = [layer for layer in norms if layer.gamma_constraint is not None]
    assert {layer.name for layer in norms} - {layer.name for layer in held} <= {"stem_bn"}
    (norm, *_) = held
    kept = norm.gamma_constraint(np.float32([-1, 0, 2]))
    np.testing.assert_array_equal(kept, np.float32([1e-6, 1e-6, 2]))
    # Runs of before have no such settings.
    assert set(space.settings()) - set(SMALL.settings()) == {"positive_scales"}
