"""What is said of the outputs of a flatbuffer beside those of its Keras model."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from conftest import randomize

import larq_nas
from larq_nas.deploy.conversion import summarize
from larq_nas.deploy.parity import figures, kernel_lines
from larq_nas.layers import BinaryConv2D

layers = tf.keras.layers


def maps() -> tuple[np.ndarray, np.ndarray]:
    """Return masks of 10 images, and the same with one pixel off in each of five."""
    masks = np.random.default_rng(0).uniform(size=(10, 8, 8, 1)).astype("float32")
    other = masks.copy()
    other[:5, 3, 4] += 0.5
    return masks, other


@pytest.mark.parametrize(("step", "measure"), [(0.0, "equal to 1e-4"), (0.004, "within one int8")])
def test_a_mask_is_judged_by_its_pixels(step: float, measure: str) -> None:
    parity = figures("default", [maps()[0]], [maps()[1]], ["probabilities"], step)
    assert parity.exact == 0.5
    assert parity.pixels == pytest.approx(1 - 5 / 640)
    assert f"99.2% of the pixels {measure}" in str(parity)
    assert "(50.0% of whole images)" in str(parity)
    # Two steps are two too many, whatever the map.
    assert figures("", [maps()[0]], [maps()[0] + 2.1 * step + 1e-3], ["numbers"], step).pixels == 0


def test_classes_of_a_map_are_counted_by_pixels_and_those_of_images_by_images() -> None:
    generator = np.random.default_rng(0)
    scores, classes = generator.normal(size=(10, 8, 8, 3)), generator.normal(size=(10, 4))
    other = scores.copy()
    other[0, 0, :4] = -other[0, 0, :4]
    of_map = figures("default", [scores], [other], ["classes"])
    assert "same class on 636 of 640 pixels" in str(of_map)
    both = figures("default", [classes, scores], [classes, scores], ["classes", "classes"])
    assert "same class on 10 of 10 images" in str(both)
    steps = scores.reshape(10, 64, 3)
    assert "same class on 640 of 640 positions" in str(figures("", [steps], [steps], ["classes"]))
    of_rows = figures("default", [classes], [classes[::-1]], ["scores"])
    assert of_rows.pixels is None
    assert "of 10 images, 0.0% equal to 1e-4" in str(of_rows)


def test_an_int8_mask_is_reported_by_its_pixels() -> None:
    inputs = tf.keras.Input((8, 8, 3))
    x = BinaryConv2D(32, 3)(layers.Conv2D(32, 3, padding="same")(inputs))
    x = layers.Conv2D(1, 1, activation="sigmoid")(layers.BatchNormalization()(x))
    model = randomize(tf.keras.Model(inputs, x))
    images = np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype("float32")
    conversion = larq_nas.convert(model, images, int8="ends")
    for parity in conversion.parity:
        assert parity.pixels is not None
        assert parity.pixels >= parity.exact
        assert f"{parity.pixels:.1%} of the pixels within one int8 step of" in str(parity)
    assert conversion.int8 is not None
    assert conversion.int8.pixel_mean is not None
    assert conversion.int8.pixel_mean < conversion.int8.mean
    assert f"of a pixel on average {conversion.int8.pixel_mean:.2f} stand" in str(conversion)


def test_int8_classes_of_a_map_are_counted_by_pixels() -> None:
    inputs = tf.keras.Input((8, 8, 3))
    x = BinaryConv2D(32, 3)(layers.Conv2D(32, 3, padding="same")(inputs))
    x = layers.Conv2D(3, 1, activation="softmax")(layers.BatchNormalization()(x))
    model = randomize(tf.keras.Model(inputs, x))
    images = np.random.default_rng(0).normal(size=(16, 8, 8, 3)).astype("float32")
    conversion = larq_nas.convert(model, images, int8="ends")
    assert "of 1,024 pixels, largest difference of a pixel on average" in str(conversion.int8)


def test_kernels_with_the_same_figures_share_a_line() -> None:
    same = figures("default", [np.eye(8)], [np.eye(8)], ["classes"])
    other = figures("aarch64", [np.eye(8)], [np.eye(8)[::-1]], ["classes"])
    results = [same, dataclasses.replace(same, kernel="reference"), other]
    shared, own = kernel_lines(results)
    assert shared == f"default, reference kernels: {same.text}"
    assert "same class on 8 of 8 images" in shared
    assert own == str(other)


def test_the_summary_of_a_conversion_has_one_line_for_equal_kernels() -> None:
    inputs = tf.keras.Input((8, 8, 3))
    x = BinaryConv2D(32, 3)(layers.Conv2D(32, 3)(inputs))
    outputs = layers.Dense(4)(layers.GlobalAveragePooling2D()(x))
    model = randomize(tf.keras.Model(inputs, outputs))
    conversion = larq_nas.convert(model, kernels=("default", "reference", "indirect"))
    lines = [line for line in str(conversion).splitlines() if " kernel" in line]
    assert lines == kernel_lines(conversion.parity)
    assert "".join(lines).count(", ".join(("default", "reference", "indirect"))) == 1
    assert summarize(conversion.summary()) == str(conversion)
