"""A fit loop that resumes with the same result, and the base of bilevel models."""

import csv
import functools
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import ops
from tensorflow.python.ops import gen_math_ops

from larq_nas.data.augmentation import naming_augment
from larq_nas.data.labels import whole_labels
from larq_nas.data.streams import Stream
from larq_nas.errors import DivergenceError, InputError, first_line
from larq_nas.files import write_table
from larq_nas.log import counted, log
from larq_nas.run_directory import RunDirectory
from larq_nas.training.callbacks import (
    CallbackStates,
    StageCallbacks,
    TimeLeft,
    limits_of,
    states_of,
    warning_once,
)
from larq_nas.training.distribution import (
    building_on,
    is_distributed,
    process_index,
    shared_out,
    whole_batches,
)

_OPTION = "disable_meta_optimizer"


@contextmanager
def exact() -> Iterator[None]:
    """Trace and run functions so that the same seed gives the same result, on any busy machine.

    TensorFlow's memory optimizer adds gradients up in the order in which they come, and its
    operation `AddN` begins with the input whose memory happens to be free: both are another order
    each time, with `enable_op_determinism` too, and floats of another order have another sum.
    Without rewrites steps take as long, and the first one less.
    """
    before = tf.config.optimizer.get_experimental_options().get(_OPTION, False)
    tf.config.optimizer.set_experimental_options({_OPTION: True})
    add_n = gen_math_ops.add_n
    # `tf.add_n` calls it, and so does what adds up the gradients of a tensor that is read often.
    gen_math_ops.add_n = _sum_in_order(add_n)
    try:
        yield
    finally:
        gen_math_ops.add_n = add_n
        tf.config.optimizer.set_experimental_options({_OPTION: before})


def _sum_in_order(add_n: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """Return `add_n`, of more than two tensors one after the other; two have one sum."""

    def total(inputs: Sequence[tf.Tensor], name: str | None = None) -> tf.Tensor:
        if len(inputs) < 3 or inputs[0].dtype == tf.variant:
            return add_n(inputs, name)
        *rest, last = inputs
        return gen_math_ops.add_v2(functools.reduce(gen_math_ops.add_v2, rest), last, name)

    return total


class RandomLayers:
    """The layers of a network that draw random numbers of Keras, such as `Dropout`.

    As Keras makes them they go on drawing from where they are, which a process that is
    started again does not know. The network is built, and not traced yet.
    """

    def __init__(self, network: tf.keras.Model) -> None:
        self._generators: list[tf.random.Generator] = []
        for layer in network._flatten_layers(include_self=False):
            drawn: Any = getattr(layer, "_random_generator", None)
            if hasattr(drawn, "make_legacy_seed"):
                stateful = type(drawn)(seed=0, rng_type="stateful")
                # Set as Keras sets attributes, it would be a weight of the layer.
                object.__setattr__(layer, "_random_generator", stateful)
                stateful._maybe_init()
                self._generators.append(stateful._generator)

    def reset(self, *seeds: int) -> None:
        """Draw from the start of the sequence that `seeds` give, which are 0 or more."""
        for place, generator in enumerate(self._generators):
            words = np.random.SeedSequence([*seeds, place]).generate_state(1, np.uint64)
            generator.reset_from_seed(int(words[0] >> np.uint64(1)))


@contextmanager
def forgetting_graphs() -> Iterator[None]:
    """Forget, at the end, the gradients that quantizers have registered inside.

    Each call of a function with `tf.custom_gradient` in a graph registers its gradient under
    a name of its own, which TensorFlow never removes. It holds the graph, and through it all
    weights. Only the gradient of a function that was traced inside, and not taken yet, would
    need it.
    """
    registered = ops.gradient_registry._registry
    before = set(registered)
    try:
        yield
    finally:
        for name in set(registered) - before:
            if name.startswith("CustomGradient-"):
                del registered[name]


class History(tf.keras.callbacks.Callback):
    """Keeps `history.csv` whole: a stage resumed at an epoch has each epoch once."""

    def __init__(self, path: Path, stage: str, first: int) -> None:
        super().__init__()
        self._path, self._stage = path, stage
        self._rows = [
            row for row in read_history(path) if row["stage"] != stage or int(row["epoch"]) <= first
        ]

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        figures = {name: f"{float(value):.6g}" for name, value in (logs or {}).items()}
        self._rows.append({"stage": self._stage, "epoch": str(epoch + 1), **figures})
        write_table(self._path, self._rows)


def read_history(path: Path) -> list[dict[str, str]]:
    """Return the rows of `history.csv`, without the figures a stage does not have."""
    if not path.exists():
        return []
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]
        for row in rows:
            int(row["epoch"])
            for name in row.keys() - {"stage"}:
                float(row[name])
        if all("stage" in row for row in rows):
            return rows
    except (ValueError, TypeError, KeyError, csv.Error):
        pass
    raise InputError(f"`{path}` is not the history of a run: restore or delete it.")


