"""Every code block of README and docs runs, in the order of its page, at small sizes.

What readers see is what runs: `SMALL` are the calls that get smaller settings than they are given,
`DATA` the data sets that are a few images here, and `NOT_RUN` all that is not run, with its reason.
"""

import dataclasses
import gc
import inspect
import re
import shlex
import shutil
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import larq_nas  # isort: skip  (it prepares TensorFlow)
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner
from conftest import EXAMPLES

from larq_nas.cli import main
from larq_nas.data import datasets
from larq_nas.deploy.package import write_package
from larq_nas.latency import build_table, measure
from larq_nas.methods import resolve
from larq_nas.spaces.space import FunctionSpace
from larq_nas.training.loop import forgetting_graphs

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^( *)```(python|py|shell|bash|console)\b[^\n]*\n(.*?)^\1```", re.M | re.S)

# A part of a block or of a command, and why neither is run.
NOT_RUN = {
    "ssh://": "needs a device",
    "adb://": "needs a phone",
    "--workers": "starts processes: tests/searchers/evolution/test_processes.py",
    "fashion_mnist": "needs a download",
    "random_search": "needs the method added: tests/test_fifth_method.py adds it as the page says",
    "RandomSearch(candidates=8),\n": "is a part of a file: tests/test_fifth_method.py",
}
# A data set, and the file of a few images that stands for it.
DATA = {"digits": "digits.npz", "cifar10": "cifar10.npz", "imagenet2012": "imagenet.npz"}
# Sizes of what is searched and trained, in place of those that a block gives or a method has.
CELLS = {"cells": 3, "channels": 12, "nodes": 2}
CELLS |= dict.fromkeys(("search_cells", "search_channels", "search_groups"))
SEARCHERS = {"population": 2, "candidate_epochs": 1, "widest_epochs": 1, "subset": None}
SEARCHERS |= {"weight_epochs": 1, "stage_cells": (3, 5), "stage_operations": (8, 3)}
SEARCHERS |= {"candidates": 1, "confirm_epochs": 1}


def with_sizes(part: Any, sizes: Mapping[str, Any]) -> Any:
    """Return a space or searcher with those of the sizes that it has."""
    names = {one.name for one in dataclasses.fields(part)} if dataclasses.is_dataclass(part) else ()
    changed = {name: sizes[name] for name in sizes if name in names}
    return dataclasses.replace(part, **changed) if changed else part


def few(epochs: Any) -> Any:
    if isinstance(epochs, Mapping):
        return {name: min(number, 1) for name, number in epochs.items()}
    return 2 if epochs is None else min(epochs, 2)


def small_search(given: dict[str, Any]) -> dict[str, Any]:
    parts = ("method", "space", "searcher", "recipe")
    found = resolve(*(given.get(name) for name in parts))
    space = with_sizes(found.space, CELLS)
    if getattr(space, "ratios", ()) == (0.25, 0.5, 1, 2, 3, 4) and found.searcher.name != "dms":
        space = dataclasses.replace(space, ratios=(0.125, 0.25))
    initial = getattr(found.searcher, "initial", ())
    sizes = {**SEARCHERS, "population": 2 + len(initial)}
    if isinstance(space, FunctionSpace):
        sizes["widest_epochs"] = 0
    if getattr(found.searcher, "rungs", None):
        sizes["rungs"] = (1, 2)
    searcher = with_sizes(found.searcher, sizes)
    given |= {"method": None, "space": space, "searcher": searcher, "recipe": found.recipe}
    given |= {name: few(given.get(name)) for name in ("epochs", "train_epochs")}
    if given.get("seeds", 1) > 1:
        given |= {"seeds": 2, "pick_epochs": 1}
    return given


def small_train(given: dict[str, Any]) -> dict[str, Any]:
    found = given["architecture"]
    if isinstance(found, str) and found in larq_nas.Architecture.published_names():
        found = larq_nas.Architecture.published(found)
    if isinstance(found, larq_nas.Architecture) and "cells" in found.settings:
        channels = max(12, found.settings.get("groups", 1))
        given["architecture"] = found.with_settings(cells=3, channels=channels)
    return {**given, "epochs": few(given.get("epochs"))}


def small_compare(given: dict[str, Any]) -> dict[str, Any]:
    names = [re.sub(r"^random:\d+$", "random:1", str(one)) for one in given["architectures"]]
    if given.get("settings"):
        given["settings"] = {"cells": 3, "channels": 12}
    return {**given, "architectures": names, "epochs": 1, "seeds": (0,)}


