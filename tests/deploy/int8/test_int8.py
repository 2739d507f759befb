import json

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from conftest import quick, random_architecture, randomize

import larq_nas
from larq_nas.deploy.flatbuffer import Operator, operators
from larq_nas.layers import BinaryConv2D, Scale, binary_conv, classifier, stem
from larq_nas.spaces import Bats, Bnas, Darts, ResNet18, ResNet18Cifar, Space, Vgg11, VggSmall

KERNELS = ("default", "reference", "indirect")


def model_of(block, shape=(8, 8, 3)) -> tf.keras.Model:
    inputs = tf.keras.Input(shape)
    return randomize(tf.keras.Model(inputs, classifier(block(stem(inputs, 32)), 4)))


def small() -> tf.keras.Model:
    return model_of(lambda x: binary_conv(binary_conv(x, 32, 3, name="a"), 32, 3, name="b"))


def images_for(model: tf.keras.Model, count: int = 64) -> np.ndarray:
    generator = np.random.default_rng(1)
    return generator.uniform(-1, 1, (count, *model.input_shape[1:])).astype("float32")


def weighted(flatbuffer: bytes) -> list[Operator]:
    return [op for op in operators(flatbuffer) if op.filters is not None and op.kind[0] != "L"]


def test_first_and_last_layer_run_in_int8_on_all_kernels() -> None:
    model = small()
    conversion = larq_nas.convert(model, images_for(model), kernels=KERNELS, int8="ends")
    first, last = weighted(conversion.flatbuffer)
    assert (first.kind, last.kind) == ("CONV_2D", "FULLY_CONNECTED")
    for op in (first, last):
        assert (op.type, op.filters.dtype) == ("INT8", np.int8)
        assert np.abs(op.filters.astype("int32")).max() == 127
    assert len(first.steps) == 32
    assert [parity.kernel for parity in conversion.parity] == list(KERNELS)
    assert all(parity.step == pytest.approx(last.step) for parity in conversion.parity)
    rows = {row.layer: row.runs_as for row in conversion.audit.layers if not row.binary}
    assert rows == {"stem_conv": "CONV_2D in int8", "head_dense": "FULLY_CONNECTED in int8"}
    assert conversion.int8.layers == ["stem_conv", "head_dense"]
    assert conversion.int8.bytes_after == len(conversion.flatbuffer)
    assert conversion.int8.bytes_before == len(larq_nas.convert(model).flatbuffer)
    assert conversion.int8.bytes_after < conversion.int8.bytes_before
    assert conversion.int8.accuracy_before is None
    assert json.loads(json.dumps(conversion.summary()))["int8"]["agreement"] > 0.9
    assert "2 layers (stem_conv, head_dense)" in str(conversion)


def test_outputs_stay_close_to_keras() -> None:
    model = small()
    images = images_for(model)
    plain = larq_nas.convert(model, images).flatbuffer
    quantized = larq_nas.convert(model, images, int8="ends")
    kinds = [(op.kind, op.type) for op in operators(quantized.flatbuffer)]
    assert kinds[0] == ("QUANTIZE", "INT8")
    assert kinds[-1] == ("DEQUANTIZE", "FLOAT32")
    assert quantized.int8.agreement >= 0.9
    assert quantized.int8.mean < 0.3
    assert plain != quantized.flatbuffer


def test_a_sign_reads_the_first_layer_as_int8() -> None:
    def block(x: tf.Tensor) -> tf.Tensor:
        return BinaryConv2D(32, 3, name="a")(x)

    inputs = tf.keras.Input((8, 8, 3))
    model = randomize(tf.keras.Model(inputs, classifier(block(stem(inputs, 32, relu=False)), 4)))
    conversion = larq_nas.convert(model, images_for(model), int8="ends")
    kinds = [op.kind for op in operators(conversion.flatbuffer)]
    assert kinds[:4] == ["QUANTIZE", "CONV_2D", "LceQuantize", "LceBconv2d"]
    assert (kinds.count("QUANTIZE"), kinds.count("DEQUANTIZE")) == (2, 1)


