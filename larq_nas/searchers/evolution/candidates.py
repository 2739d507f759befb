"""Train candidates for a few epochs, rebuilt or in one trace, and measure them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

from larq_nas.choices import expand
from larq_nas.data.augmentation import Augment
from larq_nas.data.streams import Stream, training_stream, validation_stream
from larq_nas.data.validation import DataFacts
from larq_nas.errors import DivergenceError, InputError, first_line
from larq_nas.files import replacing
from larq_nas.graph.channels import read_layers, weights_of
from larq_nas.layers import building_in
from larq_nas.run_directory import Run
from larq_nas.spaces import Space
from larq_nas.spaces.chooser import Fix, Widest
from larq_nas.supernet.resizable import resizable_constants, resizable_network, resizable_optimizer
from larq_nas.training.loop import RandomLayers, exact, fit, forgetting_graphs, seed_everything
from larq_nas.training.recipe import Recipe, optimizer
from larq_nas.training.trainer import Trainee
from larq_nas.training.transfer import constrain, initialize_scales

__all__ = [
    "CandidateTraining",
    "Inheritance",
    "Measured",
    "Rebuilt",
    "Shared",
    "draw_subset",
    "load_widest",
    "require_one_trace",
    "train_widest",
]


def draw_subset(
    train: tf.data.Dataset, facts: DataFacts, size: int | None, seed: int
) -> tuple[tf.data.Dataset, DataFacts]:
    """Return a part of the training data, as even over the classes as the data allow.

    # Arguments
        train: batches of `(images, labels)` in a fixed order.
        facts: what they hold.
        size: number of images; `None` for all.
        seed: seed of the draw.

    # Returns
        Batches of those images, kept in memory, and what they hold.

    # Raises
        InputError: if there are not so many images.
    """
    if size is None:
        return train, facts
    if size > facts.train_examples:
        raise InputError(
            f"`subset` must be at most the {facts.train_examples} training images, but got {size}."
        )
    labels = np.concatenate([np.asarray(labels) for _, labels in train.as_numpy_iterator()])
    chosen = tf.constant(np.sort(_even(labels, size, np.random.default_rng(seed))))
    member = tf.scatter_nd(chosen[:, None], tf.ones(size, tf.bool), [len(labels)])
    examples = train.unbatch().enumerate().filter(lambda index, _: member[index])
    images = list(examples.map(lambda _, example: example).batch(facts.batch_size))
    kept = tuple(tf.concat(parts, axis=0) for parts in zip(*images, strict=True))
    batches = tf.data.Dataset.from_tensor_slices(kept).batch(facts.batch_size)
    return batches, dataclasses.replace(facts, train_examples=size)


def _even(labels: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return `size` indices, taken from the classes in turn."""
    shuffled = rng.permutation(len(labels))
    turns = np.zeros(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        turns[members] = np.arange(len(members))
    # Of each turn all classes come before the next; within it the order is random.
    order = shuffled[np.argsort(turns[shuffled], kind="stable")]
    return order[:size]


class Recalibration:
    """Sets the moving statistics of batch norms to the mean over some batches.

    Inherited statistics are of other inputs, and those of a short training lag behind the
    weights; a mean over batches is of the weights as they are.

    # Arguments
        model: the network.
    """

    def __init__(self, model: tf.keras.Model) -> None:
        self._norms = [
            layer
            for layer in model._flatten_layers(include_self=False)
            if isinstance(layer, tf.keras.layers.BatchNormalization)
        ]
        self._model = model
        self._momentum = tf.Variable(0.0, trainable=False)
        self._step: Callable[[tf.Tensor], None] = tf.function(self._forward, reduce_retracing=True)

    def run(self, images: tf.data.Dataset) -> None:
        """Set the statistics to the mean of those of each batch.

        # Arguments
            images: batches of images.
        """
        for number, batch in enumerate(images):
            self._momentum.assign(number / (number + 1))
            self._step(batch)

    def _forward(self, images: tf.Tensor) -> None:
        with ExitStack() as stack:
            for layer in self._norms:
                stack.enter_context(lq.utils.patch_object(layer, "momentum", self._momentum))
            self._model(images, training=True)


_RECALIBRATION_BATCHES = 20


@dataclass(frozen=True)
class Measured:
    """What a candidate reached.

    # Arguments
        accuracy: share of the validation images that it classifies rightly.
        loss: mean cross-entropy on them.
    """

    accuracy: float
    loss: float


@dataclass(frozen=True)
class CandidateTraining:
    """How candidates are trained.

    # Arguments
        train: batches of the images they train on.
        validation: batches they are measured on.
        facts: what these hold.
        epochs: number of epochs; 0 measures inherited weights as they are.
        recipe: how they are trained, in its last stage.
        augment: random changes to the training images.
        seed: seed of the search.
    """

    train: tf.data.Dataset
    validation: tf.data.Dataset
    facts: DataFacts
    epochs: int
    recipe: Recipe
    augment: Augment | None
    seed: int

    def stream(self, number: int) -> Stream:
        """Return the batches for a candidate, shuffled by its number."""
        seed = (self.seed + 7919 * (number + 1)) % 2**31
        return training_stream(self.train, self.facts, seed, self.augment)

    def run(
        self,
        model: Trainee,
        recalibration: Recalibration,
        number: int,
        callbacks: Sequence[tf.keras.callbacks.Callback] = (),
    ) -> Measured:
        """Train `model` and measure it.

        The global seed must have been set before, by `larq_nas.training.loop.seed_everything`, but
        not for each: TensorFlow then prepares everything it has traced again.

        # Arguments
            model: compiled, with its weights as they start.
            recalibration: of its batch norms.
            number: number of the candidate, which its seed follows from.
            callbacks: Keras callbacks.

        # Raises
            DivergenceError: if the loss becomes NaN or infinite.
        """
        stream = self.stream(number)
        with exact():
            if self.epochs:
                model.fit(
                    stream.from_epoch(0, self.epochs),
                    steps_per_epoch=stream.steps,
                    epochs=self.epochs,
                    verbose=0,
                    callbacks=list(callbacks),
                )
            images = stream.from_epoch(self.epochs, self.epochs + 1).map(lambda x, _: x)
            recalibration.run(images.take(_RECALIBRATION_BATCHES))
            measured = model.evaluate(
                validation_stream(self.validation), verbose=0, return_dict=True
            )
        return _finite(measured)

    def rate(self) -> Any:
        """Return the learning rate for each step of a candidate's training."""
        steps = self.facts.train_examples // self.facts.batch_size
        return self.recipe.rates(self.facts.batch_size, max(1, self.epochs), max(1, steps))


def _finite(measured: dict[str, float]) -> Measured:
    loss = float(measured["loss"])
    if not np.isfinite(loss):
        raise DivergenceError(f"its loss is {loss}")
    return Measured(float(measured["accuracy"]), loss)


class Inheritance:
    """What narrower networks take from the widest one: the first channels of each layer.

    Those of what a layer reads too, so that a layer of a narrower network computes of its
    inputs what the first filters of the wide one would, and additions stay valid.

    # Arguments
        model: the network of the largest widths, built by `choose`.
        choose: a chooser whose widths remember where they came from.

    # Attributes
        parts: every weight of the network, and what of it a narrower one has.

    # Raises
        InputError: if a layer does with channels what cannot be followed.

    # References
        - [Searching for Accurate Binary Neural Architectures](https://arxiv.org/abs/1909.07378),
          section 3.1
    """

    def __init__(self, model: tf.keras.Model, choose: Widest) -> None:
        self._expansions = choose.expansions
        read = read_layers(model)
        self._made = {layer.layer.name: layer.gives for layer in read}
        self.parts = [part for layer in read for part in layer.parts]

    def taken(self, values: Mapping[str, float]) -> dict[tuple[str, int], np.ndarray]:
        """Return the weights of a narrower network, by the name of the layer and a count.

        # Arguments
            values: the ratio of each choice by name.
        """
        filters = self._filters(values)
        return {(part.layer, part.index): part.taken(filters) for part in self.parts}

    def channels(self, layer: str, values: Mapping[str, float]) -> int:
        """Return how many channels a layer of a narrower network has."""
        return len(self._made[layer].taken(self._filters(values)))

    def _filters(self, values: Mapping[str, float]) -> dict[str, int]:
        return {
            name: expand(asked.filters, asked.decode(values[name]))
            for name, asked in self._expansions.items()
        }


class Rebuilt:
    """Builds, traces and trains a network for each candidate; what `Shared` is held equal to.

    # Arguments
        space: the space.
        training: how candidates are trained.
        source: the weights they start with.
    """

    def __init__(self, space: Space, training: CandidateTraining, source: Inheritance) -> None:
        self._space = space
        self._training = training
        self._source = source
        self._network: tf.keras.Model | None = None

    @forgetting_graphs()
    def measure(
        self,
        values: Mapping[str, float],
        number: int,
        callbacks: Sequence[tf.keras.callbacks.Callback] = (),
    ) -> Measured:
        """Train the candidate of these ratios, and measure it; see `Shared.measure`."""
        training, recipe = self._training, self._training.recipe
        with building_in(recipe.domain(recipe.stages[-1])):
            self._network = self._space.build(
                Fix(values), training.facts.input_shape, training.facts.classes
            )
        taken = self._source.taken(values)
        for key, weight in weights_of(self._network).items():
            weight.assign(taken[key])
        RandomLayers(self._network).reset(training.seed, number)
        model = Trainee(self._network, recipe, seed=training.seed)
        model.compile(optimizer(recipe.optimizer, training.rate()))
        model.optimizer.build(model.trainable_variables)
        return training.run(model, Recalibration(self._network), number, callbacks)

    def weights(self) -> dict[str, Any]:
        """Return the weights of the candidate trained last, by layer and count."""
        if self._network is None:
            return {}
        pairs = weights_of(self._network).items()
        return {f"{layer}/{index}": weight.numpy() for (layer, index), weight in pairs}


class Shared:
    """Trains candidates without building, tracing or loading anything for one.

    The network of the space is built once, of variables without a fixed shape. A candidate's
    weights are assigned to them, and the steps that were traced compute with those sizes.

    # Arguments
        space: the space.
        training: how candidates are trained.
        source: the weights they start with.
    """

    def __init__(self, space: Space, training: CandidateTraining, source: Inheritance) -> None:
        recipe, facts = training.recipe, training.facts
        network = _network(space, recipe, facts)
        self._training = training
        self._source = source
        self._weights = weights_of(network)
        self._constants = resizable_constants(network)
        self._random = RandomLayers(network)
        self._model = Trainee(network, recipe, seed=training.seed)
        self._optimizer = resizable_optimizer(recipe.optimizer, training.rate())
        self._model.compile(self._optimizer)
        self._optimizer.build(self._model.trainable_variables)
        self._recalibration = Recalibration(network)

    def measure(
        self,
        values: Mapping[str, float],
        number: int,
        callbacks: Sequence[tf.keras.callbacks.Callback] = (),
    ) -> Measured:
        """Train the candidate of these ratios, and measure it.

        # Arguments
            values: the ratio of each choice by name.
            number: number of the candidate, which its seed follows from.
            callbacks: Keras callbacks.
        """
        for key, value in self._source.taken(values).items():
            self._weights[key].assign(value)
        for constant, layer, filling in self._constants:
            constant.assign(tf.fill([self._source.channels(layer.name, values)], filling))
        self._optimizer.reset()
        self._random.reset(self._training.seed, number)
        return self._training.run(self._model, self._recalibration, number, callbacks)

    def weights(self) -> dict[str, Any]:
        """Return the weights of the candidate trained last, by layer and count."""
        return {
            f"{layer}/{index}": weight.numpy() for (layer, index), weight in self._weights.items()
        }


def require_one_trace(space: Space, recipe: Recipe, facts: DataFacts) -> None:
    """Raise `InputError` if one trace cannot serve all candidates of a space."""
    try:
        network = _network(space, recipe, facts)
        resizable_constants(network)
        step = tf.function(lambda images: network(images, training=True))
        step.get_concrete_function(tf.TensorSpec((None, *facts.input_shape)))
    except Exception as error:
        raise InputError(
            f"One trace cannot serve all candidates of space `{space.name}`, for one of its layers "
            f"needs to know its width: give `Evolution(shared=False)`. {first_line(error)}."
        ) from error


def _network(space: Space, recipe: Recipe, facts: DataFacts) -> tf.keras.Model:
    """Return a network whose weights take any width."""
    domain = recipe.domain(recipe.stages[-1])
    return resizable_network(space, Widest(), facts, domain)[0]


_STAGE = "widest"


def train_widest(
    space: Space,
    recipe: Recipe,
    epochs: int,
    training: CandidateTraining,
    run: Run,
    callbacks: Sequence[tf.keras.callbacks.Callback] = (),
    verbose: int | str = "auto",
) -> None:
    """Train the widest network, or go on with it, and leave its weights in the run.

    # Arguments
        space: the space.
        recipe: how it is trained, in its last stage.
        epochs: number of epochs; 0 for random weights.
        training: the data it trains on.
        run: where checkpoints and weights go.
        callbacks: further Keras callbacks.
        verbose: as in `fit`.
    """
    if run.widest.exists():
        return
    seed_everything(training.seed)
    _, network = _build(space, recipe, training)
    constrain(network)
    initialize_scales(network)
    if epochs:
        stream = training.stream(-1)
        rate = recipe.rates(training.facts.batch_size, epochs, stream.steps)
        model = Trainee(network, recipe, seed=training.seed)
        model.compile(optimizer(recipe.optimizer, rate))
        model.optimizer.build(model.trainable_variables)
        fit(
            model,
            _STAGE,
            stream,
            epochs,
            run,
            seed=training.seed,
            optimizers=[model.optimizer],
            callbacks=callbacks,
            verbose=verbose,
        )
    with replacing(run.widest) as path:
        network.save_weights(path)


def load_widest(
    space: Space, recipe: Recipe, training: CandidateTraining, run: Run
) -> tuple[Widest, tf.keras.Model]:
    """Return the widest network with its weights, and the chooser that built it."""
    choose, network = _build(space, recipe, training)
    try:
        network.load_weights(run.widest)
    except (OSError, ValueError) as error:
        raise InputError(
            f"`{run.widest}` is damaged ({first_line(error)}): delete it, and the same call makes "
            "it again from the last checkpoint."
        ) from error
    return choose, network


def _build(
    space: Space, recipe: Recipe, training: CandidateTraining
) -> tuple[Widest, tf.keras.Model]:
    choose = Widest()
    with building_in(recipe.domain(recipe.stages[-1])):
        network = space.build(choose, training.facts.input_shape, training.facts.classes)
    return choose, network
