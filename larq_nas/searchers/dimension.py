"""Differentiable search of widths: learn the mean of each, around which others are tried."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import tensorflow as tf

from larq_nas.candidates.resizable import resizable_optimizer
from larq_nas.cost import SpaceCosts
from larq_nas.dimension import (
    BudgetHinge,
    DimensionModel,
    Dimensions,
    MemoryHinge,
    Supernet,
    Turns,
    megabytes,
)
from larq_nas.errors import (
    InputError,
    require_at_least,
    require_not_negative,
    require_positive,
    require_whole,
)
from larq_nas.layers import DEPLOYED
from larq_nas.pipeline.streams import bilevel_stream
from larq_nas.searchers.dimensioning import Dimensioning, require_memory
from larq_nas.searchers.objective import Term
from larq_nas.seeding import seed_everything
from larq_nas.spaces import Space
from larq_nas.task import Task
from larq_nas.training.optimizers import learning_rate
from larq_nas.training.transfer import constrain

__all__ = ["Dimension"]

_EPOCHS = 250
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
        trade_off: lambda: loss for each MiB above `memory_target`.
        budget_weight: loss for each limit of a budget that is exceeded by its own size.
        scale: \\(\sigma\\) at the start.
        final_scale: \\(\sigma\\) in the end.
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

    initial_ratio: float = 1.5
    memory_target: float | None = None
    trade_off: float = 0.01
    budget_weight: float = 0.1
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
        require_not_negative(
            trade_off=self.trade_off,
            budget_weight=self.budget_weight,
            weight_decay=self.weight_decay,
        )
        require_whole(weight_epochs=self.weight_epochs)
        require_at_least(self.least_mean, initial_ratio=self.initial_ratio)
        require_at_least(self.least_ratio, least_mean=self.least_mean)
        _require_falling("scale", self.scale, self.final_scale)
        _require_falling("learning_rate", self.learning_rate, self.final_learning_rate)
        if not isinstance(self.best_effort, bool):
            raise InputError(f"`best_effort` must be True or False, but got {self.best_effort!r}.")

    def epochs(self, space: Space) -> int:
        """Return the number of epochs of the paper that train weights."""
        return _EPOCHS

    def settings(self, space: Space) -> dict[str, Any]:
        """Return the settings as a run keeps them."""
        return {"name": self.name, **dataclasses.asdict(self)}

    def prepare(self, space: Space, task: Task, epochs: int) -> Dimensioning:
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
        self._require_widths(space, costs)
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
        require_memory(costs, dimensions, facts.batch_size)
        supernet = Supernet(space, facts, DEPLOYED, dimensions, task.seed)
        constrain(supernet.network)
        model = DimensionModel(
            supernet, dimensions, self.weight_decay, self._terms(costs, dimensions, task)
        )
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
        return Dimensioning(self, space, task, costs, turns, supernet, model, stream)

    def _turns(self, epochs: int) -> Turns:
        count, rest = divmod(epochs, self.weight_epochs)
        if rest:
            raise InputError(
                f"`epochs` must be a multiple of `weight_epochs`, {self.weight_epochs}, but got "
                f"{epochs}: widths change after so many."
            )
        return Turns(count, self.weight_epochs, self.scale, self.final_scale)

    def _terms(self, costs: SpaceCosts, dimensions: Dimensions, task: Task) -> dict[str, Term]:
        terms: dict[str, Term] = {}
        if self.memory_target is not None:
            structure = costs.structure({})
            least = Dimensions.least(costs.expansions, self.least_mean)
            smallest = megabytes(structure, least)
            if smallest > self.memory_target:
                raise InputError(
                    f"`memory_target` must be at least {smallest:.4f} MiB, of the smallest network "
                    f"(`least_mean` {self.least_mean}), but got {self.memory_target}."
                )
            terms["memory_penalty"] = MemoryHinge(
                structure, dimensions, self.memory_target, self.trade_off
            )
        if task.limits:
            terms["budget_penalty"] = BudgetHinge(task.limits, dimensions, self.budget_weight)
        return terms

    def _mean_rate(self, costs: SpaceCosts) -> float:
        if self.mean_learning_rate is not None:
            return self.mean_learning_rate
        calls = costs.structure({}).network.calls
        return 1e-3 if any(call.facts.kind in _MERGES for call in calls) else 2e-3

    def _require_widths(self, space: Space, costs: SpaceCosts) -> None:
        if costs.choices:
            raise InputError(
                f"Space `{space.name}` chooses operations ({next(iter(costs.choices))}, ...), but "
                f"searcher `{self.name}` only chooses widths: search it by `differentiable`."
            )
        if not costs.expansions:
            raise InputError(
                f"Space `{space.name}` has no width to choose: give it no `expansion`."
            )
        costs.require_following()


def _require_falling(name: str, first: float, last: float) -> None:
    if last > first:
        raise InputError(f"`final_{name}` must be at most `{name}`, {first}, but got {last}.")
