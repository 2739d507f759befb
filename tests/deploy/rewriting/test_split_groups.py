"""Groups of a convolution run on every kernel, split or padded."""

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from conftest import quick
from convolutions import conv, converted, exact_kinds, model_of, on_zero_one

from larq_nas.deploy.rewriting import lower


@pytest.mark.parametrize("zero_one", [False, True])
@pytest.mark.parametrize(("groups", "kernel_size"), quick([(12, 3), (4, 1), (2, (1, 3))], 2))
def test_groups_run_on_every_kernel(groups: int, kernel_size, zero_one: bool) -> None:
    settings = {"groups": groups, "activation": "relu", "name": "grouped"}
    if zero_one:
        settings |= {"input_quantizer": lq.quantizers.DoReFa(1), "pad_values": 0.0}
    model = model_of(lambda x: conv(48, kernel_size, **settings)(x))
    assert converted(model).audit.operations["LceBconv2d"] == groups
    without_default = converted(model, kernels=("reference", "indirect"))
    (line,) = without_default.rewrites
    assert "rather than" in line
    assert line.count(" bytes and ") == line.count(" ms") == 2
    assert without_default.audit.operations["LceBconv2d"] in (1, groups)


@pytest.mark.parametrize("kernel_size", [1, 3, (1, 2)])
@pytest.mark.parametrize("pad_values", [0.0, 1.0])
@pytest.mark.parametrize("channels", [36, 64, 60])
def test_padded_groups_are_exact(kernel_size, pad_values: float, channels: int) -> None:
    """Even and odd numbers of padding, and none at all."""
    groups = 12 if channels < 64 else 2

    def padded(computation, shape) -> tuple[int, float]:
        return (1, 1.0) if "padded" in computation.name else (2, 2.0)

    layer = conv(24, kernel_size, groups=groups, pad_values=pad_values, activation="relu")
    model = model_of(lambda x: layer(x), (9, 10, channels))
    lowered = lower(model, padded)
    (rewrite,) = lowered.rewrites.values()
    odd = channels // groups % 2
    assert ("padded" in rewrite.reason.split("rather")[0]) == (pad_values == 1 or not odd)
    images = np.random.default_rng(0).normal(size=(8, 9, 10, channels)).astype("float32")
    np.testing.assert_allclose(lowered(images)[0], model(images), atol=1e-5)


@pytest.mark.parametrize("quantizer", [lq.quantizers.DoReFa(1), lq.quantizers.SteHeaviside()])
def test_groups_on_zero_and_one_are_exact_at_ties(quantizer) -> None:
    model = tf.keras.Sequential(
        [tf.keras.Input((8, 8, 32)), on_zero_one(quantizer, filters=32, groups=4)]
    )
    images = np.random.default_rng(0).integers(-2, 3, (8, 8, 8, 32)).astype("float32") / 2
    assert exact_kinds(model, images).count("LceBconv2d") == 4
