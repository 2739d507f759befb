"""The options of commands that train a network."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click
import tensorflow as tf

from larq_nas.cli.common import load_model, model_path
from larq_nas.layers import ComputedIn
from larq_nas.spaces import Space
from larq_nas.training.recipe import Recipe
from larq_nas.training.recipes import RECIPES, resolve_recipe

__all__ = ["choose_recipe", "load_teacher", "recipe_options"]

_OPTIONS = (
    click.option(
        "--recipe",
        help=f"How the network is trained: {', '.join(sorted(RECIPES))}; by default as the space's "
        "paper does.",
    ),
    click.option(
        "--train-learning-rate",
        type=float,
        help="Learning rate of that training [default: the recipe's].",
    ),
    click.option(
        "--precision",
        type=click.Choice(get_args(ComputedIn)),
        help="What binary convolutions are computed in, searched and trained [default: float32]; "
        "bfloat16 may be faster on processors with AMX and on GPUs.",
    ),
    click.option(
        "--teacher",
        type=click.Path(exists=True, path_type=Path),
        help="Trained model to learn from as well: a run, a .keras or .h5 file, or a SavedModel.",
    ),
)


def recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give `command` the options of training."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def choose_recipe(
    name: str | None, learning_rate: float | None, precision: ComputedIn | None, space: Space
) -> Recipe:
    """Return the recipe that the options describe."""
    recipe = space.recipe() if name is None else resolve_recipe(name)
    given: dict[str, Any] = {"learning_rate": learning_rate, "precision": precision}
    changes = {key: value for key, value in given.items() if value is not None}
    return dataclasses.replace(recipe, **changes)


def load_teacher(path: Path | None) -> tf.keras.Model | None:
    """Return the model that the option names."""
    return None if path is None else load_model(model_path(path))
