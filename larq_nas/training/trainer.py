"""Train a network by a recipe, with or without a teacher."""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from larq_nas.data.augmentation import Augment, color_jitter
from larq_nas.data.data import Data
from larq_nas.data.labels import whole_labels
from larq_nas.data.streams import training_stream, validation_stream
from larq_nas.errors import InputError, first_line, warn
from larq_nas.graph.channels import latent
from larq_nas.graph.layers import facts_of
from larq_nas.layers import DEPLOYED, Domain, DropPath, building_in, computing_in
from larq_nas.layers.precision import warn_if_unused
from larq_nas.layers.serialization import save
from larq_nas.layers.zeros import reads_image
from larq_nas.lce.fallback import weight_quantizers
from larq_nas.log import log
from larq_nas.process_state import seed_everything
from larq_nas.run_directory import RunDirectory
from larq_nas.training.callbacks import StageLogs, Stages
from larq_nas.training.distribution import building_on, warn_if_apart
from larq_nas.training.loop import cross_entropy, exact, fit
from larq_nas.training.metrics import NO_METRICS, Metrics
from larq_nas.training.recipe import (
    Epochs,
    Recipe,
    Stage,
    descend,
    optimizer,
    xnor_quantizers,
)
from larq_nas.training.teacher import Teacher
from larq_nas.training.transfer import constrain, initialize_scales, transfer_weights

if TYPE_CHECKING:
    from larq_nas.architecture import Architecture
    from larq_nas.spaces import Space


FLIP_RATIO = "flip_ratio"


class FlipRatio(tf.keras.callbacks.Callback):
    """Reports `flip_ratio`: the share of binary weights whose sign an epoch has changed.

    Next to nothing flips where the learning rate is too low for signs to learn; all flips
    where it is so high that they cannot settle. Networks without binary weights have none.

    # References
        - [Latent Weights Do Not Exist](https://arxiv.org/abs/1906.02107)
    """

    def __init__(self) -> None:
        super().__init__()
        self._before: list[np.ndarray] = []

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._before = self._signs()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if logs is None or not self._before:
            return
        pairs = zip(self._before, self._signs(), strict=True)
        flipped = sum(np.count_nonzero(before != after) for before, after in pairs)
        logs[FLIP_RATIO] = flipped / sum(before.size for before in self._before)

    def _signs(self) -> list[np.ndarray]:
        return [binary.numpy() >= 0 for binary in _binary_kernels(self.model)]


def _binary_kernels(model: tf.keras.Model) -> list[tf.Tensor]:
    """Return the binary weights of the layers that have them."""
    found = []
    for layer in model._flatten_layers(include_self=False):
        if hasattr(layer, "binary_kernels"):
            found += layer.binary_kernels()
        for kind in ("", "depthwise_", "pointwise_"):
            quantizer = getattr(layer, f"{kind or 'kernel_'}quantizer", None)
            if quantizer is not None and getattr(quantizer, "precision", 32) == 1:
                kernel = latent(getattr(layer, f"{kind}kernel"))
                found.append(quantizer(tf.convert_to_tensor(kernel)))
    return found


_TINY = 1e-12

Mixed = tuple[tf.Tensor, tf.Tensor]
"""Mixed images, and probabilities of the classes."""


def mix_up(images: tf.Tensor, targets: tf.Tensor, alpha: float, seed: tf.Tensor) -> Mixed:
    r"""Mix each image with another of its batch, and their labels alike.

    \\[ \lambda x_i + (1 - \lambda) x_j, \quad \lambda \sim \operatorname{Beta}(\alpha, \alpha) \\]

    One \\(\lambda\\) serves a batch, whose images are in no order: the other one is that as far
    from its end as the first from its start.

    # Arguments
        images: shape `(batch, height, width, channels)`.
        targets: probabilities of the classes, shape `(batch, classes)`.
        alpha: \\(\alpha\\); the smaller, the more of one of the two.
        seed: two integers, shape `(2,)`.

    # References
        - [mixup: Beyond Empirical Risk Minimization](https://arxiv.org/abs/1710.09412)
    """
    # The share of one of two gamma variables in their sum is beta distributed.
    both = tf.random.stateless_gamma((2,), seed, alpha) + _TINY
    share = both[0] / tf.reduce_sum(both)
    return tuple(share * x + (1 - share) * tf.reverse(x, [0]) for x in (images, targets))


