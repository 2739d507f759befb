"""The table of the smallest networks in docs/own_data.md, and what a refused budget advises."""

from pathlib import Path
from typing import Any

import pytest
from conftest import quick
from small_networks import SPACES, row

from larq_nas.cost import Budget, SpaceCosts, require_feasible
from larq_nas.errors import InputError
from larq_nas.spaces import Bats, VggSmall

PAGE = Path(__file__).parents[2] / "docs" / "own_data.md"


@pytest.mark.parametrize(("name", "settings"), quick(SPACES, 1, 7))
def test_the_table_is_what_the_spaces_need(name: str, settings: dict[str, Any]) -> None:
    assert row(name, settings) in PAGE.read_text().splitlines()


@pytest.mark.parametrize(
    ("space", "advice"),
    [
        (Bats(cells=1, nodes=1), "fewer `channels` .32., `nodes` .1. or `cells` .1."),
        (VggSmall(), "smaller `ratios` than 0.25"),
    ],
)
def test_a_refused_budget_names_the_settings_that_need_less(space: Any, advice: str) -> None:
    costs = SpaceCosts(space, (8, 8, 1), 10)
    with pytest.raises(InputError, match=f"needs so much; raise the limit, or .*{advice}"):
        require_feasible(costs, Budget({"activation_bytes": 10}))
