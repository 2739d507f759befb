"""Record every layer call of a Keras model on given images."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

_ROUNDING = 1e-6
_SEEDS = 3
# More calls than the converter makes one operation of.
_MOST_CALLS = 32


@dataclass(frozen=True)
class LayerCall:
    """One call of one layer, with the tensors it read and gave.

    # Arguments
        layer: the layer; layers inside of other layers and models have calls of their own.
        args: the positional arguments of the call.
        kwargs: the keyword arguments of the call.
        outputs: the tensors it gave.
    """

    layer: tf.keras.layers.Layer
    args: Any = field(repr=False)
    kwargs: Mapping[str, Any] = field(repr=False)
    outputs: Sequence[tf.Tensor] = field(repr=False)

    @property
    def inputs(self) -> list[tf.Tensor]:
        """The tensors among the arguments."""
        values = tf.nest.flatten((self.args, dict(self.kwargs)))
        return [value for value in values if isinstance(value, tf.Tensor)]


class Recording:
    """The layer calls of one forward pass, in the order they ended."""

    def __init__(self, calls: Sequence[LayerCall], outputs: Sequence[tf.Tensor]) -> None:
        self.calls, self.outputs = calls, outputs
        # A model gives the very tensor that its last layer gave: the inner call made it.
        self.makers: dict[int, int] = {}
        for number, call in enumerate(calls):
            for tensor in call.outputs:
                self.makers.setdefault(id(tensor), number)
        # By the tensor and the calls that lead to it.
        self._jitters: dict[tuple[int, frozenset[int]], list[np.ndarray]] = {}

    def read(self, number: int) -> list[int]:
        """Return the calls whose outputs call `number` read."""
        inputs = self.calls[number].inputs
        return [self.makers[id(value)] for value in inputs if id(value) in self.makers]

    def jittered(self, tensor: tf.Tensor, given: set[int]) -> list[np.ndarray]:
        """Return `tensor` as it might be if numbers were rounded differently.

        What leads to it from the calls `given` is computed anew, with their outputs and all
        weights changed by 1e-6 of their value, about ten times what float32 rounds. Nothing is
        returned for a tensor that is many calls away from them: it is no step between two.
        """
        leading = self._leading(tensor, given)
        if leading is None:
            return []
        # Each kernel asks for the same, and mostly has matched the same before.
        key = id(tensor), leading
        if key not in self._jitters:
            self._jitters[key] = found = []
            for seed in range(_SEEDS):
                generator = np.random.default_rng(seed)
                with contextlib.suppress(tf.errors.InvalidArgumentError, ValueError):
                    found.append(self._jitter(tensor, given, generator))
        return self._jitters[key]

    def _jitter(
        self, tensor: tf.Tensor, given: set[int], generator: np.random.Generator
    ) -> np.ndarray:
        """Return `tensor` computed of jittered inputs and weights."""
        made: dict[int, tf.Tensor] = {}

        def value(argument: Any) -> Any:
            if not isinstance(argument, tf.Tensor):
                return argument
            maker = self.makers.get(id(argument))
            if maker is None or maker in given:
                return tf.constant(_moved(argument.numpy(), generator))
            if id(argument) not in made:
                outputs = outputs_of(self.calls[maker])
                made.update(zip(map(id, self.calls[maker].outputs), outputs, strict=True))
            return made[id(argument)]

        def outputs_of(call: LayerCall) -> list[tf.Tensor]:
            args, kwargs = tf.nest.map_structure(value, (call.args, dict(call.kwargs)))
            weights = call.layer.get_weights()
            # In place: a copy of a layer whose quantizers are functions cannot be made.
            try:
                call.layer.set_weights([_moved(weight, generator) for weight in weights])
                return tf.nest.flatten(call.layer(*args, **kwargs))
            finally:
                call.layer.set_weights(weights)

        return value(tensor).numpy()

    def _leading(self, tensor: tf.Tensor, given: set[int]) -> frozenset[int] | None:
        """Return the calls that lead to `tensor` from those given; `None` if they are many."""
        found: set[int] = set()
        waiting = [self.makers[id(tensor)]] if id(tensor) in self.makers else []
        while waiting:
            number = waiting.pop()
            if number not in given and number not in found:
                found.add(number)
                waiting += self.read(number)
                if len(found) > _MOST_CALLS:
                    return None
        return frozenset(found)


def _moved(values: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return `values` changed by 1e-6 of each, which keeps every sign."""
    if not np.issubdtype(values.dtype, np.floating):
        return values
    factors = 1 + _ROUNDING * generator.standard_normal(values.shape)
    return np.asarray((values * factors).astype(values.dtype))


def record(model: tf.keras.Model, images: Sequence[np.ndarray]) -> Recording:
    """Call `model` on `images`, and return the calls of all its layers, nested ones too."""
    calls: list[LayerCall] = []
    return Recording(calls, watch(model, images, calls.append))


def watch(
    model: tf.keras.Model, images: Sequence[np.ndarray], watcher: Callable[[LayerCall], None]
) -> list[tf.Tensor]:
    """Call `model` on `images`, give each call of a layer to `watcher`, and return the outputs."""
    given = [tf.constant(image) for image in images]
    with _watched_by(watcher):
        outputs = model(given if len(given) > 1 else given[0], training=False)
    return tf.nest.flatten(outputs)


@contextlib.contextmanager
def _watched_by(watcher: Callable[[LayerCall], None]) -> Iterator[None]:
    own = tf.keras.layers.Layer.__call__

    def watched(layer: tf.keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        outputs = own(layer, *args, **kwargs)
        flat = [value for value in tf.nest.flatten(outputs) if tf.is_tensor(value)]
        if all(hasattr(value, "numpy") for value in flat):
            watcher(LayerCall(layer, args, kwargs, flat))
        return outputs

    tf.keras.layers.Layer.__call__ = watched
    try:
        yield
    finally:
        tf.keras.layers.Layer.__call__ = own
