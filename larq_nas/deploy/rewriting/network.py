"""A network in the form that is converted."""

import dataclasses
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from larq_nas.deploy.causes import require_inference
from larq_nas.deploy.rewriting.binary import rewrite_binary, rewrite_sign
from larq_nas.deploy.rewriting.forms import SMALLEST, Rewrite, call_layer, compute, needed
from larq_nas.deploy.rewriting.groups import GroupCost
from larq_nas.deploy.rewriting.norms import Shifts, rewrite_norm, rewrite_offset, rewrite_threshold
from larq_nas.graph.calls import Call, read_graph
from larq_nas.graph.quantizers import zero_one
from larq_nas.lce.fusing import Fusing
from larq_nas.lce.network import Network, merge_signs
from larq_nas.lce.padding import folds

__all__ = ["Lowered", "lower"]

_PICKS = ("max_pool", "crop", "reshape", "pass")


@dataclass(frozen=True)
class Lowered:
    """A network in the form that is converted, computing what its Keras model does.

    # Arguments
        model: the Keras model.
        calls: its calls.
        rewrites: those computed in another way, by index.
        lacking: by index of a call, the vector that its output lacks of that in Keras, where an
            offset is added later.
    """

    model: tf.keras.Model
    calls: Sequence[Call] = field(repr=False)
    rewrites: dict[int, Rewrite] = field(repr=False)
    lacking: Mapping[int, np.ndarray] = field(default_factory=dict, repr=False)

    def __call__(self, *images: tf.Tensor) -> list[tf.Tensor]:
        """Return the outputs for `images`, one tensor for each input."""
        return compute(self.calls, images, self.outputs, self.rewrites)

    @property
    def outputs(self) -> list[int]:
        """The calls that give the outputs, in the model's order."""
        numbers = {n: index for index, call in enumerate(self.calls) for n in call.outputs}
        return [numbers[number] for number in sorted(numbers)]

    def outputs_of(self, images: tf.Tensor, wanted: Sequence[int]) -> list[tf.Tensor]:
        """Return the outputs of the calls `wanted`, for a model of one input."""
        return compute(self.calls, [images], wanted, self.rewrites)

    @property
    def variables(self) -> list[tf.Variable]:
        """All variables it reads."""
        added = [variable for one in self.rewrites.values() for variable in one.variables]
        return [*self.model.variables, *added]

    @property
    def reasons(self) -> list[str]:
        """What was rewritten and why, one line each."""
        computed = needed(self.calls, self.outputs, self.rewrites)
        rewrites = (rewrite for index, rewrite in self.rewrites.items() if index in computed)
        return [rewrite.reason for rewrite in rewrites if rewrite.reason]

    @property
    def lacking_by_layer(self) -> dict[int, np.ndarray]:
        """What the outputs of layers lack of those in Keras, by id of the layer.

        Of layers that are called once: of others it would not say which output it is.
        """
        times = Counter(id(call.layer) for call in self.calls)
        found = {id(self.calls[index].layer): lacks for index, lacks in self.lacking.items()}
        return {layer: lacks for layer, lacks in found.items() if times[layer] == 1}

    @property
    def binary_layers(self) -> set[int]:
        """The ids of the layers that multiply binary weights with signs, or with 0 and 1."""
        network = Network(self.calls)
        return {
            id(call.layer)
            for index, call in enumerate(self.calls)
            if getattr(call.layer, "kernel_quantizer", None)
            and (network.binary(index) or self._reads_zero_one(index))
        }

    @property
    def constant_layers(self) -> set[int]:
        """The ids of the layers whose outputs no image changes, such as those behind zeros."""
        constant: set[int] = set()
        for index, call in enumerate(self.calls):
            reads = bool(call.inputs) and constant.issuperset(call.inputs)
            if call.facts.kind in ("zeros", "static") or reads:
                constant.add(index)
        varying = {id(call.layer) for i, call in enumerate(self.calls) if i not in constant}
        return {id(self.calls[index].layer) for index in constant} - varying

    def _reads_zero_one(self, index: int) -> bool:
        """Return whether call `index` reads the output of a quantizer to 0 and 1, or its pool."""
        (read,) = self.calls[index].inputs
        while self.calls[read].facts.kind in ("max_pool", "pass", "reshape"):
            (read,) = self.calls[read].inputs
        return zero_one(self.calls[read].layer) is not None

    def kernels(self) -> dict[int, list[np.ndarray]]:
        """Return the signs of the rewritten layers' binary convolutions, by id of the layer."""
        kernels: dict[int, list[np.ndarray]] = {}
        for index, rewrite in self.rewrites.items():
            kernels.setdefault(id(self.calls[index].layer), []).extend(rewrite.kernels)
        return kernels


