"""Train an architecture, and convert it."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from larq_nas.architecture import Architecture
from larq_nas.choices import all_alive
from larq_nas.cost import LATENCY, Budget, profile
from larq_nas.cost.profile import read_structure, size
from larq_nas.data.augmentation import AugmentLike
from larq_nas.data.data import ClassWeight, Data, check_seed, read_data
from larq_nas.data.forms import DataLike
from larq_nas.data.labels import listed
from larq_nas.data.preprocessing import PreprocessingLike
from larq_nas.data.validation import DataFacts
from larq_nas.deploy import convert
from larq_nas.deploy.conversion import summarize
from larq_nas.deploy.convert import first_images
from larq_nas.errors import (
    ConversionError,
    InputError,
    collecting_warnings,
    plain_number,
    require_bool,
    require_count,
    warn,
)
from larq_nas.files import replacing, write_atomically
from larq_nas.latency import LatencyTable
from larq_nas.layers.serialization import save
from larq_nas.log import log
from larq_nas.methods import DEFAULT_EPOCHS, RecipeLike, resolve
from larq_nas.process_state import keeps_process_state
from larq_nas.provenance import provenance
from larq_nas.report.report import write_report
from larq_nas.result import Result
from larq_nas.run_directory import RunDirectory
from larq_nas.searchers.estimate import require_training_memory
from larq_nas.spaces import Space, SpaceLike
from larq_nas.spaces.chooser import Fix
from larq_nas.training.callbacks import GivenCallbacks, duration, resolve_callbacks
from larq_nas.training.distribution import (
    noticing_lost_processes,
    process_count,
    require_one_directory,
    verbose_here,
    working_in,
)
from larq_nas.training.loop import forgetting_graphs
from larq_nas.training.metrics import NO_METRICS, GivenMetrics, Metrics
from larq_nas.training.recipe import Epochs, Recipe
from larq_nas.training.teacher import Teacher
from larq_nas.training.trainer import (
    Trainer,
    check_training,
    epochs_of_stages,
    training_stages,
)

__all__ = [
    "read_epochs",
    "require_living",
    "run_of",
    "train",
    "train_and_finish",
    "train_architecture",
]


_OF_LAYERS = ("name", "kind", "shape", "macs", "binary_macs", "weight_bytes")
_SMALLEST_SAMPLE, _LARGEST_SAMPLE, _SAMPLE_BYTES = 32, 512, 2**25


def train_and_finish(
    trainer: Trainer,
    epochs: Epochs,
    run: RunDirectory,
    budget: Budget,
    table: LatencyTable | None,
    callbacks: Sequence[tf.keras.callbacks.Callback],
    verbose: int | str,
) -> Result:
    """Train, save and convert what of that was not done, and return the result."""
    if not run.model.exists():
        with run.timed("train"):
            trained = trainer.train(epochs, run, callbacks, verbose)
        with replacing(run.model) as path:
            save(trained, path)
    model = trainer.restore(run)
    if run.is_copy:
        return copied_result(model, trainer, budget, run)
    _finish(model, trainer, run, budget, table, verbose)
    return Result.of(run, model)


def copied_result(
    model: tf.keras.Model, trainer: Trainer, budget: Budget, run: RunDirectory
) -> Result:
    """Return the result in a process that is not the first, which converts."""
    costs = {k: v for k, v in profile(model).summary().items() if k != "layers"}
    told = "The first process of the strategy has the conversion."
    measured = trainer.measure(model)
    return Result(
        trainer.architecture,
        measured.pop("accuracy"),
        measured.pop("loss"),
        metrics=measured,
        **trainer.accuracies(model),
        **trainer.measure_test(model),
        costs=costs,
        budget=dict(budget.limits),
        conversion=None,
        history=[],
        warnings=[told],
        directory=None,
        read_model=lambda: model,
        class_names=trainer.data.class_names or (),
        preprocessing=trainer.data.preprocessing,
    )


def _finish(
    model: tf.keras.Model,
    trainer: Trainer,
    run: RunDirectory,
    budget: Budget,
    table: LatencyTable | None,
    verbose: int | str,
) -> None:
    """Convert the model, and write and print the result."""
    result, is_new = _read_result(run), False
    if result is None:
        is_new = True
        result = {"budget": dict(budget.limits), **_convert(model, trainer, run, table)}
    is_untested = trainer.data.test is not None and "test_accuracy" not in result
    if is_untested:
        result |= trainer.measure_test(model)
    most = budget.limits.get("flatbuffer_bytes")
    if most is not None and result.get("bytes", 0) > most:
        warn(
            f"`model.tflite` has {result['bytes']:,} bytes, more than the budget of {most:,}: "
            "it was predicted to have less; search with a lower limit."
        )
    if "refused" in result:
        warn(f"No `model.tflite` was written: {result['refused']}")
    if is_new and (told := run.read_warnings()):
        result["run_warnings"] = told
    if is_new or is_untested:
        write_atomically(run.result, json.dumps(result, indent=2) + "\n")
    if verbose:
        if not is_new:
            log.info(f"The run in `{run.directory}` was finished before; this is its result:")
        log.info(_costs(result["costs"], run))
        if "refused" not in result:
            log.info(summarize(result))
        if budget and "bytes" in result:
            used = {**result["costs"], "flatbuffer_bytes": result["bytes"]}
            log.info(f"budget: {budget.report(used)}")
        if table:
            took = result["costs"][LATENCY] / 1000
            log.info(f"predicted on {table.device}: {took:.3f} ms for an image")
        top5 = f", top-5 {result['top5_accuracy']:.2%}" if "top5_accuracy" in result else ""
        log.info(f"accuracy on validation data: {result['accuracy']:.2%}{top5}")
        if "test_accuracy" in result:
            log.info(f"accuracy on test data: {result['test_accuracy']:.2%}")
        if accuracies := of_classes(result.get("class_accuracy", {})):
            log.info(accuracies)
        if took := run.read_times():
            log.info(", ".join(f"{part}: {duration(seconds)}" for part, seconds in took.items()))
        if labels := _labels_of(trainer):
            log.info(labels)
        log.info(_written(result, run))


_LISTED = 12


def of_classes(accuracies: Mapping[str, float]) -> str:
    """Return the accuracies of classes in a line, the lowest first, and no more than fit in it."""
    lowest = sorted(accuracies.items(), key=lambda pair: pair[1])[:_LISTED]
    if len(lowest) < len(accuracies):
        of = f"the {_LISTED} lowest of {len(accuracies)} classes"
    else:
        of = "each class, lowest first"
    figures = ", ".join(f"{name} {accuracy:.2%}" for name, accuracy in lowest)
    return f"accuracy of {of}: {figures}" if figures else ""


def _labels_of(trainer: Trainer) -> str:
    """Return which labels the model is compiled for, if not for those that were given."""
    data, last = trainer.data, trainer.data.facts.classes - 1
    numbers = f"model.evaluate takes class numbers, 0 to {last}"
    if data.label_form == "others":
        return f"{numbers} for {listed(data.class_names or ())}"
    vectors = data.label_form == "vectors" and not trainer.takes_vectors
    return (
        f"{numbers}, as its `metrics` do: tf.argmax of labels that are one-hot" if vectors else ""
    )


def _written(result: dict[str, Any], run: RunDirectory) -> str:
    if run.is_temporary:
        return (
            "no file is kept: give `directory`, or `return_result=True` and "
            "result.conversion.save(path)"
        )
    return f"written: {run.directory if 'refused' in result else run.flatbuffer}"


def _costs(costs: dict[str, Any], run: RunDirectory) -> str:
    """Return the costs of a network in two lines."""
    source = "print(larq_nas.cost.profile(model))"
    by_layer = source if run.is_temporary else f"larq-nas cost {run.directory}"
    return (
        f"costs: {costs['parameters']:,} weights in {size(costs['weight_bytes'])}, "
        f"{costs['binary_macs']:,} binary and {costs['macs']:,} real multiply-accumulates\n"
        f"costs by layer: {by_layer}"
    )


def _read_result(run: RunDirectory) -> dict[str, Any] | None:
    """Return the result of a run that was converted; what is refused or damaged is done again."""
    try:
        is_converted = Result.of(run).conversion is not None
    except InputError:
        return None
    result: dict[str, Any] = json.loads(run.result.read_text(encoding="utf-8"))
    return result if is_converted else None


def _convert(
    model: tf.keras.Model, trainer: Trainer, run: RunDirectory, table: LatencyTable | None
) -> dict[str, Any]:
    data = trainer.data
    measured = trainer.measure(model)
    further = {name: measured.pop(name) for name in trainer.metrics.names}
    result: dict[str, Any] = {**measured, **({"metrics": further} if further else {})}
    result |= trainer.accuracies(model)
    told = {"class_names": data.class_names, "preprocessing": data.preprocessing}
    result |= {name: value for name, value in told.items() if value}
    result["costs"] = profile(model).summary()
    layers = result["costs"].pop("layers")
    result["layers"] = [{name: layer[name] for name in _OF_LAYERS} for layer in layers]
    if table:
        predicted = table.predict(read_structure(model))
        result["costs"][LATENCY] = float(predicted.microseconds)
        result["device"] = table.device
    images = first_images(data.measured, _sample_size(data))
    with replacing(run.sample) as path:
        np.save(path, images)
    try:
        conversion = convert(model, images, examples=len(images))
    except ConversionError as error:
        return {**result, "refused": str(error)}
    conversion.save(run.flatbuffer)
    return {**result, **conversion.summary()}


def _sample_size(data: Data) -> int:
    height, width, channels = data.facts.input_shape
    return max(
        _SMALLEST_SAMPLE, min(_LARGEST_SAMPLE, _SAMPLE_BYTES // (4 * height * width * channels))
    )


@keeps_process_state
@collecting_warnings()
def train(
    architecture: str | Path | Architecture,
    train: DataLike,
    validation: DataLike | float,
    *,
    space: SpaceLike | None = None,
    epochs: Epochs | None = None,
    recipe: RecipeLike | None = None,
    teacher: tf.keras.Model | None = None,
    classes: int | None = None,
    augment: AugmentLike | None = None,
    class_weight: ClassWeight | None = None,
    preprocessing: PreprocessingLike | None = None,
    test: DataLike | float | None = None,
    directory: str | Path | None = None,
    seed: int = 0,
    resume: bool = True,
    strategy: tf.distribute.Strategy | None = None,
    callbacks: GivenCallbacks = None,
    metrics: GivenMetrics = None,
    return_result: bool = False,
    verbose: int | str = "auto",
) -> Any:
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
        train: a batched `tf.data.Dataset` of `(images, labels)`, or such arrays; sample weights may
            follow. Images are `(batch, height, width, channels)`. Labels are whole numbers, text,
            one-hot, or probabilities of the classes. larq_nas shuffles.
        validation: data of the same form that is only measured on, or a share of `train` to hold
            out, such as 0.2, of each class alike and by `seed`.
        space: the search space, needed if it is a function of your own.
        epochs: number of epochs, of all stages or of each by its name, such as
            `{"real": 20, "binary": 30}`; 0 leaves random weights. By default those of the recipe,
            or 100.
        recipe: a `larq_nas.training.Recipe`, the name of the method whose recipe it is, or
            settings to change in that of the space's method, which is the default.
        teacher: a trained network of the same images and classes, such as one of larq-zoo,
            that the network learns from too.
        classes: number of classes; by default what the labels say.
        augment: `"standard"` (shift and mirror), `"cutout"` (and a square of zeros), `"crop"` (7/8
            of images that are so much larger than those of `validation`), `"resized_crop"` (any
            part of those, resized, and mirror), a Keras layer such as
            `tf.keras.layers.RandomRotation(0.1)`, a list or `Sequential` of them, a function of
            `(images, seed)`, or `None`.
        class_weight: how much images of each class count in training: weights by number or name, as
            `{0: 1.0, 1: 5.0}`, or `"balanced"`, by which each class counts alike.
        preprocessing: layers of Keras that images pass first, such as
            `tf.keras.layers.Rescaling(1 / 127.5, -1)`, an adapted `Normalization` or a list of
            layers; they become the first layers of the network, which reads raw images then.
        test: further data of the form of `validation`, or a share of `train`: measured on once,
            when the network is trained.
        directory: where the run is kept; by default nothing is.
        seed: seed of everything random; the same seed gives the same result.
        resume: whether to go on with a run that is in `directory` already.
        strategy: a `tf.distribute.Strategy`, such as `MirroredStrategy()` for several GPUs or
            `MultiWorkerMirroredStrategy()` for several machines: each replica has a part of every
            batch, and batch norm is over all of it, where it is of larq_nas or synchronized.
        callbacks: Keras callbacks: one or a list for each stage of the training, or those of stages
            by name, such as `{"train_binary": [tf.keras.callbacks.EarlyStopping("val_accuracy")]}`.
        metrics: further metrics of labels and logits, by Keras's names or as its objects, such as
            `"sparse_top_k_categorical_accuracy"`: of each epoch, of the result, and of the model
            that is returned.
        return_result: whether to return a `larq_nas.Result`, which has the model, its accuracy,
            its conversion and the history.
        verbose: as in `tf.keras.Model.fit`; 0 prints nothing.

    # Returns
        The network: a plain functional `tf.keras.Model` of Keras and Larq layers, compiled,
        from images to logits of shape `(batch, classes)`; or the `larq_nas.Result`.

    # Raises
        InputError: if an argument or the data cannot be used; nothing was trained then.
        DivergenceError: if a loss becomes NaN or infinite.
        ProcessLostError: if another process of `strategy` ends.
    """
    # Its argument `train` hides the function here.
    start = provenance(globals()["train"], locals())
    check_seed(seed)
    require_bool(resume=resume, return_result=return_result)
    classes, seed = map(plain_number, (classes, seed))
    found = Architecture.read(architecture)
    resolved = found.resolve(space)
    require_one_directory(strategy, directory)
    verbose = verbose_here(strategy, directory, verbose)
    plan = resolve(None, resolved, recipe=recipe)
    epochs = read_epochs("epochs", epochs, plan.recipe)
    further = Metrics(metrics)
    groups = {"train": training_stages(plan.recipe, further)}
    resolved_callbacks = resolve_callbacks(callbacks, groups, epochs_of_stages(plan.recipe, epochs))
    data = read_data(
        train,
        validation,
        classes,
        augment,
        seed,
        resolved,
        verbose,
        strategy,
        class_weight,
        preprocessing,
        test,
    )
    check_metrics(further, data)
    resolved_teacher = None if teacher is None else Teacher(teacher, data)
    run = run_of(found, data, plan.recipe, resolved_teacher, epochs, directory, resume, further)
    run.start |= start
    result = train_architecture(
        found,
        resolved,
        data,
        plan.recipe,
        resolved_teacher,
        epochs,
        run,
        resolved_callbacks,
        verbose,
        further,
    )
    if result.directory:
        write_report(result.directory, None, verbose)
    return result if return_result else result.model


