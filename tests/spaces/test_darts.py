import numpy as np
import pytest
import tensorflow as tf
from conftest import quick, random_architecture, randomize
from counting import parameters

import larq_nas
from larq_nas.errors import InputError
from larq_nas.layers import BinaryConv2D, building_in
from larq_nas.spaces import Darts
from larq_nas.spaces.darts import Style, convolution, steps_of
from larq_nas.supernet.relax import Relax

SMALL = Darts(cells=3, channels=4, nodes=2)


@pytest.mark.parametrize(
    ("name", "expected"),
    quick(
        [
            ("darts_first_order", 3_169_414),
            ("p_darts", 3_433_798),
            ("amoebanet_a", 3_145_078),
        ],
    ),
)
def test_published_networks_have_their_parameters(name: str, expected: int) -> None:
    """The published counts are in tests/cost/test_conventions.py; these follow from the same."""
    model = larq_nas.Architecture.published(name).build((32, 32, 3), 10)
    assert parameters(model) == expected


@pytest.mark.parametrize(
    ("name", "strides", "expected"),
    [
        ("separable_conv_3x3", 1, 2 * (9 * 4 + 16 + 8)),
        ("separable_conv_7x7", 2, 2 * (49 * 4 + 16 + 8)),
        ("dilated_conv_5x5", 2, 25 * 4 + 16 + 8),
        ("conv_7x1_1x7", 2, 14 * 16 + 8),
    ],
)
@pytest.mark.parametrize("weights", ["real", "binary"])
def test_operations_have_the_shape_and_weights_they_should(
    name: str, strides: int, expected: int, weights: str
) -> None:
    x = tf.keras.Input((9, 8, 4))
    style = Style(weights)
    y = convolution(x, "op", filters=4, style=style, rows=steps_of(name, strides))
    model = tf.keras.Model(x, y)
    assert model.output_shape == ((None, 9, 8, 4) if strides == 1 else (None, 5, 4, 4))
    if weights == "real":
        assert parameters(model) == expected
    else:
        kernels = [layer.kernel for layer in model.layers if isinstance(layer, BinaryConv2D)]
        norms_of_rows = 8 * len(steps_of(name, strides))
        assert sum(int(tf.size(kernel)) for kernel in kernels) == expected - norms_of_rows


@pytest.mark.parametrize("size", [8, 9])
def test_dilated_depthwise_convolution_halves_as_others_do(size: int) -> None:
    x = np.random.default_rng(0).normal(size=(2, size, size, 4)).astype("float32")
    inputs = tf.keras.Input(x.shape[1:])
    rows = steps_of("dilated_conv_3x3", 2)
    model = tf.keras.Model(inputs, convolution(inputs, "op", filters=4, style=Style(), rows=rows))
    depthwise = model.get_layer("op_0_conv").depthwise_kernel.numpy()
    dense = np.zeros((3, 3, 4, 4), "float32")
    for channel in range(4):
        dense[:, :, channel, channel] = depthwise[:, :, channel, 0]
    expected = tf.nn.conv2d(tf.nn.relu(x), dense, 2, "SAME", dilations=2)
    got = tf.keras.Model(inputs, model.get_layer("op_0_skip").output)(x)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_cells_concatenate_the_states_they_are_told() -> None:
    published = larq_nas.Architecture.published("nasnet_a")
    model = published.with_settings(cells=3, channels=4).build((8, 8, 1), 10)
    assert model.get_layer("cell0_concat").output_shape == (None, 8, 8, 5 * 4)
    assert model.get_layer("cell1_concat").output_shape == (None, 4, 4, 3 * 8)
    pool = "cell0_node5_in0_average_pool_3x3"
    assert {pool, f"{pool}_2"} <= {layer.name for layer in model.layers}


@pytest.mark.slow
def test_binary_network_converts(images: np.ndarray) -> None:
    published = larq_nas.Architecture.published("amoebanet_a")
    architecture = published.with_settings(cells=3, channels=4, precision="binary")
    model = randomize(architecture.build((8, 8, 1), 10))
    conversion = larq_nas.convert(model, images)
    assert conversion.audit.fallbacks == []
    real = [row.layer for row in conversion.audit.layers if not row.binary]
    assert real == ["stem_conv", "head_dense"]
    assert all(parity.equal for parity in conversion.parity)


@pytest.mark.slow
def test_it_is_searched_with_batch_norm_behind_pools_alone() -> None:
    """As released: without scale and offset, and not in the network that is trained."""
    space = Darts(cells=3, channels=4, nodes=1)
    choose = Relax()
    with building_in(space.search_domain):
        names = {layer.name: layer for layer in space.build(choose, (8, 8, 1), 10).layers}
    for pool in ("max_pool_3x3", "average_pool_3x3"):
        norm = names[f"cell0_node2_in1_{pool}_bn"]
        assert (norm.center, norm.scale) == (False, False)
    # An identity that halves the image is DARTS' FactorizedReduce, which has its own.
    assert "cell0_node2_in1_identity_bn" not in names
    assert "cell1_node2_in1_identity_bn" in names
    names = {layer.name for layer in space.build(Relax(), (8, 8, 1), 10).layers}
    assert "cell0_node2_in1_max_pool_3x3_bn" not in names


@pytest.mark.slow
def test_can_be_searched() -> None:
    for weights in ("real", "binary"):
        choose = Relax()
        Darts(cells=3, channels=4, nodes=2, precision=weights).build(choose, (8, 8, 1), 10)
        assert set(choose.mixtures) == {f"{k}/{i}" for k in ("normal", "reduction") for i in (2, 3)}
    assert random_architecture(SMALL, 0).build((8, 8, 1), 10).output_shape == (None, 10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "binarised"}, "Unknown precision `binarised`; did you mean `binary`"),
        ({"activation": "rely"}, "Unknown activation `rely`; did you mean `relu`"),
        ({"operations": ("conv_1x7",)}, "Unknown operation `conv_1x7`"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Darts(**settings)


def test_only_nodes_can_be_concatenated() -> None:
    space = Darts(cells=3, channels=4, normal_concat=(5, 6))
    with pytest.raises(InputError, match="`concat` of cell `normal` must hold nodes, 2 to 5"):
        random_architecture(space, 0)


@pytest.mark.parametrize("concat", [2, 2.0, [], [2.0, 3], [True], ["2"], [[2]], [2, 2], [9], "23"])
def test_states_that_no_cell_has_are_refused(concat: object) -> None:
    space = Darts(cells=3, channels=4, nodes=2, normal_concat=concat)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="`concat` of cell `normal` must hold nodes, 2 to 3, each"):
        random_architecture(space, 0)
