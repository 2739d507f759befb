"""Answers with what keras-tuner's hyperparameters draw: a candidate."""

import random
from itertools import combinations
from typing import Any

from larq_nas.choices import Choice, Pair, Value
from larq_nas.choosers.fix import Fix
from larq_nas.expansion import Expansion

__all__ = ["Sample"]


class Sample(Fix):
    """Answers with what keras-tuner's hyperparameters draw: a candidate.

    !!! example
        ```python
        choose = larq_nas.choosers.Sample(keras_tuner.HyperParameters())
        model = space.build(choose, (32, 32, 3), classes=10)
        choose.values  # the choices made, as an `Architecture` holds them
        ```

    # Arguments
        hyperparameters: a `keras_tuner.HyperParameters`; each choice becomes `Choice`
            parameters of the same name.
    """

    def __init__(self, hyperparameters: Any) -> None:
        super().__init__({})
        self.hyperparameters = hyperparameters
        self.values: dict[str, Value] = {}

    @classmethod
    def seeded(cls, seed: int) -> "Sample":
        """Return a chooser that draws each choice from a seed, all options being as likely."""
        return cls(_Seeded(seed))

    def _pairs(self, choice: Choice) -> list[Pair]:
        if choice.name not in self.values:
            self.values[choice.name] = choice.encode(self._draw(choice))
        return super()._pairs(choice)

    def _answer_filters(self, expansion: Expansion) -> int:
        if expansion.name not in self.values:
            # keras-tuner wants numbers of one type.
            ratios = [float(ratio) for ratio in expansion.ratios]
            drawn = self.hyperparameters.Choice(expansion.name, ratios)
            self.values[expansion.name] = expansion.decode(drawn)
        return super()._answer_filters(expansion)

    def _draw(self, choice: Choice) -> list[Pair]:
        names = list(choice.eligible)
        kept = list(combinations(range(choice.inputs), min(choice.keep, choice.inputs)))
        indices = kept[0]
        if len(kept) > 1:
            options = [",".join(map(str, option)) for option in kept]
            drawn = self.hyperparameters.Choice(f"{choice.name}/inputs", options)
            indices = kept[options.index(drawn)]
        return [
            (self.hyperparameters.Choice(f"{choice.name}/operation{slot}", names), index)
            for slot, index in enumerate(indices)
        ]


class _Seeded:
    """Draws like `keras_tuner.HyperParameters`, from a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def Choice(self, name: str, values: list[Any]) -> Any:  # noqa: N802 - keras-tuner's name
        return self._random.choice(values)