def read_epochs(name: str, given: Epochs | None, recipe: Recipe) -> Epochs:
    """Return the epochs of a training that were given, or else those of its recipe."""
    if given is None:
        return DEFAULT_EPOCHS if recipe.epochs is None else recipe.epochs
    if isinstance(given, Mapping):
        return recipe.split(plain_number(dict(given)))
    epochs: int = plain_number(given)
    require_count(**{name: epochs})
    return epochs


def check_metrics(metrics: Metrics, data: Data) -> None:
    """Raise `InputError` for metrics that cannot be computed of the labels of the data."""
    labels = data.validation.element_spec[1]
    metrics.check(data.facts.classes, soft=labels.shape.rank > 1)


def run_of(
    architecture: Architecture,
    data: Data,
    recipe: Recipe,
    teacher: Teacher | None,
    epochs: Epochs,
    directory: str | Path | None,
    resume: bool = True,
    metrics: Metrics = NO_METRICS,
) -> RunDirectory:
    """Return the run of a training, in `directory`."""
    settings = {
        "architecture": dataclasses.asdict(architecture),
        "recipe": recipe.settings(),
        **({"teacher": teacher.digest} if teacher else {}),
        **({"metrics": metrics.settings()} if metrics.names else {}),
        **data.settings(),
        "epochs": epochs,
    }
    return RunDirectory(directory, settings, resume)


