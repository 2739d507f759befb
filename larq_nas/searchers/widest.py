"""The widest network of a space, which candidates take their weights from."""

from collections.abc import Sequence

import tensorflow as tf

from larq_nas.candidates import CandidateTraining
from larq_nas.choosers import Widest
from larq_nas.errors import InputError, first_line
from larq_nas.files import replacing
from larq_nas.layers import building_in
from larq_nas.run import Run
from larq_nas.seeding import seed_everything
from larq_nas.spaces import Space
from larq_nas.training.loop import fit
from larq_nas.training.optimizers import optimizer
from larq_nas.training.recipe import Recipe
from larq_nas.training.trainee import Trainee
from larq_nas.training.transfer import constrain, initialize_scales

__all__ = ["load_widest", "train_widest"]

_STAGE = "widest"


def train_widest(
    space: Space,
    recipe: Recipe,
    epochs: int,
    training: CandidateTraining,
    run: Run,
    callbacks: Sequence[tf.keras.callbacks.Callback] = (),
    verbose: int | str = "auto",
) -> None:
    """Train the widest network, or go on with it, and leave its weights in the run.

    # Arguments
        space: the space.
        recipe: how it is trained, in its last stage.
        epochs: number of epochs; 0 for random weights.
        training: the data it trains on.
        run: where checkpoints and weights go.
        callbacks: further Keras callbacks.
        verbose: as in `fit`.
    """
    if run.widest.exists():
        return
    seed_everything(training.seed)
    _, network = _build(space, recipe, training)
    constrain(network)
    initialize_scales(network)
    if epochs:
        stream = training.stream(-1)
        rate = recipe.rates(training.facts.batch_size, epochs, stream.steps)
        model = Trainee(network, recipe, seed=training.seed)
        model.compile(optimizer(recipe.optimizer, rate))
        model.optimizer.build(model.trainable_variables)
        fit(
            model,
            _STAGE,
            stream,
            epochs,
            run,
            seed=training.seed,
            optimizers=[model.optimizer],
            callbacks=callbacks,
            verbose=verbose,
        )
    with replacing(run.widest) as path:
        network.save_weights(path)


def load_widest(
    space: Space, recipe: Recipe, training: CandidateTraining, run: Run
) -> tuple[Widest, tf.keras.Model]:
    """Return the widest network with its weights, and the chooser that built it."""
    choose, network = _build(space, recipe, training)
    try:
        network.load_weights(run.widest)
    except (OSError, ValueError) as error:
        raise InputError(
            f"`{run.widest}` is damaged ({first_line(error)}): delete it, and the same call makes "
            "it again from the last checkpoint."
        ) from error
    return choose, network


def _build(
    space: Space, recipe: Recipe, training: CandidateTraining
) -> tuple[Widest, tf.keras.Model]:
    choose = Widest()
    with building_in(recipe.domain(recipe.stages[-1])):
        network = space.build(choose, training.facts.input_shape, training.facts.classes)
    return choose, network
