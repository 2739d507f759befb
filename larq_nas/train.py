"""From an architecture to a trained binary network in a file that deploys."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from larq_nas.architecture import Architecture
from larq_nas.cells import all_alive
from larq_nas.choosers import Fix
from larq_nas.cost import Budget
from larq_nas.errors import InputError, require_count
from larq_nas.finish import train_and_finish
from larq_nas.pipeline.augment import Augment
from larq_nas.pipeline.check import DataFacts
from larq_nas.run import Run
from larq_nas.spaces import Space, SpaceLike
from larq_nas.task import Task, check_callbacks, check_seed, check_task
from larq_nas.training.forget import forgetting_graphs
from larq_nas.training.processes import (
    noticing_lost_processes,
    require_one_directory,
    verbose_here,
    working_in,
)
from larq_nas.training.ready import check_training
from larq_nas.training.recipe import Recipe
from larq_nas.training.recipes import RecipeLike, resolve_recipe
from larq_nas.training.teacher import Teacher
from larq_nas.training.train import Trainer

__all__ = ["require_living", "run_of", "train", "train_task"]


def train(
    architecture: str | Path | Architecture,
    train: tf.data.Dataset,
    validation: tf.data.Dataset,
    *,
    space: SpaceLike | None = None,
    epochs: int = 100,
    recipe: RecipeLike | None = None,
    teacher: tf.keras.Model | None = None,
    classes: int | None = None,
    augment: str | Augment | None = None,
    directory: str | Path | None = None,
    seed: int = 0,
    resume: bool = True,
    strategy: tf.distribute.Strategy | None = None,
    callbacks: Sequence[tf.keras.callbacks.Callback] = (),
    verbose: int | str = "auto",
) -> tf.keras.Model:
    """Train the network of an architecture, found or published, and convert it.

    As in `search`, a run can be killed at any moment, and the same call goes on with the
    same result; it leaves the same files, but `probabilities.csv`.

    !!! example
        ```python
        architecture = larq_nas.Architecture.published("bnas_cifar").with_settings(cells=8)
        model = larq_nas.train(
            architecture, train, validation, recipe="bnas_v2", epochs=30, directory="runs/bnas"
        )
        ```

    # Arguments
        architecture: an `Architecture`, the file of one, the directory of a run, or the name
            of a published one.
        train: batches of `(images, labels)`, shapes `(batch, height, width, channels)` and
            `(batch,)`, in a fixed order; larq_nas shuffles.
        validation: batches of `(images, labels)` that are only measured on.
        space: the search space, needed if it is a function of your own.
        epochs: number of epochs; 0 leaves random weights.
        recipe: a `larq_nas.training.Recipe`, or the name of one; by default as the paper of
            the space does.
        teacher: a trained network of the same images and classes, such as one of larq-zoo,
            that the network learns from too.
        classes: number of classes; by default one more than the largest training label.
        augment: `"standard"` (shift and mirror), `"cutout"` (and a square of zeros), `"crop"` (7/8
            of images that are so much larger than those of `validation`), a function of
            `(images, seed)`, or `None`.
        directory: where the run is kept; by default nothing is.
        seed: seed of everything random; the same seed gives the same result.
        resume: whether to go on with a run that is in `directory` already.
        strategy: a `tf.distribute.Strategy`, such as `MirroredStrategy()` for several GPUs or
            `MultiWorkerMirroredStrategy()` for several machines: each replica has a part of every
            batch, and batch norm is over all of it, where it is of larq_nas or synchronized.
        callbacks: further Keras callbacks.
        verbose: as in `tf.keras.Model.fit`; 0 prints nothing.

    # Returns
        The network: a plain functional `tf.keras.Model` of Keras and Larq layers, compiled,
        from images to logits of shape `(batch, classes)`.

    # Raises
        InputError: if an argument or the data cannot be used; nothing was trained then.
        DivergenceError: if a loss becomes NaN or infinite.
        ProcessLostError: if another process of `strategy` ends.
    """
    check_seed(seed)
    check_callbacks(callbacks)
    require_count(epochs=epochs)
    found = Architecture.read(architecture)
    resolved = found.resolve(space)
    require_one_directory(strategy, directory)
    verbose = verbose_here(strategy, directory, verbose)
    training = resolved.recipe() if recipe is None else resolve_recipe(recipe)
    task = check_task(train, validation, classes, augment, seed, resolved, verbose, strategy)
    known = None if teacher is None else Teacher(teacher, task)
    run = run_of(found, task, training, known, epochs, directory, resume)
    return train_task(found, resolved, task, training, known, epochs, run, callbacks, verbose)


def run_of(
    architecture: Architecture,
    task: Task,
    recipe: Recipe,
    teacher: Teacher | None,
    epochs: int,
    directory: str | Path | None,
    resume: bool = True,
) -> Run:
    """Return the run of a training, in `directory`."""
    settings = {
        "architecture": dataclasses.asdict(architecture),
        "recipe": recipe.settings(),
        **({"teacher": teacher.digest} if teacher else {}),
        **task.settings(),
        "epochs": epochs,
    }
    return Run(directory, settings, resume)


def train_task(
    architecture: Architecture,
    space: Space,
    task: Task,
    recipe: Recipe,
    teacher: Teacher | None,
    epochs: int,
    run: Run,
    callbacks: Sequence[tf.keras.callbacks.Callback] = (),
    verbose: int | str = "auto",
) -> tf.keras.Model:
    """Train a network on data that was checked; see `train`."""
    with forgetting_graphs(), noticing_lost_processes(task.strategy, run):
        run.check()
        if not run.model.exists():
            shape, number = task.facts.input_shape, task.facts.classes
            require_living(architecture, space, task.facts)
            check_training(
                lambda: architecture.build(shape, number, space),
                task,
                recipe,
                teacher,
                epochs,
                verbose,
            )
        with working_in(run, task.strategy) as run:
            architecture.save(run.architecture)
            trainer = Trainer(architecture, space, task, recipe, teacher)
            return train_and_finish(trainer, epochs, run, Budget({}), None, callbacks, verbose)


def require_living(architecture: Architecture, space: Space, facts: DataFacts) -> None:
    """Raise `InputError` for a kind of cell that is zero on every path."""
    choose = Fix(architecture.choices)
    space.build(choose, facts.input_shape, facts.classes)
    values = architecture.choices
    chosen = {name: choice.decode(values[name]) for name, choice in choose.choices.items()}
    for cell in choose.cells.values():
        if not all_alive([cell], choose.choices, chosen):
            raise InputError(
                f"Every path of cell `{cell.name}` is zero: choose another operation in one of "
                f"{', '.join(cell.questions.values())}."
            )
