"""Search a space, train what is found, and convert it."""

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import tensorflow as tf

from larq_nas.architecture import Architecture
from larq_nas.cost import Budget, Limits, SpaceCosts
from larq_nas.data.augmentation import Augment
from larq_nas.data.data import check_callbacks, check_seed, check_task
from larq_nas.data.validation import DataFacts
from larq_nas.errors import InputError, callers_level, require_count, require_whole
from larq_nas.latency import LatencyTable
from larq_nas.run_directory import Run
from larq_nas.searchers import Search, Searcher, resolve_searcher
from larq_nas.searchers.evolution.processes import current_role
from larq_nas.spaces import Space, SpaceLike, resolve
from larq_nas.spaces.chooser import Survey
from larq_nas.spaces.space import fingerprint, is_built_in
from larq_nas.train import train_and_finish
from larq_nas.training.distribution import (
    noticing_lost_processes,
    require_one_directory,
    verbose_here,
    working_in,
)
from larq_nas.training.loop import forgetting_graphs
from larq_nas.training.recipe import RecipeLike, resolve_recipe
from larq_nas.training.trainer import Teacher, Trainer, check_training

__all__ = ["search", "work"]


def require_one_device(searcher: Searcher, strategy: object) -> None:
    """Raise `InputError` for a strategy that the searcher does not train on."""
    if isinstance(strategy, tf.distribute.Strategy) and not searcher.several_devices:
        raise InputError(
            f"Searcher `{searcher.name}` trains on one device: leave `strategy` out, and give it "
            "to larq_nas.train for the network that was found."
        )


def require_role(searcher: Searcher, directory: str | Path | None) -> None:
    """Raise `InputError` if processes of keras-tuner are to do what one does."""
    role = current_role()
    if role == "alone":
        return
    if not searcher.several_processes:
        raise InputError(
            f"KERASTUNER_ORACLE_IP is set in the environment, but searcher `{searcher.name}` runs "
            "in one process: unset it."
        )
    if directory is None:
        raise InputError(
            f"`directory` must be given to a {role}: one that all processes of the search share."
        )


def work(
    prepared: Search,
    run: Run,
    callbacks: Sequence[tf.keras.callbacks.Callback],
    verbose: int | str,
) -> NoReturn:
    """Train candidates for a chief, and end the process: the chief returns the network."""
    if verbose:
        print(f"Worker: waiting for the chief of `{run.directory}`", flush=True)
    run.wait_for_chief()
    prepared.work(run, callbacks)  # type: ignore[attr-defined]
    if verbose:
        print("Worker: the search has ended; the chief trains the found network", flush=True)
    raise SystemExit(0)


def resolve_table(
    given: str | Path | LatencyTable | None, max_latency: float | str | None
) -> LatencyTable | None:
    """Return the table of latencies, if any, or raise `InputError` if there must be one."""
    if max_latency is not None and given is None:
        raise InputError(
            "`max_latency` needs `latency_table`, of the device that it is about: measure one "
            "with larq-nas latency --build-table."
        )
    return given if given is None or isinstance(given, LatencyTable) else LatencyTable.load(given)


def limits_of(
    budget: Budget,
    space: Space,
    facts: DataFacts,
    table: LatencyTable | None,
    searcher: Searcher,
    verbose: int | str,
) -> Limits | None:
    """Return what the search must keep to, or raise `InputError` if nothing can."""
    if not budget:
        return None
    if verbose:
        print("Costing the space: one build of all of it", flush=True)
        if table:
            print(table, flush=True)
    # It finds any width, down to this one.
    least = searcher.smallest_ratio
    limits = Limits(SpaceCosts(space, facts.input_shape, facts.classes, table, least), budget)
    feasible = limits.require_feasible()
    if verbose:
        print(feasible, flush=True)
    if limits.costs.unknown:
        warnings.warn(
            f"The budget does not count the operations of {', '.join(limits.costs.unknown)}: "
            "larq_nas does not know these layers.",
            stacklevel=callers_level(),
        )
    return limits


