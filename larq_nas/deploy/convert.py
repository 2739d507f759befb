"""The gate: a model leaves only if it runs in binary and computes the same."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from larq_nas.deploy.audit import Audit, audit
from larq_nas.deploy.export import export, input_shape
from larq_nas.deploy.parity import KERNELS, Kernel, Parity, compare
from larq_nas.errors import ConversionError, InputError, require_whole, unknown_name
from larq_nas.files import write_atomically

__all__ = ["Conversion", "convert"]


@dataclass(frozen=True)
class Conversion:
    """A model that Larq Compute Engine runs, and the evidence for it.

    # Arguments
        flatbuffer: the bytes of the `.tflite` file.
        audit: which layer became which operation.
        parity: the comparison with Keras, for each kernel.
    """

    flatbuffer: bytes = field(repr=False)
    audit: Audit
    parity: Sequence[Parity]

    def save(self, path: str | Path) -> None:
        """Write the flatbuffer to `path`, whole or not at all."""
        try:
            write_atomically(path, self.flatbuffer)
        except OSError as error:
            raise InputError(f"Cannot write `{path}`: {error.strerror}.") from None

    def summary(self) -> dict[str, Any]:
        """Return the figures as a dictionary for JSON."""
        return {
            "bytes": len(self.flatbuffer),
            "operations": self.audit.operations,
            "layers": [vars(row) for row in self.audit.layers],
            "parity": [vars(result) for result in self.parity],
        }

    def __str__(self) -> str:
        lines = [f"flatbuffer: {len(self.flatbuffer):,} bytes", str(self.audit)]
        return "\n".join([*lines, *map(str, self.parity)])


def convert(
    model: tf.keras.Model,
    data: tf.data.Dataset | np.ndarray | None = None,
    *,
    examples: int = 128,
    kernels: Sequence[Kernel] = ("default", "reference"),
    allow_float: Sequence[str] = (),
) -> Conversion:
    """Convert a model for Larq Compute Engine, and check it before handing it out.

    !!! example
        ```python
        conversion = larq_nas.convert(model, validation)
        print(conversion)
        conversion.save("model.tflite")
        ```

    # Arguments
        model: a built Keras or Larq model with one image input and one output.
        data: images to compare on, as an array of shape `(examples, height, width,
            channels)` or a batched data set of images or `(image, label)`; by default
            random numbers. Real images are the better evidence.
        examples: number of images compared, at most.
        kernels: the kernels that must agree with Keras: `"default"`, `"reference"` or
            `"indirect"`.
        allow_float: names of binary layers that may run in float.

    # Returns
        A `Conversion`: flatbuffer, audit and parity.

    # Raises
        ConversionError: if a binary layer fell back to float, naming it and the cause, or
            if the outputs differ from Keras's by more than rounding.
        InputError: if the model or the data cannot be used.
    """
    for kernel in kernels:
        if kernel not in KERNELS:
            raise unknown_name("kernel", kernel, KERNELS)
    require_whole(examples=examples)
    images = _images(data, input_shape(model), examples)
    flatbuffer = export(model)
    audited = audit(model, flatbuffer)
    _require_binary(audited, allow_float)
    parity = compare(model, flatbuffer, images, kernels)
    for result in parity:
        if not result.equal:
            raise ConversionError(
                f"The flatbuffer of `{model.name}` does not compute what Keras does ({result}); "
                "a layer converts to wrong numbers, such as zero padding on an image smaller "
                "than its kernel: use larq_nas.layers.BinaryConv2D."
            )
    return Conversion(flatbuffer, audited, parity)


def _require_binary(audited: Audit, allow_float: Sequence[str]) -> None:
    known = [row.layer for row in audited.layers]
    for name in allow_float:
        if name not in known:
            raise unknown_name("layer in `allow_float`", name, known)
    refused = [row for row in audited.fallbacks if row.layer not in allow_float]
    if refused:
        others = f" (and {len(refused) - 1} more layers)" if len(refused) > 1 else ""
        raise ConversionError(
            f"Binary layer `{refused[0].layer}`{others} would run in float: {refused[0].cause}; "
            f"or accept it with allow_float=[{refused[0].layer!r}]."
        )


def _images(
    data: tf.data.Dataset | np.ndarray | None, shape: tuple[int, ...], examples: int
) -> np.ndarray:
    if data is None:
        return np.random.default_rng(0).standard_normal((examples, *shape)).astype("float32")
    if isinstance(data, tf.data.Dataset):
        data = _first(data, examples)
    images: np.ndarray = np.asarray(data, dtype="float32")[:examples]
    if images.shape[1:] != shape or not len(images):
        raise InputError(f"`data` must hold images of shape {shape}, but got {images.shape[1:]}.")
    return images


def _first(data: tf.data.Dataset, examples: int) -> np.ndarray:
    batches: list[np.ndarray] = []
    for batch in data:
        batches.append(np.asarray(batch[0] if isinstance(batch, tuple) else batch))
        if sum(map(len, batches)) >= examples:
            break
    return np.concatenate(batches) if batches else np.zeros((0,))
