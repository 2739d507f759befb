"""Answers with the largest width everywhere: the network that narrower ones are parts of."""

from larq_nas.choosers.fix import Survey
from larq_nas.expansion import Expansion, Filters

__all__ = ["Widest"]


class Widest(Survey):
    """Answers with the largest width everywhere, remembering the choice."""

    def _answer_filters(self, expansion: Expansion) -> int:
        return Filters(max(expansion.options), lambda answers: answers[expansion.name])
