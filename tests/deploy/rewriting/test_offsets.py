"""Offsets that nothing takes in are added later, where they cost nothing, or stay."""

import dataclasses
from collections import Counter
from collections.abc import Callable

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from conftest import randomize

import larq_nas
from larq_nas.cost import profile
from larq_nas.cost.profile import read_structure
from larq_nas.deploy.equivalence import compare_operations
from larq_nas.deploy.export import export_lowered
from larq_nas.deploy.flatbuffer import operators
from larq_nas.deploy.operations import Operations
from larq_nas.deploy.recording import record
from larq_nas.deploy.rewriting import Lowered, lower
from larq_nas.deploy.rewriting.forms import Rewrite
from larq_nas.layers import classifier

layers = tf.keras.layers
KERNELS = ("default", "reference", "indirect")
CHANNELS = 36


class Offset(layers.Layer):
    """An own layer, as RSign and RPReLU of ReActNet are made of."""

    def build(self, shape) -> None:
        self.offset = self.add_weight("offset", (shape[-1],))

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return x + self.offset


def binary(x: tf.Tensor, **settings) -> tf.Tensor:
    settings = {"padding": "same", "pad_values": 1.0, "use_bias": False, **settings}
    return lq.layers.QuantConv2D(
        CHANNELS, 3, input_quantizer="ste_sign", kernel_quantizer="ste_sign", **settings
    )(x)


def norm(x: tf.Tensor, **settings) -> tf.Tensor:
    return layers.BatchNormalization(**settings)(x)


def pool(x: tf.Tensor) -> tf.Tensor:
    return layers.AveragePooling2D(3, 1, padding="same")(x)


def prelu(x: tf.Tensor) -> tf.Tensor:
    return layers.PReLU(tf.keras.initializers.Constant(0.25), shared_axes=[1, 2])(x)


def react(x: tf.Tensor) -> tf.Tensor:
    for _ in range(3):
        x = layers.Add()([norm(binary(Offset()(x))), x])
        x = Offset()(prelu(Offset()(x)))
    return x


def through_sum(x: tf.Tensor) -> tf.Tensor:
    return binary(norm(layers.Add()([norm(pool(x), name="moved"), prelu(x)]), name="taking"))


def through_concatenation(x: tf.Tensor) -> tf.Tensor:
    joined = layers.Concatenate()([prelu(x), norm(pool(x), name="moved")])
    return binary(norm(joined, name="taking"))


def through_pools(x: tf.Tensor) -> tf.Tensor:
    moved = layers.Dropout(0.1)(layers.MaxPool2D()(norm(pool(x), name="moved")))
    moved = layers.Cropping2D(1)(layers.AveragePooling2D(2, 1, padding="same")(moved))
    return binary(norm(moved, name="taking"))


def into_convolution(x: tf.Tensor) -> tf.Tensor:
    return layers.Conv2D(8, 3, groups=2, strides=2, name="taking")(norm(pool(x), name="moved"))


def into_pointwise(x: tf.Tensor) -> tf.Tensor:
    moved = Offset(name="moved")(prelu(x))
    return norm(layers.Conv2D(8, 1, padding="same", use_bias=False)(moved), name="taking")


def into_branch(x: tf.Tensor) -> tf.Tensor:
    """Into the convolution of the one reader, and the offset of the other."""
    moved = Offset(name="moved")(prelu(x))
    return layers.Add()([norm(binary(Offset(name="taking")(moved)), name="branch"), moved])


def through_norm(x: tf.Tensor) -> tf.Tensor:
    """Through one that itself adds nothing, as all goes into a third."""
    other = prelu(x)
    total = layers.Add()([norm(pool(x), name="moved"), other])
    total = layers.Add()([norm(total, name="between"), other])
    return binary(norm(total, name="taking"))


def back_into_branch(x: tf.Tensor) -> tf.Tensor:
    total = layers.Add()([norm(binary(x), name="branch"), x])
    return binary(prelu(Offset(name="moved")(layers.Dropout(0.1)(total))))


def back_into_parts(x: tf.Tensor) -> tf.Tensor:
    """Into both parts of a concatenation, of which one is a sum and one a convolution."""
    total = layers.Add()([norm(binary(x)), x])
    halved = layers.AveragePooling2D(padding="same")(total)
    joined = layers.Concatenate()([halved, norm(binary(x, strides=2))])
    return binary(prelu(Offset(name="moved")(joined)))


