"""Budgets with units, and the networks of a space that keep to them."""

import math
import numbers
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf
from quantiphy import QuantiPhyError, Quantity

from larq_nas.choices import (
    Choice,
    Chosen,
    Pair,
    Scores,
    Value,
    all_alive,
    exchanges,
    revivals,
    revive,
    strongest,
)
from larq_nas.cost.profile import LATENCY, QUANTITIES
from larq_nas.cost.space import SpaceCosts
from larq_nas.errors import InputError, first_line, require_known
from larq_nas.spaces.chooser import ImageShape
from larq_nas.spaces.space import Space, is_built_in, resolve

COSTS = (*QUANTITIES, LATENCY)
"""What a budget may limit."""

# What users call them.
_MEANT = {
    **dict.fromkeys(("flash", "rom", "size", "file_size", "tflite"), "flatbuffer_bytes"),
    **dict.fromkeys(("ram", "sram", "memory"), "activation_bytes"),
    **dict.fromkeys(("time", "ms", "milliseconds", "speed"), LATENCY),
}

# Digits, of which commas part thousands, and a unit: other text, pasted numbers or a second limit,
# would be read as some number too.
_NUMBER = re.compile(
    r"[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d*)?(?:[eE][+-]?\d+)?\s*[^\W\d_]*", re.ASCII
)
_BYTES = ("weight_bytes", "flatbuffer_bytes", "activation_bytes")
# A prediction of the file may be off by this much; a network must keep to its limit even so.
_SHARE_OFF, _BYTES_OFF = 0.01, 512


def amount(name: str, value: float | str) -> int:
    """Return a limit as a whole number: bytes, a count, or microseconds.

    A value is a number, or text such as `"64KB"` (1,000 bytes each), `"64KiB"` (1,024) or
    `"1.5M"`; for `"latency"` such as `"5ms"` or `"800us"`.

    # Raises
        InputError: if it is none of these, or not above 0.
    """
    number = math.nan
    if isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_):
        number = float(value) if abs(value) < 1e18 else math.nan
    elif isinstance(value, str):
        number = _parse(value, {"latency": "s"}.get(name, "B" if name in _BYTES else ""))
    if 1 <= number < 1e18:
        return int(number)
    forms = '"1.5M" or "300K", or a number of operations or weights'
    if name == LATENCY:
        forms = '"5ms" or "800us", or a number of microseconds'
    elif name in _BYTES:
        forms = '"64KB" or "48KiB", or a number of bytes'
    raise InputError(
        f"`budget` of `{name}` must be text like {forms}, 1 or more, but got {value!r}"
        f"{_hint(value)}."
    )


def _hint(value: object) -> str:
    """Return what to write in place of text that holds more than one limit, or a comma."""
    if isinstance(value, str) and "=" in value:
        return ": give each limit on its own"
    if isinstance(value, str) and "," in value:
        return ': decimals follow a point, and commas part thousands alone, as in "1,500.5KB"'
    return ""


def _parse(text: str, unit: str) -> float:
    """Return what a text with a unit stands for, in bytes or microseconds; NaN for others."""
    text = text.strip()
    if not _NUMBER.fullmatch(text.replace("µ", "u").replace("μ", "u")):
        return math.nan
    try:
        quantity = Quantity(text, binary=True)
    except QuantiPhyError:
        return math.nan
    # A count of bytes needs no unit; a time does, and "5MS" are no milliseconds.
    if quantity.units not in {"B": ("", "B", "b"), "s": ("s",), "": ("",)}[unit]:
        return math.nan
    # The text's own decimals, not those of a product of floats.
    return round(float(quantity) * 1e6, 6) if unit == "s" else float(quantity)


