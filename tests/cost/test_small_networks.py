"""The table of the smallest networks in docs/budgets.md, and what a refused budget advises."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from conftest import quick
from small_networks import SPACES, row

from larq_nas.cli.common import plan_of
from larq_nas.cli.search import search
from larq_nas.cost import Budget, SpaceCosts, require_feasible
from larq_nas.cost.budget import require_light
from larq_nas.errors import InputError
from larq_nas.spaces import Bats, ResNet18Cifar, VggSmall
from larq_nas.spaces.space import FunctionSpace

PAGE = Path(__file__).parents[2] / "docs" / "budgets.md"


@pytest.mark.parametrize(("name", "settings"), quick(SPACES, 1, 7))
def test_the_table_is_what_the_spaces_need(name: str, settings: dict[str, Any]) -> None:
    assert row(name, settings) in PAGE.read_text().splitlines()


@pytest.mark.parametrize(
    ("space", "size", "least", "limit", "advice"),
    [
        (Bats(cells=1), 8, None, 6700, "give the space `channels=4 nodes=1` .values between"),
        (Bats(cells=1, search_channels=8), 8, None, 6700, "give the space `channels=4 nodes=1` "),
        (Bats(cells=1), 16, None, 10000, "give the space `channels=4 nodes=1 stem=imagenet`"),
        (
            Bats(cells=1, channels=4, nodes=1),
            8,
            None,
            800,
            "smaller images or another or a smaller space",
        ),
        (VggSmall(), 8, None, 3000, "give the space `ratios=0.066,0.25,0.5,1,2,3,4`"),
        (VggSmall(), 8, 0.3, 3000, "give the searcher `least_mean=0.066 least_ratio=0.066`"),
        (ResNet18Cifar(), 16, None, 3500, "smaller images .*: narrower widths do not help"),
        (
            Bats(cells=1, channels=4, nodes=1),
            8,
            None,
            1700,
            "use `space` resnet18_cifar with the space's `ratios=0.125,0.25,0.5` and `searcher` ",
        ),
    ],
)
def test_a_refused_budget_names_what_needs_less(
    space: Any, size: int, least: float | None, limit: int, advice: str
) -> None:
    costs = SpaceCosts(space, (size, size, 3), 10, least_ratio=least)
    with pytest.raises(InputError, match=f"needs so much; raise the limit, or .*{advice}"):
        require_feasible(costs, Budget({"activation_bytes": limit}))


def test_images_above_the_limit_are_refused_before_a_space_is_built() -> None:
    def own(choose: object, input_shape: object, classes: object) -> None:
        raise AssertionError

    budget = Budget({"activation_bytes": 700})
    space = FunctionSpace(own)
    told = "`activation_bytes` must be at least 768, which images of 8x8x3 alone are, but got 700"
    with pytest.raises(InputError, match=told):
        require_light(space, (8, 8, 3), 10, budget)


def test_advice_is_within_the_budget() -> None:
    budget = Budget({"activation_bytes": 3000})
    require_feasible(SpaceCosts(VggSmall(ratios=(0.066, 0.25)), (8, 8, 3), 10), budget)
    require_feasible(SpaceCosts(VggSmall(), (8, 8, 3), 10, least_ratio=0.066), budget)


def test_the_command_for_small_memories_can_be_met() -> None:
    text = re.search(
        r"larq-nas search (--space resnet18_cifar .*?)```", PAGE.read_text(), re.DOTALL
    )
    assert text
    arguments = shlex.split(text[1].replace("\\\n", " "))
    given = search.make_context("search", arguments).params
    plan = plan_of(*(given[n] for n in ("method", "space", "searcher", "recipe", "settings")))
    shape = (given["image_size"], given["image_size"], 3)
    costs = SpaceCosts(plan.space, shape, 10, least_ratio=plan.searcher.smallest_ratio)
    require_feasible(costs, Budget.parse(given["budget"]))
