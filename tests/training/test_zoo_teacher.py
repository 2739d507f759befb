"""A network of larq-zoo teaches as it is."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import random_architecture

import larq_nas
from larq_nas.spaces import Bats
from larq_nas.training.loop import read_history

zoo = pytest.importorskip("larq_zoo")

ARCHITECTURE = random_architecture(Bats(cells=1, channels=4, nodes=1), 0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`teacher` is right on")
def test_a_network_of_the_zoo_teaches(tmp_path, capsys) -> None:
    generator = np.random.default_rng(0)
    images = generator.uniform(-1, 1, (24, 32, 32, 3)).astype("float32")
    data = tf.data.Dataset.from_tensor_slices((images, np.arange(24) % 10)).batch(8)
    teacher = zoo.sota.QuickNetSmall(input_shape=(32, 32, 3), num_classes=10, weights=None)
    before = teacher.get_weights()
    model = larq_nas.train(
        ARCHITECTURE, data, data, epochs=1, teacher=teacher, directory=tmp_path / "r", verbose=2
    )
    assert "Teacher `quicknet_small`: " in capsys.readouterr().out
    assert (tmp_path / "r" / "model.tflite").exists()
    assert [row["stage"] for row in read_history(tmp_path / "r" / "history.csv")] == [
        "train_binary"
    ]
    assert model.output_shape == (None, 10)
    for weight, value in zip(teacher.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)
    names = {layer.name for layer in model.layers}
    assert not names & {layer.name for layer in teacher.layers if layer.weights}
