"""Predictions against what the converter really writes."""

import pytest
import tensorflow as tf
from conftest import quick, random_architecture, randomize
from runtime import convert

from larq_nas.cost.profile import Structure
from larq_nas.graph.calls import read_graph
from larq_nas.layers import BinaryConv2D, Scale
from larq_nas.lce.count import understand
from larq_nas.spaces import (
    Bats,
    Bnas,
    Darts,
    ResNet18,
    ResNet18Cifar,
    Space,
    Vgg11,
    VggSmall,
)

SMALL = (0.125, 0.25, 0.5)
NETWORKS: list[tuple[Space, tuple[int, int, int], list[int]]] = [
    (Bats(cells=3, channels=8, nodes=2), (16, 16, 3), [0, 1, 2]),
    (Bats(cells=2, channels=32, nodes=3), (16, 16, 3), [0, 1]),
    (Bats(cells=3, channels=12, groups=3, activation="prelu"), (16, 16, 1), [0, 1, 2]),
    (Bats(cells=3, channels=8, nodes=2, stem="imagenet"), (64, 64, 3), [0, 1]),
    (Bnas(cells=3, channels=8), (16, 16, 3), [0, 1, 2]),
    (Bnas(cells=3, channels=8, nodes=2, stem="imagenet"), (64, 64, 3), [0]),
    (Darts(cells=3, channels=8), (16, 16, 3), [0, 1]),
    (Darts(cells=3, channels=4, nodes=2, precision="binary"), (16, 16, 3), [0, 1]),
    (VggSmall(ratios=SMALL), (32, 32, 3), [0, 1, 2]),
    (VggSmall(ratios=SMALL, precision="real"), (16, 16, 1), [0]),
    (Vgg11(), (32, 32, 3), [0, 1, 2]),
    (ResNet18Cifar(), (32, 32, 3), [0, 1]),
    (ResNet18Cifar(downsample="real"), (32, 32, 3), [0]),
    (ResNet18(ratios=SMALL), (64, 64, 3), [0, 1]),
    (ResNet18(ratios=SMALL, precision="real"), (32, 32, 3), [0]),
]
CASES = [(space, shape, seed) for space, shape, seeds in NETWORKS for seed in seeds]
QUICK = (20, len(CASES) - 1)


def check(model: tf.keras.Model) -> None:
    structure = Structure(understand(read_graph(model)))
    costs, real = structure.costs(), convert(randomize(model))
    assert [operator.kind for operator in structure.operators] == real.kinds
    assert costs["activation_bytes"] == real.peak
    assert abs(costs["flatbuffer_bytes"] - real.bytes) <= max(0.01 * real.bytes, 512)


def test_there_are_thirty() -> None:
    assert len(CASES) >= 30


@pytest.mark.parametrize(("space", "shape", "seed"), quick(CASES, *QUICK))
def test_operations_memory_and_bytes_are_those_of_the_flatbuffer(
    space: Space, shape: tuple[int, int, int], seed: int
) -> None:
    """The same operations in the same order, the same memory; bytes far within 3 %."""
    check(random_architecture(space, seed, shape).build(shape, 10))


LAYERS = tf.keras.layers


@pytest.mark.parametrize(
    "layers",
    [
        [BinaryConv2D(64, 3), LAYERS.BatchNormalization(), BinaryConv2D(64, 3)],
        [BinaryConv2D(64, 3), LAYERS.BatchNormalization(), LAYERS.MaxPool2D(2), BinaryConv2D(8, 3)],
        [BinaryConv2D(64, 3), LAYERS.MaxPool2D(2), LAYERS.BatchNormalization(), BinaryConv2D(8, 3)],
        [BinaryConv2D(64, 3, activation="relu"), Scale(), BinaryConv2D(64, 3)],
        [BinaryConv2D(64, 3), Scale(), LAYERS.PReLU(shared_axes=[1, 2]), BinaryConv2D(32, 3)],
        [LAYERS.Conv2D(64, 3), LAYERS.BatchNormalization(), LAYERS.ReLU(), LAYERS.Flatten()],
        [LAYERS.SeparableConv2D(32, 3), LAYERS.DepthwiseConv2D(3), LAYERS.GlobalMaxPool2D()],
    ],
)
def test_layers_fuse_as_the_converter_fuses_them(layers: list[tf.keras.layers.Layer]) -> None:
    check(tf.keras.Sequential([tf.keras.Input((16, 16, 32)), *layers]))


def test_what_is_read_twice_is_quantized_once() -> None:
    x = tf.keras.Input((16, 16, 32))
    normal = LAYERS.BatchNormalization()(x)
    sums = LAYERS.Add()([BinaryConv2D(16, 3)(normal), BinaryConv2D(16, 1)(normal)])
    check(tf.keras.Model(x, sums))
