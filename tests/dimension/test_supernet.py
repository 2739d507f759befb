"""A network of three widths at once, against three networks; and what stays when widths move."""

import dataclasses
from typing import Any

import larq_nas  # isort: skip  (it prepares TensorFlow)
import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from conftest import dimensions_of

from larq_nas.choosers import Chooser, Widest
from larq_nas.dimension import Dimensions, Supernet, require_widths
from larq_nas.dimension.reference import AllWidths, Separate
from larq_nas.errors import InputError
from larq_nas.layers import DEPLOYED
from larq_nas.pipeline.check import DataFacts
from larq_nas.resizing import latent, weights_of
from larq_nas.spaces import resolve
from larq_nas.spaces.space import FunctionSpace

layers = tf.keras.layers
SHAPE = (8, 8, 2)


def facts(shape: tuple[int, int, int] = SHAPE) -> DataFacts:
    return DataFacts(shape, 10, 4, 8, 8, "")


def chain(choose: Chooser, shape: Any, classes: int) -> tf.keras.Model:
    """Convolutions of two widths, one of signs padded with ones, and a flattened end."""
    x = images = tf.keras.Input(shape)
    first, second = choose.filters("first", 8, (1,)), choose.filters("second", 6, (1,))
    x = layers.Conv2D(first, 3, padding="same", use_bias=False, name="real")(x)
    x = layers.BatchNormalization(scale=False, name="real_bn")(x)
    x = larq_nas.layers.BinaryConv2D(second, 3, name="binary")(x)
    x = layers.BatchNormalization(name="binary_bn")(x)
    x = layers.AveragePooling2D(4, name="pool")(x)
    x = layers.Flatten(name="flatten")(x)
    return tf.keras.Model(images, layers.Dense(classes, name="dense")(x), name="chain")


def supernet(space: Any = chain, ratio: float = 1.5, **settings: Any) -> tuple[Supernet, Any]:
    space = FunctionSpace(space) if callable(space) else space
    choose = Widest()
    shape = settings.pop("shape", SHAPE)
    space.build(choose, shape, 10)
    tf.keras.utils.set_random_seed(0)
    dimensions = dimensions_of(choose.expansions, initial_ratio=ratio)
    return Supernet(space, facts(shape), DEPLOYED, dimensions, 0, **settings), dimensions


def images(shape: tuple[int, int, int] = SHAPE) -> tf.Tensor:
    return tf.constant(np.random.default_rng(0).normal(size=(4, *shape)), tf.float32)


