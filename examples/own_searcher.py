"""A searcher of one's own: random architectures, each trained for a few epochs.

larq_nas.search(train, validation, space="vgg_small", searcher=RandomSearch(candidates=8))
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, ClassVar

import larq_nas
from larq_nas.errors import InputError, require_whole
from larq_nas.training.trainer import Trainer


@dataclass(frozen=True)
class RandomSearch:
    """Train random architectures that keep to the budget, and take the most accurate."""

    name: ClassVar[str] = "random"
    default_epochs: ClassVar[int] = 5
    several_devices: ClassVar[bool] = False
    several_processes: ClassVar[bool] = False
    smallest_ratio: ClassVar[float | None] = None

    candidates: int = 4
    draws: int = 1000

    def __post_init__(self) -> None:
        require_whole(candidates=self.candidates, draws=self.draws)

    def settings(self) -> dict[str, Any]:
        return {"name": self.name, **dataclasses.asdict(self)}

    def prepare(self, space: Any, data: Any, limits: Any, epochs: int, recipe: Any) -> "RandomRun":
        shape, classes = data.facts.input_shape, data.facts.classes
        drawn = (
            larq_nas.Architecture.random(space, shape, classes, 1000 * data.seed + number)
            for number in islice(count(), self.draws)
        )
        fit = (one for one in drawn if limits is None or limits.allow(one.choices))
        found = list(islice(fit, self.candidates))
        if not found or not found[0].choices:
            raise InputError(
                f"Space `{space.name}` asks nothing, or no network drawn keeps to the budget."
            )
        return RandomRun([Trainer(one, space, data, recipe) for one in found], epochs)


@dataclass(frozen=True)
class RandomRun:
    """The candidates' trainings."""

    trainers: Sequence[Trainer]
    epochs: int

    def run(self, directory: Any, callbacks: Any = (), verbose: Any = "auto") -> Any:
        def accuracy(number: int) -> float:
            trainer, part = self.trainers[number], directory.part(f"candidate{number}")
            model = trainer.train(self.epochs, part, callbacks, verbose)
            return trainer.measure(model)["accuracy"]

        best = max(range(len(self.trainers)), key=accuracy)
        return self.trainers[best].architecture