def twice(x: tf.Tensor) -> tf.Tensor:
    """One tensor in a sum with itself."""
    moved = norm(pool(x), name="moved")
    return binary(norm(layers.Add()([moved, moved, prelu(x)]), name="taking"))


MOVED: dict[str, tuple[Callable[[tf.Tensor], tf.Tensor], int]] = {
    "ReActNet": (react, 6),
    "sum": (through_sum, 1),
    "concatenation": (through_concatenation, 1),
    "pools": (through_pools, 1),
    "convolution": (into_convolution, 1),
    "pointwise": (into_pointwise, 1),
    "branch": (into_branch, 1),
    "norm": (through_norm, 2),
    "back": (back_into_branch, 1),
    "parts": (back_into_parts, 1),
    "twice": (twice, 1),
}


def model_of(block, seed: int = 0, *, positive: bool = True) -> tf.keras.Model:
    inputs = tf.keras.Input((9, 10, 3))
    stem = norm(layers.Conv2D(CHANNELS, 3, padding="same")(inputs))
    model = randomize(tf.keras.Model(inputs, classifier(block(stem), 4)), seed)
    if not positive:
        generator = np.random.default_rng(seed)
        for layer in model.layers:
            if isinstance(layer, layers.BatchNormalization):
                layer.gamma.assign(layer.gamma * generator.choice([-1.0, 1.0], layer.gamma.shape))
    return model


def moved(lowered: Lowered) -> list[str]:
    return [reason for reason in lowered.reasons if "adds nothing" in reason]


def kinds(flatbuffer: bytes) -> Counter[str]:
    return Counter(operator.kind for operator in operators(flatbuffer))


def require_predicted(model: tf.keras.Model, flatbuffer: bytes) -> None:
    predicted = Counter(operator.kind for operator in read_structure(model).operators)
    assert predicted == kinds(flatbuffer)
    expected, size = profile(model).flatbuffer_bytes, len(flatbuffer)
    assert abs(expected - size) <= max(0.01 * size, 512)


@pytest.mark.parametrize("positive", [True, False], ids=["positive", "both signs"])
@pytest.mark.parametrize(("block", "fewer"), MOVED.values(), ids=list(MOVED))
def test_offsets_are_added_where_they_cost_nothing(block, fewer: int, positive: bool) -> None:
    model = model_of(block, positive=positive)
    conversion = larq_nas.convert(model, kernels=KERNELS)
    assert [parity.kernel for parity in conversion.parity] == [*KERNELS, "aarch64"]
    assert all(parity.exact >= 0.98 for parity in conversion.parity)
    before = export_lowered(lower(model, offsets=False))
    assert kinds(before) - kinds(conversion.flatbuffer) == Counter(ADD=fewer)
    assert not kinds(conversion.flatbuffer) - kinds(before)
    assert len(conversion.flatbuffer) < len(before)
    assert sum("adds nothing" in line for line in conversion.rewrites) == fewer
    require_predicted(model, conversion.flatbuffer)


def test_the_conversion_says_where_an_offset_goes() -> None:
    lines = moved(lower(model_of(into_branch)))
    assert lines == [
        "`moved` adds nothing: its offset goes into `taking`, `branch`, where it costs nothing"
    ]


def test_nothing_is_moved_unless_asked() -> None:
    model = model_of(through_sum)
    assert larq_nas.convert(model, rewrite=False).rewrites == []
    assert moved(lower(model, offsets=False)) == []


def test_int8_leaves_offsets_where_they_are() -> None:
    data = np.random.default_rng(0).normal(size=(32, 9, 10, 3)).astype("float32")
    conversion = larq_nas.convert(model_of(through_sum), data, int8="ends")
    assert not any("adds nothing" in line for line in conversion.rewrites)


def product(x: tf.Tensor) -> tf.Tensor:
    return binary(norm(layers.Multiply()([norm(pool(x)), prelu(x)])))


def activation(x: tf.Tensor) -> tf.Tensor:
    return binary(norm(layers.Activation("tanh")(norm(pool(x)))))


def relu(x: tf.Tensor) -> tf.Tensor:
    return binary(norm(layers.Add()([layers.ReLU()(norm(pool(x))), prelu(x)])))


