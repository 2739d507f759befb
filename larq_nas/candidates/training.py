"""Trains one candidate for a few epochs, and measures it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from larq_nas.candidates.recalibrate import Recalibration
from larq_nas.errors import DivergenceError
from larq_nas.pipeline.augment import Augment
from larq_nas.pipeline.check import DataFacts
from larq_nas.pipeline.streams import Stream, training_stream, validation_stream
from larq_nas.training.exact import exact
from larq_nas.training.recipe import Recipe
from larq_nas.training.trainee import Trainee

__all__ = ["CandidateTraining", "Measured"]

_RECALIBRATION_BATCHES = 20


@dataclass(frozen=True)
class Measured:
    """What a candidate reached.

    # Arguments
        accuracy: share of the validation images that it classifies rightly.
        loss: mean cross-entropy on them.
    """

    accuracy: float
    loss: float


@dataclass(frozen=True)
class CandidateTraining:
    """How candidates are trained.

    # Arguments
        train: batches of the images they train on.
        validation: batches they are measured on.
        facts: what these hold.
        epochs: number of epochs; 0 measures inherited weights as they are.
        recipe: how they are trained, in its last stage.
        augment: random changes to the training images.
        seed: seed of the search.
    """

    train: tf.data.Dataset
    validation: tf.data.Dataset
    facts: DataFacts
    epochs: int
    recipe: Recipe
    augment: Augment | None
    seed: int

    def stream(self, number: int) -> Stream:
        """Return the batches for a candidate, shuffled by its number."""
        seed = (self.seed + 7919 * (number + 1)) % 2**31
        return training_stream(self.train, self.facts, seed, self.augment)

    def run(
        self,
        model: Trainee,
        recalibration: Recalibration,
        number: int,
        callbacks: Sequence[tf.keras.callbacks.Callback] = (),
    ) -> Measured:
        """Train `model` and measure it.

        The global seed must have been set before, by `larq_nas.seeding.seed_everything`, but
        not for each: TensorFlow then prepares everything it has traced again.

        # Arguments
            model: compiled, with its weights as they start.
            recalibration: of its batch norms.
            number: number of the candidate, which its seed follows from.
            callbacks: Keras callbacks.

        # Raises
            DivergenceError: if the loss becomes NaN or infinite.
        """
        stream = self.stream(number)
        with exact():
            if self.epochs:
                model.fit(
                    stream.from_epoch(0, self.epochs),
                    steps_per_epoch=stream.steps,
                    epochs=self.epochs,
                    verbose=0,
                    callbacks=list(callbacks),
                )
            images = stream.from_epoch(self.epochs, self.epochs + 1).map(lambda x, _: x)
            recalibration.run(images.take(_RECALIBRATION_BATCHES))
            measured = model.evaluate(
                validation_stream(self.validation), verbose=0, return_dict=True
            )
        return _finite(measured)

    def rate(self) -> Any:
        """Return the learning rate for each step of a candidate's training."""
        steps = self.facts.train_examples // self.facts.batch_size
        return self.recipe.rates(self.facts.batch_size, max(1, self.epochs), max(1, steps))


def _finite(measured: dict[str, float]) -> Measured:
    loss = float(measured["loss"])
    if not np.isfinite(loss):
        raise DivergenceError(f"its loss is {loss}")
    return Measured(float(measured["accuracy"]), loss)
