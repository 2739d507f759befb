"""Images in a folder, with a sub-folder for each class."""

import hashlib
import mimetypes
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from larq_nas.data.share import hold_out
from larq_nas.errors import InputError, first_line, warn

_TRAIN = ("train", "training")
_VALIDATION = ("validation", "valid", "val", "test", "testing")
# What systems leave beside files whose names begin with a dot.
_LEFTOVERS = ("thumbs.db", "desktop.ini", "__macosx", "@eadir")
_SHOWN = 3


@dataclass(frozen=True)
class Images:
    """Images on disk, each of which was decoded once, in a fixed random order.

    # Arguments
        paths: the file of each image.
        labels: the number of its class.
        shape: height, width and channels of all; `None` for a height and width that differ.
    """

    paths: Sequence[Path]
    labels: np.ndarray
    shape: tuple[int | None, int | None, int]

    def read(self) -> tf.data.Dataset:
        """Return pairs of an image, in bytes, and its label."""
        channels = self.shape[-1]

        def decode(path: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            image = tf.io.decode_image(tf.io.read_file(path), expand_animations=False)
            # What is stored behind gray or RGB is transparency.
            stored = tf.where(tf.shape(image)[-1] < 3, [0, 0, 0], [0, 1, 2])
            image = tf.gather(image, stored[:channels], axis=-1)
            return tf.ensure_shape(image, self.shape), label

        pairs = tf.data.Dataset.from_tensor_slices((list(map(str, self.paths)), self.labels))
        return pairs.map(decode, num_parallel_calls=tf.data.AUTOTUNE)


def read_folder(
    folder: Path, share: float | None = None, seed: int = 0, resizes: bool = False
) -> tuple[Images, Images, list[str]]:
    """Return images to train on, images to validate on, and the names of their classes.

    # Arguments
        folder: the folder; if it holds `train/` and `validation/` (or `val/`, `test/`), these
            hold the sub-folders of classes.
        share: share of each class to validate on, if the folder does not say; by default 0.2.
        seed: seed of the share, and of the order of images.
        resizes: whether images are resized later, so that they may differ in size.

    # Raises
        InputError: if that is not what the folder holds, or an image cannot be read.
    """
    try:
        parts = _parts(folder)
        listed = [_list_classes(part, least) for part, least in zip(parts, (2, 1), strict=False)]
    except OSError as error:
        raise InputError(f"Cannot read `{error.filename}`: {error.strerror}.") from None
    names = list(listed[0])
    if len(parts) == 2:
        _check_parts(parts, listed, share)
    paths = [path for part in listed for files in part.values() for path in files]
    labels = np.concatenate(
        [np.full(len(files), names.index(name)) for part in listed for name, files in part.items()]
    ).astype("int32")
    facts = _read_facts_of(folder, paths)
    shape = _common_shape(folder, facts, resizes)
    first: dict[bytes, int] = {}
    copies = np.array([first.setdefault(one.digest, i) for i, one in enumerate(facts)])
    _warn_of_two_classes(_within(folder, paths), labels, copies)
    generator = np.random.default_rng(seed)
    if len(parts) == 2:
        validates = np.arange(len(paths)) >= sum(map(len, listed[0].values()))
    else:
        share = 0.2 if share is None else share
        validates = hold_out(labels, copies, share, generator)
    found = []
    for chosen in (~validates, validates):
        # Neighbours are of different classes then, for data that are shuffled piece by piece.
        order = generator.permutation(np.flatnonzero(chosen))
        found.append(Images([paths[index] for index in order], labels[order], shape))
    return found[0], found[1], names


def read_whole_folder(folder: Path, resizes: bool = False) -> tuple[Images, list[str]]:
    """Return all images of a folder with a sub-folder for each class, and the classes' names.

    # Raises
        InputError: if that is not what the folder holds, or an image cannot be read.
    """
    try:
        listed = _list_classes(folder, 1)
    except OSError as error:
        raise InputError(f"Cannot read `{error.filename}`: {error.strerror}.") from None
    paths = [path for files in listed.values() for path in files]
    labels = np.repeat(np.arange(len(listed), dtype="int32"), list(map(len, listed.values())))
    shape = _common_shape(folder, _read_facts_of(folder, paths), resizes)
    return Images(paths, labels, shape), list(listed)


def _parts(folder: Path) -> list[Path]:
    """Return the folders of classes: one, or that to train and that to validate on."""
    found = {path.name.lower(): path for path in _folders(folder)}
    train = [found[name] for name in _TRAIN if name in found]
    held_out = [found[name] for name in _VALIDATION if name in found]
    if not train or not _folders(train[0]):
        return [folder]
    if not held_out:
        if len(found) == 1:
            raise InputError(
                f"`{folder}` has `{train[0].name}/` but no `validation/` or `test/`: add one, or "
                f"give `{train[0]}`, of which a share is held out."
            )
        return [folder]
    unread = [path.name for path in found.values() if path not in (train[0], held_out[0])]
    if unread:
        warn(
            f"Of `{folder}`, `{train[0].name}/` is trained on and `{held_out[0].name}/` validated "
            f"on; not read: {_some(unread)}."
        )
    return [train[0], held_out[0]]


def _folders(folder: Path) -> list[Path]:
    paths = (path for path in folder.iterdir() if not _is_leftover(path) and path.is_dir())
    return sorted(paths, key=lambda path: path.name)


def _is_leftover(path: Path) -> bool:
    return path.name.startswith(".") or path.name.lower() in _LEFTOVERS


def _list_classes(folder: Path, least: int) -> dict[str, list[Path]]:
    """Return the image files of `least` classes or more, or raise `InputError` if one has none."""
    classes, others = {}, []
    for path in _folders(folder):
        files = [
            file
            for file in sorted(path.rglob("*"))
            if file.is_file()
            and not any(map(_is_leftover, (file, *file.relative_to(path).parents[:-1])))
        ]
        classes[path.name] = [file for file in files if _is_image(file)]
        others += [file for file in files if not _is_image(file)]
    loose = [path for path in sorted(folder.iterdir()) if _is_image(path) and path.is_file()]
    if len(classes) < least:
        within = [path.name for only in classes for path in _folders(folder / only)]
        hint = f"; perhaps you mean `{folder / next(iter(classes))}`" if len(within) > 1 else ""
        images = f"images ({_some(_within(folder, loose))}) and " if loose else ""
        holds = f"one, {next(iter(classes))}" if classes else f"{images}no sub-folder"
        raise InputError(
            f"`{folder}` must hold a sub-folder of images for each class, {least} or more, but "
            f"holds {holds}{hint}."
        )
    empty = [name for name, files in classes.items() if not files]
    if empty:
        unread = f" (files of another kind: {_some(_within(folder, others))})" if others else ""
        raise InputError(
            f"`{folder}` has no PNG, JPEG, BMP or GIF images in {_some(empty)}{unread}: add some, "
            "or move the sub-folder away."
        )
    if others or loose:
        left = _some(_within(folder, [*others, *loose]))
        warn(f"Left out of `{folder}`, as no images in a class: {left}.")
    return classes


def _is_image(path: Path) -> bool:
    kind = mimetypes.guess_type(path.name)[0] or ""
    return kind.startswith("image/") and not _is_leftover(path)


def _within(folder: Path, paths: Sequence[Path]) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in paths]


