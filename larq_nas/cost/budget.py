"""Budgets with units, and the networks of a space that keep to them."""

import math
import numbers
import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any, TypeAlias

import numpy as np

from larq_nas.choices import Choice, Chosen, Pair, all_alive, exchanges, revivals, revive
from larq_nas.cost.space import SpaceCosts
from larq_nas.errors import InputError, unknown_name

__all__ = [
    "BUDGETS",
    "Budget",
    "Limits",
    "Linearized",
    "linearize",
    "require_feasible",
    "score",
    "strongest_within",
]


BUDGETS = {
    "max_memory": "weight_bits",
    "max_flatbuffer": "flatbuffer_bytes",
    "max_activation_memory": "activation_bytes",
    "max_macs": "macs",
    "max_binary_macs": "binary_macs",
    "max_parameters": "parameters",
    "max_latency": "latency",
}
"""The quantity that each limit is about."""

_UNITS = {"max_memory": 8}
_BYTES = ("max_memory", "max_flatbuffer", "max_activation_memory")
_SECONDS = {"us": 1, "ms": 10**3, "s": 10**6}
_DECIMAL = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
_BINARY = {"K": 2**10, "M": 2**20, "G": 2**30}
_NUMBER = re.compile(r"\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*([kKmMgG]?)(i?)([bB]?)\s*")
# A prediction of the file may be off by this much; a network must keep to its limit even so.
_SHARE_OFF, _BYTES_OFF = 0.01, 512


def amount(name: str, value: float | str) -> int:
    """Return a limit as a whole number: bytes, a count, or microseconds.

    # Arguments
        name: name of the limit, such as `"max_memory"`.
        value: a number, or text such as `"64KB"` (1,000 bytes each), `"64KiB"` (1,024) or
            `"1.5M"`; for `"max_latency"` such as `"5ms"` or `"800us"`.

    # Raises
        InputError: if it is none of these, or not above 0.
    """
    if name == "max_latency":
        return _microseconds(value)
    number = _parse(value, name in _BYTES)
    if number is None or not 1 <= number < 1e18:
        forms = '"64KB", "48KiB" or "1.5M"' if name in _BYTES else '"1.5M" or "300K"'
        unit = "bytes" if name in _BYTES else "operations or weights"
        raise InputError(
            f"`{name}` must be a number of {unit}, 1 or more, or text like {forms}, but got "
            f"{value!r}."
        )
    return int(number)


def _microseconds(value: object) -> int:
    match = re.fullmatch(r"\s*([0-9.]+)\s*(us|ms|s)\s*", value) if isinstance(value, str) else None
    try:
        number = float(match[1]) * _SECONDS[match[2]] if match else value
    except ValueError:
        number = None
    whole = isinstance(number, float) or (isinstance(number, int) and not isinstance(number, bool))
    if not whole or not 1 <= number < 1e18:  # type: ignore[operator]
        raise InputError(
            '`max_latency` must be text like "5ms" or "800us", or a number of microseconds, 1 or '
            f"more, but got {value!r}."
        )
    return int(number)  # type: ignore[call-overload]


def _parse(value: object, in_bytes: bool) -> float | None:
    if isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_):
        try:
            return float(value)
        except OverflowError:
            return None
    match = _NUMBER.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    digits, prefix, binary, byte = match.groups()
    if ((binary or byte) and not in_bytes) or (binary and not prefix):
        return None
    try:
        return float(digits) * (_BINARY if binary else _DECIMAL)[prefix.upper()]
    except ValueError:
        return None


