"""Classes that labels of many kinds stand for, and advice where they stand for none."""

import warnings
from typing import Any

import numpy as np
import pytest

from larq_nas.data.validation import check
from larq_nas.errors import InputError

IMAGES = np.random.default_rng(0).random((40, 8, 8, 1), "float32")
OTHERS = IMAGES[:20] / 2
PAIRS = np.arange(40) % 2


def checked(labels: Any, others: Any = None, **settings: Any) -> tuple[Any, list[str]]:
    """Return what a check finds, and what it warns of."""
    validation = 0.25 if others is None else (OTHERS, others)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = check((IMAGES, labels), validation, **settings)
    return found, [str(one.message) for one in told]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (PAIRS.astype("datetime64[s]"), r"labels of numbers, but got datetime64\[s\]"),
        (np.zeros(40, [("a", "i4")]), "labels of numbers, but got .*'a', '<i4'"),
        (
            PAIRS.astype("uint64") * np.uint64(2**63 + 1),
            "or fewer, but go from 0 to 9223372036854775809",
        ),
        (PAIRS * 1e20, "or fewer, but go from 0 to 100000000000000000000"),
        (np.arange(40) % 3 - 1, r"14 images have -1: .*; if it is a class, number the classes"),
        (np.array(["a", 1] * 20, object), r"an array of objects \(int, str\): give an array"),
        (np.array([None, 1] * 20, object), r"an array of objects \(NoneType, int\)"),
        (np.ma.masked_array(PAIRS, PAIRS > 0), "labels without a mask, .* leave those images"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_labels_that_stand_for_no_classes_are_refused(labels: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check((IMAGES, labels), 0.25)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("label", [1e20, np.uint64(2**63 + 1)])
def test_large_labels_to_validate_on_are_shown_as_they_are(label: Any) -> None:
    labels = np.arange(20).astype(np.asarray(label).dtype) % 2
    labels[3] = label
    with pytest.raises(InputError, match=f"image 3 has {int(label)}: 1 image has {int(label)}"):
        check((IMAGES, PAIRS), (OTHERS, labels))


@pytest.mark.parametrize("low", [-1, 0])
@pytest.mark.parametrize("high", [0, 1])
def test_two_numbers_of_which_one_is_negative_are_two_classes(low: int, high: int) -> None:
    if low == high:
        return
    labels = np.where(PAIRS, high, low)
    found, told = checked(labels, labels[:20])
    numbers = np.concatenate([batch for _, batch in found.train])
    assert numbers.tolist() == PAIRS.tolist()
    assert not told


@pytest.mark.parametrize("make", [lambda a: a, lambda a: a.astype(bool), lambda a: a * 0.5 + 1])
def test_objects_that_are_numbers_are_read_as_numbers(make: Any) -> None:
    images, labels, weights = make(IMAGES.astype("float64")) * 1.0, PAIRS > 0, make(PAIRS + 1) * 1.0
    given = tuple(part.astype(object) for part in (images, labels, weights))
    plain, objects = (check(part, 0.25).facts for part in ((images, labels, weights), given))
    assert plain == objects


def test_names_that_may_be_one_class_are_told() -> None:
    four = np.arange(40) % 4
    found, told = checked(np.array(["cat", "Cat", "cat ", "dog"])[four])
    assert told == [
        "Classes have names that differ by capitals or spaces alone, 'Cat' and 'cat' and 'cat ': "
        "if these are one class, write it in one way."
    ]
    assert found.labels.classes == 4
    _, told = checked(np.array(["", "cat"])[PAIRS])
    assert told == [
        'Label "" is a class without a name: if that marks images without a label, leave them out.'
    ]
    assert checked(np.array(["cat", "cats"])[PAIRS])[1] == []


def test_advice_fits_labels_that_only_one_part_has() -> None:
    names, others = np.array(["cat", "dog"])[PAIRS], np.array(["Cat", "dog"])[PAIRS[:20]]
    with pytest.raises(InputError, match=r"cat, dog, but .* have Cat; names that .* alike\.$"):
        check((IMAGES, names), (OTHERS, others))
    alike = "; if these are the same classes, number them alike, from 0"
    for labels, numbers in ((PAIRS * 2 - 1, PAIRS), (PAIRS, PAIRS * 2 - 1), (PAIRS + 1, PAIRS)):
        with pytest.raises(InputError, match=f"{alike}, or else a part that is cut"):
            check((IMAGES, labels), (OTHERS, numbers[:20]))
    with pytest.raises(InputError, match=f"{alike}.$"):
        check((IMAGES, PAIRS), (OTHERS, PAIRS[:20] + 1), 2)
    with pytest.raises(InputError, match="have 5, 6; a part that is cut off"):
        check((IMAGES, PAIRS), (OTHERS, PAIRS[:20] + 5))
