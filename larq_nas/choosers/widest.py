"""Answers with the largest width everywhere: the network that narrower ones are parts of."""

from collections.abc import Mapping

from larq_nas.choosers.fix import Survey
from larq_nas.expansion import Expansion, Filters

__all__ = ["Widest"]


class Widest(Survey):
    """Answers with the largest width everywhere, remembering the choice.

    # Arguments
        widths: number of filters of each choice by name, in place of the largest of its options.
    """

    def __init__(self, widths: Mapping[str, int] | None = None) -> None:
        super().__init__()
        self._widths = widths

    def _answer_filters(self, expansion: Expansion) -> int:
        widths = self._widths
        widest = max(expansion.options) if widths is None else widths[expansion.name]
        return Filters(widest, lambda answers: answers[expansion.name])
