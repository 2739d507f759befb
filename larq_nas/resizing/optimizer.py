"""Optimizers of weights that take any width."""

from typing import Any

import tensorflow as tf

from larq_nas.resizing.network import resizable
from larq_nas.training.optimizers import MOMENTUM, OptimizerName, Rate

__all__ = ["resizable_optimizer"]


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


def resizable_optimizer(name: OptimizerName, rate: Rate) -> Any:
    """Return the optimizer of that name, with a `reset` for variables of other sizes.

    # Arguments
        name: `"adam"` or `"sgd"`.
        rate: learning rate, or its schedule.
    """
    # Compiled by XLA, an update would be compiled again for every size.
    if name == "sgd":
        return _Momentum(rate, momentum=MOMENTUM, jit_compile=False)
    return _Adam(rate, jit_compile=False)
