"""Arrays of `.npz` files, and functions of a user's own."""

import re
import textwrap
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from test_folders import held

from larq_nas.data import datasets
from larq_nas.data.validation import check
from larq_nas.errors import InputError

GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 256, (30, 6, 5, 3), "uint8")
LABELS = np.arange(30) % 3
KERAS = {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:9] // 2, "y_test": LABELS[:9]}


def saved(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "data.npz", **arrays)
    return folder / "data.npz"


@pytest.mark.parametrize("form", ["{}_{}", "{1}_{0}"])
@pytest.mark.parametrize("words", [("x", "y", "test"), ("Images", "Labels", "val")])
def test_arrays_of_two_parts(tmp_path: Path, form: str, words: tuple[str, ...]) -> None:
    images, labels, held_out = words
    pairs = zip(("train", held_out), ((IMAGES, LABELS), (IMAGES[:9] // 2, LABELS[:9])), strict=True)
    arrays = {
        form.format(word, part): array
        for part, pair in pairs
        for word, array in zip((images, labels), pair, strict=True)
    }
    train, validation = datasets.load(saved(tmp_path, **arrays), 8)
    numbers, classes = held(validation)
    np.testing.assert_allclose(numbers, (IMAGES[:9] // 2) / 127.5 - 1, atol=1e-6)
    assert classes.tolist() == LABELS[:9].tolist()
    assert next(iter(train))[0].shape == (8, 6, 5, 3)
    assert sorted(held(train)[1]) == sorted(LABELS)
    assert train.preprocessing == "x / 127.5 - 1"
    assert not hasattr(train, "class_names")


def test_a_share_of_arrays_of_one_part(tmp_path: Path) -> None:
    names = np.array(["sun", "rain", "fog"])
    path = saved(tmp_path, images=IMAGES[..., 0], labels=names[LABELS])
    train, validation = datasets.load(str(path), validation_share=0.3)
    assert train.class_names == ["fog", "rain", "sun"]
    images, labels = held(train)
    assert Counter(labels.tolist()) == {b"fog": 7, b"rain": 7, b"sun": 7}
    assert Counter(held(validation)[1].tolist()) == {b"fog": 3, b"rain": 3, b"sun": 3}
    assert images.shape[1:] == (6, 5, 1)
    for image, label in zip(images, labels, strict=True):
        (index,) = np.flatnonzero((IMAGES[..., :1] == np.round((image + 1) * 127.5)).all((1, 2, 3)))
        assert names[LABELS[index]] == label.decode()


def test_copies_in_arrays_are_on_one_side(tmp_path: Path) -> None:
    twice = saved(tmp_path, x=np.concatenate([IMAGES, IMAGES]), y=np.tile(LABELS, 2))
    train, validation = (held(part)[0] for part in datasets.load(twice))
    assert (len(train), len(validation)) == (48, 12)
    assert not {image.tobytes() for image in train} & {image.tobytes() for image in validation}


SOFT = np.full((30, 3), 0.25)
SOFT[np.arange(30), LABELS] = 0.5


@pytest.mark.parametrize("share", [None, 0.2])
@pytest.mark.parametrize(
    "labels",
    [
        LABELS,
        LABELS + 1,
        LABELS[:, None],
        LABELS.astype("float64"),
        LABELS == 0,
        np.array(["sun", "rain", "fog"])[LABELS],
        np.array([b"sun", b"rain", b"fog"])[LABELS][:, None],
        np.eye(3)[LABELS],
        SOFT,
        # What cannot be used:
        LABELS - 1,
        LABELS / 4,
        LABELS * 2,
        np.where(LABELS == 1, np.nan, 0),
        np.zeros(30),
        np.ones((30, 3)),
        np.ones((30, 3, 3)),
        LABELS * 1j,
        LABELS[:7],
        np.where(np.arange(30) == 3, "moon", "sun"),
        np.where(np.arange(30) == 3, 2, LABELS % 2),
        np.arange(30),
    ],
)
def test_labels_of_a_file_and_in_python_mean_the_same(
    tmp_path: Path, labels: np.ndarray, share: float | None
) -> None:
    def outcome(read: Callable[[], Any]) -> Any:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                found = check(*read())
            except InputError as error:
                return re.sub(r"image \d+|\d+ images", "image", str(error))
        facts, counts = found.facts, found.counts.tolist()
        spec = found.train.element_spec[1]
        return facts.classes, facts.soft_labels, counts, spec, found.labels, list(map(str, told))

    images = IMAGES / np.float32(127.5) - 1
    others = labels[:9] if len(labels) > 9 else labels
    arrays = (images, labels), share or (images[:9] * 0.9, others)
    parts = {"x_test": images[:9] * 0.9, "y_test": others}
    path = saved(tmp_path, x_train=images, y_train=labels, **({} if share else parts))
    if share:
        path = saved(tmp_path, x=images, y=labels)
    assert outcome(lambda: datasets.load(path)) == outcome(lambda: arrays)


def test_names_of_classes_are_those_of_all_labels(tmp_path: Path) -> None:
    names = np.array(["sun", "rain", "fog"])
    for labels in (LABELS, LABELS[:, None], LABELS + 1, names[LABELS], np.eye(3)[LABELS]):
        for given in (names, names.astype("S")):
            found = check(*datasets.load(saved(tmp_path, x=IMAGES, y=labels, class_names=given)))
            assert found.labels.names == ("sun", "rain", "fog")
            for image, label in found.train.unbatch().as_numpy_iterator():
                same = (np.round((image + 1) * 127.5) == IMAGES).all((1, 2, 3))
                assert LABELS[same].tolist() == [label]
    for labels, message in (
        (LABELS, "Labels of `train` must be 0 to 1, but .* images have 2"),
        (names[LABELS], "of its `class_names`, sun, rain, but .* images have fog"),
        (np.eye(3)[LABELS], "2 classes, as the data has so many names, but got 3: give a name for"),
    ):
        with pytest.raises(InputError, match=message):
            check(*datasets.load(saved(tmp_path, x=IMAGES, y=labels, class_names=names[:2])))


def test_channels_that_come_first_are_told(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (30, 3, 8, 8), "uint8")
    path = saved(tmp_path, x=rows, y=LABELS)
    message = r"shape \(3, 8, 8\), 8 channels for 3x8 pixels: if the channels come first, put them"
    with pytest.warns(UserWarning, match=message):
        assert check(*datasets.load(path)).facts.input_shape == (3, 8, 8)
    with pytest.warns(UserWarning, match=message):
        datasets.load(path, image_size=8)


@pytest.mark.parametrize(
    ("images", "ends", "done"),
    [
        (IMAGES / 255, (0, 1), "x * 2 - 1"),
        (IMAGES.astype("int64"), (0, 255), "x / 127.5 - 1"),
        (IMAGES // 15, (0, 17), "x / 8.5 - 1"),
        (IMAGES // 128, (0, 1), "x * 2 - 1"),
        (IMAGES // 128 * 255, (0, 255), "x / 127.5 - 1"),
        (np.round(IMAGES / 255 * 16), (0, 16), "x / 8 - 1"),
        (IMAGES / 127.5 - 1, (-1, 1), "used as they are"),
        (IMAGES / 255 * 80.0 - 80, (-80, 0), "(x + 40) / 40"),
        (IMAGES > 99, (0, 1), "x * 2 - 1"),
    ],
)
def test_numbers_of_any_range_become_those_from_minus_1_to_1(
    tmp_path: Path, images: np.ndarray, ends: tuple[float, float], done: str
) -> None:
    arrays = {**KERAS, "x_train": images, "x_test": images[:9]}
    train, validation = datasets.load(saved(tmp_path, **arrays))
    expected = (images.astype(float) - ends[0]) / (ends[1] - ends[0]) * 2 - 1
    np.testing.assert_allclose(held(validation)[0][:9], expected[:9], atol=1e-6)
    assert train.preprocessing == done


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": IMAGES, "y": LABELS}, "must hold `x_train`, .* but holds `a`, `y`"),
        ({}, "but holds nothing"),
        ({"x": IMAGES, "y": LABELS[:7]}, "as many labels as images, 30, but has 7"),
        ({"x": LABELS, "y": LABELS}, r"its images have the shape \(30,\)"),
        ({"x": IMAGES[:0], "y": LABELS[:0]}, "must hold images, but it is empty"),
        ({"x": IMAGES[..., 0, 0], "y": LABELS}, "rows of 6 numbers: reshape them"),
        ({"x": IMAGES[..., None], "y": LABELS}, r"got \(None, 6, 5, 3, 1\)"),
        ({"x": IMAGES + np.nan, "y": LABELS}, "finite images, but image 0 has NaN"),
        ({"x": IMAGES * 1e300, "y": LABELS}, r"as float32 holds, but image \d+ has 2\.\de\+302"),
        ({"x": IMAGES * 1j, "y": LABELS}, "whole or real numbers, but got complex128"),
        ({"x": IMAGES.astype("M8[s]"), "y": LABELS}, r"images of numbers, but got datetime64\[s\]"),
        ({"x": IMAGES, "y": LABELS.astype(object)}, "Cannot read .* only pickle could read"),
        ({"x": IMAGES, "y": np.arange(30)}, "each class has one: give validation data"),
        ({**KERAS, "y_test": np.linspace(0, 1, 9)}, "`validation` .* image 1 has 0.125"),
    ],
)
def test_arrays_that_cannot_be_used_are_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(InputError, match=message) as refused:
        datasets.load(saved(tmp_path, **arrays))
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith(("`", "Cannot read `", "A share"))


def test_files_that_are_no_npz_are_refused(tmp_path: Path) -> None:
    for name, message in (("x.npz", "Cannot read"), ("x.csv", "folder of images or an .npz")):
        (tmp_path / name).write_text("nothing")
        with pytest.raises(InputError, match=message):
            datasets.load(tmp_path / name)
    with pytest.raises(InputError, match=r"There is no folder or file `absent\.npz`"):
        datasets.load("absent.npz")
    with pytest.raises(InputError, match="`validation_share` is for images of one part"):
        datasets.load(saved(tmp_path, **KERAS), validation_share=0.2)
    with pytest.warns(UserWarning, match="x_test, y_test are read, not `extra`"):
        datasets.load(saved(tmp_path, **KERAS, extra=LABELS))


FUNCTIONS = """
    import numpy as np
    import tensorflow as tf

    images = np.random.default_rng(0).integers(0, 256, (30, 6, 5, 3), "uint8")
    labels = np.arange(30) % 3

    def pair():
        return images, labels

    def pairs():
        return (images, labels), (images[:9], labels[:9])

    def data_sets():
        numbers = images / np.float32(255)
        data = tf.data.Dataset.from_tensor_slices((numbers, labels)).batch(10)
        data.class_names = ["a", "b", "c"]
        return data, data.take(1)

    def single():
        data = tf.data.Dataset.from_tensor_slices((images / np.float32(255), labels))
        return data.skip(9), data.take(9)

    def lists():
        return images.tolist(), labels.tolist()

    def weighted():
        return images, labels, labels + 1

    def weighted_pairs():
        return weighted(), (images[:9] // 2, labels[:9])

    def negative():
        return images, labels, -labels

    def three_pairs():
        return pair(), pair(), pair()

    def mixed():
        return data_sets()[0], (images, labels)

    def one():
        return data_sets()[0]

    def none():
        pass

    def failing():
        return images[100]

    def asking(path):
        return path
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "own_data.py").write_text(textwrap.dedent(FUNCTIONS))
    return str(tmp_path / "own_data.py")


def test_functions_return_arrays_or_data_sets(own: str, monkeypatch: Any) -> None:
    for name in ("lists", "pair"):
        train, validation = datasets.load(f"{own}:{name}")
        assert held(train)[0].shape == (24, 6, 5, 3)
    assert (len(held(train)[1]), len(held(validation)[1])) == (24, 6)
    train, validation = datasets.load(f"{own}:pairs")
    np.testing.assert_allclose(held(validation)[0], IMAGES[:9] / 127.5 - 1, atol=1e-6)
    train, _ = datasets.load(f"{own}:data_sets")
    assert train.class_names == ["a", "b", "c"]
    np.testing.assert_allclose(held(train)[0], IMAGES / 255, atol=1e-6)
    train, _ = datasets.load(f"{own}:single", 7)
    assert next(iter(train))[0].shape == (7, 6, 5, 3)
    monkeypatch.chdir(Path(own).parent)
    for reference in ("own_data.py:pair", "own_data:pair"):
        assert len(held(datasets.load(reference)[0])[1]) == 24


@pytest.mark.parametrize(
    ("reference", "options", "message"),
    [
        ("{}:absent", {}, "Cannot load data `.*absent"),
        ("{}:one", {}, "must return two data sets, .* but returned .*Dataset"),
        ("{}:mixed", {}, "but returned tuple of _BatchDataset, tuple"),
        ("{}:negative", {}, "weights of `train` must be finite .* but image 1 has -1"),
        ("{}:three_pairs", {}, "but returned tuple of tuple, tuple, tuple"),
        ("{}:none", {}, "but returned NoneType"),
        ("{}:images", {}, "must return data when it is called .* TypeError"),
        ("{}:failing", {}, "raised IndexError"),
        ("{}:asking", {}, "without arguments, but raised TypeError: .* 'path'"),
        ("{}:data_sets", {"image_size": 8}, "returns data sets: leave out `image_size`"),
        ("{}:data_sets", {"batch_size": 8}, "returns batches: leave out `batch_size`"),
        ("{}:pair", {"train_split": "train"}, "is not of tensorflow-datasets: leave out `train_s"),
        ("{}", {}, "of a Python file, give .*py:FUNCTION"),
        ("absent.py:f", {}, "Cannot load data `absent.py:f`"),
        ("", {}, "A data set must be a folder"),
        (None, {}, "A data set must be a folder"),
        ("digits", {"validation_share": 0.1}, "fixed splits and sizes: leave out `validation_s"),
        ("{}:pair", {"validation_share": 1}, "`validation_share` must be between 0 and 1"),
        ("{}:pair", {"seed": -1}, "`seed` must be 0 or more"),
    ],
)
def test_functions_and_options_that_cannot_be_used_are_refused(
    own: str, reference: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        datasets.load(reference and reference.format(own), **options)


@pytest.mark.parametrize("name", ["weighted", "weighted_pairs"])
@pytest.mark.parametrize("sizes", [{}, {"image_size": 4}, {"image_size": 4, "resize": 5}])
def test_sample_weights_stay_with_their_images(own: str, name: str, sizes: dict[str, int]) -> None:
    found = check(*datasets.load(f"{own}:{name}", **sizes), crops=True)
    assert found.weighted
    for _, label, weight in found.train.unbatch().as_numpy_iterator():
        assert weight == label + 1


@pytest.mark.parametrize("names", [("w_train", "w_test"), ("train_sample_weight", "test_weights")])
def test_weights_of_a_file_stay_with_their_images(tmp_path: Path, names: tuple[str, str]) -> None:
    weights = dict(zip(names, (LABELS + 1, LABELS[:9] + 1), strict=True))
    for arrays in (
        {**KERAS, **weights},
        {"images": IMAGES, "labels": LABELS, "sample_weight": LABELS + 1.0},
    ):
        found = check(*datasets.load(saved(tmp_path, **arrays)))
        for part in (found.train, found.validation):
            for _, label, weight in part.unbatch().as_numpy_iterator():
                assert weight == label + 1


def test_weights_of_something_else_are_not_read(tmp_path: Path) -> None:
    for weights in (np.ones(3), np.ones(())):
        path = saved(tmp_path, x=IMAGES, y=LABELS, weights=weights)
        with pytest.warns(UserWarning, match="Of .*, x, y are read, not `weights`"):
            assert len(datasets.load(path)[0].element_spec) == 2


def test_images_that_come_in_another_order_are_not_numbered(tmp_path: Path) -> None:
    wrong = np.where(np.arange(30) == 7, 5, LABELS)
    wrong[8] = 5
    data = datasets.load(saved(tmp_path, x=IMAGES, y=wrong))
    with pytest.raises(InputError, match=r"must be 0 to 2, but 1 image has 5\.$"):
        check(*data, classes=3)


def test_digits_are_not_the_folder_of_that_name(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    with pytest.warns(UserWarning, match="not the folder: that is `./digits`"):
        train, _ = datasets.load("digits")
    assert train.class_names == list("0123456789")
    assert train.preprocessing == "x / 8 - 1"
    with pytest.raises(InputError, match="`digits` must hold"):
        datasets.load("./digits")


def test_arrays_are_resized(tmp_path: Path) -> None:
    train, _ = datasets.load(saved(tmp_path, **KERAS), image_size=4)
    assert train.element_spec[0].shape == (None, 4, 4, 3)
    assert train.preprocessing == "resized to 4x4 with antialiasing, x / 127.5 - 1"
    smooth, _ = datasets.load(saved(tmp_path, **{**KERAS, "x_train": IMAGES / 255}), image_size=4)
    np.testing.assert_allclose(held(smooth)[0], held(train)[0], atol=0.01)
    assert isinstance(train, tf.data.Dataset)
