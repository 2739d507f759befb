import dataclasses
import itertools
import json

import numpy as np
import pytest

from larq_nas.choices import Choice, Depth, Expansion, share_parameter_free
from larq_nas.errors import InputError

CHOICE = Choice("normal/3", ("conv", "pool", "zero"), inputs=3, keep=2, zeros=frozenset({"zero"}))


def test_strongest_keeps_two_inputs_and_never_zero() -> None:
    probabilities = np.array([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2], [0.05, 0.9, 0.05]])
    assert CHOICE.strongest(probabilities) == [("conv", 1), ("pool", 2)]


def test_strongest_breaks_ties_by_order() -> None:
    assert CHOICE.strongest(np.full((3, 3), 1 / 3)) == [("conv", 0), ("conv", 1)]


def test_group_is_the_kind_of_cell() -> None:
    assert CHOICE.group == "normal"
    assert Choice("block1", ("a",)).group == "block1"


def test_values_survive_json_form() -> None:
    pairs = [("conv", 0), ("conv", 2)]
    assert CHOICE.decode(CHOICE.encode(pairs)) == pairs
    single = Choice("block1", ("a", "b"))
    assert single.encode([("b", 0)]) == "b"
    assert single.decode("b") == [("b", 0)]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([["conv", 0]], "expects 2 pairs"),
        ([["conv", 0], ["conv"]], "expects 2 pairs"),
        ([["conv", 0], ["convolution", 1]], "did you mean `conv`"),
        ([["conv", 0], ["conv", 3]], "inputs 0 to 2"),
        ([["conv", 0], ["conv", True]], "inputs 0 to 2"),
        (None, "expects 2 pairs"),
        ("conv", "expects 2 pairs"),
    ],
)
def test_values_that_do_not_fit_are_refused(value: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        CHOICE.decode(value)


def test_share_of_parameter_free_operations() -> None:
    free = frozenset(("pool", i) for i in (1, 2, 3))
    choice = Choice("a", ("conv", "pool"), parameter_free=free)
    chosen = {"a": [("conv", 0), ("pool", 1), ("pool", 2), ("pool", 3)]}
    assert share_parameter_free({"a": choice}, chosen) == 0.75


def test_zero_competes_where_it_is_kept() -> None:
    probabilities = np.array([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2], [0.05, 0.9, 0.05]])
    kept = dataclasses.replace(CHOICE, keep_zero=True)
    assert kept.strongest(probabilities) == [("zero", 0), ("pool", 2)]
    assert CHOICE.question() == [["conv", "pool", "zero"], 3, 2]
    assert kept.question() == [*CHOICE.question(), "keep_zero"]


OPTIONS = {
    Choice("block1", ("a", "b")): {"block1": ("a", "b")},
    CHOICE: {
        "normal/3/inputs": ("0,1", "0,2", "1,2"),
        "normal/3/operation0": ("conv", "pool"),
        "normal/3/operation1": ("conv", "pool"),
    },
    Choice("cell/2", ("a", "b"), inputs=2, keep=2): {
        "cell/2/operation0": ("a", "b"),
        "cell/2/operation1": ("a", "b"),
    },
    Choice("cell/1", ("a",), inputs=1, keep=2): {"cell/1/operation0": ("a",)},
    Depth.between("section", 2, 4): {"section": (2, 3, 4)},
    Expansion("width", 8, (1, 0.5, 1.01, 2)): {"width": (1.0, 0.5, 2.0)},
}


@pytest.mark.parametrize("asked", OPTIONS, ids=lambda asked: asked.name)
def test_values_are_made_of_parameters(asked: Choice | Expansion) -> None:
    """Each combination gives a value that decodes, another one, and comes back."""
    options = asked.parameters()
    assert options == OPTIONS[asked]
    values = []
    for scalars in itertools.product(*options.values()):
        parameters = dict(zip(options, scalars, strict=True))
        value = asked.value({**parameters, "other": 1})
        asked.decode(json.loads(json.dumps(value)))
        assert asked.of_value(value) == parameters
        values.append(value)
    assert len(values) == len({json.dumps(value) for value in values})


def test_parameters_of_values_that_no_draw_gives() -> None:
    twice = [["conv", 1], ["pool", 1]]
    assert CHOICE.value(CHOICE.of_value(twice)) == twice
    assert CHOICE.of_value([["pool", 2], ["conv", 0]]) == CHOICE.of_value(
        [["conv", 0], ["pool", 2]]
    )
    both = Choice("cell/2", ("a", "b"), inputs=2, keep=2)
    assert both.value(both.of_value([["a", 1], ["b", 1]])) == [["a", 1], ["b", 1]]
    width = Expansion("width", 8, (0.5, 1))
    assert width.of_value(0.51) == {"width": 0.5}
    assert width.of_value(1.5) == {"width": 1.5}
    with pytest.raises(InputError, match="expects a ratio"):
        width.of_value("a")


@pytest.mark.parametrize("value", [1, 5, 2.0, True, "2", None, [["2", 0]]])
def test_depths_that_do_not_fit_are_refused(value: object) -> None:
    depth = Depth.between("section", 2, 4)
    assert depth.encode(depth.decode(3)) == 3
    assert depth.question() == ["depth", 2, 4]
    with pytest.raises(InputError, match="`section` expects a number of blocks, 2 to 4, but got"):
        depth.decode(value)
