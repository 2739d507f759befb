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
from larq_nas.files import write_atomically
from larq_nas.run import Run
from larq_nas.task import Task
from larq_nas.train import run_of, train_task
from larq_nas.training.recipe import Recipe

__all__ = ["Job", "finished_before", "jobs_of"]

_DIVERGED = "diverged.txt"


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

    @property
    def has_ended(self) -> bool:
        """Whether it has a result, or diverged."""
        return self.result is not None or self.failure is not None

    def run(self, recipe: Recipe, epochs: int) -> Run:
        """Return its run."""
        return run_of(self.architecture, self.task, recipe, None, epochs, self.folder)

    def train(self, recipe: Recipe, epochs: int, verbose: int | str) -> None:
        """Train, or note why that has no end."""
        run, space = self.run(recipe, epochs), self.entry.space
        self.failure = None
        if verbose:
            print(f"{self.entry.label}, seed {self.task.seed}: `{self.folder}`", flush=True)
        try:
            train_task(self.architecture, space, self.task, recipe, None, epochs, run, (), verbose)
            self.read()
        except DivergenceError as error:
            self.failure = str(error)
            write_atomically(self.folder / _DIVERGED, self.failure)
            warnings.warn(f"`{self.folder}` is left out: {error}", stacklevel=callers_level())
        tf.keras.backend.clear_session()

    def read(self) -> None:
        """Read what a training that has ended has left, if it has."""
        result, diverged = self.folder / "result.json", self.folder / _DIVERGED
        if result.exists():
            self.result = json.loads(result.read_text(encoding="utf-8"))
        elif diverged.exists():
            self.failure = diverged.read_text(encoding="utf-8")


def jobs_of(entry: Entry, task: Task, directory: Path, seed: int) -> list[Job]:
    """Return the trainings of an entry by one seed."""
    task = dataclasses.replace(task, seed=seed)
    folders = entry.folders(directory, seed)
    return [
        Job(entry, architecture, task, folder)
        for architecture, folder in zip(entry.architectures, folders, strict=True)
    ]


def finished_before(entry: Entry, task: Task, directory: Path, seeds: Sequence[int]) -> list[Job]:
    """Return what of an entry has ended in earlier calls, by other seeds than these."""
    names = [path.name for path in (directory / entry.folder).glob("*seed*")]
    known = {int(found[1]) for name in names if (found := re.search(r"seed(\d+)$", name))}
    others = [
        job for seed in sorted(known - set(seeds)) for job in jobs_of(entry, task, directory, seed)
    ]
    for job in others:
        job.read()
    return [job for job in others if job.has_ended]