def train_architecture(
    architecture: Architecture,
    space: Space,
    data: Data,
    recipe: Recipe,
    teacher: Teacher | None,
    epochs: Epochs,
    run: RunDirectory,
    callbacks: Sequence[tf.keras.callbacks.Callback] = (),
    verbose: int | str = "auto",
    metrics: Metrics = NO_METRICS,
) -> Result:
    """Train a network on data that was checked; see `train`."""
    with forgetting_graphs(), noticing_lost_processes(data.strategy, run):
        run.check()
        if not run.model.exists():
            shape, number = data.facts.input_shape, data.facts.classes
            network, structure = require_living(architecture, space, data.facts)
            run.start |= structure
            if not is_binary(network, space):
                warn_of_real_layers(space)
            batch_size = data.facts.batch_size // process_count(data.strategy)
            require_training_memory(network, batch_size, "The network", "build it narrower")
            check_training(
                lambda: architecture.build(shape, number, space),
                data,
                recipe,
                teacher,
                epochs,
                verbose,
            )
        with working_in(run, data.strategy) as run:
            architecture.save(run.architecture)
            trainer = Trainer(architecture, space, data, recipe, teacher, metrics)
            return train_and_finish(trainer, epochs, run, Budget({}), None, callbacks, verbose)


def is_binary(network: tf.keras.Model, space: Space) -> bool:
    """Return whether a network computes something in binary, or was asked not to."""
    return getattr(space, "precision", None) == "real" or profile(network).binary_macs > 0


def warn_of_real_layers(space: Space) -> None:
    """Warn of a space that binarizes nothing."""
    warn(
        f"Space `{space.name}` has no binary layer, one that reads signs and has signs for weights:"
        " all of the network will run in float; build it of the blocks of larq_nas.layers, or of "
        "Larq's layers with both quantizers."
    )


def require_living(
    architecture: Architecture, space: Space, facts: DataFacts
) -> tuple[tf.keras.Model, dict[str, Any]]:
    """Return the network and its structure, see `larq_nas.spaces.Chooser.structure`.

    # Raises
        InputError: if a cell is zero on every path.
    """
    choose = Fix(architecture.choices)
    network = space.build(choose, facts.input_shape, facts.classes)
    values = architecture.choices
    chosen = {name: choice.decode(values[name]) for name, choice in choose.choices.items()}
    for cell in choose.cells.values():
        if not all_alive([cell], choose.choices, chosen):
            raise InputError(
                f"Every path of cell `{cell.name}` is zero: choose another operation in one of "
                f"{', '.join(cell.questions.values())}."
            )
    return network, choose.structure()