def zero_padding(x: tf.Tensor) -> tf.Tensor:
    return binary(norm(layers.ZeroPadding2D(1)(norm(pool(x)))))


def padded_convolution(x: tf.Tensor) -> tf.Tensor:
    return layers.Conv2D(8, 3, padding="same")(norm(pool(x)))


def pad_that_fuses(x: tf.Tensor) -> tf.Tensor:
    return layers.Conv2D(8, 3)(layers.ZeroPadding2D(1)(norm(pool(x))))


def read_for_signs(x: tf.Tensor) -> tf.Tensor:
    """The sign would need the offset, in an addition of its own."""
    shared = Offset()(prelu(x))
    return layers.Add()([norm(binary(shared)), shared])


def read_otherwise(x: tf.Tensor) -> tf.Tensor:
    shared = norm(pool(x))
    total = norm(layers.Add()([shared, prelu(x)]))
    return layers.Add()([binary(total), layers.Activation("tanh")(shared)])


def behind_padding(x: tf.Tensor) -> tf.Tensor:
    return layers.Concatenate(axis=1)([prelu(x), norm(pool(x))])


def shared_convolution(x: tf.Tensor) -> tf.Tensor:
    layer = layers.Conv2D(CHANNELS, 1)
    return layer(prelu(layer(norm(pool(x)))))


STAYS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "product": product,
    "activation": activation,
    "relu": relu,
    "zero padding": zero_padding,
    "padded convolution": padded_convolution,
    "pad that fuses": pad_that_fuses,
    "signs": read_for_signs,
    "second reader": read_otherwise,
    "rows": behind_padding,
    "shared convolution": shared_convolution,
}


@pytest.mark.parametrize("block", STAYS.values(), ids=list(STAYS))
def test_an_offset_that_not_every_reader_takes_stays(block) -> None:
    model = model_of(block)
    conversion = larq_nas.convert(model, kernels=KERNELS)
    assert not any("adds nothing" in line for line in conversion.rewrites)
    assert kinds(conversion.flatbuffer) == kinds(export_lowered(lower(model, offsets=False)))
    assert all(parity.exact >= 0.98 for parity in conversion.parity)


def test_an_output_of_the_model_keeps_its_offset() -> None:
    inputs = tf.keras.Input((9, 10, CHANNELS))
    given = norm(pool(inputs))
    total = classifier(binary(norm(layers.Add()([given, prelu(inputs)]))), 4)
    both, one = tf.keras.Model(inputs, [total, given]), tf.keras.Model(inputs, total)
    randomize(both)
    assert moved(lower(both)) == []
    assert len(moved(lower(one))) == 1
    assert not any("adds nothing" in line for line in larq_nas.convert(both).rewrites)


def test_an_offset_far_larger_than_what_varies_stays() -> None:
    """Added later, it would leave the digits that rounding takes from numbers as large."""
    model = model_of(through_sum)
    assert len(moved(lower(model))) == 1
    layer = model.get_layer("moved")
    layer.moving_mean.assign(layer.moving_mean + 1e3)
    assert moved(lower(model)) == []


def test_sums_of_whole_numbers_keep_the_signs_of_zeros() -> None:
    """0.1 and what takes it away again leave exactly 0, but in another order."""

    def block(x: tf.Tensor) -> tf.Tensor:
        whole = [layers.MaxPool2D(2, 1)(binary(x)) for _ in range(2)]
        total = layers.Add()([whole[0] + 0.1, whole[1]]) + (-4.0 - 0.1)
        return binary(total)

    conversion = larq_nas.convert(model_of(block), kernels=KERNELS)
    assert not any("adds nothing" in line for line in conversion.rewrites)


def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(8, 9, 10, 3)).astype("float32")


def holds(model: tf.keras.Model, lowered: Lowered, lacking=None) -> bool:
    """Return whether the flatbuffer of `lowered` is found to compute what `model` does."""
    lacking = lowered.lacking_by_layer if lacking is None else lacking
    flatbuffer = export_lowered(lowered)
    found = [
        compare_operations(
            record(model, [images()]), Operations(flatbuffer, kernel), [images()], None, lacking
        ).holds
        for kernel in KERNELS
    ]
    assert len(set(found)) == 1
    return found[0]


def call_named(lowered: Lowered, name: str) -> int:
    return next(i for i, call in enumerate(lowered.calls) if call.owner == name)


