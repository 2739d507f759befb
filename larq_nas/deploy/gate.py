"""The gate: a model leaves only if it runs in binary and computes the same."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from larq_nas.deploy.audit import Audit, LayerAudit, audit
from larq_nas.deploy.diagnose import first_differing_layer
from larq_nas.deploy.export import export, input_shape
from larq_nas.deploy.parity import KERNELS, Kernel, Parity, compare
from larq_nas.errors import ConversionError, InputError, require_whole, unknown_name
from larq_nas.files import write_atomically

__all__ = ["Conversion", "convert", "first_images", "summarize"]


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
            "audit": dataclasses.asdict(self.audit),
            "parity": [dataclasses.asdict(result) for result in self.parity],
        }

    def __str__(self) -> str:
        return summarize(self.summary())


def summarize(summary: dict[str, Any]) -> str:
    """Return the figures of a `Conversion.summary`, read from JSON or not, for a reader."""
    audited = Audit(
        [LayerAudit(**row) for row in summary["audit"]["layers"]], summary["audit"]["operations"]
    )
    parity = [Parity(**{**result, "rounding": None}) for result in summary["parity"]]
    lines = [f"flatbuffer: {summary['bytes']:,} bytes", audited, *parity]
    return "\n".join(map(str, lines))


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
    if isinstance(kernels, str) or isinstance(allow_float, str) or not kernels:
        raise InputError(
            "`kernels` and `allow_float` must be lists of names, and `kernels` must hold one, but "
            f"got {kernels!r} and {allow_float!r}."
        )
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
            raise _wrong_numbers(model, images, result)
    return Conversion(flatbuffer, audited, parity)


def first_images(data: tf.data.Dataset, examples: int) -> np.ndarray:
    """Return the first images of a batched data set, float32."""
    batches: list[np.ndarray] = []
    for batch in data:
        images = batch[0] if isinstance(batch, tuple) else batch
        if not isinstance(images, tf.Tensor):
            raise InputError(f"`data` must hold images or (image, label), but got {type(batch)}.")
        batches.append(images.numpy().astype("float32"))
        if sum(map(len, batches)) >= examples:
            break
    if not batches:
        raise InputError("`data` must hold images, but it is empty.")
    return np.concatenate(batches)[:examples]


def _wrong_numbers(model: tf.keras.Model, images: np.ndarray, result: Parity) -> ConversionError:
    layer = first_differing_layer(model, images, result.kernel)  # type: ignore[arg-type]
    where = f"layer `{layer}` is the first that differs" if layer else "no single layer differs"
    return ConversionError(
        f"The flatbuffer of `{model.name}` does not compute what Keras does: {where} ({result}); "
        "such layers pad with zeros on an image smaller than their kernel, pad by hand before a "
        "stride, or quantize to three values: use larq_nas.layers.BinaryConv2D with its defaults."
    )


def _require_binary(audited: Audit, allow_float: Sequence[str]) -> None:
    known = [row.layer for row in audited.layers]
    for name in allow_float:
        if name not in known:
            raise unknown_name("layer in `allow_float`", name, known)
    if audited.operations.get("LceDequantize") and not audited.fallbacks:
        raise ConversionError(
            "A binary tensor is turned back into float (LceDequantize): a layer reads signs that "
            "is not a binary convolution; apply the sign inside the convolution."
        )
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
        data = first_images(data, examples)
    images: np.ndarray = np.asarray(data, dtype="float32")[:examples]
    if images.shape[1:] != shape or not len(images):
        raise InputError(
            f"`data` must hold images of shape {shape}, but got {len(images)} of shape "
            f"{images.shape[1:]}."
        )
    return images
