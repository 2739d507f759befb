"""What a run ends with: a converted network, and what is said of it."""

import json
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from larq_nas.cost import LATENCY, Budget, profile
from larq_nas.cost.structure import read_structure
from larq_nas.cost.table import size
from larq_nas.deploy import convert
from larq_nas.deploy.conversion import summarize
from larq_nas.deploy.images import first_images
from larq_nas.errors import ConversionError, callers_level
from larq_nas.files import replacing, write_atomically
from larq_nas.latency import LatencyTable
from larq_nas.pipeline.streams import validation_stream
from larq_nas.run import Run
from larq_nas.task import Task
from larq_nas.training.exact import exact
from larq_nas.training.train import Trainer

__all__ = ["train_and_finish"]

_SMALLEST_SAMPLE, _LARGEST_SAMPLE, _SAMPLE_BYTES = 32, 512, 2**25


def train_and_finish(
    trainer: Trainer,
    epochs: int,
    run: Run,
    budget: Budget,
    table: LatencyTable | None,
    callbacks: Sequence[tf.keras.callbacks.Callback],
    verbose: int | str,
) -> tf.keras.Model:
    """Train, save and convert what of that was not done, and return the network, compiled."""
    if not run.model.exists():
        trained = trainer.train(epochs, run, callbacks, verbose)
        with replacing(run.model) as path:
            trained.save(path)
    model = trainer.restore(run)
    if not run.is_copy:
        _finish(model, trainer.task, run, budget, table, verbose)
    return model


def _finish(
    model: tf.keras.Model,
    task: Task,
    run: Run,
    budget: Budget,
    table: LatencyTable | None,
    verbose: int | str,
) -> None:
    """Convert the model if that was not done, and say what came of it all."""
    result = _read_result(run)
    if result is None:
        result = {"budget": dict(budget.limits), **_convert(model, task, run, table)}
        write_atomically(run.result, json.dumps(result, indent=2) + "\n")
    most = budget.limits.get("max_flatbuffer")
    if most is not None and result.get("bytes", 0) > most:
        warnings.warn(
            f"`model.tflite` has {result['bytes']:,} bytes, more than max_flatbuffer={most:,}: "
            "it was predicted to have less; search with a lower limit.",
            stacklevel=callers_level(),
        )
    if "refused" in result:
        warnings.warn(
            f"No `model.tflite` was written: {result['refused']}", stacklevel=callers_level()
        )
    if verbose:
        print(_costs(result["costs"], run), flush=True)
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


def _costs(costs: dict[str, Any], run: Run) -> str:
    """Return what a network costs in two lines; `larq-nas cost` lists its layers."""
    return (
        f"costs: {costs['parameters']:,} weights in {size(costs['weight_bits'] / 8)}, "
        f"{costs['binary_macs']:,} binary and {costs['macs']:,} real multiply-accumulates\n"
        f"costs by layer: larq-nas cost {run.directory}"
    )


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
    # As it was trained: TensorFlow fuses, where it rewrites, what it has no kernel for.
    with exact():
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
