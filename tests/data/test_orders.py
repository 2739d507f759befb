"""Data in another order on each pass, killed and resumed in a new process."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import run_files

import larq_nas
from larq_nas.errors import InputError
from larq_nas.spaces import Bats

PROGRAM = """
import sys
import larq_nas
import tensorflow as tf

folder, directory = sys.argv[1:]
given = {"image_size": (8, 8), "color_mode": "grayscale", "batch_size": 4}
given |= {"seed": 1, "validation_split": 0.25}
train, validation = (
    tf.keras.utils.image_dataset_from_directory(folder, subset=subset, **given)
    for subset in ("training", "validation")
)
space = larq_nas.spaces.Bats(cells=1, channels=4, nodes=1)
larq_nas.search(train, validation, space, epochs=2, train_epochs=4, directory=directory)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    found = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for number in range(48):
        path = found / ("dark", "light")[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        values = generator.integers(0, 128, (8, 8, 1)) + 127 * (number % 2)
        path.write_bytes(tf.io.encode_png(values.astype("uint8")).numpy())
    return found


def start(folder: Path, directory: Path, log: Path) -> subprocess.Popen:
    with open(log, "w") as file:
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder), str(directory)],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(Path(larq_nas.__file__).parents[1])},
            start_new_session=True,
        )


@pytest.mark.slow
def test_keras_folders_killed_and_resumed_give_the_same_bytes(folder: Path, tmp_path) -> None:
    log = tmp_path / "log"
    assert start(folder, tmp_path / "whole", log).wait(timeout=300) == 0
    told = log.read_text()
    assert "`train` comes in another order on each pass" in told
    assert "2 classes (dark, light)" in told
    assert "shuffle()" not in told
    process = start(folder, tmp_path / "killed", log)
    deadline = time.monotonic() + 300
    while not list((tmp_path / "killed").glob("checkpoints/train_binary/ckpt-1.index")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert start(folder, tmp_path / "killed", log).wait(timeout=300) == 0
    assert run_files(tmp_path / "killed") == run_files(tmp_path / "whole")


@pytest.mark.slow
def test_a_shuffle_without_a_seed_is_named_when_a_run_is_resumed(tmp_path) -> None:
    """Within a process such data keeps its order, and in another one it has another."""
    images = np.random.default_rng(0).random((24, 8, 8, 1)).astype("float32")
    data = tf.data.Dataset.from_tensor_slices((images, np.arange(24) % 2))
    settings = {"space": Bats(cells=1, channels=4, nodes=1), "epochs": 1, "train_epochs": 0}
    settings |= {"directory": tmp_path / "run", "verbose": 0}

    def shuffled(seed: int) -> tf.data.Dataset:
        return data.shuffle(24, seed=seed, reshuffle_each_iteration=False).batch(6)

    validation = (images[:8] / 2, np.arange(8) % 2)
    larq_nas.search(shuffled(1), validation, **settings)
    with pytest.raises(InputError, match="the same examples in another order, so shuffle it by"):
        larq_nas.search(shuffled(2), validation, **settings)