@dataclass(frozen=True)
class Budget:
    """What a network may cost at most.

    # Arguments
        limits: bytes, counts or microseconds by the name of the limit; see `BUDGETS`.
    """

    limits: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, limit in self.limits.items():
            if name not in BUDGETS:
                raise unknown_name("budget", name, BUDGETS)
            amount(name, limit)

    @classmethod
    def parse(cls, limits: Mapping[str, float | str | None]) -> "Budget":
        """Return the budget of those limits that are given, with units or without."""
        given = {name: value for name, value in limits.items() if value is not None}
        return cls({k: amount(k, v) if k in BUDGETS else 1 for k, v in given.items()})

    def __bool__(self) -> bool:
        return bool(self.limits)

    def use(self, costs: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a network uses of each limit, as a share of it; above 1 is too much.

        # Arguments
            costs: the network's costs by quantity: numbers, arrays or tensors.
        """
        return {name: charged(name, costs) / limit for name, limit in self.limits.items()}

    def excess(self, costs: Mapping[str, Any]) -> float:
        """Return by which share a network is over its limits, in sum; 0 if it keeps to them."""
        return float(sum(max(0.0, float(used) - 1) for used in self.use(costs).values()))

    def report(self, costs: Mapping[str, Any]) -> str:
        """Return what a finished network uses of each limit, for a reader."""
        return ", ".join(
            f"{math.ceil(costs[BUDGETS[name]] / _UNITS.get(name, 1)):,} of {name}={limit:,}"
            + (" microseconds" if name == "max_latency" else "")
            for name, limit in self.limits.items()
        )

    def describe(self, costs: Mapping[str, Any]) -> str:
        """Return what a network needs of each limit it exceeds, for a reader."""
        over = [name for name, used in self.use(costs).items() if float(used) > 1]
        return ", ".join(
            f"{required(name, costs):,} of {name}={self.limits[name]:,}" for name in over
        )


def charged(name: str, costs: Mapping[str, Any]) -> Any:
    """Return what counts against a limit, in its unit."""
    cost = costs[BUDGETS[name]] / _UNITS.get(name, 1)
    if name == "max_flatbuffer":
        return cost + _BYTES_OFF + cost * _SHARE_OFF
    return cost


def required(name: str, costs: Mapping[str, Any]) -> int:
    """Return the smallest limit that a network keeps to."""
    return math.ceil(float(charged(name, costs)))


@dataclass(frozen=True)
class Linearized:
    """Costs around one network: what each pair adds in place of the pair that is chosen.

    For costs that add up over a network's operations it is exact everywhere; for the others
    (memory of activations, what constants share) it is exact for one changed pair.

    # Arguments
        chosen: the network.
        costs: its costs.
        slopes: for each quantity and choice what each `(input, operation)` costs, up to a
            number that is the same for the whole choice, shape `(inputs, operations)`.
    """

    chosen: Chosen
    costs: Mapping[str, Any]
    slopes: Mapping[str, Mapping[str, np.ndarray]]


def linearize(
    costs: SpaceCosts, chosen: Chosen, ratios: Mapping[str, float] | None = None
) -> Linearized:
    """Return how the costs change around one network.

    # Arguments
        costs: the costs of its space.
        chosen: the network's operations.
        ratios: the ratio of each width; by default those nearest to 1.
    """
    base = costs.of(chosen, ratios)
    slopes: dict[str, dict[str, np.ndarray]] = {name: {} for name in costs.quantities}
    for name, choice in costs.choices.items():
        found = _slopes(costs, chosen, ratios, choice, base)
        for quantity in costs.quantities:
            slopes[quantity][name] = found[quantity]
    return Linearized(dict(chosen), base, slopes)


def _slopes(
    costs: SpaceCosts,
    chosen: Chosen,
    ratios: Mapping[str, float] | None,
    choice: Choice,
    base: Mapping[str, Any],
) -> dict[str, np.ndarray]:
    own = list(chosen[choice.name])

    def change(slot: int, pair: Pair) -> np.ndarray:
        pairs = [pair if k == slot else kept for k, kept in enumerate(own)]
        found = costs.of({**chosen, choice.name: pairs}, ratios)
        return np.array([found[name] - base[name] for name in costs.quantities], dtype=np.float64)

    slots = {index: slot for slot, (_, index) in enumerate(own)}
    offsets = _offsets(choice, slots, change, len(base))
    slopes = np.zeros((len(base), choice.inputs, len(choice.operations)))
    for index in range(choice.inputs):
        slot = slots.get(index, 0)
        for column, operation in enumerate(choice.operations):
            if operation not in choice.eligible:
                continue
            slopes[:, index, column] = change(slot, (operation, index)) + offsets[slot]
    return {name: slopes[row] for row, name in enumerate(costs.quantities)}


def _offsets(
    choice: Choice, slots: Mapping[int, int], change: Any, quantities: int
) -> list[np.ndarray]:
    """Return what the pair of each slot costs more than that of slot 0.

    Both are replaced by the same pair on an input that is not kept, if there is one; where all
    inputs are kept, they are never compared.
    """
    spare = [index for index in range(choice.inputs) if index not in slots]
    zero = np.zeros(quantities)
    if not spare:
        return [zero] * len(slots)
    pair = (choice.any()[0][0], spare[0])
    first = change(0, pair)
    return [first - change(slot, pair) if slot else zero for slot in range(len(slots))]


_CHANGES = 8

Scores: TypeAlias = Mapping[str, np.ndarray]
"""How good each `(input, operation)` of each choice is."""


@dataclass(frozen=True)
class _Move:
    """Some choices made otherwise: by one pair, or two where one alone would leave only zeros."""

    changed: Mapping[str, list[Pair]]
    costs: np.ndarray
    score: float


def improve(
    around: Linearized, costs: SpaceCosts, scores: Scores, budget: Budget
) -> dict[str, list[Pair]]:
    """Return the network that changing pair after pair leads to, by the linear costs.

    While it is over the budget, the change is made that saves most for the score it gives up;
    then those that raise the score and keep to the budget. No cell is made zero on every path.
    """
    chosen = {name: list(pairs) for name, pairs in around.chosen.items()}
    quantities = [BUDGETS[name] for name in budget.limits]
    now = np.array([float(around.costs[name]) for name in quantities])

    def excess(values: np.ndarray) -> float:
        return budget.excess(dict(zip(quantities, values, strict=True)))

    moves = _Moves(around, costs, scores, quantities)
    for _ in range(_CHANGES * sum(map(len, chosen.values()))):
        over = excess(now)
        worth = _worth_when_over(over, now, excess) if over else _worth_within(now, excess)
        best = max(moves.living(chosen), key=worth, default=None)
        if best is None or worth(best) <= 1e-9:
            break
        chosen, now = {**chosen, **best.changed}, now + best.costs
    return chosen


class _Moves:
    """The changes that can be made to a network, with what they cost and gain."""

    def __init__(
        self, around: Linearized, costs: SpaceCosts, scores: Scores, quantities: list[str]
    ) -> None:
        self._choices = costs.choices
        self._cells_of = {
            name: [cell for cell in costs.cells if name in cell.questions.values()]
            for name in costs.choices
        }
        self._scores = scores
        self._slopes = {
            name: np.stack([around.slopes[quantity][name] for quantity in quantities])
            for name in costs.choices
        }

    def living(self, chosen: Mapping[str, list[Pair]]) -> Iterator[_Move]:
        """Yield each change of a pair, together with one that keeps its cell alive if need be."""
        for name, pairs in chosen.items():
            choice = self._choices[name]
            for _, changed in exchanges(pairs, choice.eligible, range(choice.inputs)):
                after = {**chosen, name: changed}
                dead = [
                    cell
                    for cell in self._cells_of[name]
                    if not all_alive([cell], self._choices, after)
                ]
                if not dead:
                    yield self._move(chosen, {name: changed})
                elif len(dead) == 1:
                    for mended in revivals(dead[0], self._choices, self._scores, after):
                        both = {name: changed, mended.choice: mended.pairs}
                        yield self._move(chosen, both)

    def _move(self, chosen: Chosen, changed: Mapping[str, list[Pair]]) -> _Move:
        costs: Any = 0.0
        gain = 0.0
        for name, pairs in changed.items():
            choice = self._choices[name]
            difference = choice.one_hot(pairs) - choice.one_hot(chosen[name])
            costs = costs + (self._slopes[name] * difference).sum(axis=(1, 2))
            gain += float((self._scores[name] * difference).sum())
        return _Move(changed, costs, gain)


def _worth_when_over(
    over: float, now: np.ndarray, excess: Callable[[np.ndarray], float]
) -> Callable[[_Move], float]:
    return lambda move: (over - excess(now + move.costs)) / (max(0.0, -move.score) + 1e-3)


def _worth_within(
    now: np.ndarray, excess: Callable[[np.ndarray], float]
) -> Callable[[_Move], float]:
    return lambda move: move.score if not excess(now + move.costs) else 0.0


def score(costs: SpaceCosts, scores: Scores, chosen: Chosen) -> float:
    one_hot = {name: costs.choices[name].one_hot(pairs) for name, pairs in chosen.items()}
    return float(sum((scores[name] * matrix).sum() for name, matrix in one_hot.items()))


_ROUNDS, _TRIED = 8, 32


@dataclass(frozen=True)
class Limits:
    """What a search must keep to.

    # Arguments
        costs: the costs of the space that the found network is of.
        budget: what it may cost at most.
    """

    costs: SpaceCosts
    budget: Budget

    def require_feasible(self) -> str:
        """Return a line on what a light network uses, or raise `InputError` if none fits."""
        light = self.costs.of(require_feasible(self.costs, self.budget), self.costs.narrowest)
        uses = [
            f"{name}={limit:,} (a network that fits needs {required(name, light):,})"
            for name, limit in self.budget.limits.items()
        ]
        return f"Budget of the found network: {', '.join(uses)}"


def require_feasible(costs: SpaceCosts, budget: Budget) -> Chosen:
    """Return operations of a network that keeps to `budget`, at the smallest widths.

    # Raises
        InputError: if none was found, naming the smallest limit that one was found for.
    """
    lightest = _lightest(costs, budget)
    needs = costs.of(lightest, costs.narrowest)
    if not budget.excess(needs):
        return lightest
    refused = []
    for name, limit in budget.limits.items():
        alone = lightest
        if len(budget.limits) > 1:
            alone = _lightest(costs, Budget({name: limit}))
        smallest = required(name, costs.of(alone, costs.narrowest))
        if smallest > limit:
            unit = " microseconds" if name == "max_latency" else ""
            refused.append(f"`{name}` must be at least {smallest:,}{unit}, but got {limit:,}")
    if refused:
        raise InputError(
            f"{'; '.join(refused)}: the lightest network found in space `{costs.space.name}` with "
            "these settings needs so much; raise the limit, or make the space smaller."
        )
    raise InputError(
        f"No network of space `{costs.space.name}` was found that keeps to all limits at once; "
        f"the nearest needs {budget.describe(needs)}: raise a limit, or make the space smaller."
    )


def strongest_within(costs: SpaceCosts, scores: Scores, budget: Budget) -> Chosen:
    """Return the operations of the best network that keeps to `budget`.

    The best is the one with the largest sum of scores, and no cell that is zero on every path.
    It is looked for by changing single pairs, from the strongest network down and from the
    lightest up; every network is costed exactly before it is taken.

    # Arguments
        costs: the costs of the space.
        scores: how good each pair of each choice is, shape `(inputs, operations)`.
        budget: what to keep to.

    # Raises
        InputError: if no network is found that keeps to it, or the space chooses widths.
    """
    if costs.expansions:
        raise InputError(
            f"Space `{costs.space.name}` must choose operations alone, but it chooses widths too."
        )
    strongest = {name: choice.strongest(scores[name]) for name, choice in costs.choices.items()}
    living, _ = revive(costs.cells, costs.choices, scores, strongest)
    starts = [living, require_feasible(costs, budget)]
    found = [_best_from(start, costs, scores, budget) for start in starts]
    within = [chosen for chosen in found if chosen is not None]
    return max(within, key=lambda chosen: score(costs, scores, chosen))


def _best_from(start: Chosen, costs: SpaceCosts, scores: Scores, budget: Budget) -> Chosen | None:
    """Return the best network within the budget on the way from `start`, if there is one."""
    best, found = None, start
    for _ in range(_ROUNDS):
        within = not budget.excess(costs.of(found))
        if within and (best is None or score(costs, scores, found) > score(costs, scores, best)):
            best = found
        changed = improve(linearize(costs, found), costs, scores, budget)
        if changed == found:
            break
        found = changed
    return best


def _lightest(costs: SpaceCosts, budget: Budget) -> Chosen:
    """Return the operations that exceed `budget` least, as far as is found.

    Memory that several operations hold does not shrink when one of them is changed. So many
    networks are tried, and the least heavy is made lighter by single changes.
    """
    ratios, draw = costs.narrowest, random.Random(0)
    alike = [living for one in _of_one_operation(costs) for living in _revived(costs, one)]
    drawn = [_random(costs, draw) for _ in range(_TRIED)]
    tried = [one for one in (*alike, *drawn) if all_alive(costs.cells, costs.choices, one)]

    def excess(chosen: Chosen) -> float:
        return budget.excess(costs.of(chosen, ratios))

    found = min(tried, key=excess)
    nothing = {
        name: np.zeros((choice.inputs, len(choice.operations)))
        for name, choice in costs.choices.items()
    }
    while now := excess(found):
        changed = improve(linearize(costs, found, ratios), costs, nothing, budget)
        if excess(changed) >= now:
            break
        found = changed
    return found


def _of_one_operation(costs: SpaceCosts) -> list[Chosen]:
    """Return the networks that take the same operation wherever it is offered."""
    names = dict.fromkeys(n for choice in costs.choices.values() for n in choice.eligible)
    networks: list[Chosen] = [
        {
            choice.name: [
                (name if name in choice.eligible else other, index) for other, index in choice.any()
            ]
            for choice in costs.choices.values()
        }
        for name in names
    ]
    return networks or [{}]


def _revived(costs: SpaceCosts, chosen: Chosen) -> Iterator[Chosen]:
    """Yield `chosen`, or where a cell would be zero, the networks with one operation in each."""
    if all_alive(costs.cells, costs.choices, chosen):
        yield chosen
        return
    choices = costs.choices
    names = dict.fromkeys(n for c in choices.values() for n in c.eligible if n not in c.zeros)
    inputs = max(choice.inputs for choice in choices.values())
    for operation, index in product(names, range(inputs)):
        wanted = {
            name: choice.one_hot([(operation, index)])
            if operation in choice.operations and index < choice.inputs
            else np.zeros((choice.inputs, len(choice.operations)))
            for name, choice in choices.items()
        }
        yield revive(costs.cells, choices, wanted, chosen)[0]


def _random(costs: SpaceCosts, draw: random.Random) -> Chosen:
    return {
        name: [
            (draw.choice(choice.eligible), index)
            for index in sorted(draw.sample(range(choice.inputs), len(choice.any())))
        ]
        for name, choice in costs.choices.items()
    }
