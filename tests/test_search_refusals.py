"""Searches that are refused or stopped, and what is kept of them."""

import pytest
import tensorflow as tf
from conftest import quick

import larq_nas
from larq_nas.errors import DivergenceError, InputError
from larq_nas.spaces import Bats

SETTINGS = {"space": Bats(cells=1, channels=4, nodes=1), "epochs": 2, "train_epochs": 2}


def _full() -> tuple[tf.data.Dataset, tf.data.Dataset]:
    train, validation = larq_nas.datasets.load("digits", batch_size=32)
    return train.take(6), validation.take(2)


def test_a_space_that_does_not_convert_is_told_and_keeps_the_model(tmp_path) -> None:
    import larq as lq

    def depthwise(size: int):
        def operation(x: tf.Tensor, name: str) -> tf.Tensor:
            quantizers = {"depthwise_quantizer": "ste_sign", "input_quantizer": "ste_sign"}
            layer = lq.layers.QuantDepthwiseConv2D(size, padding="same", name=name, **quantizers)
            return tf.keras.layers.Flatten(name=f"{name}_flat")(layer(x))

        return operation

    def space(choose, input_shape, classes) -> tf.keras.Model:
        images = tf.keras.Input(input_shape)
        x = choose.op("a", images, {"depthwise_1": depthwise(1), "depthwise_3": depthwise(3)})
        return tf.keras.Model(images, tf.keras.layers.Dense(classes)(x))

    with pytest.warns(
        UserWarning, match=r"No `model.tflite` was written: Binary layer `a_in0_depthwise_\d`"
    ):
        model = larq_nas.search(
            *_full(), space, epochs=1, train_epochs=1, directory=tmp_path / "r", verbose=0
        )
    assert isinstance(model, tf.keras.Model)
    assert (tmp_path / "r" / "model.keras").exists()
    assert not (tmp_path / "r" / "model.tflite").exists()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("value", quick([3e38, -3e38], 0))
def test_divergence_stops_with_the_step_and_keeps_the_checkpoint(tmp_path, value: float) -> None:
    def explode(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        late = tf.logical_and(seed[0] > 2_000_000, seed[1] == 1)
        return images * tf.where(late, value, 1.0)

    with pytest.raises(
        DivergenceError, match=r"stage `search`, epoch 2, step 2: `loss` is (nan|inf)"
    ) as caught:
        larq_nas.search(*_full(), directory=tmp_path / "r", augment=explode, verbose=0, **SETTINGS)
    kept = tf.train.latest_checkpoint(tmp_path / "r" / "checkpoints" / "search")
    assert kept is not None
    assert kept.endswith("ckpt-1")
    assert "The checkpoint of epoch 1 is kept" in str(caught.value)
    assert str(tmp_path / "r" / "checkpoints" / "search") in str(caught.value)
    assert "\n" not in str(caught.value)


def softmax(choose, input_shape, classes) -> tf.keras.Model:
    images = tf.keras.Input(input_shape)
    x = choose.op("a", tf.keras.layers.Flatten()(images), {"skip": lambda x, name: x})
    return tf.keras.Model(
        images, tf.keras.layers.Dense(classes, activation="softmax", name="probabilities")(x)
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, "`epochs` must be positive, but got 0"),
        ({"epochs": -1}, "`epochs` must be positive, but got -1"),
        ({"train_epochs": -1}, "`train_epochs` must be 0 or more, but got -1"),
        ({"seed": -1}, "`seed` must be a whole number from 0"),
        ({"seed": 2**32 - 1}, "`seed` must be a whole number from 0 to 2147483647"),
        (
            {"space": Bats(cells=5, search_cells=2)},
            "asks for `normal/2`, but its supernet does not",
        ),
        ({"space": "bat"}, "Unknown space `bat`; did you mean `bats`"),
        ({"space": 3}, "must be a name, a Space or a function"),
        ({"searcher": "differentiabel"}, "did you mean `differentiable`"),
        ({"augment": "standrad"}, "did you mean `standard`"),
        (
            {"augment": "flip"},
            r"Unknown augmentation `flip`.* Keras layer, such as tf.keras.layers",
        ),
        ({"augment": lambda images: images}, "must take images and a seed"),
        (
            {"augment": lambda images, seed: images[:, :4]},
            "`augment` must give as many images of the shape",
        ),
        ({"space": lambda choose, shape, classes: {}["x"]}, "cannot be built"),
        ({"space": softmax}, "must end in logits, but `probabilities` applies softmax"),
        ({"classes": 5}, "Labels of `train` must be 0 to 4"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(
    digits, tmp_path, arguments: dict, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        larq_nas.search(*digits, directory=tmp_path / "r", verbose=0, **arguments)
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
def test_images_too_small_are_refused_before_anything_is_written(digits, tmp_path) -> None:
    train, validation = (data.map(lambda x, y: (x[:, :3], y)) for data in digits)
    with pytest.raises(InputError, match="at least 4x4 pixels"):
        larq_nas.search(train, validation, directory=tmp_path / "r", verbose=0)
    assert not (tmp_path / "r").exists()