@dataclass(frozen=True)
class Budget:
    """What a network may cost at most.

    # Arguments
        limits: bytes, counts or microseconds by the name of the cost; see `COSTS`.
    """

    limits: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, limit in self.limits.items():
            require_known("budget", name, COSTS, _MEANT)
            amount(name, limit)
        parsed = {name: amount(name, limit) for name, limit in self.limits.items()}
        object.__setattr__(self, "limits", parsed)

    @classmethod
    def parse(cls, budget: "BudgetLike | None") -> "Budget":
        """Return a budget, of limits with units or without."""
        if isinstance(budget, Budget):
            return budget
        if not isinstance(budget, Mapping | None):
            raise InputError(
                '`budget` must be limits by name, such as {"flatbuffer_bytes": "64KB"}, but got '
                f"{budget!r}."
            )
        return cls({k: amount(k, v) if k in COSTS else 1 for k, v in (budget or {}).items()})

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

    def hinge(self, costs: Mapping[str, Any]) -> tf.Tensor:
        """Return `sum_b max(0, c_b / b - 1)` over the limits `b`, differentiable in the costs.

        # Arguments
            costs: the network's costs by quantity: tensors.
        """
        over = [tf.maximum(tf.cast(share, tf.float32) - 1, 0) for share in self.use(costs).values()]
        return tf.add_n(over)

    def report(self, costs: Mapping[str, Any]) -> str:
        """Return what a finished network uses of each limit, for a reader."""
        return ", ".join(
            f"{math.ceil(costs[name]):,} of {name}={limit:,}"
            + (" microseconds" if name == LATENCY else "")
            for name, limit in self.limits.items()
        )

    def describe(self, costs: Mapping[str, Any]) -> str:
        """Return what a network needs of each limit it exceeds, for a reader."""
        over = [name for name, used in self.use(costs).items() if float(used) > 1]
        return ", ".join(
            f"{required(name, costs):,} {name} (limit {self.limits[name]:,})" for name in over
        )


BudgetLike: TypeAlias = Budget | Mapping[str, float | str]
"""A budget, or limits by the names of costs, such as `{"flatbuffer_bytes": "64KB"}`."""


def charged(name: str, costs: Mapping[str, Any]) -> Any:
    """Return what counts against a limit."""
    if name == "flatbuffer_bytes":
        return costs[name] + _BYTES_OFF + costs[name] * _SHARE_OFF
    return costs[name]


def required(name: str, costs: Mapping[str, Any]) -> int:
    """Return the smallest limit that a network keeps to."""
    return math.ceil(float(charged(name, costs)))


@dataclass(frozen=True)
class Linearized:
    """Linear approximation of the costs at `chosen`: what another pair in place of one costs.

    For costs that add up over a network's operations it is exact everywhere; for the others
    (memory of activations, what constants share) it is exact for one changed pair. Slopes are
    by quantity and choice, of shape `(inputs, operations)`, up to a number for the whole choice.
    """

    chosen: Chosen
    costs: Mapping[str, Any]
    slopes: Mapping[str, Mapping[str, np.ndarray]]


def linearize(
    costs: SpaceCosts, chosen: Chosen, ratios: Mapping[str, float] | None = None
) -> Linearized:
    """Return how the costs change around one network, its ratios by default those nearest to 1."""
    base = costs.of(chosen, ratios)
    slopes: dict[str, dict[str, np.ndarray]] = {name: {} for name in costs.quantities}
    for name, choice in costs.choices.items():
        of_choice = _slopes(costs, chosen, ratios, choice, base)
        for quantity, slope in zip(costs.quantities, of_choice, strict=True):
            slopes[quantity][name] = slope
    return Linearized(dict(chosen), base, slopes)


def _slopes(
    costs: SpaceCosts,
    chosen: Chosen,
    ratios: Mapping[str, float] | None,
    choice: Choice,
    base: Mapping[str, Any],
) -> np.ndarray:
    own = list(chosen[choice.name])

    def change(slot: int, pair: Pair) -> np.ndarray:
        pairs = [pair if place == slot else other for place, other in enumerate(own)]
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
    return slopes


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


