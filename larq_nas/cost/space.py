"""Costs of every network of a search space from one build of it."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from larq_nas.choices import Cell, Choice, Chosen, Depth, Expansion, Pair, Value, at
from larq_nas.cost.profile import LATENCY, QUANTITIES, LatencyModel, Structure, read_structure
from larq_nas.errors import InputError, warn
from larq_nas.graph.calls import Call, needed_by, prune, read_graph
from larq_nas.graph.channels import channels_from
from larq_nas.graph.layers import Facts, facts_of
from larq_nas.layers import DEPLOYED, building_in
from larq_nas.layers.zeros import Piece, channel_padding, pad_plan
from larq_nas.lce.count import understand
from larq_nas.lce.network import Network
from larq_nas.spaces.chooser import Fix, ImageShape
from larq_nas.spaces.space import Space, SpaceLike, is_built_in, resolve
from larq_nas.supernet.relax import Light, Relax


def _without_zeros(call: Call, calls: Sequence[Call]) -> list[Call]:
    """Return what `concatenate` builds in place of a concatenation of a cell's zeros."""
    inputs = [calls[i] for i in call.inputs]
    zeros = [one.facts.kind == "zeros" for one in inputs]
    padded_for = getattr(call.layer, "pads_zeros", False)
    if call.facts.kind != "concat" or not padded_for or not any(zeros) or len(call.shape) != 3:
        return [call]
    if all(zeros):
        width = sum(_width(calls, i) for i in call.inputs)
        return [dataclasses.replace(call, inputs=(), facts=Facts("zeros", filters=width))]
    pieces = pad_plan(zeros, [_width(calls, i) for i in call.inputs])
    made: list[Call] = []

    def add(**changes: Any) -> int:
        made.append(dataclasses.replace(call, **changes, outputs=()))
        return len(calls) + len(made) - 1

    def padded(piece: Piece, number: str) -> int:
        members = tuple(call.inputs[i] for i in piece.members)
        channels = sum(_width(calls, i) for i in members)
        last = members[0]
        if len(members) > 1:
            shape = (*call.shape[:-1], int(channels))
            last = add(inputs=members, shape=shape, name=f"{call.name}{number}")
        if piece.before or piece.after:
            layer = channel_padding(piece, f"{call.name.removesuffix('_concat')}_pad{number}")
            width = channels + piece.before + piece.after
            shape = (*call.shape[:-1], int(width))
            facts = dataclasses.replace(facts_of(layer), filters=width)
            changes = {"layer": layer, "name": layer.name, "facts": facts}
            last = add(inputs=(last,), shape=shape, **changes)
        return last

    several = len(pieces) > 1
    joined = [padded(piece, str(number) if several else "") for number, piece in enumerate(pieces)]
    if several:
        add(inputs=tuple(joined))
    made[-1] = dataclasses.replace(made[-1], outputs=call.outputs)
    return made


def _width(calls: Sequence[Call], index: int) -> int:
    """Return the channels that a call gives: `Filters` where they follow from a choice."""
    call = calls[index]
    if call.facts.filters is not None:
        return call.facts.filters
    read = call.inputs if call.facts.kind == "concat" else call.inputs[:1]
    width: int = channels_from(call, [_width(calls, i) for i in read], calls)
    return width


_REMEMBERED = 4
_FRACTIONS = ("weight_bytes", LATENCY)


