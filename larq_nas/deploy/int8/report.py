"""Bytes saved and accuracy lost by int8."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Int8Report", "accuracy"]


@dataclass(frozen=True)
class Int8Report:
    """A network with its real part in int8, compared with the Keras model in float.

    # Arguments
        layers: names of the layers that run in int8.
        stays_float: number of operations that give float, by kind.
        examples: number of images compared.
        agreement: share of images (of pixels, for a map) of the same class as in Keras; `None`
            where outputs are no classes.
        mean: mean over images of the largest difference from Keras, in standard
            deviations of the outputs.
        bytes_before: size of the flatbuffer without int8.
        bytes_after: size with it.
        accuracy_before: accuracy of the Keras model; `None` without labels.
        accuracy_after: accuracy of the flatbuffer, on the first of the kernels compared.
        notes: which layers stay in float although int8 was asked for, and why.
        classified: number of classes compared, one for each image or each pixel.
        pixel_mean: mean over pixels of the largest difference from Keras, in standard deviations;
            `None` where not every output is a map.
    """

    layers: Sequence[str]
    stays_float: dict[str, int]
    examples: int
    agreement: float | None
    mean: float
    bytes_before: int
    bytes_after: int
    accuracy_before: float | None = None
    accuracy_after: float | None = None
    notes: Sequence[str] = ()
    classified: int = 0
    pixel_mean: float | None = None

    def __str__(self) -> str:
        saved = self.bytes_before - self.bytes_after
        same = ""
        if self.agreement is not None:
            number = self.classified or self.examples
            places = "positions" if self.pixel_mean is None else "pixels"
            what = "images" if number == self.examples else places
            same = f"same class as in float on {self.agreement:.1%} of {number:,} {what}, "
        by_pixel = self.pixel_mean is not None
        mean = self.mean if self.pixel_mean is None else self.pixel_mean
        lines = [
            f"int8: {len(self.layers)} layers ({', '.join(self.layers)}), {self.bytes_after:,} "
            f"bytes, {abs(saved):,} {'fewer' if saved >= 0 else 'more'} than in float; {same}"
            f"largest difference of {'a pixel' if by_pixel else 'an image'} on average {mean:.2f} "
            "standard deviations of its output"
        ]
        if self.accuracy_before is not None and self.accuracy_after is not None:
            change = 100 * (self.accuracy_after - self.accuracy_before)
            lines.append(
                f"int8: accuracy {self.accuracy_before:.2%} before, {self.accuracy_after:.2%} "
                f"after ({change:+.2f} points)"
            )
        if self.stays_float:
            counts = ", ".join(f"{count} {kind}" for kind, count in self.stays_float.items())
            lines.append(f"int8: stays in float: {counts}")
        lines += [f"int8: {note}" for note in self.notes]
        return "\n".join(lines)


def accuracy(outputs: np.ndarray, labels: np.ndarray | None) -> float | None:
    """Return the share of images whose largest output is at their label.

    # Arguments
        outputs: shape `(examples, classes)`.
        labels: integers, or one-hot; `None` if not known.

    # Returns
        `None` without labels, or if these are none for the outputs.
    """
    if labels is None or outputs.ndim != 2 or len(labels) != len(outputs):
        return None
    rows = labels.reshape(len(labels), -1)
    if rows.shape[1] == outputs.shape[1]:
        rows = rows.argmax(axis=1)[:, None]
    if rows.shape[1] != 1:
        return None
    return float(np.mean(outputs.argmax(axis=1) == rows[:, 0]))