class Trainee(tf.keras.Model):
    r"""A network in training by a recipe.

    Its loss is the cross-entropy with smoothed labels; with a teacher,

    \\[ (1 - w) L_{CE} + w T^2 D_{KL}(\operatorname{softmax}(z_t / T) \,\|\,
    \operatorname{softmax}(z / T)) \\]

    Weight decay is added to the gradients, as PyTorch does, and is no part of the loss. On
    validation data the loss is the cross-entropy alone. Layers are shared with the network.

    # Arguments
        network: the network; its second output is that of the auxiliary classifier.
        recipe: how it is trained.
        teacher: what it learns from as well.
        seed: of what is mixed at random.
        metrics: what is measured as well.
        rate: the learning rate that it is saved with; by default the recipe's.
        vectors: whether what is saved is measured by labels with a number for each class.
    """

    def __init__(
        self,
        network: tf.keras.Model,
        recipe: Recipe,
        teacher: Teacher | None = None,
        seed: int = 0,
        metrics: Metrics = NO_METRICS,
        rate: float | None = None,
        vectors: bool = False,
    ) -> None:
        super().__init__(network.inputs, network.outputs, name=network.name)
        self._recipe, self._seed = recipe, seed
        self._classes = network.outputs[0].shape[-1]
        self._quantizers = xnor_quantizers(network, self.trainable_variables)
        # As members, their weights would be a part of this model's.
        self._teacher_logits = teacher.logits if teacher else None

        @functools.cache
        def saved() -> tf.keras.Model:
            plain = tf.keras.Model(network.inputs, network.outputs[0], name=network.name)
            peak = rate or recipe.learning_rate
            return compile_plain(plain, recipe, peak, metrics, vectors)

        # As a member, its optimizer would be a part of this model's checkpoints.
        self._saved = saved
        self._mean = tf.keras.metrics.Mean("loss")
        self._accuracy = tf.keras.metrics.SparseCategoricalAccuracy("accuracy")
        self._further = metrics.make()

    @property
    def metrics(self) -> list[tf.keras.metrics.Metric]:
        return [self._mean, self._accuracy, *self._further]

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save the network, as `tf.keras.Model.save` does, as it is compiled when trained."""
        save(self._saved(), *args, **kwargs)

    def save_weights(self, *args: Any, **kwargs: Any) -> None:
        """Save the weights of the network, as `tf.keras.Model.save_weights` does."""
        self._saved().save_weights(*args, **kwargs)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        images, labels, *given = data
        images, targets, weights = self._mixed(images, labels, *given)
        with tf.GradientTape() as tape:
            with computing_in(self._recipe.precision):
                logits, *auxiliary = tf.nest.flatten(self(images, training=True))
            loss = self._loss(images, targets, logits, weights)
            further = [
                self._recipe.auxiliary * self._entropy(targets, y, weights) for y in auxiliary
            ]
            total = tf.add_n([loss, *further, *self.losses])
        descend(
            self.optimizer,
            tape.gradient(total, self.trainable_variables),
            self.trainable_variables,
            decay=self._recipe.weight_decay,
            clip_norm=self._recipe.clip_norm,
            quantizers=self._quantizers,
        )
        self._mean.update_state(loss, tf.shape(labels)[0])
        self._accuracy.update_state(whole_labels(labels), logits)
        for metric in self._further:
            metric.update_state(labels, logits)
        return self.get_metrics_result()

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        # A fourth part, 0 for what fills a batch up, comes where replicas share it.
        images, labels, weights, counted = (*data, None, None)[:4]
        logits = tf.nest.flatten(self(images, training=False))[0]
        losses = cross_entropy(labels, logits)
        # As in Keras, sample weights weigh the loss, and each image counts alike for the accuracy.
        losses = losses if weights is None else losses * weights
        self._mean.update_state(losses, counted)
        self._accuracy.update_state(whole_labels(labels), logits, counted)
        for metric in self._further:
            metric.update_state(labels, logits, counted)
        return self.get_metrics_result()

    def _mixed(
        self, images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
        """Return images, the probabilities of their classes and weights, mixed by the recipe."""
        targets = labels
        if len(labels.shape) == 1:
            targets = tf.one_hot(tf.cast(labels, tf.int64), self._classes)
        if not self._recipe.mix_up:
            return images, targets, weights
        # By the step, so that a training that is resumed goes on as it would have.
        key = tf.stack([tf.constant(self._seed, tf.int64), self.optimizer.iterations])
        if weights is None:
            return *mix_up(images, targets, self._recipe.mix_up, key), None
        both = tf.concat([targets, weights[:, None]], -1)
        images, both = mix_up(images, both, self._recipe.mix_up, key)
        return images, both[:, :-1], both[:, -1]

    def _entropy(
        self, targets: tf.Tensor, logits: tf.Tensor, weights: tf.Tensor | None
    ) -> tf.Tensor:
        losses = tf.keras.losses.categorical_crossentropy(
            targets, logits, from_logits=True, label_smoothing=self._recipe.label_smoothing
        )
        return _weighted_mean(losses, weights)

    def _loss(
        self, images: tf.Tensor, targets: tf.Tensor, logits: tf.Tensor, weights: tf.Tensor | None
    ) -> tf.Tensor:
        loss = self._entropy(targets, logits, weights)
        if self._teacher_logits is None:
            return loss
        share, temperature = self._recipe.distillation, self._recipe.distillation_temperature
        known = tf.nn.log_softmax(self._teacher_logits(images) / temperature)
        distances = tf.exp(known) * (known - tf.nn.log_softmax(logits / temperature))
        distance = _weighted_mean(tf.reduce_sum(distances, axis=-1), weights)
        return (1 - share) * loss + share * temperature**2 * distance


def compile_plain(
    model: tf.keras.Model,
    recipe: Recipe,
    rate: float,
    metrics: Metrics,
    vectors: bool = False,
) -> tf.keras.Model:
    """Compile a network to be measured, or to go on with by Keras.

    `vectors` are labels with a number for each class; others are the numbers of classes.
    """
    losses = tf.keras.losses
    loss = losses.CategoricalCrossentropy if vectors else losses.SparseCategoricalCrossentropy
    model.compile(
        optimizer(recipe.optimizer, rate),
        loss(from_logits=True),
        metrics=["accuracy", *metrics.make()],
    )
    # Keras warns of a file without the optimizer's variables when it is read, and does not load
    # weights without those of metrics into a model that was evaluated.
    model.optimizer.build(model.trainable_variables)
    logits = tf.zeros((1, model.output_shape[-1]))
    model.compiled_loss.build(logits)
    model.compiled_metrics.build(logits, logits if vectors else tf.zeros((1,)))
    return model


def _weighted_mean(losses: tf.Tensor, weights: tf.Tensor | None) -> tf.Tensor:
    """Return the mean over a batch of losses times weights, which is Keras's reduction."""
    return tf.reduce_mean(losses if weights is None else losses * weights)


