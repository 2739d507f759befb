import numpy as np
import pytest
import tensorflow as tf

from larq_nas.layers.mixture import Mixture


@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_equation_2(temperature: float) -> None:
    """A sum over inputs and operations, the zero operation (index 1) adding nothing."""
    rng = np.random.default_rng(0)
    alpha = rng.normal(size=(2, 3))
    candidates = [(0, 0), (0, 2), (1, 0), (1, 2)]
    tensors = [rng.normal(size=(2, 4)).astype("float32") for _ in candidates]
    layer = Mixture(candidates, inputs=2, operations=3, temperature=temperature)
    layer.build(None)
    layer.alpha.assign(alpha)
    weights = np.exp(alpha / temperature)
    weights /= weights.sum(axis=1, keepdims=True)
    expected = sum(weights[i, o] * x for (i, o), x in zip(candidates, tensors, strict=True))
    np.testing.assert_allclose(layer(tensors), expected, rtol=1e-5)
    np.testing.assert_allclose(layer.probabilities, weights, rtol=1e-5)


def test_calls_share_alpha() -> None:
    layer = Mixture([(0, 0)], inputs=1, operations=2)
    layer([tf.ones((1, 4))])
    layer([tf.ones((1, 2, 2, 8))])
    assert len(layer.weights) == 1
