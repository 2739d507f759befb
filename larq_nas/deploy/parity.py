"""Parity of a flatbuffer's outputs with those of its Keras model."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import tensorflow as tf

from larq_nas.deploy.export import run
from larq_nas.deploy.meaning import Kind, meanings
from larq_nas.deploy.operations import KERNELS, Kernel

_EXACT = 1e-4
_ROUNDING = 1e-6
# Of an output's largest number: what float32 keeps of it after all the sums that lead to it.
_RESOLUTION = 1e-5
_JITTERS = 3
_BATCH = 64
# Axes of a batch of maps.
_MAP = 4


@dataclass(frozen=True)
class Rounding:
    """What rounding does to a model: Keras against Keras with jittered weights.

    In int8 it is fake-quant against fake-quant with numbers moved before they are rounded.

    # Arguments
        mean: mean over images of the largest difference of an output, in standard deviations.
        exact: share of images whose outputs all agree to 1e-4 of a standard deviation.
        agreement: share of examples of the same class; `None` where outputs are no classes.
    """

    mean: float
    exact: float
    agreement: float | None


@dataclass(frozen=True)
class Parity:
    """How the outputs of a flatbuffer compare with those of its Keras model.

    Rounding can turn an activation that is almost zero to the other sign, and one such sign
    changes the outputs of its image visibly. These figures say how often that happens. Whether
    the flatbuffer computes what Keras does is decided operation by operation
    (`larq_nas.deploy.equivalence`).

    # Arguments
        kernel: the kernel that ran the flatbuffer.
        examples: number of images compared.
        worst: largest difference of an output.
        median: median over images of the largest difference.
        mean: mean over images of the largest difference, in standard deviations of its output.
        exact: share of images whose outputs all agree to 1e-4 of their standard deviation.
        agreement: share of images (of pixels, for a map) of the same class, ties allowed;
            `None` where outputs are no classes.
        rounding: what rounding alone does in Keras; not measured where nearly all images are
            exact.
        step: in int8, the step that outputs count in: one of it more or less is exact.
        operations: number of operations that were compared one by one.
        meaning: what the outputs are, see `larq_nas.deploy.meaning`.
        pixels: share of pixels whose numbers all agree to the same measure; `None` where no output
            is a map.
        pixel_mean: mean over pixels of the largest difference, in standard deviations of its
            output; `None` where not every output is a map.
        classified: number of classes compared, one for each image or each pixel; 0 where outputs
            are no classes.
    """

    kernel: str
    examples: int
    worst: float
    median: float
    mean: float
    exact: float
    agreement: float | None
    rounding: Rounding | None = None
    step: float = 0.0
    operations: int = 0
    meaning: Kind = "scores"
    pixels: float | None = None
    pixel_mean: float | None = None
    classified: int = 0

    @property
    def nearly_exact(self) -> bool:
        """Whether the outputs agree so well that rounding need not be asked."""
        return self.exact >= 0.8 and (self.agreement is None or self.agreement >= 0.97)

    @property
    def equal(self) -> bool:
        """Whether the differences are no more than rounding explains."""
        rounding = self.rounding
        if self.nearly_exact or rounding is None:
            return self.nearly_exact
        # Rounding as large as the outputs' standard deviation, or not finite, explains nothing.
        if not rounding.mean <= 1:
            return False
        # In int8, where weights and ranges are held against the flatbuffer's, one image of doubt.
        doubt = 1 / self.examples if self.step else 0.0
        return (
            # A wrong kernel leaves no image exact; where rounding does neither, it is larger.
            self.exact + doubt >= rounding.exact / 4
            and self.mean <= 3 * rounding.mean + _EXACT
            and (self.agreement or 0.0) >= (rounding.agreement or 0.0) - 0.05
        )

    @property
    def agreement_text(self) -> str:
        """How many images or pixels have the same class, in words; empty if they have none."""
        if self.agreement is None:
            return ""
        number = self.classified or self.examples
        places = "positions" if self.pixels is None else "pixels"
        what = "images" if number == self.examples else places
        same = round(number * self.agreement)
        best = "class" if self.meaning == "classes" else "largest output"
        return f"same {best} on {same:,} of {number:,} {what}"

    @property
    def text(self) -> str:
        """The figures in words, without the kernel."""
        measure = f"within one int8 step of {self.step:.1e}" if self.step else "equal to 1e-4"
        exact = f"{self.exact:.1%} {measure}"
        if self.pixels is not None:
            exact = f"{self.pixels:.1%} of the pixels {measure} ({self.exact:.1%} of whole images)"
        compared = f"{self.operations} operations agree one by one" if self.operations else ""
        largest = (
            f"largest difference of an image {self.median:.1e} (median), {self.worst:.1e} (worst)"
        )
        equal = ", ".join(filter(None, [self.agreement_text, exact, largest]))
        return "; ".join(filter(None, [compared, equal]))

    def __str__(self) -> str:
        return f"{self.kernel} kernel: {self.text}"


def kernel_lines(
    results: Sequence[Parity], further: Callable[[Parity], str] | None = None
) -> list[str]:
    """Return comparisons in words, one line for all kernels with the same figures.

    # Arguments
        results: the comparisons, one for each kernel.
        further: what is to be said of each beside its own words.
    """
    kernels: dict[str, list[str]] = {}
    for result in results:
        text = result.text + (further(result) if further else "")
        kernels.setdefault(text, []).append(result.kernel)
    return [
        f"{', '.join(names)} kernel{'s' * (len(names) > 1)}: {text}"
        for text, names in kernels.items()
    ]


class Reference(Protocol):
    """What a flatbuffer is to compute; see `InKeras`."""

    @property
    def step(self) -> float: ...

    @property
    def meanings(self) -> Sequence[Kind]: ...

    def predict(self, images: Sequence[np.ndarray]) -> list[np.ndarray]: ...

    def jittered(self, images: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]: ...


@dataclass(frozen=True)
class InKeras:
    """A Keras model as what its flatbuffer is to compute.

    # Arguments
        model: the model.
        absolute: whether jitter moves numbers of 0 as well.
    """

    model: tf.keras.Model
    absolute: bool = True
    step = 0.0

    @cached_property
    def meanings(self) -> Sequence[Kind]:
        """What each output is."""
        return [one.kind for one in meanings(self.model)]

    def predict(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the outputs for `images`."""
        return predict(self.model, images)

    def jittered(self, images: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
        """Yield the outputs with weights that differ by 1e-6 of their value."""
        generator = np.random.default_rng(0)
        model = self.model
        weights = model.get_weights()
        names = [weight.name for weight in model.weights]
        # In place: a clone of a model whose quantizers are functions cannot be made.
        try:
            for _ in range(_JITTERS):
                pairs = zip(weights, names, strict=True)
                model.set_weights([self._jittered(*pair, generator) for pair in pairs])
                yield predict(model, images)
        finally:
            model.set_weights(weights)

    def _jittered(self, weight: np.ndarray, name: str, rng: np.random.Generator) -> np.ndarray:
        """Return `weight` changed as rounding would change what it gives."""
        if weight.dtype.kind != "f":
            return weight
        noise = _ROUNDING * rng.standard_normal(weight.shape)
        # A batch norm fresh from the factory has means of 0, on which whole sums of signs tie. A
        # variance is moved by its own value alone: below 0 it would give no number at all.
        absolute = self.absolute and weight.ndim == 1 and "variance" not in name
        changed = weight * (1 + noise) + (noise if absolute else 0)
        return np.asarray(changed.astype(weight.dtype))


def compare(
    reference: Reference,
    flatbuffer: bytes,
    images: Sequence[np.ndarray],
    kernels: Sequence[Kernel],
) -> list[Parity]:
    """Run `images` through Keras and through each of `kernels`.

    # Raises
        ConversionError: if Keras's own outputs are not finite, or a kernel cannot run.
    """
    expected = reference.predict(images)
    results = []
    for kernel in kernels:
        got = run(flatbuffer, images, kernel, **KERNELS[kernel])
        results.append(figures(kernel, expected, got, reference.meanings, reference.step))
    return with_rounding(results, reference, images, expected)


def with_rounding(
    results: Sequence[Parity],
    reference: Reference,
    images: Sequence[np.ndarray],
    expected: Sequence[np.ndarray],
) -> list[Parity]:
    """Return comparisons with what rounding does in Keras, if it does much."""
    if all(result.nearly_exact for result in results):
        return list(results)
    found = [
        figures("", expected, got, reference.meanings, reference.step)
        for got in reference.jittered(images)
    ]
    shares = [figure.agreement for figure in found if figure.agreement is not None]
    rounding = Rounding(
        mean=float(np.mean([figure.mean for figure in found])),
        exact=float(np.mean([figure.exact for figure in found])),
        agreement=float(np.mean(shares)) if shares else None,
    )
    return [dataclasses.replace(result, rounding=rounding) for result in results]


def predict(model: tf.keras.Model, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the outputs of `model`, without tracing it."""
    found: list[list[np.ndarray]] = []
    for start in range(0, len(images[0]), _BATCH):
        batch = [image[start : start + _BATCH] for image in images]
        outputs = model(batch if len(batch) > 1 else batch[0], training=False)
        found.append([output.numpy() for output in tf.nest.flatten(outputs)])
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def figures(
    kernel: str,
    expected: Sequence[np.ndarray],
    got: Sequence[np.ndarray],
    kinds: Sequence[Kind],
    step: float = 0.0,
) -> Parity:
    """Return how `got` compares with what was `expected`."""
    worst: list[np.ndarray] = []
    relative, within, pixels, pixel_means = [], [], list[float](), list[float]()
    shares: list[tuple[float, int]] = []
    for one, other, kind in zip(expected, got, kinds, strict=True):
        other = np.reshape(other, one.shape)
        if not one.size:
            continue
        one, other = one.astype("float64"), other.astype("float64")
        differences = np.nan_to_num(np.abs(one - other), nan=np.inf, posinf=np.inf)
        spread = _spread(one)
        worst.append(_row_largest(differences))
        relative.append(_row_largest(differences / spread))
        agreeing = differences - _EXACT * spread <= step
        within.append(agreeing.reshape(len(one), -1).all(axis=1))
        if one.ndim == _MAP:
            pixels.append(float(agreeing.all(axis=-1).mean()))
            pixel_means.append(float((differences / spread).max(axis=-1).mean()))
        if kind == "classes" or (kind == "scores" and one.ndim == 2 and one.shape[-1] > 1):
            positions = one.size // one.shape[-1]
            shares.append((same_class(one, other, 0.0, spread) / positions, positions))
    largest = np.max(worst, axis=0)
    return Parity(
        kernel=kernel,
        examples=len(largest),
        worst=float(largest.max()),
        median=float(np.median(largest)),
        mean=float(np.max(relative, axis=0).mean()),
        exact=float(np.all(within, axis=0).mean()),
        agreement=min(shares)[0] if shares else None,
        step=step,
        meaning="classes" if "classes" in kinds else kinds[0],
        pixels=min(pixels, default=None),
        pixel_mean=max(pixel_means) if 0 < len(pixel_means) == len(worst) else None,
        classified=min(shares)[1] if shares else 0,
    )


def same_class(wanted: np.ndarray, got: np.ndarray, step: float, spread: np.ndarray) -> int:
    """Return at how many positions the best class of `got` is best in `wanted`, or as good."""
    best = got.argmax(axis=-1)
    chosen = np.take_along_axis(wanted, best[..., None], -1)[..., 0]
    room = step + _EXACT * np.asarray(spread, "float64")[best]
    finite = np.isfinite(got).all(axis=-1)
    return int(np.sum(finite & (chosen + room >= wanted.max(axis=-1))))


def _spread(expected: np.ndarray) -> np.ndarray:
    """Return by how much each output varies, last axis the outputs.

    Each is held to its own measure, and none to more than float32 gives.
    """
    rows = expected.reshape(-1, expected.shape[-1])
    resolution = np.abs(rows).max(axis=0) * _RESOLUTION / _EXACT
    return np.maximum(np.maximum(rows.std(axis=0), resolution), 1e-30)


def _row_largest(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1).max(axis=1)
