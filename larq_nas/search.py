"""The one call: from data to a trained binary network in a file that deploys."""

import dataclasses
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

from larq_nas.architecture import Architecture
from larq_nas.cost import LATENCY, Budget, Limits, SpaceCosts, profile
from larq_nas.cost.structure import read_structure
from larq_nas.deploy import convert
from larq_nas.deploy.conversion import summarize
from larq_nas.deploy.gate import first_images
from larq_nas.errors import ConversionError, InputError, require_whole
from larq_nas.files import replacing, write_atomically
from larq_nas.latency import LatencyTable
from larq_nas.pipeline.augment import Augment, check_augment, describe, resolve_augment
from larq_nas.pipeline.check import DataFacts, check_data
from larq_nas.pipeline.streams import validation_stream
from larq_nas.run import Run
from larq_nas.searchers import Searcher, resolve_searcher
from larq_nas.spaces import Space, SpaceLike, resolve
from larq_nas.task import Task
from larq_nas.training.recipe import TwoStage

__all__ = ["search"]

_SEEDS = 2**31
_SMALLEST_SAMPLE, _LARGEST_SAMPLE, _SAMPLE_BYTES = 32, 512, 2**25


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
    recipe: TwoStage | None = None,
    verbose: int | str = "auto",
) -> tf.keras.Model:
    """Search a space for a binary network, train it, and convert it.

    A run can be killed at any moment: the same call goes on where it was, with the same
    result. In `directory` it leaves `architecture.json`, `history.csv`, `model.keras`,
    `model.tflite`, `result.json`, `sample.npy` (the validation images it was checked on),
    `checkpoints/` and TensorBoard's `logs/`.

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
        epochs: epochs of the search; by default what the space's paper searches for.
        train_epochs: epochs the found network is trained for; 0 leaves it as derived, with
            random weights.
        classes: number of classes; by default one more than the largest training label.
        augment: `"standard"` (shift and mirror), a function of `(images, seed)`, or `None`.
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
        recipe: how the found network is trained; by default as the space's paper does.
        verbose: as in `tf.keras.Model.fit`; 0 prints nothing.

    # Returns
        The found network: a plain functional `tf.keras.Model` of Keras and Larq layers,
        compiled, from images to logits of shape `(batch, classes)`.

    # Raises
        InputError: if an argument or the data cannot be used; nothing was trained then.
        DivergenceError: if a loss becomes NaN or infinite.
    """
    resolved, method = resolve(space), resolve_searcher(searcher)
    epochs = method.epochs(resolved) if epochs is None else epochs
    _check_numbers(epochs, train_epochs, seed)
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
    table = _table(latency_table, max_latency)
    trainer = resolved.recipe() if recipe is None else recipe
    augmentation = resolve_augment(augment)
    if verbose:
        print("Checking the data: every image and label once", flush=True)
    facts = check_data(train, validation, classes)
    resolved.check(facts.input_shape)
    check_augment(augmentation, facts.input_shape)
    if table:
        table.require_for(resolved, facts.input_shape, facts.classes)
    settings = {
        "space": {"name": resolved.name, **resolved.settings()},
        "choices": resolved.questions(facts.input_shape, facts.classes),
        "searcher": method.settings(resolved),
        "recipe": trainer.settings(),
        "data": dataclasses.asdict(facts),
        "augment": describe(augmentation),
        "budget": dict(budget.limits),
        **({"latency_table": table.digest} if table else {}),
        "epochs": epochs,
        "train_epochs": train_epochs,
        "seed": seed,
    }
    run = Run(directory, settings, resume)
    run.check()
    # Everything that can be wrong with a search shows here, before anything is written.
    searched = run.architecture.exists()
    limits = None if searched else _limits(budget, resolved, facts, table, verbose)
    task = Task(train, validation, facts, seed, augmentation, limits)
    prepared = None if searched else method.prepare(resolved, task, epochs)
    with run:
        if prepared and not run.architecture.exists():
            prepared.search(run, callbacks, verbose).save(run.architecture)
        architecture = Architecture.load(run.architecture)
        if not run.model.exists():
            trained = trainer.train(
                architecture, resolved, task, train_epochs, run, callbacks, verbose
            )
            with replacing(run.model) as path:
                trained.save(path)
        model = trainer.restore(architecture, resolved, task, run)
        _finish(model, task, run, budget, table, verbose)
    return model


