"""Which operations Larq Compute Engine's converter makes of a network."""

from typing import Any

import tensorflow as tf

from larq_nas.cost.constants import binary_constants, plain_constants, separable_constants, vector
from larq_nas.cost.count import WEIGHTED, Network
from larq_nas.cost.fallback import scales_kernel
from larq_nas.cost.fusing import AFFINE, Fusing, own_activation
from larq_nas.cost.operators import Constant, Constants, Operator, Tensor, bits

__all__ = ["lower"]

_KINDS = {
    "average_pool": "AVERAGE_POOL_2D",
    "max_pool": "MAX_POOL_2D",
    "global_average_pool": "MEAN",
    "global_max_pool": "REDUCE_MAX",
    "concat": "CONCATENATION",
    "reshape": "RESHAPE",
    "pad": "PAD",
    "crop": "STRIDED_SLICE",
    "resize": "RESIZE",
    "relu": "RELU",
    "prelu": "PRELU",
    "conv": "CONV_2D",
    "dense": "FULLY_CONNECTED",
    "transposed": "TRANSPOSE_CONV",
    "depthwise": "DEPTHWISE_CONV_2D",
}


def lower(network: Network, binary: bool = True) -> list[Operator]:
    """Return the operations of the flatbuffer, each after those it reads.

    # Arguments
        network: the network.
        binary: whether binary layers run in binary; otherwise those of its float twin.
    """
    return _Lowering(Fusing(network, binary)).run()