def with_more(lowered: Lowered, name: str, more: float) -> Lowered:
    """Return a network in which the layer of that name adds more than is right."""
    index = call_named(lowered, name)
    right = lowered.rewrites[index]
    wrong = dataclasses.replace(right, compute=lambda *values: right.compute(*values) + more)
    return dataclasses.replace(lowered, rewrites={**lowered.rewrites, index: wrong})


@pytest.mark.parametrize("name", ["moved", "taking", "branch"])
@pytest.mark.parametrize("more", [0.05, -0.5])
def test_a_wrong_moved_offset_is_refused(name: str, more: float) -> None:
    model = model_of(into_branch)
    lowered = lower(model)
    assert holds(model, lowered)
    assert not holds(model, with_more(lowered, name, more))


def test_a_wrong_offset_is_refused_though_it_is_told_to_be_lacking() -> None:
    """What is lacking says what to look for, and excuses nothing behind it."""
    model = model_of(through_sum)
    lowered, layer = lower(model), model.get_layer("moved")
    lacking = lowered.lacking_by_layer
    told = {**lacking, id(layer): lacking[id(layer)] - 0.05}
    assert holds(model, lowered, lacking)
    assert not holds(model, with_more(lowered, "moved", 0.05), told)


def test_what_lacks_an_offset_is_matched_without_it() -> None:
    """So that a fault behind it is not looked for before it."""
    model = model_of(through_sum)
    lowered = lower(model)
    flatbuffer = export_lowered(with_more(lowered, "taking", 0.5))

    def differing(lacking) -> list[str]:
        operations = Operations(flatbuffer, "reference")
        found = compare_operations(record(model, [images()]), operations, [images()], None, lacking)
        return [layer.name for layer in found.differing]

    assert "taking" in differing(lowered.lacking_by_layer)
    assert "moved" not in differing(lowered.lacking_by_layer)
    assert "moved" in differing({})


def test_outputs_lack_nothing() -> None:
    inputs = tf.keras.Input((9, 10, 3))
    outputs = norm(pool(layers.Conv2D(8, 3)(inputs)), name="output")
    model = randomize(tf.keras.Model(inputs, outputs))
    lowered, layer = lower(model), model.get_layer("output")
    wrong = with_more_at_the_end(lowered, 0.1)
    told = {id(layer): np.full(8, -0.1)}
    assert holds(model, lowered, {})
    assert not holds(model, wrong, told)


def with_more_at_the_end(lowered: Lowered, more: float) -> Lowered:
    index = call_named(lowered, "output")
    layer = lowered.calls[index].layer
    wrong = Rewrite(index, lowered.calls[index].inputs, lambda x: layer(x) + more)
    return dataclasses.replace(lowered, rewrites={index: wrong})


def _relu(x: tf.Tensor) -> tf.Tensor:
    return layers.MaxPool2D(1)(layers.ReLU()(layers.Conv2D(CHANNELS, 1, use_bias=False)(x)))


def _dead_filters(x: tf.Tensor) -> tf.Tensor:
    return layers.MaxPool2D(1)(layers.Conv2D(CHANNELS, 1, kernel_initializer="zeros")(x))


@pytest.mark.parametrize("constant", [_relu, _dead_filters])
def test_offsets_of_what_is_constant_stay(constant: Callable) -> None:
    """Constants may cancel, and 0 has a sign that another order of adding would turn."""
    images = tf.keras.Input((8, 8, 8))
    x = layers.BatchNormalization(name="first")(constant(images))
    x = layers.BatchNormalization(name="second", center=False)(layers.MaxPool2D(2, 1, "same")(x))
    x = lq.layers.QuantConv2D(
        32, 1, input_quantizer="ste_sign", kernel_quantizer="ste_sign", use_bias=False
    )(x)
    model = tf.keras.Model(images, x)
    vectors = [np.full(CHANNELS, value, "float32") for value in (1.3, 0.1, 0.7, 1.7, 0.77, 2.7)]
    first, second = model.get_layer("first"), model.get_layer("second")
    first.set_weights(vectors[:4])
    constant_of = first(np.zeros((1, 1, 1, CHANNELS), "float32")).numpy().ravel()
    second.set_weights([vectors[4], constant_of, vectors[5]])
    conversion = larq_nas.convert(model)
    assert not [line for line in conversion.rewrites if "adds nothing" in line]
