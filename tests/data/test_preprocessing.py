"""Preprocessing layers become the first layers of the network."""

import json
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from conftest import choose_pool, quick

import larq_nas
from larq_nas.data.data import read_data
from larq_nas.errors import InputError
from larq_nas.spaces import resolve

L = tf.keras.layers


def arrays(count: int = 48):
    random = np.random.default_rng(count)
    labels = np.arange(count) % 2
    images = random.integers(0, 120, (count, 10, 10, 1)) + 120 * labels[:, None, None, None]
    return images.astype("uint8"), labels


def adapted() -> tf.keras.layers.Layer:
    layer = L.Normalization(axis=-1)
    layer.adapt(arrays()[0])
    return layer


def space(choose, shape, classes) -> tf.keras.Model:
    images = tf.keras.Input(shape)
    x = L.Conv2D(4, 3, padding="same", use_bias=False)(choose_pool(choose, images))
    x = larq_nas.layers.binary_conv(x, 8, 3, name="binary")
    return tf.keras.Model(images, L.Dense(classes)(L.GlobalAveragePooling2D()(x)))


SETTINGS = {"space": space, "epochs": 1, "train_epochs": 4, "verbose": 0}


def layers() -> list[tf.keras.layers.Layer]:
    return [L.Resizing(8, 8), L.Rescaling(1 / 127.5, -1)]


@pytest.mark.parametrize("make", quick([layers, adapted, lambda: tf.keras.Sequential(layers())], 0))
def test_the_network_reads_raw_images(make, tmp_path) -> None:
    run = tmp_path / "run"
    model = larq_nas.search(arrays(), arrays(30), preprocessing=make(), directory=run, **SETTINGS)
    assert model.input_shape == (None, 10, 10, 1)
    assert not any(isinstance(layer, tf.keras.Model) for layer in model.layers)
    assert type(model.layers[1]).__name__ in ("Resizing", "Normalization")
    images, labels = arrays(30)
    logits = model.predict(images.astype("float32"), verbose=0)
    result = json.loads((run / "result.json").read_text())
    assert result["accuracy"] == pytest.approx((logits.argmax(1) == labels).mean())
    loaded = tf.keras.models.load_model(run / "model.keras", compile=False)
    np.testing.assert_array_equal(loaded.predict(images.astype("float32"), verbose=0), logits)
    assert np.load(run / "sample.npy").max() > 200
    assert (run / "model.tflite").exists()
    before = (run / "result.json").read_bytes()
    again = larq_nas.search(arrays(), arrays(30), preprocessing=make(), directory=run, **SETTINGS)
    np.testing.assert_array_equal(again.predict(images.astype("float32"), verbose=0), logits)
    assert (run / "result.json").read_bytes() == before
    with pytest.raises(InputError, match="preprocessing was"):
        larq_nas.search(arrays(), arrays(30), directory=run, **SETTINGS)


@pytest.mark.slow
def test_it_is_what_layers_before_the_data_would_give(tmp_path) -> None:
    """Trained bits and accuracy are those of data that was scaled before."""

    def scaled(pair):
        images = tf.cast(pair[0], tf.float32)
        return L.Rescaling(1 / 127.5, -1)(images).numpy(), pair[1]

    within = larq_nas.search(
        arrays(), arrays(30), preprocessing=L.Rescaling(1 / 127.5, -1), **SETTINGS
    )
    outside = larq_nas.search(scaled(arrays()), scaled(arrays(30)), **SETTINGS)
    for one, other in zip(within.get_weights(), outside.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (L.RandomFlip(), "is random: give `augment` what is for training alone"),
        ([L.Rescaling(2.0), L.Dropout(0.5)], "is random"),
        (L.Normalization(), "without mean and variance: call its .adapt"),
        (L.Conv2D(3, 3), "must have nothing to train"),
        (L.Flatten(), "must give images"),
        (L.Rescaling(np.inf), "finite images"),
        (L.Rescaling, "must be a layer, a list of layers"),
        ("rescale", "must be a layer, a list of layers"),
        (lambda images: images, "must be a layer, a list of layers"),
    ],
)
def test_what_is_no_preprocessing_is_refused(given, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_data(arrays(), arrays(30), None, None, 0, resolve("bats"), 0, preprocessing=given)


def test_preprocessing_may_make_images_of_one_shape() -> None:
    train = np.zeros((8, 12, 12, 1)) + np.arange(8).reshape(-1, 1, 1, 1), np.arange(8) % 2
    given = {"preprocessing": L.Resizing(8, 8)}
    data = read_data(train, arrays(30), None, None, 0, resolve("bats"), 0, **given)
    assert data.facts.input_shape == (8, 8, 1)
    assert data.facts.train_shape is None
    assert data.measured.element_spec[0].shape[1:] == (10, 10, 1)
    given = {"preprocessing": L.Rescaling(2.0)}
    with pytest.raises(InputError, match=r"one shape, but gives .12, 12, 1. for those of `train`"):
        read_data(train, arrays(30), None, None, 0, resolve("bats"), 0, **given)


@pytest.mark.parametrize(
    ("scale", "offset", "layer", "told"),
    [
        (1 / 120, -1, (1 / 127.5, -1), "from -1.008 to -0.9922 alone, of -1 to 0.9917 before"),
        (1 / 240, 0, (1 / 255, 0), "from 0 to 0.003905 alone, of 0 to 0.9958 before"),
        (1 / 30000, -1, None, "from -1 to -0.992 alone: they seem to be scaled twice"),
        (1, 0, (1 / 127.5, -1), ""),
        (1 / 1e6, 0, None, ""),
        (1 / 1e6, 0, (1.0, 0), ""),
        (0, 1, None, ""),
    ],
)
def test_what_is_scaled_twice_is_told(
    scale: float, offset: float, layer: tuple[float, float] | None, told: str, recwarn
) -> None:
    pairs = [((x * scale + offset).astype("float32"), y) for x, y in (arrays(), arrays(30))]
    given = None if layer is None else L.Rescaling(*layer)
    read_data(*pairs, None, None, 0, resolve(space), 0, preprocessing=given)
    warned = [str(one.message) for one in recwarn if "scaled twice" in str(one.message)]
    assert len(warned) == bool(told)
    assert told in "".join(warned)


@pytest.mark.parametrize(
    ("scale", "layer", "is_told"),
    [(1, None, True), (1, L.Rescaling(1 / 255), False), (0.01, None, False)],
)
def test_what_scales_bytes_is_told(
    scale: float, layer: Any, is_told: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = [((x * scale).astype("float32"), y) for x, y in (arrays(), arrays(30))]
    read_data(*pairs, None, None, 0, resolve(space), 2, preprocessing=layer)
    told = "`preprocessing=tf.keras.layers.Rescaling(1 / 127.5, -1)`, or x / 127.5 - 1 as data"
    assert (told in capsys.readouterr().out) == is_told
