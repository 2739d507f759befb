"""Which networks of a user's own can be searched by the gradient of their widths."""

from typing import Any

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from supernets import facts, images, supernet

from larq_nas.errors import InputError
from larq_nas.graph.channels import weights_of
from larq_nas.searchers.dms.supernet import require_widths
from larq_nas.spaces.chooser import Chooser

layers = tf.keras.layers


def normalized_twice(x: tf.Tensor, choose: Chooser) -> tf.Tensor:
    return layers.LayerNormalization()(layers.BatchNormalization()(x))


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
