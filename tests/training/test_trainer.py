"""What a recipe says is what is done."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from conftest import quick, random_architecture

import larq_nas
from larq_nas.architecture import Architecture
from larq_nas.data.data import Data
from larq_nas.data.validation import check_data
from larq_nas.errors import InputError
from larq_nas.layers import BinaryConv2D, classifier
from larq_nas.run_directory import RunDirectory
from larq_nas.spaces import Bats, VggSmall
from larq_nas.training import Recipe, Stage
from larq_nas.training.callbacks import resolve_callbacks
from larq_nas.training.metrics import NO_METRICS
from larq_nas.training.recipe import learning_rate
from larq_nas.training.trainer import Trainer, check_training, training_stages

SPACE = Bats(cells=1, channels=4, nodes=1, operations=("group_conv_3x3", "max_pool_3x3"))
ARCHITECTURE = random_architecture(SPACE, 0)


def noise(shape: tuple[int, int, int]) -> Data:
    generator = np.random.default_rng(0)
    images = generator.uniform(-1, 1, (24, *shape)).astype("float32")
    data = tf.data.Dataset.from_tensor_slices((images, np.arange(24) % 10)).batch(8)
    return Data(data, data, check_data(data, data))


def trained(epochs: int = 2, callbacks: Any = (), shape=(8, 8, 1), **settings: Any) -> np.ndarray:
    """Return the weights of the classifier after a training by a recipe."""
    recipe = Recipe(**{"stages": ("binary",), "optimizer": "sgd", "learning_rate": 0.1} | settings)
    trainer = Trainer(ARCHITECTURE, SPACE, noise(shape), recipe)
    model = trainer.train(epochs, RunDirectory(None, {}), callbacks, 0)
    return model.get_layer("head_dense").kernel.numpy()


class Twin(tf.keras.callbacks.Callback):
    """Notes what the network of each stage is made of, and a kernel at its ends."""

    def __init__(self) -> None:
        super().__init__()
        self.binary: list[bool] = []
        self.kernels: list[np.ndarray] = []

    def kernel(self) -> np.ndarray:
        kernel = self.model.get_layer("conv2_conv").kernel
        values: np.ndarray = getattr(kernel, "latent_variable", kernel).numpy()
        return values

    def on_train_begin(self, logs=None) -> None:
        layer = self.model.get_layer("conv2_conv")
        self.binary.append(getattr(layer, "input_quantizer", None) is not None)
        self.kernels.append(self.kernel())

    def on_train_end(self, logs=None) -> None:
        self.kernels.append(self.kernel())


def test_a_binary_network_starts_from_its_float_twin() -> None:
    space = VggSmall(expansion=1 / 64, binarization="dms")
    architecture = Architecture(space.name, space.settings(), {})
    recipe = Recipe(0.01, stages=("float", "binary"), optimizer="sgd")
    noted = Twin()
    trainer = Trainer(architecture, space, noise((8, 8, 3)), recipe)
    model = trainer.train(2, RunDirectory(None, {}), [noted], 0)
    assert noted.binary == [False, True]
    assert not np.allclose(noted.kernels[0], noted.kernels[1])
    np.testing.assert_allclose(noted.kernels[2], noted.kernels[1])
    assert model.get_layer("conv2_conv").input_quantizer is not None


def always_binary(choose: Any, shape: Any, classes: int) -> tf.keras.Model:
    images = tf.keras.Input(shape)
    x = BinaryConv2D(4, 3, name="signs")(images)
    return tf.keras.Model(images, classifier(x, classes))


def test_a_space_without_a_float_twin_is_refused() -> None:
    recipe, task = Recipe(stages=("float", "binary")), noise((8, 8, 1))
    with pytest.raises(InputError, match=r"the space has none: layer `signs` stays binary"):
        larq_nas.train(
            Architecture("always_binary"),
            task.train,
            task.validation,
            space=always_binary,
            recipe=recipe,
            epochs=2,
            verbose=0,
        )


@pytest.fixture(scope="module")
def plain() -> np.ndarray:
    return trained()


@pytest.mark.parametrize(
    "settings",
    quick(
        [
            {"weight_decay": 0.1},
            {"clip_norm": 0.01},
            {"label_smoothing": 0.5},
            {"drop_path": 0.9},
            {"color_jitter": True},
            {"optimizer": "adam"},
            {"stages": ("real", "binary")},
        ],
        0,
        1,
        2,
    ),
)
def test_each_setting_has_a_part(plain: np.ndarray, settings: dict[str, Any]) -> None:
    assert np.abs(trained(**settings) - plain).max() > 1e-3


@pytest.mark.slow
def test_the_same_recipe_gives_the_same_weights(plain: np.ndarray) -> None:
    np.testing.assert_array_equal(trained(), plain)
    # Nothing is distilled without a teacher.
    np.testing.assert_array_equal(trained(distillation=1.0), plain)


class Rates(tf.keras.callbacks.Callback):
    """Keeps the learning rate of each step, which Keras tells once it is taken."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []

    def on_train_batch_end(self, batch: int, logs=None) -> None:
        self.seen.append(float(self.model.optimizer.learning_rate))