class DropPathSchedule(tf.keras.callbacks.Callback):
    """Raises the probability to drop an operation evenly over the epochs, from 0 to `last`."""

    def __init__(self, last: float, epochs: int) -> None:
        super().__init__()
        self._last, self._epochs = last, epochs

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        for layer in self.model.layers:
            if isinstance(layer, DropPath):
                layer.rate.assign(self._last * epoch / self._epochs)


_CALLED = {
    "float": "stage of the float twin",
    "real": "stage of real weights",
    "binary": "stage of binary weights",
}


def check_training(
    build: Callable[[], tf.keras.Model],
    data: Data,
    recipe: Recipe,
    teacher: Teacher | None,
    epochs: Epochs,
    verbose: int | str,
) -> None:
    """Build each stage once, so that what fails does so now, and say what is not as given."""
    require_stages(build, recipe)
    size, shares = data.facts.batch_size, recipe.split(epochs)
    peaks = dict.fromkeys(recipe.of(stage).learning_rate for stage in recipe.stages)
    if verbose and recipe.base_batch_size not in (None, size):
        rates = (dataclasses.replace(recipe, learning_rate=peak).rate(size) for peak in peaks)
        log.info(
            f"Learning rate {_joined(rates)}: that of the recipe, {_joined(peaks)}, is for batches "
            f"of {recipe.base_batch_size}, and the data has {size}",
        )
    if verbose and recipe.epochs and shares != recipe.split(recipe.epochs):
        own = _listed(recipe.split(recipe.epochs))
        log.info(f"Epochs of the stages: {_listed(shares)}; those of the recipe are {own}")
    for stage in recipe.stages:
        if isinstance(epochs, int) and epochs and not shares[stage.name]:
            warn(
                f"The {_CALLED[stage.name]} is left out: too few epochs, {epochs}, "
                f"for {len(recipe.stages)} stages."
            )
    if teacher is None:
        return
    if not any(shares.values()):
        warn("`teacher` has no effect: nothing is trained.")
    if not recipe.distillation:
        warn("`teacher` has no effect: `distillation`, its share of the loss, is 0 in this recipe.")
    described = teacher.describe(data)
    if verbose:
        log.info(described)


