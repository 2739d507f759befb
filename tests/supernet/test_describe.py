"""What operations are taken for."""

import zlib
from collections.abc import Callable

import larq as lq
import pytest
import tensorflow as tf

from larq_nas.errors import InputError
from larq_nas.layers import BinaryConv2D
from larq_nas.quantizers import LearnedStep
from larq_nas.supernet.fused_plan import describe

SHAPE = (8, 8, 4)


def convolution(**settings) -> Callable[[tf.Tensor, str], tf.Tensor]:
    def build(x: tf.Tensor, name: str) -> tf.Tensor:
        x = tf.keras.layers.BatchNormalization(center=False, scale=False)(x)
        return BinaryConv2D(4, 3, **{"kernel_quantizer": None, **settings})(x)

    return build


def test_a_convolution_of_ones_own_is_known() -> None:
    description = describe(convolution(), SHAPE)
    assert (description.kind, description.shape, description.has_weights) == (
        "convolution",
        SHAPE,
        True,
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"input_quantizer": lambda x: tf.sign(x + 1)},
        {"input_quantizer": LearnedStep()},
        {"kernel_quantizer": "ste_sign"},
        {"kernel_quantizer": lq.quantizers.MagnitudeAwareSign()},
        {"kernel_constraint": "unit_norm"},
        {"trainable": False},
        {"activation": "sigmoid"},
        {"use_bias": True},
        {"kernel_regularizer": "l2"},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_what_a_fused_cell_could_not_compute_is_left_to_its_layers(settings) -> None:
    assert describe(convolution(**settings), SHAPE).kind == "other"


def test_a_norm_that_learns_is_left_to_its_layers() -> None:
    def build(x: tf.Tensor, name: str) -> tf.Tensor:
        return BinaryConv2D(4, 3)(tf.keras.layers.BatchNormalization()(x))

    assert describe(build, SHAPE).kind == "other"


@pytest.mark.parametrize(
    "settings",
    [{"renorm": True}, {"axis": 1}, {"trainable": False}, {"moving_mean_initializer": "ones"}],
    ids=lambda settings: next(iter(settings)),
)
def test_a_norm_with_other_settings_is_left_to_its_layers(settings) -> None:
    def build(x: tf.Tensor, name: str) -> tf.Tensor:
        norm = tf.keras.layers.BatchNormalization(center=False, scale=False, **settings)
        return BinaryConv2D(4, 3, kernel_quantizer=None)(norm(x))

    assert describe(build, SHAPE).kind == "other"


def test_layers_that_edges_share_are_left_as_they_are() -> None:
    shared = tf.keras.layers.MaxPooling2D(3, 1, "same")
    assert describe(lambda x, name: shared(x), SHAPE).kind == "other"
    assert describe(lambda x, name: shared(x), SHAPE).kind == "other"


def test_a_model_inside_of_an_operation_is_left_to_its_layers() -> None:
    def build(x: tf.Tensor, name: str) -> tf.Tensor:
        return tf.keras.Sequential([tf.keras.layers.MaxPooling2D(3, 1, "same")])(x)

    assert describe(build, SHAPE).kind == "other"


def test_an_operation_may_read_what_is_around_it() -> None:
    around = tf.keras.Input(SHAPE)
    assert describe(lambda x, name: tf.keras.layers.Add()([x, around]), SHAPE).kind == "other"
    assert describe(lambda x, name: around, SHAPE).kind == "other"


def test_weights_behind_a_sum_are_seen() -> None:
    description = describe(lambda x, name: x + convolution()(x, name), SHAPE)
    assert description.kind == "other"
    assert description.has_weights


@tf.keras.utils.register_keras_serializable("tests")
class Own(lq.quantizers.Quantizer):
    precision = 1

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return lq.quantizers.ste_sign(inputs)


def test_a_quantizer_of_ones_own_without_weights_is_known() -> None:
    assert describe(convolution(input_quantizer=Own()), SHAPE).kind == "convolution"


def test_an_added_input_of_another_shape_is_left_to_its_layers() -> None:
    def build(x: tf.Tensor, name: str) -> tf.Tensor:
        y = tf.keras.layers.BatchNormalization(center=False, scale=False)(x)
        y = BinaryConv2D(1, 3, kernel_quantizer=None)(y)
        return tf.keras.layers.Add()([x, y])

    assert describe(build, SHAPE).kind == "other"


def test_a_layer_that_is_made_once_is_left_to_be_shared() -> None:
    made: list[tf.keras.layers.Layer] = []

    def build(x: tf.Tensor, name: str) -> tf.Tensor:
        x = tf.keras.layers.BatchNormalization(center=False, scale=False, name=f"{name}_bn")(x)
        if not made:
            made.append(BinaryConv2D(4, 3, kernel_quantizer=None, name=f"{name}_conv"))
        return made[0](x)

    assert describe(build, SHAPE).kind == "other"


def test_what_depends_on_the_prefix_is_left_to_its_layers() -> None:
    def build(x: tf.Tensor, name: str) -> tf.Tensor:
        x = tf.keras.layers.BatchNormalization(center=False, scale=False)(x)
        seed = zlib.crc32(name.encode())
        initializer = tf.keras.initializers.GlorotUniform(seed=seed)
        return BinaryConv2D(4, 3, kernel_quantizer=None, kernel_initializer=initializer)(x)

    assert describe(build, SHAPE).kind == "other"


def test_an_operation_may_read_the_number_of_its_input_in_the_prefix() -> None:
    def build(x: tf.Tensor, name: str) -> tf.Tensor:
        assert int(name.split("_in")[1].split("_")[0]) >= 0
        return convolution()(x, name)

    assert describe(build, SHAPE).kind == "convolution"


def test_an_operation_that_returns_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="must return a tensor, but one returned None"):
        describe(lambda x, name: None, SHAPE)
