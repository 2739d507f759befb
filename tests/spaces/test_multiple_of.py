"""Widths that are multiples of a number, in every space and for every searcher."""

import json
from pathlib import Path
from typing import Any

import larq_nas  # isort: skip  (it prepares TensorFlow)
import numpy as np
import pytest
from conftest import dimensions_of
from test_model import SHAPE, ends, residual

from larq_nas.choices import Expansion
from larq_nas.cost import QUANTITIES, Budget, Expected, Limits, SpaceCosts, profile
from larq_nas.errors import InputError
from larq_nas.searchers.dms.search import narrowed
from larq_nas.spaces import ModelWidths, ResNet18Cifar, Sample, Survey, VggSmall, Widest


def test_a_width_is_the_nearest_multiple_and_at_least_one() -> None:
    asked = Expansion("width", 48, (0.1, 0.5, 1, 1.3, 1.4, 2), multiple_of=32)
    assert asked.options == [32, 32, 64, 64, 64, 96]
    assert asked.parameters() == {"width": (0.1, 1.0, 2.0)}
    assert asked.of_value(1.4) == {"width": 1.0}
    assert asked.question() == ["filters", 48, [0.1, 0.5, 1, 1.3, 1.4, 2], 32]
    assert Expansion("width", 48, (1,)).question() == ["filters", 48, [1]]
    # The ratio of a width comes back to it.
    assert all(asked.width(width / 48) == width for width in range(32, 4096, 32))


SPACES = [
    (VggSmall(ratios=(0.1, 0.3, 0.55), multiple_of=32), (16, 16, 3)),
    (ModelWidths(ends(residual), (0.4, 1, 2.3), multiple_of=8), SHAPE),
]


@pytest.mark.parametrize(("space", "shape"), SPACES)
def test_all_widths_of_a_space_are_multiples(space, shape) -> None:
    costs = SpaceCosts(space, shape, 10)
    assert {one.multiple_of for one in costs.expansions.values()} == {space.multiple_of}
    for seed in range(3):
        choose = Sample.seeded(seed)
        model = space.build(choose, shape, 10)
        widths = [one.filters for one in model.layers if "quant" in type(one).__name__.lower()]
        assert not any(width % space.multiple_of for width in widths)
        built = profile(model).summary()
        assert costs.exact(choose.values) == {name: built[name] for name in QUANTITIES}
    for choose in (Survey(), Widest()):
        assert space.build(choose, shape, 10).count_params() > 0
        assert set(choose.structure()["multiple_of"].values()) == {space.multiple_of}


def test_a_space_without_it_is_written_as_before() -> None:
    assert "multiple_of" not in VggSmall().settings()
    assert VggSmall(multiple_of=32).settings()["multiple_of"] == 32
    assert VggSmall().survey((16, 16, 3), 10).structure().keys() == {"cells", "filters"}
    uniform = larq_nas.Architecture("vgg_small", {"expansion": 0.3, "multiple_of": 32})
    model = uniform.build((16, 16, 3), 10)
    assert [one.filters for one in model.layers if hasattr(one, "filters")] == [
        32,
        32,
        *[64] * 2,
        *[160] * 2,
    ]


def test_expected_costs_are_of_the_multiples() -> None:
    costs = SpaceCosts(VggSmall(ratios=(0.1, 0.3, 0.55), multiple_of=32), (16, 16, 3), 10)
    one_hot = {name: np.eye(3)[1] for name in costs.expansions}
    exact = costs.exact(dict.fromkeys(costs.expansions, 0.3))
    assert {name: int(cost) for name, cost in Expected(costs)(one_hot).items()} == exact


@pytest.mark.parametrize("mean", [0.13, 0.4, 0.77, 1.2, 2.6])
def test_widths_that_dms_derives_are_multiples_within_the_budget(mean: float) -> None:
    space, least = ResNet18Cifar(multiple_of=16), 0.25
    costs = SpaceCosts(space, (16, 16, 3), 10, least_ratio=least)
    made = dimensions_of(costs.expansions, initial_ratio=mean, scale=0.5, seed=0)
    ratios = made.ratios()
    limits = Limits(costs, Budget({"flatbuffer_bytes": 100_000, "binary_macs": 6_000_000}))
    found = narrowed(limits, ratios, least)
    assert limits.allow(found)
    assert found == ratios or not limits.allow(ratios)
    for name, ratio in found.items():
        width = costs.expansions[name].filters * ratio
        assert width == pytest.approx(costs.expansions[name].width(ratio))
        assert costs.expansions[name].width(ratio) % 16 == 0


@pytest.mark.parametrize("multiple", [0, -1, 1.5, True, "32", None, 10**6])
def test_what_is_no_number_of_channels_is_refused(multiple: object) -> None:
    asking = [
        lambda: Survey().filters("width", 8, (1,), multiple_of=multiple),
        lambda: VggSmall(multiple_of=multiple),
        lambda: ModelWidths(ends(residual), (1, 2), multiple_of=multiple),
    ]
    for ask in asking:
        with pytest.raises(InputError, match="`multiple_of`"):
            ask()


def test_another_multiple_is_another_question() -> None:
    choose = Survey()
    choose.filters("width", 8, (1, 2), multiple_of=8)
    with pytest.raises(InputError, match="asked before with other filters, ratios or multiples"):
        choose.filters("width", 8, (1, 2))


@pytest.mark.slow
@pytest.mark.parametrize(
    "searcher",
    [
        larq_nas.searchers.Dms(weight_epochs=1),
        larq_nas.searchers.Evolution(population=2, candidate_epochs=1, widest_epochs=1, confirm=0),
    ],
    ids=["dms", "evolution"],
)
def test_widths_that_are_found_are_multiples_within_the_budget(
    searcher: Any, digits: Any, tmp_path: Path
) -> None:
    model = larq_nas.search(
        *digits,
        space=ResNet18Cifar(ratios=(0.5, 1, 2), multiple_of=8),
        searcher=searcher,
        epochs=1,
        train_epochs=2,
        budget={"flatbuffer_bytes": "60KB"},
        directory=tmp_path / "run",
        verbose=0,
    )
    widths = [one.filters for one in model.layers if hasattr(one, "filters")]
    assert len(widths) > 10
    assert not any(width % 8 for width in widths)
    assert (tmp_path / "run" / "model.tflite").stat().st_size <= 60_000
    record = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert set(record["start"]["multiple_of"].values()) == {8}
