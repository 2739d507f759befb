import dataclasses

import numpy as np
import pytest

from larq_nas.choices import Choice, share_parameter_free
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