def _joined(values: Iterable[float | str]) -> str:
    return " and ".join(one if isinstance(one, str) else f"{one:g}" for one in values)


def _listed(shares: Mapping[str, int]) -> str:
    """Return the epochs of stages as they are told."""
    return _joined(f"{number} {name}" for name, number in shares.items())


def require_stages(build: Callable[[], tf.keras.Model], recipe: Recipe) -> None:
    """Raise `InputError` if a network cannot be trained in a stage of a recipe."""
    for stage in recipe.stages:
        with building_in(recipe.domain(stage)):
            network = build()
            require_reading(network)
        if stage.name == "float":
            _require_real(network)


def require_reading(network: tf.keras.Model) -> None:
    """Raise `InputError` for a network that gives the same, whatever it reads."""
    if not reads_image(network):
        raise InputError(
            "The network gives the same for every image: every path through it is zero; choose "
            "other operations."
        )


def _require_real(network: tf.keras.Model) -> None:
    """Raise `InputError` for a space that has no float twin."""
    for layer in network._flatten_layers(include_self=False):
        reads = getattr(layer, "input_quantizer", None)
        if reads is not None or weight_quantizers(layer) or facts_of(layer).kind == "sign":
            raise InputError(
                'The recipe trains the float twin first (stage "float"), but the space has none: '
                f"layer `{layer.name}` stays binary; use a recipe with other `stages`."
            )


def warn_without_effect(network: tf.keras.Model, recipe: Recipe) -> None:
    """Warn of a drop path that drops nothing, and of an auxiliary classifier that is not there."""
    if recipe.auxiliary and len(network.outputs) == 1:
        warn(f"`auxiliary` {recipe.auxiliary} has no effect: the space has no cells.")
    if recipe.drop_path and not any(isinstance(layer, DropPath) for layer in network.layers):
        warn(
            f"`drop_path` {recipe.drop_path} has no effect: it drops operations of nodes that sum "
            "several, and this network has none."
        )


def training_stages(recipe: Recipe, metrics: Metrics) -> Stages:
    """Return what each stage of a training logs."""
    measured = ("loss", "accuracy", *metrics.names)
    figures = (*measured, *(f"val_{name}" for name in measured))
    return {
        f"train_{stage.name}": StageLogs(figures, (FLIP_RATIO,) if stage.name == "binary" else ())
        for stage in recipe.stages
    }


def epochs_of_stages(recipe: Recipe, epochs: Epochs) -> dict[str, int]:
    """Return the epochs of each stage of a training."""
    return {f"train_{name}": number for name, number in recipe.split(epochs).items()}


_CALIBRATION_STEPS, _TOP = 20, 5


