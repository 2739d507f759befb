"""Every operation with a kernel belongs to a layer, and what runs in float is told."""

import larq as lq
import pytest
import tensorflow as tf
from conftest import randomize

import larq_nas
from larq_nas.deploy.audit import audit, float_signs
from larq_nas.deploy.export import export
from larq_nas.deploy.flatbuffer import operators
from larq_nas.errors import InputError
from larq_nas.layers import REAL_WEIGHTS, building_in
from larq_nas.spaces import Bats
from larq_nas.supernet import Relax

LAYERS = tf.keras.layers
KINDS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
BINARY = {
    "input_quantizer": "ste_sign",
    "kernel_quantizer": "ste_sign",
    "kernel_constraint": "weight_clip",
    "use_bias": False,
}


class OwnConv(LAYERS.Layer):
    def build(self, shape) -> None:
        self.kernel = self.add_weight("kernel", (3, 3, shape[-1], 16))

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return tf.nn.conv2d(tf.sign(x), tf.sign(self.kernel), 1, "SAME")


class OwnBinary(OwnConv):
    def call(self, x: tf.Tensor) -> tf.Tensor:
        return tf.nn.conv2d(lq.math.sign(x), lq.math.sign(self.kernel), 1, "SAME")


class OwnReal(OwnConv):
    def call(self, x: tf.Tensor) -> tf.Tensor:
        return tf.nn.conv2d(x, self.kernel, 1, "SAME")


def network(*layers: LAYERS.Layer, shape=(8, 8, 16)) -> tf.keras.Model:
    return randomize(tf.keras.Sequential([tf.keras.Input(shape), *layers]))


def norm() -> LAYERS.Layer:
    return LAYERS.BatchNormalization()


def test_norms_do_not_hide_real_layers() -> None:
    """A norm is folded into each, and names it after itself."""
    model = network(
        norm(),
        LAYERS.DepthwiseConv2D(3, name="depthwise"),
        norm(),
        LAYERS.Conv2DTranspose(8, 3, strides=2, name="transposed"),
        norm(),
        LAYERS.SeparableConv2D(8, 3, name="separable"),
        norm(),
        LAYERS.Conv2D(8, 3, dilation_rate=2, name="dilated"),
        norm(),
        LAYERS.Flatten(),
        LAYERS.Dense(16, name="dense"),
        norm(),
        LAYERS.Reshape((4, 4)),
        LAYERS.Conv1D(8, 3, name="rows"),
        norm(),
    )
    found = {row.layer: row.runs_as for row in audit(model, export(model)).layers}
    assert found == {
        "depthwise": "DEPTHWISE_CONV_2D",
        "transposed": "TRANSPOSE_CONV",
        "separable": "DEPTHWISE_CONV_2D + CONV_2D",
        "dilated": "CONV_2D",
        "dense": "FULLY_CONNECTED",
        "rows": "CONV_2D",
    }


def test_own_layers_that_convolve_have_rows() -> None:
    model = network(
        norm(), OwnReal(name="real"), norm(), OwnBinary(name="bits"), norm(), OwnConv(name="signs")
    )
    conversion = larq_nas.convert(model, examples=4)
    rows = {row.layer: row for row in conversion.audit.layers}
    assert {name: row.runs_as for name, row in rows.items()} == {
        "real": "CONV_2D",
        "bits": "LceBconv2d",
        "signs": "CONV_2D",
    }
    assert rows["bits"].binary
    assert not rows["real"].note
    (told,) = float_signs(conversion.audit)
    assert told in conversion.warnings
    assert told == (
        "`signs` runs in float (CONV_2D): its kernel has two values in each filter, and takes 32 "
        "bits a weight; use QuantConv2D"
    )
    assert f"signs: CONV_2D (real: {rows['signs'].note})" in str(conversion.audit)


@pytest.mark.parametrize(
    ("layer", "told"),
    [
        (
            lq.layers.QuantConv2D(16, 3, name="half", **{**BINARY, "input_quantizer": None}),
            "its weights are binary, but its inputs are not, so that weights of 1 bit take 32",
        ),
        (
            lq.layers.QuantDepthwiseConv2D(
                3,
                name="half",
                depthwise_quantizer="ste_sign",
                depthwise_constraint="weight_clip",
            ),
            "its weights are binary, but its inputs are not",
        ),
        (
            lq.layers.QuantConv2D(16, 3, name="half", **{**BINARY, "kernel_quantizer": None}),
            "its inputs are binary, but its weights are not",
        ),
    ],
    ids=["weights", "depthwise weights", "inputs"],
)
def test_half_binary_layers_are_told(layer: LAYERS.Layer, told: str) -> None:
    conversion = larq_nas.convert(network(norm(), layer, norm()), examples=4)
    (row,) = conversion.audit.layers
    assert not row.binary
    assert told in row.note
    assert any(told in warning for warning in conversion.warnings)


