"""Whether a flatbuffer computes what its Keras model computes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import tensorflow as tf

__all__ = ["KERNELS", "Kernel", "Parity", "compare"]

Kernel = Literal["default", "reference", "indirect"]
"""The binary convolution kernels of Larq Compute Engine."""

KERNELS: dict[Kernel, dict[str, bool]] = {
    "default": {},
    "reference": {"use_reference_bconv": True},
    "indirect": {"use_indirect_bgemm": True},
}

_EXACT = 1e-4
_ROUNDING = 1e-6
_BATCH = 64


@dataclass(frozen=True)
class Parity:
    """How the outputs of a flatbuffer compare with those of its Keras model.

    Rounding can turn an activation that is almost zero to the other sign, and one such sign
    changes the outputs of its image visibly. Therefore most images must agree exactly, but
    not every one.

    # Arguments
        kernel: the kernel that ran the flatbuffer.
        examples: number of images compared.
        worst: largest difference of an output.
        median: median over images of the largest difference.
        exact: share of images whose outputs all agree to 1e-4 of the outputs' spread.
        agreement: share of images of the same class.
        expected: share of images that stay exact when Keras's own weights are changed by no
            more than rounding; 1 where that was not needed.
    """

    kernel: str
    examples: int
    worst: float
    median: float
    exact: float
    agreement: float
    expected: float = 1.0

    @property
    def differing(self) -> int:
        """Number of images of another class."""
        return round(self.examples * (1 - self.agreement))

    @property
    def equal(self) -> bool:
        """Whether the differences are no more than rounding explains."""
        return self.exact >= self.expected / 4 and self.agreement >= 0.9

    def __str__(self) -> str:
        return (
            f"{self.kernel} kernel: same class on {self.examples - self.differing} of "
            f"{self.examples} images, {self.exact:.0%} exact, median difference "
            f"{self.median:.1e}, worst {self.worst:.1e}"
        )


def compare(
    model: tf.keras.Model, flatbuffer: bytes, images: np.ndarray, kernels: Sequence[Kernel]
) -> list[Parity]:
    """Run `images` through Keras and through each of `kernels`.

    # Arguments
        model: the model that was converted.
        flatbuffer: what it was converted to.
        images: float32, shape `(examples, height, width, channels)`.
        kernels: the kernels to run.
    """
    from larq_compute_engine import testing

    expected = predict(model, images)
    results = []
    for kernel in kernels:
        got = testing.Interpreter(flatbuffer, **KERNELS[kernel]).predict(images)
        results.append(_figures(kernel, expected, np.reshape(got, expected.shape)))
    if all(result.exact > 0.9 for result in results):
        return results
    floor = _exact_share(expected, predict(_jittered(model), images))
    return [Parity(**{**vars(result), "expected": floor}) for result in results]


def predict(model: tf.keras.Model, images: np.ndarray) -> np.ndarray:
    """Return the outputs of `model`, without tracing it."""
    batches = [images[i : i + _BATCH] for i in range(0, len(images), _BATCH)]
    return np.concatenate([model(batch, training=False).numpy() for batch in batches])


def _figures(kernel: str, expected: np.ndarray, got: np.ndarray) -> Parity:
    difference = np.nan_to_num(_row_difference(expected, got), nan=np.inf)
    return Parity(
        kernel=kernel,
        examples=len(expected),
        worst=float(difference.max()),
        median=float(np.median(difference)),
        exact=_exact_share(expected, got),
        agreement=float(np.mean(_classes(expected) == _classes(got))),
    )


def _exact_share(expected: np.ndarray, got: np.ndarray) -> float:
    spread = max(float(expected.std()), 1e-6)
    return float(np.mean(_row_difference(expected, got) <= _EXACT * spread))


def _row_difference(expected: np.ndarray, got: np.ndarray) -> np.ndarray:
    rows: np.ndarray = np.abs(expected - got).reshape(len(expected), -1).max(axis=1)
    return rows


def _classes(outputs: np.ndarray) -> np.ndarray:
    return outputs.reshape(len(outputs), -1).argmax(axis=1)


def _jittered(model: tf.keras.Model) -> tf.keras.Model:
    generator = np.random.default_rng(0)
    copy = tf.keras.models.clone_model(model)
    copy.set_weights(
        [
            (w * (1 + _ROUNDING * generator.standard_normal(w.shape))).astype(w.dtype)
            for w in model.get_weights()
        ]
    )
    return copy
