"""Settings of a search of widths, and what widths are charged for."""

import dataclasses
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import tensorflow as tf

from larq_nas.cost import LATENCY, Budget, Limits, SpaceCosts, by_convention, profile
from larq_nas.cost.budget import BUDGETS
from larq_nas.data.data import Task
from larq_nas.data.streams import bilevel_stream
from larq_nas.data.validation import DataFacts
from larq_nas.errors import (
    InputError,
    callers_level,
    require_at_least,
    require_not_negative,
    require_positive,
    require_whole,
)
from larq_nas.layers import DEPLOYED
from larq_nas.searchers.dms.model import BudgetHinge, DimensionModel, MemoryHinge, Turns, megabytes
from larq_nas.searchers.dms.search import DmsSearch, require_memory
from larq_nas.searchers.dms.supernet import Supernet, require_widths
from larq_nas.searchers.dms.widths import Dimensions
from larq_nas.spaces import Space
from larq_nas.spaces.chooser import Survey
from larq_nas.supernet.resizable import resizable_optimizer
from larq_nas.training.loop import Term, seed_everything
from larq_nas.training.recipe import learning_rate
from larq_nas.training.transfer import constrain

__all__ = ["Dimension", "require_no_operations"]


def memory_hinge(
    space: Space,
    costs: SpaceCosts,
    facts: DataFacts,
    dimensions: Dimensions,
    target: float,
    weight: float,
) -> Term:
    """Return the penalty of DMS, or raise `InputError` if the paper cannot count the network.

    # Arguments
        space: the space.
        costs: its costs.
        facts: the images and classes.
        dimensions: the widths.
        target: memory above which they are charged, in MiB.
        weight: loss for each MiB.
    """
    try:
        by_convention("dms", profile(space.build(Survey(), facts.input_shape, facts.classes)))
    except InputError as error:
        raise InputError(f"`memory_target` cannot be used, but `max_memory` can: {error}") from None
    structure = costs.structure({})
    smallest = megabytes(structure, dimensions.smallest())
    if smallest > target:
        raise InputError(
            f"`memory_target` must be at least {smallest:.4f} MiB, of the smallest network "
            f"(`least_mean`), but got {target}."
        )
    return MemoryHinge(structure, dimensions, target, weight)


def budget_hinge(limits: Limits, dimensions: Dimensions, weight: float) -> Term | None:
    """Return the penalty for a budget; `None` if no limit of it can be charged for.

    # Arguments
        limits: the budget, and the costs of the space.
        dimensions: the widths.
        weight: loss for each limit that is exceeded by its own size.
    """
    smooth = {name: most for name, most in limits.budget.limits.items() if BUDGETS[name] != LATENCY}
    if len(smooth) < len(limits.budget.limits):
        warnings.warn(
            "Widths do not learn by `max_latency`, which a table knows at some widths alone: the "
            "widths found are narrowed until they keep to it.",
            stacklevel=callers_level(),
        )
    if not smooth:
        return None
    return BudgetHinge(Budget(smooth), limits.costs.structure({}), dimensions, weight)


def require_no_operations(space: Space, costs: SpaceCosts, searcher: str) -> None:
    """Raise `InputError` for a space that chooses operations."""
    if costs.choices:
        raise InputError(
            f"Space `{space.name}` chooses operations ({next(iter(costs.choices))}, ...), but "
            f"searcher `{searcher}` only chooses widths: search it by `differentiable`."
        )


def require_open_widths(space: Space, costs: SpaceCosts) -> None:
    """Raise `InputError` for a space that asks for no width, or for more than layers tell."""
    if not costs.expansions:
        raise InputError(
            f"Space `{space.name}` has no width to choose: give it no `expansion`, or ask for "
            "widths with `choose.filters`."
        )
    costs.require_following()


def warn_of_few_filters(costs: SpaceCosts, step: float) -> None:
    """Warn of layers with so few filters that, in the end, all widths that are tried are one.

    # Arguments
        costs: the costs of the space.
        step: how far apart the ratios are in the end.
    """
    few = [name for name, asked in costs.expansions.items() if asked.filters * step < 0.5]
    if few:
        warnings.warn(
            f"Choices {', '.join(few)} have so few filters that widths {step:.2g} times their own "
            "apart are the same: they stop learning before the end. A higher `final_scale` keeps "
            "them apart.",
            stacklevel=callers_level(),
        )


_EPOCHS = 250
_TRADE_OFF, _BUDGET_WEIGHT = 0.01, 0.1
_MERGES = ("add", "arithmetic", "average")


