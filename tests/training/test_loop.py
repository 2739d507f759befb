"""The loop that trains, and what it does to TensorFlow."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from larq_nas.data.streams import training_stream
from larq_nas.data.validation import check_data
from larq_nas.process_state import seed_everything
from larq_nas.run_directory import RunDirectory
from larq_nas.training.loop import exact, fit


def rewrites() -> bool:
    options = tf.config.optimizer.get_experimental_options()
    return not options.get("disable_meta_optimizer", False)


def test_graphs_are_not_rewritten_while_it_trains_and_are_afterwards(digits, tmp_path) -> None:
    seen = []
    seed_everything(0)
    model = tf.keras.Sequential([tf.keras.layers.Flatten(), tf.keras.layers.Dense(10)])
    model.compile("sgd", tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    stream = training_stream(digits[0], check_data(*digits, 10), 0, None)
    watch = tf.keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: seen.append(rewrites()))
    with RunDirectory(tmp_path, {}) as run:
        fit(model, "a", stream, 1, run, seed=0, optimizers=[], callbacks=[watch], verbose=0)
    assert seen == [False]
    assert rewrites()


def dropping(digits, directory: Path, stop_in: int | None) -> np.ndarray:
    """Train a network with dropout for three epochs, or until it is stopped in one."""
    seed_everything(0)
    layers = tf.keras.layers
    image = tf.keras.Input((8, 8, 1))
    x = layers.Dropout(0.5)(layers.Flatten()(image))
    model = tf.keras.Model(image, layers.Dense(10)(x))
    model.compile("sgd", tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.optimizer.build(model.trainable_variables)
    stream = training_stream(digits[0], check_data(*digits, 10), 0, None)

    def stop(epoch: int, logs: Any = None) -> None:
        if epoch == stop_in:
            raise KeyboardInterrupt

    watch = tf.keras.callbacks.LambdaCallback(on_epoch_begin=stop)
    settings = {"seed": 0, "optimizers": [model.optimizer], "callbacks": [watch], "verbose": 0}
    with RunDirectory(directory, {}) as run:
        fit(model, "a", stream, 3, run, **settings)
    weights: np.ndarray = model.layers[-1].kernel.numpy()
    return weights


def test_what_layers_draw_is_the_same_when_it_is_resumed(digits, tmp_path: Path) -> None:
    whole = dropping(digits, tmp_path / "whole", None)
    with pytest.raises(KeyboardInterrupt):
        dropping(digits, tmp_path / "run", 2)
    np.testing.assert_array_equal(dropping(digits, tmp_path / "run", None), whole)


def test_what_was_set_before_is_kept() -> None:
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    try:
        with exact():
            assert not rewrites()
        assert not rewrites()
    finally:
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})


def test_sums_are_added_in_one_order() -> None:
    """`AddN` begins with the input whose memory is free first, which is another one each time."""
    x = tf.Variable([1.0, 2.0])

    def gradient() -> Any:
        with tf.GradientTape() as tape:
            y = 2.0 * x
            value = tf.add_n([tf.sin(y), tf.cos(y), tf.exp(y)])
        return tape.gradient(value, x)

    def most(graph: tf.Graph) -> int:
        sums = [op for op in graph.get_operations() if op.type == "AddN"]
        return max((len(op.inputs) for op in sums), default=0)

    with exact():
        traced = tf.function(gradient).get_concrete_function()
    assert most(traced.graph) < 3
    assert most(tf.function(gradient).get_concrete_function().graph) == 3
    y = 2 * np.array([1.0, 2.0])
    np.testing.assert_allclose(traced(), 2 * (np.cos(y) - np.sin(y) + np.exp(y)), rtol=1e-6)
