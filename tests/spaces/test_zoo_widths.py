"""larq-zoo's networks as spaces of widths."""

import larq_nas  # isort: skip  (it prepares TensorFlow)
import numpy as np
import pytest
import tensorflow as tf
from conftest import quick, random_architecture

from larq_nas.spaces import ModelWidths

layers = tf.keras.layers


def zoo_network(name: str, size: int) -> tf.keras.Model:
    zoo = pytest.importorskip("larq_zoo")
    build = getattr(zoo.sota, name, None) or getattr(zoo.literature, name)
    return build(weights=None, input_shape=(size, size, 3), num_classes=10)


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("BiRealNet", 4),
        ("BinaryAlexNet", 7),
        ("BinaryDenseNet28", 23),
        ("BinaryResNetE18", 4),
        ("QuickNet", 4),
        ("RealToBinaryNet", 4),
    ],
)
def test_zoo_networks_are_spaces(name: str, groups: int) -> None:
    space = ModelWidths(zoo_network(name, 64), (0.125, 0.25))
    assert len(space.survey((64, 64, 3), 10).questions()) == groups


@pytest.mark.parametrize("name", quick(["BiRealNet", "QuickNetSmall"]))
def test_a_zoo_network_of_other_widths_converts_in_binary(name: str) -> None:
    space = ModelWidths(zoo_network(name, 96), (0.125, 0.25))
    model = random_architecture(space, 0, (96, 96, 3)).build((96, 96, 3), 10, space)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.0
    images = np.random.default_rng(0).uniform(-1, 1, (32, 96, 96, 3)).astype("float32")
    model(images, training=True)
    audit = larq_nas.convert(model, images).audit
    assert audit.fallbacks == []
    assert audit.operations["LceBconv2d"] == 16
