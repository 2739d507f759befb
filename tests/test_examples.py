"""Every file of examples/, run as it stands at small sizes, up to a verified flatbuffer."""

import json
import os
from importlib import util
from pathlib import Path
from types import ModuleType
from typing import Any

import larq_nas  # isort: skip  (it prepares TensorFlow)
import numpy as np
import pytest
import tensorflow as tf
from conftest import EXAMPLES

TINY: dict[str, Any] = {"space": larq_nas.spaces.Bats(cells=1, channels=4, nodes=1), "epochs": 1}
RECIPE = larq_nas.training.Recipe(stages=("binary",))
QUICK = {**TINY, "recipe": RECIPE, "train_epochs": 1, "verbose": 0}
# Run by other tests, beside what these have to show.
ELSEWHERE = {
    "own_images": "test_own_data.py",
    "own_space": "test_search.py",
    "own_searcher": "searchers/test_conformance.py",
}


def example(name: str) -> ModuleType:
    spec = util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def is_verified(run: Path) -> bool:
    """Whether a run has a flatbuffer, every operation of which computes what Keras's does."""
    result = json.loads((run / "result.json").read_text())
    assert result["bytes"] == (run / "model.tflite").stat().st_size
    return bool(result["parity"])


def test_every_example_is_run() -> None:
    here = Path(__file__)
    for path in EXAMPLES.glob("*.py"):
        test = here.parent / ELSEWHERE.get(path.stem, here.name)
        assert path.stem in test.read_text(), path


def write_tones(folder: Path, seconds: float = 1.0) -> Path:
    """Write recordings of eight speakers, a tone of another pitch for each word."""
    generator = np.random.default_rng(0)
    time = np.arange(int(seconds * 16_000)) / 16_000
    for word, pitch in (("go", 300), ("no", 900), ("stop", 2700)):
        (folder / word).mkdir(parents=True)
        for speaker in range(8):
            for number in range(4):
                tone = np.sin(2 * np.pi * pitch * generator.uniform(0.9, 1.1) * time)
                samples = 0.4 * tone + generator.normal(0, 0.05, len(time))
                wav = tf.audio.encode_wav(samples[:, None].astype("float32"), 16_000)
                path = folder / word / f"{speaker:08x}_nohash_{number}.wav"
                path.write_bytes(wav.numpy())
    (folder / "_background_noise_").mkdir()
    return folder


def test_keywords_are_spotted_in_wav_files(tmp_path: Path) -> None:
    folder, run = write_tones(tmp_path / "words", 0.9), tmp_path / "run"
    example("keyword_spotting").main(str(folder), str(run), **{**QUICK, "train_epochs": 4})
    assert is_verified(run)
    result = json.loads((run / "result.json").read_text())
    assert result["class_names"] == ["go", "no", "stop"]
    assert larq_nas.load(run).model.input_shape == (None, 49, 40, 1)


def test_a_speaker_is_in_one_part_of_the_recordings(tmp_path: Path) -> None:
    module = example("keyword_spotting")
    parts, words = module.read_folder(write_tones(tmp_path / "words"))
    counts = [sum(1 for _ in part) for part in parts]
    assert words == ["go", "no", "stop"]
    assert sum(counts) == 96
    assert all(count % 12 == 0 for count in counts), counts  # all recordings of a speaker


def test_recordings_of_another_rate_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(tf.audio.encode_wav(tf.zeros((8000, 1)), 8000).numpy())
    with pytest.raises(tf.errors.InvalidArgumentError, match="WAV files must be 16 kHz"):
        example("keyword_spotting").read_wav(tf.constant(str(path)), 0)


@pytest.mark.slow
def test_speech_commands_of_tensorflow_datasets_are_read(tmp_path: Path) -> None:
    tfds = pytest.importorskip("tensorflow_datasets")
    with tfds.testing.mock_data(num_examples=40):
        example("keyword_spotting").main(None, str(tmp_path / "run"), **QUICK)
    assert is_verified(tmp_path / "run")


@pytest.mark.slow
def test_a_network_keeps_to_a_latency_of_a_table_that_is_measured(tmp_path: Path) -> None:
    module, run, table = example("raspberry_pi"), tmp_path / "run", tmp_path / "new" / "table.json"
    given = {**QUICK, "table": str(table), "limit": "1s", "networks": 1, "checks": 1}
    latency = module.main(directory=str(run), **given)
    assert latency.microseconds > 0
    assert is_verified(run)
    assert list(json.loads((run / "result.json").read_text())["budget"]) == ["latency"]
    # The table is read the next time.
    before = table.stat().st_mtime_ns
    module.main(directory=str(run), **given)
    assert table.stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["genetic", "random"])
def test_operations_widths_and_depths_are_searched_together(strategy: str, tmp_path: Path) -> None:
    module, run = example("joint_space"), tmp_path / "run"
    searcher = larq_nas.searchers.Evolution(
        population=3, candidate_epochs=1, confirm=1, confirm_epochs=1, strategy=strategy
    )
    small = {name: QUICK[name] for name in QUICK if name != "space"}
    module.main(str(run), **{**small, "searcher": searcher})
    assert is_verified(run)
    found = larq_nas.Architecture.load(run / "architecture.json")
    assert {type(found.choices[name]) for name in ("section0", "width0")} == {int, float}
    assert (run / "model.tflite").stat().st_size <= 64_000


@pytest.mark.slow
@pytest.mark.skipif("TFDS_DATA_DIR" not in os.environ, reason="needs CIFAR-10 in TFDS_DATA_DIR")
@pytest.mark.parametrize(
    ("method", "settings"),
    [
        (
            "bats",
            {
                "space": {"cells": 3, "channels": 12, "nodes": 1},
                "searcher": {"stage_cells": (3, 5), "stage_operations": (8, 4)},
                "epochs": 1,
            },
        ),
        ("bnas_v2", {"space": {"cells": 3, "channels": 8, "nodes": 1}, "epochs": 1}),
        (
            "shen2019",
            {
                "space": {"ratios": (0.125, 0.25)},
                "searcher": {"population": 2, "candidate_epochs": 1, "widest_epochs": 1},
                "epochs": 1,
            },
        ),
        ("dms_a", {"searcher": {"weight_epochs": 1}, "epochs": 1}),
    ],
)
def test_a_published_method_is_run(
    method: str, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, _ = larq_nas.datasets.load("cifar10", 120, train_split="train[:240]")
    data = [np.concatenate(part) for part in zip(*images.as_numpy_iterator(), strict=True)]
    np.savez(tmp_path / "cifar10.npz", images=data[0], labels=data[1])
    monkeypatch.chdir(tmp_path)
    example("published").main(method, "cifar10.npz", train_epochs=2, **{"verbose": 0, **settings})
    assert is_verified(tmp_path / "runs" / method)
