"""Any model as a space of widths."""

import warnings

import larq_nas  # isort: skip  (it prepares TensorFlow)
import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from conftest import random_architecture, randomize

from larq_nas.cost import SpaceCosts, profile
from larq_nas.cost.profile import QUANTITIES
from larq_nas.errors import InputError
from larq_nas.spaces import ModelWidths
from larq_nas.spaces.chooser import Sample

layers = tf.keras.layers
SHAPE = (16, 16, 3)


def binary(x, filters: int, name: str, kernel: int = 3, **settings) -> tf.Tensor:
    x = lq.layers.QuantConv2D(
        filters,
        kernel,
        padding="same",
        pad_values=1,
        input_quantizer="ste_sign",
        kernel_quantizer="ste_sign",
        kernel_constraint="weight_clip",
        use_bias=False,
        name=name,
        **settings,
    )(x)
    return layers.BatchNormalization(name=f"{name}_bn")(x)


def ends(body, softmax: str = "") -> tf.keras.Model:
    """Return a model with a real stem, `body`, and a dense layer."""
    images = tf.keras.Input(SHAPE)
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(images)
    x = layers.GlobalAveragePooling2D()(body(layers.BatchNormalization()(x)))
    x = layers.Dense(10, "softmax" if softmax == "dense" else None, name="logits")(x)
    if softmax == "layer":
        x = layers.Activation("softmax", dtype="float32")(x)
    return tf.keras.Model(images, x, name="own")


def residual(x: tf.Tensor) -> tf.Tensor:
    """Two stages: the first of two blocks, the second with a real shortcut and a gate."""
    x = layers.Add()([x, binary(binary(x, 12, "inner1"), 8, "outer1")])
    x = x + binary(x, 8, "outer2")
    y = binary(x, 16, "down", strides=2)
    x = layers.Conv2D(16, 1, use_bias=False, name="shortcut")(layers.AvgPool2D()(x))
    x = layers.Add()([layers.BatchNormalization()(x), y])
    gate = layers.Dense(4, "relu", name="squeeze")(layers.GlobalAveragePooling2D()(y))
    gate = layers.Dense(16, "sigmoid", name="excite")(gate)
    return layers.Multiply()([x, layers.Reshape((1, 1, 16))(gate)])


def filters(model: tf.keras.Model) -> dict[str, int]:
    return {
        layer.name: getattr(layer, "filters", 0) or layer.units
        for layer in model.layers
        if hasattr(layer, "filters") or hasattr(layer, "units")
    }


def build(space: ModelWidths, ratios) -> tf.keras.Model:
    chosen = ratios if isinstance(ratios, dict) else dict.fromkeys(space.widths, ratios)
    return larq_nas.Architecture(space.name, {}, chosen).build(SHAPE, 10, space)


def test_layers_tied_by_additions_are_found() -> None:
    assert ModelWidths(ends(residual)).widths == {
        "stem": ["stem", "outer1", "outer2"],
        "inner1": ["inner1"],
        "down": ["down", "shortcut", "excite"],
    }


def test_each_group_has_its_ratio_and_other_layers_keep_their_width() -> None:
    model = build(ModelWidths(ends(residual)), {"stem": 2, "inner1": 0.25, "down": 0.5})
    assert filters(model) == {
        **{"stem": 16, "inner1": 3, "outer1": 16, "outer2": 16},
        **{"down": 8, "shortcut": 8, "squeeze": 4, "excite": 8, "logits": 10},
    }


def test_at_ratio_1_a_network_computes_what_the_model_does() -> None:
    model = randomize(ends(residual, softmax="dense"))
    copy = build(ModelWidths(model), 1)
    copy.set_weights(model.get_weights())
    images = np.random.default_rng(0).normal(size=(4, *SHAPE)).astype("float32")
    np.testing.assert_allclose(tf.nn.softmax(copy(images)), model(images), rtol=1e-5)
    assert not {id(layer) for layer in copy.layers} & {id(layer) for layer in model.layers}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_random_networks_convert_in_binary(seed: int) -> None:
    space = ModelWidths(ends(residual, softmax="layer"))
    model = randomize(random_architecture(space, seed, SHAPE).build(SHAPE, 10, space))
    images = np.random.default_rng(0).normal(size=(32, *SHAPE)).astype("float32")
    audit = larq_nas.convert(model, images).audit
    assert audit.fallbacks == []
    binaries = {row.layer for row in audit.layers if row.binary}
    assert binaries == {"inner1", "outer1", "outer2", "down"}


def test_costs_of_every_width_follow_from_one_build() -> None:
    space = ModelWidths(ends(residual))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        costs = SpaceCosts(space, SHAPE, 10)
        assert costs._follows_widths
    for seed in range(3):
        architecture = random_architecture(space, seed, SHAPE)
        built = profile(architecture.build(SHAPE, 10, space)).summary()
        assert costs.exact(architecture.choices) == {name: built[name] for name in QUANTITIES}


def test_concatenations_are_as_wide_as_their_parts() -> None:
    def body(x):
        x = layers.Concatenate()([binary(x, 8, "a"), binary(x, 4, "b")])
        return layers.Add()([x, layers.Concatenate()([binary(x, 8, "c"), binary(x, 4, "d")])])

    space = ModelWidths(ends(body))
    assert space.widths == {"a": ["a", "c"], "b": ["b", "d"]}
    assert build(space, {"a": 2, "b": 0.5}).get_layer("c").filters == 16


def test_a_shared_layer_ties_what_it_reads() -> None:
    def body(x):
        shared = lq.layers.QuantConv2D(8, 1, kernel_quantizer="ste_sign", name="shared")
        return layers.Concatenate()([shared(binary(x, 6, "a")), shared(binary(x, 6, "b"))])

    space = ModelWidths(ends(body))
    assert sorted(map(sorted, space.widths.values())) == [["a", "b"], ["shared"]]
    assert build(space, 2).get_layer("shared").filters == 16


