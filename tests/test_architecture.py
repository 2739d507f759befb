import json
from pathlib import Path
from typing import Any

import larq_nas  # isort: skip  (it prepares TensorFlow)
import pytest
import tensorflow as tf
from conftest import quick, random_architecture

from larq_nas.errors import InputError
from larq_nas.spaces import Bats


@pytest.fixture
def architecture(small_space: Bats) -> larq_nas.Architecture:
    return random_architecture(small_space, seed=0)


def test_survives_its_file(architecture: larq_nas.Architecture, tmp_path) -> None:
    architecture.save(tmp_path / "a.json")
    loaded = larq_nas.Architecture.load(tmp_path / "a.json")
    assert loaded == architecture
    assert loaded.to_json() == architecture.to_json()
    names = [layer.name for layer in loaded.build((8, 8, 1), 10).layers]
    assert names == [layer.name for layer in architecture.build((8, 8, 1), 10).layers]


def test_can_be_built_deeper() -> None:
    shallow = random_architecture(Bats(cells=3, channels=8, nodes=1), seed=0)
    deeper = shallow.with_settings(cells=5).build((8, 8, 1), 10)
    assert "cell4_pre0_bn" in [layer.name for layer in deeper.layers]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], "cut short or not JSON"),
        (lambda text: "", "cut short or not JSON"),
        (lambda text: '{"weights": 3}', "is not a larq_nas architecture"),
        (lambda text: "[1, 2]", "is not a larq_nas architecture"),
        (lambda text: text.replace('"schema": 1', '"schema": 2'), "has schema 2, .* upgrade"),
        (lambda text: text.replace('"schema": 1', '"schema": "x"'), "must be a whole number"),
        (lambda text: json.dumps({**json.loads(text), "choices": []}), "must be a JSON object"),
    ],
)
def test_files_that_are_not_architectures_are_refused(
    architecture: larq_nas.Architecture, tmp_path, change, message: str
) -> None:
    path = tmp_path / "a.json"
    path.write_text(change(architecture.to_json()))
    with pytest.raises(InputError, match=message):
        larq_nas.Architecture.load(path)


def test_files_that_cannot_be_read_are_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="No such file"):
        larq_nas.Architecture.load(tmp_path / "missing.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not a text file"):
        larq_nas.Architecture.load(tmp_path / "binary.json")


def test_choices_must_be_those_of_the_space(architecture: larq_nas.Architecture) -> None:
    extra = larq_nas.Architecture(
        architecture.space, architecture.settings, {**architecture.choices, "other": "x"}
    )
    with pytest.raises(InputError, match="does not ask: other"):
        extra.build((8, 8, 1), 10)
    with pytest.raises(InputError, match="Unknown space `batz`; did you mean `bats`"):
        larq_nas.Architecture("batz").build((8, 8, 1), 10)
    with pytest.raises(InputError, match="Unknown setting of space `bats` `cell`; did you mean"):
        architecture.with_settings(cell=3).build((8, 8, 1), 10)


def test_a_killed_writer_leaves_the_old_file(architecture, tmp_path, monkeypatch) -> None:
    path = tmp_path / "a.json"
    architecture.save(path)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        architecture.with_settings(cells=9).save(path)
    assert larq_nas.Architecture.load(path) == architecture


def test_settings_that_a_space_does_not_have_are_refused_at_once() -> None:
    with pytest.raises(InputError, match="Unknown setting of space `bats` `chanels`"):
        larq_nas.Architecture.published("bats").with_settings(chanels=3)
    with pytest.raises(InputError, match="`vgg11` is a space, not an architecture"):
        larq_nas.Architecture.published("vgg11")


def test_published_architectures_are_listed() -> None:
    assert larq_nas.Architecture.published_names() == [
        "amoebanet_a",
        "bats",
        "bats_imagenet",
        "bats_imagenet_wide",
        "bats_large",
        "bats_medium",
        "bnas_cifar",
        "bnas_imagenet",
        "bnas_imagenet_e",
        "bnas_imagenet_f",
        "bnas_imagenet_g",
        "bnas_imagenet_h",
        "darts_first_order",
        "darts_second_order",
        "nasnet_a",
        "p_darts",
    ]
    with pytest.raises(InputError, match="Unknown published architecture `bat`; did you mean `bat"):
        larq_nas.Architecture.published("bat")


@pytest.mark.parametrize("name", quick(larq_nas.Architecture.published_names(), 1, 6, 12, 15))
def test_published_architectures_build_and_survive_their_file(name: str, tmp_path) -> None:
    published = larq_nas.Architecture.published(name)
    published.save(tmp_path / "a.json")
    assert larq_nas.Architecture.load(tmp_path / "a.json") == published
    file = Path(larq_nas.__file__).parent / "architectures" / f"{name}.json"
    assert file.read_text() == published.to_json()
    narrow = {"channels": 8, "groups": 4} if published.space == "bats" else {"channels": 8}
    small = published.with_settings(cells=3, **narrow)
    assert small.build((32, 32, 3), 10).output_shape == (None, 10)


def test_a_random_architecture_is_never_zero_on_every_path() -> None:
    """Of one node that keeps one of two operations, every other draw is zero."""

    def space(choose: Any, input_shape: Any, classes: int) -> tf.keras.Model:
        images = tf.keras.Input(input_shape)
        layers = tf.keras.layers
        operations = {"dense": lambda x, name: layers.Dense(2, name=name)(x), "zero": None}
        x = choose.cell("cell", [images], lambda index: operations, nodes=1, keep_zero=True)
        x = layers.GlobalAveragePooling2D()(x)
        return tf.keras.Model(images, layers.Dense(classes, name="logits")(x))

    drawn = [larq_nas.Architecture.random(space, (4, 4, 1), 2, seed).choices for seed in range(6)]
    assert all("dense" in str(choices["cell/1"]) for choices in drawn)


def test_it_prints_what_a_person_reads() -> None:
    architecture = larq_nas.Architecture(
        "mine",
        {"cells": 3},
        {"first": "conv", "normal/2": [["conv", 0], ["pool", 1]], "normal/3": "skip", "width": 1.5},
    )
    assert str(architecture) == (
        "mine: cells=3\n  first = conv\n  normal\n    2 = conv(0) + pool(1)\n    3 = skip\n"
        "  width = 1.5"
    )
    assert str(larq_nas.Architecture("mine")) == "mine"
