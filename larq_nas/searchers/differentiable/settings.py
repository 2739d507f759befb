"""Settings of a differentiable search."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import tensorflow as tf

from larq_nas.data.data import Task
from larq_nas.data.streams import bilevel_stream
from larq_nas.errors import (
    InputError,
    require_at_least,
    require_count,
    require_not_negative,
    require_positive,
    unknown_name,
)
from larq_nas.layers import ComputedIn, Domain, building_in
from larq_nas.layers.mixture import Kept
from larq_nas.layers.precision import require_precision
from larq_nas.searchers.differentiable.model import BilevelModel, Diversity
from larq_nas.searchers.differentiable.penalty import BudgetPenalty
from larq_nas.searchers.differentiable.search import DifferentiableSearch
from larq_nas.spaces import Space
from larq_nas.spaces.space import Precision
from larq_nas.supernet.fuse import Fuse
from larq_nas.supernet.fused_cell import FusedCell
from larq_nas.supernet.relax import Relax, require_temperature
from larq_nas.training.distribution import building_on, require_halves, warn_if_apart
from larq_nas.training.loop import Term, seed_everything
from larq_nas.training.recipe import OptimizerName, learning_rate, optimizer
from larq_nas.training.transfer import constrain, initialize_scales

__all__ = ["Differentiable", "warm_up_epochs"]


_QUANTIZERS = {"weights": "kernel_quantizer", "activations": "input_quantizer"}


def require_domain(supernet: tf.keras.Model, **asked: str | None) -> None:
    """Raise `InputError` for a supernet that is not built in the domain that was given.

    # Arguments
        supernet: the network.
        **asked: `weights` and `activations`, each `"binary"`, `"real"` or `None` for any.
    """
    for name, wanted in asked.items():
        binary = [layer.name for layer in _quantized(supernet, _QUANTIZERS[name])]
        if wanted == "real" and binary:
            raise InputError(
                f'`{name}` cannot be "real" in this space: layer `{binary[0]}` stays binary; build '
                "it of the blocks of larq_nas.layers."
            )
        if wanted == "binary" and not binary:
            raise InputError(
                f'`{name}` cannot be "binary" in this space, which has real ones alone: search it '
                'with precision="binary".'
            )


def _quantized(supernet: tf.keras.Model, attribute: str) -> Iterator[tf.keras.layers.Layer]:
    """Yield the layers that have a quantizer, those inside of fused cells too."""
    for layer in supernet._flatten_layers(include_self=False):
        inside = layer.plan.prototypes.values() if isinstance(layer, FusedCell) else ()
        for one in (layer, *inside):
            if getattr(one, attribute, None) is not None:
                yield one


def require_betas(betas: Any) -> None:
    """Raise `InputError` for decay rates that Adam cannot have."""
    if betas is None:
        return
    pair = isinstance(betas, tuple | list) and len(betas) == 2
    if not pair or not all(isinstance(b, int | float) and 0 <= b < 1 for b in betas):
        raise InputError(
            f"`architecture_betas` must be two numbers from 0 to below 1, but got {betas!r}."
        )


def warm_up_epochs(warm_up: int | None, epochs: int) -> int:
    """Return the epochs that train the weights alone: by default two fifths, as BATS does."""
    if warm_up is None:
        return 2 * epochs // 5
    if warm_up >= epochs:
        raise InputError(
            f"`weights_only_epochs` must be below `epochs`, but got {warm_up} of {epochs}."
        )
    return warm_up


def added_terms(settings: Any, choose: Relax, task: Task) -> dict[str, Term]:
    """Return what is added to the loss of the architecture parameters, by its name."""
    terms: dict[str, Term] = {}
    if task.limits:
        terms["budget_penalty"] = BudgetPenalty(
            task.limits, choose.mixtures, settings.budget_weight, settings.transfer_factor
        )
    if settings.diversity:
        terms["diversity"] = Diversity(
            list(choose.mixtures.values()), settings.diversity, settings.diversity_annealing
        )
    return terms


def weight_optimizer(settings: Any, steps: int) -> tf.keras.optimizers.Optimizer:
    """Return the optimizer of the weights, for so many steps."""
    rate, last = settings.learning_rate, settings.final_learning_rate
    if last is not None:
        rate = learning_rate("cosine", rate, steps, last=last)
    return optimizer(settings.optimizer, rate)


_EPOCHS = 25
_BATS: Mapping[str, Any] = {
    "temperature": 0.2,
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "weight_decay": 3e-4,
    "architecture_learning_rate": 6e-4,
    "architecture_weight_decay": 1e-3,
    "architecture_betas": (0.5, 0.999),
    "diversity": 0.0,
    "diversity_annealing": 7.7,
}
_NOT_NEGATIVE = (
    "weight_decay",
    "architecture_weight_decay",
    "budget_weight",
    "diversity",
)
_POSITIVE = ("learning_rate", "final_learning_rate", "architecture_learning_rate")


@dataclass(frozen=True)
class Differentiable:
    """Learn weights and architecture parameters of a supernet, and derive the strongest.

    What is not given is as the paper of the space has it (`Space.searching`). Of BATS,
    section 6.1: Adam for both levels, activations binary and weights real, and weights alone
    for the first two fifths of the epochs. Of BNAS: SGD, its rate falling along a cosine,
    convolutions binary, both levels from the start, undecided edges rewarded early on.

    !!! example
        ```python
        searcher = larq_nas.searchers.Differentiable(temperature=0.5)
        model = larq_nas.search(train, validation, space="bats", searcher=searcher)
        ```

    # Arguments
        temperature: temperature of the softmax over operations: one for all choices, or one
            for each group of choices by name.
        weights_only_epochs: epochs that train the weights alone.
        optimizer: of the weights: `"adam"`, or `"sgd"` with a momentum of 0.9.
        learning_rate: learning rate of the weights, the first one.
        final_learning_rate: the last one, reached along a cosine; without, the rate stays.
        weight_decay: L2 coefficient of the weights.
        architecture_learning_rate: Adam's learning rate for the architecture parameters.
        architecture_weight_decay: L2 coefficient of the architecture parameters.
        architecture_betas: Adam's decay rates for the architecture parameters.
        diversity: lambda of the diversity regularizer, subtracted times the mean entropy of
            the edges from the loss of the architecture parameters; 0 for none.
        diversity_annealing: its tau: the epochs in which it falls to 1/e.
        transfer_factor: gamma, 1 or more: by so much the zero operation is weakened when the
            architecture is derived, for a network to be trained on more data than searched.
        budget_weight: loss of the architecture parameters for each limit of a budget that is
            exceeded by its own size.
        weights: what the convolutions' weights are while searched, `"binary"` or `"real"`; the
            network that is found has those of its space.
        activations: what their inputs are while searched (BATS, Table 4).
        rematerialize: whether each cell is computed again for its gradient, for supernets that
            do not fit in memory: the same search in less of it, taking a quarter to a third longer.
        precision: `"bfloat16"` computes binary convolutions and their gradients in 16 bits, which
            processors with AMX and GPUs do faster; the rest stays float32.

    # References
        - [BATS: Binary ArchitecTure Search](https://arxiv.org/abs/2003.01711)
        - [BNAS v2](https://arxiv.org/abs/2110.08562)
        - [DARTS: Differentiable Architecture Search](https://arxiv.org/abs/1806.09055)
    """

    name: ClassVar[str] = "differentiable"
    several_devices: ClassVar[bool] = True
    several_processes: ClassVar[bool] = False
    smallest_ratio: ClassVar[float | None] = None

    temperature: float | Mapping[str, float] | None = None
    weights_only_epochs: int | None = None
    optimizer: OptimizerName | None = None
    learning_rate: float | None = None
    final_learning_rate: float | None = None
    weight_decay: float | None = None
    architecture_learning_rate: float | None = None
    architecture_weight_decay: float | None = None
    architecture_betas: tuple[float, float] | None = None
    diversity: float | None = None
    diversity_annealing: float | None = None
    transfer_factor: float = 1.0
    budget_weight: float = 1.0
    weights: Precision | None = None
    activations: Precision | None = None
    rematerialize: bool = False
    precision: ComputedIn = "float32"

    def __post_init__(self) -> None:
        given = {key: value for key, value in vars(self).items() if value is not None}
        if "temperature" in given:
            require_temperature(given["temperature"])
        if self.optimizer not in (None, "adam", "sgd"):
            raise unknown_name("optimizer", self.optimizer, ("adam", "sgd"))
        require_positive(**{key: given[key] for key in _POSITIVE if key in given})
        require_not_negative(**{key: given[key] for key in _NOT_NEGATIVE if key in given})
        # Without the regularizer its annealing is not used, and may be anything.
        if "diversity_annealing" in given and self.diversity != 0:
            require_positive(diversity_annealing=given["diversity_annealing"])
        if self.weights_only_epochs is not None:
            require_count(weights_only_epochs=self.weights_only_epochs)
        for name in ("weights", "activations"):
            if getattr(self, name) not in (None, "binary", "real"):
                raise unknown_name(name, getattr(self, name), ("binary", "real"))
        require_betas(self.architecture_betas)
        require_at_least(1, transfer_factor=self.transfer_factor)
        require_precision(self.precision)
        if not isinstance(self.rematerialize, bool):
            raise InputError(
                f"`rematerialize` must be True or False, but got {self.rematerialize!r}."
            )

    def of(self, space: Space) -> "Differentiable":
        """Return the same, with what was not given as the paper of `space` has it."""
        fields = {entry.name for entry in dataclasses.fields(self)}
        for name in space.searching.keys() - fields - {"epochs"}:
            raise unknown_name(f"setting in `searching` of space `{space.name}`", name, fields)
        papers = {**_BATS, **space.searching}
        missing = {key for key in papers.keys() & fields if getattr(self, key) is None}
        found = dataclasses.replace(self, **{key: papers[key] for key in missing})
        last, first = found.final_learning_rate, found.learning_rate
        if last is None or first is None or last <= first:
            return found
        if self.final_learning_rate is None:
            return dataclasses.replace(found, final_learning_rate=first)
        raise InputError(
            f"`final_learning_rate` must be at most `learning_rate`, {first}, but got {last}."
        )

    def epochs(self, space: Space) -> int:
        """Return the number of epochs that the paper of `space` searches for."""
        return int(space.searching.get("epochs", _EPOCHS))

    def settings(self, space: Space) -> dict[str, Any]:
        """Return the settings as a run keeps them."""
        settings = dataclasses.asdict(self.of(space))
        # What changes nothing but memory may be given to a run that is resumed.
        del settings["rematerialize"]
        if self.precision == "float32":
            del settings["precision"]
        for name in ("weights", "activations"):
            if settings[name] is None:
                del settings[name]
        return {"name": self.name, **settings}

    def prepare(self, space: Space, task: Task, epochs: int) -> DifferentiableSearch:
        """Return a search that is ready to run, with its supernet built.

        # Arguments
            space: where to search.
            task: the data to search on; its training data is halved.
            epochs: number of epochs.

        # Raises
            InputError: if the space or the settings cannot be searched.
        """
        return self.prepare_stage(space, space.proxy(), task, epochs)

    def prepare_stage(
        self,
        space: Space,
        proxy: Space,
        task: Task,
        epochs: int,
        kept: Mapping[str, Kept] | None = None,
        stage: str = "search",
        epochs_before: int = 0,
    ) -> DifferentiableSearch:
        """Return a stage of a search that is ready to run.

        # Arguments
            space: where to search.
            proxy: the space that the supernet is of.
            task: the data to search on.
            epochs: number of epochs of the stage.
            kept: of the choices, which operations are still candidates; all, if not given.
            stage: its name, unique in the run.
            epochs_before: epochs of the stages before it.
        """
        require_halves(task.strategy, task.facts)
        seed_everything(task.seed)
        settings: Any = self.of(space)
        warm_up = warm_up_epochs(settings.weights_only_epochs, epochs)
        choose = Fuse(settings.temperature, rematerialize=settings.rematerialize, kept=kept)
        stream = bilevel_stream(task.train, task.facts, task.seed, task.augment)
        with building_on(task.strategy):
            with building_in(self._domain(space)):
                supernet = proxy.build(choose, task.facts.input_shape, task.facts.classes)
            warn_if_apart(supernet, task.strategy)
            self._require_choices(space, choose)
            model = self._model(space, supernet, choose, task, epochs * stream.steps)
        return DifferentiableSearch(
            space,
            task,
            epochs,
            warm_up,
            choose,
            model,
            stream,
            self.transfer_factor,
            stage,
            epochs_before,
        )

    def _model(
        self, space: Space, supernet: tf.keras.Model, choose: Relax, task: Task, steps: int
    ) -> BilevelModel:
        settings: Any = self.of(space)
        require_domain(supernet, weights=self.weights, activations=self.activations)
        constrain(supernet)
        initialize_scales(supernet)
        model = BilevelModel(
            supernet,
            choose.mixtures,
            settings.weight_decay,
            settings.architecture_weight_decay,
            added_terms(settings, choose, task),
            settings.precision,
        )
        first, second = settings.architecture_betas
        model.compile(
            weight_optimizer(settings, steps),
            tf.keras.optimizers.Adam(
                settings.architecture_learning_rate, beta_1=first, beta_2=second
            ),
        )
        return model

    def _domain(self, space: Space) -> Domain:
        given = {"weights": self.weights, "activations": self.activations}
        changes: Any = {name: value for name, value in given.items() if value is not None}
        return dataclasses.replace(space.search_domain, **changes)

    def _require_choices(self, space: Space, choose: Relax) -> None:
        if choose.expansions:
            raise InputError(
                f"Space `{space.name}` chooses widths ({next(iter(choose.expansions))}, ...), but "
                f"searcher `{self.name}` only chooses operations: search it by `evolution`."
            )
        if not choose.mixtures:
            raise InputError(f"Space `{space.name}` asks nothing: there is nothing to search.")
        if all(len(choice.operations) == 1 for choice in choose.choices.values()):
            raise InputError(
                f"Each choice of space `{space.name}` is of one operation: there is nothing to "
                "search; give more `operations`."
            )
        keeps = any(choice.keeps_zero for choice in choose.choices.values())
        if self.transfer_factor != 1 and not keeps:
            raise InputError(
                f"`transfer_factor` weakens the zero operation, but space `{space.name}` never "
                "keeps it: leave it at 1."
            )
