"""What is told of an error that Keras or TensorFlow raises."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import larq_nas  # isort: skip  (it prepares TensorFlow)
import pytest
import tensorflow as tf

from larq_nas.errors import collecting_warnings, first_line, warn
from larq_nas.run_directory import RunDirectory
from larq_nas.training.callbacks import TimeLimit

assert larq_nas


def in_a_layer() -> None:
    tf.keras.layers.Reshape((4, 4, 5), name="folded")(tf.keras.Input((8, 8, 4)))


def in_a_graph() -> None:
    @tf.function
    def refuse(x: tf.Tensor) -> tf.Tensor:
        if x.shape[0] == 4:
            raise ValueError("four is too many.")
        return x

    refuse(tf.zeros(4))


def in_a_layer_of_a_graph() -> None:
    layer = tf.keras.layers.Reshape((4, 4, 5), name="folded")
    tf.function(lambda x: layer(x))(tf.zeros((2, 8, 8, 4)))


def in_a_step() -> None:
    images = tf.keras.Input((4,))
    model = tf.keras.Model(images, tf.keras.layers.Dense(2)(images))
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(tf.zeros((2, 4)), tf.constant([0, 7]), verbose=0)


def in_a_pipeline() -> None:
    numbers = tf.data.Dataset.range(1)
    list(numbers.map(lambda x: tf.numpy_function(lambda y: 1 // int(y), [x], tf.int64)))


@pytest.mark.parametrize(
    ("fails", "told"),
    [
        (in_a_layer, 'layer "folded" (type Reshape): total size of new array must be unchanged'),
        (in_a_graph, "four is too many"),
        (in_a_layer_of_a_graph, "layer 'folded' (type Reshape): Cannot reshape a tensor with 512"),
        (in_a_step, "Received a label value of 7"),
        (in_a_pipeline, "ZeroDivisionError: "),
    ],
)
def test_an_error_is_told_by_its_cause(fails: Callable[[], Any], told: str) -> None:
    with pytest.raises(Exception) as raised:  # noqa: PT011 - of several kinds
        fails()
    assert first_line(raised.value).startswith(told)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_run_keeps_what_runs_within_it_warn_of(tmp_path: Path) -> None:
    with collecting_warnings(), RunDirectory(tmp_path / "whole", {}) as whole:
        warn("first")
        for _ in range(2):  # as a part is entered again when it is resumed
            with RunDirectory(tmp_path / "whole" / "part", {}) as part:
                warn("second")
        warn("third")
    assert part.read_warnings() == ["second"]
    assert whole.read_warnings() == ["first", "second", "third"]


def test_a_warning_of_a_callback_names_the_line_that_called(tmp_path: Path) -> None:
    limit = TimeLimit(1e-9, ["search"], tmp_path / "limit.json")
    model = tf.keras.Sequential([tf.keras.layers.Dense(1, input_shape=(4,))])
    model.compile("sgd", "mse")
    images = tf.zeros((2, 4))
    with pytest.warns(UserWarning, match="time limit is over") as told:
        model.fit(images, tf.zeros((2, 1)), epochs=3, callbacks=[limit], verbose=0)
    assert {Path(one.filename).name for one in told} == {Path(__file__).name}
