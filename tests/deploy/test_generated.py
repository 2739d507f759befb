"""A dozen of the networks of benchmarks/gate.py each: sound ones, and planted faults."""

import gate
import gate_faults
import gate_networks
import numpy as np
import pytest
import tensorflow as tf
from conftest import quick

# All families, and the faults that a gate hands out first if it looks only at counts.
SOUND = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 17]
PLANTED = [1, 2, 4, 6, 10, 12, 13, 14, 15, 16, 17, 23]


@pytest.mark.parametrize("number", quick(SOUND, 6))
def test_sound_networks_are_handed_out_right(number: int) -> None:
    row = gate.examine(gate_networks.sound(number))
    assert row["outcome"] in ("right", "undecided"), row
    assert row["bytes_agree"], row
    assert row["binary_agree"], row


@pytest.mark.parametrize("number", quick(PLANTED, 7))
def test_planted_faults_do_not_pass(number: int) -> None:
    row = gate.examine(gate_faults.planted(number))
    assert row["as_expected"], row


def test_the_judge_tells_a_wrong_flatbuffer_from_a_deep_network() -> None:
    """One wrong filter of 12 blocks is wrong; what rounding does to them is not."""
    network = gate_networks.sound(0)
    flatbuffer = gate.larq_nas.convert(network.model).flatbuffer
    row = gate.judge(network, flatbuffer, ["reference"], [])
    assert row["outcome"] == "right"
    assert 0 < row["decided"] < len(network.images[0]) - gate_networks.IMAGES
    layer = next(one for one in network.model._flatten_layers() if gate.has_binary_kernel(one))
    kernel = layer.get_weights()[0]
    layer.set_weights([np.concatenate([-kernel[..., :1], kernel[..., 1:]], axis=-1)])
    assert gate.judge(network, flatbuffer, ["reference"], [])["outcome"] == "wrong"


def test_networks_are_the_same_whenever_they_are_built() -> None:
    first, second = (gate_faults.planted(9) for _ in range(2))
    for one, other in zip(first.model.weights, second.model.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    for one, other in zip(first.images, second.images, strict=True):
        np.testing.assert_array_equal(one, other)
    tf.keras.backend.clear_session()


def test_a_run_that_was_killed_goes_on(tmp_path) -> None:
    path = tmp_path / "rows.jsonl"
    gate.add_row(path, {"name": "sound 0", "starts": 1})
    gate.add_row(path, {"name": "sound 0", "outcome": "right"})
    gate.add_row(path, {"name": "sound 1", "starts": 1})
    with path.open("a") as file:
        file.write('{"name": "sound 2", "outc')
    rows = gate.read_rows(path)
    assert rows["sound 0"] == {"name": "sound 0", "starts": 1, "outcome": "right"}
    assert rows["sound 1"] == {"name": "sound 1", "starts": 1}
    assert "sound 2" not in rows
