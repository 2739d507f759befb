"""Trains each candidate as a network of its own: the plain formulation."""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from larq_nas.candidates.inherit import Inheritance
from larq_nas.candidates.recalibrate import Recalibration
from larq_nas.candidates.training import CandidateTraining, Measured
from larq_nas.choosers import Fix
from larq_nas.layers import building_in
from larq_nas.resizing import weights_of
from larq_nas.spaces import Space
from larq_nas.training.forget import forgetting_graphs
from larq_nas.training.optimizers import optimizer
from larq_nas.training.randomness import RandomLayers
from larq_nas.training.trainee import Trainee

__all__ = ["Rebuilt"]


class Rebuilt:
    """Builds, traces and trains a network for each candidate; what `Shared` is held equal to.

    # Arguments
        space: the space.
        training: how candidates are trained.
        source: the weights they start with.
    """

    def __init__(self, space: Space, training: CandidateTraining, source: Inheritance) -> None:
        self._space = space
        self._training = training
        self._source = source
        self._network: tf.keras.Model | None = None

    @forgetting_graphs()
    def measure(
        self,
        values: Mapping[str, float],
        number: int,
        callbacks: Sequence[tf.keras.callbacks.Callback] = (),
    ) -> Measured:
        """Train the candidate of these ratios, and measure it; see `Shared.measure`."""
        training, recipe = self._training, self._training.recipe
        with building_in(recipe.domain(recipe.stages[-1])):
            self._network = self._space.build(
                Fix(values), training.facts.input_shape, training.facts.classes
            )
        taken = self._source.taken(values)
        for key, weight in weights_of(self._network).items():
            weight.assign(taken[key])
        RandomLayers(self._network).reset(training.seed, number)
        model = Trainee(self._network, recipe, seed=training.seed)
        model.compile(optimizer(recipe.optimizer, training.rate()))
        model.optimizer.build(model.trainable_variables)
        return training.run(model, Recalibration(self._network), number, callbacks)

    def weights(self) -> dict[str, Any]:
        """Return the weights of the candidate trained last, by layer and count."""
        if self._network is None:
            return {}
        pairs = weights_of(self._network).items()
        return {f"{layer}/{index}": weight.numpy() for (layer, index), weight in pairs}
