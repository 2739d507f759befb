"""Trains all candidates by one trace: a network whose weights take each candidate's size."""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from larq_nas.candidates.inherit import Inheritance
from larq_nas.candidates.recalibrate import Recalibration
from larq_nas.candidates.training import CandidateTraining, Measured
from larq_nas.choosers import Widest
from larq_nas.errors import InputError, first_line
from larq_nas.pipeline.check import DataFacts
from larq_nas.resizing import (
    resizable_constants,
    resizable_network,
    resizable_optimizer,
    weights_of,
)
from larq_nas.spaces import Space
from larq_nas.training.randomness import RandomLayers
from larq_nas.training.recipe import Recipe
from larq_nas.training.trainee import Trainee

__all__ = ["Shared", "require_one_trace"]


class Shared:
    """Trains candidates without building, tracing or loading anything for one.

    The network of the space is built once, of variables without a fixed shape. A candidate's
    weights are assigned to them, and the steps that were traced compute with those sizes.

    # Arguments
        space: the space.
        training: how candidates are trained.
        source: the weights they start with.
    """

    def __init__(self, space: Space, training: CandidateTraining, source: Inheritance) -> None:
        recipe, facts = training.recipe, training.facts
        network = _network(space, recipe, facts)
        self._training = training
        self._source = source
        self._weights = weights_of(network)
        self._constants = resizable_constants(network)
        self._random = RandomLayers(network)
        self._model = Trainee(network, recipe, seed=training.seed)
        self._optimizer = resizable_optimizer(recipe.optimizer, training.rate())
        self._model.compile(self._optimizer)
        self._optimizer.build(self._model.trainable_variables)
        self._recalibration = Recalibration(network)

    def measure(
        self,
        values: Mapping[str, float],
        number: int,
        callbacks: Sequence[tf.keras.callbacks.Callback] = (),
    ) -> Measured:
        """Train the candidate of these ratios, and measure it.

        # Arguments
            values: the ratio of each choice by name.
            number: number of the candidate, which its seed follows from.
            callbacks: Keras callbacks.
        """
        for key, value in self._source.taken(values).items():
            self._weights[key].assign(value)
        for constant, layer, filling in self._constants:
            constant.assign(tf.fill([self._source.channels(layer.name, values)], filling))
        self._optimizer.reset()
        self._random.reset(self._training.seed, number)
        return self._training.run(self._model, self._recalibration, number, callbacks)

    def weights(self) -> dict[str, Any]:
        """Return the weights of the candidate trained last, by layer and count."""
        return {
            f"{layer}/{index}": weight.numpy() for (layer, index), weight in self._weights.items()
        }


def require_one_trace(space: Space, recipe: Recipe, facts: DataFacts) -> None:
    """Raise `InputError` if one trace cannot serve all candidates of a space."""
    try:
        network = _network(space, recipe, facts)
        resizable_constants(network)
        step = tf.function(lambda images: network(images, training=True))
        step.get_concrete_function(tf.TensorSpec((None, *facts.input_shape)))
    except Exception as error:
        raise InputError(
            f"One trace cannot serve all candidates of space `{space.name}`, for one of its layers "
            f"needs to know its width: give `Evolution(shared=False)`. {first_line(error)}."
        ) from error


def _network(space: Space, recipe: Recipe, facts: DataFacts) -> tf.keras.Model:
    """Return a network whose weights take any width."""
    domain = recipe.domain(recipe.stages[-1])
    return resizable_network(space, Widest(), facts, domain)[0]
