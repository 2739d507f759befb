"""Train candidates for a few epochs, from scratch or with what they inherit, and measure them."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from zipfile import BadZipFile

import larq as lq
import numpy as np
import tensorflow as tf

from larq_nas.choices import Value
from larq_nas.data.augmentation import naming_augment
from larq_nas.data.data import Data
from larq_nas.data.labels import whole_labels
from larq_nas.data.streams import Stream, training_stream, validation_stream
from larq_nas.data.validation import DataFacts
from larq_nas.errors import DivergenceError, InputError, first_line, warn
from larq_nas.files import replacing
from larq_nas.graph.calls import read_graph
from larq_nas.graph.channels import read_layers, weights_of
from larq_nas.layers import Domain, building_in
from larq_nas.process_state import seed_everything
from larq_nas.run_directory import RunDirectory
from larq_nas.searchers.evolution.generation import Candidate, Genes
from larq_nas.searchers.searcher import Callbacks
from larq_nas.spaces import Space
from larq_nas.spaces.chooser import Fix, Widest
from larq_nas.spaces.space import is_built_in
from larq_nas.supernet.resizable import resizable_constants, resizable_network, resizable_optimizer
from larq_nas.training.callbacks import callbacks_of
from larq_nas.training.loop import RandomLayers, exact, fit, forgetting_graphs
from larq_nas.training.recipe import Recipe, optimizer
from larq_nas.training.trainer import Trainee
from larq_nas.training.transfer import constrain, initialize_scales


class Recalibration:
    """Sets the moving statistics of batch norms to the mean over some batches.

    Inherited statistics are of other inputs, and those of a short training lag behind the
    weights; a mean over batches is of the weights as they are.
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
        """Set the statistics to the mean of those of each batch."""
        for number, batch in enumerate(images):
            self._momentum.assign(number / (number + 1))
            self._step(batch)

    def _forward(self, images: tf.Tensor) -> None:
        with ExitStack() as stack:
            for layer in self._norms:
                stack.enter_context(lq.utils.patch_object(layer, "momentum", self._momentum))
            self._model(images, training=True)


_RECALIBRATION_BATCHES = 20


class Measured(NamedTuple):
    """Share of the images held out that are classified rightly, and mean cross-entropy."""

    accuracy: float
    loss: float


CONFIRMATION = 2**20
"""The number by which all trainings of the confirmation are shuffled: above those of candidates."""


@dataclass(frozen=True)
class Plan:
    """How long a candidate is trained, and what of it is kept.

    # Arguments
        number: what shuffles its batches, and seeds what its layers draw.
        stops: numbers of epochs after which it was, or is, measured.
        source: file of the state after the last stop but one; without, it starts anew.
        state: where its state goes, for a training that goes on.
        correct: where it goes which of the held-out images are classified rightly.
    """

    number: int
    stops: tuple[int, ...]
    source: Path | None = None
    state: Path | None = None
    correct: Path | None = None


@dataclass(frozen=True)
class CandidateTraining:
    """Data and recipe that candidates are trained by; without epochs they are only measured."""

    data: Data
    epochs: int
    recipe: Recipe

    @property
    def facts(self) -> DataFacts:
        """What the data hold."""
        return self.data.facts

    def stream(self, number: int) -> Stream:
        """Return the batches for a candidate, shuffled by its number."""
        seed = (self.data.seed + 7919 * (number + 1)) % 2**31
        return training_stream(self.data.train, self.facts, seed, self.data.augment)

    def run(
        self,
        model: Trainee,
        recalibration: Recalibration,
        random: RandomLayers,
        plan: Plan,
        callbacks: Callbacks = (),
    ) -> Measured:
        """Train a compiled `model` and measure it.

        The global seed must have been set before, by `larq_nas.process_state.seed_everything`, but
        not for each: TensorFlow then prepares everything it has traced again.

        # Raises
            DivergenceError: if the loss becomes NaN or infinite.
        """
        stream, done = self.stream(plan.number), 0
        random.reset(self.data.seed, plan.number)
        variables = [*model.weights, *model.optimizer.variables]
        state = _read_state(plan.source, len(variables))
        if state:
            for variable, value in zip(variables, state, strict=True):
                variable.assign(value)
            done = plan.stops[-2]
        with exact(), naming_augment():
            # Where a state is lost, what led to it is done again, in the same parts.
            for stop in (one for one in plan.stops if one > done):
                if done:
                    random.reset(self.data.seed, plan.number, done)
                model.fit(
                    stream.from_epoch(done, stop),
                    steps_per_epoch=stream.steps,
                    initial_epoch=done,
                    epochs=stop,
                    verbose=0,
                    callbacks=callbacks_of(callbacks, "candidates"),
                )
                done = stop
            if plan.state:
                arrays = {str(place): one.numpy() for place, one in enumerate(variables)}
                with replacing(plan.state) as path:
                    np.savez(path, **arrays)
            images = stream.from_epoch(done, done + 1).map(lambda images, *_: images)
            recalibration.run(images.take(_RECALIBRATION_BATCHES))
            measured = model.evaluate(
                validation_stream(self.data.validation), verbose=0, return_dict=True
            )
        loss = float(measured["loss"])
        if not np.isfinite(loss):
            raise DivergenceError(f"its loss is {loss}")
        if plan.correct:
            with replacing(plan.correct) as path:
                np.save(path, self._correct(model))
        return Measured(float(measured["accuracy"]), loss)

    def _correct(self, model: Trainee) -> np.ndarray:
        """Return whether each image that was held out is classified rightly."""
        found = []
        for images, labels, *_ in validation_stream(self.data.validation):
            logits = tf.nest.flatten(model.predict_on_batch(images))[0]
            found.append(np.argmax(logits, axis=-1) == whole_labels(labels).numpy().reshape(-1))
        return np.concatenate(found)

    def domain(self) -> Domain:
        """Return what is binary: that of the recipe's last stage."""
        return self.recipe.domain(self.recipe.stages[-1])

    def rate(self) -> Any:
        """Return the learning rate for each step of a candidate's training."""
        steps = self.facts.train_examples // self.facts.batch_size
        return self.recipe.rates(self.facts.batch_size, max(1, self.epochs), max(1, steps))


