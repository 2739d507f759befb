"""Lower a network to the operations of a flatbuffer."""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from larq_nas.graph.calls import Call, call_layer, weights_key
from larq_nas.graph.layers import ONE_OPERATION
from larq_nas.graph.opaque import CONSTANT_BYTES, Opaque, convert_alone
from larq_nas.lce.fallback import shares_dilation, zero_padded
from larq_nas.lce.fusing import AFFINE, Fusing, own_activation
from larq_nas.lce.network import WEIGHTED, Network
from larq_nas.lce.operators import (
    Constant,
    Constants,
    Operator,
    Tensor,
    binary_constants,
    bits,
    known,
    numbers,
    plain_constants,
    separable_constants,
    shape_of,
    shared,
    vector,
    without_twice_reshaped,
)
from larq_nas.lce.padding import pair

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
_KEEP_ZERO = ("add", "zeros", "average_pool", "max_pool", "pass", "relu", "crop", "pad", "scale")


def lower(network: Network, binary: bool = True) -> list[Operator]:
    """Return the operations of the flatbuffer, each after those it reads.

    Those of its float twin, if layers are not to run in `binary`.
    """
    return _Lowering(Fusing(network, binary)).run()


def _of_activation(layer: Any) -> Callable[[Constants], Constants]:
    """Mark constants as those of the activation of `layer`, which a file holds once."""
    return lambda made: shared([layer.activation], made)