def _table(
    given: str | Path | LatencyTable | None, max_latency: float | str | None
) -> LatencyTable | None:
    if max_latency is not None and given is None:
        raise InputError(
            "`max_latency` needs `latency_table`, of the device that it is about: measure one "
            "with larq-nas latency --build-table."
        )
    return given if given is None or isinstance(given, LatencyTable) else LatencyTable.load(given)


def _check_numbers(epochs: int, train_epochs: int, seed: int) -> None:
    require_whole(epochs=epochs)
    if train_epochs != 0:
        require_whole(train_epochs=train_epochs)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < _SEEDS:
        raise InputError(f"`seed` must be a whole number from 0 to {_SEEDS - 1}, but got {seed!r}.")
    policy = tf.keras.mixed_precision.global_policy().name
    if policy != "float32":
        raise InputError(f"Keras's precision policy must be float32 to convert, but is {policy}.")


def _limits(
    budget: Budget,
    space: Space,
    facts: DataFacts,
    table: LatencyTable | None,
    verbose: int | str,
) -> Limits | None:
    """Return what the search must keep to, or raise `InputError` if nothing can."""
    if not budget:
        return None
    if verbose:
        print("Costing the space: one build of all of it", flush=True)
        if table:
            print(table, flush=True)
    limits = Limits(SpaceCosts(space, facts.input_shape, facts.classes, table), budget)
    feasible = limits.require_feasible()
    if verbose:
        print(feasible, flush=True)
    if limits.costs.unknown:
        warnings.warn(
            f"The budget does not count the operations of {', '.join(limits.costs.unknown)}: "
            "larq_nas does not know these layers.",
            stacklevel=3,
        )
    return limits


def _finish(
    model: tf.keras.Model,
    task: Task,
    run: Run,
    budget: Budget,
    table: LatencyTable | None,
    verbose: int | str,
) -> None:
    """Convert the model if that was not done, and say what came of it all."""
    if verbose:
        lq.models.summary(model)
    result = _read_result(run)
    if result is None:
        result = {"budget": dict(budget.limits), **_convert(model, task, run, table)}
        write_atomically(run.result, json.dumps(result, indent=2) + "\n")
    most = budget.limits.get("max_flatbuffer")
    if most is not None and result.get("bytes", 0) > most:
        warnings.warn(
            f"`model.tflite` has {result['bytes']:,} bytes, more than max_flatbuffer={most:,}: "
            "it was predicted to have less; search with a lower limit.",
            stacklevel=3,
        )
    if "refused" in result:
        warnings.warn(f"No `model.tflite` was written: {result['refused']}", stacklevel=3)
    if verbose:
        if "refused" not in result:
            print(summarize(result), flush=True)
        if budget and "bytes" in result:
            used = {**result["costs"], "flatbuffer_bytes": result["bytes"]}
            print(f"budget: {budget.report(used)}", flush=True)
        if table:
            took = result["costs"][LATENCY] / 1000
            print(f"predicted on {table.device}: {took:.3f} ms for an image", flush=True)
        print(f"accuracy on validation data: {result['accuracy']:.2%}")
        print(f"written: {run.directory if 'refused' in result else run.flatbuffer}", flush=True)


def _read_result(run: Run) -> dict[str, Any] | None:
    """Return the result of a run that was converted; what is refused or damaged is done again."""
    try:
        result: dict[str, Any] = json.loads(run.result.read_text(encoding="utf-8"))
        whole = run.flatbuffer.stat().st_size == result["bytes"] and bool(summarize(result))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return result if whole and "accuracy" in result else None


def _convert(
    model: tf.keras.Model, task: Task, run: Run, table: LatencyTable | None
) -> dict[str, Any]:
    measured = model.evaluate(validation_stream(task.validation), verbose=0, return_dict=True)
    result: dict[str, Any] = {"accuracy": measured["accuracy"], "loss": measured["loss"]}
    result["costs"] = {k: v for k, v in profile(model).summary().items() if k != "layers"}
    if table:
        predicted = table.predict(read_structure(model))
        result["costs"][LATENCY] = float(predicted.microseconds)
    images = first_images(task.validation, _sample_size(task))
    with replacing(run.sample) as path:
        np.save(path, images)
    try:
        conversion = convert(model, images, examples=len(images))
    except ConversionError as error:
        return {**result, "refused": str(error)}
    conversion.save(run.flatbuffer)
    return {**result, **conversion.summary()}


def _sample_size(task: Task) -> int:
    height, width, channels = task.facts.input_shape
    return max(
        _SMALLEST_SAMPLE, min(_LARGEST_SAMPLE, _SAMPLE_BYTES // (4 * height * width * channels))
    )