def improve(
    around: Linearized, costs: SpaceCosts, scores: Scores, budget: Budget
) -> dict[str, list[Pair]]:
    """Return the network that changing pair after pair leads to, by the linear costs.

    While it is over the budget, the change is made that saves most for the score it gives up;
    then those that raise the score and keep to the budget. No cell is made zero on every path.
    """
    chosen = {name: list(pairs) for name, pairs in around.chosen.items()}
    quantities = list(budget.limits)
    now = np.array([float(around.costs[name]) for name in quantities])
    slopes = {
        name: np.stack([around.slopes[quantity][name] for quantity in quantities])
        for name in costs.choices
    }

    def excess(values: np.ndarray) -> float:
        return budget.excess(dict(zip(quantities, values, strict=True)))

    for _ in range(_CHANGES * sum(map(len, chosen.values()))):
        over, most, best = excess(now), 1e-9, None
        for change in _living(costs, scores, chosen):
            added: Any = 0.0
            gain = 0.0
            for name, pairs in change.items():
                choice = costs.choices[name]
                difference = choice.one_hot(pairs) - choice.one_hot(chosen[name])
                added = added + (slopes[name] * difference).sum(axis=(1, 2))
                gain += float((scores[name] * difference).sum())
            after = now + added
            if over:
                worth = (over - excess(after)) / (max(0.0, -gain) + 1e-3)
            else:
                worth = gain if not excess(after) else 0.0
            if worth > most:
                most, best = worth, (change, after)
        if best is None:
            break
        chosen, now = {**chosen, **best[0]}, best[1]
    return chosen


def _living(
    costs: SpaceCosts, scores: Scores, chosen: Mapping[str, list[Pair]]
) -> Iterator[dict[str, list[Pair]]]:
    """Yield each change of a pair, together with one that keeps its cell alive if need be."""
    for name, pairs in chosen.items():
        choice = costs.choices[name]
        cells = [cell for cell in costs.cells if name in cell.questions.values()]
        for _, changed in exchanges(pairs, choice.eligible, range(choice.inputs)):
            after = {**chosen, name: changed}
            dead = [cell for cell in cells if not all_alive([cell], costs.choices, after)]
            if not dead:
                yield {name: changed}
            elif len(dead) == 1:
                for mended in revivals(dead[0], costs.choices, scores, after):
                    yield {name: changed, mended.choice: mended.pairs}


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

    def allow(self, values: Mapping[str, Value]) -> bool:
        """Return whether a network keeps to the budget.

        # Arguments
            values: the value of each choice by name, as an `Architecture` holds them.
        """
        return not self.budget.excess(self.costs.exact(values))

    def require_feasible(self) -> str:
        """Return a line on what a light network uses, or raise `InputError` if none fits."""
        if self.costs.expansions:
            some = {name: choice.any() for name, choice in self.costs.choices.items()}
            try:
                self.costs.of(some, self.costs.narrowest)
            except Exception as error:  # noqa: BLE001 - of the user's own function
                return (
                    "Budget of the found network: the narrowest cannot be built to tell whether "
                    f"one fits ({first_line(error)})"
                )
        light = self.costs.of(require_feasible(self.costs, self.budget), self.costs.narrowest)
        uses = [
            f"{name}={limit:,} (a network that fits needs {required(name, light):,})"
            for name, limit in self.budget.limits.items()
        ]
        return f"Budget of the found network: {', '.join(uses)}"


# What an operation with weights never has less of than one without, in place of which it is.
_OF_WEIGHTS = ("macs", "binary_macs", "parameters", "weight_bytes", "flatbuffer_bytes")


def require_light(space: Space, input_shape: ImageShape, classes: int, budget: Budget) -> None:
    """Raise `InputError` for limits that no network without weights in its operations keeps to.

    All of a space is built in many seconds, its operations without weights in a few. Of
    activations the images are known at once.
    """
    _require_images(input_shape, budget)
    limits = {name: limit for name, limit in budget.limits.items() if name in _OF_WEIGHTS}
    if limits and LATENCY not in budget.limits and is_built_in(space):
        costs = SpaceCosts(space, input_shape, classes, light=True)
        if costs.choices:
            require_feasible(costs, Budget(limits))


