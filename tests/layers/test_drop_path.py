import numpy as np
import pytest
import tensorflow as tf

import larq_nas
from larq_nas.layers import DEPLOYED, Domain, DropPath, building_in
from larq_nas.process_state import seed_everything
from larq_nas.spaces import Bats

SHAPE = (4000, 2, 2, 3)


def drop(rate: float, name: str = "drop", seed: int = 0) -> DropPath:
    seed_everything(seed)
    layer = DropPath(name=name)
    layer.build(SHAPE)
    layer.rate.assign(rate)
    return layer


def draw(layer: DropPath) -> np.ndarray:
    """Return which images are kept."""
    return layer(tf.ones(SHAPE), training=True).numpy()[:, 0, 0, 0] > 0


def test_nothing_is_dropped_at_first() -> None:
    images = tf.random.normal(SHAPE)
    layer = DropPath()
    np.testing.assert_array_equal(layer(images, training=True), images)
    assert float(layer.rate) == 0.0


def test_whole_images_are_dropped_and_the_expectation_is_kept() -> None:
    images = np.random.default_rng(0).normal(size=SHAPE).astype("float32")
    outputs = drop(0.25)(images, training=True).numpy()
    kept = outputs.any(axis=(1, 2, 3))
    np.testing.assert_allclose(outputs[kept], images[kept] / 0.75, rtol=1e-6)
    np.testing.assert_array_equal(outputs[~kept], 0)
    # Three standard deviations of the mean of as many coins.
    assert kept.mean() == pytest.approx(0.75, abs=3 * np.sqrt(0.25 * 0.75 / len(kept)))


def test_nothing_is_dropped_in_inference_and_no_draw_is_used_up() -> None:
    images = tf.random.normal(SHAPE)
    layer, other = drop(0.5), drop(0.5)
    np.testing.assert_array_equal(layer(images, training=False), images)
    np.testing.assert_array_equal(layer(images), images)
    np.testing.assert_array_equal(draw(layer), draw(other))


def test_draws_differ_by_call_name_and_seed() -> None:
    layer = drop(0.5)
    draws = [draw(layer), draw(layer), draw(drop(0.5, "other")), draw(drop(0.5, seed=1))]
    for i, one in enumerate(draws):
        for other in draws[:i]:
            assert 0.4 < np.mean(one == other) < 0.6


def test_layers_of_one_count_draw_apart() -> None:
    """A network's layers are all called as often; their names alone must tell them apart."""
    one, other = drop(0.5, "one"), drop(0.5, "other")
    other.calls.assign(one.calls)
    assert 0.4 < np.mean(draw(one) == draw(other)) < 0.6


def test_the_same_seed_draws_the_same() -> None:
    one, other = drop(0.5), drop(0.5)
    for _ in range(3):
        np.testing.assert_array_equal(draw(one), draw(other))


def test_a_restored_checkpoint_goes_on_with_the_same_draws(tmp_path) -> None:
    layer = drop(0.5)
    draw(layer)
    path = tf.train.Checkpoint(layer=layer).save(tmp_path / "checkpoint")
    expected = [draw(layer), draw(layer)]
    restored = drop(0.0, seed=7)
    tf.train.Checkpoint(layer=restored).restore(path).assert_consumed()
    for one in expected:
        np.testing.assert_array_equal(draw(restored), one)


def test_a_graph_counts_its_calls_too() -> None:
    """Traced once, a layer would otherwise draw the same at every step."""
    layer, eager = drop(0.5), drop(0.5)
    graph = tf.function(lambda images: layer(images, training=True))
    for _ in range(2):
        kept = graph(tf.ones(SHAPE)).numpy()[:, 0, 0, 0] > 0
        np.testing.assert_array_equal(kept, draw(eager))


def test_a_saved_layer_loads(tmp_path) -> None:
    inputs = tf.keras.Input((2, 2, 3))
    model = tf.keras.Model(inputs, DropPath(name="drop")(inputs))
    model.get_layer("drop").rate.assign(0.5)
    model.save(tmp_path / "model.keras")
    loaded = tf.keras.models.load_model(tmp_path / "model.keras", compile=False)
    images = tf.ones((64, 2, 2, 3))
    np.testing.assert_array_equal(loaded(images, training=True), model(images, training=True))


def dropped(model: tf.keras.Model) -> set[str]:
    return {layer.name for layer in model.layers if isinstance(layer, DropPath)}


def network(domain: Domain) -> tf.keras.Model:
    """A cell of one node that sums an identity and a convolution, behind a stem."""
    pairs = [["identity", 0], ["group_conv_3x3", 1]]
    choices = {f"reduction/{node}": pairs for node in (2, 3)}
    choices |= {f"normal/{node}": pairs for node in (2, 3)}
    space = Bats(cells=3, channels=4, nodes=2)
    architecture = larq_nas.Architecture("bats", space.settings(), choices)
    with building_in(domain):
        return architecture.build((8, 8, 1), 10)


def test_operations_are_dropped_but_identities_are_not() -> None:
    """Cells 1 and 2 halve the image, where an identity of a cell's input is a convolution."""
    convolutions = {
        f"cell{cell}_node{node}_in1_group_conv_3x3_drop_path"
        for cell in range(3)
        for node in (2, 3)
    }
    halving = {
        f"cell{cell}_node{node}_in0_identity_drop_path" for cell in (1, 2) for node in (2, 3)
    }
    assert dropped(network(Domain(drop_path=True))) == convolutions | halving


def test_the_deployed_network_drops_nothing() -> None:
    deployed, trained = network(DEPLOYED), network(Domain(drop_path=True))
    assert dropped(deployed) == set()
    names = {layer.name for layer in trained.layers} - dropped(trained)
    assert names == {layer.name for layer in deployed.layers}


def test_the_only_operation_of_a_layer_is_not_dropped() -> None:
    def space(choose, input_shape, classes) -> tf.keras.Model:
        images = tf.keras.Input(input_shape)
        pool = {"pool": lambda x, name: tf.keras.layers.MaxPool2D(name=name)(x)}
        x = choose.op("one", images, pool)
        x = choose.node("several", [x, x], [pool, pool], keep=2)
        return tf.keras.Model(images, tf.keras.layers.Flatten()(x))

    choices = {"one": "pool", "several": [["pool", 0], ["pool", 1]]}
    with building_in(Domain(drop_path=True)):
        model = larq_nas.Architecture("space", {}, choices).build((8, 8, 1), 10, space)
    assert dropped(model) == {"several_in0_pool_drop_path", "several_in1_pool_drop_path"}
