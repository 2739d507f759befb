"""Networks and optimizers whose weights take any width in one trace."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

import larq as lq
import tensorflow as tf

from larq_nas.data.validation import DataFacts
from larq_nas.layers import Domain, building_in
from larq_nas.spaces import Space
from larq_nas.spaces.chooser import Chooser
from larq_nas.training.recipe import MOMENTUM, OneCycle, OneCycleSGD, OptimizerName, Rate

Constant: TypeAlias = tuple[tf.Variable, tf.keras.layers.Layer, float]

Initial: TypeAlias = dict[Any, tf.keras.initializers.Initializer]
"""What made the first values of variables, by their references."""


def resizable_network(
    space: Space, choose: Chooser, facts: DataFacts, domain: Domain
) -> tuple[tf.keras.Model, Initial]:
    """Return a network whose weights take any width, and what made their first values."""
    with building_in(domain), resizable() as initial:
        network = space.build(choose, facts.input_shape, facts.classes)
    for layer in network._flatten_layers(include_self=False):
        if isinstance(layer, tf.keras.layers.Conv2D):
            # Or Keras writes the width it was built with into what is traced. Set as Keras sets
            # attributes, it would be tracked.
            any_width = _any_width(layer.compute_output_shape)
            object.__setattr__(layer, "compute_output_shape", any_width)
    return network, initial


@contextmanager
def resizable() -> Iterator[Initial]:
    """Make variables within a `with` block such that tensors of other sizes can be assigned.

    What TensorFlow traces of them then holds for every size.
    """
    initial: Initial = {}

    def create(next_creator: Any, **settings: Any) -> tf.Variable:
        made = getattr(settings["initial_value"], "func", None)
        variable = _without_shape(next_creator, **settings)
        if isinstance(made, tf.keras.initializers.Initializer):
            initial[variable.ref()] = made
        return variable

    with tf.variable_creator_scope(create), ExitStack() as patched:
        # They leave their width to their kernel, which layers behind them cannot be built from.
        for kind in (tf.keras.layers.DepthwiseConv2D, tf.keras.layers.Dense):
            known = _of_known_width(kind.call)
            patched.enter_context(lq.utils.patch_object(kind, "call", known))
        yield initial


def _of_known_width(call: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    def called(self: tf.keras.layers.Layer, inputs: tf.Tensor) -> tf.Tensor:
        outputs = call(self, inputs)
        outputs.set_shape(self.compute_output_shape(inputs.shape))
        return outputs

    return called


def _without_shape(create: Any, **settings: Any) -> tf.Variable:
    initial = settings["initial_value"]
    value = tf.convert_to_tensor(
        initial() if callable(initial) else initial, dtype=settings.get("dtype")
    )
    # A kernel's last two axes are channels; other weights have them along the last alone.
    rank = value.shape.rank
    kept = rank - 2 if rank in (2, 4) else rank - 1
    if rank:
        shape = [*value.shape[:kept], *[None] * (rank - kept)]
        settings |= {"initial_value": value, "shape": tf.TensorShape(shape)}
    return create(**settings)


def _any_width(compute: Callable[[Any], tf.TensorShape]) -> Callable[[Any], tf.TensorShape]:
    return lambda shape: tf.TensorShape([*compute(shape)[:-1], None])


def resizable_constants(network: tf.keras.Model) -> list[Constant]:
    """Give batch norms without scale or offset ones and zeros of a size that can change.

    Keras makes constants of the size they were built in.

    # Returns
        Each with its layer and the number that fills it.
    """
    found = []
    for layer in network._flatten_layers(include_self=False):
        if not isinstance(layer, tf.keras.layers.BatchNormalization):
            continue
        for name, used, filling in (("gamma", "scale", 1.0), ("beta", "center", 0.0)):
            if not getattr(layer, used):
                with resizable():
                    constant = tf.Variable(tf.fill([1], filling), trainable=False)
                # Set as Keras sets attributes, it would be a weight of the layer.
                object.__setattr__(layer, name, constant)
                object.__setattr__(layer, used, True)
                found.append((constant, layer, filling))
    return found


class _Resizable(tf.keras.optimizers.Optimizer):
    """An optimizer of variables that change their size between one training and the next."""

    def add_variable_from_reference(
        self, model_variable: Any, variable_name: str, *args: Any, **kwargs: Any
    ) -> tf.Variable:
        with resizable():
            state = super().add_variable_from_reference(
                model_variable,
                variable_name,
                initial_value=tf.zeros(tf.shape(model_variable), model_variable.dtype),
            )
        if not hasattr(self, "_states"):
            self._states: list[tuple[tf.Variable, tf.Variable]] = []
        self._states.append((model_variable, state))
        return state

    def reset(self) -> None:
        """Start again, at step 0 and in the sizes that the variables have now."""
        self.iterations.assign(0)
        for variable, state in self._states:
            state.assign(tf.zeros(tf.shape(variable), variable.dtype))


class _Adam(_Resizable, tf.keras.optimizers.Adam):
    pass


class _Momentum(_Resizable, tf.keras.optimizers.SGD):
    pass


class _CycledMomentum(_Resizable, OneCycleSGD):
    pass


def resizable_optimizer(name: OptimizerName, rate: Rate) -> Any:
    """Return the optimizer of that name, with a `reset` for variables of other sizes."""
    # Compiled by XLA, an update would be compiled again for every size.
    if name == "sgd" and isinstance(rate, OneCycle):
        return _CycledMomentum(rate, jit_compile=False)
    if name == "sgd":
        return _Momentum(rate, momentum=MOMENTUM, jit_compile=False)
    return _Adam(rate, jit_compile=False)
