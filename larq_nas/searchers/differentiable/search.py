"""Run a differentiable search."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from larq_nas.architecture import Architecture
from larq_nas.data.data import Task
from larq_nas.data.streams import Stream
from larq_nas.run_directory import Run
from larq_nas.searchers.differentiable.derivation import (
    derive,
    scores_of,
    warn_if_collapsed,
    warn_if_undecided,
    warn_of_dropped,
)
from larq_nas.searchers.differentiable.health import Health
from larq_nas.searchers.differentiable.model import BilevelModel
from larq_nas.searchers.estimate import announce
from larq_nas.spaces import Space
from larq_nas.supernet.fuse import Fuse
from larq_nas.training.loop import fit

__all__ = ["DifferentiableSearch"]


_DROPPED = -100.0  # below any sum of probabilities


@dataclass(frozen=True)
class DifferentiableSearch:
    """A search that is ready to run.

    # Arguments
        space: where to search.
        task: the data to search on.
        epochs: number of epochs.
        warm_up: epochs that train the weights alone.
        choose: the chooser that built the supernet.
        model: the supernet.
        stream: pairs of batches, for weights and architecture parameters.
        transfer_factor: by how much the zero operation is weakened at the end.
        stage: name of the stage, unique in the run.
        epochs_before: epochs of the stages before it.
    """

    space: Space
    task: Task
    epochs: int
    warm_up: int
    choose: Fuse
    model: BilevelModel
    stream: Stream
    transfer_factor: float = 1.0
    stage: str = "search"
    epochs_before: int = 0

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
        announce(self, verbose)
        self.learn(run, callbacks, verbose)
        return self.derive()

    def learn(
        self,
        run: Run,
        callbacks: Sequence[tf.keras.callbacks.Callback],
        verbose: int | str,
    ) -> None:
        """Train the supernet, from where it was."""
        model = self.model
        fit(
            model,
            self.stage,
            self.stream,
            self.epochs,
            run,
            seed=self.task.seed,
            optimizers=[model.optimizer, model.architecture_optimizer],
            callbacks=[
                _Schedule(model, self.warm_up),
                Health(self.choose, run, self.stage, self.epochs_before, self.transfer_factor),
                *callbacks,
            ],
            verbose=verbose,
        )

    def derive(self) -> Architecture:
        """Return the architecture that the trained supernet stands for."""
        choose = self.choose
        scores = scores_of(choose, self.transfer_factor)
        dropped = {name: ~mixture.kept for name, mixture in choose.mixtures.items()}
        if any(of_choice.any() for of_choice in dropped.values()):
            # What a stage has dropped comes back if no other network keeps to a budget.
            scores = {name: np.where(dropped[name], _DROPPED, scores[name]) for name in scores}
        chosen = derive(choose.choices, choose.cells, scores, self.task.limits)
        if not warn_if_undecided(self.model):
            limits = self.task.limits
            warn_if_collapsed(limits.costs.choices if limits else choose.choices, chosen)
        warn_of_dropped(choose, chosen)
        values = {name: choose.choices[name].encode(pairs) for name, pairs in chosen.items()}
        return Architecture(self.space.name, self.space.settings(), values)


class _Schedule(tf.keras.callbacks.Callback):
    """Starts the architecture steps after the warm-up, and prepares what is added to the loss."""

    def __init__(self, model: BilevelModel, warm_up: int) -> None:
        super().__init__()
        self._model = model
        self._terms = model.terms
        self._warm_up = warm_up

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._model.set_searching(epoch >= self._warm_up)
        for term in self._terms.values():
            term.begin_epoch(epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if logs is not None and epoch < self._warm_up:
            for name in ("search_loss", "search_accuracy", *self._terms):
                logs.pop(name, None)