def _read_state(path: Path | None, variables: int) -> list[Any] | None:
    """Return what a training has left of its variables; `None` where it is lost or damaged."""
    if path is None or not path.exists():
        return None
    try:
        with np.load(path) as state:
            return [state[str(place)] for place in range(variables)]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        told = f"{type(error).__name__}: {first_line(error)}"
        warn(f"`{path}` is damaged ({told}): the epochs that led to it are trained again.")
        return None


class Inheritance:
    """What narrower networks take from the widest one: the first channels of each layer.

    Those of what a layer reads too, so that a layer of a narrower network computes of its
    inputs what the first filters of the wide one would, and additions stay valid. `parts` are
    the weights of the network, and what of each a narrower one has; `layers` its layers, and what
    each reads.

    # Raises
        InputError: if a layer does with channels what cannot be followed.
    """

    def __init__(self, model: tf.keras.Model, choose: Widest) -> None:
        self._expansions = choose.expansions
        read = read_layers(model)
        self.layers = _layers(model)
        self._made = {layer.layer.name: layer.gives for layer in read}
        self.parts = [part for layer in read for part in layer.parts]

    def taken(self, values: Mapping[str, float]) -> dict[tuple[str, int], np.ndarray]:
        """Return the weights of a narrower network, by the name of the layer and a count."""
        filters = self._filters(values)
        return {(part.layer, part.index): part.taken(filters) for part in self.parts}

    def channels(self, layer: str, values: Mapping[str, float]) -> int:
        """Return how many channels a layer of a narrower network has."""
        return len(self._made[layer].taken(self._filters(values)))

    def _filters(self, values: Mapping[str, float]) -> dict[str, int]:
        return {
            name: asked.width(asked.decode(values[name]))
            for name, asked in self._expansions.items()
        }


def build_candidate(
    space: Space, training: CandidateTraining, values: Mapping[str, Value]
) -> tf.keras.Model:
    """Return the network of these values, which a space of one's own may not have for some."""
    with building_in(training.domain()):
        return space.build(Fix(values), training.facts.input_shape, training.facts.classes)


class Evaluator(Protocol):
    """Trains candidates and measures them."""

    def measure(self, candidate: Candidate, plan: Plan, callbacks: Callbacks = ()) -> Measured:
        """Train the candidate of these genes as planned, and measure it."""

    def weights(self) -> dict[str, Any]:
        """Return the weights of the candidate trained last, by layer and count."""


class _Built:
    """Builds, traces and trains a network for each candidate.

    # Arguments
        space: what candidates are networks of.
        training: data and recipe.
    """

    def __init__(self, space: Space, training: CandidateTraining) -> None:
        self._space = space
        self._training = training
        self._network: tf.keras.Model | None = None

    @forgetting_graphs()
    def measure(self, candidate: Candidate, plan: Plan, callbacks: Callbacks = ()) -> Measured:
        """Train the candidate of these genes as planned, and measure it."""
        training, recipe = self._training, self._training.recipe
        self._network = self._initialized(candidate, plan)
        model = Trainee(self._network, recipe, seed=training.data.seed)
        model.compile(optimizer(recipe.optimizer, training.rate()))
        model.optimizer.build(model.trainable_variables)
        random = RandomLayers(self._network)
        return training.run(model, Recalibration(self._network), random, plan, callbacks)

    def weights(self) -> dict[str, Any]:
        """Return the weights of the candidate trained last, by layer and count."""
        return _by_name(weights_of(self._network)) if self._network is not None else {}

    def _initialized(self, candidate: Candidate, plan: Plan) -> tf.keras.Model:
        """Return the network of a candidate, with the weights that it starts from."""
        raise NotImplementedError


