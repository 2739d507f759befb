"""Trains a found network by a recipe, and restores it."""

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from larq_nas.errors import InputError, first_line
from larq_nas.layers import DEPLOYED, Domain, building_in
from larq_nas.layers.precision import warn_if_unused
from larq_nas.pipeline.augment import Augment
from larq_nas.pipeline.jitter import color_jitter
from larq_nas.pipeline.streams import training_stream, validation_stream
from larq_nas.run import Run
from larq_nas.seeding import seed_everything
from larq_nas.task import Task
from larq_nas.training.distribution import building_on, warn_if_apart
from larq_nas.training.flips import FlipRatio
from larq_nas.training.loop import fit
from larq_nas.training.optimizers import optimizer
from larq_nas.training.ready import require_reading, warn_without_effect
from larq_nas.training.recipe import Recipe, Stage
from larq_nas.training.teacher import Teacher
from larq_nas.training.trainee import DropPathSchedule, Trainee
from larq_nas.training.transfer import constrain, initialize_scales, transfer_weights

if TYPE_CHECKING:
    from larq_nas.architecture import Architecture
    from larq_nas.spaces import Space

__all__ = ["Trainer"]

_CALIBRATION_STEPS = 20


@dataclass(frozen=True)
class Trainer:
    """Trains the network of an architecture.

    # Arguments
        architecture: what to train.
        space: the space it is of.
        task: the data to train on.
        recipe: how to train it.
        teacher: what it learns from, besides the labels.
    """

    architecture: "Architecture"
    space: "Space"
    task: Task
    recipe: Recipe
    teacher: Teacher | None = None

    def train(
        self,
        epochs: int,
        run: Run,
        callbacks: Sequence[tf.keras.callbacks.Callback] = (),
        verbose: int | str = "auto",
    ) -> tf.keras.Model:
        """Return the network, binary and trained, not compiled.

        # Arguments
            epochs: number of epochs; 0 for the network as derived, with random weights and
                batch-norm statistics of the data.
            run: where checkpoints, history and logs go.
            callbacks: further Keras callbacks.
            verbose: as in `fit`.
        """
        seed_everything(self.task.seed)
        before = None
        for stage in self.recipe.stages:
            # What is not trained is calibrated here alone.
            with building_on(self.task.strategy if epochs else None):
                model = self._build(self.recipe.domain(stage))
            require_reading(model)
            if before is None:
                warn_without_effect(model, self.recipe)
                warn_if_apart(model, self.task.strategy if epochs else None)
            if stage == self.recipe.stages[-1]:
                warn_if_unused(model, self.recipe.precision)
            if before is not None:
                transfer_weights(before, model)
            constrain(model)
            if stage == "binary":
                initialize_scales(model)
            share = self.recipe.epochs_of(stage, epochs)
            if share:
                self._fit(model, stage, share, run, callbacks, verbose)
            before = model
        if not epochs:
            self._calibrate(model)
        plain = self._build(DEPLOYED)
        transfer_weights(model, plain)
        return plain

    def restore(self, run: Run) -> tf.keras.Model:
        """Return the trained network of a run, compiled to go on from there.

        # Raises
            InputError: if the model is damaged, or not one of this architecture and space.
        """
        model = self._build(DEPLOYED)
        try:
            saved = tf.keras.models.load_model(run.model, compile=False)
        except Exception as error:
            raise InputError(
                f"`{run.model}` is damaged ({first_line(error)}): delete it, and the same call "
                "makes it again from the last checkpoint."
            ) from error
        if _layer_settings(saved) != _layer_settings(model):
            raise InputError(
                f"`{run.model}` is not a network of `{run.architecture.name}` and space "
                f"`{self.space.name}` as they are now: one was changed since; use another "
                "directory."
            )
        model.set_weights(saved.get_weights())
        model.compile(
            optimizer(self.recipe.optimizer, self.recipe.rate(self.task.facts.batch_size)),
            tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        return model

    def _build(self, domain: Domain) -> tf.keras.Model:
        facts = self.task.facts
        with building_in(domain):
            return self.architecture.build(facts.input_shape, facts.classes, self.space)

    def _calibrate(self, model: tf.keras.Model) -> None:
        """Let batch norm see the data; with its initial statistics, signs are all alike."""
        task = self.task
        stream = training_stream(task.train, task.facts, task.seed, task.augment)
        for images, _ in stream.from_epoch(0, 1).take(_CALIBRATION_STEPS):
            model(images, training=True)

    def _fit(
        self,
        network: tf.keras.Model,
        stage: Stage,
        epochs: int,
        run: Run,
        callbacks: Sequence[tf.keras.callbacks.Callback],
        verbose: int | str,
    ) -> None:
        task, recipe = self.task, self.recipe
        stream = training_stream(task.train, task.facts, task.seed, self._augment())
        rate = recipe.rates(task.facts.batch_size, epochs, stream.steps)
        with building_on(task.strategy):
            model = Trainee(network, recipe, self.teacher, task.seed)
            model.compile(optimizer(recipe.optimizer, rate))
            model.optimizer.build(model.trainable_variables)
        own = [DropPathSchedule(recipe.drop_path, epochs)] if recipe.drop_path else []
        fit(
            model,
            f"train_{stage}",
            stream,
            epochs,
            run,
            seed=task.seed,
            optimizers=[model.optimizer],
            validation=validation_stream(task.validation),
            validation_examples=task.facts.validation_examples,
            callbacks=[*own, FlipRatio(), *callbacks],
            verbose=verbose,
        )

    def _augment(self) -> Augment | None:
        augment = self.task.augment
        if not self.recipe.color_jitter:
            return augment
        lowest, highest = self.task.facts.value_range
        jitter = functools.partial(color_jitter, lowest=lowest, highest=highest)
        if augment is None:
            return jitter
        return lambda images, seed: jitter(augment(images, seed), seed)


def _layer_settings(model: tf.keras.Model) -> list[str]:
    """Return what the layers compute, whatever Keras named those that have no name."""
    return sorted(
        f"{type(layer).__name__} {json.dumps(_nameless(layer.get_config()), default=str)}"
        for layer in model.layers
    )


def _nameless(config: Any) -> Any:
    if isinstance(config, dict):
        return {key: _nameless(config[key]) for key in sorted(config) if key != "name"}
    if isinstance(config, list | tuple):
        return [_nameless(entry) for entry in config]
    return config