def fit(
    model: tf.keras.Model,
    stage: str,
    stream: Stream,
    epochs: int,
    run: RunDirectory,
    *,
    seed: int,
    optimizers: Sequence[tf.keras.optimizers.Optimizer],
    validation: tf.data.Dataset | None = None,
    validation_examples: int = 0,
    callbacks: Sequence[tf.keras.callbacks.Callback] = (),
    own: Sequence[tf.keras.callbacks.Callback] = (),
    verbose: int | str = "auto",
) -> None:
    """Train a compiled model for what remains of the epochs of a stage, from its last checkpoint.

    # Arguments
        model, epochs, verbose: as in `tf.keras.Model.fit`.
        stage: name of the stage, unique in the run.
        stream: training batches.
        run: where checkpoints, history and logs go.
        seed: seed of the run, which layers that draw random numbers draw by.
        optimizers: everything with a state that `model.weights` does not hold.
        callbacks: the user's, whose states are kept; of `StageCallbacks` those of the stage.
        own: callbacks that need no state, or have it in `model`; they come first.
        validation: data to measure on after each epoch, of `validation_examples` images.
    """
    random = RandomLayers(model)
    seeds = [seed, zlib.crc32(stage.encode())]
    if place := process_index(model.distribute_strategy):
        seeds.append(place)
    # Layers such as `Dropout` draw by the epoch, not by what was drawn before it.
    draws = tf.keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: random.reset(*seeds, epoch)
    )
    given, states = states_of(callbacks, stage)
    after = callbacks.after(stage) if isinstance(callbacks, StageCallbacks) else {}
    saver = _Saver(model, stage, run, optimizers, states, epochs)
    finished = run.checkpoints(stage) / "finished"
    first = saver.restore()
    states.prepare()
    if finished.exists() or states.ended:
        states.apply(is_over=True)
        return
    if states.stopped or first >= epochs:
        # It was killed before callbacks were told of the end.
        ending = tf.keras.callbacks.CallbackList([*given, saver], model=model)
        ending.on_train_begin()
        ending.on_train_end()
        finished.touch()
        return
    if verbose:
        done = f" ({first} done before)" if first else ""
        builds = (
            "" if run.history.exists() else "; the first step builds the graph and takes longest"
        )
        log.info(
            f"Stage `{stage}`: {counted(epochs, 'epoch')} of {counted(stream.steps, 'step')}"
            f"{done}{builds}"
        )
    validation_steps = None
    batches, strategy = stream.from_epoch(first, epochs), model.distribute_strategy
    if strategy.num_replicas_in_sync > 1:
        if validation is not None:
            size = tf.nest.flatten(batches.element_spec)[0].shape[0]
            validation = shared_out(whole_batches(validation, size), strategy)
            validation_steps = math.ceil(validation_examples / size)
        batches = shared_out(batches, strategy)
        # What a step reports is of all replicas already; Keras would add it up.
        model.distribute_reduction_method = "first"
    diverged = _StopWhenDiverged(stage, run)
    with exact(), naming_augment(diverged.by_augment), warning_once():
        model.fit(
            batches,
            steps_per_epoch=stream.steps,
            initial_epoch=first,
            epochs=epochs,
            validation_data=validation,
            validation_steps=validation_steps,
            verbose=verbose,
            callbacks=[
                draws,
                *own,
                *given,
                *limits_of(callbacks, stage),
                diverged,
                History(run.history, stage, first),
                tf.keras.callbacks.TensorBoard(run.logs(stage), write_graph=False),
                *([TimeLeft(stage, epochs, after)] if verbose else []),
                saver,
            ],
        )
    if verbose and given and states.stopped:
        log.info(f"Stage `{stage}` was stopped after epoch {saver.epoch} of {epochs}")
    # A callback may have stopped it early; resumed in a later stage, it must not go on.
    finished.touch()