def test_models_within_are_taken_apart() -> None:
    images = tf.keras.Input((16, 16, 8))
    block = tf.keras.Model(images, layers.Add()([images, binary(images, 8, "conv")]), name="block")
    space = ModelWidths(ends(block))
    assert space.widths == {"stem": ["stem", "block/conv"]}
    assert build(space, 2).get_layer("block_conv").filters == 16


def test_a_sequential_model_is_a_space() -> None:
    model = tf.keras.Sequential(
        [
            tf.keras.Input(SHAPE),
            lq.layers.QuantConv2D(4, 3, kernel_quantizer="ste_sign", name="conv"),
            layers.Lambda(lambda x: 2 * x),  # tried, and found to leave widths alone
            layers.Flatten(),
            lq.layers.QuantDense(6, kernel_quantizer="ste_sign", name="hidden"),
            layers.Dense(10, name="logits"),
        ]
    )
    assert filters(build(ModelWidths(model), 2)) == {"conv": 8, "hidden": 12, "logits": 10}


def test_depthwise_layers_pass_widths_on_as_often_as_they_repeat_them() -> None:
    def body(x):
        y = lq.layers.QuantDepthwiseConv2D(1, depth_multiplier=2, depthwise_quantizer="ste_sign")
        return layers.Add()(
            [y(binary(x, 8, "a")), layers.DepthwiseConv2D(1, depth_multiplier=2)(x)]
        )

    assert ModelWidths(ends(body)).widths == {"stem": ["stem", "a"]}


def test_what_scales_or_shifts_or_looks_at_all_channels_is_tried() -> None:
    def body(x):
        x = tf.nn.silu(tf.maximum(binary(x, 8, "a"), 0.1)) * 2 + 1
        return layers.LayerNormalization()(layers.Rescaling(2.0)(x))

    space = ModelWidths(ends(body))
    assert build(space, 2).get_layer("a").filters == 16


def test_a_model_called_twice_shares_its_layers() -> None:
    images = tf.keras.Input((16, 16, 8))
    block = tf.keras.Model(images, binary(images, 8, "conv"), name="block")
    space = ModelWidths(ends(lambda x: block(block(x))))
    assert space.widths == {"stem": ["stem", "block/conv"]}
    assert filters(build(space, 2)) == {"stem": 16, "block_conv": 16, "logits": 10}


class OwnConv(lq.layers.QuantConv2D):
    def call(self, inputs):
        return super().call(inputs)


def to_eight(x):
    return tf.keras.layers.Lambda(lambda x: tf.reshape(x, (-1, 16, 16, 8)), name="lambda")(x)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            lambda x: to_eight(binary(x, 8, "kept")),
            "`lambda` of class Lambda may need the channels",
        ),
        (lambda x: x * layers.ReLU()(binary(x, 1, "kept")), "spreads it over 8 channels"),
        (lambda x: binary(x, 8, "kept") * np.ones(8), "of class TFOpLambda may need the channels"),
        (
            lambda x: OwnConv(8, 3, kernel_quantizer="ste_sign", name="kept")(x),
            "`kept` of class OwnConv may need the channels",
        ),
        (
            lambda x: layers.Concatenate()([x, x]) + binary(x, 16, "kept"),
            "joins channels that are put together otherwise",
        ),
        (
            lambda x: binary(binary(x, 8, "kept"), 16, "grouped", groups=8),
            "the 8 groups of `grouped` do not divide 8 x 0.5",
        ),
    ],
)
def test_what_cannot_change_stays_and_is_told_once(body, reason: str) -> None:
    with pytest.warns(UserWarning, match="stay as wide as they are: .*`kept`") as caught:
        space = ModelWidths(ends(lambda x: binary(body(x), 8, "open")), (0.5, 1))
    assert reason in str(caught[-1].message)
    assert "open" in space.widths
    assert "kept" not in space.widths
    assert build(space, 0.5).get_layer("kept").filters == filters(build(space, 1))["kept"]


def test_a_model_of_real_layers_alone_is_refused() -> None:
    with pytest.raises(InputError, match=r"Model `own` must have quantized .* has none: use larq"):
        ModelWidths(ends(lambda x: x))


def test_a_model_in_which_nothing_can_change_is_refused_with_the_reason() -> None:
    with pytest.raises(InputError, match=r"`kept` \(`lambda` of class Lambda may need"):
        ModelWidths(ends(lambda x: to_eight(binary(x, 8, "kept"))))


@pytest.mark.parametrize(
    ("ratios", "message"),
    [
        ((0.1, 1), "layer `stem` has 8, and 0.1 is among `ratios`"),
        ((), "`ratios` of .* is empty"),
        ((1, -1), "`ratios` must be positive, up to 64, but got -1"),
        (2, "`ratios` must be a list of numbers, but got 2"),
    ],
)
def test_ratios_that_cannot_be_used_are_refused(ratios, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ModelWidths(ends(residual), ratios)


@pytest.mark.parametrize(("shape", "classes"), [((8, 8, 3), 10), (SHAPE, 12)])
def test_other_images_or_classes_are_refused(shape, classes: int) -> None:
    space = ModelWidths(ends(residual))
    with pytest.raises(InputError, match=r"of shape \(16, 16, 3\) and 10 classes, but got"):
        space.build(Sample.seeded(0), shape, classes)


def test_a_model_without_classes_is_refused() -> None:
    images = tf.keras.Input(SHAPE)
    with pytest.raises(InputError, match=r"to one output of shape \(classes,\), but maps"):
        ModelWidths(tf.keras.Model(images, binary(images, 8, "conv")))