def lower(
    model: tf.keras.Model,
    cost: GroupCost | None = None,
    *,
    rewrite: bool = True,
    guard: Collection[int] = (),
    offsets: bool = True,
) -> Lowered:
    """Return `model` in the form that is converted.

    # Arguments
        model: a functional or Sequential model with static shapes.
        cost: measures ways to compute groups of channels, if those that the default kernel
            does not run are allowed.
        rewrite: whether to rewrite anything.
        guard: indices of calls that take signs where -0.0 was seen: what they read is kept from
            being -0.0.
        offsets: whether offsets are moved to where they cost nothing.
    """
    calls = merge_signs(read_graph(model))
    require_inference(calls)
    if not rewrite:
        return Lowered(model, calls, {})
    fusing = Fusing(Network(calls), offsets=offsets)
    shifts = Shifts(fusing)
    rewrites: dict[int, Rewrite] = {}
    for index in range(len(calls)):
        found = (
            rewrite_binary(calls, index, cost)
            or rewrite_sign(calls[index], index)
            or rewrite_norm(fusing, index)
            or rewrite_threshold(fusing, index, shifts.added.get(index))
            or _rewrite_pad(fusing, index)
        )
        found = rewrite_offset(fusing, shifts, index, found)
        if found:
            rewrites[index] = found
    # A quantizer may take the sign of -x, say: then more than 0 would be less.
    guard = [index for index in guard if calls[index].facts.before_sign is None]
    for index in {_giver(calls, rewrites, index) for index in guard}:
        # What reads an image adds the offset itself: an input cannot be computed otherwise.
        reads = index in guard
        rewrites[index] = _guarded(calls[index], rewrites.get(index), index, reads)
    return Lowered(model, calls, dict(sorted(rewrites.items())), shifts.lacking)


def _rewrite_pad(fusing: Fusing, index: int) -> Rewrite | None:
    """Return how to compute pad `index`, if the converter would move it."""
    calls = fusing.network.calls
    call = calls[index]
    if index in fusing.handed_on:
        return Rewrite(index, call.inputs, lambda x: x)
    if index not in fusing.trimmed:
        return None
    (reader,) = fusing.readers[index]
    while folds(calls, reader):
        (reader,) = fusing.readers[reader]
    paddings = [(0, 0), *fusing.trimmed[index], (0, 0)]
    reason = f"`{call.name}` adds only what `{calls[reader].name}` reaches"
    return Rewrite(index, call.inputs, lambda x: tf.pad(x, paddings), reason)


def _giver(calls: Sequence[Call], rewrites: Mapping[int, Rewrite], index: int) -> int:
    """Return the call that gives what call `index` takes the sign of; itself if it is an image.

    Calls that pick or move numbers are passed over: what they read has its sign taken before them.
    """
    giver = (rewrites[index] if index in rewrites else calls[index]).inputs[0]
    while calls[giver].facts.kind in _PICKS and giver not in rewrites:
        (giver,) = calls[giver].inputs
    return index if calls[giver].facts.kind == "input" else giver


def _guarded(call: Call, rewrite: Rewrite | None, index: int, reads: bool) -> Rewrite:
    """Return how to compute call `index` so that it reads or gives no -0.0.

    An offset is free behind what has one already, such as a batch norm or a convolution.
    """
    before = rewrite or Rewrite(
        index, call.inputs, lambda *values: call_layer(call, values)[call.position]
    )

    def compute(*values: tf.Tensor) -> tf.Tensor:
        if reads:
            return before.compute(*(value + SMALLEST for value in values))
        return before.compute(*values) + SMALLEST

    reason = f"-0.0 kept from a sign that `{call.name}` {'takes' if reads else 'is read by'}"
    reason = "; ".join(filter(None, (before.reason, reason)))
    return dataclasses.replace(before, compute=compute, reason=reason)
