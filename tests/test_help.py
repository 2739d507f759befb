"""Every example that `--help` shows runs, on small data, on what the examples before it made."""

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import EXAMPLES
from test_cli import invoke

COMMANDS = ("search", "train", "derive", "convert", "cost", "latency", "compare")
# The last value of an option counts.
SMALLER = {
    "search": "--epochs 1 --train-epochs 1 --batch-size 40",
    "train": "--epochs 1 --batch-size 40 --set space.channels=4",
    "compare": "--epochs 1 --seeds 0 --batch-size 40 --no-latency --data photos",
}
SLOW = re.compile(
    "train|compare|latency|mine|photos|int8|images.npy|bnas_v2|^convert|[a-z] runs/"
    "|--model resnet|--model bats"
)


def read_examples(command: str) -> list[str]:
    text = re.sub(r"\\\n\s*", "", invoke(command, "--help").output)
    return re.findall(r"^\s+larq-nas (.*)$", text, re.MULTILINE)


EXAMPLES_OF_HELP = [example for command in COMMANDS for example in read_examples(command)]


def run(example: str) -> None:
    """Run an example, after those that make what it names."""
    made = re.compile(r"--(?:directory|output) (\S+)")
    for other in EXAMPLES_OF_HELP:
        target = made.search(other)
        used = target and re.search(rf"(?<!-directory )(?<!-output ){target[1]}\b", example)
        if used and not Path(target[1]).exists():
            run(other)
    if "model.keras" in example:
        shutil.copy("runs/digits/model.keras", "model.keras")
        shutil.copy("runs/digits/sample.npy", "images.npy")
    further = SMALLER.get(example.split()[0], "")
    if example.startswith("search") and "my_space" not in example and "--settings" not in example:
        further += " --set space.channels=4 --set space.nodes=1"
    if "imagenet2012" in example:
        further += " --image-size 64"
    if "--data photos" in example:
        further += " --image-size 16"
    result = invoke(*shlex.split(f"{example} {further}"))
    assert result.exit_code == 0, (result.output, result.exception)


def write_images(folder: Path) -> None:
    generator = np.random.default_rng(0)
    for number in range(60):
        path = folder / f"class {number % 3}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = generator.integers(0, 256, (8, 8, 3), "uint8")
        path.write_bytes(tf.io.encode_png(image).numpy())


@pytest.fixture(scope="module", autouse=True)
def _directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Work where there is what the examples name: folders of images in place of data sets."""
    folder = tmp_path_factory.mktemp("help")
    for name in ("cifar10", "imagenet2012", "photos"):
        write_images(folder / name)
    text = (EXAMPLES / "own_space.py").read_text()
    (folder / "my_space.py").write_text(text.replace("own_space(", "my_space("))
    (folder / "my_layers.py").write_text("")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield


@pytest.mark.parametrize(
    "example",
    [
        pytest.param(example, marks=pytest.mark.slow) if SLOW.search(example) else example
        for example in EXAMPLES_OF_HELP
        if "ssh://" not in example  # a device
    ],
)
def test_examples_of_help_run(example: str) -> None:
    run(example)
