import itertools
import warnings

import numpy as np
import pytest
import tensorflow as tf

from larq_nas.data import validation
from larq_nas.data.validation import check, check_data
from larq_nas.errors import InputError

SHAPE = (8, 8, 1)


def data(
    examples: int = 20,
    shape=SHAPE,
    labels=None,
    batch: int = 8,
    change=lambda images: images,
    first: int = 0,
) -> tf.data.Dataset:
    """Images that differ, each drawn by its number."""
    numbers = range(first, first + examples)
    drawn = [np.random.default_rng(number).random(shape, "float32") for number in numbers]
    images = np.array(drawn).reshape(-1, *shape)
    labels = np.arange(examples) % 4 if labels is None else labels
    return tf.data.Dataset.from_tensor_slices((change(images), labels)).batch(batch)


def other(examples: int = 20, **changes) -> tf.data.Dataset:
    """Images that `data` does not have."""
    return data(examples, first=20, **changes)


def poisoned(value: float):
    def change(images: np.ndarray) -> np.ndarray:
        images[13, 2, 2] = value
        return images

    return change


def told_of(*arguments, **settings) -> list[str]:
    """Return what a check warns of."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        check(*arguments, **settings)
    return [str(one.message) for one in told]


def test_facts() -> None:
    facts = check_data(data(), other(examples=9))
    assert (facts.input_shape, facts.classes, facts.batch_size) == (SHAPE, 4, 8)
    assert (facts.train_examples, facts.validation_examples) == (20, 9)
    same = check_data(data(batch=5), other(examples=9))
    assert facts.content_and_order == same.content_and_order
    assert facts.validation_content == same.validation_content
    assert facts.validation_content != check_data(data(), other()).validation_content
    turned = check_data(data(labels=np.arange(20)[::-1] % 4), other(), 4).content_and_order
    assert facts.content_and_order != turned
    moved = check_data(data(change=lambda images: images / 2), other()).content_and_order
    assert facts.content_and_order != moved
    with pytest.warns(UserWarning, match="no image of 3 of 7 classes, 4, 5, 6: the network cannot"):
        assert check_data(data(), other(), classes=7).classes == 7


def test_the_first_half_of_the_content_is_of_no_order() -> None:
    one, turned = (content_of(order) for order in (range(20), range(19, -1, -1)))
    assert one[:16] == turned[:16]
    assert one[16:] != turned[16:]


def content_of(order) -> str:
    images, labels = next(data(batch=20).as_numpy_iterator())
    order = list(order)
    pairs = tf.data.Dataset.from_tensor_slices((images[order], labels[order])).batch(8)
    return check_data(pairs, other()).content_and_order


def generated(count: int = 1, again: bool = True) -> tf.data.Dataset:
    def generate():
        for number in range(count):
            yield np.full((2, *SHAPE), number, "float32"), np.array([0, 1])

    once = generate()
    return tf.data.Dataset.from_generator(
        generate if again else lambda: once,
        output_signature=(
            tf.TensorSpec((None, *SHAPE), tf.float32),
            tf.TensorSpec((None,), tf.int64),
        ),
    )


def images(count: int = 20, *shape: int) -> np.ndarray:
    return np.random.default_rng(0).random((count, *(shape or SHAPE))).astype("float32")


LABELS = np.arange(20) % 4


def of_labels(labels) -> tf.data.Dataset:
    return data(labels=labels)


def one_of(count: int, kind=np.int64):
    labels = np.zeros((20, 4), kind)
    labels[:, :count] = 1
    return labels


def ragged() -> tf.data.Dataset:
    rows = tf.ragged.constant([[[1.0, 2.0], [3.0]], [[1.0]]])
    return tf.data.Dataset.from_tensor_slices((rows, [0, 1])).batch(2)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (data().unbatch(), "`train` must be batched: add .batch"),
        (data().map(lambda x, y: x), "has no labels"),
        (
            data().map(lambda x, y: {"picture": x, "label": y}),
            'dictionaries of "picture", "label": add .map.lambda d: .d."image"., d."label"',
        ),
        (data().map(lambda x, y: ({"a": x, "b": x}, y)), "one tensor of images"),
        (ragged(), "one size, but holds ragged ones: before .batch, add .map"),
        (of_labels(np.full(20, -1)), "0 or more, but 20 images have -1: if that"),
        (of_labels(np.arange(20)), "must be 0 to 3, but 16 images have 4, 5, 6,"),
        (data().repeat(), "`train` must end: remove .repeat"),
        (data().take(0), "it is empty"),
        (generated(0), "it is empty"),
        (generated(again=False), "read only once.*a function that makes a new generator"),
        (data(change=poisoned(np.nan)), "image 13 has NaN or Inf"),
        (data(change=poisoned(np.inf)), "image 13 has NaN or Inf"),
        (of_labels(np.where(np.arange(20) == 3, np.nan, 1)), "finite labels, but image 3 has NaN"),
        (of_labels(np.arange(20) / 4), "image 1 has 0.25: .*regression is not supported"),
        (of_labels(np.ones((20, 4))), "image 0 has 4: multi-label is not supported"),
        (of_labels(one_of(2)), "one class for each image, but image 0 has 2: multi-label"),
        (of_labels(one_of(0)), "one class for each image, but image 0 has 0: multi-label"),
        (of_labels(np.full((20, 3), 0.5)), "3 numbers that sum to 1.5"),
        (of_labels(np.zeros((20, 5)) + np.eye(5)[0]), "be 5 classes, as the labels have so many"),
        (data().map(lambda x, y: (x, x)), "maps of labels .segmentation. are not supported"),
        (data().map(lambda x, y: (y, x)), "its labels come first: swap"),
        (data().map(lambda x, y: (x[:, 0, :, 0], y)), "rows of 8 numbers: reshape them"),
        (data().map(lambda x, y: (tf.as_string(x), y)), "got strings: decode files"),
        (data().map(lambda x, y: (tf.cast(x, tf.bool), y)), "got bool: turn them with tf.cast"),
        (data().map(lambda x, y: (tf.cast(x, tf.bfloat16), y)), "but got bfloat16: turn"),
        (data().map(lambda x, y: (x, y, y, y)), "its elements have 4 parts"),
        (data().map(lambda x, y: (x, y, x[:, 0, :, 0])), "one sample weight for each image"),
        (data().map(lambda x, y: (x, y, -tf.ones_like(y))), "0 or more, but image 0 has -1"),
        (data().map(lambda x, y: (x, y, tf.zeros_like(y))), "a sample weight above 0"),
        (data().map(lambda x, y: (x, y[:-1])), "a batch holds 8 images and 7 labels"),
        (
            data(21, batch=1).map(
                lambda x, y: (tf.image.resize(x, tf.repeat(8 + tf.cast(y[0], tf.int32), 2)), y)
            ),
            "one shape, but its batches differ .* resize",
        ),
        (np.zeros((20, 8, 8, 1)), "got ndarray: give the labels too, as .images, labels."),
        ("digits", "got str: load it"),
        (itertools.count(), "tf.data.Dataset.from_generator"),
        ([1, 2], "its images have the shape"),
        ((LABELS, images()), "its images have the shape .20,.: labels come second"),
        ((images(),), "but has 1 parts"),
        ((images(), LABELS[:-1]), "as many labels as images, 20, but has 19"),
        ((images(), LABELS, np.ones(3)), "as many sample weights as images, 20, but has 3"),
        ((images()[:0], LABELS[:0]), "it is empty"),
        (([np.zeros((8, 8)), np.zeros((9, 8))], [0, 1]), "images of one shape.*: resize"),
        ((np.array([None, 3]), [0, 1]), "array of objects .NoneType, int.: resize"),
        ((data(), data()), "tf.data.Dataset.zip"),
        (data(examples=1), "2 images or more"),
    ],
)
def test_bad_training_data_is_refused(train: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        check_data(train, other(), classes=4)
    assert "\n" not in str(caught.value)


def test_bad_validation_data_is_refused() -> None:
    with pytest.raises(InputError, match=r"shape of `train`, \(8, 8, 1\), but got \(9, 8, 1\)"):
        check_data(data(), other(shape=(9, 8, 1)))
    with pytest.raises(InputError, match=r"but image 4 has 4: 16 images have 4, 5, .* cut"):
        check_data(data(), other(labels=np.arange(20)))
    with pytest.raises(InputError, match="2 classes or more, but all its labels are 0"):
        check_data(data(labels=np.zeros(20, int)), other())
    with pytest.raises(InputError, match="`classes` must be positive"):
        check_data(data(), other(), classes=0)
    with pytest.raises(InputError, match=r"from 0 to 3, but none is 1, 2: .*give `classes=4`"):
        check_data(data(labels=np.arange(20) % 2 * 3), other())
    with pytest.raises(InputError, match="but go from 0 to 1000000"):
        check_data(data(labels=np.where(np.arange(20) == 7, 10**6, 0)), other())
    for share in (0, 1, -0.1, 2, 1.5):
        with pytest.raises(InputError, match="a share between 0 and 1"):
            check_data(data(), share)


def classes_of(labels, **changes):
    found = check(data(labels=labels), other(labels=labels), **changes)
    numbers = np.concatenate([batch[1] for batch in found.train.as_numpy_iterator()])
    return found, numbers


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (LABELS + 1, ("1", "2", "3", "4")),
        ((LABELS + 5).astype("uint8"), ("5", "6", "7", "8")),
        (LABELS.astype("float64"), None),
        (LABELS[:, None], None),
        (LABELS[:, None].astype("float32") + 1, ("1", "2", "3", "4")),
        (np.eye(4)[LABELS], None),
        (np.eye(4, dtype=bool)[LABELS], None),
        (np.array(["a", "b", "c", "ü"])[LABELS], ("a", "b", "c", "ü")),
        (np.array(["a", "b", "c", "d"])[LABELS][:, None], ("a", "b", "c", "d")),
    ],
)
def test_labels_of_any_form_become_whole_numbers_from_0(labels, names) -> None:
    if labels.dtype.kind == "U":
        labels = np.char.encode(labels, "utf-8")
    found, numbers = classes_of(labels)
    assert numbers.dtype == np.int32
    np.testing.assert_array_equal(numbers, LABELS)
    assert (found.facts.classes, found.labels.names) == (4, names)


@pytest.mark.parametrize("labels", [np.array([-1, 1]), np.array([False, True]), [[0.0], [1.0]]])
def test_two_classes_in_one_number(labels) -> None:
    found, numbers = classes_of(np.asarray(labels)[np.arange(20) % 2])
    np.testing.assert_array_equal(numbers, np.arange(20) % 2)
    assert found.facts.classes == 2


def test_probabilities_are_kept() -> None:
    soft = np.full((20, 4), 0.1)
    soft[np.arange(20), LABELS] = 0.7
    found, kept = classes_of(soft)
    assert found.facts.soft_labels
    assert kept.dtype == np.float32
    np.testing.assert_array_equal(kept, soft.astype("float32"))
    # Whole numbers beside them are probabilities too.
    mixed = check(data(labels=soft), other(labels=LABELS))
    labels = np.concatenate([batch[1] for batch in mixed.validation.as_numpy_iterator()])
    np.testing.assert_array_equal(labels, np.eye(4)[LABELS])


def named(names, labels=None, make=data) -> tf.data.Dataset:
    found = make(labels=labels)
    found.class_names = names
    return found


def test_names_that_keras_gives_are_those_of_the_classes() -> None:
    names = ["ant", "bee", "cat", "dog"]
    assert check(named(names), other()).labels.names == tuple(names)
    with pytest.raises(InputError, match="one has ant, bee, cat, dog, and the other bee, ant"):
        check(named(names), named(["bee", "ant", "cat", "dog"], make=other))


def test_classes_without_training_images_are_named() -> None:
    names, cut = ["ant", "bee", "cat", "dog"], np.arange(20) % 3
    with pytest.raises(InputError, match=r"no image of 1 of 4 classes .`dog`., of .* has 5: "):
        check(named(names, cut), other())
    told = told_of(named(names, cut), other(), 4)
    assert told == [
        "`train` has no image of 1 of 4 classes, `dog`: the network cannot learn them; 5 of "
        "`validation` are, and will all be wrong."
    ]
    with pytest.raises(InputError, match="image 3 has 3: 5 images have 3; a part that is cut off"):
        check(data(labels=cut), other())
    text = np.array([b"a", b"b", b"c", b"d"])
    with pytest.raises(InputError, match="image 3 has d: 5 images have d; a part"):
        check(data(labels=text[cut]), other(labels=text[LABELS]))


def test_classes_that_nothing_measures_are_named() -> None:
    (told,) = told_of(named(["a", "b", "c", "d"]), other(labels=np.arange(20) % 2))
    assert told.startswith(
        "`validation` has no image of 2 of 4 classes, `c`, `d`: what is measured"
    )
    assert "validation_split" in told


def test_forms_that_are_clear_are_understood() -> None:
    facts = check_data(data(), other())
    told: list[str] = []
    keyed = data().map(lambda x, y: {"image": x, "label": y, "id": y})
    nested = data().map(lambda x, y: ({"input_1": x}, y))
    shapeless = data().map(
        lambda x, y: tf.py_function(lambda *parts: parts, (x, y), (tf.float32, tf.int64))
    )
    for given in (keyed, nested, shapeless):
        assert check_data(given, other()) == facts
    batch = next(data(batch=20).as_numpy_iterator())
    for given in (batch, list(batch), tuple(map(tf.constant, batch)), (batch[0].tolist(), LABELS)):
        if isinstance(given[0], list):
            given = (np.asarray(given[0], "float32").tolist(), LABELS)
        arrays = check(given, other(), tell=told.append).facts
        assert (arrays.train_examples, arrays.batch_size) == (20, 8)
    assert "`train`: arrays of 20 images, in batches of 8" in told
    assert check_data(generated(10), generated(10)).train_examples == 20


def test_signals_are_images_of_one_channel() -> None:
    told: list[str] = []
    flat = (images(20, 8, 6), LABELS)
    found = check(flat, (images(9, 8, 6) + 1, LABELS[:9]), tell=told.append)
    assert found.facts.input_shape == (8, 6, 1)
    assert told.count("`train`: 8x6 numbers are taken for an image of one channel") == 1


def test_a_share_is_held_out_of_each_class() -> None:
    told: list[str] = []
    labels = np.array([0] * 40 + [1] * 10 + [2])
    given = (images(51), labels)
    with pytest.warns(UserWarning, match="no image of 1 of 3 classes, 2: `train` has one"):
        found = check(given, 0.2, seed=1, tell=told.append)
    assert "`validation`: 10 of 51 images are held out, 0.2 of each class, by seed 1" in told
    parts = [list(part.unbatch().as_numpy_iterator()) for part in (found.train, found.validation)]
    assert [np.bincount([y for _, y in part]).tolist() for part in parts] == [[32, 8, 1], [8, 2]]
    assert len({image.tobytes() for part in parts for image, _ in part}) == 51
    other_seed = check(given, 0.2, seed=2).facts.content_and_order
    assert found.facts.content_and_order != other_seed
    with pytest.raises(InputError, match="but each class has one: give validation data"):
        check((images(3), np.arange(3)), 0.2)


def test_copies_of_an_image_stay_on_one_side() -> None:
    twice = np.concatenate([images(), images()])
    found = check((twice, np.concatenate([LABELS, LABELS])), 0.4)
    sides = [
        {image.tobytes() for image, _ in part.unbatch().as_numpy_iterator()}
        for part in (found.train, found.validation)
    ]
    assert not sides[0] & sides[1]
    assert (found.facts.train_examples, found.facts.validation_examples) == (24, 16)
    same = (np.zeros((10, *SHAPE)), np.arange(10) % 2)
    with pytest.warns(UserWarning, match="2 of 2 images of `validation` are in `train` too"):
        assert check(same, 0.2).facts.validation_examples == 2


def test_a_share_of_what_memory_does_not_hold(monkeypatch) -> None:
    batches = tf.data.Dataset.from_tensor_slices((images(), LABELS)).batch(8)
    held = check(batches, 0.4).facts
    monkeypatch.setattr(validation, "_HELD_BYTES", 0)
    found = check(batches, 0.4)
    assert found.facts == held
    sizes = [[len(y) for _, y in part] for part in (found.train, found.validation)]
    assert sizes == [[8, 4], [8]]
    with pytest.raises(InputError, match="only if it comes in one order"):
        check(batches.shuffle(20), 0.4)


def noisy(images: tf.Tensor) -> tf.Tensor:
    """Add noise that no seed of TensorFlow can fix."""
    generator = np.random.default_rng()
    noise = tf.numpy_function(lambda: generator.random() / 1000, [], tf.float64)
    return images + tf.cast(tf.ensure_shape(noise, ()), tf.float32)


def test_images_that_change_between_passes_are_told() -> None:
    assert told_of(data(200), data(20, first=300)) == []
    changing = data(200).map(lambda x, y: (noisy(x), y))
    (told,) = told_of(changing, data(20, first=300))
    assert told.endswith("leave random changes to `augment`.")
    (told,) = told_of(data(200), data(20, first=300).map(lambda x, y: (noisy(x), y)))
    assert told.startswith("`validation` gives other images on each pass")
    labels = np.random.default_rng(0).integers(0, 4, 200)
    shuffled = data(200, labels=labels).unbatch().shuffle(200).batch(8)
    (told,) = told_of(shuffled.map(lambda x, y: (noisy(x), y)), data(20, first=300))
    assert "in another order too" in told
    assert "leave out .shuffle()" in told


def test_another_order_on_each_pass_gives_one() -> None:
    told: list[str] = []
    facts, orders = [], []
    for seed in (1, 2):
        shuffled = data(200).unbatch().shuffle(200, seed=seed).batch(8)
        moving = data(20, first=300).unbatch().shuffle(20).batch(8)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = check(shuffled, moving, tell=told.append)
        facts.append(found.facts)
        for part in (found.train, found.validation):
            passes = [np.concatenate([x[:, 0, 0, 0] for x, _ in part]) for _ in range(2)]
            np.testing.assert_array_equal(*passes)
            orders.append(passes[0])
    assert facts[0] == facts[1]
    for one, other_order in zip(orders[:2], orders[2:], strict=True):
        np.testing.assert_array_equal(one, other_order)
    assert len(set(orders[0])) == 200
    assert told.count(
        "`train` comes in another order on each pass: its 200 images (51,200 bytes) are held in "
        "memory, in an order of their content"
    )


def test_another_order_that_memory_does_not_hold_is_told(monkeypatch) -> None:
    monkeypatch.setattr(validation, "_HELD_BYTES", 0)
    (told,) = told_of(data(200).unbatch().shuffle(200).batch(8), data(20, first=300))
    assert "51,200 bytes are too many to hold in memory" in told
    assert "reshuffle_each_iteration=False" in told


def test_parts_of_data_that_is_shuffled_anew_are_refused() -> None:
    shuffled = data(200).unbatch().shuffle(200)
    cut = shuffled.take(150).batch(8), shuffled.skip(150).batch(8)
    with pytest.raises(InputError, match=r"one data set that is shuffled anew .*seed=0"):
        check(*cut)
    with pytest.raises(InputError, match="other examples on each pass"):
        check(cut[0], data(20, first=300))
    with pytest.raises(InputError, match="`validation` holds other examples on each pass"):
        check(data(20, first=300), cut[0])
    for mend in (
        data(200).unbatch().shuffle(200, seed=0, reshuffle_each_iteration=False),
        data(200).unbatch().shuffle(200).cache(),
    ):
        for _ in mend:
            pass
        assert told_of(mend.take(150).batch(8), mend.skip(150).batch(8)) == []


def test_images_in_both_parts_are_counted() -> None:
    shared = data(20, first=13, labels=np.arange(13, 33) % 4)
    (told,) = told_of(data(20), shared)
    assert told.startswith("7 of 20 images of `validation` are in `train` too")
    assert told.endswith("new images.")
    (told,) = told_of(data(20), shared.map(lambda x, y: (x, tf.where(y < 2, 1 - y, y))))
    # Of images 13 to 19 those of 13, 16 and 17 have another label.
    assert told.endswith("new images, and the labels of 3 disagree: look at how labels are read.")


@pytest.mark.parametrize("make", [list, lambda pair: tf.data.Dataset.from_tensor_slices(pair)])
def test_numbers_that_float32_does_not_hold_are_refused(make) -> None:
    large = images().astype("float64")
    large[13, 2, 2] = -1e300
    given = make((large, LABELS))
    given = given if isinstance(given, list) else given.batch(8)
    message = r"numbers up to 3.4e\+38, as float32 holds, but image 13 has 1e\+300: scale them"
    with pytest.raises(InputError, match=message):
        check(given, 0.2)
    large[13, 2, 2] = 3.4e38
    assert check((large, LABELS), 0.2).facts.train_examples == 16


@pytest.mark.parametrize("scale", [lambda x: x / 255, lambda x: 2 * x - 1])
def test_another_range_in_each_part_is_told(scale) -> None:
    (told,) = told_of(data(20), data(20, first=20, change=scale))
    assert "scale both alike" in told


def test_channels_that_come_first_are_told() -> None:
    told = told_of((images(20, 3, 16, 16), LABELS), (images(20, 3, 16, 16) + 1, LABELS))
    assert [one.partition(":")[0] for one in told] == [
        f"`{name}` holds images of shape (3, 16, 16), 16 channels for 3x16 pixels"
        for name in ("train", "validation")
    ]
    assert told_of((images(20, 1, 32, 3), LABELS), (images(20, 1, 32, 3) + 1, LABELS)) == []