@pytest.mark.parametrize("schedule", quick(["cosine", "one_cycle", "warm_restarts"], 0))
def test_the_schedule_runs_over_each_stage(schedule) -> None:
    """Three batches in an epoch: two epochs of each stage are six steps."""
    rates = Rates()
    stages = ("real", "binary")
    trained(4, [rates], schedule=schedule, stages=stages, restart_epochs=1)
    expected = learning_rate(schedule, 0.1, 6, period=3)
    np.testing.assert_allclose(
        rates.seen, [float(expected(step)) for step in range(6)] * 2, rtol=1e-5
    )


class Kill(tf.keras.callbacks.Callback):
    """Ends the process, as it were, in the second epoch of a stage."""

    def on_train_batch_end(self, batch: int, logs=None) -> None:
        if self.model.optimizer.iterations == 4:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_killed_in_each_stage_the_momentum_of_a_cycle_goes_on(tmp_path: Path) -> None:
    """Three batches in an epoch, so that the fourth step is in the second."""
    stages = (Stage("real", 3, schedule="one_cycle"), Stage("binary", 2, schedule="one_cycle"))
    recipe = Recipe(0.05, stages=stages, optimizer="sgd")
    trainer = Trainer(ARCHITECTURE, SPACE, noise((8, 8, 1)), recipe)

    def kernel(run: RunDirectory, callbacks: Any = ()) -> np.ndarray:
        model = trainer.train({"real": 3, "binary": 2}, run, callbacks, 0)
        return np.asarray(model.get_layer("head_dense").kernel)

    killed, groups = RunDirectory(tmp_path, {}), {"train": training_stages(recipe, NO_METRICS)}
    for stage in ("train_real", "train_binary"):
        with pytest.raises(KeyboardInterrupt):
            kernel(killed, resolve_callbacks({stage: [Kill()]}, groups, {}))
    np.testing.assert_array_equal(kernel(killed), kernel(RunDirectory(None, {})))


@pytest.mark.slow
def test_each_stage_has_its_own_schedule_epochs_and_optimizer() -> None:
    """Three batches in an epoch; the float twin by steps and SGD, then Adam along a cosine."""
    rates, kinds = Rates(), []

    def note(logs: Any = None) -> None:
        model = rates.model
        kinds.append((type(model.optimizer).__name__, model._recipe.weight_decay))

    stages = (
        Stage("float", 3, optimizer="sgd", schedule="steps", milestones=(1 / 3, 2 / 3)),
        Stage("binary", 2, 0.002, optimizer="adam", schedule="cosine", weight_decay=0.0),
    )
    beginning = tf.keras.callbacks.LambdaCallback(on_train_begin=note)
    recipe = Recipe(0.1, stages=stages, weight_decay=1e-4)
    trainer = Trainer(ARCHITECTURE, SPACE, noise((8, 8, 1)), recipe)
    model = trainer.train(5, RunDirectory(None, {}), [rates, beginning], 0)
    cosine = [0.001 * (1 + math.cos(math.pi * step / 6)) for step in range(6)]
    expected = [0.1] * 3 + [0.01] * 3 + [0.001] * 3 + cosine
    np.testing.assert_allclose(rates.seen, expected, rtol=1e-5)
    assert kinds == [("SGD", 1e-4), ("Adam", 0.0)]
    # It goes on from there as its last stage did.
    assert isinstance(model.optimizer, tf.keras.optimizers.Adam)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.002)
    rates.seen.clear()
    trainer.train({"float": 0, "binary": 1}, RunDirectory(None, {}), [rates], 0)
    assert len(rates.seen) == 3