class _Lowering:
    """Walks a network once, from its input to its output."""

    def __init__(self, fusing: Fusing) -> None:
        self.fusing = fusing
        self.calls = fusing.network.calls
        self.operators: list[Operator] = []
        self.tensors: dict[int, Tensor] = {}
        self._written: set[Tensor] = set()
        self._computed: dict[Any, Tensor] = {}

    def run(self) -> list[Operator]:
        fused: set[int] = set()
        for index in range(len(self.calls)):
            if index not in fused:
                chain = self.fusing.chain(index)
                fused |= set(chain)
                self._emit(index, chain[-1] if chain else index)
        return self.operators

    def _emit(self, index: int, end: int) -> None:
        """Add the operations of call `index` and what it fuses with, up to call `end`."""
        kind = self.fusing.kind(index)
        if kind == "input":
            self.tensors[end] = Tensor(index)
        elif kind == "pass":
            self.tensors[end] = self._read(index)[0]
        elif kind == "sign":
            self._emit_sign(index, end)
        elif self.fusing.binary[index]:
            self._emit_binary(index, end)
        elif kind in AFFINE:
            self._emit_affine(index, end)
        elif kind == "add":
            self._emit_sum(index, end)
        elif kind == "max_pool" and self.fusing.read_as_bits(end):
            self._add("LceBMaxPool2d", index, (self._bits_of(index),), bits(end))
        elif kind == "separable":
            self._emit_separable(index, end)
        else:
            self._emit_plain(index, end)

    def _add(
        self,
        kind: str,
        call: int,
        reads: tuple[Tensor, ...],
        write: Tensor,
        constants: Constants = lambda channels: [],
    ) -> None:
        self.operators.append(Operator(kind, call, reads, (write,), constants))
        self._written.add(write)
        self.tensors[write.call] = write

    def _read(self, index: int) -> tuple[Tensor, ...]:
        return tuple(self.tensors[read] for read in self.calls[index].inputs)

    def _bits_of(self, index: int) -> Tensor:
        """Return the bits of what call `index` reads, made once for all that read them."""
        tensor = self._read(index)[0]
        if tensor.packed:
            return tensor
        packed = bits(tensor.call)
        if packed not in self._written:
            self._add("LceQuantize", index, (tensor,), packed)
            self.tensors[tensor.call] = tensor
        return packed

    def _emit_sign(self, index: int, end: int) -> None:
        packed = self._bits_of(index)
        if self.fusing.read_as_bits(end):
            self.tensors[end] = packed
        else:
            self._add("LceDequantize", index, (packed,), Tensor(end))

    def _emit_binary(self, index: int, end: int) -> None:
        layer, facts = self.calls[index].layer, self.fusing.network.facts[index]
        packs = facts.groups == 1 and self.fusing.read_as_bits(end)
        constants = binary_constants(self.fusing, index, packs)
        if facts.groups > 1:
            self._emit_groups(index, facts.groups, constants)
        else:
            output = bits(end) if packs else Tensor(end)
            self._add("LceBconv2d", index, (self._bits_of(index),), output, constants)
        activation = own_activation(layer)
        fused = activation is tf.keras.activations.relu and not scales_kernel(layer)
        if activation is not None and not fused and not packs:
            self._add("ACTIVATION", index, (self.tensors[end],), Tensor(end, "activated"))

    def _emit_groups(self, index: int, groups: int, constants: Constants) -> None:
        read = self.calls[index].inputs[0]
        source = self.tensors[read]
        parts = tuple(Tensor(read, f"part{g} of {index}", groups) for g in range(groups))
        self.operators.append(Operator("SPLIT", index, (source,), parts, _scalar))
        packed = [Tensor(read, f"bits{g} of {index}", groups, True) for g in range(groups)]
        for part, signs in zip(parts, packed, strict=True):
            self._add("LceQuantize", index, (part,), signs)
        outputs = tuple(Tensor(index, f"output{g}", groups) for g in range(groups))
        for signs, output in zip(packed, outputs, strict=True):
            self._add("LceBconv2d", index, (signs,), output, constants)
        self._add("CONCATENATION", index, outputs, Tensor(index))
        self.tensors[read] = source

    def _emit_affine(self, index: int, end: int) -> None:
        (tensor,) = self._read(index)
        if self.fusing.kind(index) == "norm":
            scaled = Tensor(index, "scaled")
            self._add("MUL", index, (tensor,), scaled, vector(index))
            self._add("ADD", index, (scaled,), Tensor(end), vector(index))
        else:
            self._add("MUL", index, (tensor,), Tensor(end), vector(index))

    def _emit_sum(self, index: int, end: int) -> None:
        total, *others = self._read(index)
        if not others:  # a number is added
            self._add("ADD", index, (total,), Tensor(end), _scalar)
        for number, other in enumerate(others, 1):
            output = Tensor(end) if number == len(others) else Tensor(end, f"sum{number}")
            self._add("ADD", index, (total, other), output)
            total = output

    def _emit_separable(self, index: int, end: int) -> None:
        depthwise, pointwise = separable_constants(self.fusing, index)
        read = self.calls[index].inputs[0]
        between = Tensor(read, f"depthwise of {index}")
        source = self.tensors[read]
        self._add("DEPTHWISE_CONV_2D", index, (source,), between, depthwise)
        self.tensors[read] = source
        self._add("CONV_2D", index, (between,), Tensor(end), pointwise)

    def _emit_plain(self, index: int, end: int) -> None:
        kind, layer, reads = self.fusing.kind(index), self.calls[index].layer, self._read(index)
        if self.fusing.emulated[index]:
            # The converter keeps the signs, as numbers.
            signs = Tensor(reads[0].call, f"signs for {index}")
            self._add("LceDequantize", index, (self._bits_of(index),), signs)
            self.tensors[reads[0].call], reads = reads[0], (signs,)
        if kind not in WEIGHTED and not layer.weights:
            # What is computed twice of the same tensors, the converter computes once.
            config = {key: value for key, value in layer.get_config().items() if key != "name"}
            same = (kind, reads, repr(config), end == index)
            if same in self._computed:
                self.tensors[end] = self._computed[same]
                return
            self._computed[same] = Tensor(end)
        constants = plain_constants(self.fusing, index)
        self._add(_KINDS.get(kind, kind.upper()), index, reads, Tensor(end), constants)
        if own_activation(layer) not in (None, tf.keras.activations.relu):
            self._add("ACTIVATION", index, (Tensor(end),), Tensor(end, "activated"))


def _scalar(channels: Any) -> list[Constant]:
    return [Constant(4)]
