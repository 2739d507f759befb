"""Folders of images, a sub-folder for each class."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from larq_nas.data import datasets
from larq_nas.data.validation import check
from larq_nas.errors import InputError

COLORS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}


def write(path: Path, image: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    writers = {".jpg": tf.io.encode_jpeg, ".bmp": bmp}
    writer = writers.get(path.suffix.lower(), tf.io.encode_png)
    path.write_bytes(bytes(writer(np.asarray(image, "uint8")).numpy()))


def bmp(image: np.ndarray, palette: np.ndarray | None = None) -> Any:
    """Return a BMP of RGB; or of bytes, with the colors that these stand for."""
    height, width, _ = image.shape
    colors = b"" if palette is None else np.pad(palette, ((0, 0), (0, 1))).tobytes()
    start = 54 + len(colors)
    size = (start + image.size).to_bytes(4, "little")
    numbers = [40, width, height]
    header = b"BM" + size + bytes(4) + start.to_bytes(4, "little")
    header += b"".join(number.to_bytes(4, "little") for number in numbers)
    header += b"\1\0" + bytes([8 if colors else 24, 0]) + bytes(24)
    pixels = image[::-1, :, ::-1].astype("uint8").tobytes()
    return tf.constant(header + colors + pixels)


def colored(
    folder: Path, count: int = 10, size: tuple[int, int] = (8, 12), end: str = "png"
) -> Path:
    """Write images that have the color of their class, and each a number in a corner."""
    for name, color in COLORS.items():
        for number in range(count):
            image = np.broadcast_to(color, (*size, 3)).copy()
            image[:3, :3] = 20 * number
            write(folder / name / f"{number:02}.{end}", image)
    return folder


def held(data: tf.data.Dataset) -> tuple[np.ndarray, np.ndarray]:
    images, labels = zip(*data.as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def numbers(data: tf.data.Dataset) -> list[tuple[int, int]]:
    """Return class and number of each image."""
    images, labels = held(data)
    corner = np.round((images[:, 0, 0, 0] + 1) * 127.5 / 20).astype(int)
    return list(zip(labels.tolist(), corner.tolist(), strict=True))


def test_a_share_of_each_class_is_held_out_by_the_seed(tmp_path: Path) -> None:
    folder = colored(tmp_path / "images")
    train, validation = datasets.load(folder, 7)
    images, labels = held(train)
    assert images.dtype == "float32"
    assert images.shape == (24, 8, 12, 3)
    assert labels.dtype == "int32"
    assert np.bincount(labels).tolist() == [8, 8, 8]
    assert np.bincount(held(validation)[1]).tolist() == [2, 2, 2]
    assert train.class_names == validation.class_names == ["blue", "green", "red"]
    assert train.preprocessing == "RGB of 0 to 255, x / 127.5 - 1"
    expected = (np.array(list(COLORS.values())) / 127.5 - 1)[labels]
    np.testing.assert_allclose(images[:, 4, 4], expected, atol=1e-6)
    every = numbers(train) + numbers(validation)
    assert sorted(every) == [(label, i) for label in range(3) for i in range(10)]
    again = datasets.load(str(folder), 7)
    assert [numbers(part) for part in again] == [numbers(train), numbers(validation)]
    assert numbers(datasets.load(folder, seed=1)[1]) != numbers(validation)
    assert len(held(datasets.load(folder, validation_share=0.5)[1])[1]) == 15


def test_each_class_is_on_both_sides_of_a_small_share(tmp_path: Path) -> None:
    _, validation = datasets.load(colored(tmp_path, 2), validation_share=0.01)
    assert sorted(held(validation)[1]) == [0, 1, 2]


def test_copies_of_an_image_are_on_one_side(tmp_path: Path) -> None:
    folder = colored(tmp_path, 5)
    for path in folder.rglob("*.png"):
        (path.parent / f"copy_{path.name}").write_bytes(path.read_bytes())
    train, validation = datasets.load(folder)
    assert not set(numbers(train)) & set(numbers(validation))
    assert len(numbers(validation)) == 6
    for path in (folder / "red").iterdir():
        write(path, np.zeros((8, 12, 3)))
    assert [np.bincount(held(part)[1])[2] for part in datasets.load(folder)] == [8, 2]


def test_a_class_of_one_image_is_trained_on_and_told(tmp_path: Path) -> None:
    write(colored(tmp_path) / "violet" / "x.png", np.zeros((8, 12, 3)))
    data = datasets.load(tmp_path)
    assert [np.bincount(held(part)[1]).tolist() for part in data] == [[8, 8, 8, 1], [2, 2, 2]]
    with pytest.warns(UserWarning, match="no image of 1 of 4 classes, `violet`: `train` has one"):
        check(*data)
    for name in ("a", "b"):
        write(tmp_path / "one" / name / "x.png", np.full((8, 12, 3), ord(name)))
    with pytest.raises(InputError, match="each class has one: give validation data"):
        datasets.load(tmp_path / "one")


def test_an_image_of_two_classes_is_on_one_side(tmp_path: Path) -> None:
    folder = colored(tmp_path, 10)
    for path in (folder / "blue").iterdir():
        (folder / "red" / f"copy_{path.name}").write_bytes(path.read_bytes())
    with pytest.warns(UserWarning, match="The same image is in two classes"):
        train, validation = (held(part) for part in datasets.load(folder))
    sides = [{image.tobytes() for image in images} for images, _ in (train, validation)]
    assert not sides[0] & sides[1]


@pytest.mark.parametrize("names", [("train", "val"), ("Training", "testing"), ("train", "test")])
def test_folders_to_train_and_to_validate_on(tmp_path: Path, names: tuple[str, str]) -> None:
    colored(tmp_path / names[0], 4)
    colored(tmp_path / names[1], 2)
    train, validation = datasets.load(tmp_path)
    assert (len(numbers(train)), len(numbers(validation))) == (12, 6)
    with pytest.raises(InputError, match="`validation_share` is for a folder without"):
        datasets.load(tmp_path, validation_share=0.1)


def test_a_class_that_is_not_validated_is_told(tmp_path: Path) -> None:
    colored(tmp_path / "train", 3)
    (tmp_path / "val").mkdir()
    with pytest.raises(InputError, match="each class, 1 or more, but holds no sub-folder"):
        datasets.load(tmp_path)
    write(tmp_path / "val" / "red" / "x.png", np.zeros((8, 12, 3)))
    with pytest.warns(UserWarning, match="val` has no images of `blue`, `green`"):
        _, validation = datasets.load(tmp_path)
    assert held(validation)[1].tolist() == [2]


def test_a_part_that_is_not_read_is_told(tmp_path: Path) -> None:
    for name in ("train", "val", "test"):
        colored(tmp_path / name, 2)
    with pytest.warns(UserWarning, match="`val/` validated on; not read: `test`"):
        datasets.load(tmp_path)


def test_all_kinds_of_images_give_the_same_pixels(tmp_path: Path) -> None:
    for end in ("PNG", "bmp"):
        colored(tmp_path / end, 3, end=end)
    png, bmp = (held(datasets.load(tmp_path / end)[0]) for end in ("PNG", "bmp"))
    np.testing.assert_array_equal(png[0], bmp[0])
    jpeg = held(datasets.load(colored(tmp_path / "jpg", 3, end="jpg"))[0])[0]
    assert np.abs(jpeg[:, 4:, 8:] - png[0][:, 4:, 8:]).max() < 0.05


def test_gray_images_have_one_channel_unless_some_have_colors(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for number in range(3):
            write(
                tmp_path / name / f"{number}.png",
                np.full((6, 6, 1), 50 * number + 9 * (name == "b")),
            )
    assert held(datasets.load(tmp_path)[0])[0].shape[1:] == (6, 6, 1)
    write(tmp_path / "a" / "color.png", np.full((6, 6, 3), (1, 2, 3)))
    images, _ = held(datasets.load(tmp_path)[0])
    assert images.shape[1:] == (6, 6, 3)
    assert sum(len(np.unique(image)) > 1 for image in images) <= 1


@pytest.mark.parametrize("channels", [2, 4])
def test_transparency_is_left_out_and_told(tmp_path: Path, channels: int) -> None:
    image = np.full((6, 6, channels), 255)
    image[..., -1] = 7
    for name in ("a", "b"):
        for number in range(2):
            image[0, 0, 0] = 2 * number + (name == "b")
            write(tmp_path / name / f"{number}.png", image)
    with pytest.warns(UserWarning, match=r"Transparency is left out: `a/0.png`, .* and 1 more"):
        train, _ = datasets.load(tmp_path)
    images, _ = held(train)
    assert images.shape[-1] == channels - 1
    assert (images[:, 1:] == 1).all()


def test_images_of_many_sizes_need_one(tmp_path: Path) -> None:
    colored(tmp_path, 4)
    write(tmp_path / "red" / "large.png", np.zeros((20, 10, 3)))
    message = "have 2 sizes, from 8x12 to 20x10 .most, 12 of 13: 8x12.: give `image_size`"
    with pytest.raises(InputError, match=message):
        datasets.load(tmp_path)
    train, _ = datasets.load(tmp_path, image_size=6)
    assert held(train)[0].shape[1:] == (6, 6, 3)
    resized = "resized to 6x6 with antialiasing"
    assert train.preprocessing == f"RGB of 0 to 255, {resized}, x / 127.5 - 1"
    train, validation = datasets.load(tmp_path, image_size=4, resize=6)
    assert held(train)[0].shape[1:] == (6, 6, 3)
    assert held(validation)[0].shape[1:] == (4, 4, 3)


def test_what_systems_leave_and_deeper_folders(tmp_path: Path) -> None:
    folder = colored(tmp_path, 4)
    for name in (".DS_Store", "Thumbs.db", "red/.DS_Store", "red/._00.png", "red/Thumbs.db"):
        (folder / name).write_text("nothing")
    for name in ("__MACOSX", ".ipynb_checkpoints", "red/.ipynb_checkpoints"):
        (folder / name).mkdir()
        (folder / name / "x.png").write_text("nothing")
    write(folder / "red" / "2024" / "may" / "x.png", np.zeros((8, 12, 3)))
    train, validation = datasets.load(folder)
    assert len(numbers(train)) + len(numbers(validation)) == 13
    (folder / "red" / "notes.txt").write_text("a note")
    write(folder / "loose.png", np.zeros((8, 12, 3)))
    with pytest.warns(UserWarning, match="as no images in a class: `red/notes.txt`, `loose.png`"):
        datasets.load(folder)


def broken(folder: Path) -> None:
    whole = (folder / "red" / "00.png").read_bytes()
    (folder / "red" / "00.png").write_bytes(whole[: len(whole) // 2])
    (folder / "blue" / "x.jpg").write_bytes(b"")
    (folder / "blue" / "y.webp").write_bytes(b"RIFF....WEBP")
    (folder / "blue" / "z.gif").write_text("<html>not found</html>")


def colors_in_a_palette(folder: Path) -> None:
    palette = np.arange(768).reshape(256, 3).astype("uint8")
    (folder / "red" / "x.bmp").write_bytes(bmp(np.zeros((8, 12, 1)), palette).numpy())


def one_more_class(folder: Path) -> None:
    colored(folder / "train", 2)
    colored(folder / "val", 2)
    write(folder / "val" / "violet" / "x.png", np.zeros((8, 12, 3)))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            broken,
            r"4 of 33 images in `\S+` cannot be read as PNG, .* `blue/x.jpg`, .* 1 more .Input",
        ),
        (colors_in_a_palette, "`red/x.bmp` .a BMP with a palette of colors"),
        (one_more_class, r"must be those of .* but it has `violet`"),
        (lambda folder: (folder / "owl").mkdir(), "no PNG, JPEG, BMP or GIF images in `owl`: add"),
    ],
)
def test_folders_that_cannot_be_used_are_refused(tmp_path: Path, spoil: Any, message: str) -> None:
    if spoil is not one_more_class:
        colored(tmp_path)
    spoil(tmp_path)
    with pytest.raises(InputError, match=message) as refused:
        datasets.load(tmp_path)
    assert "\n" not in str(refused.value)


def test_a_folder_without_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="each class, 2 or more, but holds no sub-folder"):
        datasets.load(tmp_path)
    write(tmp_path / "x.png", np.zeros((8, 12, 3)))
    with pytest.raises(InputError, match=r"holds images \(`x.png`\) and no sub-folder"):
        datasets.load(tmp_path)
    colored(tmp_path / "data")
    with pytest.raises(InputError, match=r"holds one, data; perhaps you mean `.*/data`"):
        datasets.load(tmp_path)
    (tmp_path / "data").rename(tmp_path / "train")
    with pytest.raises(InputError, match="has `train/` but no `validation/` or `test/`"):
        datasets.load(tmp_path)
    with pytest.raises(InputError, match="There is no folder or file"):
        datasets.load(tmp_path / "absent")


def test_one_image_in_two_classes_is_told(tmp_path: Path) -> None:
    folder = colored(tmp_path, 3)
    (folder / "red" / "x.png").write_bytes((folder / "blue" / "00.png").read_bytes())
    with pytest.warns(UserWarning, match=r"in two classes: `blue/00.png = red/x.png`"):
        datasets.load(folder)


def test_images_that_do_not_fit_are_read_from_disk(tmp_path: Path, monkeypatch: Any) -> None:
    folder = colored(tmp_path, 3)
    kept = held(datasets.load(folder)[0])
    monkeypatch.setattr(datasets, "_CACHE_BYTES", 100)
    train, _ = datasets.load(folder)
    np.testing.assert_array_equal(held(train)[0], kept[0])
    for path in folder.rglob("*.png"):
        path.unlink()
    with pytest.raises(tf.errors.NotFoundError):
        held(train)
