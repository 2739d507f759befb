"""Whether a flatbuffer computes what its Keras model computes."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import tensorflow as tf

from larq_nas.deploy.export import run
from larq_nas.errors import ConversionError

__all__ = ["KERNELS", "InKeras", "Kernel", "Parity", "Reference", "compare", "figures", "predict"]

Kernel = Literal["default", "reference", "indirect"]
"""The binary convolution kernels of Larq Compute Engine."""

KERNELS: dict[Kernel, dict[str, bool]] = {
    "default": {},
    "reference": {"use_reference_bconv": True},
    "indirect": {"use_indirect_bgemm": True},
}

_EXACT = 1e-4
_ROUNDING = 1e-6
# Times _EXACT: what float32 keeps of an output's size after all the sums that lead to it.
_RESOLUTION = 0.1
_JITTERS = 3
_BATCH = 64


@dataclass(frozen=True)
class Rounding:
    """What rounding does to a model: Keras against Keras with jittered weights.

    In int8 it is fake-quant against fake-quant with numbers moved before they are rounded.

    # Arguments
        mean: mean over images of the largest difference of an output, in units of spread.
        exact: share of images whose outputs all agree to 1e-4 of the spread.
        agreement: share of images of the same class.
    """

    mean: float
    exact: float
    agreement: float


@dataclass(frozen=True)
class Parity:
    """How the outputs of a flatbuffer compare with those of its Keras model.

    Rounding can turn an activation that is almost zero to the other sign, and one such sign
    changes the outputs of its image visibly. So nearly all images must agree exactly; or,
    in a network that rounding changes more, differ no more than rounding makes them.

    # Arguments
        kernel: the kernel that ran the flatbuffer.
        examples: number of images compared.
        worst: largest difference of an output.
        median: median over images of the largest difference.
        mean: mean over images of the largest difference, in units of its output's spread.
        exact: share of images whose outputs all agree to 1e-4 of their spread over images.
        agreement: share of images of the same class.
        rounding: what rounding alone does; not measured where nearly all images are exact.
        step: in int8, the step that outputs count in: one of it more or less is exact.
    """

    kernel: str
    examples: int
    worst: float
    median: float
    mean: float
    exact: float
    agreement: float
    rounding: Rounding | None = None
    step: float = 0.0

    @property
    def differing(self) -> int:
        """Number of images of another class."""
        return round(self.examples * (1 - self.agreement))

    @property
    def nearly_exact(self) -> bool:
        """Whether the outputs agree so well that no doubt is left."""
        return self.exact >= 0.8 and self.agreement >= 0.97

    @property
    def equal(self) -> bool:
        """Whether the differences are no more than rounding explains."""
        if self.nearly_exact or self.rounding is None:
            return self.nearly_exact
        # In int8, where weights and ranges are held against the flatbuffer's, one image of doubt.
        doubt = 1 / self.examples if self.step else 0.0
        return (
            # A wrong kernel leaves no image exact; where rounding does neither, it is larger.
            self.exact + doubt >= self.rounding.exact / 4
            and self.mean <= 3 * self.rounding.mean + _EXACT
            and self.agreement >= self.rounding.agreement - 0.05
        )

    def __str__(self) -> str:
        exact = f"within one int8 step of {self.step:.1e}" if self.step else "exact"
        return (
            f"{self.kernel} kernel: same class on {self.examples - self.differing} of "
            f"{self.examples} images, {self.exact:.1%} {exact}, median difference "
            f"{self.median:.1e}, worst {self.worst:.1e}"
        )


class Reference(Protocol):
    """What a flatbuffer is to compute."""

    @property
    def name(self) -> str:
        """Name of the model."""

    @property
    def step(self) -> float:
        """The step that outputs count in; 0 for float."""

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return the outputs for `images`."""

    def jittered(self, images: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the outputs as they might be with other roundings."""


@dataclass(frozen=True)
class InKeras:
    """A Keras model as what its flatbuffer is to compute.

    # Arguments
        model: the model.
    """

    model: tf.keras.Model
    step = 0.0

    @property
    def name(self) -> str:
        """Name of the model."""
        return str(self.model.name)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return the outputs for `images`."""
        return predict(self.model, images)

    def jittered(self, images: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the outputs with weights that differ by 1e-6 of their value."""
        generator = np.random.default_rng(0)
        weights = self.model.get_weights()
        # In place: a clone of a model whose quantizers are functions cannot be made.
        try:
            for _ in range(_JITTERS):
                self.model.set_weights([_jittered(w, generator) for w in weights])
                yield predict(self.model, images)
        finally:
            self.model.set_weights(weights)


def compare(
    reference: Reference, flatbuffer: bytes, images: np.ndarray, kernels: Sequence[Kernel]
) -> list[Parity]:
    """Run `images` through Keras and through each of `kernels`.

    # Arguments
        reference: what the flatbuffer is to compute.
        flatbuffer: what it was converted to.
        images: float32, shape `(examples, height, width, channels)`.
        kernels: the kernels to run.

    # Raises
        ConversionError: if Keras's own outputs are not finite, or a kernel cannot run.
    """
    expected, step = reference.predict(images), reference.step
    if not np.isfinite(expected).all():
        raise ConversionError(
            f"`{reference.name}` gives NaN or Inf in Keras already; train it anew."
        )
    results = []
    for kernel in kernels:
        (got,) = run(flatbuffer, images, kernel, **KERNELS[kernel])
        results.append(figures(kernel, expected, np.reshape(got, expected.shape), step))
    if all(result.nearly_exact for result in results):
        return results
    rounding = _rounding(reference, images, expected)
    return [dataclasses.replace(result, rounding=rounding) for result in results]


def predict(model: tf.keras.Model, images: np.ndarray) -> np.ndarray:
    """Return the outputs of `model`, without tracing it."""
    batches = [images[i : i + _BATCH] for i in range(0, len(images), _BATCH)]
    return np.concatenate([model(batch, training=False).numpy() for batch in batches])


def figures(kernel: str, expected: np.ndarray, got: np.ndarray, step: float = 0.0) -> Parity:
    """Return how `got` compares with what was `expected`.

    # Arguments
        kernel: the kernel that gave it.
        expected: outputs, first axis the images.
        got: others of the same shape.
        step: in int8, the step that outputs count in.
    """
    differences = np.nan_to_num(np.abs(expected - got), nan=np.inf)
    spread = _spread(expected)
    difference = _row_largest(differences)
    within = _row_largest(differences - _EXACT * spread) <= step
    return Parity(
        kernel=kernel,
        examples=len(expected),
        worst=float(difference.max()),
        median=float(np.median(difference)),
        mean=float(_row_largest(differences / spread).mean()),
        exact=float(np.mean(within)),
        agreement=float(np.mean(_classes(expected) == _classes(got))),
        step=step,
    )


def _rounding(reference: Reference, images: np.ndarray, expected: np.ndarray) -> Rounding:
    found = [figures("", expected, got, reference.step) for got in reference.jittered(images)]
    return Rounding(
        mean=float(np.mean([figure.mean for figure in found])),
        exact=float(np.mean([figure.exact for figure in found])),
        agreement=float(np.mean([figure.agreement for figure in found])),
    )


def _jittered(weight: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return `weight` changed as rounding would change what it gives."""
    noise = _ROUNDING * generator.standard_normal(weight.shape)
    # A batch norm fresh from the factory has means of 0, on which whole sums of signs tie.
    changed = weight * (1 + noise) + (noise if weight.ndim == 1 else 0)
    return np.asarray(changed.astype(weight.dtype))


def _spread(expected: np.ndarray) -> np.ndarray:
    """Return by how much each output varies, last axis the outputs.

    One that hardly varies is held to the others' measure, and none to more than float32 gives.
    """
    rows = expected.reshape(-1, expected.shape[-1])
    deviations = rows.std(axis=0)
    usual = max(float(np.median(deviations)), 1e-6)
    resolution = np.abs(rows).max(axis=0) * _RESOLUTION
    spread: np.ndarray = np.maximum(np.maximum(deviations, usual), resolution)
    return spread


def _row_largest(values: np.ndarray) -> np.ndarray:
    rows: np.ndarray = values.reshape(len(values), -1).max(axis=1)
    return rows


def _classes(outputs: np.ndarray) -> np.ndarray:
    return outputs.reshape(len(outputs), -1).argmax(axis=1)
