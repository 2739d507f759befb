"""Optimizers and learning-rate schedules."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import tensorflow as tf

from larq_nas.quantizers import XnorSign
from larq_nas.training.distribution import averaged, is_distributed

OptimizerName: TypeAlias = Literal["adam", "sgd"]
"""Adam, or SGD with a momentum of 0.9."""

Schedule: TypeAlias = Literal["cosine", "one_cycle", "steps", "warm_restarts"]
"""How a learning rate goes; see `learning_rate`."""

Rate: TypeAlias = float | tf.keras.optimizers.schedules.LearningRateSchedule

MOMENTUM = 0.9
_RISING, _START, _END = 0.3, 1 / 25, 1e-4


def optimizer(name: OptimizerName, rate: Rate) -> tf.keras.optimizers.Optimizer:
    """Return the optimizer of that name."""
    if name == "sgd":
        return tf.keras.optimizers.SGD(rate, momentum=MOMENTUM)
    return tf.keras.optimizers.Adam(rate)


def descend(
    optimizer: tf.keras.optimizers.Optimizer,
    gradients: Sequence[tf.Tensor],
    variables: Sequence[tf.Variable],
    *,
    decay: float = 0.0,
    clip_norm: float = 0.0,
    amplified: Sequence[float] | None = None,
) -> None:
    """Apply gradients, clipped first and decayed then, as PyTorch does.

    On several replicas they are averaged before that.

    # Arguments
        optimizer: applies them.
        gradients: gradient of each of `variables`, `None` for one that is not used.
        variables: what to change.
        decay: L2 coefficient, added to the gradient times the variable.
        clip_norm: the norm of all gradients together is held at this; 0 for no limit.
        amplified: how much larger than a derivative each gradient is, which the norm leaves
            out; see `amplifications`.
    """
    distributed = is_distributed()
    if distributed:
        gradients = averaged(gradients)
    if clip_norm:
        factors = amplified or [1.0] * len(gradients)
        pairs = zip(gradients, factors, strict=True)
        norm = tf.linalg.global_norm([None if g is None else g / f for g, f in pairs])
        gradients, _ = tf.clip_by_global_norm(gradients, clip_norm, use_norm=norm)
    if decay:
        pairs = zip(gradients, variables, strict=True)
        gradients = [None if g is None else g + decay * v for g, v in pairs]
    pairs = zip(gradients, variables, strict=True)
    optimizer.apply_gradients(pairs, skip_gradients_aggregation=distributed)


def amplifications(model: tf.keras.Model, variables: Sequence[tf.Variable]) -> list[float]:
    """Return by how much the gradient of each variable is amplified: 1 where it is not."""
    factors = {}
    for layer in model.layers:
        quantizer = getattr(layer, "kernel_quantizer", None)
        if isinstance(quantizer, XnorSign):
            factors[layer.kernel.ref()] = quantizer.amplification(layer.kernel.shape)
    return [factors.get(variable.ref(), 1.0) for variable in variables]


def learning_rate(
    schedule: Schedule,
    peak: float,
    steps: int,
    *,
    last: float = 0.0,
    period: int | None = None,
    milestones: Sequence[float] = (),
) -> tf.keras.optimizers.schedules.LearningRateSchedule:
    """Return a learning rate for each step.

    # Arguments
        schedule: `"cosine"` falls from `peak` to `last`; `"one_cycle"` rises from 1/25 of
            `peak` in the first 3/10 of the steps and falls along a cosine to next to nothing;
            `"warm_restarts"` falls along a cosine again and again; `"steps"` falls to a tenth
            at each of `milestones`.
        peak: the highest learning rate.
        steps: number of steps.
        last: the lowest one, of `"cosine"`.
        period: steps between restarts, or about so many.
        milestones: shares of the steps.
    """
    schedules = tf.keras.optimizers.schedules
    if schedule == "steps":
        # Keras falls behind a boundary, which is the last step at the rate before.
        boundaries = [max(0, round(share * steps) - 1) for share in milestones]
        rates = [peak * 0.1**number for number in range(len(boundaries) + 1)]
        return schedules.PiecewiseConstantDecay(boundaries, rates)
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
