"""What a run ends with: a converted network, and what is said of it."""

import dataclasses
import json
import warnings
from collections.abc import Mapping
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

from larq_nas.cost import LATENCY, Budget, profile
from larq_nas.cost.structure import read_structure
from larq_nas.deploy import convert
from larq_nas.deploy.conversion import summarize
from larq_nas.deploy.gate import first_images
from larq_nas.errors import ConversionError, InputError, require_whole
from larq_nas.files import replacing, write_atomically
from larq_nas.latency import LatencyTable
from larq_nas.pipeline.augment import Augment, check_augment, resolve_augment
from larq_nas.pipeline.check import DataFacts, check_data
from larq_nas.pipeline.streams import validation_stream
from larq_nas.run import Run
from larq_nas.spaces import Space
from larq_nas.task import Task

__all__ = ["check_numbers", "check_task", "describe_data", "finish"]

_SEEDS = 2**31
_SMALLEST_SAMPLE, _LARGEST_SAMPLE, _SAMPLE_BYTES = 32, 512, 2**25


def check_numbers(seed: int, **epochs: int) -> None:
    """Raise `InputError` for a seed, numbers of epochs or a policy that cannot be used."""
    for name, number in epochs.items():
        if name == "epochs" or number != 0:
            require_whole(**{name: number})
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < _SEEDS:
        raise InputError(f"`seed` must be a whole number from 0 to {_SEEDS - 1}, but got {seed!r}.")
    policy = tf.keras.mixed_precision.global_policy().name
    if policy != "float32":
        raise InputError(f"Keras's precision policy must be float32 to convert, but is {policy}.")


def check_task(
    train: tf.data.Dataset,
    validation: tf.data.Dataset,
    classes: int | None,
    augment: str | Augment | None,
    seed: int,
    space: Space,
    verbose: int | str,
) -> Task:
    """Return the task of data that was looked at once, or raise `InputError`."""
    augmentation = resolve_augment(augment)
    if verbose:
        print("Checking the data: every image and label once", flush=True)
    facts = check_data(train, validation, classes)
    space.check(facts.input_shape)
    check_augment(augmentation, facts.input_shape)
    return Task(train, validation, facts, seed, augmentation)


def describe_data(facts: DataFacts) -> Mapping[str, Any]:
    """Return the data as a run keeps it; the range of values follows from the rest."""
    return {k: v for k, v in dataclasses.asdict(facts).items() if k != "value_range"}


def finish(
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
