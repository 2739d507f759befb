"""The memory that a search will take."""

import dataclasses
import re
import subprocess
import sys
import warnings
from pathlib import Path

import larq_nas  # isort: skip  (it prepares TensorFlow)
import numpy as np
import pytest

from larq_nas import memory as memory_module
from larq_nas.data.data import read_data
from larq_nas.errors import InputError
from larq_nas.layers import SEARCH, building_in
from larq_nas.searchers import Differentiable, Evolution
from larq_nas.searchers import estimate as module
from larq_nas.searchers.estimate import estimate, require_memory
from larq_nas.spaces import Bats, resolve
from larq_nas.supernet.fuse import Fuse
from larq_nas.training import Recipe

GIGABYTE = 2**30
STEP = """
import pathlib
import re
import tensorflow as tf
from larq_nas.supernet import Fuse
from larq_nas.layers import building_in
from larq_nas.searchers.differentiable.model import BilevelModel
from larq_nas.searchers.estimate import estimate
from larq_nas.spaces import Bnas
from larq_nas.training.loop import exact

space, choose = Bnas(cells=2, channels=16), Fuse()
with building_in(space.search_domain):
    supernet = space.build(choose, (32, 32, 3), 10)
model = BilevelModel(supernet, choose.mixtures, 0.0, 0.0)
model.compile(tf.keras.optimizers.SGD(0.1, momentum=0.9), tf.keras.optimizers.Adam(0.1))
model.searching.assign(True)
batch = tf.random.normal((16, 32, 32, 3)), tf.zeros(16, tf.int32)
with exact():
    tf.function(lambda: model.train_step((batch, batch)))()
status = pathlib.Path("/proc/self/status").read_text()
print(estimate(model, 16), 1024 * int(re.search(r"VmHWM:\\s*(\\d+)", status)[1]))
"""


def needed(batch_size: int, rematerialize: bool = False) -> float:
    with building_in(SEARCH):
        space = Bats(cells=4, channels=8, nodes=3)
        model = space.build(Fuse(rematerialize=rematerialize), (32, 32, 3), 10)
    return estimate(model, batch_size)


@pytest.mark.slow
def test_memory_grows_with_the_batch_and_less_where_cells_are_computed_again() -> None:
    small, large, again = needed(16), needed(64), needed(64, rematerialize=True)
    assert small < again < large
    assert large - small > 5 * (again - small) / 3


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says what was used")
def test_memory_is_what_a_step_takes() -> None:
    run = subprocess.run([sys.executable, "-c", STEP], capture_output=True, text=True, check=True)
    estimated, measured = map(float, run.stdout.split())
    assert estimated == pytest.approx(measured, rel=0.2)


def lighter(free: float) -> list[str]:
    return [f"do with {free / GIGABYTE:.1f}"]


def test_what_may_not_fit_is_told_and_what_does_not_is_refused(tmp_path, monkeypatch) -> None:
    memory, container = tmp_path / "meminfo", tmp_path / "max"
    memory.write_text("MemTotal: 9999999 kB\nMemAvailable:    2097152 kB\n")
    monkeypatch.setattr(memory_module, "_SYSTEM", memory)
    monkeypatch.setattr(memory_module, "_CONTAINER", container)
    require_memory(1.9 * GIGABYTE, lighter)
    with pytest.warns(UserWarning, match=r"2\.9 GiB.* 2\.0 GiB are free: do with 2\.0\."):
        require_memory(2.9 * GIGABYTE, lighter)
    with pytest.raises(InputError, match=r"A network needs about 3\.1 GiB.*: do with 2\.0\."):
        require_memory(3.1 * GIGABYTE, lighter, "A network")
    container.write_text(f"{GIGABYTE}\n")
    with pytest.raises(InputError, match=r"only 1\.0 GiB.*use fewer cells or channels"):
        require_memory(1.9 * GIGABYTE, lambda free: [])
    container.write_text("max\n")
    require_memory(1.9 * GIGABYTE, lighter)


