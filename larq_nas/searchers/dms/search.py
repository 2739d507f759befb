"""Search of widths by DMS: settings, turns, penalties (Eq. 7) and run."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from larq_nas.architecture import Architecture
from larq_nas.cost import LATENCY, Budget, Limits, SpaceCosts, by_convention, profile
from larq_nas.cost.profile import Structure
from larq_nas.data.data import Data
from larq_nas.data.streams import Stream, bilevel_stream
from larq_nas.errors import (
    InputError,
    require_at_least,
    require_bool,
    require_falling,
    require_fields,
    require_not_negative,
    require_positive,
    require_whole,
    use_plain_numbers,
    warn,
)
from larq_nas.layers import DEPLOYED
from larq_nas.log import counted, log
from larq_nas.memory import free_memory
from larq_nas.process_state import seed_everything
from larq_nas.report.charts import Section
from larq_nas.run_directory import RunDirectory
from larq_nas.searchers.dms.record import WidthRecord, sections
from larq_nas.searchers.dms.supernet import Supernet, require_widths
from larq_nas.searchers.dms.widths import Dimensions
from larq_nas.searchers.estimate import (
    RUNTIME_BYTES,
    estimate_widths,
    fitting_data,
)
from larq_nas.searchers.searcher import BUDGET_PENALTY, Callbacks
from larq_nas.spaces import Space
from larq_nas.spaces.chooser import Survey
from larq_nas.supernet.resizable import resizable_optimizer
from larq_nas.training.callbacks import StageLogs
from larq_nas.training.loop import SEARCH_LEVEL, Term, TwoLevels, fit
from larq_nas.training.recipe import Recipe, descend, learning_rate
from larq_nas.training.transfer import constrain


@dataclass(frozen=True)
class Turns:
    """Epochs in turns: some that train the weights, then one that trains the means.

    Sigma is `scale` in the first turn and `final_scale` in the last one; between them it falls by
    the same factor each turn.
    """

    count: int
    weight_epochs: int
    scale: float
    final_scale: float

    @property
    def epochs(self) -> int:
        """Number of all epochs."""
        return self.count * (self.weight_epochs + 1)

    def trains_means(self, epoch: int) -> bool:
        """Return whether an epoch, the first being 0, trains the means."""
        return epoch % (self.weight_epochs + 1) == self.weight_epochs

    def next(self, epoch: int) -> int:
        """Return the number of the turn that comes after an epoch, the first being 0."""
        return (epoch + 1) // (self.weight_epochs + 1)

    def scale_of(self, turn: int) -> float:
        """Return sigma in a turn, the first being 0."""
        if self.count == 1:
            return self.scale
        factor: float = (self.final_scale / self.scale) ** (1 / (self.count - 1))
        return self.scale * factor**turn


_PUBLISHED = "dms"
_MERGES = ("add", "arithmetic", "average")
_MIB = 2**20


def memory_hinge(
    structure: Structure, dimensions: Dimensions, target: float, weight: float
) -> Term:
    r"""Return the penalty of the means: \\(\lambda \max(0, M - M_{target})\\) (DMS, equation 7).

    \\(M\\) is the memory of the network at the means, as `megabytes` counts it; \\(\lambda\\) is
    the weight.
    """

    def penalty() -> tf.Tensor:
        memory = megabytes(structure, dimensions.mean_filters())
        return weight * tf.maximum(memory - target, 0.0)  # Eq. 7

    return penalty


def budget_hinge(limits: Limits, dimensions: Dimensions, weight: float) -> Term | None:
    """Return the penalty of the means: `weight * sum_b max(0, c_b / b - 1)`.

    `c_b` is what the network at the means uses of the limit `b`; latency has no gradient. It is
    `None` if no limit of the budget can be charged for.
    """
    smooth = {name: most for name, most in limits.budget.limits.items() if name != LATENCY}
    if len(smooth) < len(limits.budget.limits):
        warn(
            "Widths do not learn by a budget of latency, which a table knows at some widths "
            "alone: the widths found are narrowed until they keep to it."
        )
    if not smooth:
        return None
    budget, structure = Budget(smooth), limits.costs.structure({})
    return lambda: weight * budget.hinge(structure.costs(dimensions.mean_filters()))


def megabytes(structure: Structure, widths: Mapping[str, Any]) -> Any:
    """Return the memory of a network as DMS counts it, in MiB.

    Bits of the kernels, and in a chain 32 for each binary output channel; see
    `larq_nas.cost.by_convention`, which counts a network that is built. Widths are numbers or
    tensors, by name of the choice.
    """
    network, counted = structure.network, structure.count(widths)
    chain = not any(call.facts.kind in _MERGES for call in network.calls)
    bits = 0
    for index, call in enumerate(counted):
        facts = network.facts[index]
        if facts.kind in ("conv", "dense"):
            bits += call.kernel_weights * facts.kernel_bits[0]
            bits += 32 * call.channels * (chain and network.binary(index))
    return bits / 8 / _MIB


class DimensionModel(TwoLevels):
    r"""The bilevel optimization of DMS (equations 7 and 8), a level at a time.

    \\[ \min_\mu L_{valid}(w^*(\mu, \sigma), \mu) + \ldots, \quad w^*(\mu, \sigma) =
    \arg \min_w L_{train}(w, \mu) \\]

    A batch is a pair `((images, labels), (images, labels))`. While `searching` is off, the first
    trains the weights; while it is on, the second trains the means, to whose loss the `terms` are
    added.
    """

    def __init__(
        self,
        supernet: Supernet,
        dimensions: Dimensions,
        weight_decay: float,
        terms: Mapping[str, Term],
    ) -> None:
        super().__init__(supernet.network, [dimensions.mean], terms)
        self.masks = supernet.masks
        self.dimensions = dimensions
        self.weight_decay = weight_decay

    @property
    def parameters(self) -> list[tf.Variable]:
        return [self.dimensions.mean]

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        weight_batch, mean_batch = data
        tf.cond(
            self.searching,
            lambda: self._mean_step(*mean_batch),
            lambda: self._weight_step(*weight_batch),
        )
        return self.results()

    def _weight_step(
        self, images: tf.Tensor, labels: tf.Tensor, *weights: tf.Tensor
    ) -> tf.Operation:
        variables = self.ordinary_weights
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            logits, loss = self._loss(images, labels, *weights)
        gradients = tape.gradient(loss, variables)
        descend(self.optimizer, gradients, variables, decay=self.weight_decay)
        self.measure(loss, labels, logits)
        return tf.no_op()

    def _mean_step(self, images: tf.Tensor, labels: tf.Tensor, *weights: tf.Tensor) -> tf.Operation:
        mean = self.dimensions.mean
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(mean)
            logits, loss = self._loss(images, labels, *weights)
            total = tf.add_n([loss, *self.added()])
        descend(self.architecture_optimizer, tape.gradient(total, [mean]), [mean])
        self.measure(loss, labels, logits, "search_")
        return tf.no_op()

    def _loss(
        self, images: tf.Tensor, labels: tf.Tensor, *weights: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        with self.masks.using(self.dimensions.sample()):
            logits = self(images, training=True)
        return logits, self.compiled_loss(labels, logits, *weights)


_ROUNDS = 30


def narrowed(limits: Limits, ratios: Mapping[str, float], least: float) -> dict[str, float]:
    """Return the widest network that keeps to a budget, of all ratios times one factor.

    # Raises
        InputError: if even the smallest ratio is over the budget.
    """

    def at(factor: float) -> dict[str, float]:
        found = {}
        for name, ratio in ratios.items():
            asked = limits.costs.expansions[name]
            found[name] = asked.width(min(ratio, max(factor * ratio, least))) / asked.filters
        return found

    if limits.allow(ratios):
        return dict(ratios)
    low, high = 0.0, 1.0
    if not limits.allow(at(low)):
        raise InputError(
            f"The budget must leave room for widths of {least} times their own, but those need "
            f"{limits.budget.describe(limits.costs.exact(at(low)))}: raise it, or lower "
            "the searcher's `least_mean`."
        )
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        low, high = (middle, high) if limits.allow(at(middle)) else (low, middle)
    return at(low)


@dataclass(frozen=True)
class DmsSearch:
    """A search of widths that is ready to run."""

    searcher: "Dms"
    space: Space
    data: Data
    limits: Limits | None
    costs: SpaceCosts
    turns: Turns
    supernet: Supernet
    model: DimensionModel
    stream: Stream

    def run(
        self, directory: RunDirectory, callbacks: Callbacks = (), verbose: int | str = "auto"
    ) -> Architecture:
        """Return the architecture found."""
        self._announce(verbose)
        fit(
            self.model,
            "search",
            self.stream,
            self.turns.epochs,
            directory,
            seed=self.data.seed,
            optimizers=[self.model.optimizer, self.model.architecture_optimizer],
            callbacks=callbacks,
            own=[WidthRecord(self.model.dimensions, directory), _Schedule(self)],
            verbose=verbose,
        )
        values: dict[str, Any] = self._within_budget(self.model.dimensions.ratios())
        self._report(values, directory, verbose)
        return Architecture(self.space.name, self.space.settings(), values)

    def _announce(self, verbose: int | str) -> None:
        if verbose:
            turns, steps = self.turns, self.stream.steps
            needed = memory_of(self.costs, self.model.dimensions, self.data.facts.batch_size)
            log.info(
                f"Widths of {counted(len(self.costs.expansions), 'choice')}: "
                f"{counted(turns.count, 'turn')} of "
                f"{counted(turns.weight_epochs, 'epoch')} for the weights and one for the widths, "
                f"{turns.epochs * steps:,} steps of {self.data.facts.batch_size} images; about "
                f"{needed / 2**30:.1f} GiB of memory at first",
            )
            binarization = getattr(self.space, "binarization", _PUBLISHED)
            if binarization != _PUBLISHED:
                log.info(
                    f'The network has binarization="{binarization}"; DMS as published has '
                    f'"{_PUBLISHED}": method="dms_a" or "dms_b".'
                )

    def _within_budget(self, ratios: dict[str, float]) -> dict[str, float]:
        """Return ratios that keep to the budget: those found, or as few narrower ones as can be."""
        limits = self.limits
        if limits is None:
            return ratios
        found = narrowed(limits, ratios, self.searcher.least_mean)
        if found != ratios:
            warn(
                "The widths found are over the budget "
                f"({limits.budget.describe(limits.costs.exact(ratios))}): all are made narrower, "
                "until they keep to it. A higher `budget_weight` leaves less to be cut."
            )
        return found

    def _report(self, ratios: dict[str, float], run: RunDirectory, verbose: int | str) -> None:
        asked = self.costs.expansions
        if verbose:
            widths = ", ".join(
                f"{name} {asked[name].width(ratio)}" for name, ratio in ratios.items()
            )
            log.info(f"Widths found: {widths}")


def memory_of(costs: SpaceCosts, dimensions: Dimensions, batch_size: int) -> float:
    """Return the bytes that training takes at the widths that are tried now."""
    return estimate_widths(costs.structure({}), dimensions.widest(), batch_size)


def require_memory(
    costs: SpaceCosts, dimensions: Dimensions, batch_size: int, held: float = RUNTIME_BYTES
) -> None:
    """Raise `InputError` if widths do not fit in the memory that is free.

    `held` are the bytes that this process takes already.
    """
    needed, free = memory_of(costs, dimensions, batch_size), free_memory()
    if free is not None and needed - held > free:
        widest = max(dimensions.widest().values())
        structure, widths = costs.structure({}), dimensions.widest()
        smaller = fitting_data(
            lambda size: estimate_widths(structure, widths, size),
            free + held,
            batch_size,
            costs.input_shape,
        )
        batches = smaller[0].removeprefix("use ") if smaller else "smaller batches"
        raise InputError(
            f"Widths of up to {widest:,} filters need about {needed / 2**30:.1f} GiB of memory, "
            f"but only {(free + held) / 2**30:.1f} GiB are to be had: use a lower `initial_ratio`, "
            f"a budget or `memory_target` that holds them down, or {batches}, in another directory."
        )


class _Schedule(tf.keras.callbacks.Callback):
    """Trains weights and means in turns, and moves the widths after each."""

    def __init__(self, search: DmsSearch) -> None:
        super().__init__()
        self._search = search

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        # A checkpoint may have brought other widths.
        search = self._search
        search.supernet.follow()
        require_memory(search.costs, search.model.dimensions, search.data.facts.batch_size)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        model = self._search.model
        model.searching.assign(self._search.turns.trains_means(epoch))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        search, turns = self._search, self._search.turns
        means = turns.trains_means(epoch)
        if logs is not None:
            idle = ("loss", "accuracy") if means else SEARCH_LEVEL
            for name in (*idle, *(() if means else search.model.terms)):
                logs.pop(name, None)
        if means and turns.next(epoch) < turns.count:
            self._move(turns.next(epoch))

    def _move(self, turn: int) -> None:
        search, dimensions = self._search, self._search.model.dimensions
        if not np.isfinite(dimensions.mean.numpy()).all():
            return  # what watches for that ends the search
        size = search.data.facts.batch_size
        held = memory_of(search.costs, dimensions, size)
        dimensions.move(search.turns.scale_of(turn))
        require_memory(search.costs, dimensions, size, held)
        search.supernet.resize(turn, search.searcher.best_effort)
        search.model.optimizer.reset()


def warn_of_few_filters(costs: SpaceCosts, step: float) -> None:
    """Warn of layers with so few filters that ratios, `step` apart in the end, are one width."""
    few = [name for name, asked in costs.expansions.items() if asked.filters * step < 0.5]
    if few:
        warn(
            f"Choices {', '.join(few)} have so few filters that widths {step:.2g} times their own "
            "apart are the same: they stop learning before the end. A higher `final_scale` keeps "
            "them apart."
        )


_TRADE_OFF, _BUDGET_WEIGHT = 0.01, 0.1
_MEMORY_PENALTY = "memory_penalty"
_RATIOS = ("initial_ratio", "least_mean", "least_ratio", "scale", "final_scale", "half_step")
_RATES = ("learning_rate", "final_learning_rate", "mean_learning_rate")
_POSITIVE = (*_RATIOS, *_RATES, "temperature", "memory_target")


@dataclass(frozen=True)
class Dms:
    r"""Learn how wide each layer is (DMS).

    The expansion ratio of each choice is a logistic random variable. The network is as wide as
    the widest of three ratios, \\(\mu\\) and \\(\mu \pm 2 \Delta\\), and reads its channels in
    shares that are sampled; the weights learn for some epochs, then \\(\mu\\) for one, and the
    ratios move, while \\(\sigma\\) falls. Any width can be found: the `ratios` of the space are
    not used. `larq_nas.methods` has DMS-A and DMS-B with the published memory targets.

    !!! example
        ```python
        searcher = larq_nas.searchers.Dms(memory_target=0.12)
        space = larq_nas.spaces.Vgg11(binarization="dms")
        model = larq_nas.search(train, validation, space=space, searcher=searcher)
        ```

    # Arguments
        initial_ratio: \\(\mu\\) of each width at the start.
        memory_target: memory above which the means are charged, in MiB as the paper counts it
            (`larq-nas cost --convention dms`); `None` for a search without.
        trade_off: lambda: loss for each MiB above `memory_target`; by default 0.01.
        budget_weight: loss for each limit of a budget that is exceeded by its own size; by
            default 0.1.
        scale: \\(\sigma\\) at the start.
        final_scale: \\(\sigma\\) in the last turn, if there are several.
        half_step: \\(\Delta\\), in units of \\(\sigma\\).
        least_mean: smallest \\(\mu\\).
        least_ratio: smallest ratio that is tried.
        temperature: of the Gumbel softmax.
        weight_epochs: epochs that train the weights, before each that trains the means.
        learning_rate: of the weights, by SGD, at the start of each turn.
        final_learning_rate: at its end, reached along a cosine.
        weight_decay: L2 coefficient of the weights.
        mean_learning_rate: Adam's learning rate for the means; the paper takes 0.002 for VGG and
            0.001 for ResNet.
        best_effort: whether weights stay when widths change; without, all start anew.

    # References
        - DMS: Differentiable Dimension Search for Binary Neural Networks, under double-blind
          review
    """

    name: ClassVar[str] = "dms"
    default_epochs: ClassVar[int] = 250
    several_devices: ClassVar[bool] = False
    several_processes: ClassVar[bool] = False

    initial_ratio: float = 1.5
    memory_target: float | None = None
    trade_off: float | None = None
    budget_weight: float | None = None
    scale: float = 1.0
    final_scale: float = 0.3
    half_step: float = 0.4
    least_mean: float = 0.3
    least_ratio: float = 0.25
    temperature: float = 1.0
    weight_epochs: int = 5
    learning_rate: float = 0.05
    final_learning_rate: float = 0.01
    weight_decay: float = 1e-4
    mean_learning_rate: float = 2e-3
    best_effort: bool = True

    def __post_init__(self) -> None:
        use_plain_numbers(self)
        require_fields(require_positive, self, *_POSITIVE)
        require_fields(require_not_negative, self, "trade_off", "budget_weight", "weight_decay")
        if self.trade_off is not None and self.memory_target is None:
            raise InputError("`trade_off` has no effect without `memory_target`: leave it out.")
        require_whole(weight_epochs=self.weight_epochs)
        require_at_least(self.least_mean, initial_ratio=self.initial_ratio)
        require_at_least(self.least_ratio, least_mean=self.least_mean)
        require_falling(self, "scale")
        require_falling(self, "learning_rate")
        require_bool(best_effort=self.best_effort)

    @property
    def stages(self) -> dict[str, StageLogs]:
        """What is logged: by the epochs that train weights, and those that train means."""
        levels = ("loss", "accuracy", *SEARCH_LEVEL)
        of_memory = () if self.memory_target is None else (_MEMORY_PENALTY,)
        sometimes = (*levels, *of_memory, BUDGET_PENALTY)
        return {"search": StageLogs(("sigma",), sometimes, resizes=True)}

    @property
    def smallest_ratio(self) -> float:
        """The smallest mean of a width."""
        return self.least_mean

    def held_out(self, train_examples: int) -> float:
        """Return 0: the means learn from a half of the training images."""
        return 0.0

    def report(self, directory: RunDirectory) -> list[Section]:
        """Return what a report of a run shows of the search."""
        return sections(directory)

    def settings(self) -> dict[str, Any]:
        """Return the settings as a run keeps them."""
        return {"name": self.name, **dataclasses.asdict(self)}

    def prepare(
        self, space: Space, data: Data, limits: Limits | None, epochs: int, recipe: Recipe
    ) -> DmsSearch:
        """Return a search with its network built; see `larq_nas.searchers.Searcher`.

        `epochs` are those that train the weights. The training data is halved.
        """
        seed_everything(data.seed)
        facts = data.facts
        costs = limits.costs if limits else SpaceCosts(space, facts.input_shape, facts.classes)
        costs.require_no_operations(self.name)
        if not costs.expansions:
            raise InputError(
                f"Space `{space.name}` has no width to choose: give it no `expansion`, or ask for "
                "widths with `choose.filters`."
            )
        costs.require_following()
        if getattr(space, "binarization", None) == "bats":
            raise InputError(
                f'Searcher `{self.name}` cannot search `binarization="bats"`, whose scales start '
                'from the weights of one width: use "sign", "dorefa" or "dms".'
            )
        turns = self._turns(epochs)
        usual = getattr(type(space), "ratios", None)
        if usual is not None and getattr(space, "ratios", usual) != usual:
            warn(
                f"Searcher `{self.name}` finds any width: the space's `ratios` are not used; the "
                "searcher's `least_mean` and `least_ratio` say how far it goes down."
            )
        dimensions = Dimensions(
            costs.expansions,
            initial_ratio=self.initial_ratio,
            scale=self.scale,
            half_step=self.half_step,
            least_mean=self.least_mean,
            least_ratio=self.least_ratio,
            temperature=self.temperature,
            seed=data.seed,
        )
        warn_of_few_filters(costs, 2 * self.half_step * turns.scale_of(turns.count - 1))
        require_memory(costs, dimensions, facts.batch_size)
        terms = self._terms(space, costs, dimensions, data, limits)
        supernet = Supernet(space, facts, DEPLOYED, dimensions, data.seed)
        require_widths(supernet, dimensions, facts)
        constrain(supernet.network)
        model = DimensionModel(supernet, dimensions, self.weight_decay, terms)
        stream = bilevel_stream(data.train, facts, data.seed, data.augment)
        rate = learning_rate(
            "cosine",
            self.learning_rate,
            self.weight_epochs * stream.steps,
            last=self.final_learning_rate,
        )
        model.compile(
            resizable_optimizer("sgd", rate), tf.keras.optimizers.Adam(self.mean_learning_rate)
        )
        return DmsSearch(self, space, data, limits, costs, turns, supernet, model, stream)

    def require_epochs(self, epochs: int) -> None:
        """Raise `InputError` if the epochs are not whole turns."""
        if epochs % self.weight_epochs:
            raise InputError(
                f"`epochs` must be a multiple of `weight_epochs`, {self.weight_epochs}, but got "
                f"{epochs}: widths change after so many."
            )

    def _turns(self, epochs: int) -> Turns:
        self.require_epochs(epochs)
        count = epochs // self.weight_epochs
        return Turns(count, self.weight_epochs, self.scale, self.final_scale)

    def _terms(
        self,
        space: Space,
        costs: SpaceCosts,
        dimensions: Dimensions,
        data: Data,
        limits: Limits | None,
    ) -> dict[str, Term]:
        """Return what is added to the loss of the means, by its name."""
        terms: dict[str, Term] = {}
        if self.memory_target is not None:
            shape, classes = data.facts.input_shape, data.facts.classes
            try:
                by_convention("dms", profile(space.build(Survey(), shape, classes)))
            except InputError as error:
                raise InputError(
                    f"`memory_target` cannot be used, but a `budget` of weight_bytes can: {error}"
                ) from None
            structure = costs.structure({})
            smallest = megabytes(structure, dimensions.smallest())
            if smallest > self.memory_target:
                raise InputError(
                    f"`memory_target` must be at least {smallest:.4f} MiB, of the smallest network "
                    f"(`least_mean`), but got {self.memory_target}."
                )
            weight = _TRADE_OFF if self.trade_off is None else self.trade_off
            terms[_MEMORY_PENALTY] = memory_hinge(structure, dimensions, self.memory_target, weight)
        if limits:
            weight = _BUDGET_WEIGHT if self.budget_weight is None else self.budget_weight
            if charged := budget_hinge(limits, dimensions, weight):
                terms[BUDGET_PENALTY] = charged
        elif self.budget_weight is not None:
            raise InputError("`budget_weight` has no effect without a `budget`: leave it out.")
        return terms
