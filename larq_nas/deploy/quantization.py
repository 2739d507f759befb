"""What the integers of an input or output stand for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from larq_nas.errors import InputError

NumberType = Literal["float32", "uint8", "int8"]
"""Types of the numbers that a flatbuffer takes and gives."""

NUMBER_TYPES: tuple[NumberType, ...] = ("float32", "uint8", "int8")
"""All of these types."""

LEAST = {"uint8": 0, "int8": -128}
"""The least integer of each type."""

_STEPS = 255
# What 0 and 255 are turned into by the usual preprocessing of images.
_USUAL = ((0.0, 255.0), (0.0, 1.0), (-1.0, 1.0), (-0.5, 0.5), (0.0, 255 / 256), (-1.0, 127 / 128))
_SIGNED = (-128.0, 127.0)
# Resized images lie between the integers, but nearly fill their range.
_FILLED = 0.02
_ON_STEP = 0.01
# So many levels of a channel show its step.
_LEVELS = 64


@dataclass(frozen=True)
class IntegerTensor:
    """An integer input or output.

    `q` stands for `scale * (q - zero_point) * factor + offset`.

    # Arguments
        name: name in the flatbuffer's signature.
        type: `"uint8"` or `"int8"`.
        scale: scale of the tensor, as its quantization parameters have it.
        zero_point: the integer that stands for 0, before `offset`.
        factor: for each channel a further scale, which the network multiplies with; empty for none.
        offset: what the network adds, one number or one for each channel; empty for none.
        note: how this was found.
    """

    name: str
    type: str
    scale: float
    zero_point: int
    factor: Sequence[float] = ()
    offset: Sequence[float] = ()
    note: str = ""

    def quantize(self, x: np.ndarray) -> np.ndarray:
        """Return the integers that stand for `x`, or are the nearest to it."""
        x = (x - self._offset) / self._factor / np.float32(self.scale)
        first = LEAST[self.type]
        whole = np.clip(np.round(x) + self.zero_point, first, first + _STEPS)
        return np.asarray(whole.astype(self.type))

    def dequantize(self, q: np.ndarray) -> np.ndarray:
        """Return what the integers `q` stand for, in the steps of the flatbuffer."""
        x = np.float32(self.scale) * (q.astype("float32") - np.float32(self.zero_point))
        x = x * self._factor if self.factor else x
        return np.asarray(x + self._offset if self.offset else x)

    def is_rounded(self, x: np.ndarray, q: np.ndarray, tie: float) -> bool:
        """Return whether `q` is `x` rounded; a number within `tie` of two steps may be either."""
        exact = x / np.float32(self.scale) + self.zero_point
        first = LEAST[self.type]
        difference = np.abs(np.clip(exact, first, first + _STEPS) - q.astype("float32"))
        return bool(np.all(difference <= 0.5 + tie))

    @property
    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """What the smallest and the largest integer stand for."""
        first = LEAST[self.type]
        low, high = self.dequantize(np.array([[first], [first + _STEPS]]))
        return low, high

    @property
    def _factor(self) -> np.ndarray:
        return np.array(self.factor or 1.0, "float32")

    @property
    def _offset(self) -> np.ndarray:
        return np.array(self.offset or 0.0, "float32")

    def __str__(self) -> str:
        first = LEAST[self.type]
        low, high = (_numbers(end) for end in self.ends)
        note = f" ({self.note})" if self.note else ""
        return (
            f"`{self.name}` is {self.type}: {first} is {low}, {first + _STEPS} is {high}, scale "
            f"{self.scale:.7g}, zero point {self.zero_point}{self._affine}{note}"
        )

    @property
    def _affine(self) -> str:
        factor = f", then times {_numbers(self._factor)}" if self.factor else ""
        return factor + (f", then plus {_numbers(self._offset)}" if self.offset else "")


@dataclass(frozen=True)
class Integers:
    """Integer inputs and outputs, and what they change.

    # Arguments
        inputs: the inputs that are integers.
        outputs: the outputs that are.
        examples: number of examples compared.
        mean: mean difference from the outputs of float inputs, in standard deviations; of the
            output that differs most.
        agreement: share of the largest numbers along the last axis that are the same ones; `None`
            where outputs are single numbers.
        notes: which tensors were asked for and stay as the model has them.
    """

    inputs: Sequence[IntegerTensor]
    outputs: Sequence[IntegerTensor]
    examples: int
    mean: float
    agreement: float | None
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        lines = [f"input {tensor}" for tensor in self.inputs]
        lines += [f"output {tensor}" for tensor in self.outputs]
        same = "" if self.agreement is None else f", same largest output in {self.agreement:.1%}"
        lines.append(
            f"integers: outputs differ by {self.mean:.2%} of a standard deviation from those of "
            f"float inputs and outputs{same}, on {self.examples} examples"
        )
        lines += self.notes
        return "\n".join(lines)


def of_range(name: str, kind: str, low: float, high: float) -> IntegerTensor:
    """Return an integer output from `low` to `high`, 0 among them."""
    low, high = min(low, 0.0), max(high, 0.0)
    high = high if high > low else 1.0
    zero = round(-low * _STEPS / (high - low))
    below = -low / zero if zero else 0.0
    above = high / (_STEPS - zero) if zero < _STEPS else 0.0
    return IntegerTensor(name, kind, max(below, above), zero + LEAST[kind])


def of_pixels(name: str, kind: str, images: np.ndarray, given: Any = None) -> IntegerTensor:
    """Return what the integers of an input stand for: in int8, -128 is what 0 is in uint8.

    What the smallest and the largest stand for is `given`, or else shown by the images.

    # Raises
        InputError: if that is not given and the images do not show it.
    """
    note = "as given"
    if given is not None:
        low, high = _given(name, given, images.shape[-1])
        outside = float(np.mean((images < low) | (images > high)))
        if outside > 0:
            note += f"; {outside:.1%} of the numbers compared lie outside and are cut off"
    else:
        low, high, note = _found(name, images)
    step, first = (high - low) / _STEPS, LEAST[kind]
    if step.size > 1 and (np.ptp(step) or np.ptp(low)):
        factor, offset = (
            tuple(map(float, np.broadcast_to(x, (images.shape[-1],)))) for x in (step, low)
        )
        return IntegerTensor(name, kind, 1.0, first, factor, offset, note)
    width, start = float(step.flat[0]), float(low.flat[0])
    zero = min(max(round(-start / width), 0), _STEPS)
    rest = start + zero * width
    offset = (rest,) if abs(rest) > 1e-4 * width else ()
    return IntegerTensor(name, kind, width, zero + first, (), offset, note)


def _given(name: str, given: Any, channels: int) -> tuple[np.ndarray, np.ndarray]:
    try:
        low, high = (np.asarray(end, "float64") for end in given)
        fits = all(end.shape in ((), (1,), (channels,)) for end in (low, high))
        sound = fits and bool(np.all(np.isfinite(low) & np.isfinite(high) & (low < high)))
    except (TypeError, ValueError):
        sound = False
    if not sound:
        raise InputError(
            f"`input_range` of input `{name}` must be what the smallest and the largest whole "
            f"number stand for, as (-1.0, 1.0), each a number or one for each of {channels} "
            f"channels, but got {given!r}."
        )
    low, high = np.broadcast_arrays(low, high)
    return low, high


def _found(name: str, images: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """Return what 0 and 255 stand for, and how that was found."""
    least, most = float(images.min()), float(images.max())
    usual = (*_USUAL, _SIGNED) if least < 0 else _USUAL
    exact = [ends for ends in usual if least < most and _on_steps(images, *ends)]
    if len(exact) == 1:
        return *map(np.asarray, exact[0]), "found from the images, which lie on its steps"  # type: ignore[return-value]
    if len(exact) > 1:
        raise InputError(
            f"Input `{name}` holds only {least:g} and {most:g} or little more, which may be "
            f"{' or '.join(f'0 to 255 as {ends}' for ends in exact)}: give input_range=(low, "
            "high), what the smallest and the largest integer stand for."
        )
    rows = images.reshape(-1, images.shape[-1]).astype("float64")
    lows, highs = rows.min(axis=0), rows.max(axis=0)
    if all(
        _spans(images[..., channel], low, high)
        for channel, (low, high) in enumerate(zip(lows, highs, strict=True))
    ):
        return lows, highs, "found from the images, channel by channel"
    for low, high in _USUAL[:3]:
        room = _FILLED * (high - low)
        if low <= least <= low + room and high - room <= most <= high:
            note = f"taken for {low:g} to {high:g}, which the images nearly fill"
            return np.asarray(low), np.asarray(high), note
    raise InputError(
        f"What integers input `{name}` reads is not known: the images hold {least:.4g} to "
        f"{most:.4g}, which is no usual scale of 0 to 255; give input_range=(low, high), what "
        "the smallest and the largest integer stand for, each a number or one for each "
        "channel."
    )


def _on_steps(values: np.ndarray, low: float, high: float) -> bool:
    """Return whether all numbers are on the 256 steps from `low` to `high`."""
    steps = (values.astype("float64") - low) * (_STEPS / (high - low))
    on = np.abs(steps - np.round(steps)) <= _ON_STEP
    return bool(np.all(on & (steps > -_ON_STEP) & (steps < _STEPS + _ON_STEP)))


def _spans(values: np.ndarray, low: float, high: float) -> bool:
    """Return whether a channel has its 256 steps from its smallest to its largest number."""
    if not low < high or not _on_steps(values, low, high):
        return False
    steps = np.unique(np.round((values.astype("float64") - low) * (_STEPS / (high - low))))
    return len(steps) >= _LEVELS and float(np.diff(steps).min()) == 1.0


def _numbers(values: np.ndarray) -> str:
    flat = np.unique(values) if np.ptp(values) == 0 else values.reshape(-1)
    return f"{flat[0]:.6g}" if len(flat) == 1 else str([float(f"{x:.6g}") for x in flat])