def search(
    train: tf.data.Dataset,
    validation: tf.data.Dataset,
    space: SpaceLike = "bats",
    searcher: str | Searcher = "differentiable",
    *,
    epochs: int | None = None,
    train_epochs: int = 100,
    classes: int | None = None,
    augment: str | Augment | None = None,
    directory: str | Path | None = None,
    seed: int = 0,
    resume: bool = True,
    max_memory: float | str | None = None,
    max_flatbuffer: float | str | None = None,
    max_activation_memory: float | str | None = None,
    max_macs: float | str | None = None,
    max_binary_macs: float | str | None = None,
    max_parameters: float | str | None = None,
    max_latency: float | str | None = None,
    latency_table: str | Path | LatencyTable | None = None,
    callbacks: Sequence[tf.keras.callbacks.Callback] = (),
    recipe: RecipeLike | None = None,
    teacher: tf.keras.Model | None = None,
    strategy: tf.distribute.Strategy | None = None,
    verbose: int | str = "auto",
) -> tf.keras.Model:
    """Search a space for a binary network, train it, and convert it.

    A run can be killed at any moment: the same call goes on where it was, with the same
    result. In `directory` it leaves `architecture.json`, `history.csv`, `probabilities.csv`
    (of a progressive search `stages.json` too; of an evolution `candidates.csv`, `pareto/` and
    keras-tuner's `trials/`; of a dimension search `widths.csv` and, where matplotlib is
    installed, `widths.png`), `model.keras`, `model.tflite`, `result.json`, `sample.npy` (the
    validation images it was checked on), `checkpoints/` and TensorBoard's `logs/`.

    !!! example
        ```python
        train, validation = larq_nas.datasets.load("digits")
        model = larq_nas.search(
            train, validation, space="bats", epochs=5, train_epochs=20, directory="runs/digits"
        )
        larq_nas.convert(model, validation).save("digits.tflite")
        ```

    # Arguments
        train: batches of `(images, labels)`, shapes `(batch, height, width, channels)` and
            `(batch,)`, in a fixed order; larq_nas shuffles. One half trains the weights of
            the supernet, the other its architecture parameters; the network that is found
            trains on both.
        validation: batches of `(images, labels)` that are only measured on.
        space: name of a search space, a `larq_nas.spaces.Space`, or a function of your own
            of `(choose, input_shape, classes)`.
        searcher: name of a searcher, or a searcher.
        epochs: epochs of the search (of a dimension search those that train weights, of a
            progressive one those of each stage), or generations of an evolution; by default
            what the paper searches for.
        train_epochs: epochs the found network is trained for; 0 leaves it as derived, with
            random weights.
        classes: number of classes; by default one more than the largest training label.
        augment: `"standard"` (shift and mirror), `"cutout"` (and a square of zeros), `"crop"` (7/8
            of images that are so much larger than those of `validation`), a function of
            `(images, seed)`, or `None`.
        directory: where the run is kept; by default nothing is.
        seed: seed of everything random; the same seed gives the same result.
        resume: whether to go on with a run that is in `directory` already.
        max_memory: most bytes of weights, as a number or with a unit such as `"64KB"` (1,000
            bytes each) or `"64KiB"` (1,024).
        max_flatbuffer: most bytes of `model.tflite`.
        max_activation_memory: most bytes of activations alive at once for one image.
        max_macs: most multiply-accumulates of one image that are not binary, such as `"1.5M"`.
        max_binary_macs: most binary ones.
        max_parameters: most weights, of any precision.
        max_latency: longest time of one image on a device, such as `"5ms"`, as `latency_table`
            predicts it; a number is in microseconds.
        latency_table: a `larq_nas.latency.LatencyTable` of the device and this space, or the
            file of one; see `larq-nas latency --build-table`.
        callbacks: further Keras callbacks, for search and training.
        recipe: how the found network is trained, a `larq_nas.training.Recipe` or the name of
            one; by default as the space's paper does.
        teacher: a trained network of the same images and classes, such as one of larq-zoo,
            that the found network learns from too.
        strategy: a `tf.distribute.Strategy`, such as `MirroredStrategy()` for several GPUs or
            `MultiWorkerMirroredStrategy()` for several machines: each replica has a part of every
            batch, and batch norm is over all of it, where it is of larq_nas or synchronized.
        verbose: as in `tf.keras.Model.fit`; 0 prints nothing.

    # Returns
        The found network: a plain functional `tf.keras.Model` of Keras and Larq layers,
        compiled, from images to logits of shape `(batch, classes)`.

    # Raises
        InputError: if an argument or the data cannot be used; nothing was trained then.
        DivergenceError: if a loss becomes NaN or infinite.
        ProcessLostError: if another process of `strategy` ends.
    """
    resolved, method = resolve(space), resolve_searcher(searcher)
    epochs = method.epochs(resolved) if epochs is None else epochs
    require_role(method, directory)
    check_seed(seed)
    check_callbacks(callbacks)
    require_whole(epochs=epochs)
    require_count(train_epochs=train_epochs)
    budget = Budget.parse(
        {
            "max_memory": max_memory,
            "max_flatbuffer": max_flatbuffer,
            "max_activation_memory": max_activation_memory,
            "max_macs": max_macs,
            "max_binary_macs": max_binary_macs,
            "max_parameters": max_parameters,
            "max_latency": max_latency,
        }
    )
    table = resolve_table(latency_table, max_latency)
    training = resolved.recipe() if recipe is None else resolve_recipe(recipe)
    require_one_device(method, strategy)
    require_one_directory(strategy, directory)
    verbose = verbose_here(strategy, directory, verbose)
    task = check_task(train, validation, classes, augment, seed, resolved, verbose, strategy)
    facts = task.facts
    if table:
        table.require_for(resolved, facts.input_shape, facts.classes)
    known = None if teacher is None else Teacher(teacher, task)
    settings = {
        "space": {"name": resolved.name, **resolved.settings()},
        "choices": resolved.questions(facts.input_shape, facts.classes),
        **_own_network(resolved, facts),
        "searcher": method.settings(resolved),
        "recipe": training.settings(),
        **({"teacher": known.digest} if known else {}),
        **task.settings(),
        "budget": dict(budget.limits),
        **({"latency_table": table.digest} if table else {}),
        "epochs": epochs,
        "train_epochs": train_epochs,
    }
    run = Run(directory, settings, resume)
    if current_role() == "worker":
        limits = limits_of(budget, resolved, facts, table, method, 0)
        task = dataclasses.replace(task, limits=limits)
        work(method.prepare(resolved, task, epochs), run, callbacks, verbose)
    with forgetting_graphs(), noticing_lost_processes(strategy, run):
        run.check()
        # Everything that can be wrong shows here, before anything is written.
        if not run.model.exists():
            shape, number = facts.input_shape, facts.classes
            check_training(
                lambda: resolved.build(Survey(), shape, number),
                task,
                training,
                known,
                train_epochs,
                verbose,
            )
        searched = run.architecture.exists()
        limits = None if searched else limits_of(budget, resolved, facts, table, method, verbose)
        task = dataclasses.replace(task, limits=limits)
        prepared = None if searched else method.prepare(resolved, task, epochs)
        with working_in(run, strategy) as run:
            if prepared and not run.architecture.exists():
                prepared.search(run, callbacks, verbose).save(run.architecture)
            architecture = Architecture.load(run.architecture)
            trainer = Trainer(architecture, resolved, task, training, known)
            return train_and_finish(trainer, train_epochs, run, budget, table, callbacks, verbose)


def _own_network(space: Space, facts: DataFacts) -> dict[str, str]:
    """Return what tells a space of the user's own from another, which settings do not."""
    if is_built_in(space):
        return {}
    return {"network": fingerprint(space.build(Survey(), facts.input_shape, facts.classes))}