SPACES: dict[str, tuple[Space, tuple[int, int, int]]] = {
    "bats": (Bats(cells=2, channels=8), (8, 8, 1)),
    "bnas": (Bnas(cells=3, channels=8), (8, 8, 3)),
    "darts": (Darts(cells=3, channels=8), (8, 8, 3)),
    "resnet18": (ResNet18(expansion=0.25), (32, 32, 3)),
    "resnet18_cifar": (ResNet18Cifar(expansion=0.5), (16, 16, 3)),
    "vgg_small": (VggSmall(expansion=0.25), (16, 16, 3)),
    "vgg11": (Vgg11(expansion=0.25), (32, 32, 3)),
}


@pytest.mark.parametrize(
    ("name", "which"),
    quick([(name, ("ends", "all")[i % 2]) for i, name in enumerate(SPACES)], 5),
)
def test_a_network_of_each_space_converts(name: str, which: str) -> None:
    space, shape = SPACES[name]
    model = randomize(random_architecture(space, 0, shape).build(shape, 10))
    conversion = larq_nas.convert(model, images_for(model), kernels=["indirect"], int8=which)
    in_int8 = [op for op in weighted(conversion.flatbuffer) if op.steps is not None]
    assert len(in_int8) == len(conversion.int8.layers)
    assert not conversion.audit.fallbacks
    real = [row.layer for row in conversion.audit.layers if not row.binary]
    if which == "all":
        assert set(conversion.int8.layers) == set(real)
    assert {real[0], real[-1]} <= set(conversion.int8.layers) <= set(real)


def test_all_takes_in_what_stands_between() -> None:
    def block(x: tf.Tensor) -> tf.Tensor:
        a = BinaryConv2D(32, 3, name="a")(x)
        b = tf.keras.layers.DepthwiseConv2D(3, padding="same", name="rows")(x)
        c = tf.keras.layers.Conv2D(32, 3, padding="same", groups=4, dilation_rate=2, name="c")(x)
        summed = tf.keras.layers.Add()([a, b, c])
        pooled = tf.keras.layers.AveragePooling2D(2)(tf.keras.layers.Concatenate()([summed, a]))
        return tf.keras.layers.MaxPool2D(2)(pooled)

    model = model_of(block)
    conversion = larq_nas.convert(model, images_for(model), kernels=KERNELS, int8="all")
    assert conversion.int8.layers == ["stem_conv", "rows", "c", "head_dense"]
    assert conversion.int8.stays_float == {}
    floats = [op.kind for op in operators(conversion.flatbuffer) if op.type == "FLOAT32"]
    assert floats == ["DEQUANTIZE"]
    ends = larq_nas.convert(model, images_for(model), int8="ends")
    assert ends.int8.layers == ["stem_conv", "rows", "c", "head_dense"]
    assert ends.int8.stays_float["ADD"] == 2


def test_all_names_what_stays_in_float() -> None:
    def block(x: tf.Tensor) -> tf.Tensor:
        x = BinaryConv2D(32, 3, name="a")(x)
        x = tf.keras.layers.PReLU(shared_axes=[1, 2])(x)
        x = tf.keras.layers.SeparableConv2D(32, 3, name="pair")(x)
        return Scale(name="scale")(BinaryConv2D(32, 3, name="b")(x))

    model = model_of(block)
    conversion = larq_nas.convert(model, images_for(model), int8="all")
    assert conversion.int8.layers == ["stem_conv", "head_dense"]
    assert conversion.int8.stays_float["DEPTHWISE_CONV_2D"] == 1
    assert "stays in float: " in str(conversion)
    assert "1 PRELU" in str(conversion)


def test_relus_activations_and_biases_are_kept() -> None:
    def block(x: tf.Tensor) -> tf.Tensor:
        x = tf.keras.layers.Conv2D(16, 3, activation="relu", bias_initializer="ones", name="a")(x)
        x = tf.keras.layers.Conv2D(16, 3, activation="tanh", name="b")(x)
        x = tf.keras.layers.Conv2D(32, 1, name="c")(x)
        x = tf.keras.layers.ReLU(max_value=6.0)(x)
        return BinaryConv2D(32, 3, name="d")(x)

    inputs = tf.keras.Input((8, 8, 3))
    x = tf.keras.layers.Flatten()(block(inputs))
    model = randomize(tf.keras.Model(inputs, tf.keras.layers.Dense(4, activation="softmax")(x)))
    conversion = larq_nas.convert(model, images_for(model), int8="ends")
    kinds = [op.kind for op in weighted(conversion.flatbuffer)]
    assert kinds == ["CONV_2D"] * 3 + ["FULLY_CONNECTED"]
    assert {"TANH", "SOFTMAX"}.isdisjoint(conversion.int8.stays_float)
    assert conversion.parity[0].step == pytest.approx(1 / 256)
    assert "RELU6" not in conversion.audit.operations