def _require_images(input_shape: ImageShape, budget: Budget) -> None:
    images, limit = 4 * math.prod(input_shape), budget.limits.get("activation_bytes", math.inf)
    if images > limit:
        raise InputError(
            f"`activation_bytes` must be at least {images:,}, which images of "
            f"{'x'.join(map(str, input_shape))} alone are, but got {limit:,}: use smaller images, "
            "or raise the limit."
        )


def require_feasible(costs: SpaceCosts, budget: Budget) -> Chosen:
    """Return operations of a network that keeps to `budget`, at the smallest widths.

    # Raises
        InputError: if none was found, naming the smallest limit that one was found for.
    """
    _require_images(costs.input_shape, budget)
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
            unit = " microseconds" if name == LATENCY else ""
            refused.append(f"`{name}` must be at least {smallest:,}{unit}, but got {limit:,}")
    if refused:
        raise InputError(
            f"{'; '.join(refused)}: the lightest network found in space `{costs.space.name}` with "
            f"these settings needs so much; raise the limit, or {_mend(costs, budget, lightest)}."
        )
    raise InputError(
        f"No network of space `{costs.space.name}` was found that keeps to all limits at once; "
        f"the nearest needs {budget.describe(needs)}: raise a limit, or "
        f"{_mend(costs, budget, lightest)}."
    )


# What shrinks with the images.
_OF_IMAGES = ("activation_bytes", "macs", "binary_macs", LATENCY)
_DECIMALS = 1000


def _mend(costs: SpaceCosts, budget: Budget, lightest: Chosen) -> str:
    """Return what to change so that a network keeps to `budget`, of what was seen to help."""
    if LATENCY in budget.limits:  # A table knows no other widths and channels.
        return "make the space smaller"
    if ratio := _ratio_within(costs, budget, lightest):
        least = costs.least_ratio
        if least is None:
            names = dict.fromkeys(r for asked in costs.expansions.values() for r in asked.ratios)
            return f"give the space `ratios={_listed((ratio, *sorted(names)))}`"
        return (
            f"let the searcher find ratios below its {least:g}; of dms, give the searcher "
            f"`least_mean={ratio:g} least_ratio={ratio:g}` (the space's `ratios` do not count)"
        )
    tried, over = "", math.inf
    for space in costs.space.smallest:
        try:
            smaller = SpaceCosts(space, costs.input_shape, costs.classes, light=True)
        except InputError:  # of images too small for it
            continue
        changed = _changed(costs.space, space)
        needs = smaller.of(_lightest(smaller, budget), smaller.narrowest)
        if not budget.excess(needs):
            return f"give the space `{changed}` (values between these and yours may do too)"
        if changed and budget.excess(needs) < over:
            over = budget.excess(needs)
            tried = f"; with the space's `{changed}` it needs {budget.describe(needs)}"
    if costs.expansions:
        tried = ": narrower widths do not help"
        if any(asked.multiple_of > 1 for asked in costs.expansions.values()):
            tried = ": widths are as narrow as `multiple_of` lets them be"
    elif name := _widths_within(costs, budget):
        return (
            f"use `space` {name} with the space's `ratios={_listed(_RATIOS)}` and `searcher` "
            f"evolution{tried}"
        )
    light = budget.use(costs.of(lightest, costs.narrowest))
    of_images = any(light[name] > 1 for name in _OF_IMAGES if name in light)
    return f"use {'smaller images or ' if of_images else ''}another or a smaller space{tried}"


# The spaces that need least, and ratios at which they do (docs/budgets.md).
_WIDTHS, _RATIOS = ("resnet18_cifar", "resnet18"), (0.125, 0.25, 0.5)


def _widths_within(costs: SpaceCosts, budget: Budget) -> str:
    """Return the name of a space of widths that has a network within `budget`, if one has."""
    for name in _WIDTHS:
        space = resolve(name, {"ratios": _RATIOS})
        widths = SpaceCosts(space, costs.input_shape, costs.classes)
        if not budget.excess(widths.of({}, widths.narrowest)):
            return name
    return ""


