"""A network of three widths at once, against three networks; and what stays when widths move."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from conftest import dimensions_of
from reference import AllWidths, Separate
from supernets import SHAPE, chain, images, supernet

from larq_nas.graph.channels import latent, weights_of
from larq_nas.searchers.dms.supernet import Supernet
from larq_nas.searchers.dms.widths import Dimensions
from larq_nas.spaces import resolve
from larq_nas.spaces.chooser import Widest
from larq_nas.spaces.space import FunctionSpace

layers = tf.keras.layers


def by_hand(made: Supernet, shares: np.ndarray, widths: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Sum the outputs of a layer over the three widths of its inputs, each computed by itself."""
    layer = made.network.get_layer
    # So much of each width that as many channels are read as the middle one has.
    shares = shares * (widths[:, 1] / (shares * widths).sum(axis=1))[:, None]
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


LAST = {"vgg11": "conv8", "resnet18_cifar": "stage4"}


@pytest.mark.parametrize("name", LAST)
def test_whole_shares_are_the_plain_network(name: str) -> None:
    """Its last layer, behind which no norm stands, reads as much as the middle width gives."""
    shape = (32, 32, 3)
    made, dimensions = supernet(resolve(name, {"binarization": "dms"}), ratio=0.5, shape=shape)
    plain = resolve(name, {"binarization": "dms"}).build(Widest(dimensions.widest()), shape, 10)
    for key, weight in weights_of(plain).items():
        weight.assign(weights_of(made.network)[key])
    _, middle, most = dimensions.widths.numpy()[dimensions.names.index(LAST[name])]
    dense = plain.get_layer("dense").kernel
    dense.assign(dense * (middle / most))
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
