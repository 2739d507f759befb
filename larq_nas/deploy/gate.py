"""The gate: a model leaves only if it runs in binary and computes the same."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from larq_nas.cost.graph import functional
from larq_nas.deploy.audit import Audit, audit, float_signs, require_kernels
from larq_nas.deploy.causes import cause_beforehand
from larq_nas.deploy.conversion import Conversion, digest
from larq_nas.deploy.diagnose import constant_channels, wrong_numbers
from larq_nas.deploy.export import export_function, input_shape
from larq_nas.deploy.int8 import NAMES, Int8
from larq_nas.deploy.int8.convert import in_int8
from larq_nas.deploy.parity import KERNELS, InKeras, Kernel, compare
from larq_nas.deploy.pieces import require_each_layer
from larq_nas.deploy.rewriting import Lowered, lower
from larq_nas.deploy.rewriting.measure import group_cost
from larq_nas.errors import ConversionError, InputError, require_whole, unknown_name
from larq_nas.layers import BinaryConv2D

__all__ = ["convert", "first_images"]


def convert(
    model: tf.keras.Model,
    data: tf.data.Dataset | np.ndarray | None = None,
    *,
    examples: int = 128,
    kernels: Sequence[Kernel] = ("default", "reference"),
    allow_float: Sequence[str] = (),
    rewrite: bool = True,
    int8: Int8 | None = None,
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
        rewrite: whether to compute what would run in float in another way that is binary and
            gives the same numbers; each is named in the result. Without `"default"` among
            `kernels`, ways to compute groups are timed here, and the faster one is taken: of
            two that are nearly as fast, another run may take the other.
        int8: which real layers run in int8: `"ends"` for those before the first binary layer
            and behind the last, `"all"` for all that is not binary, as far as it converts;
            needs `data`, on which ranges are calibrated. Inputs and outputs stay float32.

    # Returns
        A `Conversion`: flatbuffer, audit, parity, and what was rewritten.

    # Raises
        ConversionError: if a binary layer fell back to float, naming it and the cause, or
            if the outputs differ from Keras's by more than rounding.
        InputError: if the model or the data cannot be used.
    """
    if int8 is not None and int8 not in NAMES:
        raise unknown_name("part for `int8`", int8, NAMES)
    if int8 and data is None:
        raise InputError(
            "`int8` needs `data`: real images, on which the ranges of numbers are calibrated "
            "(on the command line, convert the directory of a run, which keeps some)."
        )
    lists = isinstance(kernels, list | tuple) and isinstance(allow_float, list | tuple)
    if not lists or not kernels:
        raise InputError(
            "`kernels` and `allow_float` must be lists of names, and `kernels` must hold one, but "
            f"got {kernels!r} and {allow_float!r}."
        )
    for kernel in kernels:
        if kernel not in KERNELS:
            raise unknown_name("kernel", kernel, KERNELS)
    require_whole(examples=examples)
    model = functional(model)
    shape = input_shape(model)
    images, labels = _examples(data, shape, examples)
    lowered = lower(model, None if "default" in kernels else group_cost(kernels), rewrite=rewrite)
    _require_possible(lowered, allow_float)
    flatbuffer = export_function(lowered, shape, lowered.variables)
    require_kernels(model, flatbuffer)
    audited = audit(model, flatbuffer, lowered.kernels(), lowered.binary_layers)
    _require_binary(audited, allow_float)
    _require_loadable(lowered, audited, kernels)
    parity = compare(InKeras(model), flatbuffer, images, kernels)
    for result in parity:
        if not result.equal:
            raise ConversionError(wrong_numbers(lowered, images, result))
        if not result.nearly_exact:
            require_each_layer(model, lowered, images, result.kernel)  # type: ignore[arg-type]
    warnings = [*constant_channels(lowered, images), *float_signs(audited)]
    conversion = Conversion(flatbuffer, audited, parity, lowered.reasons, warnings, digest(model))
    if int8:
        conversion = in_int8(conversion, lowered, int8, images, labels, kernels)
        _require_binary(conversion.audit, allow_float)
    return conversion


def first_images(data: tf.data.Dataset, examples: int) -> np.ndarray:
    """Return the first images of a batched data set, float32."""
    return _first(data, examples)[0]


def _first(data: tf.data.Dataset, examples: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the first images of a batched data set, and their labels, if it has any."""
    batches: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    for batch in data:
        images = batch[0] if isinstance(batch, tuple) else batch
        if not isinstance(images, tf.Tensor):
            raise InputError(f"`data` must hold images or (image, label), but got {type(batch)}.")
        batches.append(images.numpy().astype("float32"))
        if isinstance(batch, tuple) and len(batch) > 1 and isinstance(batch[1], tf.Tensor):
            labels.append(batch[1].numpy())
        if sum(map(len, batches)) >= examples:
            break
    if not batches:
        raise InputError("`data` must hold images, but it is empty.")
    known = len(labels) == len(batches)
    return np.concatenate(batches)[:examples], np.concatenate(labels)[:examples] if known else None


def _require_possible(lowered: Lowered, allow_float: Sequence[str]) -> None:
    """Refuse before converting what no rewriting makes binary, as far as that is certain."""
    for index, call in enumerate(lowered.calls):
        cause = "" if index in lowered.rewrites else cause_beforehand(call.layer)
        if cause and call.layer.name not in allow_float:
            raise ConversionError(_would_run_in_float(call.layer.name, cause))


def _require_loadable(lowered: Lowered, audited: Audit, kernels: Sequence[Kernel]) -> None:
    """Refuse grouped binary operations for the default kernel, which does not load them."""
    binary = {row.layer for row in audited.layers if row.runs_as == "LceBconv2d"}
    for index, call in enumerate(lowered.calls):
        if index in lowered.rewrites or isinstance(call.layer, BinaryConv2D):
            continue
        if call.facts.groups > 1 and call.layer.name in binary and "default" in kernels:
            raise ConversionError(
                f"The default kernel cannot run the model: `{call.layer.name}` has "
                f"{call.facts.groups} groups; convert it with rewrite=True, or only for "
                "kernels=('reference', 'indirect')."
            )


def _would_run_in_float(layer: str, cause: str, others: int = 0) -> str:
    more = f" (and {others} more layers)" if others else ""
    return (
        f"Binary layer `{layer}`{more} would run in float: {cause}; or accept it with "
        f"allow_float=[{layer!r}]."
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
        first = refused[0]
        raise ConversionError(_would_run_in_float(first.layer, first.cause, len(refused) - 1))


def _examples(
    data: tf.data.Dataset | np.ndarray | None, shape: tuple[int, ...], examples: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return images to compare on, and their labels, if known."""
    if data is None:
        return np.random.default_rng(0).standard_normal((examples, *shape)).astype("float32"), None
    labels = None
    if isinstance(data, tf.data.Dataset):
        data, labels = _first(data, examples)
    try:
        images: np.ndarray = np.asarray(data, dtype="float32")
    except (TypeError, ValueError):
        images = np.zeros(())
    if images.ndim != len(shape) + 1:
        raise InputError(
            f"`data` must be an array of images of shape {shape}, or a tf.data.Dataset of batches "
            f"of them, but got {type(data).__name__}."
        )
    images = images[:examples]
    if images.shape[1:] != shape or not len(images):
        raise InputError(
            f"`data` must hold images of shape {shape}, but got {len(images)} of shape "
            f"{images.shape[1:]}."
        )
    if not np.isfinite(images).all():
        raise InputError("`data` must be finite, but holds NaN or Inf: mend the images.")
    return images, labels
