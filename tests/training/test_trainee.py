import numpy as np
import pytest
import tensorflow as tf
from scipy.special import log_softmax, softmax

from larq_nas.data.data import Data
from larq_nas.data.validation import check_data
from larq_nas.layers import BinaryConv2D, DropPath, classifier
from larq_nas.spaces.cell_space import auxiliary_classifier
from larq_nas.training import Recipe
from larq_nas.training.teacher import Teacher
from larq_nas.training.trainer import DropPathSchedule, Trainee, mix_up

SHAPE, CLASSES, RATE = (6, 6, 2), 4, 0.2


def batch(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    images = generator.normal(size=(16, *SHAPE)).astype("float32")
    return images, np.concatenate([np.arange(CLASSES), generator.integers(0, CLASSES, 12)])


def task() -> Data:
    train, validation = (tf.data.Dataset.from_tensor_slices(batch(i)).batch(16) for i in (1, 2))
    return Data(train, validation, check_data(train, validation))


def student() -> tf.keras.Model:
    tf.keras.utils.set_random_seed(3)
    images = tf.keras.Input(SHAPE)
    x = BinaryConv2D(4, 3, name="binary")(images)
    return tf.keras.Model(images, classifier(x, CLASSES), name="student")


def taught(activation: str | None = None) -> tf.keras.Model:
    tf.keras.utils.set_random_seed(4)
    images = tf.keras.Input(SHAPE)
    x = tf.keras.layers.BatchNormalization()(tf.keras.layers.Flatten()(images))
    x = tf.keras.layers.Dense(CLASSES)(x)
    if activation:
        x = tf.keras.layers.Activation(activation)(x)
    return tf.keras.Model(images, x, name="taught")


def trainee(recipe: Recipe, teacher: tf.keras.Model | None = None) -> Trainee:
    model = Trainee(student(), recipe, Teacher(teacher, task()) if teacher else None)
    model.compile(tf.keras.optimizers.SGD(RATE))
    return model


def smoothed(labels: np.ndarray, share: float) -> np.ndarray:
    return (1 - share) * np.eye(CLASSES)[labels] + share / CLASSES


def cross_entropy(labels: np.ndarray, logits: np.ndarray, share: float = 0.0) -> float:
    return -(smoothed(labels, share) * log_softmax(logits, axis=-1)).sum(axis=-1).mean()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.7])
def test_the_loss_is_the_cross_entropy_with_smoothed_labels(share: float) -> None:
    model = trainee(Recipe(label_smoothing=share))
    images, labels = batch()
    logits = model(images, training=True).numpy()
    logs = model.train_step((images, labels))
    assert float(logs["loss"]) == pytest.approx(cross_entropy(labels, logits, share), rel=1e-5)
    right = np.mean(logits.argmax(axis=-1) == labels)
    assert float(logs["accuracy"]) == pytest.approx(right)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "uint32", "int64"])
