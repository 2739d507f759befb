"""Data in the form of ImageNet: images of any size, as JPEG, through tensorflow-datasets."""

from pathlib import Path
from typing import Any

import larq_nas  # isort: skip  (it prepares TensorFlow)
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from larq_nas.data.augmentation import crop, resized_boxes, resized_crop
from larq_nas.data.streams import training_stream
from larq_nas.data.validation import check_data
from larq_nas.errors import InputError
from larq_nas.process_state import seed_everything
from larq_nas.spaces import Bats

SIZE, RESIZE = 32, 40


class TinyImagenet(tfds.core.GeneratorBasedBuilder):
    """Features, splits and encoding of `imagenet2012`."""

    VERSION = tfds.core.Version("5.1.0")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(num_classes=4),
            "file_name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, manager: Any) -> dict[str, Any]:
        return {"train": self._generate_examples(24), "validation": self._generate_examples(8)}

    def _generate_examples(self, count: int) -> Any:
        generator = np.random.default_rng(count)
        for number in range(count):
            height, width = generator.integers(30, 90, 2)
            image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
            label = number % 4
            yield number, {"image": image, "label": label, "file_name": f"n{number}.JPEG"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[tf.data.Dataset, tf.data.Dataset]:
    folder = str(tmp_path_factory.mktemp("imagenet"))
    return larq_nas.datasets.load(
        "tiny_imagenet", batch_size=6, data_dir=folder, image_size=SIZE, resize=RESIZE
    )


def test_training_images_are_cropped_and_others_centred(data: Any) -> None:
    train, validation = data
    assert train.element_spec[0].shape[1:] == (RESIZE, RESIZE, 3)
    assert validation.element_spec[0].shape[1:] == (SIZE, SIZE, 3)
    facts = check_data(train, validation, crops=True)
    assert facts.input_shape == (SIZE, SIZE, 3)
    assert facts.train_shape == (RESIZE, RESIZE, 3)
    seed_everything(0)  # as a search does first
    stream = training_stream(
        train, facts, 0, lambda images, seed: crop(images, seed)[:, :SIZE, :SIZE]
    )
    for images, labels in stream.from_epoch(0, 1):
        assert images.shape == (6, SIZE, SIZE, 3)
        assert labels.shape == (6,)


def test_crops_are_parts_of_the_images_anywhere() -> None:
    rows, columns = np.meshgrid(range(16), range(16), indexing="ij")
    images = np.tile(np.stack([rows, columns], axis=-1)[None], (300, 1, 1, 1)).astype("float32")
    crops = crop(tf.constant(images), tf.constant([1, 2], tf.int64)).numpy()
    assert crops.shape == (300, 14, 14, 2)
    corners = crops[:, :1, :1]
    assert (crops - corners == images[:, :14, :14]).all()
    assert {tuple(corner) for corner in corners.reshape(-1, 2)} == {
        (row, column) for row in range(3) for column in range(3)
    }


def test_sizes_that_do_not_fit_are_refused(data: Any, tmp_path: Path) -> None:
    settings: Any = {
        "space": Bats(cells=1, channels=4, stem="cifar"),
        "directory": tmp_path / "run",
    }
    with pytest.raises(InputError, match=r"or give an `augment` that crops those of `train`"):
        larq_nas.search(*data, **settings, verbose=0)
    with pytest.raises(
        InputError, match=r"must give as many images of the shape of `validation`, \(32"
    ):
        larq_nas.search(*data, **settings, augment="crop", verbose=0)
    with pytest.raises(InputError, match="`resize` must be above `image_size`"):
        larq_nas.datasets.load("tiny_imagenet", image_size=32, resize=32)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_published_network_trains_on_it(data: Any, tmp_path: Path) -> None:
    folder = str(tmp_path / "data")
    loaded = larq_nas.datasets.load(
        "tiny_imagenet", batch_size=6, data_dir=folder, image_size=56, resize=64
    )
    architecture = larq_nas.Architecture.published("bats_imagenet")
    small = architecture.with_settings(cells=3, channels=8, groups=2)
    model = larq_nas.train(
        small, *loaded, epochs=2, augment="crop", directory=tmp_path / "run", verbose=0
    )
    assert model.input_shape == (None, 56, 56, 3)
    assert (tmp_path / "run" / "model.tflite").exists()


def test_resized_parts_are_drawn_as_inception_draws_them() -> None:
    """Area from 8 to 100 %, aspect from 3/4 to 4/3 in logarithm, anywhere, by whole pixels."""
    height, width, number = 256, 192, 20_000
    boxes = resized_boxes(number, height, width, tf.constant([1, 2], tf.int64)).numpy()
    assert (boxes == np.round(boxes)).all()
    top, left, high, wide = boxes.T
    assert (boxes >= 0).all()
    assert (top + high <= height).all()
    assert (left + wide <= width).all()
    areas, aspects = high * wide / (height * width), wide / high
    # Half a pixel is rounded away.
    assert 0.078 < areas.min() < 0.09
    assert areas.max() > 0.95
    assert 0.73 < aspects.min() < 0.77
    assert 1.3 < aspects.max() < 1.37
    # The same law, by NumPy: of ten drawn, the first that fits.
    generator = np.random.default_rng(0)
    expected = []
    while len(expected) < number:
        area = generator.uniform(0.08, 1) * height * width
        aspect = np.exp(generator.uniform(np.log(3 / 4), np.log(4 / 3)))
        one = np.round(np.sqrt(area / aspect)), np.round(np.sqrt(area * aspect))
        if one[0] <= height and one[1] <= width:
            expected.append((one[0] * one[1] / (height * width), one[1] / one[0]))
    for drawn, other in zip((areas, aspects), np.transpose(expected), strict=True):
        levels = np.linspace(0.05, 0.95, 10)
        np.testing.assert_allclose(
            np.quantile(drawn, levels), np.quantile(other, levels), rtol=0.03
        )


def test_resized_parts_are_interpolated_and_mirrored() -> None:
    """A plane stays one: each pixel is what its place in the part has, either way round."""
    rows, columns = np.meshgrid(range(16), range(32), indexing="ij")
    plane = np.stack([rows, columns], axis=-1).astype("float32")
    key = tf.constant([3, 4], tf.int64)
    taken = resized_crop(tf.constant(np.tile(plane[None], (64, 1, 1, 1))), key).numpy()
    assert taken.shape == (64, 14, 28, 2)
    cropping = tf.random.experimental.stateless_split(key, 2)[0]
    mirrored = 0
    for image, (top, left, high, wide) in zip(
        taken, resized_boxes(64, 16, 32, cropping).numpy(), strict=True
    ):
        down = np.linspace(top, top + high - 1, 14)
        along = np.linspace(left, left + wide - 1, 28)
        back = image[0, 0, 1] > image[0, -1, 1]
        mirrored += back
        np.testing.assert_allclose(image[:, 0, 0], down, atol=1e-3)
        np.testing.assert_allclose(image[0, :, 1], along[::-1] if back else along, atol=1e-3)
    assert 16 < mirrored < 48