@dataclass(frozen=True)
class Dimension:
    r"""Learn how wide each layer is (DMS).

    The expansion ratio of each choice is a logistic random variable. The network is as wide as
    the widest of three ratios, \\(\mu\\) and \\(\mu \pm 2 \Delta\\), and reads its channels in
    shares that are sampled; the weights learn for some epochs, then \\(\mu\\) for one, and the
    ratios move, while \\(\sigma\\) falls. Any width can be found: the `ratios` of the space are
    not used. What is not given is the paper's, of DMS-A; `"dms_a"` and `"dms_b"` as `searcher`
    have the published memory targets too.

    !!! example
        ```python
        searcher = larq_nas.searchers.Dimension(memory_target=0.12)
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
        mean_learning_rate: Adam's learning rate for the means; by default 0.002, and 0.001 for
            networks with shortcuts.
        best_effort: whether weights stay when widths change; without, all start anew.

    # References
        - DMS: Differentiable Dimension Search for Binary Neural Networks, under double-blind
          review
    """

    name: ClassVar[str] = "dimension"
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
    mean_learning_rate: float | None = None
    best_effort: bool = True

    def __post_init__(self) -> None:
        positive = (
            "initial_ratio",
            "scale",
            "final_scale",
            "half_step",
            "least_mean",
            "least_ratio",
            "temperature",
            "learning_rate",
            "final_learning_rate",
        )
        require_positive(**{name: getattr(self, name) for name in positive})
        for name in ("memory_target", "mean_learning_rate"):
            if getattr(self, name) is not None:
                require_positive(**{name: getattr(self, name)})
        for name in ("trade_off", "budget_weight"):
            if getattr(self, name) is not None:
                require_not_negative(**{name: getattr(self, name)})
        require_not_negative(weight_decay=self.weight_decay)
        if self.trade_off is not None and self.memory_target is None:
            raise InputError("`trade_off` has no effect without `memory_target`: leave it out.")
        require_whole(weight_epochs=self.weight_epochs)
        require_at_least(self.least_mean, initial_ratio=self.initial_ratio)
        require_at_least(self.least_ratio, least_mean=self.least_mean)
        _require_falling("scale", self.scale, self.final_scale)
        _require_falling("learning_rate", self.learning_rate, self.final_learning_rate)
        if not isinstance(self.best_effort, bool):
            raise InputError(f"`best_effort` must be True or False, but got {self.best_effort!r}.")

    @property
    def smallest_ratio(self) -> float:
        """The smallest mean of a width."""
        return self.least_mean

    def epochs(self, space: Space) -> int:
        """Return the number of epochs of the paper that train weights, in whole turns."""
        return max(1, round(_EPOCHS / self.weight_epochs)) * self.weight_epochs

    def settings(self, space: Space) -> dict[str, Any]:
        """Return the settings as a run keeps them."""
        return {"name": self.name, **dataclasses.asdict(self)}

    def prepare(self, space: Space, task: Task, epochs: int) -> DmsSearch:
        """Return a search that is ready to run, with its network built.

        # Arguments
            space: where to search; it asks for widths.
            task: the data to search on; its training data is halved.
            epochs: number of epochs that train weights.

        # Raises
            InputError: if the space or the settings cannot be searched.
        """
        seed_everything(task.seed)
        facts = task.facts
        limits = task.limits
        costs = limits.costs if limits else SpaceCosts(space, facts.input_shape, facts.classes)
        require_no_operations(space, costs, self.name)
        require_open_widths(space, costs)
        if getattr(space, "binarization", None) == "bats":
            raise InputError(
                f'Searcher `{self.name}` cannot search `binarization="bats"`, whose scales start '
                'from the weights of one width: use "sign", "dorefa" or "dms".'
            )
        turns = self._turns(epochs)
        dimensions = Dimensions(
            costs.expansions,
            initial_ratio=self.initial_ratio,
            scale=self.scale,
            half_step=self.half_step,
            least_mean=self.least_mean,
            least_ratio=self.least_ratio,
            temperature=self.temperature,
            seed=task.seed,
        )
        warn_of_few_filters(costs, 2 * self.half_step * turns.scale_of(turns.count - 1))
        require_memory(costs, dimensions, facts.batch_size)
        terms = self._terms(space, costs, dimensions, task)
        supernet = Supernet(space, facts, DEPLOYED, dimensions, task.seed)
        require_widths(supernet, dimensions, facts)
        constrain(supernet.network)
        model = DimensionModel(supernet, dimensions, self.weight_decay, terms)
        stream = bilevel_stream(task.train, facts, task.seed, task.augment)
        rate = learning_rate(
            "cosine",
            self.learning_rate,
            self.weight_epochs * stream.steps,
            last=self.final_learning_rate,
        )
        model.compile(
            resizable_optimizer("sgd", rate),
            tf.keras.optimizers.Adam(self._mean_rate(costs)),
        )
        return DmsSearch(self, space, task, costs, turns, supernet, model, stream)

    def _turns(self, epochs: int) -> Turns:
        count, rest = divmod(epochs, self.weight_epochs)
        if rest:
            raise InputError(
                f"`epochs` must be a multiple of `weight_epochs`, {self.weight_epochs}, but got "
                f"{epochs}: widths change after so many."
            )
        return Turns(count, self.weight_epochs, self.scale, self.final_scale)

    def _terms(
        self, space: Space, costs: SpaceCosts, dimensions: Dimensions, task: Task
    ) -> dict[str, Term]:
        terms: dict[str, Term | None] = {}
        if self.memory_target is not None:
            weight = _TRADE_OFF if self.trade_off is None else self.trade_off
            terms["memory_penalty"] = memory_hinge(
                space, costs, task.facts, dimensions, self.memory_target, weight
            )
        if task.limits:
            weight = _BUDGET_WEIGHT if self.budget_weight is None else self.budget_weight
            terms["budget_penalty"] = budget_hinge(task.limits, dimensions, weight)
        elif self.budget_weight is not None:
            raise InputError(
                "`budget_weight` has no effect without a limit, such as `max_memory`: leave it out."
            )
        return {name: term for name, term in terms.items() if term is not None}

    def _mean_rate(self, costs: SpaceCosts) -> float:
        if self.mean_learning_rate is not None:
            return self.mean_learning_rate
        calls = costs.structure({}).network.calls
        return 1e-3 if any(call.facts.kind in _MERGES for call in calls) else 2e-3


def _require_falling(name: str, first: float, last: float) -> None:
    if last > first:
        raise InputError(f"`final_{name}` must be at most `{name}`, {first}, but got {last}.")