class _Lowering:
    """Walks a network once, from its input to its output."""

    def __init__(self, fusing: Fusing) -> None:
        self.fusing = fusing
        self.calls = fusing.network.calls
        self.operators: list[Operator] = []
        self._tensors: dict[int, Tensor] = {}
        self._written: set[Tensor] = set()
        self._opaque: set[tuple[Any, ...]] = set()
        # Outputs that the converter knows beforehand, with what they hold if it is one number.
        self._known: dict[int, float | None] = {}
        # Rows and vectors that are there as images, as binary convolutions give them.
        self._images: set[Tensor] = set()
        self._shared = {weights_key(call) for call in self.calls if not call.first}

    def run(self) -> list[Operator]:
        fused: set[int] = set()
        for index in range(len(self.calls)):
            if index not in fused and index in self.fusing.needed:
                chain = self.fusing.chain(index)
                fused |= set(chain)
                self._emit(index, chain[-1] if chain else index)
        for index, tensor in self._tensors.items():
            if self.calls[index].output:
                self._as_rows(tensor)
        return without_twice_reshaped(self.operators)

    def _emit(self, index: int, end: int) -> None:
        """Add the operations of call `index` and what it fuses with, up to call `end`."""
        kind, call = self.fusing.kind(index), self.calls[index]
        if self._is_known(index):
            zeros = kind in _KEEP_ZERO or "zeros_like" in str(getattr(call.layer, "symbol", ""))
            value = 0.0 if zeros and end == index else None
            self._known |= {index: value, end: value}
        elif kind == "input":
            self._tensors[end] = Tensor(index)
        elif kind == "pass" or (kind == "reshape" and self._is_left_out(index)):
            self._tensors[end] = self._found(index)[0]
        elif kind == "sign":
            self._emit_sign(index, end)
        elif kind in ("unknown", "converted"):
            self._emit_opaque(index, end)
        elif self.fusing.binary[index]:
            self._emit_binary(index, end)
        elif kind in AFFINE:
            self._emit_affine(index, end)
        elif kind in ("add", "average", "arithmetic"):
            self._emit_sum(index, end)
        elif kind == "max_pool" and self.fusing.read_as_bits(end):
            self._add("LceBMaxPool2d", index, (self._bits_of(index),), bits(end))
            self._tensors[end] = bits(end)
        else:
            self._emit_plain(index, end)

    def _is_known(self, index: int) -> bool:
        """Return whether the output of call `index` does not depend on the image."""
        inputs = self.fusing.inputs[index]
        static = self.fusing.kind(index) in ("zeros", "static")
        return static or (bool(inputs) and all(read in self._known for read in inputs))

    def _is_left_out(self, index: int) -> bool:
        """Return whether a reshape needs no operation.

        So it is for a single position, and for a vector that is only read where it is broadcast.
        """
        call, source = self.calls[index], self.calls[self.fusing.inputs[index][0]]
        if len(call.shape) == 1:
            return source.area == call.area == 1
        return self.fusing.all_read(index, lambda reader: self._broadcasts(source, index, reader))

    def _broadcasts(self, source: Call, index: int, reader: int) -> bool:
        """Return whether call `reader` gives the same without reshape `index`, by broadcasting."""
        if self.fusing.kind(reader) not in ("add", "average", "arithmetic"):
            return False
        others = [self.calls[read].shape for read in self.fusing.inputs[reader] if read != index]
        if not others:
            return False
        try:
            broadcast = np.broadcast_shapes((1, *source.shape), *((1, *shape) for shape in others))
        except ValueError:
            return False
        return broadcast == (1, *self.calls[reader].shape)

    def _add(
        self,
        kind: str,
        call: int,
        reads: tuple[Tensor, ...],
        write: Tensor,
        constants: Constants = lambda channels: [],
    ) -> None:
        once = self._once(call, constants, kind)
        self._append([Operator(kind, call, reads, (write,), once)])

    def _once(self, index: int, constants: Constants, part: Hashable = None) -> Constants:
        """Return the constants of an operation, known by what they hold if its layer is shared.

        What else they depend on is `part`, such as the number of a group.
        """
        weights = weights_key(self.calls[index]) if self._shared else None
        if weights not in self._shared:
            return constants
        kernel: Hashable = weights, part
        takes_affine = self.fusing.takes_affine(index) and part != "depthwise"
        slope, offset = self._affine(index) if takes_affine else (b"", b"")
        if self.fusing.binary[index]:
            # Signs of the filters are turned where thresholds are on numbers times less than 0.
            packs = self._packs(index)
            turned = (np.frombuffer(slope, "float32") < 0).tobytes() if packs and slope else b""
            rest = kernel, packs, slope, offset
            return shared([(kernel, turned if any(turned) else b""), rest], constants)
        return shared([(kernel, slope), (kernel, slope, offset)], constants)

    def _affine(self, index: int) -> tuple[bytes, bytes]:
        """Return slope and offset of the batch norms and the like that call `index` takes in."""
        chain = [i for i in self.fusing.chain(index) if self.fusing.kind(i) in AFFINE]
        affine = [*chain, *self.fusing.moved_into(index)]
        return self._line(affine) if affine else (b"", b"")

    def _line(self, affine: Sequence[int]) -> tuple[bytes, bytes]:
        """Return slope and offset that affine calls come to, one after the other."""
        shape = self.calls[self.calls[affine[0]].inputs[0]].shape
        ends = tf.stack([tf.zeros(shape), tf.ones(shape)])
        for i in affine:
            (ends,) = call_layer(self.calls[i], [ends])
        low, high = np.reshape(ends, (2, -1, ends.shape[-1]))[:, 0]
        return (high - low).tobytes(), low.tobytes()

    def _append(self, operators: list[Operator]) -> None:
        """Add operations, but not one that was added for another call before."""
        for operator in operators:
            if not self._written.issuperset(operator.writes):
                self.operators.append(operator)
                self._written.update(operator.writes)

    def _read(self, index: int) -> tuple[Tensor, ...]:
        """Return the tensors that call `index` reads, those that are known left out.

        What a binary layer gives as an image becomes rows again, but where any shape will do.
        """
        reads = self._found(index)
        if self.fusing.kind(index) in ("dense", "reshape"):
            return reads
        return tuple(self._as_rows(tensor) for tensor in reads)

    def _as_rows(self, tensor: Tensor) -> Tensor:
        if tensor not in self._images:
            return tensor
        rows = replace(tensor, form=f"rows of {tensor.form}")
        self._add("RESHAPE", tensor.call, (tensor,), rows, numbers(3))
        return rows

    def _found(self, index: int) -> tuple[Tensor, ...]:
        inputs = self.fusing.inputs[index]
        return tuple(self._tensors[read] for read in inputs if read not in self._known)

    def _bits_of(self, index: int) -> Tensor:
        """Return the bits of what call `index` reads, made once for all that read them."""
        tensor = self._found(index)[0]
        if tensor.packed:
            return tensor
        tensor = self._as_image(index, self._flipped(index, tensor))
        tensor = self._signs_before(index, tensor)
        added = self._surround(index, tensor)
        self._append(added)
        tensor = added[-1].writes[0] if added else tensor
        packed = replace(tensor, form=f"bits of {tensor.form}", packed=True)
        self._add("LceQuantize", index, (tensor,), packed)
        return packed

    def _flipped(self, index: int, tensor: Tensor) -> Tensor:
        """Return what the sign is taken of: `threshold - x` where inputs are 0 and 1, for one.

        So it is for a sign of -1 at 0, turned.
        """
        facts = self.fusing.network.facts[index]
        strict = facts.kind == "sign" and facts.sign_of_zero < 0
        flips = self.fusing.network.flips(index) or strict
        before = self.fusing.network.facts[index].before_sign
        if before is not None:
            affine = set(before.kinds) <= {"ADD", "SUB", "MUL"}
            if affine and self.fusing.takes_flip(self.fusing.inputs[index][0]):
                return tensor
            signed = Tensor(tensor.call, f"before the sign of {index}")
            self._append(opaque(index, before, (tensor,), signed, lambda made: made))
            return signed
        if not flips or self.fusing.takes_flip(self.fusing.inputs[index][0]):
            return tensor
        threshold = (self.fusing.network.levels(index) or (0, 0))[1]
        turned = Tensor(tensor.call, "turned")
        flipped = Tensor(tensor.call, f"from {threshold}")
        self._add("MUL", index, (tensor,), turned, known(1, -1.0))
        self._add("ADD", index, (turned,), flipped, known(1, float(threshold)))
        return flipped

    def _signs_before(self, index: int, tensor: Tensor) -> Tensor:
        """Return the signs that a quantizer takes of something else, as numbers to pad or split."""
        before = self.fusing.network.facts[index].before_sign
        around = self.fusing.network.borders.get(index)
        apart = bool(around and around.added) or self.calls[index].facts.groups > 1
        if before is None or not apart:
            return tensor
        packed = replace(tensor, form=f"first bits of {tensor.form}", packed=True)
        signs = Tensor(tensor.call, f"signs of {tensor.form}")
        self._add("LceQuantize", index, (tensor,), packed)
        self._add("LceDequantize", index, (packed,), signs)
        return signs

    def _surround(self, index: int, source: Tensor) -> list[Operator]:
        """Return what adds numbers around an image: side by side, if there are two of them."""
        around = self.fusing.network.borders.get(index)
        if around is None:
            return []
        sizes = zip(pair(self.calls[around.source].shape[:-1]), around.paddings, strict=True)
        area = math.prod(size + sum(padding) for size, padding in sizes)
        operators = []
        for value in around.added:
            form = f"{source.form} in {value} by {around.paddings}"
            padded = replace(source, form=form, area=area)
            constants = _both(known(8, str(around.paddings)), known(1, "around", value))
            operators.append(Operator("PADV2", index, (source,), (padded,), constants))
        if len(operators) > 1:
            sides = tuple(operator.writes[0] for operator in operators)
            joined = replace(sides[0], form=f"{sides[0].form}, and twice", times=2)
            operators.append(Operator("CONCATENATION", index, sides, (joined,)))
        return operators

    def _as_image(self, index: int, tensor: Tensor) -> Tensor:
        """Return the rows or the vector that a binary layer reads, as an image."""
        source = self.calls[self.fusing.inputs[index][0]]
        rows = self.fusing.kind(index) == "conv" and len(self.calls[index].shape) == 2
        vector = self.fusing.kind(index) == "dense" and len(source.shape) == 1
        flat = rows or (vector and source.facts.kind != "reshape")
        if not flat or tensor in self._images:
            return tensor
        image = Tensor(tensor.call, f"image of {tensor.form}")
        self._add("RESHAPE", index, (tensor,), image, numbers(4))
        return image

    def _emit_sign(self, index: int, end: int) -> None:
        packed = self._bits_of(index)
        if self.calls[index].facts.sign_of_zero < 0:
            signs = Tensor(end, "turned signs")
            self._tensors[end] = Tensor(end)
            self._add("LceDequantize", index, (packed,), signs)
            self._add("MUL", index, (signs,), Tensor(end), numbers(1))
            return
        self._tensors[end] = packed
        # A pool behind a sign pools numbers, and only the sign behind it makes them bits again.
        pooled = any(self.fusing.kind(i) == "max_pool" for i in self.fusing.readers[end])
        if pooled or not self.fusing.read_as_bits(end):
            self._tensors[end] = Tensor(end)
            self._add("LceDequantize", index, (packed,), Tensor(end))

    def _packs(self, index: int) -> bool:
        """Return whether binary call `index` writes bits."""
        chain = self.fusing.chain(index)
        apart = self.fusing.activates_apart(index)
        grouped = self.calls[index].facts.groups > 1
        floats = grouped or apart or zero_padded(self.fusing.network, index)
        return not floats and self.fusing.read_as_bits(chain[-1] if chain else index)

    def _emit_binary(self, index: int, end: int) -> None:
        groups = self.calls[index].facts.groups
        apart, packs = self.fusing.activates_apart(index), self._packs(index)
        constants = binary_constants(self.fusing, index, packs)
        self._tensors[end] = bits(end) if packs else Tensor(end)
        if groups > 1:
            source = self._as_image(index, self._flipped(index, self._found(index)[0]))
            source = self._signs_before(index, source)
            self._emit_groups(index, source, self._tensors[end], constants)
        else:
            packed = self._bits_of(index)
            self._add("LceBconv2d", index, (packed,), self._tensors[end], constants)
        if apart:
            self._activate(index, end)
        if len(self.calls[index].shape) < 3 and not packs:
            self._images.add(self._tensors[end])

    def _emit_groups(
        self, index: int, source: Tensor, output: Tensor, constants: Constants
    ) -> None:
        """Add a grouped binary convolution: one for each part of the channels."""
        groups = self.calls[index].facts.groups
        parts = tuple(Tensor(source.call, f"part{g} of {index}", groups) for g in range(groups))
        outputs = tuple(Tensor(index, f"output{g}", groups) for g in range(groups))
        padded, quantized, convolved = [], [], []
        for g, part in enumerate(parts):
            added = self._surround(index, part)
            whole = added[-1].writes[0] if added else part
            signs = replace(whole, form=f"bits{g} of {index}", packed=True)
            held = self._once(index, constants, g)
            padded += added
            quantized.append(Operator("LceQuantize", index, (whole,), (signs,)))
            convolved.append(Operator("LceBconv2d", index, (signs,), (outputs[g],), held))
        split = Operator("SPLIT", index, (source,), parts, known(1, "channel axis"))
        joined = Operator("CONCATENATION", index, outputs, (output,))
        self._append([split, *padded, *quantized, *convolved, joined])

    def _activate(self, index: int, end: int) -> None:
        """Add the activation that a layer applies itself, where it stays apart."""
        call, active = self.calls[index], Tensor(end, "activated")
        activation, given = own_activation(call.layer), (self._tensors[end],)
        found = None
        if getattr(activation, "__name__", "") not in ONE_OPERATION:
            specs = [tf.TensorSpec((1, *call.shape), tf.float32)]
            found = convert_alone(lambda x: [activation(x)], specs, call.layer, "activation")
        if found is None or not found.kinds:
            relu = activation is tf.keras.activations.relu
            self._add("RELU" if relu else "ACTIVATION", index, given, active)
        elif not found.behind_convolution().kinds:
            return
        else:
            once = _of_activation(call.layer)
            self._append(opaque(index, found.behind_convolution(), given, active, once))
        self._tensors[end] = active

    def _emit_affine(self, index: int, end: int) -> None:
        (tensor,) = self._found(index)
        if self._goes_into_dense(index, self.fusing.kind(index) != "scale"):
            self._tensors[end] = tensor
            return
        if tensor in self._images:
            self._images.add(Tensor(end))
        kind, count = self.fusing.kind(index), self.calls[index].facts.constants
        values = numbers(count) if count else vector(index)
        if self.fusing.takes_offset(index):
            values = vector(index)
        elif hasattr(self.calls[index].layer, "symbol"):
            values = known(count, *self._line((index,)))
        if kind == "norm":
            scaled = Tensor(index, "scaled")
            self._add("MUL", index, (tensor,), scaled, values)
            self._add("ADD", index, (scaled,), Tensor(end), values)
        else:
            self._add("MUL" if kind == "scale" else "ADD", index, (tensor,), Tensor(end), values)
        self._tensors[end] = Tensor(end)

    def _goes_into_dense(self, index: int, adds: bool) -> bool:
        """Return whether the dense layers behind call `index` take in its factors and offsets.

        The converter multiplies their weights, and adds to their biases where they have some.
        """
        readers = self.fusing.readers[index]
        if not readers or self.calls[index].output:
            return False
        for reader in readers:
            kind = self.fusing.kind(reader)
            if kind == "dense" and not self.fusing.binary[reader]:
                fused = self.fusing.fused_kinds(reader) & {"norm", "offset"}
                if adds and not (self.calls[reader].facts.bias or fused):
                    return False
            elif kind not in AFFINE or not self._goes_into_dense(reader, adds or kind != "scale"):
                return False
        return True

    def _emit_sum(self, index: int, end: int) -> None:
        reads, inputs = self._read(index), self.fusing.inputs[index]
        known = [read for read in inputs if read in self._known]
        if len(reads) == 1 and known and all(self._known[read] == 0 for read in known):
            self._tensors[end] = reads[0]
            return
        kind = self.fusing.kind(index)
        name = "ARITHMETIC" if kind == "arithmetic" else "ADD"
        output = self._tensors[end] = Tensor(end)
        if len(reads) == 1:  # and a constant
            constants = numbers(max(1, self.calls[index].facts.constants))
            self._add(name, index, reads, output, constants)
            return
        so_far, *others = reads
        for number, other in enumerate(others, 2):
            last = number == len(reads) and kind != "average"
            result = output if last else Tensor(end, f"sum{number}")
            self._add(name, index, (so_far, other), result)
            so_far = result
        if kind == "average":
            self._add("MUL", index, (so_far,), output, numbers(1))

    def _emit_opaque(self, index: int, end: int) -> None:
        """Add what a call becomes that is converted alone to know it; its first output is all."""
        call, reads, output = self.calls[index], self._read(index), Tensor(end)
        self._tensors[end] = output
        key = id(call.layer), call.index, call.inputs
        if key in self._opaque or not reads:
            return
        self._opaque.add(key)
        tensors = call.layer._inbound_nodes[call.index].keras_inputs
        specs = [
            tf.TensorSpec((1, *self.calls[read].shape), tensor.dtype)
            for read, tensor in zip(call.inputs, tensors, strict=True)
        ]
        # The name of the argument is part of the file.
        compute: Callable[..., Any] = lambda *inputs: call_layer(call, inputs)  # noqa: E731
        found = convert_alone(compute, specs, call.layer, call.index)
        if found is not None and self.fusing.takes_flip(call.inputs[0]):
            found = found.behind_convolution()
        if found is None:
            constants = plain_constants(self.fusing, index, self._known)
            self._add("UNKNOWN", index, reads, output, self._once(index, constants))
        elif not found.kinds:
            self._tensors[end] = reads[0]
        else:
            known = getattr(call.layer, "activation", None) is not None
            once = _of_activation(call.layer) if known else partial(self._once, index)
            self._append(opaque(index, found, reads, output, once))

    def _emit_plain(self, index: int, end: int) -> None:
        kind, reads, output = self.fusing.kind(index), self._read(index), Tensor(end)
        call = self.calls[index]
        if index in self.fusing.trimmed:
            sizes = self.calls[call.inputs[0]].shape[:2], self.fusing.trimmed[index]
            area = math.prod(size + sum(added) for size, added in zip(*sizes, strict=True))
            output = Tensor(end, area=area)
        permutes = isinstance(call.layer, tf.keras.layers.Permute)
        name = "TRANSPOSE" if permutes else _KINDS.get(kind, kind.upper())
        constants = self._once(index, plain_constants(self.fusing, index, self._known), name)
        if self.fusing.emulated[index] and getattr(call.layer, "input_quantizer", None):
            shape = self.calls[reads[0].call].shape
            added = signs_as_numbers(call.layer, index, self._bits_of(index), shape)
            self._append(added)
            reads = added[-1].writes
        self._tensors[end] = output
        if kind == "separable":
            halves = separable_constants(self.fusing, index)
            first, second = map(self._once, (index, index), halves, ("depthwise", name))
            between = Tensor(reads[0].call, f"depthwise of {index}", area=call.area)
            self._append(
                [
                    Operator("DEPTHWISE_CONV_2D", index, reads, (between,), first),
                    Operator("CONV_2D", index, (between,), (output,), second),
                ]
            )
        elif kind == "composite":  # such as swish, `x * sigmoid(x)`
            between = Tensor(end, "between")
            self._append(
                [
                    Operator("ACTIVATION", index, reads, (between,)),
                    Operator("MUL", index, (*reads, between), (output,)),
                ]
            )
        elif kind in WEIGHTED and kind != "dense" and len(call.shape) == 2:
            read = self.calls[call.inputs[0]].shape[0]
            self._append(in_one_dimension(call, index, name, reads[0], output, constants, read))
        elif shares_dilation(self.fusing.network, index):
            self._append(spread(self.fusing, index, name, reads[0], output, constants))
        else:
            self._add(name, index, reads, output, constants)
        activation = own_activation(call.layer)
        apart = self.fusing.dilates_rows(index) and not call.facts.bias
        if activation is not None and (apart or activation is not tf.keras.activations.relu):
            self._activate(index, end)