def _some(names: Sequence[str]) -> str:
    """Return the first of several names, and how many more there are."""
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return f"{', '.join(f'`{name}`' for name in names[:_SHOWN])}{more}"


def _check_parts(
    parts: Sequence[Path], listed: Sequence[Mapping[str, list[Path]]], share: float | None
) -> None:
    if share is not None:
        raise InputError(
            f"`validation_share` is for a folder without `{parts[1].name}/`, but "
            f"`{parts[0].parent}` has it: leave it out, or give `{parts[0]}`."
        )
    unknown = [name for name in listed[1] if name not in listed[0]]
    if unknown:
        raise InputError(
            f"Classes of `{parts[1]}` must be those of `{parts[0]}` ({_some(list(listed[0]))}), "
            f"but it has {_some(unknown)}."
        )
    missing = [name for name in listed[0] if name not in listed[1]]
    if missing:
        warn(f"`{parts[1]}` has no images of {_some(missing)}: these are not validated.")


def _warn_of_two_classes(names: Sequence[str], labels: np.ndarray, copies: np.ndarray) -> None:
    twice = [
        f"{names[first]} = {name}"
        for name, label, first in zip(names, labels, copies, strict=True)
        if label != labels[first]
    ]
    if twice:
        warn(f"The same image is in two classes: {_some(twice)}.")