class _Saver(tf.keras.callbacks.Callback):
    """Saves everything an epoch ends with, and the stage, which callbacks may end in another way.

    It is the last of the callbacks, and restores the others' states once they have started.
    """

    def __init__(
        self,
        model: tf.keras.Model,
        stage: str,
        run: RunDirectory,
        optimizers: Sequence[tf.keras.optimizers.Optimizer],
        states: CallbackStates,
        epochs: int,
    ) -> None:
        super().__init__()
        self._states, self._epochs = states, epochs
        with building_on(model.distribute_strategy):
            self._epoch = tf.Variable(0, trainable=False, dtype=tf.int64)
        optimizer_states = {f"optimizer{i}": state for i, state in enumerate(optimizers)}
        checkpoint = tf.train.Checkpoint(
            model=model, epoch=self._epoch, callbacks=self._states, **optimizer_states
        )
        folder = str(run.checkpoints(stage))
        self._manager = tf.train.CheckpointManager(checkpoint, folder, max_to_keep=1)

    @property
    def epoch(self) -> int:
        """How many epochs are done."""
        return int(self._epoch.numpy())

    def restore(self) -> int:
        """Restore the last checkpoint, and return the epoch to go on with."""
        latest = self._manager.latest_checkpoint
        if latest:
            try:
                self._manager.checkpoint.restore(latest).assert_existing_objects_matched()
            except (tf.errors.OpError, IndexError, ValueError) as error:
                raise InputError(
                    f"The checkpoint in `{self._manager.directory}` is damaged "
                    f"({first_line(error)}): delete that folder to start the stage again."
                ) from error
            except AssertionError:
                raise InputError(
                    f"`{self._manager.directory}` holds checkpoints of another network: the space "
                    "was changed since; use another directory."
                ) from None
        return self.epoch

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self._states.apply()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._epoch.assign(epoch + 1)
        self._states.stopped = bool(self.model.stop_training)
        self._manager.save(checkpoint_number=epoch + 1)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        # What callbacks have made of the weights goes on into the next stage.
        self._states.ended = True
        if self._states.callbacks:
            self._manager.save(checkpoint_number=self._epochs + 1)


class _StopWhenDiverged(tf.keras.callbacks.Callback):
    """Stops at the first NaN or infinite loss, before anything is saved."""

    def __init__(self, stage: str, run: RunDirectory) -> None:
        super().__init__()
        self._stage, self._folder = stage, None if run.is_temporary else run.checkpoints(stage)
        self._where = (0, 0)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._where = (epoch, 0)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._where = (self._where[0], batch)
        for name, value in (logs or {}).items():
            if not tf.math.is_finite(value):
                raise self._error(f"`{name}` is {value}")

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        for weight in self.model.weights:
            if weight.dtype.is_floating and not tf.reduce_all(tf.math.is_finite(weight)):
                raise self._error(f"weight `{weight.name}` is not finite")

    def by_augment(self, what: str) -> DivergenceError:
        """Return the error for images that an augmentation has spoiled."""
        return self._of(f"epoch {self._where[0] + 1}: {what}", "mend it, and train again")

    def _error(self, what: str) -> DivergenceError:
        epoch, step = self._where
        return self._of(f"epoch {epoch + 1}, step {step + 1}: {what}", "use a lower learning rate")

    def _of(self, what: str, mend: str) -> DivergenceError:
        epoch, kept = self._where[0], ""
        if epoch and self._folder:
            kept = f"The checkpoint of epoch {epoch} is kept in `{self._folder}`; "
        return DivergenceError(
            f"Diverged in stage `{self._stage}`, {what}. {kept}{mend} in another directory."
        )


def cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Return the cross-entropy of each image, of whole-number labels or of probabilities."""
    # Keras gives whole numbers to a loss as a column, if it gives them itself.
    soft = len(labels.shape) == 2 and labels.shape[1] != 1
    losses = tf.keras.losses
    entropy = losses.categorical_crossentropy if soft else losses.sparse_categorical_crossentropy
    return entropy(labels, logits, from_logits=True)


Term: TypeAlias = Callable[[], tf.Tensor]
"""Returns what is added to the loss of the architecture parameters."""


# Metrics of the level of the architecture parameters.
SEARCH_LEVEL = ("search_loss", "search_accuracy")


class TwoLevels(tf.keras.Model):
    """Base of bilevel models: each level has its own optimizer and metrics.

    # Arguments
        network: the network.
        parameters: the architecture parameters.
        terms: what is added to their loss, by the name of its metric.
        measured: names of further means to report.

    # Attributes
        searching: whether the architecture parameters learn.
        traced_searching: its value when the step was traced; used on several replicas.
        ordinary_weights: the trainable weights that are no architecture parameters.
    """

    def __init__(
        self,
        network: tf.keras.Model,
        parameters: Sequence[tf.Variable],
        terms: Mapping[str, Term],
        measured: Sequence[str] = (),
    ) -> None:
        super().__init__(network.inputs, network.outputs, name="supernet")
        self._save_network = network.save
        self._measured = tuple(measured)
        self.terms = dict(terms)
        self.searching = tf.Variable(False, trainable=False, name="searching")
        self.traced_searching = False
        self._is_distributed = is_distributed()
        upper = {id(parameter) for parameter in parameters}
        self.ordinary_weights = [w for w in network.trainable_weights if id(w) not in upper]

    @property
    def parameters(self) -> Sequence[tf.Variable]:
        """The architecture parameters."""
        raise NotImplementedError

    def compile(
        self,
        optimizer: tf.keras.optimizers.Optimizer,
        architecture_optimizer: tf.keras.optimizers.Optimizer,
    ) -> None:
        """Set the optimizers of the weights and of the architecture parameters."""
        super().compile(optimizer=optimizer, loss=cross_entropy)
        self.architecture_optimizer = architecture_optimizer
        optimizer.build(self.ordinary_weights)
        architecture_optimizer.build(list(self.parameters))
        names = ("loss", "search_loss", *self._measured, *self.terms)
        self._means = {name: tf.keras.metrics.Mean(name) for name in names}
        self._accuracies = {
            name: tf.keras.metrics.SparseCategoricalAccuracy(name)
            for name in ("accuracy", "search_accuracy")
        }

    @property
    def metrics(self) -> list[tf.keras.metrics.Metric]:
        return [*self._means.values(), *self._accuracies.values()]

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save the network, as `tf.keras.Model.save` does, without how it is searched."""
        self._save_network(*args, **kwargs)

    def results(self) -> dict[str, tf.Tensor]:
        """Return what was measured."""
        return self.get_metrics_result()

    def measure(
        self, loss: tf.Tensor, labels: tf.Tensor, logits: tf.Tensor, prefix: str = ""
    ) -> None:
        """Measure a batch of one of the levels, by the prefix of its metrics."""
        self._means[f"{prefix}loss"].update_state(loss)
        self._accuracies[f"{prefix}accuracy"].update_state(whole_labels(labels), logits)

    def batch_loss(
        self, labels: tf.Tensor, logits: tf.Tensor, weights: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Return the mean loss of what a replica has of a batch, by weights if there are any."""
        loss = self.compiled_loss(labels, logits, weights)
        # Keras has divided it by the replicas, since it adds their gradients up.
        count = tf.distribute.get_strategy().num_replicas_in_sync
        return loss * count if is_distributed() else loss

    def set_searching(self, searching: bool) -> None:
        """Let the architecture parameters learn from now on, or not."""
        self.searching.assign(searching)
        if self._is_distributed and searching != self.traced_searching:
            self.traced_searching = searching
            self.make_train_function(force=True)

    def added(self) -> list[tf.Tensor]:
        """Return what is added to the loss of the architecture parameters."""
        values = {name: term() for name, term in self.terms.items()}
        for name, value in values.items():
            self._means[name].update_state(value)
        return list(values.values())
