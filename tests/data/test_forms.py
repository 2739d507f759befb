"""Forms of data that are taken, and what is said of others."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from larq_nas.data.validation import check
from larq_nas.errors import InputError

IMAGES = np.random.default_rng(0).random((40, 8, 8, 1), "float32")
LABELS = np.arange(40) % 4
PAIRS = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS))
SPARSE = tf.sparse.from_dense(IMAGES[..., 0])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (PAIRS.window(8), r"holds data sets, as \.window makes them: use \.batch\(96\)"),
        (
            tf.data.Dataset.from_tensor_slices((SPARSE, LABELS)).batch(8),
            "images in plain tensors, but holds sparse ones: add .map with tf.sparse.to_dense",
        ),
        ((SPARSE, LABELS), "images in plain arrays, but got a SparseTensor: turn it with"),
        (PAIRS.batch(8).batch(2), r"batches of batches, .*8, 8, 8, 1\): leave one \.batch out"),
        ((IMAGES[..., None], LABELS), r"8, 8, 1, 1\): reshape them, .* videos and volumes"),
        (
            [(IMAGES[:8], LABELS[:8]), (IMAGES[8:], LABELS[8:])],
            r"all images and all labels, but got 2 pairs of them: join these",
        ),
        (list(zip(IMAGES, LABELS, strict=True)), "but got 40 pairs of them: join these"),
        ({"picture": IMAGES, "label": LABELS}, 'a dictionary of "picture", "label": give'),
        (Path("photos"), r"got PosixPath: load it, .* larq_nas\.datasets\.load\(.photos.\)"),
        ("photos", r"got str: load it, .* larq_nas\.datasets\.load\(.photos.\)"),
        ((np.ma.masked_array(IMAGES, IMAGES > 0.5), LABELS), "images without a mask"),
        ((list(np.ma.masked_array(IMAGES, IMAGES > 0.5)), LABELS), "images without a mask"),
        ((np.zeros((40, 8, 8), [("a", "i4")]), LABELS), "images of numbers, but got"),
    ],
)
def test_other_forms_are_refused_with_what_to_change(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        check(given, 0.25)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "given",
    [
        {"image": IMAGES, "label": LABELS},
        {"labels": list(LABELS), "images": IMAGES, "id": LABELS},
        (np.ma.masked_array(IMAGES), LABELS),
        (IMAGES.astype("longdouble"), LABELS),
        ([IMAGES[0], *IMAGES[1:]], list(LABELS)),
    ],
)
def test_arrays_of_any_form_are_the_same_data(given: Any) -> None:
    facts = check(given, 0.25).facts
    expected = check((IMAGES, LABELS), 0.25).facts
    assert (facts.train_examples, facts.input_shape) == (expected.train_examples, (8, 8, 1))
    assert facts.value_range == expected.value_range


def test_lists_of_two_images_are_no_pairs() -> None:
    found = check(([*IMAGES[:2]], [0, 1]), (IMAGES[2:4], [0, 1]))
    assert found.facts.train_examples == 2
