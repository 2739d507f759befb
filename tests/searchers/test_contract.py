"""What `search` refuses of a searcher that breaks the contract."""

import sys
from pathlib import Path

import larq_nas  # isort: skip  (it prepares TensorFlow)
import pytest
from conftest import EXAMPLES, quick

from larq_nas.errors import InputError
from larq_nas.spaces import Bats

sys.path.append(str(EXAMPLES))
from own_searcher import RandomSearch

SPACE = Bats(cells=3, channels=4, nodes=1)


class Returns(RandomSearch):
    """A searcher whose search returns what it is made with."""

    found = None

    def prepare(self, space, data, limits, epochs, recipe):
        return self

    def run(self, directory, callbacks=(), verbose="auto"):
        return self.found


@pytest.mark.parametrize(
    ("found", "message"),
    quick(
        [
            (None, "`random` must return an Architecture, but returned None"),
            (
                larq_nas.Architecture.random(Bats(cells=3, channels=8, nodes=1), (8, 8, 1), 10, 0),
                "must return an architecture of space `bats` with its settings",
            ),
            (
                larq_nas.Architecture.random(SPACE, (8, 8, 1), 10, 0),
                r"returned an architecture over the budget: it needs [\d,]+ parameters .limit",
            ),
        ],
        1,
    ),
)
def test_what_a_search_returns_is_checked(digits, tmp_path: Path, found, message: str) -> None:
    searcher = Returns()
    object.__setattr__(searcher, "found", found)
    costs = larq_nas.cost.SpaceCosts(SPACE, (8, 8, 1), 10)
    own = larq_nas.Architecture.random(SPACE, (8, 8, 1), 10, 0).choices
    budget = {"parameters": int(costs.exact(own)["parameters"]) - 1}
    with pytest.raises(InputError, match=message):
        larq_nas.search(
            *digits,
            SPACE,
            searcher,
            budget=budget,
            epochs=1,
            train_epochs=0,
            verbose=0,
            directory=tmp_path / "run",
        )
    assert not (tmp_path / "run" / "architecture.json").exists()
