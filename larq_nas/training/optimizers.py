"""Optimizers and how their learning rates go."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import tensorflow as tf

__all__ = ["OptimizerName", "Schedule", "descend", "learning_rate", "optimizer"]

OptimizerName: TypeAlias = Literal["adam", "sgd"]
"""Adam, or SGD with a momentum of 0.9."""

Schedule: TypeAlias = Literal["cosine", "one_cycle", "warm_restarts"]
"""How a learning rate goes; see `learning_rate`."""

Rate: TypeAlias = float | tf.keras.optimizers.schedules.LearningRateSchedule

_MOMENTUM = 0.9
_RISING, _START, _END = 0.3, 1 / 25, 1e-4


def optimizer(name: OptimizerName, rate: Rate) -> tf.keras.optimizers.Optimizer:
    """Return the optimizer of that name.

    # Arguments
        name: `"adam"` or `"sgd"`.
        rate: learning rate, or its schedule.
    """
    if name == "sgd":
        return tf.keras.optimizers.SGD(rate, momentum=_MOMENTUM)
    return tf.keras.optimizers.Adam(rate)


def descend(
    optimizer: tf.keras.optimizers.Optimizer,
    gradients: Sequence[tf.Tensor],
    variables: Sequence[tf.Variable],
    *,
    decay: float = 0.0,
) -> None:
    """Apply gradients, decayed as PyTorch does.

    # Arguments
        optimizer: applies them.
        gradients: gradient of each of `variables`, `None` for one that is not used.
        variables: what to change.
        decay: L2 coefficient, added to the gradient times the variable.
    """
    if decay:
        pairs = zip(gradients, variables, strict=True)
        gradients = [None if g is None else g + decay * v for g, v in pairs]
    optimizer.apply_gradients(zip(gradients, variables, strict=True))


def learning_rate(
    schedule: Schedule, peak: float, steps: int, *, last: float = 0.0, period: int | None = None
) -> tf.keras.optimizers.schedules.LearningRateSchedule:
    """Return a learning rate for each step.

    # Arguments
        schedule: `"cosine"` falls from `peak` to `last`; `"one_cycle"` rises from 1/25 of
            `peak` in the first 3/10 of the steps and falls along a cosine to next to nothing;
            `"warm_restarts"` falls along a cosine again and again.
        peak: the highest learning rate.
        steps: number of steps.
        last: the lowest one, of `"cosine"`.
        period: steps between restarts, or about so many.
    """
    schedules = tf.keras.optimizers.schedules
    if schedule == "warm_restarts":
        # As many whole periods as come nearest, so that training ends at the lowest rate.
        periods = max(1, round(steps / (period or steps)))
        return schedules.CosineDecayRestarts(peak, steps / periods, t_mul=1.0)
    if schedule == "one_cycle":
        rising = max(1, int(_RISING * steps))
        return schedules.CosineDecay(
            _START * peak,
            max(1, steps - rising),
            alpha=_START * _END,
            warmup_target=peak,
            warmup_steps=rising,
        )
    return schedules.CosineDecay(peak, steps, alpha=last / peak)
