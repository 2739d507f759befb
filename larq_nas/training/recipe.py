"""Recipes: stages, optimizers, learning rates and regularization of a training."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import tensorflow as tf

from larq_nas.errors import (
    InputError,
    require_not_negative,
    require_positive,
    require_whole,
    unknown_name,
    use_plain_numbers,
)
from larq_nas.layers.binary_policy import DEPLOYED, FLOAT, REAL_WEIGHTS, Domain
from larq_nas.layers.precision import ComputedIn, require_precision
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

    On several replicas they are averaged before that. A variable that is not used has `None`.

    # Arguments
        optimizer, gradients, variables: as of `apply_gradients`.
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


Stage: TypeAlias = Literal["float", "real", "binary"]
"""The float twin, real weights with binary activations, or both binary."""

_STAGES: tuple[tuple[Stage, ...], ...] = (("binary",), ("real", "binary"), ("float", "binary"))
_DOMAINS = {"float": FLOAT, "real": REAL_WEIGHTS, "binary": DEPLOYED}

_CHOICES = {"optimizer": get_args(OptimizerName), "schedule": get_args(Schedule)}


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    The default trains with real weights and binary activations first, then with both binary, each
    by Adam with a learning rate that falls along a cosine. `larq_nas.methods` has those of the
    papers.

    !!! example
        ```python
        recipe = larq_nas.training.Recipe(stages=("binary",), optimizer="sgd", learning_rate=0.1)
        model = larq_nas.search(train, validation, space="bnas", recipe=recipe)
        ```

    # Arguments
        learning_rate: the highest learning rate of each stage.
        base_batch_size: images in a batch that the learning rate is for: with other batches it is
            in proportion, and is told. Without, it is as given.
        stages: what is binary in turn; the last is `"binary"`. Each starts with the weights of
            the one before. `"float"` is for spaces that have a float twin, as all of larq_nas do.
        first_share: share of the epochs that the first of two stages takes.
        optimizer: `"adam"`, or `"sgd"` with a momentum of 0.9.
        schedule: `"cosine"`, `"one_cycle"`, `"steps"` or `"warm_restarts"`; see
            `larq_nas.training.recipe.learning_rate`.
        milestones: shares of the epochs after which `"steps"` falls to a tenth.
        restart_epochs: epochs between warm restarts.
        weight_decay: L2 coefficient of all weights.
        clip_norm: the gradients' norm over all weights is held at this, before XNOR-Net amplifies
            them; 0 for no limit.
        label_smoothing: share of each label that is spread over all classes.
        drop_path: probability to drop an operation of a cell for an image, reached evenly
            over the epochs from 0.
        color_jitter: whether brightness, contrast, saturation and hue of images change at
            random.
        mix_up: alpha of the Beta distribution by which two images, and their labels, are mixed;
            0 for none. The accuracy that is shown in training is by the labels of the first.
        auxiliary: weight of the loss of a second classifier at 2/3 of the depth, which is there
            while it trains alone; for the spaces of cells.
        distillation: share of the loss that is the distance from a teacher, if one is given.
        distillation_temperature: temperature that its outputs and the network's are softened
            with.
        precision: `"bfloat16"` computes binary convolutions and their gradients in 16 bits, which
            processors with AMX and GPUs do faster; the trained network is float32.

    # References
        - [BATS: Binary ArchitecTure Search](https://arxiv.org/abs/2003.01711)
        - [BNAS v2](https://arxiv.org/abs/2110.08562)
        - [Distilling the Knowledge in a Neural Network](https://arxiv.org/abs/1503.02531)
    """

    learning_rate: float = 1e-3
    base_batch_size: int | None = None
    stages: tuple[Stage, ...] = ("real", "binary")
    first_share: float = 0.5
    optimizer: OptimizerName = "adam"
    schedule: Schedule = "cosine"
    milestones: tuple[float, ...] = (0.3, 0.6, 0.9)
    restart_epochs: int = 50
    weight_decay: float = 0.0
    clip_norm: float = 0.0
    label_smoothing: float = 0.0
    drop_path: float = 0.0
    color_jitter: bool = False
    mix_up: float = 0.0
    auxiliary: float = 0.0
    distillation: float = 0.5
    distillation_temperature: float = 4.0
    precision: ComputedIn = "float32"

    def __post_init__(self) -> None:
        use_plain_numbers(self)
        for name in ("learning_rate", "distillation_temperature", "first_share"):
            require_positive(**{name: getattr(self, name)})
        require_whole(restart_epochs=self.restart_epochs)
        if self.base_batch_size is not None:
            require_whole(base_batch_size=self.base_batch_size)
        shares = ("label_smoothing", "drop_path", "distillation")
        for name in ("weight_decay", "clip_norm", "mix_up", "auxiliary", *shares):
            require_not_negative(**{name: getattr(self, name)})
        for name in ("first_share", "label_smoothing", "drop_path"):
            if getattr(self, name) >= 1:
                raise InputError(f"`{name}` must be below 1, but got {getattr(self, name)}.")
        if self.distillation > 1:
            raise InputError(f"`distillation` must be 1 or less, but got {self.distillation}.")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise unknown_name(name, getattr(self, name), known)
        for name in ("stages", "milestones"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.stages not in _STAGES:
            *others, last = (repr(stages).replace("'", '"') for stages in _STAGES)
            raise InputError(
                f"`stages` must be {', '.join(others)} or {last}, but got {self.stages!r}."
            )
        milestones = self.milestones if isinstance(self.milestones, tuple) else ()
        between = all(isinstance(share, int | float) and 0 < share < 1 for share in milestones)
        if not milestones or not between or sorted(set(milestones)) != list(milestones):
            raise InputError(
                f"`milestones` must be shares of the epochs, between 0 and 1 and rising, but got "
                f"{self.milestones!r}."
            )
        require_precision(self.precision)
        if not isinstance(self.color_jitter, bool):
            raise InputError(
                f"`color_jitter` must be True or False, but got {self.color_jitter!r}."
            )

    def settings(self) -> dict[str, Any]:
        """Return the settings as a run keeps them."""
        return dataclasses.asdict(self)

    def rate(self, batch_size: int) -> float:
        """Return the learning rate for batches of so many images.

        # References
            - [Accurate, Large Minibatch SGD](https://arxiv.org/abs/1706.02677)
        """
        return self.learning_rate * batch_size / (self.base_batch_size or batch_size)

    def rates(
        self, batch_size: int, epochs: int, steps: int
    ) -> tf.keras.optimizers.schedules.LearningRateSchedule:
        """Return the learning rate for each step of a stage of so many epochs, each of `steps`."""
        return learning_rate(
            self.schedule,
            self.rate(batch_size),
            epochs * steps,
            period=self.restart_epochs * steps,
            milestones=self.milestones,
        )

    def domain(self, stage: Stage) -> Domain:
        """Return how a network is built for a stage."""
        return dataclasses.replace(
            _DOMAINS[stage], drop_path=self.drop_path > 0, auxiliary=self.auxiliary > 0
        )

    def epochs_of(self, stage: Stage, epochs: int) -> int:
        """Return the share of a stage in all epochs; the last takes what is left over."""
        first = int(epochs * self.first_share + 1e-9) if len(self.stages) > 1 else 0
        return epochs - first if stage == self.stages[-1] else first
