"""Order, bytes and memory of the operations of a flatbuffer."""

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from larq_nas.graph.opaque import CONSTANT_BYTES, KIND_BYTES, TENSOR_BYTES
from larq_nas.lce.network import Network
from larq_nas.lce.operators import Operator, Tensor

# What a file takes, and how much more some operations take: fitted as `TENSOR_BYTES`.
_FILE = 565
_MORE = {"LceBconv2d": 183, "CONCATENATION": 78}
# Two kernels of so few signs may be equal by chance; a file holds them once.
_FEW_BITS = 20
# The converter names a part of a split by its layer and a number, and cuts names.
_LONGEST_NAME, _NUMBER, _USUAL_NAME = 50, len("/split_10"), 31
# What the names of the two steps from inputs of 0 and 1 to signs are shorter by.
_SHORTER = 28


def flatbuffer_bytes(
    network: Network, operators: Sequence[Operator], channels: Sequence[Any]
) -> Any:
    """Return how many bytes the flatbuffer will have.

    # Arguments
        network: the network.
        operators: its operations.
        channels: number of channels of each call's output.
    """
    total: Any = _FILE + KIND_BYTES * len({operator.kind for operator in operators})
    named: dict[Hashable, list[Any]] = {}
    small: Counter[tuple[int, int]] = Counter()
    for operator in operators:
        total = total + len(operator.writes) * TENSOR_BYTES + _MORE.get(operator.kind, 0)
        if operator.kind == "SPLIT":
            layer = network.calls[operator.call].layer.name.rstrip("_0123456789")
            name = min(_LONGEST_NAME, len(layer) + _NUMBER)
            total = total + len(operator.writes) * (name - _USUAL_NAME)
        total = total - _SHORTER * sum(tensor.turned for tensor in operator.writes)
        for constant in operator.constants(channels):
            if isinstance(constant.bits, int) and constant.bits <= _FEW_BITS:
                small[constant.bits, constant.bytes] += 1
            elif constant.same is None:
                total = total + constant.bytes + CONSTANT_BYTES
            else:
                named.setdefault(constant.same, []).append(constant.bytes)
    for (bits, size), count in small.items():
        total = total + round(_different(bits, count)) * (size + CONSTANT_BYTES)
    for sizes in named.values():
        if all(isinstance(size, int) for size in sizes):
            total = total + sum(size + CONSTANT_BYTES for size in set(sizes))
            continue
        for number, size in enumerate(sizes):
            total = total + _is_new(size, sizes[:number]) * (size + CONSTANT_BYTES)
    return total


def _different(bits: int, count: int) -> float:
    """Return how many of `count` kernels of random signs are different; the file holds those."""
    return float(2**bits * -np.expm1(count * np.log1p(-(2.0**-bits))))


def _is_new(size: Any, earlier: Sequence[Any]) -> Any:
    """Return 1 where `size` is none of `earlier`, else 0."""
    new: Any = 1
    for other in earlier:
        if tf.is_tensor(size) or tf.is_tensor(other):
            differ = tf.not_equal(tf.cast(size, tf.float64), tf.cast(other, tf.float64))
            new = new * tf.cast(differ, tf.float64)
        else:
            new = new * np.not_equal(size, other)
    return int(new) if np.ndim(new) == 0 and not tf.is_tensor(new) else new


def peak_memory(network: Network, operators: Sequence[Operator], channels: Sequence[Any]) -> Any:
    """Return the most bytes of tensors that are alive at once, constants not counted.

    # Arguments
        network: the network.
        operators: its operations, in the order they run.
        channels: number of channels of each call's output.
    """
    sizes: dict[Tensor, Any] = {}
    last = {tensor: step for step, operator in enumerate(operators) for tensor in operator.reads}
    alive: Any = 0
    peak: Any = 0
    for step, operator in enumerate(operators):
        for tensor in (*operator.reads, *operator.writes):
            if tensor not in sizes:
                sizes[tensor] = tensor.bytes(network, channels)
                alive = alive + sizes[tensor]
        peak = _larger(peak, alive)
        for tensor in set(operator.reads):
            if last[tensor] == step:
                alive = alive - sizes[tensor]
    return peak


def order(network: Network, operators: Sequence[Operator]) -> list[Operator]:
    """Return the operations in the order the converter puts them: depth first, by name."""
    readers: dict[Tensor, list[int]] = {}
    for number, operator in enumerate(operators):
        for tensor in operator.reads:
            readers.setdefault(tensor, []).append(number)
    written = {tensor for operator in operators for tensor in operator.writes}
    starts = [n for n, operator in enumerate(operators) if not set(operator.reads) & written]
    done: list[int] = []
    entered: set[int] = set()
    stack = [(number, False) for number in _by_name(network, operators, starts)]
    while stack:
        number, leaving = stack.pop()
        if leaving:
            done.append(number)
        elif number not in entered:
            entered.add(number)
            stack.append((number, True))
            following = {n for tensor in operators[number].writes for n in readers.get(tensor, [])}
            stack += [(n, False) for n in _by_name(network, operators, following - entered)]
    return [operators[number] for number in reversed(done)]


def _by_name(network: Network, operators: Sequence[Operator], numbers: Any) -> list[int]:
    return sorted(numbers, key=lambda n: (network.calls[operators[n].call].name, n))


def _larger(one: Any, other: Any) -> Any:
    if isinstance(one, tf.Tensor) or isinstance(other, tf.Tensor):
        return tf.maximum(tf.cast(one, tf.float64), tf.cast(other, tf.float64))
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.maximum(one, other)
    return max(one, other)