@dataclass(frozen=True)
class Trainer:
    """Trains the network of an architecture of a space, by a recipe and perhaps a teacher.

    `metrics` are measured as well.
    """

    architecture: "Architecture"
    space: "Space"
    data: Data
    recipe: Recipe
    teacher: Teacher | None = None
    metrics: Metrics = NO_METRICS

    def train(
        self,
        epochs: Epochs,
        run: RunDirectory,
        callbacks: Sequence[tf.keras.callbacks.Callback] = (),
        verbose: int | str = "auto",
    ) -> tf.keras.Model:
        """Return the network, binary and trained, compiled to go on from there.

        After 0 epochs it is as derived, with random weights and batch-norm statistics of the data.
        """
        seed_everything(self.data.seed)
        before, shares = None, self.recipe.split(epochs)
        strategy = self.data.strategy if any(shares.values()) else None
        for stage in self.recipe.stages:
            # What is not trained is calibrated here alone.
            with building_on(strategy):
                model = self._build(self.recipe.domain(stage))
            require_reading(model)
            if before is None:
                warn_without_effect(model, self.recipe)
                warn_if_apart(model, strategy)
            if stage == self.recipe.stages[-1]:
                warn_if_unused(model, self.recipe.precision)
            if before is not None:
                transfer_weights(before, model)
            constrain(model)
            if stage.name == "binary":
                initialize_scales(model)
            if share := shares[stage.name]:
                self._fit(model, stage, share, run, callbacks, verbose)
            before = model
        if not any(shares.values()):
            self._calibrate(model)
        plain = self._build(DEPLOYED)
        transfer_weights(model, plain)
        return self._compiled(self._whole(plain), self.takes_vectors)

    def measure(self, model: tf.keras.Model) -> dict[str, float]:
        """Return `accuracy`, `loss` and further metrics of a network on the validation data."""
        model = self._compiled(model, self.data.facts.soft_labels)
        # As it was trained: TensorFlow fuses, where it rewrites, what it has no kernel for.
        with exact():
            measured: dict[str, float] = model.evaluate(
                validation_stream(self.data.measured), verbose=0, return_dict=True
            )
        # Keras fails on labels of another rank than those that a model was measured by first.
        self._compiled(model, self.takes_vectors)
        return {name: measured[name] for name in ("accuracy", "loss", *self.metrics.names)}

    def measure_test(self, model: tf.keras.Model) -> dict[str, Any]:
        """Return `test_accuracy`, `test_loss` and further `test_metrics`, if there is test data."""
        if self.data.test is None:
            return {}
        measured = dataclasses.replace(self, data=self.data.tested).measure(model)
        named = {f"test_{name}": measured.pop(name) for name in ("accuracy", "loss")}
        return {**named, **({"test_metrics": measured} if measured else {})}

    def accuracies(self, model: tf.keras.Model) -> dict[str, Any]:
        """Return further accuracies on the validation data.

        They are `class_accuracy`, that of the images of each class by its name or number, and with
        more than five classes `top5_accuracy`, the share of images whose class is among the five
        that are the most likely.
        """
        right, seen = np.zeros((2, self.data.facts.classes))
        among_five = 0
        with exact():
            # Each image counts alike, as for the accuracy of all.
            for images, labels, *_ in validation_stream(self.data.measured):
                labels = labels.numpy()
                # Of soft labels the largest.
                labels = labels.argmax(axis=-1) if labels.ndim > 1 else labels
                logits = model.predict_on_batch(images)
                np.add.at(seen, labels, 1)
                np.add.at(right, labels, logits.argmax(axis=-1) == labels)
                among_five += int(np.sum(tf.math.in_top_k(labels, logits, _TOP)))
        names = self.data.class_names or map(str, range(len(seen)))
        pairs = zip(names, right, seen, strict=True)
        by_class = {name: float(number / of) for name, number, of in pairs if of}
        top5 = {"top5_accuracy": among_five / int(seen.sum())} if len(seen) > _TOP else {}
        return {"class_accuracy": by_class, **top5}

    def restore(self, run: RunDirectory) -> tf.keras.Model:
        """Return the trained network of a run, compiled to go on from there.

        # Raises
            InputError: if the model is damaged, or not one of this architecture and space.
        """
        model = self._whole(self._build(DEPLOYED))
        try:
            saved = tf.keras.models.load_model(run.model, compile=False)
        except Exception as error:
            raise InputError(
                f"`{run.model}` is damaged ({first_line(error)}): delete it, and the same call "
                "makes it again from the last checkpoint."
            ) from error
        if _layer_settings(saved) != _layer_settings(model):
            raise InputError(
                f"`{run.model}` is not a network of `{run.architecture.name}` and space "
                f"`{self.space.name}` as they are now: one was changed since; use another "
                "directory."
            )
        model.set_weights(saved.get_weights())
        return self._compiled(model, self.takes_vectors)

    @property
    def takes_vectors(self) -> bool:
        """Whether the network is compiled for labels with a number for each class."""
        soft = self.data.facts.soft_labels
        # Further metrics are of labels as they are trained on.
        return soft if self.metrics.names else soft or self.data.label_form == "vectors"

    def _compiled(self, model: tf.keras.Model, vectors: bool) -> tf.keras.Model:
        facts = self.data.facts
        recipe = self.recipe.of(self.recipe.stages[-1])
        return compile_plain(model, recipe, recipe.rate(facts.batch_size), self.metrics, vectors)

    def _whole(self, network: tf.keras.Model) -> tf.keras.Model:
        """Return a network with the layers of its preprocessing before it."""
        first = self.data.first_layers
        return first.before(network) if first else network

    def _build(self, domain: Domain) -> tf.keras.Model:
        facts = self.data.facts
        with building_in(domain):
            return self.architecture.build(facts.input_shape, facts.classes, self.space)

    def _calibrate(self, model: tf.keras.Model) -> None:
        """Let batch norm see the data; with its initial statistics, signs are all alike."""
        data = self.data
        stream = training_stream(data.train, data.facts, data.seed, data.augment)
        for images, *_ in stream.from_epoch(0, 1).take(_CALIBRATION_STEPS):
            model(images, training=True)

    def _fit(
        self,
        network: tf.keras.Model,
        stage: Stage,
        epochs: int,
        run: RunDirectory,
        callbacks: Sequence[tf.keras.callbacks.Callback],
        verbose: int | str,
    ) -> None:
        data, recipe = self.data, self.recipe.of(stage)
        stream = training_stream(data.train, data.facts, data.seed, self._augment())
        rate = recipe.rates(data.facts.batch_size, epochs, stream.steps)
        with building_on(data.strategy):
            peak = recipe.rate(data.facts.batch_size)
            vectors = self.takes_vectors
            model = Trainee(network, recipe, self.teacher, data.seed, self.metrics, peak, vectors)
            model.compile(optimizer(recipe.optimizer, rate))
            model.optimizer.build(model.trainable_variables)
        own = [DropPathSchedule(recipe.drop_path, epochs)] if recipe.drop_path else []
        fit(
            model,
            f"train_{stage.name}",
            stream,
            epochs,
            run,
            seed=data.seed,
            optimizers=[model.optimizer],
            validation=validation_stream(data.validation),
            validation_examples=data.facts.validation_examples,
            callbacks=callbacks,
            own=[*own, FlipRatio()],
            verbose=verbose,
        )

    def _augment(self) -> Augment | None:
        augment = self.data.augment
        if not self.recipe.color_jitter:
            return augment
        lowest, highest = self.data.facts.value_range
        jitter = functools.partial(color_jitter, lowest=lowest, highest=highest)
        if augment is None:
            return jitter
        return lambda images, seed: jitter(augment(images, seed), seed)


def _layer_settings(model: tf.keras.Model) -> list[str]:
    """Return what the layers compute, whatever Keras named those that have no name."""

    def nameless(config: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in config.items() if key != "name"}

    return sorted(
        f"{type(layer).__name__} {json.loads(text, object_hook=nameless)}"
        for layer in model.layers
        for text in [json.dumps(layer.get_config(), default=str, sort_keys=True)]
    )