def small_load(given: dict[str, Any]) -> dict[str, Any]:
    if given["source"] not in DATA:
        return given
    arrays = {name: given[name] for name in given if not name.endswith("_split")}
    if arrays.get("resize"):
        arrays |= {"image_size": 56, "resize": 64}
    return {**arrays, "source": DATA[given["source"]], "data_dir": None}


# A call, the names that it is called by, and what makes it smaller.
SMALL = [
    (larq_nas.search, [(larq_nas, "search"), ("larq_nas.cli.search", "run_search")], small_search),
    (larq_nas.train, [(larq_nas, "train"), ("larq_nas.cli.train", "run_training")], small_train),
    (
        larq_nas.compare,
        [(larq_nas, "compare"), ("larq_nas.cli.compare", "run_comparison")],
        small_compare,
    ),
    (datasets.load, [(datasets, "load")], small_load),
]


def smaller(call: Callable[..., Any], change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """Return the call with smaller settings, in a directory that is new."""

    def run(*args: Any, **kwargs: Any) -> Any:
        given = change(inspect.signature(call).bind(*args, **kwargs).arguments)
        if given.get("directory"):
            shutil.rmtree(Path(given["directory"]).expanduser(), ignore_errors=True)
        return call(**given)

    return run


class Block(NamedTuple):
    """Code of a page: a Python block, or one command."""

    page: Path
    line: int
    is_python: bool
    code: str

    @property
    def reasons(self) -> list[str]:
        """Texts of `NOT_RUN` for which it is not run."""
        return [text for text in NOT_RUN if text in self.code]


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for found in BLOCK.finditer(text):
        line = text[: found.start()].count("\n") + 1
        code = textwrap.dedent(found[3])
        if found[2].startswith("py"):
            yield Block(page, line, True, code)
            continue
        for command in code.replace("\\\n", " ").splitlines():
            if command.startswith("larq-nas "):
                yield Block(page, line, False, command)


BLOCKS = {page: list(blocks_of(page)) for page in PAGES}


def own_space(choose: Any, input_shape: tuple[int, int, int], classes: int) -> tf.keras.Model:
    """A space of the reader's own, as small as one is."""
    images = tf.keras.Input(input_shape)
    pools = {
        "max": lambda x, name: tf.keras.layers.MaxPool2D(2, name=name)(x),
        "average": lambda x, name: tf.keras.layers.AveragePooling2D(2, name=name)(x),
    }
    x = larq_nas.layers.binary_conv(choose.op("pool", images, pools), 8, 3, name="conv")
    return tf.keras.Model(images, larq_nas.layers.classifier(x, classes))


def write_data(folder: Path) -> None:
    """Write a few images as each data set that the pages name."""
    parts = [next(iter(part)) for part in larq_nas.datasets.load("digits", 40)]
    arrays = dict(zip(("x_train", "y_train", "x_test", "y_test"), sum(parts, ()), strict=True))
    names = list(map(str, range(10)))
    np.savez(folder / "digits.npz", class_names=names, **arrays)
    pixels = tf.cast((arrays["x_train"] + 1) * 127.5, tf.uint8)
    colors = tf.image.grayscale_to_rgb(tf.image.resize(pixels, (32, 32), "nearest")).numpy()
    np.savez(folder / "cifar10.npz", images=colors, labels=arrays["y_train"])
    np.savez(folder / "imagenet.npz", images=colors, labels=arrays["y_train"])
    recordings = {"signals": np.zeros((9, 16_000), "float32"), "labels": np.arange(9) % 3}
    np.savez(folder / "recordings.npz", **recordings)
    for number, image in enumerate(colors):
        path = folder / "photos" / ("cat", "dog")[number % 2] / f"{number // 2 + 1:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tf.io.encode_jpeg(tf.cast(image, tf.uint8)).numpy())


@pytest.fixture(scope="module")
def readers_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages assume that their reader has: data, runs, a model, a package, a table."""
    folder = tmp_path_factory.mktemp("reader")
    write_data(folder)
    run, package = folder / "runs/digits", folder / "packages/digits"
    train, validation = larq_nas.datasets.load(folder / "digits.npz", 40)
    given = small_search({"train": train, "validation": validation})
    result = larq_nas.search(**given, directory=run, return_result=True, verbose=0)
    write_package(package, result.conversion, result.model, images=validation)
    for name in ("bats", "bnas"):
        shutil.copytree(run, folder / "runs" / name)
    photos = larq_nas.datasets.load(folder / "photos", 10, image_size=32)
    given = small_search(dict(zip(("train", "validation"), photos, strict=True)))
    larq_nas.search(**given, directory=folder / "runs/quick", verbose=0)
    larq_nas.compare(
        [run],
        train,
        validation,
        directory=folder / "runs/comparison",
        seeds=(0,),
        epochs=1,
        latency=False,
        verbose=0,
    )
    function = (
        "import larq_nas\n\n\ndef load():\n    return larq_nas.datasets.load('digits.npz', 40)\n"
    )
    (folder / "my_data.py").write_text(function)
    shutil.copy(run / "model.keras", folder / "model.keras")
    shutil.copy(run / "model.keras", folder / "teacher.keras")
    shutil.copy(run / "model.tflite", folder)
    shutil.copy(package / "golden.bin", folder)
    shutil.copy(EXAMPLES / "own_space.py", folder / "my_space.py")
    of_table = {"input_shape": (8, 8, 1), "classes": 10, "networks": 1, "checks": 1}
    build_table(given["space"], measure, path=folder / "bats.json", **of_table)
    widths = larq_nas.Architecture.random(larq_nas.spaces.ResNet18Cifar(), (32, 32, 3), 10, 0)
    (folder / "runs/dms-cifar").mkdir()
    widths.save(folder / "runs/dms-cifar/architecture.json")
    return folder


@pytest.fixture
def names(
    readers_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, Any]]:
    """The names that the pages assume, in a directory with the reader's files."""
    folder = tmp_path / "reader"
    shutil.copytree(readers_files, folder)
    monkeypatch.chdir(folder)
    for path in (EXAMPLES, folder / "packages/digits"):
        monkeypatch.syspath_prepend(path)
    train, validation = larq_nas.datasets.load("digits.npz", 40)
    (images, labels), result = next(iter(validation)), larq_nas.load("runs/digits")
    for call, places, change in SMALL:
        for owner, name in places:
            module = import_module(owner) if isinstance(owner, str) else owner
            monkeypatch.setattr(module, name, smaller(call, change))
    monkeypatch.delitem(sys.modules, "network", raising=False)  # of the package that is here
    from own_searcher import RandomSearch

    # What a page builds is gigabytes, over all pages.
    with forgetting_graphs():
        yield {
            "larq_nas": larq_nas,
            "tf": tf,
            "np": np,
            "train": train,
            "validation": validation,
            "images": images.numpy(),
            "image": images[0].numpy(),
            "model": result.model,
            "result": result,
            "conversion": result.conversion,
            "architecture": result.architecture,
            "flatbuffer": Path("model.tflite").read_bytes(),
            "class_names": result.class_names,
            "my_space": own_space,
            "RandomSearch": RandomSearch,
            "x_train": images.numpy(),
            "y_train": labels.numpy(),
            "x_test": images.numpy(),
            "y_test": labels.numpy(),
        }
    tf.keras.backend.clear_session()
    gc.collect()


def pages() -> Iterator[Any]:
    for page, blocks in BLOCKS.items():
        if any(not block.reasons for block in blocks):
            yield pytest.param(page, id=page.relative_to(ROOT).as_posix())


def run(block: Block, names: dict[str, Any]) -> None:
    if block.is_python:
        # At its line of the page, which a traceback then shows.
        exec(compile("\n" * block.line + block.code, str(block.page), "exec"), names)
    else:
        done = CliRunner().invoke(main, shlex.split(block.code, comments=True)[1:])
        assert done.exit_code == 0, f"{block.code}: {done.output[-1000:]}"


@pytest.mark.slow
@pytest.mark.parametrize("page", pages())
def test_the_code_of_a_page_runs(page: Path, names: dict[str, Any]) -> None:
    if "larq_zoo" in page.read_text() and not find_spec("larq_zoo"):
        pytest.skip("needs larq-zoo")
    failures = []
    for block in BLOCKS[page]:
        try:
            if not block.reasons:
                run(block, names)
        except Exception as error:  # noqa: BLE001  what fails of a page is told at once
            last = "".join(traceback.format_exception(error)[-3:])
            failures.append(f"{page.name}:{block.line}: {last}")
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("text", NOT_RUN)
def test_what_is_not_run_is_in_a_page(text: str) -> None:
    assert any(text in block.code for blocks in BLOCKS.values() for block in blocks)


def test_code_of_all_kinds_is_found() -> None:
    found = [block for blocks in BLOCKS.values() for block in blocks]
    assert sum(block.is_python for block in found) > 30
    assert sum(not block.is_python for block in found) > 30
