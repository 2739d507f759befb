"""The trainings of a comparison: of each architecture, one for each seed."""

import dataclasses
import json
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from larq_nas.architecture import Architecture
from larq_nas.comparing.entries import Entry
from larq_nas.errors import DivergenceError, callers_level
from larq_nas.run import Run
from larq_nas.task import Task
from larq_nas.train import run_of, train_task
from larq_nas.training.recipe import Recipe

__all__ = ["Job", "finished_before", "jobs_of"]


@dataclasses.dataclass
class Job:
    """A training of a comparison."""

    entry: Entry
    architecture: Architecture
    task: Task
    folder: Path
    result: dict[str, Any] | None = None
    failure: str | None = None

    @property
    def flatbuffer(self) -> Path:
        """The file of its network, if it was converted."""
        return self.folder / "model.tflite"

    def run(self, recipe: Recipe, epochs: int) -> Run:
        """Return its run."""
        return run_of(self.architecture, self.task, recipe, None, epochs, self.folder)

    def train(self, recipe: Recipe, epochs: int, verbose: int | str) -> None:
        """Train, or note why that has no end."""
        run, space = self.run(recipe, epochs), self.entry.space
        if verbose:
            print(f"{self.entry.label}, seed {self.task.seed}: `{self.folder}`", flush=True)
        try:
            train_task(self.architecture, space, self.task, recipe, None, epochs, run, (), verbose)
            self.read()
        except DivergenceError as error:
            self.failure = str(error)
            warnings.warn(f"`{self.folder}` is left out: {error}", stacklevel=callers_level())
        tf.keras.backend.clear_session()

    def read(self) -> None:
        """Read what a finished training has left."""
        self.result = json.loads((self.folder / "result.json").read_text(encoding="utf-8"))


def jobs_of(entry: Entry, task: Task, directory: Path, seed: int) -> list[Job]:
    """Return the trainings of an entry by one seed."""
    task = dataclasses.replace(task, seed=seed)
    folders = entry.folders(directory, seed)
    return [
        Job(entry, architecture, task, folder)
        for architecture, folder in zip(entry.architectures, folders, strict=True)
    ]


def finished_before(entry: Entry, task: Task, directory: Path, seeds: Sequence[int]) -> list[Job]:
    """Return what earlier calls have finished of an entry, by other seeds than these."""
    names = [path.parent.name for path in (directory / entry.folder).glob("*/result.json")]
    known = {int(found[1]) for name in names if (found := re.search(r"seed(\d+)$", name))}
    others = [
        job
        for seed in sorted(known - set(seeds))
        for job in jobs_of(entry, task, directory, seed)
        if (job.folder / "result.json").exists()
    ]
    for job in others:
        job.read()
    return others
