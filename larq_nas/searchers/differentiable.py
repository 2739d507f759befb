"""Differentiable search: learn the architecture parameters, keep the strongest."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import tensorflow as tf

from larq_nas.architecture import Architecture
from larq_nas.choices import share_parameter_free
from larq_nas.choosers import Relax, require_temperature
from larq_nas.errors import InputError, require_not_negative, require_positive
from larq_nas.layers import SEARCH, building_in
from larq_nas.pipeline.streams import bilevel_stream
from larq_nas.run import Run
from larq_nas.searchers.bilevel import BilevelModel
from larq_nas.searchers.derive import derive, strongest, warn_if_collapsed, warn_if_undecided
from larq_nas.searchers.estimate import estimate
from larq_nas.searchers.penalty import BudgetPenalty
from larq_nas.seeding import seed_everything
from larq_nas.spaces import Space
from larq_nas.task import Task
from larq_nas.training.loop import fit

__all__ = ["Differentiable"]

_LONG = 5.0


@dataclass(frozen=True)
class Differentiable:
    """Learn weights and architecture parameters of a supernet, and derive the strongest.

    The defaults are those of BATS (section 6.1): Adam for both levels, activations binary
    and weights real, and weights alone for the first two fifths of the epochs.

    !!! example
        ```python
        searcher = larq_nas.searchers.Differentiable(temperature=0.5)
        model = larq_nas.search(train, validation, space="bats", searcher=searcher)
        ```

    # Arguments
        temperature: temperature of the softmax over operations: one for all choices, one for
            each group of choices by name, or `None` for what the space's paper uses.
        weights_only_epochs: epochs that train the weights alone; by default 2/5 of them.
        learning_rate: Adam's learning rate for the weights.
        weight_decay: L2 coefficient of the weights.
        architecture_learning_rate: Adam's learning rate for the architecture parameters.
        architecture_weight_decay: L2 coefficient of the architecture parameters.
        architecture_betas: Adam's decay rates for the architecture parameters.
        budget_weight: loss of the architecture parameters for each limit of a budget that is
            exceeded by its own size.

    # References
        - [BATS: Binary ArchitecTure Search](https://arxiv.org/abs/2003.01711)
        - [DARTS: Differentiable Architecture Search](https://arxiv.org/abs/1806.09055)
    """

    name: ClassVar[str] = "differentiable"

    temperature: float | Mapping[str, float] | None = None
    weights_only_epochs: int | None = None
    learning_rate: float = 1e-3
    weight_decay: float = 3e-4
    architecture_learning_rate: float = 6e-4
    architecture_weight_decay: float = 1e-3
    architecture_betas: tuple[float, float] = (0.5, 0.999)
    budget_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature is not None:
            require_temperature(self.temperature)
        require_positive(
            learning_rate=self.learning_rate,
            architecture_learning_rate=self.architecture_learning_rate,
        )
        require_not_negative(
            weight_decay=self.weight_decay,
            architecture_weight_decay=self.architecture_weight_decay,
            budget_weight=self.budget_weight,
        )

    def settings(self) -> dict[str, Any]:
        """Return the settings as a run keeps them."""
        return {"name": self.name, **dataclasses.asdict(self)}

    def prepare(self, space: Space, task: Task, epochs: int) -> "Prepared":
        """Return a search that is ready to run, with its supernet built.

        # Arguments
            space: where to search.
            task: the data to search on; its training data is halved.
            epochs: number of epochs.

        # Raises
            InputError: if the space or the settings cannot be searched.
        """
        seed_everything(task.seed)
        warm_up = self._warm_up(epochs)
        choose, model = self._supernet(space, task)
        return Prepared(space, task, epochs, warm_up, choose, model)

    def _supernet(self, space: Space, task: Task) -> tuple[Relax, BilevelModel]:
        temperature = space.temperature if self.temperature is None else self.temperature
        choose = Relax(temperature)
        with building_in(SEARCH):
            supernet = space.proxy().build(choose, task.facts.input_shape, task.facts.classes)
        if choose.expansions:
            raise InputError(
                f"Space `{space.name}` chooses widths ({next(iter(choose.expansions))}, ...), but "
                f"searcher `{self.name}` only chooses operations."
            )
        if not choose.mixtures:
            raise InputError(f"Space `{space.name}` asks nothing: there is nothing to search.")
        limits = task.limits
        model = BilevelModel(
            supernet,
            choose.mixtures,
            self.weight_decay,
            self.architecture_weight_decay,
            BudgetPenalty(limits, choose.mixtures, self.budget_weight) if limits else None,
        )
        first, second = self.architecture_betas
        model.compile(
            tf.keras.optimizers.Adam(self.learning_rate),
            tf.keras.optimizers.Adam(self.architecture_learning_rate, beta_1=first, beta_2=second),
        )
        return choose, model

    def _warm_up(self, epochs: int) -> int:
        warm_up = self.weights_only_epochs
        if warm_up is None:
            return 2 * epochs // 5
        require_not_negative(weights_only_epochs=warm_up)
        if warm_up >= epochs:
            raise InputError(
                f"`weights_only_epochs` must be below `epochs`, but got {warm_up} of {epochs}."
            )
        return warm_up


@dataclass(frozen=True)
class Prepared:
    """A search that is ready to run.

    # Arguments
        space: where to search.
        task: the data to search on.
        epochs: number of epochs.
        warm_up: epochs that train the weights alone.
        choose: the chooser that built the supernet.
        model: the supernet.
    """

    space: Space
    task: Task
    epochs: int
    warm_up: int
    choose: Relax
    model: BilevelModel

    def search(
        self,
        run: Run,
        callbacks: Sequence[tf.keras.callbacks.Callback] = (),
        verbose: int | str = "auto",
    ) -> Architecture:
        """Return the architecture found.

        # Arguments
            run: where checkpoints, history and logs go.
            callbacks: further Keras callbacks.
            verbose: as in `fit`.
        """
        task, model, choose = self.task, self.model, self.choose
        stream = bilevel_stream(task.train, task.facts, task.seed, task.augment)
        if verbose:
            print(estimate(model, task.facts.batch_size, stream.steps * self.epochs), flush=True)
            if isinstance(model.penalty, BudgetPenalty) and model.penalty.seconds > _LONG:
                print(
                    f"Budget: its costs take up to {model.penalty.seconds:.0f} s before each epoch",
                    flush=True,
                )
        fit(
            model,
            "search",
            stream,
            self.epochs,
            run,
            optimizers=[model.optimizer, model.architecture_optimizer],
            callbacks=[_Progress(model, choose, self.warm_up), *callbacks],
            verbose=verbose,
        )
        chosen = derive(choose, task.limits)
        warn_if_undecided(model)
        warn_if_collapsed(choose.choices, chosen)
        values = {name: choose.choices[name].encode(pairs) for name, pairs in chosen.items()}
        return Architecture(self.space.name, self.space.settings(), values)


class _Progress(tf.keras.callbacks.Callback):
    """Starts the architecture steps after the warm-up, and reports what is being chosen."""

    def __init__(self, model: BilevelModel, choose: Relax, warm_up: int) -> None:
        super().__init__()
        self._searching = model.searching
        self._penalty = model.penalty
        self._choose = choose
        self._warm_up = warm_up

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._searching.assign(epoch >= self._warm_up)
        if isinstance(self._penalty, BudgetPenalty):
            self._penalty.update()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if logs is not None:
            share = share_parameter_free(self._choose.choices, strongest(self._choose))
            logs["parameter_free"] = share
            if epoch < self._warm_up:
                for name in ("search_loss", "search_accuracy", "budget_penalty"):
                    logs.pop(name, None)