class Scratch(_Built):
    """Trains candidates from random weights; `genes` tells the values that genes stand for."""

    def __init__(self, space: Space, training: CandidateTraining, genes: Genes) -> None:
        super().__init__(space, training)
        self._genes = genes

    def _initialized(self, candidate: Candidate, plan: Plan) -> tf.keras.Model:
        # Weights follow from the number, whichever candidates this process has trained before.
        words = np.random.SeedSequence([self._training.data.seed, plan.number])
        seed_everything(int(words.generate_state(1)[0] >> 1))
        network = build_candidate(self._space, self._training, self._genes.values(candidate))
        constrain(network)
        initialize_scales(network)
        return network


class Rebuilt(_Built):
    """Trains candidates from what they inherit; what `Shared` is held equal to."""

    def __init__(self, space: Space, training: CandidateTraining, source: Inheritance) -> None:
        super().__init__(space, training)
        self._source = source

    def _initialized(self, candidate: Candidate, plan: Plan) -> tf.keras.Model:
        values: Any = candidate
        network = build_candidate(self._space, self._training, values)
        taken = self._source.taken(values)
        for key, weight in weights_of(network).items():
            weight.assign(taken[key])
        return network


class Shared:
    """Trains candidates without building, tracing or loading anything for one.

    The network of the space is built once, of variables without a fixed shape. A candidate's
    weights are assigned to them, and the steps that were traced compute with those sizes.
    """

    def __init__(self, space: Space, training: CandidateTraining, source: Inheritance) -> None:
        recipe, facts = training.recipe, training.facts
        network = _network(space, recipe, facts)
        # Of a space of one's own, each network is built once: a trace shows neither that it can
        # be, nor that its layers are the same.
        self._layers = None if is_built_in(space) else source.layers
        self._space = space
        self._training = training
        self._source = source
        self._weights = weights_of(network)
        self._constants = resizable_constants(network)
        self._random = RandomLayers(network)
        self._model = Trainee(network, recipe, seed=training.data.seed)
        self._optimizer = resizable_optimizer(recipe.optimizer, training.rate())
        self._model.compile(self._optimizer)
        self._optimizer.build(self._model.trainable_variables)
        self._recalibration = Recalibration(network)

    def measure(self, candidate: Candidate, plan: Plan, callbacks: Callbacks = ()) -> Measured:
        """Train the candidate of these ratios, with a seed of its number, and measure it."""
        values: Any = candidate
        if self._layers:
            with forgetting_graphs():
                built = build_candidate(self._space, self._training, values)
            if _layers(built) != self._layers:
                raise InputError(
                    "the layers of its network are others than the widest one's, which one trace "
                    "cannot serve: give Evolution(shared=False)"
                )
        for key, value in self._source.taken(values).items():
            self._weights[key].assign(value)
        for constant, layer, filling in self._constants:
            constant.assign(tf.fill([self._source.channels(layer.name, values)], filling))
        self._optimizer.reset()
        return self._training.run(self._model, self._recalibration, self._random, plan, callbacks)

    def weights(self) -> dict[str, Any]:
        """Return the weights of the candidate trained last, by layer and count."""
        return _by_name(self._weights)


def _layers(network: tf.keras.Model) -> list[Any]:
    """Return the kinds of layers of a network, and what each reads."""
    return [(type(call.layer).__name__, call.inputs) for call in read_graph(network, apart=False)]


def _by_name(weights: Mapping[tuple[str, int], tf.Variable]) -> dict[str, Any]:
    return {f"{layer}/{index}": weight.numpy() for (layer, index), weight in weights.items()}


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
    epochs: int,
    training: CandidateTraining,
    run: RunDirectory,
    callbacks: Callbacks = (),
    verbose: int | str = "auto",
) -> None:
    """Train the widest network, or go on with it, and leave its weights in the run."""
    if run.widest.exists():
        return
    seed_everything(training.data.seed)
    recipe = training.recipe
    _, network = _build(space, training)
    constrain(network)
    initialize_scales(network)
    if epochs:
        stream = training.stream(-1)
        rate = recipe.rates(training.facts.batch_size, epochs, stream.steps)
        model = Trainee(network, recipe, seed=training.data.seed)
        model.compile(optimizer(recipe.optimizer, rate))
        model.optimizer.build(model.trainable_variables)
        fit(
            model,
            _STAGE,
            stream,
            epochs,
            run,
            seed=training.data.seed,
            optimizers=[model.optimizer],
            callbacks=callbacks,
            verbose=verbose,
        )
    with replacing(run.widest) as path:
        network.save_weights(path)


def load_widest(space: Space, training: CandidateTraining, run: RunDirectory) -> Inheritance:
    """Return what candidates take from the widest network, with its weights."""
    choose, network = _build(space, training)
    try:
        network.load_weights(run.widest)
    except (OSError, ValueError) as error:
        raise InputError(
            f"`{run.widest}` is damaged ({first_line(error)}): delete it, and the same call makes "
            "it again from the last checkpoint."
        ) from error
    return Inheritance(network, choose)


def _build(space: Space, training: CandidateTraining) -> tuple[Widest, tf.keras.Model]:
    choose = Widest()
    with building_in(training.domain()):
        network = space.build(choose, training.facts.input_shape, training.facts.classes)
    return choose, network
