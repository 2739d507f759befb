import numpy as np
import pytest
import tensorflow as tf
from conftest import randomize

import larq_nas
from larq_nas.deploy.int8 import InInt8, convert, folding
from larq_nas.deploy.int8.folding import Weights
from larq_nas.deploy.int8.plan import Grid
from larq_nas.errors import ConversionError, InputError
from larq_nas.layers import BinaryConv2D, binary_conv, classifier, stem


@pytest.fixture
def model() -> tf.keras.Model:
    inputs = tf.keras.Input((8, 8, 3))
    x = binary_conv(stem(inputs, 32), 32, 3, name="a")
    return randomize(tf.keras.Model(inputs, classifier(x, 4)))


@pytest.fixture
def pictures() -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (64, 8, 8, 3)).astype("float32")


def test_int8_needs_images(model) -> None:
    with pytest.raises(InputError, match="`int8` needs `data`: real images"):
        larq_nas.convert(model, int8="ends")


def test_an_unknown_part_is_refused(model, pictures) -> None:
    with pytest.raises(InputError, match="Unknown part for `int8` `end`; did you mean `ends`"):
        larq_nas.convert(model, pictures, int8="end")


def test_a_first_layer_without_an_int8_form_is_refused(pictures) -> None:
    inputs = tf.keras.Input((8, 8, 3))
    x = tf.keras.layers.SeparableConv2D(32, 3, name="pair")(inputs)
    model = randomize(tf.keras.Model(inputs, classifier(BinaryConv2D(32, 3, name="a")(x), 4)))
    with pytest.raises(ConversionError, match="`pair` cannot run in int8: SeparableConv2D is none"):
        larq_nas.convert(model, pictures, int8="ends")
    assert larq_nas.convert(model, pictures, int8="all").int8.layers == ["head_dense"]


def test_a_network_without_fake_quant_is_refused(model, pictures, monkeypatch) -> None:
    """The converter then gives a float model, and does not say so."""
    monkeypatch.setattr(Grid, "__call__", lambda self, x: x)
    with pytest.raises(ConversionError, match="`stem_conv` was asked for in int8, but no CONV_2D"):
        larq_nas.convert(model, pictures, int8="ends")


@pytest.mark.parametrize("factor", [0.5, 50.0])
@pytest.mark.parametrize("which", ["ends", "all"])
def test_a_wrong_range_is_refused(model, pictures, monkeypatch, factor: float, which: str) -> None:
    whole = Grid._step_and_zero

    def wrong(self: Grid) -> tuple[float, int]:
        step, zero = whole(self)
        return step * factor, zero

    monkeypatch.setattr(Grid, "_step_and_zero", wrong)
    with pytest.raises(ConversionError, match="loses too much in int8"):
        larq_nas.convert(model, pictures, int8=which)


def test_a_wrong_range_between_layers_is_refused(model, pictures, monkeypatch) -> None:
    whole = convert.quantize

    def wrong(*args) -> InInt8:
        network = whole(*args)
        added = next(i for i, c in enumerate(network.lowered.calls) if c.name == "a_add")
        network.rounded[added].seen /= 2
        return network

    monkeypatch.setattr(convert, "quantize", wrong)
    with pytest.raises(ConversionError, match="Layer `a_add` loses too much"):
        larq_nas.convert(model, pictures, int8="all")


def test_a_scale_of_one_layer_that_is_off_is_refused(model, pictures, monkeypatch) -> None:
    whole = folding._weights

    def wrong(call, scale: np.ndarray) -> Weights:
        return whole(call, scale * (1.5 if call.name == "head_dense" else 1.0))

    monkeypatch.setattr(folding, "_weights", wrong)
    with pytest.raises(ConversionError, match="Layer `head_dense` loses too much in int8"):
        larq_nas.convert(model, pictures, int8="ends")


def converting_another(monkeypatch, change) -> None:
    """Convert another network than the one that is compared with."""
    whole, networks = convert.quantize, []

    def quantized(*args) -> InInt8:
        networks.append(whole(*args))
        return networks[-1]

    def export(lowered) -> bytes:
        undo = change(networks[-1])
        flatbuffer = original(lowered)
        undo()
        return flatbuffer

    original = convert.export_lowered
    monkeypatch.setattr(convert, "quantize", quantized)
    monkeypatch.setattr(convert, "export_lowered", export)


def test_an_output_without_fake_quant_is_named(model, pictures, monkeypatch) -> None:
    def change(network: InInt8):
        layer = network.layers[1]
        before, layer.write = layer.write, lambda y: y
        return lambda: setattr(layer, "write", before)

    converting_another(monkeypatch, change)
    with pytest.raises(ConversionError, match="`head_dense` was asked for in int8, but no FULLY"):
        larq_nas.convert(model, pictures, int8="ends")


def test_other_weights_in_the_flatbuffer_are_refused(model, pictures, monkeypatch) -> None:
    def change(network: InInt8):
        variable = network.layers[0].weights.variable
        before = variable.numpy()
        variable.assign(before / 1.5)
        return lambda: variable.assign(before)

    converting_another(monkeypatch, change)
    with pytest.raises(ConversionError, match=r"`stem_conv` was asked for.*\(1 of 1 are in int8"):
        larq_nas.convert(model, pictures, int8="ends")


def test_another_range_in_the_flatbuffer_is_refused(model, pictures, monkeypatch) -> None:
    def change(network: InInt8):
        grid = network.layers[0].write
        before = grid.seen.copy()
        grid.seen *= 1.5
        return lambda: np.copyto(grid.seen, before)

    converting_another(monkeypatch, change)
    with pytest.raises(ConversionError, match="`stem_conv` has an output in steps of"):
        larq_nas.convert(model, pictures, int8="ends")


@pytest.mark.parametrize("number", [0, 1])
def test_another_bias_in_the_flatbuffer_is_refused(model, pictures, monkeypatch, number) -> None:
    def change(network: InInt8):
        layer = network.layers[number]
        before = layer.bias
        layer.bias = 1.5 * before
        return lambda: setattr(layer, "bias", before)

    converting_another(monkeypatch, change)
    with pytest.raises(ConversionError, match="in int8 does not compute what fake-quant does"):
        larq_nas.convert(model, pictures, int8="ends")


def test_another_range_between_layers_in_the_flatbuffer_is_refused(
    model, pictures, monkeypatch
) -> None:
    def change(network: InInt8):
        added = next(i for i, c in enumerate(network.lowered.calls) if c.name == "a_add")
        grid = network.rounded[added]
        before = grid.seen.copy()
        grid.seen /= 2
        return lambda: np.copyto(grid.seen, before)

    converting_another(monkeypatch, change)
    with pytest.raises(ConversionError, match="in int8 does not compute what fake-quant does"):
        larq_nas.convert(model, pictures, int8="all")
