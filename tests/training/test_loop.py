"""The loop that trains, and what it does to TensorFlow."""

import tensorflow as tf

from larq_nas.pipeline.check import check_data
from larq_nas.pipeline.streams import training_stream
from larq_nas.run import Run
from larq_nas.seeding import seed_everything
from larq_nas.training.exact import exact
from larq_nas.training.loop import fit


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
    with Run(tmp_path, {}) as run:
        fit(model, "a", stream, 1, run, optimizers=[], callbacks=[watch], verbose=0)
    assert seen == [False]
    assert rewrites()


def test_what_was_set_before_is_kept() -> None:
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    try:
        with exact():
            assert not rewrites()
        assert not rewrites()
    finally:
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})
