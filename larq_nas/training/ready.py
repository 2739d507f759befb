"""What shows of a training before it starts."""

import warnings
from collections.abc import Callable

import tensorflow as tf

from larq_nas.cost.kinds import facts_of
from larq_nas.errors import InputError, callers_level
from larq_nas.layers import DropPath, building_in
from larq_nas.layers.zeros import reads_image
from larq_nas.task import Task
from larq_nas.training.recipe import Recipe
from larq_nas.training.teacher import Teacher

_CALLED = {
    "float": "stage of the float twin",
    "real": "stage of real weights",
    "binary": "stage of binary weights",
}
_QUANTIZERS = (
    "input_quantizer",
    "kernel_quantizer",
    "depthwise_quantizer",
    "pointwise_quantizer",
)

__all__ = ["check_training", "require_reading", "require_stages", "warn_without_effect"]


def check_training(
    build: Callable[[], tf.keras.Model],
    task: Task,
    recipe: Recipe,
    teacher: Teacher | None,
    epochs: int,
    verbose: int | str,
) -> None:
    """Build each stage once, so that what fails does so now, and say what is not as given.

    # Arguments
        build: builds a network of the space, in the domain at hand.
        task: the data to train on.
        recipe: how to train.
        teacher: what is learned from, besides the labels.
        epochs: number of epochs of all stages.
        verbose: as in `fit`.
    """
    require_stages(build, recipe)
    rate, size = recipe.rate(task.facts.batch_size), task.facts.batch_size
    if verbose and rate != recipe.learning_rate:
        print(
            f"Learning rate {rate:g}: that of the recipe, {recipe.learning_rate:g}, is for batches "
            f"of {recipe.base_batch_size}, and the data has {size}",
            flush=True,
        )
    for stage in recipe.stages:
        if epochs and not recipe.epochs_of(stage, epochs):
            warnings.warn(
                f"The {_CALLED[stage]} is left out: {epochs} epochs are too few for "
                f"{len(recipe.stages)} stages.",
                stacklevel=callers_level(),
            )
    if teacher is None:
        return
    if not epochs:
        warnings.warn("`teacher` has no effect: nothing is trained.", stacklevel=callers_level())
    if not recipe.distillation:
        warnings.warn(
            "`teacher` has no effect: `distillation`, its share of the loss, is 0 in this recipe.",
            stacklevel=callers_level(),
        )
    described = teacher.describe(task)
    if verbose:
        print(described, flush=True)


def require_stages(build: Callable[[], tf.keras.Model], recipe: Recipe) -> None:
    """Raise `InputError` if a network cannot be trained in a stage of a recipe."""
    for stage in recipe.stages:
        with building_in(recipe.domain(stage)):
            network = build()
            require_reading(network)
        if stage == "float":
            _require_real(network)


def require_reading(network: tf.keras.Model) -> None:
    """Raise `InputError` for a network that gives the same, whatever it reads."""
    if not reads_image(network):
        raise InputError(
            "The network gives the same for every image: every path through it is zero; choose "
            "other operations."
        )


def _require_real(network: tf.keras.Model) -> None:
    """Raise `InputError` for a space that has no float twin."""
    for layer in network._flatten_layers(include_self=False):
        quantized = any(getattr(layer, name, None) is not None for name in _QUANTIZERS)
        if quantized or facts_of(layer).kind == "sign":
            raise InputError(
                'The recipe trains the float twin first (stage "float"), but the space has none: '
                f"layer `{layer.name}` stays binary; use a recipe with other `stages`."
            )


def warn_without_effect(network: tf.keras.Model, recipe: Recipe) -> None:
    """Warn of a drop path that drops nothing, and of an auxiliary classifier that is not there."""
    if recipe.auxiliary and len(network.outputs) == 1:
        warnings.warn(
            f"`auxiliary` {recipe.auxiliary} has no effect: the space has no cells.",
            stacklevel=callers_level(),
        )
    if recipe.drop_path and not any(isinstance(layer, DropPath) for layer in network.layers):
        warnings.warn(
            f"`drop_path` {recipe.drop_path} has no effect: it drops operations of nodes that sum "
            "several, and this network has none.",
            stacklevel=callers_level(),
        )