def test_where_nothing_says_what_is_free_nothing_is_said(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(memory_module, "_SYSTEM", tmp_path / "none")
    require_memory(1e15, lighter)


@pytest.mark.slow
def test_what_a_refusal_names_fits(monkeypatch) -> None:
    """Each change that is named is enough, and the next larger batch is not."""
    space = Bats(cells=3, channels=16, nodes=2)

    def prepare(space: Bats, batch_size: int, **settings: bool) -> None:
        train, validation = larq_nas.datasets.load("digits", batch_size=batch_size)
        data = read_data(train.take(1), validation.take(1), 10, None, 0, space, 0)
        Differentiable(**settings).prepare(space, data, None, 1, Recipe())

    monkeypatch.setattr(module, "free_memory", lambda: 1.2 * GIGABYTE)
    with pytest.raises(InputError, match="The supernet needs about") as refused:
        prepare(space, 1000)
    told = str(refused.value)
    largest = int(re.search(r"batches of up to (\d+) images", told)[1])
    channels = int(re.search(r"`search_channels=(\d+)`", told)[1])
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".* GiB are free")
        prepare(space, largest)
        prepare(Bats(cells=3, channels=16, nodes=2, search_channels=channels), 1000)
    with pytest.warns(UserWarning, match="GiB are free"):
        prepare(space, largest + 2)


@pytest.mark.slow
def test_large_images_are_told_to_be_made_smaller(monkeypatch) -> None:
    """As `image_dataset_from_directory` gives them: the size that is named fits, the next does not.

    A batch of three, which would fit too, is not named.
    """
    space = Bats(cells=3, channels=4, nodes=1)

    def prepare(size: int) -> None:
        images, labels = np.zeros((8, size, size, 1), np.float32), np.arange(8) % 2
        data = read_data((images, labels), (images, labels), 2, None, 0, space, 0)
        data = dataclasses.replace(data, facts=dataclasses.replace(data.facts, batch_size=32))
        Differentiable().prepare(space, data, None, 1, Recipe())

    monkeypatch.setattr(module, "free_memory", lambda: 1.0 * GIGABYTE)
    with pytest.raises(InputError, match="The supernet needs about") as refused:
        prepare(256)
    assert "batches" not in str(refused.value)
    size = int(re.search(r"use images of up to (\d+)x\1 pixels", str(refused.value))[1])
    assert 32 <= size < 256
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".* GiB are free")
        warnings.filterwarnings("ignore", message="Images reach")
        prepare(size)
    with pytest.warns(UserWarning, match="GiB are free"):
        prepare(size + 16)


def test_a_refusal_names_channels_that_the_groups_divide(monkeypatch) -> None:
    train, validation = larq_nas.datasets.load("digits", batch_size=1000)
    space = Bats(cells=3, channels=36, groups=12, nodes=1)
    data = read_data(train.take(1), validation.take(1), 10, None, 0, space, 0)
    monkeypatch.setattr(module, "free_memory", lambda: 2.2 * GIGABYTE)
    with pytest.raises(InputError, match=r"The supernet needs about .* `search_channels=12`"):
        Differentiable().prepare(space, data, None, 1, Recipe())


def test_a_training_that_does_not_fit_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(module, "free_memory", lambda: 0.3 * GIGABYTE)
    train, validation = larq_nas.datasets.load("digits", batch_size=20)
    architecture = larq_nas.Architecture("vgg_small", {"expansion": 0.0625})
    with pytest.raises(InputError, match=r"The network needs about .* build it narrower"):
        larq_nas.train(
            architecture, train.take(2), validation.take(1), epochs=1, directory=tmp_path / "run"
        )
    assert not (tmp_path / "run").exists()
    space, searcher = resolve("vgg_small"), Evolution(subset=20)
    with pytest.raises(InputError, match=r"The widest network needs .* smaller `ratios`"):
        larq_nas.search(train.take(2), validation.take(1), space, searcher, verbose=0)


def test_a_search_warns_of_networks_that_do_not_fit(monkeypatch) -> None:
    monkeypatch.setattr(module, "free_memory", lambda: 0.3 * GIGABYTE)
    train, validation = larq_nas.datasets.load("digits", batch_size=20)
    space = Bats(cells=3, channels=16, nodes=1)
    told = r"A network of the space needs .* GiB are free: give the space fewer cells or channels"
    with pytest.warns(UserWarning, match=told), pytest.raises(InputError, match="The supernet nee"):
        larq_nas.search(train.take(2), validation.take(1), space, epochs=1, verbose=0)