def test_labels_of_any_whole_numbers_train(dtype: str) -> None:
    model = trainee(Recipe())
    images, labels = batch()
    expected = cross_entropy(labels, model(images, training=True).numpy())
    logs = model.train_step((images, tf.constant(labels, dtype)))
    assert float(logs["loss"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("activation", [None, "softmax"])
@pytest.mark.parametrize(("share", "temperature"), [(0.5, 4.0), (0.9, 1.0), (1.0, 2.0), (0.0, 3.0)])
def test_the_loss_with_a_teacher(share: float, temperature: float, activation: str | None) -> None:
    """A teacher that ends in softmax teaches what its logits would."""
    recipe = Recipe(label_smoothing=0.1, distillation=share, distillation_temperature=temperature)
    model = trainee(recipe, taught(activation))
    images, labels = batch()
    logits = model(images, training=True).numpy()
    target = softmax(taught()(images).numpy() / temperature, axis=-1)
    learned = log_softmax(logits / temperature, axis=-1)
    distance = (target * (np.log(target) - learned)).sum(axis=-1).mean()
    expected = (1 - share) * cross_entropy(labels, logits, 0.1)
    expected += share * temperature**2 * distance
    logs = model.train_step((images, labels))
    assert float(logs["loss"]) == pytest.approx(expected, rel=1e-4)


def test_the_validation_loss_is_the_plain_cross_entropy() -> None:
    model = trainee(Recipe(label_smoothing=0.3, distillation=0.9), taught())
    images, labels = batch()
    model.train_step(batch(5))
    logits = model(images, training=False).numpy()
    measured = model.evaluate(images, labels, verbose=0, return_dict=True)
    assert measured["loss"] == pytest.approx(cross_entropy(labels, logits), rel=1e-5)
    assert measured["accuracy"] == pytest.approx(np.mean(logits.argmax(axis=-1) == labels))


def gradients(model: Trainee, images: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    with tf.GradientTape() as tape:
        chances = tf.nn.log_softmax(model(images, training=True))
        loss = -tf.reduce_mean(tf.gather(chances, labels, batch_dims=1))
    return [gradient.numpy() for gradient in tape.gradient(loss, model.trainable_variables)]


@pytest.mark.parametrize(("decay", "clip_norm"), [(0.0, 0.0), (0.4, 0.0), (0.4, 0.1), (0.0, 100)])
def test_a_step_is_sgd_clipped_then_decayed(decay: float, clip_norm: float) -> None:
    """Binary weights are clipped to -1 and 1 after it, as everywhere in Larq."""
    model = trainee(Recipe(weight_decay=decay, clip_norm=clip_norm))
    before = [weight.numpy() for weight in model.trainable_variables]
    slopes = gradients(model, *batch())
    norm = np.sqrt(sum((slope**2).sum() for slope in slopes))
    assert norm > 0.1
    factor = min(1.0, clip_norm / norm) if clip_norm else 1.0
    model.train_step(batch())
    for weight, value, slope in zip(model.trainable_variables, before, slopes, strict=True):
        expected = value - RATE * (factor * slope + decay * value)
        if weight.name.startswith("binary"):
            expected = expected.clip(-1, 1)
        np.testing.assert_allclose(weight.numpy(), expected, atol=1e-6, err_msg=weight.name)


def test_losses_of_layers_count_but_are_not_reported() -> None:
    """As weight decay, they depend on no data: losses of two spaces stay comparable."""
    images = tf.keras.Input(SHAPE)
    dense = tf.keras.layers.Dense(CLASSES, kernel_regularizer=tf.keras.regularizers.L2(0.5))
    network = tf.keras.Model(images, dense(tf.keras.layers.Flatten()(images)))
    model = Trainee(network, Recipe())
    model.compile(tf.keras.optimizers.SGD(RATE))
    before, (slope, _) = dense.kernel.numpy(), gradients(model, *batch())
    expected = cross_entropy(batch()[1], model(batch()[0]).numpy())
    logs = model.train_step(batch())
    assert float(logs["loss"]) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(dense.kernel, before - RATE * (slope + before), atol=1e-5)


def test_a_teacher_is_only_read() -> None:
    teacher = taught()
    before = teacher.get_weights()
    model = trainee(Recipe(distillation=0.9, weight_decay=0.1), teacher)
    model.fit(*batch(), batch_size=8, epochs=2, verbose=0)
    for weight, value in zip(teacher.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)
    own = {id(weight) for weight in model.weights}
    assert not own & {id(weight) for weight in teacher.weights}
    assert len(model.weights) == len(trainee(Recipe()).weights)


def test_a_teacher_can_be_trained_on_afterwards() -> None:
    """It is the caller's, and may be a network that goes on learning."""
    teacher = taught()
    trainable = len(teacher.trainable_variables)
    trainee(Recipe(), teacher)
    assert len(teacher.trainable_variables) == trainable > 0


def test_drop_path_rises_evenly_from_0() -> None:
    images = tf.keras.Input(SHAPE)
    network = tf.keras.Model(images, classifier(DropPath(name="drop")(images), CLASSES))
    model, rates = Trainee(network, Recipe()), []
    model.compile(tf.keras.optimizers.SGD(RATE))
    rate = network.get_layer("drop").rate
    read = tf.keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: rates.append(float(rate))
    )
    schedule = DropPathSchedule(0.2, 4)
    model.fit(*batch(), epochs=4, callbacks=[schedule, read], verbose=0)
    np.testing.assert_allclose(rates, [0, 0.05, 0.1, 0.15], rtol=1e-6)


def towered() -> tf.keras.Model:
    network = student()
    auxiliary = auxiliary_classifier(network.get_layer("binary").output, CLASSES)
    return tf.keras.Model(network.input, [network.output, auxiliary])


def test_the_auxiliary_loss_is_added_to_what_is_learned_by_alone() -> None:
    """The loss and the accuracy that are shown are those of the network."""
    network = towered()
    model = Trainee(network, Recipe(auxiliary=0.4))
    model.compile(tf.keras.optimizers.SGD(RATE))
    images, labels = batch()
    kernel, tower = network.get_layer("binary").kernel, network.get_layer("auxiliary_dense").kernel
    latent = kernel.latent_variable
    with tf.GradientTape() as tape:
        logits, auxiliary = network(images, training=True)
        targets = tf.one_hot(labels, CLASSES)
        losses = [tf.nn.softmax_cross_entropy_with_logits(targets, y) for y in (logits, auxiliary)]
        total = tf.reduce_mean(losses[0]) + 0.4 * tf.reduce_mean(losses[1])
    slopes = tape.gradient(total, [latent, tower])
    expected = [w.numpy() - RATE * g.numpy() for w, g in zip((latent, tower), slopes, strict=True)]
    logs = model.train_step((images, labels))
    assert float(logs["loss"]) == pytest.approx(cross_entropy(labels, logits.numpy()), rel=1e-5)
    np.testing.assert_allclose(tower, expected[1], atol=1e-5)
    np.testing.assert_allclose(latent, np.clip(expected[0], -1, 1), atol=1e-5)
    model.reset_metrics()
    measured = model.test_step((images, labels))
    logits = network(images, training=False)[0].numpy()
    assert float(measured["loss"]) == pytest.approx(cross_entropy(labels, logits), rel=1e-5)


@pytest.mark.parametrize(("size", "pooled"), [(8, 2), (7, 2), (32, 2), (2, 2), (3, 2), (1, 1)])
def test_the_auxiliary_classifier_pools_to_two_places(size: int, pooled: int) -> None:
    x = tf.keras.Input((size, size, 4))
    model = tf.keras.Model(x, auxiliary_classifier(x, CLASSES))
    layer = model.get_layer("auxiliary_pool")
    assert layer.output_shape[1:3] == (pooled, pooled)
    if size in (7, 8):  # DARTS' own
        assert (layer.pool_size, layer.strides) == ((5, 5), (size - 5, size - 5))


def test_mixed_images_are_learned_with_mixed_labels() -> None:
    model = trainee(Recipe(mix_up=0.2))
    images, labels = batch()
    key = tf.constant([0, 0], tf.int64)
    mixed, targets = mix_up(tf.constant(images), tf.one_hot(labels, CLASSES), 0.2, key)
    logits = model(mixed, training=True).numpy()
    expected = -(targets.numpy() * log_softmax(logits, axis=-1)).sum(axis=-1).mean()
    assert float(model.train_step((images, labels))["loss"]) == pytest.approx(expected, rel=1e-5)
