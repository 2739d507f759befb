from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from conftest import quick, random_architecture, randomize

import larq_nas
from larq_nas.errors import InputError
from larq_nas.graph.channels import latent
from larq_nas.layers import building_in
from larq_nas.spaces import ResNet18, ResNet18Cifar, Vgg11, VggSmall, resolve
from larq_nas.spaces.chooser import Sample
from larq_nas.training.transfer import transfer_weights


def filters(model) -> dict[str, int]:
    return {layer.name: layer.filters for layer in model.layers if hasattr(layer, "filters")}


def test_every_layer_has_its_own_ratio() -> None:
    ratios = (1, 2, 0.5, 0.25, 1, 0.75)
    model = larq_nas.Architecture("vgg_small", {"expansion": ratios}).build((32, 32, 3), 10)
    assert list(filters(model).values()) == [128, 256, 128, 64, 512, 384]


def test_a_stage_has_one_width_and_each_block_its_own() -> None:
    space = ResNet18Cifar(expansion=(1, 2, 0.5, 2, 1, 1, 1, 1, 1, 1, 1, 1))
    names = filters(space.build(larq_nas.spaces.Fix({}), (32, 32, 3), 10))
    assert names["stem_conv"] == names["stage1_block1_2_conv"] == 16
    assert (names["stage1_block1_1_conv"], names["stage1_block2_1_conv"]) == (32, 8)
    assert names["stage2_block1_2_conv"] == names["stage2_block1_downsample_conv"] == 64
    assert len(names) == 1 + 16 + 3


@pytest.mark.parametrize(
    ("space", "shape"),
    quick(
        [
            (VggSmall(ratios=(0.1, 0.25)), (16, 16, 3)),
            (Vgg11(), (32, 32, 3)),
            (ResNet18Cifar(), (16, 16, 3)),
            (ResNet18Cifar(binarization="bats"), (16, 16, 3)),
            (ResNet18(ratios=(0.125, 0.25), downsample="real"), (32, 32, 3)),
        ],
        0,
        1,
    ),
)
def test_sampled_networks_convert_in_binary(space, shape) -> None:
    model = randomize(random_architecture(space, 0, shape).build(shape, 10))
    images = np.random.default_rng(0).normal(size=(32, *shape)).astype("float32")
    conversion = larq_nas.convert(model, images)
    assert conversion.audit.fallbacks == []
    real = [row.layer for row in conversion.audit.layers if not row.binary]
    downsampled = 3 if isinstance(space, ResNet18) else 0
    assert len(real) == 2 + downsampled
    assert all(parity.equal for parity in conversion.parity)


def test_binarized_as_bats_does_it_is_its_section_3() -> None:
    """Batch norm, sign, convolution by signs, a learned scale, PReLU."""
    space = ResNet18Cifar(expansion=0.25, binarization="bats")
    model = randomize(space.build(larq_nas.spaces.Fix({}), (8, 8, 3), 10))
    name = "stage1_block1_1"
    norm, conv, scale, prelu = (
        model.get_layer(f"{name}_{layer}") for layer in ("bn", "conv", "scale", "prelu")
    )
    images = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    before, after = tf.keras.Model(model.input, [norm.input, prelu.output])(images)
    signs = np.where(norm(before) >= 0, 1.0, -1.0).astype("float32")
    padded = np.pad(signs, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=1.0)
    kernel = np.sign(latent(conv.kernel).numpy())
    y = tf.nn.conv2d(padded, kernel, 1, "VALID").numpy() * scale.get_weights()[0]
    by_hand = np.where(y > 0, y, prelu.get_weights()[0] * y)
    np.testing.assert_allclose(after, by_hand, rtol=1e-5, atol=1e-5)


def test_its_float_twin_has_the_same_layers() -> None:
    """So that a recipe which trains the twin first can hand its weights on."""
    space = ResNet18Cifar(expansion=0.25, binarization="bats")
    recipe = larq_nas.methods.recipe("dms_a", space)
    with building_in(recipe.domain(recipe.stages[0])):
        twin = randomize(space.build(larq_nas.spaces.Fix({}), (8, 8, 3), 10))
    model = space.build(larq_nas.spaces.Fix({}), (8, 8, 3), 10)
    transfer_weights(twin, model)
    name = "stage2_block1_1_prelu"
    ours, theirs = (network.get_layer(name).get_weights() for network in (model, twin))
    np.testing.assert_array_equal(ours, theirs)
    assert not any(getattr(layer, "input_quantizer", None) for layer in twin.layers)


