"""Recipes: stages, optimizers, learning rates and regularization of a training."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import tensorflow as tf

from larq_nas.errors import (
    InputError,
    require_count,
    require_fields,
    require_known,
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
"""Adam, or SGD with a momentum of 0.9, which goes against a learning rate of one cycle."""

Schedule: TypeAlias = Literal["cosine", "one_cycle", "steps", "warm_restarts"]
"""How a learning rate goes; see `learning_rate`."""

Rate: TypeAlias = float | tf.keras.optimizers.schedules.LearningRateSchedule

MOMENTUM = 0.9


class OneCycle(tf.keras.optimizers.schedules.LearningRateSchedule):
    """One cycle of a learning rate, and of a momentum against it, as BNAS was released with.

    The rate rises from 1/20 of its peak in 45 % of the steps, falls back in as many, and to a
    hundredth of that in the last tenth, all evenly. The momentum falls from 0.95 to 0.85, rises
    back, and stays.

    # Arguments
        peak: the highest learning rate.
        steps: number of steps.

    # References
        - [Super-Convergence](https://arxiv.org/abs/1708.07120)
    """

    def __init__(self, peak: float, steps: int) -> None:
        cycle = int(0.9 * steps)
        self._peak, self._steps = peak, steps
        self._places = (0, cycle // 2, cycle, steps)

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        lowest = self._peak / 20
        return self._between(step, (lowest, self._peak, lowest, lowest / 100))

    def momentum(self, step: tf.Tensor) -> tf.Tensor:
        """Return the momentum of a step."""
        return self._between(step, (0.95, 0.85, 0.95, 0.95))

    def _between(self, step: tf.Tensor, values: Sequence[float]) -> tf.Tensor:
        """Return what lies evenly between the values at the places of the cycle."""
        # In 64 bits, as the lowest rates are differences of nearly equal numbers.
        value = tf.constant(values[0], tf.float64)
        for number, place in enumerate(self._places[1:]):
            before = self._places[number]
            share = (tf.cast(step, tf.float64) - before) / max(1, place - before)
            share = tf.clip_by_value(share, 0.0, 1.0)
            value += (values[number + 1] - values[number]) * share
        return tf.cast(value, tf.float32)

    def get_config(self) -> dict[str, Any]:
        return {"peak": self._peak, "steps": self._steps}


class OneCycleSGD(tf.keras.optimizers.SGD):
    """SGD whose momentum goes with the cycle of its learning rate."""

    def __init__(self, cycle: OneCycle, **kwargs: Any) -> None:
        self._cycle = cycle
        super().__init__(cycle, **kwargs)

    @property
    def momentum(self) -> tf.Tensor:
        return self._cycle.momentum(self.iterations)

    @momentum.setter
    def momentum(self, value: float) -> None:
        """Nothing: the cycle has it."""


def optimizer(name: OptimizerName, rate: Rate) -> tf.keras.optimizers.Optimizer:
    """Return the optimizer of that name."""
    if name == "adam":
        return tf.keras.optimizers.Adam(rate)
    if isinstance(rate, OneCycle):
        return OneCycleSGD(rate)
    return tf.keras.optimizers.SGD(rate, momentum=MOMENTUM)


def descend(
    optimizer: tf.keras.optimizers.Optimizer,
    gradients: Sequence[tf.Tensor],
    variables: Sequence[tf.Variable],
    *,
    decay: float = 0.0,
    clip_norm: float = 0.0,
    quantizers: Sequence[XnorSign | None] | None = None,
) -> None:
    """Apply gradients, clipped first and decayed then, as PyTorch does.

    On several replicas they are averaged before that. A variable that is not used has `None`.

    # Arguments
        optimizer, gradients, variables: as of `apply_gradients`.
        decay: L2 coefficient, added to the gradient times the variable.
        clip_norm: the norm of all gradients together is held at this; 0 for no limit.
        quantizers: what amplifies the gradient of each variable: their part of the norm is that of
            the gradient by the binary weights, as in BNAS as released; see `xnor_quantizers`.
    """
    distributed = is_distributed()
    if distributed:
        gradients = averaged(gradients)
    if clip_norm:
        triples = zip(gradients, variables, quantizers or [None] * len(variables), strict=True)
        norm = tf.linalg.global_norm(
            [g if g is None or q is None else q.upstream(v, g) for g, v, q in triples]
        )
        gradients, _ = tf.clip_by_global_norm(gradients, clip_norm, use_norm=norm)
    if decay:
        pairs = zip(gradients, variables, strict=True)
        gradients = [None if g is None else g + decay * v for g, v in pairs]
    pairs = zip(gradients, variables, strict=True)
    optimizer.apply_gradients(pairs, skip_gradients_aggregation=distributed)


def xnor_quantizers(
    model: tf.keras.Model, variables: Sequence[tf.Variable]
) -> list[XnorSign | None]:
    """Return what amplifies the gradient of each variable, `None` where nothing does."""
    found = {}
    for layer in model.layers:
        quantizer = getattr(layer, "kernel_quantizer", None)
        if isinstance(quantizer, XnorSign) and quantizer.amplified:
            found[layer.kernel.ref()] = quantizer
    return [found.get(variable.ref()) for variable in variables]


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
        schedule: `"cosine"` falls from `peak` to `last`; `"one_cycle"` rises evenly from 1/20 of
            `peak` in 45 % of the steps, falls back in as many, and on to next to nothing in the
            last tenth; `"warm_restarts"` falls along a cosine again and again; `"steps"` falls to
            a tenth at each of `milestones`.
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
        return OneCycle(peak, steps)
    return schedules.CosineDecay(peak, steps, alpha=last / peak)


StageName: TypeAlias = Literal["float", "real", "binary"]
"""The float twin, real weights with binary activations, or both binary."""

_STAGES: tuple[tuple[StageName, ...], ...] = (
    ("binary",),
    ("real", "binary"),
    ("float", "binary"),
)
_DOMAINS = {"float": FLOAT, "real": REAL_WEIGHTS, "binary": DEPLOYED}
OF_STAGES = ("learning_rate", "optimizer", "schedule", "milestones", "weight_decay")


@dataclass(frozen=True)
class Stage:
    """A stage of a training, and what it has otherwise than its recipe.

    !!! example
        ```python
        twin = Stage("float", epochs=100, schedule="steps", milestones=(0.3, 0.6, 0.9))
        recipe = Recipe(stages=(twin, Stage("binary", epochs=100, schedule="cosine")))
        ```

    # Arguments
        name: what is binary: nothing in the float twin (`"float"`), activations alone (`"real"`),
            or weights too (`"binary"`).
        epochs: for how long, where nothing else is given; for all stages of a recipe or for none.
        learning_rate, optimizer, schedule, milestones, weight_decay: as of `Recipe`, whose are
            used where nothing is given.
    """

    name: StageName
    epochs: int | None = None
    learning_rate: float | None = None
    optimizer: OptimizerName | None = None
    schedule: Schedule | None = None
    milestones: tuple[float, ...] | None = None
    weight_decay: float | None = None

    def __post_init__(self) -> None:
        use_plain_numbers(self)
        require_known("stage", self.name, tuple(_DOMAINS))
        # Options of a command are named as the settings are, and would be meant otherwise.
        where = f" of stage {self.name}"
        if self.epochs is not None:
            require_count(**{f"epochs{where}": self.epochs})
        _check_rate(self, where)

    def settings(self) -> str | dict[str, Any]:
        """Return the settings as a run keeps them: the name alone where nothing else is set."""
        own = {key: value for key, value in dataclasses.asdict(self).items() if value is not None}
        return self.name if len(own) == 1 else own


def _read_stage(given: Any) -> Stage:
    if isinstance(given, Mapping):
        known = [field.name for field in dataclasses.fields(Stage)]
        for name in given:
            if name not in known:
                raise InputError(f"A stage has no setting {name!r}: it has {', '.join(known)}.")
        return Stage(**given)
    return given if isinstance(given, Stage) else Stage(given)


def _check_rate(settings: Any, where: str = "") -> None:
    """Check what a recipe and its stages have in common; a stage need not have it."""
    may_lack = isinstance(settings, Stage)
    checks = {"learning_rate": require_positive, "weight_decay": require_not_negative}
    for name, check in checks.items():
        value = getattr(settings, name)
        if value is not None or not may_lack:
            check(**{f"{name}{where}": value})
    for name, known in _CHOICES.items():
        value = getattr(settings, name)
        if value not in known and not (value is None and may_lack):
            raise unknown_name(f"{name}{where}", value, known)
    given = settings.milestones
    if given is None and may_lack:
        return
    milestones = list(given) if isinstance(given, list | tuple) else []
    between = all(isinstance(share, int | float) and 0 < share < 1 for share in milestones)
    if not milestones or not between or sorted(set(milestones)) != milestones:
        raise InputError(
            f"`milestones{where}` must be shares of the epochs, between 0 and 1 and rising, but "
            f"got {given!r}."
        )
    object.__setattr__(settings, "milestones", tuple(milestones))


Epochs: TypeAlias = int | Mapping[str, int]
"""Epochs of a training: of all its stages together, or of each by its name."""

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
        stages: what is binary in turn, by name or as a `larq_nas.training.Stage`, which may have
            epochs and a learning rate of its own; the last is `"binary"`. Each starts with the
            weights of the one before. `"float"` is for spaces that have a float twin, as all of
            larq_nas do.
        optimizer: `"adam"`, or `"sgd"` with a momentum of 0.9, which `"one_cycle"` takes to 0.85
            and back from 0.95.
        schedule: `"cosine"`, `"one_cycle"`, `"steps"` or `"warm_restarts"`; see
            `larq_nas.training.recipe.learning_rate`.
        milestones: shares of the epochs after which `"steps"` falls to a tenth.
        restart_epochs: epochs between warm restarts.
        weight_decay: L2 coefficient of all weights.
        clip_norm: the gradients' norm over all weights is held at this, of the binary ones before
            XNOR-Net's quantizer makes it that of the weights and amplifies it; 0 for no limit.
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
    stages: tuple[Stage, ...] = (Stage("real"), Stage("binary"))
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
        _check_rate(self)
        require_positive(distillation_temperature=self.distillation_temperature)
        require_whole(restart_epochs=self.restart_epochs)
        if self.base_batch_size is not None:
            require_whole(base_batch_size=self.base_batch_size)
        shares = ("label_smoothing", "drop_path", "distillation")
        require_fields(require_not_negative, self, "clip_norm", "mix_up", "auxiliary", *shares)
        for name in ("label_smoothing", "drop_path"):
            if getattr(self, name) >= 1:
                raise InputError(f"`{name}` must be below 1, but got {getattr(self, name)}.")
        if self.distillation > 1:
            raise InputError(f"`distillation` must be 1 or less, but got {self.distillation}.")
        self._read_stages()
        require_precision(self.precision)
        if not isinstance(self.color_jitter, bool):
            raise InputError(
                f"`color_jitter` must be True or False, but got {self.color_jitter!r}."
            )

    def _read_stages(self) -> None:
        """Read stages of any form, or raise `InputError` for those that do not belong together."""
        given: Any = self.stages if isinstance(self.stages, list | tuple) else ()
        named = [s.get("name") if isinstance(s, Mapping) else getattr(s, "name", s) for s in given]
        if tuple(named) not in _STAGES:
            *others, last = (repr(stages).replace("'", '"') for stages in _STAGES)
            raise InputError(
                f"`stages` must be {', '.join(others)} or {last}, each a name, a Stage or its "
                f"settings, but got {self.stages!r}."
            )
        stages = tuple(map(_read_stage, given))
        if len({stage.epochs is None for stage in stages}) > 1:
            raise InputError(
                f"`stages` must all have `epochs` or none, but got {[s.epochs for s in stages]}."
            )
        object.__setattr__(self, "stages", stages)

    def settings(self) -> dict[str, Any]:
        """Return the settings as a run keeps them."""
        stages = [stage.settings() for stage in self.stages]
        return {**dataclasses.asdict(self), "stages": stages}

    def of(self, stage: Stage) -> "Recipe":
        """Return the recipe with the settings of a stage in place of its own."""
        own = {name: getattr(stage, name) for name in OF_STAGES}
        return dataclasses.replace(self, **{k: v for k, v in own.items() if v is not None})

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
            _DOMAINS[stage.name], drop_path=self.drop_path > 0, auxiliary=self.auxiliary > 0
        )

    @property
    def epochs(self) -> int | None:
        """The epochs of all stages, or `None` if they have none."""
        own = [stage.epochs for stage in self.stages if stage.epochs is not None]
        return sum(own) if own else None

    def split(self, epochs: Epochs) -> dict[str, int]:
        """Return the epochs of each stage, by its name.

        # Arguments
            epochs: of each stage, by its name; or of all, which are split in proportion to the
                stages' own, or evenly. The last stage takes what is left over.
        """
        names = [stage.name for stage in self.stages]
        if isinstance(epochs, Mapping):
            for name in epochs:
                if name not in names:
                    raise unknown_name("stage of a training", name, names)
            if missing := [name for name in names if name not in epochs]:
                raise InputError(
                    f"Epochs of stages must be given for each, but {', '.join(missing)} of "
                    f"{', '.join(names)} is missing: 0 leaves a stage out."
                )
            require_count(**{f"epochs of stage {name}": n for name, n in epochs.items()})
            return {name: epochs[name] for name in names}
        weights = [stage.epochs or 0 if self.epochs else 1 for stage in self.stages]
        ends = [epochs * sum(weights[: n + 1]) // sum(weights) for n in range(len(weights))]
        return dict(
            zip(names, (b - a for a, b in zip([0, *ends], ends, strict=False)), strict=True)
        )
