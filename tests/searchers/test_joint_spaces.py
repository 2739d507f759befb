"""Spaces of more than one kind of question, before the searchers that answer one kind."""

import json
from pathlib import Path
from typing import Any

import larq_nas  # isort: skip  (it prepares TensorFlow)
import pytest
import tensorflow as tf
from test_examples import example

from larq_nas.errors import InputError
from larq_nas.layers import binary_conv, classifier, stem
from larq_nas.run_directory import RunDirectory, read_settings
from larq_nas.searchers.differentiable.record import sections
from larq_nas.spaces import Chooser

joint_space = example("joint_space").joint_space


@pytest.mark.parametrize(
    ("searcher", "message"),
    [
        ("differentiable", r"chooses widths \(width0, .*only chooses operations"),
        ("progressive", "changes the number of cells"),
        ("dms", r"chooses operations \(section0, .*only chooses widths"),
    ],
)
def test_a_searcher_of_one_kind_names_one_of_all(
    searcher: str, message: str, digits: Any, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=f"{message}.*: give `searcher` .*evolution") as error:
        larq_nas.search(
            *digits, space=joint_space, searcher=searcher, directory=tmp_path / "run", verbose=0
        )
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def rows(choose: Chooser, input_shape: tuple[int, int, int], classes: int) -> tf.keras.Model:
    """Operations and a depth, which a supernet weights alike."""

    def block(x: tf.Tensor, name: str) -> tf.Tensor:
        operations = {
            f"conv{size}": lambda x, name, size=size: binary_conv(x, 8, size, name=name)
            for size in (1, 3)
        }
        return choose.op(f"{name}_kernel", x, operations)

    images = tf.keras.Input(input_shape, name="image")
    x = choose.depth("row", stem(images, 8), [block] * 3)
    return tf.keras.Model(images, classifier(x, classes))


@pytest.mark.slow
def test_a_depth_is_searched_by_its_gradient(digits: Any, tmp_path: Path) -> None:
    found = larq_nas.search(
        *digits,
        space=rows,
        searcher={"architecture_learning_rate": 0.1, "weights_only": 0},
        epochs=2,
        train_epochs=2,
        budget={"binary_macs": "80K"},
        directory=tmp_path / "run",
        verbose=0,
    )
    architecture = larq_nas.Architecture.load(tmp_path / "run" / "architecture.json")
    assert architecture.choices["row"] in (1, 2, 3)
    convolutions = [one for one in found.layers if one.name.endswith("_conv")]
    assert len(convolutions) == 1 + architecture.choices["row"]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["costs"]["binary_macs"] <= 80_000
    settings = read_settings(tmp_path / "run")
    (table,) = [s.rows for s in sections(RunDirectory(tmp_path / "run", settings)) if s.rows]
    kept = {row["edge"]: row["kept"] for row in table}
    assert kept["row, input 0"] == str(architecture.choices["row"])
