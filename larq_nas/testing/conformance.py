"""Tests of what the contract of a searcher promises."""

import dataclasses
import gc
import importlib.util
import inspect
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import tensorflow as tf

import larq_nas
from larq_nas.cost import Budget, SpaceCosts, profile, require_feasible
from larq_nas.errors import DivergenceError, InputError
from larq_nas.searchers import Searcher
from larq_nas.spaces import Space
from larq_nas.training.loop import read_history

__all__ = ["Kill", "SearcherConformance"]

_SHAPE, _CLASSES = (8, 8, 1), 10
_IMAGES, _BATCH = 192, 48


class SearcherConformance:
    """Tests that a searcher keeps what `larq_nas.searchers.Searcher` promises.

    A subclass says what is tested; pytest finds the tests in it. Each search is of toy size: 192
    of scikit-learn's digits.

    !!! example
        ```python
        from larq_nas.testing import SearcherConformance


        class TestMine(SearcherConformance):
            searcher = RandomSearch(candidates=2)
            space = larq_nas.spaces.Bats(cells=2, channels=8, nodes=1)
        ```

    # Attributes
        searcher: the searcher, of settings that search quickly.
        space: what it searches, of any questions; a function as `FunctionSpace(function)`.
        epochs: for how long, 2 or more.
        limits: costs that it is given budgets of.
        diverging: settings with which nothing can be trained; without, that is not tested.
        recipe: how the found network, and candidates, are trained; by default the space's.
    """

    searcher: ClassVar[Searcher]
    space: ClassVar[Space]
    epochs: ClassVar[int] = 2
    limits: ClassVar[Sequence[str]] = ("binary_macs", "flatbuffer_bytes")
    diverging: ClassVar[Mapping[str, Any]] = {}
    recipe: ClassVar[Any] = None

    def data(self) -> tuple[tf.data.Dataset, tf.data.Dataset]:
        """Return training and validation data of 8x8 pixels, 1 channel and 10 classes."""
        train, validation = larq_nas.datasets.load("digits", _BATCH)
        return train.take(_IMAGES // _BATCH), validation.take(1)

    def search(self, directory: Path, **changes: Any) -> tf.keras.Model:
        """Search in `directory`, without a training of what is found."""
        settings = {
            "space": self.space,
            "searcher": self.searcher,
            "recipe": self.recipe,
            "epochs": self.epochs,
            "train_epochs": 0,
            "verbose": 0,
            **changes,
        }
        return larq_nas.search(*self.data(), directory=directory, **settings)

    def test_settings_are_json_and_name_it(self) -> None:
        assert isinstance(self.searcher, Searcher)
        settings = self.searcher.settings()
        assert json.loads(json.dumps(settings))["name"] == self.searcher.name
        assert self.searcher.default_epochs >= 1

    def test_the_same_seed_gives_the_same_bytes(self, tmp_path: Path) -> None:
        self.search(tmp_path / "one", seed=3)
        self.search(tmp_path / "other", seed=3)
        _require_same(tmp_path / "one", tmp_path / "other")
        self._require_stages(tmp_path / "one")

    def test_killed_and_resumed_it_gives_the_same_bytes(self, tmp_path: Path) -> None:
        """A process is killed at the end of an epoch and within a later step.

        What was finished before is not trained again.
        """
        whole, rest = _Epochs(), _Epochs()
        self.search(tmp_path / "whole", callbacks=[whole])
        for epoch, step in ((1, None), (2, 0)):
            status = _killed(type(self), tmp_path / "cut", epoch, step)
            assert status == -signal.SIGKILL, "The search ended before it was killed."
        self.search(tmp_path / "cut", callbacks=[rest])
        assert rest.count < whole.count, "Everything was trained again."
        _require_same(tmp_path / "whole", tmp_path / "cut")

    def test_more_epochs_end_as_if_they_were_asked_for_at_first(self, tmp_path: Path) -> None:
        if not getattr(self.searcher, "continues", False):
            pytest.skip("The searcher does not say that it goes on to more epochs.")
        self.search(tmp_path / "whole", epochs=self.epochs + 1)
        self.search(tmp_path / "longer")
        self.search(tmp_path / "longer", epochs=self.epochs + 1)
        _require_same(tmp_path / "whole", tmp_path / "longer")

    def test_a_budget_is_kept(self, tmp_path: Path) -> None:
        costs = self._costs()
        for name in self.limits:
            limit = self._tight(costs, name)
            model = self.search(tmp_path / name, budget={name: limit})
            used = profile(model).summary()[name]
            if name == "flatbuffer_bytes":
                used = (tmp_path / name / "model.tflite").stat().st_size
            assert used <= limit, f"{used} {name} of a budget of {limit}"

    def test_what_cannot_be_is_refused_before_anything_is_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)

        def fixed(choose: Any, input_shape: Any, classes: int) -> tf.keras.Model:
            images = tf.keras.Input(input_shape)
            return tf.keras.Model(images, larq_nas.layers.classifier(images, classes))

        # No network is of one byte; one that chooses no convolution has no binary MACs.
        for wrong in ({"epochs": 0}, {"space": fixed}, {"budget": {"flatbuffer_bytes": 1}}):
            with pytest.raises(InputError):
                self.search(tmp_path / "run", **wrong)
            assert not list(tmp_path.iterdir())

    def test_what_diverges_is_told_and_not_kept(self, tmp_path: Path) -> None:
        if not self.diverging or not dataclasses.is_dataclass(self.searcher):
            pytest.skip("`diverging` is not given, or the searcher is no dataclass.")
        searcher: Any = dataclasses.replace(self.searcher, **self.diverging)
        with pytest.raises(DivergenceError):
            self.search(tmp_path / "run", searcher=searcher)
        assert not (tmp_path / "run" / "architecture.json").exists()

    def test_several_searches_take_the_memory_of_one(self, tmp_path: Path) -> None:
        held = []
        for number in range(3):
            self.search(tmp_path / str(number), seed=number)
            tf.keras.backend.clear_session()
            gc.collect()
            held.append(sum(isinstance(one, tf.keras.Model) for one in gc.get_objects()))
        assert held[2] <= held[1]

    def _require_stages(self, directory: Path) -> None:
        """Fail if a stage logs other metrics than the searcher says, where it says so."""
        for name, logs in getattr(self.searcher, "stages", {}).items():
            logged = [
                row.keys() - {"stage", "epoch"}
                for row in read_history(directory / "history.csv")
                if row["stage"] == name
            ]
            assert logged or logs.several, f"No epoch of stage `{name}`."
            for found in logged:
                assert set(logs.metrics) <= found <= {*logs.metrics, *logs.sometimes}

    def _costs(self) -> SpaceCosts:
        return SpaceCosts(self.space, _SHAPE, _CLASSES, least_ratio=self.searcher.smallest_ratio)

    def _tight(self, costs: SpaceCosts, name: str) -> int:
        """Return a limit a tenth above what the lightest network needs."""
        lightest = require_feasible(costs, Budget({name: 10**12}))
        share = Budget({name: 10**12}).use(costs.of(lightest, costs.narrowest))[name]
        needed = int(float(share) * 10**12)
        # The first that is found is light; the lightest may be lighter.
        for limit in (needed * part // 10 for part in range(3, 11)):
            try:
                require_feasible(costs, Budget({name: limit}))
            except InputError:
                continue
            return limit + limit // 10
        return needed + needed // 10


class _Epochs(tf.keras.callbacks.Callback):
    """Count the epochs of all trainings."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.count += 1


class Kill(tf.keras.callbacks.Callback):
    """Kill this process as `kill -9` does, at an epoch that is counted over all trainings.

    # Arguments
        epoch: which one, the first being 1.
        step: the step in it, the first being 0; `None` for the end of the epoch.
    """

    def __init__(self, epoch: int, step: int | None) -> None:
        super().__init__()
        self._epochs, self._epoch, self._step = 0, epoch, step

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epochs += 1

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if (self._epochs, batch) == (self._epoch, self._step):
            os.kill(os.getpid(), signal.SIGKILL)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self._step is None and self._epochs == self._epoch:
            os.kill(os.getpid(), signal.SIGKILL)


def _killed(suite: type, directory: Path, epoch: int, step: int | None) -> int:
    """Run a search of a suite in a process that is killed, and return its status."""
    where = json.dumps([inspect.getfile(suite), suite.__qualname__, str(directory), epoch, step])
    command = [sys.executable, "-c", _PROGRAM, where]
    path = os.pathsep.join(filter(None, sys.path))
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False).returncode


_PROGRAM = """
import json, pathlib, sys
from larq_nas.testing.conformance import Kill, load_suite
file, name, directory, epoch, step = json.loads(sys.argv[1])
load_suite(file, name)().search(pathlib.Path(directory), callbacks=[Kill(epoch, step)])
"""


def load_suite(file: str, name: str) -> Any:
    """Return a suite from the file that defines it."""
    spec = importlib.util.spec_from_file_location("suite", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["suite"] = module
    spec.loader.exec_module(module)
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _require_same(one: Path, other: Path) -> None:
    """Fail if two runs differ in what they found, or in the way there."""
    for name in ("architecture.json", "history.csv", "model.tflite"):
        first, second = one / name, other / name
        assert first.exists() == second.exists(), name
        assert not first.exists() or first.read_bytes() == second.read_bytes(), name
    weights = [
        tf.keras.models.load_model(run / "model.keras").get_weights() for run in (one, other)
    ]
    for mine, theirs in zip(*weights, strict=True):
        np.testing.assert_array_equal(mine, theirs)
