import gc
import weakref

import tensorflow as tf

from larq_nas.layers import binary_conv, classifier
from larq_nas.training.loop import forgetting_graphs


def network() -> tf.keras.Model:
    images = tf.keras.Input((8, 8, 3))
    return tf.keras.Model(images, classifier(binary_conv(images, 8, 3, name="conv"), 4))


def test_weights_of_a_network_that_is_done_with_are_freed() -> None:
    with forgetting_graphs():
        model = network()
    weights = [weakref.ref(weight.handle) for weight in model.weights]
    del model
    tf.keras.backend.clear_session()
    gc.collect()
    assert [weight() for weight in weights] == [None] * len(weights)


def test_a_network_can_be_trained_after_its_graph_is_forgotten() -> None:
    with forgetting_graphs():
        model = network()
        model.compile("sgd", "mse")
    kernel = model.get_layer("conv_conv").kernel.latent_variable
    before = kernel.numpy()
    model.fit(tf.random.normal((8, 8, 8, 3)), tf.random.normal((8, 4)), verbose=0)
    assert (kernel.numpy() != before).any()