def test_what_is_not_as_the_recipe_has_it_is_told(capsys) -> None:
    stages = (Stage("float", 20, 1), Stage("binary", 30))
    recipe = Recipe(0.1, base_batch_size=16, stages=stages)
    data = noise((8, 8, 1))

    def told(epochs: Any) -> str:
        check_training(
            lambda: ARCHITECTURE.build((8, 8, 1), 10, SPACE), data, recipe, None, epochs, 2
        )
        return str(capsys.readouterr().out)

    rates = "Learning rate 0.5 and 0.05: that of the recipe, 1 and 0.1, is for batches of 16"
    assert rates in told(50)
    assert "Epochs" not in told({"float": 20, "binary": 30})
    split = "Epochs of the stages: 4 float and 6 binary; those of the recipe are 20 float and 30"
    assert split in told(10)
    assert split in told({"float": 4, "binary": 6})
    with pytest.warns(UserWarning, match="float twin is left out: too few epochs, 1, for 2 stages"):
        told(1)


def test_the_learning_rate_is_in_proportion_to_the_batch() -> None:
    rates, size = Rates(), noise((8, 8, 1)).facts.batch_size
    trained(1, [rates], schedule="cosine", base_batch_size=4 * size)
    expected = learning_rate("cosine", 0.1 / 4, 3)
    np.testing.assert_allclose(rates.seen, [float(expected(step)) for step in range(3)], rtol=1e-5)


def test_colours_of_colour_images_change_beside_another_augmentation() -> None:
    seen = []

    def darken(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        seen.append(images.shape)
        return images / 2

    task = noise((8, 8, 3))
    recipe = Recipe(stages=("binary",), color_jitter=True)
    task = Data(task.train, task.validation, task.facts, augment=darken)
    augment = Trainer(ARCHITECTURE, SPACE, task, recipe)._augment()
    assert augment is not None
    images = tf.fill((8, 8, 8, 3), 0.5)
    changed = augment(images, tf.constant([0, 1], tf.int64)).numpy()
    assert seen == [(8, 8, 8, 3)]
    # The range is -1 to 1: half of 0.5 is 0.625 of it, times 0.6 to 1.4.
    lowest, highest = task.facts.value_range
    brightness = ((changed - lowest) / (highest - lowest)).mean(axis=(1, 2, 3)) / 0.625
    assert 0.6 - 1e-2 < brightness.min() < brightness.max() < 1.4 + 1e-2
    assert brightness.max() - brightness.min() > 0.1


def test_the_auxiliary_classifier_is_gone_after_training() -> None:
    recipe = Recipe(auxiliary=0.4)
    seen = []

    class Outputs(tf.keras.callbacks.Callback):
        def on_train_begin(self, logs=None) -> None:
            seen.append(len(self.model.outputs))

    space = Bats(cells=3, channels=4, nodes=1, operations=("group_conv_3x3", "max_pool_3x3"))
    trainer = Trainer(random_architecture(space, 0), space, noise((8, 8, 1)), recipe)
    model = trainer.train(2, RunDirectory(None, {}), [Outputs()], 0)
    assert seen == [2, 2]
    assert len(model.outputs) == 1
    assert not [layer.name for layer in model.layers if "auxiliary" in layer.name]


def test_an_auxiliary_classifier_that_is_not_there_is_told() -> None:
    space = VggSmall(expansion=0.25)
    recipe = Recipe(auxiliary=0.4, stages=("binary",))
    trainer = Trainer(Architecture("vgg_small", space.settings()), space, noise((8, 8, 1)), recipe)
    with pytest.warns(UserWarning, match="`auxiliary` 0.4 has no effect: the space has no cells"):
        trainer.train(1, RunDirectory(None, {}), (), 0)
