"""How a found network is trained: real weights first, then binary ones."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from larq_nas.errors import InputError, first_line, require_positive
from larq_nas.layers import DEPLOYED, REAL_WEIGHTS, Domain, building_in
from larq_nas.pipeline.streams import training_stream, validation_stream
from larq_nas.run import Run
from larq_nas.seeding import seed_everything
from larq_nas.task import Task
from larq_nas.training.loop import fit
from larq_nas.training.transfer import initialize_scales, transfer_weights

if TYPE_CHECKING:
    from larq_nas.architecture import Architecture
    from larq_nas.spaces import Space

__all__ = ["TwoStage"]

_CALIBRATION_STEPS = 20


@dataclass(frozen=True)
class TwoStage:
    """Train with binary activations and real weights from scratch, then binarize the weights.

    BATS, section 4.3 and 6.2: Adam without weight decay, the learning rate from `learning_rate`
    to 0 along a cosine, in each stage. Half of the epochs go to each.

    # Arguments
        learning_rate: learning rate each stage starts with.
    """

    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        require_positive(learning_rate=self.learning_rate)

    def settings(self) -> dict[str, Any]:
        """Return the settings as a run keeps them."""
        return dataclasses.asdict(self)

    def train(
        self,
        architecture: "Architecture",
        space: "Space",
        task: Task,
        epochs: int,
        run: Run,
        callbacks: Sequence[tf.keras.callbacks.Callback] = (),
        verbose: int | str = "auto",
    ) -> tf.keras.Model:
        """Return the network of `architecture`, binary and trained, not compiled.

        # Arguments
            architecture: what to train.
            space: the space it is of.
            task: the data to train on.
            epochs: number of epochs; 0 for the network as derived, with random weights and
                batch-norm statistics of the data.
            run: where checkpoints, history and logs go.
            callbacks: further Keras callbacks.
            verbose: as in `fit`.
        """
        seed_everything(task.seed)
        real_epochs = epochs // 2
        real = self._build(architecture, space, task, REAL_WEIGHTS)
        if real_epochs:
            self._fit(real, "train_real", task, real_epochs, run, callbacks, verbose)
        model = self._build(architecture, space, task, DEPLOYED)
        transfer_weights(real, model)
        initialize_scales(model)
        if epochs:
            self._fit(model, "train_binary", task, epochs - real_epochs, run, callbacks, verbose)
        else:
            self._calibrate(model, task)
        plain = self._build(architecture, space, task, DEPLOYED)
        plain.set_weights(model.get_weights())
        return plain

    def restore(
        self, architecture: "Architecture", space: "Space", task: Task, run: Run
    ) -> tf.keras.Model:
        """Return the trained network of a run, compiled to go on from there.

        # Raises
            InputError: if the model is damaged, or not one of this architecture and space.
        """
        model = self._build(architecture, space, task, DEPLOYED)
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
                f"`{space.name}` as they are now: one was changed since; use another directory."
            )
        model.set_weights(saved.get_weights())
        self._compile(model, self.learning_rate)
        return model

    def _build(
        self, architecture: "Architecture", space: "Space", task: Task, domain: Domain
    ) -> tf.keras.Model:
        with building_in(domain):
            return architecture.build(task.facts.input_shape, task.facts.classes, space)

    def _calibrate(self, model: tf.keras.Model, task: Task) -> None:
        """Let batch norm see the data; with its initial statistics, signs are all alike."""
        stream = training_stream(task.train, task.facts, task.seed, task.augment)
        for images, _ in stream.from_epoch(0, 1).take(_CALIBRATION_STEPS):
            model(images, training=True)

    def _compile(self, model: tf.keras.Model, rate: Any) -> None:
        optimizer = tf.keras.optimizers.Adam(rate)
        loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss, metrics=["accuracy"])

    def _fit(
        self,
        model: tf.keras.Model,
        stage: str,
        task: Task,
        epochs: int,
        run: Run,
        callbacks: Sequence[tf.keras.callbacks.Callback],
        verbose: int | str,
    ) -> None:
        stream = training_stream(task.train, task.facts, task.seed, task.augment)
        steps = epochs * stream.steps
        self._compile(model, tf.keras.optimizers.schedules.CosineDecay(self.learning_rate, steps))
        model.optimizer.build(model.trainable_variables)
        fit(
            model,
            stage,
            stream,
            epochs,
            run,
            optimizers=[model.optimizer],
            validation=validation_stream(task.validation),
            callbacks=callbacks,
            verbose=verbose,
        )


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