class SpaceCosts:
    """Costs of every network of a space, from one build of all of it.

    !!! example
        ```python
        costs = larq_nas.cost.SpaceCosts("resnet18", (224, 224, 3), classes=1000)
        one = costs.exact({**dict.fromkeys(costs.expansions, 1), "stage1_block1": 0.5})
        many = costs.exact_many(candidates)  # a thousand and more in a second
        ```

    # Arguments
        space: name of a search space, a `larq_nas.spaces.Space`, or a function of your own.
        input_shape: `(height, width, channels)` of the images, in pixels.
        classes: number of classes.
        latency: predicts latencies on a device, if they are asked for.
        least_ratio: the smallest ratio of every width, where it is not among its `ratios`.
        light: whether to leave out operations with weights, where a choice has others: a build
            that takes a fraction of the time.

    # Attributes
        quantities: what is costed: `QUANTITIES`, and `"latency"` in microseconds if asked for.
        choices: the choices of operations by name.
        expansions: the choices of widths by name.
        cells: the kinds of cells that choices of operations are part of.
        input_shape, classes, least_ratio: as they were given.
    """

    def __init__(
        self,
        space: SpaceLike,
        input_shape: ImageShape,
        classes: int,
        latency: LatencyModel | None = None,
        least_ratio: float | None = None,
        light: bool = False,
    ) -> None:
        self.latency = latency
        self.least_ratio = least_ratio
        self.quantities = (*QUANTITIES, LATENCY) if latency else QUANTITIES
        self.space: Space = resolve(space)
        self.input_shape, self.classes = input_shape, classes
        choose = Light() if light else Relax()
        with building_in(DEPLOYED):
            model = self.space.build(choose, input_shape, classes)
        self.choices: Mapping[str, Choice] = choose.choices
        self.expansions: Mapping[str, Expansion] = choose.expansions
        self.cells: Sequence[Cell] = list(choose.cells.values())
        self._network = understand(read_graph(model))
        self.unknown = self._network.unknown
        self._names = {id(mixture): name for name, mixture in choose.mixtures.items()}
        self._prefixes = choose.prefixes
        self._sum = tf.keras.layers.Add()
        self._structures: dict[str, Structure] = {}

    def exact(self, values: Mapping[str, Value]) -> dict[str, Any]:
        """Return what one network costs, for each of `quantities`.

        # Arguments
            values: the value of each choice by name, as an `Architecture` holds them.

        # Raises
            InputError: if the values do not answer the space's questions.
        """
        return self.costs(*self.network(values))

    def exact_many(self, candidates: Sequence[Mapping[str, Value]]) -> dict[str, np.ndarray]:
        """Return what each of many networks costs: for each of `quantities` an array.

        Candidates that differ in their widths alone are computed at once.

        # Arguments
            candidates: the values of each network's choices.
        """
        decoded = [self.decode(values) for values in candidates]
        groups: dict[str, list[int]] = {}
        for number, (chosen, _) in enumerate(decoded):
            groups.setdefault(repr(chosen), []).append(number)
        costs: dict[str, np.ndarray] = {
            name: np.zeros(len(candidates), dtype=np.float64 if name in _FRACTIONS else np.int64)
            for name in self.quantities
        }
        for numbers in groups.values():
            chosen, _ = decoded[numbers[0]]
            if self._needs_building(chosen) or not self.expansions:
                found = [self.exact(candidates[number]) for number in numbers]
                of_group = {n: np.array([one[n] for one in found]) for n in self.quantities}
            else:
                widths = self._widths([decoded[number][1] for number in numbers])
                of_group = self.costs(self.structure(chosen), widths)
            for name, cost in of_group.items():
                costs[name][numbers] = cost
        return costs

    def of(self, chosen: Chosen, ratios: Mapping[str, float] | None = None) -> dict[str, Any]:
        """Return what a network costs, for each of `quantities`.

        # Arguments
            chosen: operations and inputs of each choice.
            ratios: the ratio of each width; by default those nearest to 1.
        """
        return self.costs(*self._at(chosen, self.usual if ratios is None else ratios))

    def costs(
        self, structure: Structure, answers: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return each of `quantities` for a structure of the space; see `Structure.costs`."""
        costs = structure.costs(answers)
        if self.latency:
            costs[LATENCY] = self.latency.predict(structure, answers).microseconds
        return costs

    def network(self, values: Mapping[str, Value]) -> tuple[Structure, dict[str, Any] | None]:
        """Return the structure of one network, and the widths to ask its costs for.

        # Arguments
            values: the value of each choice by name, as an `Architecture` holds them.
        """
        return self._at(*self.decode(values))

    def _at(
        self, chosen: Chosen, ratios: Mapping[str, float]
    ) -> tuple[Structure, dict[str, Any] | None]:
        if self._needs_building(chosen):
            return self._built(self.encode(chosen, ratios)), None
        return self.structure(chosen), self._widths([ratios]) if ratios else None

    @property
    def usual(self) -> dict[str, float]:
        """The ratio nearest to 1 of each width."""
        return {
            name: min(asked.ratios, key=lambda ratio: abs(ratio - 1))
            for name, asked in self.expansions.items()
        }

    @property
    def narrowest(self) -> dict[str, float]:
        """The smallest ratio of each width."""
        least = self.least_ratio
        return {
            name: min(asked.ratios) if least is None else least
            for name, asked in self.expansions.items()
        }

    def require_no_operations(self, searcher: str) -> None:
        """Raise `InputError` for a space that chooses operations, which `searcher` does not."""
        if self.choices:
            others = "evolution" if self.expansions else "evolution or differentiable"
            raise InputError(
                f"Space `{self.space.name}` chooses operations ({next(iter(self.choices))}, ...), "
                f"but searcher `{searcher}` only chooses widths: give `searcher` {others}."
            )

    def require_following(self) -> None:
        """Raise `InputError` if the costs of other widths do not follow from the one build."""
        if not self._follows_widths:
            raise InputError(
                f"The costs of space `{self.space.name}` do not follow from one build of it: "
                "compute widths by +, -, * and // alone, and build the same layers for every width."
            )

    def identity(self, values: Mapping[str, Value]) -> str:
        """Return a text that is the same for values of which the networks are the same.

        Nodes that nothing reads, blocks that are not there, and what is asked in them do not
        count; of layers it is told by which question they answer.

        # Arguments
            values: the value of each choice by name, as an `Architecture` holds them.
        """
        chosen, ratios = self.decode(values)
        widths = self._widths([ratios])
        made: list[Any] = []
        if self._needs_building(chosen):
            made = [sorted((name, sorted(pairs)) for name, pairs in chosen.items()), widths]
        else:
            for call in self.structure(chosen).network.calls:
                # By its place: Keras numbers layers without a name anew in each process.
                place = self._places.get((id(call.layer), call.index, call.position), call.name)
                read = sorted(call.inputs) if call.layer is self._sum else call.inputs
                made.append([place, list(read), at(call.facts.filters or 0, widths), call.outputs])
        return hashlib.sha256(repr(made).encode()).hexdigest()[:16]

    @cached_property
    def _places(self) -> dict[tuple[int, int, int], int]:
        """The place of each call in the supernet."""
        calls = self._network.calls
        return {(id(c.layer), c.index, c.position): n for n, c in enumerate(calls)}

    def decode(self, values: Mapping[str, Value]) -> tuple[dict[str, list[Pair]], dict[str, float]]:
        """Return chosen operations, and ratios, of an architecture's values."""
        names = {*self.choices, *self.expansions}
        if values.keys() != names:
            missing, unasked = sorted(names - values.keys()), sorted(values.keys() - names)
            wrong = f"these are not among them: {', '.join(unasked)}"
            if missing:
                wrong = f"these are missing: {', '.join(missing)}"
            raise InputError(
                f"Space `{self.space.name}` asks for {len(names)} choices, but {wrong}."
            )
        chosen = {name: choice.decode(values[name]) for name, choice in self.choices.items()}
        ratios = {name: asked.decode(values[name]) for name, asked in self.expansions.items()}
        return chosen, ratios

    def encode(self, chosen: Chosen, ratios: Mapping[str, float]) -> dict[str, Value]:
        """Return operations and ratios as an `Architecture` holds them."""
        values = {name: self.choices[name].encode(pairs) for name, pairs in chosen.items()}
        return {**values, **ratios}

    def structure(self, chosen: Chosen) -> Structure:
        """Return the structure of the networks of these operations, whatever their widths."""
        key = repr(sorted((name, list(pairs)) for name, pairs in chosen.items()))
        if key not in self._structures:
            if len(self._structures) >= _REMEMBERED:
                self._structures.pop(next(iter(self._structures)))
            self._structures[key] = Structure(self._select(chosen))
        return self._structures[key]

    def _select(self, chosen: Chosen) -> Network:
        """Return the part of the supernet in which each mixture is the sum of what is chosen."""
        calls: list[Call] = []
        stands_for: list[int] = []
        needed = self._needed(chosen)
        for index, call in enumerate(self._network.calls):
            if index not in needed:
                stands_for.append(-1)
                continue
            read = tuple(stands_for[i] for i in call.inputs)
            call = self._replaced(call, read, chosen, calls)
            if call.facts.kind == "mixture":
                stands_for += call.inputs
            else:
                calls += _without_zeros(call, calls)
                stands_for.append(len(calls) - 1)
        outputs = [stands_for[i] for i, call in enumerate(self._network.calls) if call.output]
        left = prune(calls, outputs)
        names = {call.owner for call in left}
        return Network(left, tuple(name for name in self._network.unknown if name in names))

    def _needed(self, chosen: Chosen) -> set[int]:
        """Return the calls of the supernet that a network of these operations depends on."""
        calls = self._network.calls

        def inputs(index: int) -> Sequence[int]:
            call = calls[index]
            name = self._names.get(id(call.layer))
            if name is None:
                return call.inputs
            candidates, operations = call.layer.candidates, self.choices[name].operations
            keys = [(place, operations.index(operation)) for operation, place in chosen[name]]
            kept = [candidates.index(key) for key in keys if key in candidates]
            # Of one that is zero, the first tells the width.
            return [call.inputs[place] for place in kept or [0]]

        return set(needed_by([i for i, call in enumerate(calls) if call.output], inputs))

    def _replaced(
        self, call: Call, inputs: tuple[int, ...], chosen: Chosen, calls: Sequence[Call]
    ) -> Call:
        """Return `call` with the sum of what was chosen in place of a mixture."""
        name = self._names.get(id(call.layer))
        if name is None:
            return dataclasses.replace(call, inputs=inputs)
        operations, candidates = self.choices[name].operations, call.layer.candidates
        keys = [(index, operations.index(operation)) for operation, index in chosen[name]]
        # The zero operation is no candidate.
        summed = tuple(inputs[candidates.index(key)] for key in keys if key in candidates)
        if len(summed) == 1:
            return dataclasses.replace(call, inputs=summed)
        label = f"{self._prefixes[name][call.index]}_sum"
        # Zeros are as wide as what they stand for, where widths are chosen too.
        facts = Facts("add") if summed else Facts("zeros", filters=_width(calls, inputs[0]))
        return dataclasses.replace(call, layer=self._sum, name=label, inputs=summed, facts=facts)

    def _widths(self, ratios: Sequence[Mapping[str, float]]) -> dict[str, Any]:
        """Return the number of filters at these ratios: an array if they are several."""
        widths = {
            name: [asked.width(one[name]) for one in ratios]
            for name, asked in self.expansions.items()
        }
        if len(ratios) == 1:
            return {name: width[0] for name, width in widths.items()}
        return {name: np.array(width, dtype=np.int64) for name, width in widths.items()}

    def _needs_building(self, chosen: Chosen) -> bool:
        """Return whether a network is not a part of the supernet, as far as costs go."""
        twice = any(len(set(pairs)) < len(pairs) for pairs in chosen.values())
        return twice or not self._follows_widths

    def _built(self, values: Mapping[str, Value]) -> Structure:
        return read_structure(self.space.build(Fix(values), self.input_shape, self.classes))

    @cached_property
    def _follows_widths(self) -> bool:
        """Whether the costs of other widths follow from the one build.

        They do not in a space of one's own that turns a width into another number, or builds
        other layers for other widths.
        """
        if not self.expansions or is_built_in(self.space):
            return True
        if all(self._follows(*check) for check in self._checks()):
            return True
        warn(
            f"The costs of space `{self.space.name}` do not follow from one build of it (it "
            "computes a width by more than +, -, * and //, or builds other layers for other "
            "widths, as `binary_conv` does, which adds its input where widths agree: give it "
            "identity=False): each network is built to be costed, which is slow."
        )
        return False

    def _checks(self) -> list[tuple[int, int, bool]]:
        """Return which ratio and operation to compare with built networks, and whether shallow.

        Each ratio comes up, and each operation at the smallest and the largest, in networks that
        have all blocks; where there are fewer, they are the same ones.
        """
        ratios = max(len(asked.ratios) for asked in self.expansions.values())
        rows = {name for name, choice in self.choices.items() if isinstance(choice, Depth)}
        others = [choice for name, choice in self.choices.items() if name not in rows]
        operations = max((len(choice.eligible) for choice in others), default=1)
        numbers = [(ratio, 0) for ratio in range(ratios)]
        numbers += [(ratio, number) for number in range(operations) for ratio in (0, -1)]
        shallow = [(0, 0, True)] if rows else []
        return [*((*one, False) for one in dict.fromkeys(numbers)), *shallow]

    def _follows(self, ratio: int, operation: int, shallow: bool) -> bool:
        """Return whether a network costs what it does when it is built."""
        ratios = {
            name: sorted(asked.ratios)[ratio if ratio < 0 else (ratio + place) % len(asked.ratios)]
            for place, (name, asked) in enumerate(self.expansions.items())
        }

        def number(choice: Choice) -> int:
            if isinstance(choice, Depth):
                return 0 if shallow else -1
            return operation % len(choice.eligible)

        chosen = {
            name: [(choice.eligible[number(choice)], index) for _, index in choice.any()]
            for name, choice in self.choices.items()
        }
        costs = self.structure(chosen).costs(self._widths([ratios]))
        try:
            return costs == self._built(self.encode(chosen, ratios)).costs()
        except Exception:  # noqa: BLE001 - of the user's own function
            # A network that the space refuses to build has no costs to compare.
            return True