@pytest.mark.parametrize(
    ("name", "shape"),
    quick([("vgg11", (32, 32, 3)), ("resnet18_cifar", (8, 8, 3)), ("resnet18", (32, 32, 3))], 0, 1),
)
def test_binarized_as_dms_does_it_has_relu_where_the_float_twin_has(name: str, shape: Any) -> None:
    """With a ReLU for each quantizer it is the twin: its other layers read the same (A.3)."""
    space = resolve(name, {"binarization": "dms", "expansion": 0.25})
    twin = resolve(space, {"precision": "real"}).build(larq_nas.spaces.Fix({}), shape, 10)
    with building_in(larq_nas.layers.REAL_WEIGHTS):
        model = space.build(larq_nas.spaces.Fix({}), shape, 10)
    for layer in model.layers:
        if getattr(layer, "input_quantizer", None):
            layer.input_quantizer = tf.nn.relu
    transfer_weights(randomize(twin), model)
    images = np.random.default_rng(0).normal(size=(4, *shape)).astype("float32")
    np.testing.assert_allclose(model(images), twin(images), rtol=1e-5, atol=1e-5)


def test_keras_tuner_draws_ratios() -> None:
    import keras_tuner

    hyperparameters = keras_tuner.HyperParameters()
    choose = Sample(hyperparameters)
    Vgg11().build(choose, (32, 32, 3), 10)
    assert choose.values == dict.fromkeys(Vgg11().layers, 0.25)
    assert set(hyperparameters.values) == set(Vgg11().layers)


def test_an_architecture_of_widths_survives_its_file(tmp_path) -> None:
    architecture = random_architecture(Vgg11(), 1, (32, 32, 3))
    architecture.save(tmp_path / "a.json")
    loaded = larq_nas.Architecture.load(tmp_path / "a.json")
    model, again = (a.build((32, 32, 3), 10) for a in (architecture, loaded))
    assert filters(model) == filters(again)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"expansion": 0}, "`expansion` must be positive, up to 64, but got 0"),
        ({"expansion": (1, -2, 1, 1, 1, 1)}, "`expansion` must be positive, up to 64, but got -2"),
        ({"expansion": (1, 2)}, "`expansion` must be one ratio, or 6 .* but got 2"),
        ({"expansion": "two"}, "`expansion` must be"),
        ({"ratios": ()}, "`ratios` must be a list"),
        ({"ratios": (0.5, -1)}, "`ratios` must be positive, up to 64, but got -1"),
        ({"ratios": (1, 1)}, "`ratios` must differ"),
        ({"precision": "ternary"}, "Unknown precision `ternary`"),
    ],
)
def test_bad_settings_are_refused(settings, message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve("vgg_small", settings).build(Sample(None), (32, 32, 3), 10)


@pytest.mark.parametrize("value", [float("inf"), 0, 1 / 100, "wide", True])
def test_values_that_are_no_ratio_are_refused(value: object) -> None:
    values = dict.fromkeys(Vgg11().layers, 1)
    with pytest.raises(InputError, match=f"Choice `conv3` expects a ratio .*, but got {value!r}"):
        larq_nas.Architecture("vgg11", {}, {**values, "conv3": value}).build((32, 32, 3), 10)


def test_any_ratio_can_be_built() -> None:
    values = dict.fromkeys(Vgg11().layers, 1)
    model = larq_nas.Architecture("vgg11", {}, {**values, "conv3": 1.3}).build((32, 32, 3), 10)
    assert model.get_layer("conv3_conv").filters == 83


def test_images_too_small_are_refused() -> None:
    with pytest.raises(InputError, match="at least 32x32 pixels for the 5 max-pools"):
        larq_nas.Architecture("vgg11", {"expansion": 1}).build((16, 16, 3), 10)


@pytest.mark.parametrize("space", ["bats", "vgg_small"])
def test_a_space_for_signals_is_named(space: str) -> None:
    signals = (100, 1, 3)
    with pytest.raises(InputError, match=r"got 100x1: .* `resnet18_cifar`, which takes any size"):
        resolve(space).check(signals)
    named = resolve("resnet18_cifar")
    named.check(signals)
    model = larq_nas.Architecture.random(named, signals, 3, 0).build(signals, 3)
    assert model.output_shape == (None, 3)
