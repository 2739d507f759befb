"""What shows of a training before it starts."""

import warnings
from collections.abc import Callable

import tensorflow as tf

from larq_nas.layers import DropPath, building_in
from larq_nas.task import Task
from larq_nas.training.recipe import Recipe
from larq_nas.training.teacher import Teacher
from larq_nas.training.train import domain_of

__all__ = ["check_training"]


def check_training(
    build: Callable[[], tf.keras.Model],
    task: Task,
    recipe: Recipe,
    teacher: Teacher | None,
    verbose: int | str,
) -> None:
    """Build each stage once, so that what fails does so now, and say what has no effect.

    # Arguments
        build: builds a network of the space, in the domain at hand.
        task: the data to train on.
        recipe: how to train.
        teacher: what is learned from, besides the labels.
        verbose: as in `fit`.
    """
    for stage in recipe.stages:
        with building_in(domain_of(stage, recipe)):
            model = build()
    if recipe.drop_path and not any(isinstance(layer, DropPath) for layer in model.layers):
        warnings.warn(
            f"`drop_path` {recipe.drop_path} has no effect: it drops operations of nodes that sum "
            "several, and this space has none.",
            stacklevel=3,
        )
    if teacher is None:
        return
    if not recipe.distillation:
        warnings.warn(
            "`teacher` has no effect: `distillation`, its share of the loss, is 0 in this recipe.",
            stacklevel=3,
        )
    described = teacher.describe(task)
    if verbose:
        print(described, flush=True)