def by_hand(made: Supernet, shares: np.ndarray, widths: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Sum the outputs of a layer over the three widths of its inputs, each computed by itself."""
    layer = made.network.get_layer
    x = tf.nn.conv2d(x, layer("real").kernel, 1, "SAME")
    x = layer("real_bn")(x, training=True)
    signs = np.where(x.numpy() >= 0, 1.0, -1.0).astype(np.float32)
    padded = np.pad(signs, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=1.0)
    kernel = np.sign(latent(layer("binary").kernel).numpy())
    y = sum(
        share * tf.nn.conv2d(padded[..., :width], kernel[:, :, :width], 1, "VALID").numpy()
        for share, width in zip(shares[0], widths[0], strict=True)
    )
    y = layer("binary_bn")(tf.constant(y), training=True)
    y = tf.nn.avg_pool2d(y, 4, 4, "VALID").numpy()
    kernel = layer("dense").kernel.numpy().reshape(2, 2, -1, 10)
    return layer("dense").bias.numpy() + sum(
        share * np.einsum("bhwc,hwco->bo", y[..., :width], kernel[:, :, :width])
        for share, width in zip(shares[1], widths[1], strict=True)
    )


def test_one_convolution_computes_all_three_widths() -> None:
    made, dimensions = supernet()
    shares = np.array([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]], np.float32)
    with made.masks.using(tf.constant(shares)):
        found = made.network(images(), training=True)
    expected = by_hand(made, shares, dimensions.widths.numpy(), images().numpy())
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)


def test_a_channel_without_a_share_is_no_one() -> None:
    made, dimensions = supernet()
    narrow = np.array([[1, 0, 0], [1, 0, 0]], np.float32)
    with made.masks.using(tf.constant(narrow)):
        before = made.network(images(), training=True)
    widths = dimensions.widths.numpy()
    made.network.get_layer("real").kernel[..., widths[0, 0] :].assign(
        tf.random.normal([3, 3, 2, widths[0, 2] - widths[0, 0]])
    )
    with made.masks.using(tf.constant(narrow)):
        after = made.network(images(), training=True)
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("name", ["vgg11", "resnet18_cifar"])
def test_whole_shares_are_the_plain_network(name: str) -> None:
    shape = (32, 32, 3)
    made, dimensions = supernet(resolve(name, {"binarization": "dms"}), ratio=0.5, shape=shape)
    plain = resolve(name, {"binarization": "dms"}).build(Widest(dimensions.widest()), shape, 10)
    for key, weight in weights_of(plain).items():
        weight.assign(weights_of(made.network)[key])
    widest = tf.one_hot(tf.argmax(dimensions.widths, axis=1), 3)
    with made.masks.using(widest):
        found = made.network(images(shape), training=True)
    np.testing.assert_allclose(found, plain(images(shape), training=True), rtol=1e-4, atol=1e-4)


def test_what_a_changed_network_has_too_stays() -> None:
    made, dimensions = supernet()
    before = {key: weight.numpy() for key, weight in weights_of(made.network).items()}
    assert dimensions.widest() == {"first": 18, "second": 14}
    dimensions.mean.assign([1.2, 2.0])
    dimensions.move(0.5)
    assert dimensions.widest() == {"first": 13, "second": 14}
    dimensions.mean.assign([1.2, 2.4])
    dimensions.move(0.5)
    made.resize(1)
    after = {key: weight.numpy() for key, weight in weights_of(made.network).items()}
    assert dimensions.widest() == {"first": 13, "second": 17}
    # Fewer channels are the first ones (equation 9); of more, the first stay (equation 10).
    np.testing.assert_array_equal(after["real", 0], before["real", 0][..., :13])
    np.testing.assert_array_equal(after["binary", 0][..., :14], before["binary", 0][:, :, :13])
    assert after["binary", 0].shape == (3, 3, 13, 17)
    new = after["binary", 0][..., 14:]
    assert len(np.unique(new)) == new.size
    # Behind a flattening the channels of each position stay those of that position.
    was, now = before["dense", 0].reshape(4, 14, 10), after["dense", 0].reshape(4, 17, 10)
    np.testing.assert_array_equal(now[:, :14], was)
    np.testing.assert_array_equal(after["binary_bn", 0][14:], 1)
    # As a trace of it has no width, neither has what it was built with.
    assert tf.function(made.network)(images(), training=True).shape == (4, 10)


def test_without_best_effort_all_starts_anew() -> None:
    made, dimensions = supernet()
    before = weights_of(made.network)["real", 0].numpy()
    dimensions.move(0.9)
    made.resize(1, best_effort=False)
    after = weights_of(made.network)["real", 0].numpy()
    assert not np.isclose(after, before[..., : after.shape[-1]]).any()


def test_new_channels_follow_from_the_seed_and_the_count() -> None:
    def grown(number: int) -> np.ndarray:
        made, dimensions = supernet()
        dimensions.mean.assign([3.0, 3.0])
        dimensions.move(1.0)
        made.resize(number)
        values: np.ndarray = weights_of(made.network)["real", 0].numpy()[..., 18:]
        return values

    np.testing.assert_array_equal(grown(1), grown(1))
    assert not np.isclose(grown(1), grown(2)).any()


def test_all_widths_computed_separately_are_the_same() -> None:
    made, _ = supernet(masks=Separate)
    plain, _ = supernet()
    for key, weight in weights_of(plain.network).items():
        weight.assign(weights_of(made.network)[key])
    shares = tf.constant([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]])
    with made.masks.using(shares), plain.masks.using(shares):
        found = made.network(images(), training=True), plain.network(images(), training=True)
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-4)


def test_clusters_and_all_widths_agree_as_sigma_falls() -> None:
    """The mean width, and its gradient, are those of all widths, closer the smaller sigma is.

    The mean has moved from where the three ratios are: their probabilities differ.
    """
    choose = Widest()
    FunctionSpace(chain).build(choose, SHAPE, 10)
    asked = {"first": dataclasses.replace(choose.expansions["first"], filters=400)}
    apart = []
    for scale in (0.4, 0.1, 0.025):
        clusters = dimensions_of(asked, scale=scale)
        every = AllWidths(asked, {"first": range(1, 1201)}, mean=1.5, scale=scale)
        means = []
        for each in (clusters, every):
            each.mean.assign([1.5 + scale / 4])
            means.append(_mean_width(each) / 400)
        apart.append(abs(means[0] - means[1]))
    # In units of sigma the three ratios are always as good, and sigma falls.
    assert apart[0] > apart[1] > apart[2]
    assert apart[2] < 0.01


def _mean_width(dimensions: Dimensions) -> float:
    widths = tf.cast(dimensions.widths, tf.float32)
    return float(tf.reduce_sum(tf.exp(dimensions.log_probabilities()) * widths))


def normalized_twice(x: tf.Tensor, choose: Chooser) -> tf.Tensor:
    return layers.LayerNormalization()(layers.BatchNormalization()(x))


def of_ones(shape: Any, dtype: Any = None) -> tf.Tensor:
    return tf.ones(shape, dtype)


def searched(space: Any) -> None:
    made, dimensions = supernet(space)
    require_widths(made, dimensions, facts())


def own(middle: Any, *, second: str = "second") -> Any:
    """A space of two convolutions and what stands between them."""

    def space(choose: Chooser, shape: Any, classes: int) -> tf.keras.Model:
        x = images = tf.keras.Input(shape)
        x = layers.Conv2D(choose.filters("first", 8, (1,)), 3, padding="same")(x)
        x = middle(x, choose)
        x = layers.Conv2D(choose.filters(second, 8, (1,)), 3, padding="same")(x)
        x = layers.GlobalAveragePooling2D()(x)
        return tf.keras.Model(images, layers.Dense(classes)(x), name="own")

    return space


def test_layers_need_no_names() -> None:
    made, dimensions = supernet(own(lambda x, _: layers.BatchNormalization(scale=False)(x)))
    require_widths(made, dimensions, facts())
    dimensions.move(0.5)
    made.resize(1)
    assert tf.function(made.network)(images(), training=True).shape == (4, 10)


def test_a_trial_leaves_everything_as_it_was() -> None:
    made, dimensions = supernet()
    before = {key: weight.numpy() for key, weight in weights_of(made.network).items()}
    widths = dimensions.widest()
    require_widths(made, dimensions, facts())
    assert dimensions.widest() == widths
    for key, weight in weights_of(made.network).items():
        np.testing.assert_array_equal(weight.numpy(), before[key])


def joined(x: tf.Tensor, choose: Chooser) -> tf.Tensor:
    other = layers.Conv2D(choose.filters("other", 8, (1,)), 3, padding="same")(x)
    return layers.Add()([x, other])


def shared(x: tf.Tensor, choose: Chooser) -> tf.Tensor:
    other = layers.Conv2D(choose.filters("other", 8, (1,)), 3, padding="same")(x)
    layer = layers.Conv2D(4, 3, padding="same", name="shared")
    return layers.Add()([layer(x), layer(other)])


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (own(joined), "ask for both by one name"),
        (own(shared), "Layer `shared` is called on channels of several choices"),
        (own(lambda x, _: layers.LayerNormalization()(x)), "mixes channels"),
        (own(lambda x, _: layers.Softmax()(x)), "mixes channels"),
        (own(normalized_twice), "mixes channels"),
        (own(lambda x, c: (c.filters("unused", 8, (1,)), x)[1]), "Choice `unused` must set the"),
        (
            own(
                lambda x, _: layers.Conv2D(4, 1, kernel_initializer=lambda s, dtype: tf.ones(s))(x)
            ),
            "must be made by a Keras initializer",
        ),
    ],
)
def test_what_does_not_go_for_other_widths_is_refused(space: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        searched(space)


def test_channels_that_are_joined_and_nested_are_followed() -> None:
    def two(x: tf.Tensor, choose: Chooser) -> tf.Tensor:
        other = layers.DepthwiseConv2D(3, padding="same")(x)
        image = tf.keras.Input(x.shape[1:])
        nested = tf.keras.Model(image, layers.BatchNormalization()(image), name="nested")
        return layers.Concatenate()([nested(x), layers.PReLU(shared_axes=[1, 2])(other)])

    searched(own(two))


def test_widths_may_be_divided() -> None:
    def squeezed(x: tf.Tensor, choose: Chooser) -> tf.Tensor:
        width = choose.filters("first", 8, (1,))
        gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
        gate = layers.Conv2D(width // 4, 1)(gate)
        return layers.Multiply()([x, layers.Conv2D(width, 1)(gate)])

    searched(own(squeezed))


def test_groups_that_are_not_searched_may_stand_before() -> None:
    def space(choose: Chooser, shape: Any, classes: int) -> tf.keras.Model:
        x = inputs = tf.keras.Input(shape)
        x = layers.Conv2D(4, 3, groups=2)(x)
        x = layers.Conv2D(choose.filters("first", 8, (1,)), 3)(x)
        x = layers.GlobalAveragePooling2D()(x)
        return tf.keras.Model(inputs, layers.Dense(classes)(x), name="own")

    searched(space)


def test_a_width_of_several_choices_is_refused() -> None:
    def summed(choose: Chooser, shape: Any, classes: int) -> tf.keras.Model:
        x = inputs = tf.keras.Input(shape)
        first, second = choose.filters("first", 8, (1,)), choose.filters("second", 6, (1,))
        x = layers.Conv2D(first + second, 3, name="both")(x)
        x = lq.layers.QuantConv2D(4, 3, input_quantizer="ste_sign", name="reads")(x)
        x = layers.GlobalAveragePooling2D()(x)
        return tf.keras.Model(inputs, layers.Dense(classes)(x), name="summed")

    with pytest.raises(InputError, match="several choices"):
        supernet(summed)


def test_a_layer_that_mixes_channels_in_groups_is_refused() -> None:
    def grouped(choose: Chooser, shape: Any, classes: int) -> tf.keras.Model:
        x = inputs = tf.keras.Input(shape)
        x = layers.Conv2D(choose.filters("first", 8, (1,)), 3, groups=2, name="grouped")(x)
        x = layers.GlobalAveragePooling2D()(x)
        return tf.keras.Model(inputs, layers.Dense(classes)(x), name="grouped")

    with pytest.raises(InputError, match="groups"):
        supernet(grouped)