def test_a_shared_layer_runs_in_int8_at_each_call() -> None:
    inputs = tf.keras.Input((8, 8, 3))
    shared = tf.keras.layers.Conv2D(3, 3, padding="same", name="shared")
    x = BinaryConv2D(32, 3, name="a")(shared(shared(inputs)))
    model = randomize(tf.keras.Model(inputs, classifier(x, 4)))
    conversion = larq_nas.convert(model, images_for(model), int8="ends")
    kinds = [(op.kind, op.type) for op in weighted(conversion.flatbuffer)]
    assert kinds == [("CONV_2D", "INT8")] * 2 + [("FULLY_CONNECTED", "INT8")]


def test_a_dead_filter_and_images_that_are_all_black_do_no_harm() -> None:
    model = small()
    norm = model.get_layer("stem_bn")
    norm.gamma.assign(np.where(np.arange(32) == 3, 0.0, norm.gamma.numpy()))
    conversion = larq_nas.convert(model, images_for(model), int8="ends")
    assert conversion.int8.agreement >= 0.9
    black = np.zeros((8, 8, 8, 3), "float32")
    assert np.isfinite(larq_nas.convert(model, black, int8="ends").int8.mean)


def test_without_real_layers_there_is_nothing_to_do() -> None:
    inputs = tf.keras.Input((8, 8, 32))
    conv = BinaryConv2D(10, 8, padding="valid", name="a")(inputs)
    model = randomize(tf.keras.Model(inputs, tf.keras.layers.Flatten()(conv)))
    conversion = larq_nas.convert(model, images_for(model), int8="ends")
    assert conversion.int8 is None
    assert [line for line in conversion.warnings if "int8 changes nothing" in line]


def test_accuracy_is_reported_where_labels_are_known() -> None:
    model = small()
    images = images_for(model)
    labels = model.predict(images, verbose=0).argmax(axis=1)
    wrong = np.where(np.arange(64) < 16, (labels + 1) % 4, labels)
    data = tf.data.Dataset.from_tensor_slices((images, wrong)).shuffle(64).batch(10)
    report = larq_nas.convert(model, data, int8="ends").int8
    assert report.accuracy_before == 0.75
    assert abs(report.accuracy_after - 0.75) <= 0.1
    assert "accuracy 75.00% before" in str(report)
    one_hot = tf.data.Dataset.from_tensor_slices((images, np.eye(4)[wrong])).batch(10)
    assert larq_nas.convert(model, one_hot, int8="ends").int8.accuracy_before == 0.75


def test_real_layers_of_larq_run_in_int8() -> None:
    """A kernel quantizer without an input quantizer: the weights are signs, in int8."""
    inputs = tf.keras.Input((8, 8, 3))
    signs = {"kernel_quantizer": "ste_sign", "kernel_constraint": "weight_clip"}
    first = lq.layers.QuantConv2D(32, 3, name="first", **signs)(inputs)
    model = randomize(tf.keras.Model(inputs, classifier(BinaryConv2D(32, 3, name="a")(first), 4)))
    conversion = larq_nas.convert(model, images_for(model), int8="ends")
    first_op = weighted(conversion.flatbuffer)[0]
    assert set(np.unique(first_op.filters)) == {-127, 127}


@pytest.mark.slow
def test_chaos_alone_refuses_no_network_in_int8() -> None:
    """Half the images are further than a step from fake-quant, though every operation agrees."""
    architecture = random_architecture(Bats(cells=3, channels=32), 0)
    model = randomize(architecture.build((16, 16, 3), 10))
    images = np.random.default_rng(0).standard_normal((32, 16, 16, 3)).astype("float32")
    conversion = larq_nas.convert(model, images, int8="ends")
    assert conversion.parity[0].exact < 0.8
    assert conversion.int8.bytes_after < conversion.int8.bytes_before