@dataclass(frozen=True)
class _ImageFacts:
    """What a file holds: the shape of an image and a digest, or why it cannot be read."""

    shape: tuple[int, int, int] = (0, 0, 0)
    digest: bytes = b""
    fault: str = ""
    is_deep: bool = False


def _read_facts(path: Path) -> _ImageFacts:
    try:
        content = path.read_bytes()
        image = tf.io.decode_image(content, expand_animations=False)
    except OSError as error:
        return _ImageFacts(fault=error.strerror or str(error))
    except tf.errors.OpError as error:
        return _ImageFacts(fault=re.sub(r"\{\{.*\}\} | *\[Op.*", "", str(error), flags=re.DOTALL))
    if _has_colors_in_palette(content):
        return _ImageFacts(fault="a BMP with a palette of colors")
    digest = hashlib.blake2b(content, digest_size=16).digest()
    is_deep = content.startswith(b"\x89PNG") and content[24] == 16
    return _ImageFacts(tuple(image.shape), digest, is_deep=is_deep)


def _has_colors_in_palette(content: bytes) -> bool:
    """Return whether an image is a BMP whose bytes TensorFlow would take for gray by mistake."""
    if not content.startswith(b"BM") or content[28] != 8:
        return False
    pixels, header = (int.from_bytes(content[at : at + 4], "little") for at in (10, 14))
    palette = np.frombuffer(content[14 + header : pixels], np.uint8)
    colors = palette[: len(palette) // 4 * 4].reshape(-1, 4)[:, :3]
    return bool((colors != np.arange(len(colors))[:, None]).any())


def _read_facts_of(folder: Path, paths: Sequence[Path]) -> list[_ImageFacts]:
    """Decode all images, and raise `InputError` if one is broken."""
    with ThreadPoolExecutor() as threads:
        facts = list(threads.map(_read_facts, paths))
    names = _within(folder, paths)
    pairs = list(zip(names, facts, strict=True))
    broken = [name for name, one in pairs if one.fault]
    if broken:
        fault = next(one.fault for one in facts if one.fault)
        raise InputError(
            f"{len(broken):,} of {len(paths):,} images in `{folder}` cannot be read as PNG, JPEG, "
            f"BMP or GIF: {_some(broken)} ({first_line(ValueError(fault))}). Mend, convert or "
            "remove them."
        )
    deep = [name for name, one in pairs if one.is_deep]
    if deep:
        warn(f"Of 16 bits, 8 are read: {_some(deep)}.")
    transparent = [name for name, one in pairs if one.shape[2] in (2, 4)]
    if transparent:
        warn(f"Transparency is left out: {_some(transparent)}.")
    return facts


def _common_shape(
    folder: Path, facts: Sequence[_ImageFacts], resizes: bool
) -> tuple[int | None, int | None, int]:
    """Return the shape of all images; without a height and width if these differ."""
    channels = 1 if all(one.shape[2] < 3 for one in facts) else 3
    sizes = Counter(one.shape[:2] for one in facts)
    if len(sizes) == 1:
        return (*next(iter(sizes)), channels)
    if not resizes:
        size, count = sizes.most_common(1)[0]
        ends = [f"{height}x{width}" for height, width in (min(sizes), max(sizes))]
        raise InputError(
            f"Images in `{folder}` have {len(sizes):,} sizes, from {ends[0]} to {ends[1]} (most, "
            f"{count:,} of {len(facts):,}: {size[0]}x{size[1]}): give `image_size` in pixels."
        )
    return None, None, channels