def _listed(ratios: Iterable[float]) -> str:
    return ",".join(f"{one:g}" for one in ratios)


def _ratio_within(costs: SpaceCosts, budget: Budget, chosen: Chosen) -> float | None:
    """Return the largest ratio for all widths that keeps to `budget`, below those there are."""

    def fits(thousandths: int) -> bool:
        ratios = dict.fromkeys(costs.expansions, thousandths / _DECIMALS)
        return not budget.excess(costs.of(chosen, ratios))

    # No ratio leaves a layer less than one channel.
    fewest = min((asked.filters for asked in costs.expansions.values()), default=1)
    low = math.ceil(_DECIMALS / fewest)
    high = int(_DECIMALS * min(costs.narrowest.values(), default=0))
    if low >= high or not fits(low):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low / _DECIMALS


def _changed(space: Space, smaller: Space) -> str:
    """Return the settings in which a space differs, as `NAME=VALUE`.

    Sizes of the supernet that it has none of stay: the network within the budget is another.
    """
    before, after = space.settings(), smaller.settings()
    changed = {k: after[k] for k in after if k in before and after[k] not in (before[k], None)}
    return " ".join(f"{name}={value}" for name, value in changed.items())


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
    best = strongest(costs.choices, scores)
    living, _ = revive(costs.cells, costs.choices, scores, best)
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


# Beyond, single changes to the lightest of many networks do not make up for it.
_FAR = 2.0


def _lightest(costs: SpaceCosts, budget: Budget) -> Chosen:
    """Return the operations that exceed `budget` least, as far as is found.

    Memory that several operations hold does not shrink when one of them is changed. So many
    networks are tried, and the least heavy is made lighter by single changes, where that may help.
    """
    ratios = costs.narrowest

    def excess(chosen: Chosen) -> float:
        return budget.excess(costs.of(chosen, ratios))

    found: Chosen = {}
    now = math.inf
    for chosen in _tried(costs):
        if (over := excess(chosen)) < now:
            found, now = chosen, over
        if not now:
            return found
    # Where all choices are of the same operations, the lightest one everywhere is among them.
    alike = len({choice.eligible for choice in costs.choices.values()}) == 1
    if alike and max(budget.use(costs.of(found, ratios)).values()) > _FAR:
        return found
    nothing = {name: choice.one_hot([]) for name, choice in costs.choices.items()}
    while now:
        changed = improve(linearize(costs, found, ratios), costs, nothing, budget)
        if (after := excess(changed)) >= now:
            break
        found, now = changed, after
    return found


def _tried(costs: SpaceCosts) -> Iterator[Chosen]:
    """Yield the networks of one operation, and random ones: of those without weights, and of all.

    The first are drawn alike where the space is of these alone, as `require_light` costs it.
    """
    for one in _of_one_operation(costs):
        yield from _revived(costs, one)
    for operations in ({n: _without_weights(c) for n, c in costs.choices.items()}, None):
        draw = random.Random(0)
        for _ in range(_TRIED):
            one = _random(costs, draw, operations)
            if all_alive(costs.cells, costs.choices, one):
                yield one


def _without_weights(choice: Choice) -> Sequence[str]:
    """Return the operations without weights on any input, or all where there are none."""
    inputs = range(choice.inputs)
    found = [
        name
        for name in choice.eligible
        if name in choice.zeros or all((name, i) in choice.parameter_free for i in inputs)
    ]
    return found if set(found) - choice.zeros else choice.eligible


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
            name: choice.one_hot(
                [(operation, index)] * (operation in choice.operations and index < choice.inputs)
            )
            for name, choice in choices.items()
        }
        yield revive(costs.cells, choices, wanted, chosen)[0]


def _random(
    costs: SpaceCosts, draw: random.Random, operations: Mapping[str, Sequence[str]] | None
) -> Chosen:
    return {
        name: [
            (draw.choice(operations[name] if operations else choice.eligible), index)
            for index in sorted(draw.sample(range(choice.inputs), len(choice.any())))
        ]
        for name, choice in costs.choices.items()
    }
