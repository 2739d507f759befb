"""The memory that a search will take."""

import subprocess
import sys
from pathlib import Path

import pytest

from larq_nas.layers import SEARCH, building_in
from larq_nas.searchers import estimate as module
from larq_nas.searchers.estimate import estimate, warn_if_too_large
from larq_nas.spaces import Bats
from larq_nas.supernet.fuse import Fuse

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


def test_too_large_a_supernet_is_told_with_what_helps(tmp_path, monkeypatch) -> None:
    memory, container = tmp_path / "meminfo", tmp_path / "max"
    memory.write_text("MemTotal: 9999999 kB\nMemAvailable:    2097152 kB\n")
    monkeypatch.setattr(module, "_MEMORY", memory)
    monkeypatch.setattr(module, "_CONTAINER", container)
    with pytest.warns(UserWarning, match=r"3\.0 GiB.* 2\.0 GiB are free.*rematerialize=True"):
        warn_if_too_large(3 * GIGABYTE, can_rematerialize=True)
    with pytest.warns(UserWarning, match=r"use a smaller batch or fewer channels\."):
        warn_if_too_large(3 * GIGABYTE, can_rematerialize=False)
    warn_if_too_large(1.5 * GIGABYTE, can_rematerialize=True)
    container.write_text(f"{GIGABYTE}\n")
    with pytest.warns(UserWarning, match=r"only 1\.0 GiB"):
        warn_if_too_large(1.5 * GIGABYTE, can_rematerialize=True)
    container.write_text("max\n")
    warn_if_too_large(1.5 * GIGABYTE, can_rematerialize=True)


def test_where_nothing_says_what_is_free_nothing_is_said(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "_MEMORY", tmp_path / "none")
    warn_if_too_large(1e15, can_rematerialize=True)