def spread(
    fusing: Fusing, index: int, kind: str, source: Tensor, output: Tensor, constants: Constants
) -> list[Operator]:
    """Return a dilated convolution as one on a batch of every other pixel.

    The first operation is the same for all that dilate `source` in the same way.
    """
    layer = fusing.network.calls[index].layer
    sizes = fusing.network.calls[source.call].shape[:-1]
    padded, convolved = [], []
    for size, taps, step in zip(sizes, layer.kernel_size, layer.dilation_rate, strict=True):
        reach = (taps - 1) * step
        padded.append(-(-(size + reach) // step) * step)
        convolved.append(padded[-1] - reach)
    form = f"spread by {layer.dilation_rate} for {layer.kernel_size}"
    batch = Tensor(source.call, form, area=math.prod(padded))
    result = Tensor(index, "spread", area=math.prod(convolved))
    held = _both(numbers(2), numbers(4))
    return [
        Operator("SPACE_TO_BATCH_ND", index, (source,), (batch,), held),
        Operator(kind, index, (batch,), (result,), constants),
        Operator("BATCH_TO_SPACE_ND", index, (result,), (output,), held),
    ]


def signs_as_numbers(
    layer: Any, index: int, packed: Tensor, shape: Sequence[int]
) -> list[Operator]:
    """Return what gives a binary layer that runs in float its signs, padded, from bits."""
    signs = Tensor(packed.call, f"signs for {index}")
    operators = [Operator("LceDequantize", index, (packed,), (signs,))]
    if getattr(layer, "pad_values", 0) and layer.padding == "same":
        sizes = zip(shape[:-1], layer.kernel_size, strict=True)
        area = math.prod(size + taps - 1 for size, taps in sizes)
        padded = Tensor(packed.call, f"padded for {index}", area=area)
        operators.append(Operator("PADV2", index, (signs,), (padded,), numbers(9)))
    return operators


def opaque(
    index: int,
    found: Opaque,
    reads: tuple[Tensor, ...],
    output: Tensor,
    once: Callable[[Constants], Constants],
) -> list[Operator]:
    """Return the operations of a call that was converted alone; the first has all constants.

    `once` gives constants that are held once, however often a layer is called.
    """
    spare = found.bytes - CONSTANT_BYTES
    constants = once(numbers(spare // 4)) if spare > 0 else lambda channels: []
    operators = []
    for number, kind in enumerate(found.kinds, 1):
        last = number == len(found.kinds)
        written = output if last else Tensor(output.call, f"step {number}")
        held = constants if number == 1 else (lambda channels: [])
        operators.append(Operator(kind, index, reads, (written,), held))
        reads = (written,)
    return operators


def in_one_dimension(
    call: Call,
    index: int,
    kind: str,
    source: Tensor,
    output: Tensor,
    constants: Constants,
    rows: int,
) -> list[Operator]:
    """Return a convolution over rows: one over images of height 1.

    Where it dilates, on a batch of every other row, with what it adds in an operation of its own.
    """
    layer, read = call.layer, source.call
    taps, step, padding = layer.kernel_size[0], layer.dilation_rate[0], layer.padding
    around = (taps - 1) * step if padding != "valid" else 0
    operators, held = [], constants
    if padding == "causal" and around:
        rows, padded = rows + around, replace(source, form=f"{around} before", area=rows + around)
        operators.append(Operator("PAD", index, (source,), (padded,), known(6, "pad", around)))
        source, around = padded, 0
    spreads = step > 1 and kind == "CONV_2D"
    if spreads:
        extra = -(rows + around) % step
        rows += around + extra
        batch = replace(source, form=f"spread by {step} for {layer.kernel_size}", area=rows)
        sides = around // 2, around - around // 2 + extra
        block, paddings = known(1, "block", step), known(2, "paddings", *sides)
        crops = known(2, "paddings", 0, extra)
        operators.append(
            Operator("SPACE_TO_BATCH_ND", index, (source,), (batch,), _both(block, paddings))
        )
        source = batch
        held = lambda channels: [constants(channels)[0], Constant(4 * channels[index], 0.0)]  # noqa: E731
    image, result = replace(source, form=f"image for {index}"), Tensor(output.call, "image")
    if not spreads:
        return [
            *operators,
            Operator("RESHAPE", index, (source,), (image,), shape_of(rows, read, 4)),
            Operator(kind, index, (image,), (result,), held),
            Operator("RESHAPE", index, (result,), (output,), shape_of(call.area, index, 3)),
        ]
    area = rows - (taps - 1) * step
    image, result = replace(image, form=f"image of {source.form}"), replace(result, area=area)
    parts, joined = replace(result, form="rows of parts"), replace(output, form="joined")
    operators += [
        Operator("RESHAPE", index, (source,), (image,), shape_of(rows, read, 4)),
        Operator(kind, index, (image,), (result,), held),
        Operator("RESHAPE", index, (result,), (parts,), shape_of(area, index, 3)),
    ]
    whole = joined if call.facts.bias else output
    operators.append(Operator("BATCH_TO_SPACE_ND", index, (parts,), (whole,), _both(block, crops)))
    if call.facts.bias:
        bias: Constants = lambda channels: constants(channels)[1:]  # noqa: E731
        operators.append(Operator("ADD", index, (joined,), (output,), bias))
    return operators


def _both(one: Constants, other: Constants) -> Constants:
    return lambda channels: [*one(channels), *other(channels)]