def test_plain_real_layers_have_no_notes() -> None:
    model = network(LAYERS.Conv2D(8, 3), norm(), LAYERS.Flatten(), LAYERS.Dense(3))
    assert float_signs(larq_nas.convert(model, examples=4).audit) == []


def test_every_operation_with_a_kernel_belongs_to_a_row() -> None:
    inner = tf.keras.Sequential([OwnReal(name="own"), norm()], name="inner")
    shared = LAYERS.Conv2D(16, 3, padding="same", name="shared")
    x = image = tf.keras.Input((8, 8, 16))
    x = shared(norm()(shared(inner(x))))
    x = LAYERS.EinsumDense("abcd,de->abce", output_shape=(8, 8, 16), name="products")(x)
    model = randomize(tf.keras.Model(image, x))
    flatbuffer = export(model)
    rows = audit(model, flatbuffer).layers
    kinds = {kind for row in rows for kind in row.runs_as.split(" + ")}
    assert {op.kind for op in operators(flatbuffer)} & set(KINDS) <= kinds
    assert [row.layer for row in rows] == ["shared", "own", "products"]


def test_a_scale_before_a_dense_layer_hides_no_layer() -> None:
    """The converter folds the batch norm behind a binary layer into the next dense kernel."""
    inputs = x = tf.keras.Input((12,))
    for number in range(2):
        x = tf.keras.layers.BatchNormalization()(tf.keras.layers.Dense(32)(x))
        settings = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
        x = lq.layers.QuantDense(64, name=f"binary{number}", **settings)(x)
        x = tf.keras.layers.BatchNormalization()(x)
    heads = [tf.keras.layers.Dense(units, name=f"head{units}")(x) for units in (4, 2)]
    conversion = larq_nas.convert(randomize(tf.keras.Model(inputs, heads)))
    rows = {row.layer: row.runs_as for row in conversion.audit.layers}
    assert rows.pop("binary0") == rows.pop("binary1") == "LceBconv2d"
    assert len(rows) == 4
    assert set(rows.values()) == {"FULLY_CONNECTED"}


def test_one_reason_of_many_layers_is_one_line() -> None:
    x = inputs = tf.keras.Input((8, 8, 32))
    settings = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
    for _ in range(5):
        x = lq.layers.QuantDense(32, **settings)(x)
    conversion = larq_nas.convert(tf.keras.Model(inputs, x))
    (line,) = [one for one in str(conversion).splitlines() if one.startswith("rewritten")]
    assert len(conversion.rewrites) == 5
    assert line.count("`") == 6
    assert "and 2 more: QuantDense runs as a binary convolution" in line


def test_a_layer_that_no_image_changes_is_no_fallback() -> None:
    """A convolution of a node of zeros is a constant, which the converter computes."""
    chosen = {
        "reduction/2": [["zero", 0], ["zero", 1]],
        "reduction/3": [["dilated_conv_5x5", 1], ["conv_3x3", 2]],
    }
    space = larq_nas.spaces.Bnas(cells=2, channels=8, nodes=2)
    model = randomize(space.build(larq_nas.spaces.Fix(chosen), (8, 8, 1), 10))
    conversion = larq_nas.convert(model)
    constant = [row.layer for row in conversion.audit.layers if row.runs_as == "constant"]
    assert constant == [f"cell{cell}_node3_in2_conv_3x3_conv" for cell in (0, 1)]
    assert conversion.audit.fallbacks == []
    assert "4 of 4 binary layers" in str(conversion.audit)


def test_a_network_of_an_earlier_stage_is_named(small_space: Bats) -> None:
    """As a callback may have saved it: real weights convert, a supernet does not."""
    architecture = larq_nas.Architecture.random(small_space, (8, 8, 1), 10, 0)
    with building_in(REAL_WEIGHTS):
        model = randomize(architecture.build((8, 8, 1), 10))
        supernet = small_space.build(Relax(0.2), (8, 8, 1), 10)
    assert any("as in stage `train_real`" in one for one in larq_nas.convert(model).warnings)
    final = larq_nas.convert(randomize(architecture.build((8, 8, 1), 10)))
    assert not any("train_real" in one for one in final.warnings)
    with pytest.raises(InputError, match=r"is the supernet of a search .*convert the network that"):
        larq_nas.convert(supernet)
