"""Whether layers asked for in int8 run in int8, and compute almost what they did in float."""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from larq_nas.deploy.flatbuffer import Operator, operators
from larq_nas.deploy.int8.folding import Folded, keeps_activation
from larq_nas.deploy.int8.network import InInt8
from larq_nas.deploy.rewriting import Lowered
from larq_nas.deploy.rewriting.walk import compute
from larq_nas.errors import ConversionError

__all__ = ["LARGEST_LOSS", "losses", "require_close", "require_int8", "stays_float"]

_MOVES = ("QUANTIZE", "DEQUANTIZE", "LceQuantize", "LceBconv2d")
_IMAGES = 64
# Int8 loses a hundredth or so; a range that is too narrow, or a wrong scale, loses more.
LARGEST_LOSS = 0.1
# A channel that varies less beside the largest number has one value, up to float32's rounding.
_CONSTANT, _ALL = 1e-6, 0.9


def require_close(network: InInt8, lowered: Lowered, images: Sequence[np.ndarray]) -> None:
    """Refuse a layer whose outputs in int8 differ from those in float by more than int8 costs.

    Each layer is judged by itself, on what it reads in float: the root mean square of the
    differences must be at most a tenth of the outputs' standard deviation.

    # Arguments
        network: the network in int8.
        lowered: the same in float.
        images: one array for each input, first axis the examples.
    """
    names = {index: call.name for index, call in enumerate(lowered.calls)}
    names |= {layer.end: layer.call.name for layer in network.layers}
    for index, loss in losses(network, lowered, images).items():
        if not loss <= LARGEST_LOSS:
            raise ConversionError(
                f"Layer `{names[index]}` loses too much in int8: its outputs differ by {loss:.0%} "
                f"of their standard deviation, and at most {LARGEST_LOSS:.0%} is rounding; "
                "calibrate on images as they are trained on, or convert without int8."
            )


def losses(network: InInt8, lowered: Lowered, images: Sequence[np.ndarray]) -> Mapping[int, float]:
    """Return how much the outputs of each call in int8 differ, in standard deviations.

    By index; that of a layer is the last call that is folded into it.
    """
    layers = {layer.end: layer for layer in network.layers}
    ends = sorted({*network.rounded, *layers})
    reads = [layers[index].reads if index in layers else index for index in ends]
    given = [tf.constant(image[:_IMAGES]) for image in images]
    values = compute(lowered.calls, given, [*reads, *ends], lowered.rewrites)
    found = {}
    for index, x, output in zip(ends, values, values[len(ends) :], strict=False):
        if index in layers:
            found[index] = _loss_of_layer(layers[index], x, output)
        else:
            grid = network.rounded[index]
            found[index] = _loss_between(grid.cut(output.numpy()), grid(output).numpy())
    return found


def _loss_of_layer(layer: Folded, x: tf.Tensor, output: tf.Tensor) -> float:
    # A softmax of large numbers differs more than they do.
    keeps = keeps_activation(layer.call.layer)
    output = _without_activation(layer.call.layer)(x) if keeps else output
    return _loss(layer.write.cut(output.numpy()), layer.before_activation(x).numpy())


def _loss(expected: np.ndarray, got: np.ndarray) -> float:
    root = float(np.sqrt(np.mean(np.square(got - expected))))
    return root / max(float(expected.std()), 1e-6)


def _loss_between(expected: np.ndarray, got: np.ndarray) -> float:
    """Return the loss of what stands between real layers.

    Beside one channel of large numbers, rounding may leave nothing of all others: where the
    median channel loses nine tenths of its standard deviation, its loss is returned.
    """
    rows, rounded = (x.reshape(-1, x.shape[-1]) for x in (expected, got))
    spread = rows.std(axis=0)
    varies = spread > _CONSTANT * max(float(np.abs(rows).max()), 1e-6)
    roots = np.sqrt(np.mean(np.square(rounded - rows), axis=0))
    median = float(np.median(roots[varies] / spread[varies])) if varies.any() else 0.0
    whole = _loss(expected, got)
    return max(whole, median) if median > _ALL else whole


def _without_activation(layer: tf.keras.layers.Layer) -> tf.keras.layers.Layer:
    copy = type(layer).from_config({**layer.get_config(), "activation": "linear"})
    copy.build(layer.input_shape)
    copy.set_weights(layer.get_weights())
    return copy


def require_int8(network: InInt8, flatbuffer: bytes) -> dict[str, str]:
    """Return which operation computes each layer in int8, or refuse one that does not.

    # Arguments
        network: the network in int8.
        flatbuffer: what it was converted to.
    """
    found = operators(flatbuffer)
    return {layer.call.layer.name: _operation(layer, found) for layer in network.layers}


def _operation(layer: Folded, found: Sequence[Operator]) -> str:
    kind, name = layer.weights.operation, layer.call.name
    same = [op for op in found if layer.weights.are_those_of(op)]
    for op in same:
        if op.type == "INT8" and np.isclose(op.step, layer.write.step, rtol=1e-3):
            return f"{kind} in int8"
    if same:
        raise ConversionError(
            f"Layer `{name}` has an output in steps of {same[0].step:.3g} in the flatbuffer, not "
            f"of {layer.write.step:.3g} as calibrated ({same[0].type}): the converter did not use "
            "the fake-quant on its output."
        )
    of_kind = [op for op in found if op.kind == kind]
    in_int8 = sum(op.steps is not None for op in of_kind)
    raise ConversionError(
        f"Layer `{name}` was asked for in int8, but no {kind} of the flatbuffer holds its weights "
        f"in int8 ({in_int8} of {len(of_kind)} are in int8): the converter needs fake-quant on "
        "its input, its weights and its output."
    )


def stays_float(flatbuffer: bytes) -> dict[str, int]:
    """Return the operations whose outputs are float, by kind, the binary convolutions aside."""
    counts: dict[str, int] = {}
    for op in operators(flatbuffer):
        if op.type == "FLOAT32" and op.kind not in _MOVES:
            counts[op.kind] = counts.get(op.kind, 0) + 1
    return counts
