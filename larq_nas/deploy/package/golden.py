"""Choose the inputs of a golden test, and its tolerance on devices."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import tensorflow as tf

from larq_nas.deploy.conversion import Conversion
from larq_nas.deploy.export import run
from larq_nas.deploy.golden import (
    CLOSE,
    SHARE,
    Expected,
    Golden,
    Tensor,
    integer_inputs,
    natural_order,
    same_class,
    tensors,
)
from larq_nas.deploy.operations import KERNELS, Kernel
from larq_nas.errors import ConversionError

_EXAMPLES, _CANDIDATES = 16, 32
# By how much more than rounding did here it may change an output on a device.
_MARGIN = 3.0
_JITTER, _JITTERS, _BATCH = 1e-6, 3, 32


def make_golden(
    model: tf.keras.Model,
    conversion: Conversion,
    kernel: Kernel,
    images: Sequence[np.ndarray] | None = None,
    classes: Sequence[bool] = (),
    names: Sequence[str] = (),
) -> Golden:
    """Return a golden test of a converted model.

    What is expected is what Keras gives, whose outputs are the truth; of a network in int8 it
    is what the engine gives here, as Keras does not round. Rounding differs between devices and
    can turn a sign that is almost 0. So those inputs are taken that it changes least: in
    Keras with weights changed by 1e-6 of their value, and in every kernel that was compared.
    Where too few of the given images are steady, random ones are taken as well.

    # Arguments
        model: the Keras model.
        conversion: what it was converted to.
        kernel: the kernel to deploy with.
        images: for each input of the model its examples; by default random numbers.
        classes: for each output of the flatbuffer whether its last axis are classes.
        names: for each output of the flatbuffer its name for a reader.

    # Raises
        ConversionError: if Keras's own outputs are not finite.
    """
    inputs, outputs = tensors(conversion.flatbuffer)
    places = natural_order(inputs)
    given = [images[place][:_CANDIDATES] for place in places] if images else []
    discrete = [not model.inputs[place].dtype.is_floating for place in places]
    first = given or _random_inputs(inputs, discrete, conversion)
    stored = _stored_inputs(inputs, first, conversion)
    trial = _try(model, conversion, kernel, stored)
    if given and trial.steady < _EXAMPLES:
        drawn = _stored_inputs(
            inputs, _random_inputs(inputs, discrete, conversion, given), conversion
        )
        stored = [np.concatenate(pair) for pair in zip(stored, drawn, strict=True)]
        trial = _try(model, conversion, kernel, stored)
    chosen = trial.steadiest()
    flags = list(classes) or [False] * len(outputs)
    labels = list(names) or [end.name for end in outputs]
    real = int(np.sum(chosen < len(given[0]))) if given else 0
    parts = [f"{real} of the given images"] if real else []
    parts += [f"{len(chosen) - real} inputs of random numbers"] if real < len(chosen) else []
    source = f"Larq Compute Engine's {kernel} kernel" if conversion.int8 else "Keras"
    return Golden(
        inputs,
        [x[chosen] for x in stored],
        [trial.expected(o, chosen, labels[o], flags[o]) for o in range(len(outputs))],
        f"{' and '.join(parts)}, outputs of {source}",
    )


def _stored_inputs(
    inputs: Sequence[Tensor], examples: Sequence[np.ndarray], conversion: Conversion
) -> list[np.ndarray]:
    """Return what the inputs hold for examples as the model reads them."""
    integers = integer_inputs(conversion)
    return [
        integers[end.name].quantize(x) if end.name in integers else end.stored(x)
        for end, x in zip(inputs, examples, strict=True)
    ]


def _random_inputs(
    inputs: Sequence[Tensor],
    discrete: Sequence[bool],
    conversion: Conversion,
    given: Sequence[np.ndarray] = (),
) -> list[np.ndarray]:
    """Return random inputs, within the range of those given; integers where it must be."""
    generator = np.random.default_rng(0)
    drawn: list[np.ndarray] = []
    for index, end in enumerate(inputs):
        shape = (_CANDIDATES, *end.shape[1:])
        # An integer may be an index: the least ones are the likeliest to be valid.
        least, greatest = end.bounds if end.scale else (0.0, 1.0)
        if integer := integer_inputs(conversion).get(end.name):
            low, high = integer.ends
            least, greatest = float(np.min(low)), float(np.max(high))
        if given:
            least, greatest = float(given[index].min()), float(given[index].max())
        if discrete[index] and not end.scale:
            drawn.append(generator.integers(int(least), int(greatest), shape, endpoint=True))
        elif given or end.scale:
            drawn.append(generator.uniform(least, greatest, shape))
        else:
            drawn.append(generator.standard_normal(shape))
    return drawn


@dataclass(frozen=True)
class _Trial:
    """What candidates give: the outputs, and what rounding makes of them.

    # Arguments
        outputs: the output tensors.
        truth: for each output what is expected, shape `(examples, positions, channels)`.
        others: the same of other roundings.
        steps: for each output what is no difference: steps of int8.
    """

    outputs: Sequence[Tensor]
    truth: Sequence[np.ndarray]
    others: Sequence[Sequence[np.ndarray]]
    steps: Sequence[float]

    @cached_property
    def spreads(self) -> list[np.ndarray]:
        """By how much each channel varies over examples and positions."""
        return [_spread(values) for values in self.truth]

    @cached_property
    def rounding(self) -> list[np.ndarray]:
        """For each output, what rounding does to each example, in standard deviations."""
        return [
            np.max(
                [_worst(values, other[o], self.steps[o], self.spreads[o]) for other in self.others],
                axis=0,
            )
            for o, values in enumerate(self.truth)
        ]

    @property
    def steady(self) -> int:
        """Number of examples that rounding does not change visibly."""
        return int(np.sum(np.max(self.rounding, axis=0) <= CLOSE))

    def steadiest(self) -> np.ndarray:
        """Return the examples that rounding changes least, the first where it changes none."""
        worst = np.max(self.rounding, axis=0)
        order = np.argsort(np.where(worst <= CLOSE, 0, worst), kind="stable")
        return np.sort(order[:_EXAMPLES])

    def expected(self, o: int, chosen: np.ndarray, name: str, classes: bool) -> Expected:
        """Return what is expected of an output for the chosen examples."""
        end, spread, step = self.outputs[o], self.spreads[o], self.steps[o]
        values = self.truth[o][chosen]
        rows = self.rounding[o]
        unsteady = rows[rows > CLOSE]
        usual = float(unsteady.mean()) if unsteady.size else 0.0
        tolerance = np.where(rows > CLOSE, _MARGIN * np.maximum(rows, usual), CLOSE)[chosen]
        classes = classes and len(spread) > 1
        least = 0
        if classes:
            same = [same_class(values, other[o][chosen], step, spread) for other in self.others]
            positions = values.size // len(spread)
            least = max(0, min(same, default=positions) - positions // SHARE)
        return Expected(
            Tensor(name, end.shape, end.type, end.scale, end.zero_point),
            values.astype("float32"),
            classes,
            step,
            spread.astype("float32"),
            tolerance.astype("float32"),
            least,
        )


def _try(
    model: tf.keras.Model, conversion: Conversion, kernel: Kernel, stored: Sequence[np.ndarray]
) -> _Trial:
    """Return what the inputs that are `stored` give in Keras and in the engine."""
    inputs, outputs = tensors(conversion.flatbuffer)
    places, back = natural_order(inputs), natural_order(outputs)
    integers = integer_inputs(conversion)
    read = [
        integers[end.name].dequantize(x) if end.name in integers else end.numbers(x)
        for end, x in zip(inputs, stored, strict=True)
    ]
    feed = [read[places.index(place)] for place in range(len(read))]

    def ordered(found: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [_clipped(found[place], end) for place, end in zip(back, outputs, strict=True)]

    truth = ordered(_predict(model, feed))
    if not all(np.isfinite(values).all() for values in truth):
        raise ConversionError(f"`{model.name}` gives NaN or Inf in Keras already; train it anew.")
    given = [stored[places.index(place)] for place in range(len(stored))]
    results = {
        name: [end.numbers(raw[place]) for place, end in zip(back, outputs, strict=True)]
        for name, raw in _engine(conversion, given).items()
    }
    results = {
        name: [values.reshape(one.shape) for values, one in zip(found, truth, strict=True)]
        for name, found in results.items()
    }
    others, step = list(results.values()), 0.0
    if conversion.int8:
        step = 2 * max(parity.step for parity in conversion.parity)
        truth = results[kernel]
    else:
        others += map(ordered, _jittered(model, feed))
    return _Trial(outputs, truth, others, [max(step, end.scale) for end in outputs])


def _engine(conversion: Conversion, given: Sequence[np.ndarray]) -> dict[str, list[np.ndarray]]:
    """Return what the outputs hold in each kernel that was compared, in the model's order."""
    compared = [kernel for kernel in KERNELS if kernel in {one.kernel for one in conversion.parity}]
    return {
        kernel: run(conversion.flatbuffer, given, kernel, **KERNELS[kernel]) for kernel in compared
    }


def _predict(model: tf.keras.Model, feed: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return each output of `model`, first axis the examples, second all numbers."""
    batches = []
    for i in range(0, len(feed[0]), _BATCH):
        parts = [
            tf.cast(values[i : i + _BATCH], tensor.dtype)
            for values, tensor in zip(feed, model.inputs, strict=True)
        ]
        batches.append(
            tf.nest.flatten(model(parts if len(parts) > 1 else parts[0], training=False))
        )
    joined = [
        np.concatenate([part.numpy() for part in parts]) for parts in zip(*batches, strict=True)
    ]
    return [values.reshape(len(values), *_channels(values)) for values in joined]


def _channels(values: np.ndarray) -> tuple[int, int]:
    return (-1, values.shape[-1]) if values.ndim > 1 else (-1, 1)


def _jittered(model: tf.keras.Model, feed: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Yield the outputs with weights that differ by 1e-6 of their value."""
    generator = np.random.default_rng(0)
    kept = [(w, w.numpy()) for w in model.weights if w.dtype.is_floating]
    # In place: a clone of a model whose quantizers are functions cannot be made.
    try:
        for _ in range(_JITTERS):
            for weight, values in kept:
                noise = _JITTER * generator.standard_normal(values.shape)
                weight.assign((values * (1 + noise)).astype(values.dtype))
            outputs = _predict(model, feed)
            # A network that is not finite a rounding away says nothing of rounding.
            if all(np.isfinite(values).all() for values in outputs):
                yield outputs
    finally:
        for weight, values in kept:
            weight.assign(values)


def _clipped(values: np.ndarray, end: Tensor) -> np.ndarray:
    """Return numbers as far as a quantized tensor can hold them."""
    return np.clip(values, *end.bounds) if end.scale else values


def _spread(values: np.ndarray) -> np.ndarray:
    """Return by how much each channel varies over examples and positions."""
    rows = values.reshape(-1, values.shape[-1]).astype("float64")
    # Of a channel that hardly varies no more is asked than float32 keeps of its size.
    return np.maximum(np.maximum(rows.std(axis=0), 0.01 * np.abs(rows).max(axis=0)), 1e-6)


def _worst(wanted: np.ndarray, got: np.ndarray, step: float, spread: np.ndarray) -> np.ndarray:
    got = got.reshape(wanted.shape)
    differences = np.nan_to_num(np.abs(wanted.astype("float64") - got), nan=np.inf)
    beyond = np.maximum(differences - step, 0) / spread
    worst: np.ndarray = beyond.reshape(len(wanted), -1).max(axis=1)
    return worst
