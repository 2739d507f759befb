"""The gate: convert a model, and return it only if it is binary and right."""

import contextlib
import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from larq_nas.data.forms import IMAGE_KEYS, LABEL_KEYS
from larq_nas.deploy.audit import Audit, audit, float_signs, require_kernels
from larq_nas.deploy.causes import (
    cause_beforehand,
    cause_of_state,
    likely_cause_of_difference,
    warnings_of_loops,
)
from larq_nas.deploy.conversion import Conversion, digest
from larq_nas.deploy.equivalence import Equivalence, compare_operations
from larq_nas.deploy.export import export_lowered, input_shapes, run
from larq_nas.deploy.int8 import NAMES, Int8
from larq_nas.deploy.int8.convert import in_int8
from larq_nas.deploy.integers import NUMBER_TYPES, NumberType, in_integers
from larq_nas.deploy.operations import AARCH64, KERNELS, Kernel, Operations
from larq_nas.deploy.parity import InKeras, Parity, figures, with_rounding
from larq_nas.deploy.recording import record
from larq_nas.deploy.rewriting import Lowered, lower
from larq_nas.deploy.rewriting.groups import group_cost
from larq_nas.deploy.signs import Signs, sign_warnings, survey_signs
from larq_nas.errors import ConversionError, InputError, require_whole, unknown_name
from larq_nas.graph.calls import functional
from larq_nas.graph.layers import facts_of
from larq_nas.layers import BinaryConv2D, Probabilities
from larq_nas.lce.network import Network
from larq_nas.lce.padding import SIGN_PASSES
from larq_nas.process_state import keeps_process_state
from larq_nas.quantizers import quantized_scope


def first_images(data: tf.data.Dataset, examples: int) -> np.ndarray:
    """Return the first images of a batched data set, float32."""
    return _first(data, examples)[0][0].astype("float32")


def read_images(
    data: Any, model: tf.keras.Model, examples: int, argument: str = "data"
) -> tuple[list[np.ndarray], np.ndarray | None]:
    """Return images, one array for each input of a model, and their labels, if known.

    # Arguments
        data: an array, a list of arrays or a dictionary for several inputs, `(images, labels)`, or
            a batched data set of images or such pairs; `None` for random numbers.
        model: a functional model of static shapes.
        examples: number of images, at most.
        argument: name of the argument that the user gave, for errors.

    # Raises
        InputError: if these are no images for the model.
    """
    shapes = input_shapes(model)
    dtypes = [tf.as_dtype(tensor.dtype).as_numpy_dtype for tensor in model.inputs]
    if data is None:
        # An embedding takes no numbers above its own.
        sizes = [getattr(layer, "input_dim", None) or 128 for layer in model._flatten_layers()]
        below = min(sizes)
        pairs = zip(shapes, dtypes, strict=True)
        return [_random(examples, *pair, below) for pair in pairs], None
    if isinstance(data, tf.data.Dataset):
        data, labels = _first(data, examples, model, argument)
    else:
        data, labels = _parted(data, model)
    if isinstance(data, dict):
        data = _in_order(data, model, argument)
    given = list(data) if isinstance(data, list | tuple) and len(shapes) == len(data) else [data]
    if len(given) != len(shapes):
        raise InputError(
            f"`{argument}` must hold an array for each of the {len(shapes)} inputs, but got "
            f"{len(given)}."
        )
    found = [_images(*each, examples, argument) for each in zip(given, shapes, dtypes, strict=True)]
    if len({len(images) for images in found}) > 1:
        raise InputError(
            f"`{argument}` must hold as many images for each input, but got "
            f"{', '.join(str(len(images)) for images in found)}."
        )
    return found, None if labels is None else np.asarray(labels)[:examples]


def _parted(data: Any, model: tf.keras.Model | None) -> tuple[Any, Any]:
    """Return the images and labels of data as a search takes it, which has one input."""
    if model is None or len(model.inputs) > 1:
        return data, None
    if isinstance(data, dict):
        images, labels = (
            next((data[key] for key in keys if key in data), None)
            for keys in (IMAGE_KEYS, LABEL_KEYS)
        )
        return (data, None) if images is None else (images, labels)
    if isinstance(data, list | tuple) and len(data) in (2, 3):
        # Images have more axes than their labels; a list of images has parts of as many.
        with contextlib.suppress(ValueError, TypeError):
            if np.ndim(data[0]) > np.ndim(data[1]):
                return data[0], data[1]
    return data, None


def _first(
    data: tf.data.Dataset,
    examples: int,
    model: tf.keras.Model | None = None,
    argument: str = "data",
) -> tuple[list[np.ndarray], np.ndarray | None]:
    """Return the first images of a batched data set, one array for each input, and their labels."""
    batches: list[list[np.ndarray]] = []
    labels: list[np.ndarray] = []
    for batch in data:
        if isinstance(batch, dict):
            batch = tuple(part for part in _parted(batch, model) if part is not None)
        images = batch[0] if isinstance(batch, tuple) else batch
        named = isinstance(images, dict) and model is not None
        given = _in_order(images, model, argument) if named else tf.nest.flatten(images)
        if not given or not all(isinstance(image, tf.Tensor) for image in given):
            raise InputError(
                f"`{argument}` must hold images or (image, label), but got {type(batch)}."
            )
        batches.append([image.numpy() for image in given])
        if isinstance(batch, tuple) and len(batch) > 1 and len(getattr(batch[1], "shape", ())):
            labels.append(batch[1].numpy())
        if sum(len(images[0]) for images in batches) >= examples:
            break
    if not batches:
        raise InputError(f"`{argument}` must hold images, but it is empty.")
    known = len(labels) == len(batches)
    found = [np.concatenate(parts)[:examples] for parts in zip(*batches, strict=True)]
    return found, np.concatenate(labels)[:examples] if known else None


def _in_order(data: dict[str, Any], model: tf.keras.Model, argument: str) -> list[Any]:
    """Return data that is given by name in the order of the model's inputs."""
    own = model._nested_inputs
    # A model that takes a dictionary is given by its keys; Keras orders these by the alphabet.
    names = sorted(own) if isinstance(own, dict) else model.input_names
    if set(data) != set(names):
        raise InputError(
            f"`{argument}` must hold {', '.join(f'`{name}`' for name in names)}, but holds "
            f"{', '.join(f'`{name}`' for name in data)}."
        )
    return [data[name] for name in names]


def _random(examples: int, shape: tuple[int, ...], dtype: Any, below: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    if np.issubdtype(dtype, np.integer):
        return generator.integers(0, below, (examples, *shape)).astype(dtype)
    return generator.standard_normal((examples, *shape)).astype(dtype)


def _images(
    data: Any, shape: tuple[int, ...], dtype: Any, examples: int, argument: str
) -> np.ndarray:
    try:
        numbers = np.asarray(data)
        images: np.ndarray = numbers.astype(dtype)
    except (TypeError, ValueError):
        numbers = images = np.zeros(())
    if np.iscomplexobj(numbers) or (
        np.issubdtype(dtype, np.integer) and not np.array_equal(numbers, images)
    ):
        raise InputError(
            f"`{argument}` must hold numbers of type {np.dtype(dtype).name}, as the model reads "
            f"them, but holds others ({numbers.dtype}): give the images as the model is given them."
        )
    if len(shape) == 3 and shape[2] == 1 and images.shape[1:] == shape[:2]:
        images = images[..., None]  # of one channel, as a search reads them
    if images.ndim != len(shape) + 1:
        raise InputError(
            f"`{argument}` must be an array of images of shape {shape}, or a tf.data.Dataset of "
            f"batches of them, but got {type(data).__name__}"
            f"{f' of shape {data.shape}' if isinstance(data, np.ndarray) else ''}."
        )
    images = images[:examples]
    if images.shape[1:] != shape or not len(images):
        raise InputError(
            f"`{argument}` must hold images of shape {shape}, but got {len(images)} of shape "
            f"{images.shape[1:]}."
        )
    if not np.isfinite(images).all():
        raise InputError(f"`{argument}` must be finite, but holds NaN or Inf: mend the images.")
    return images


# Images that operations are compared on one by one: as many as their tensors fit into this.
_SAMPLE_BYTES = 2**27
_SAMPLE = 16
# Kinds of layers that the converter may fuse into the layer which reads them.
_MOVING = ("concat", "crop", "pad", "pass", "reshape", "sign")


@keeps_process_state
@quantized_scope(None)
def convert(
    model: tf.keras.Model,
    data: tf.data.Dataset | np.ndarray | Sequence[Any] | None = None,
    *,
    examples: int = 128,
    kernels: Sequence[Kernel] = ("default", "reference"),
    allow_float: Sequence[str] = (),
    rewrite: bool = True,
    int8: Int8 | None = None,
    input_type: NumberType = "float32",
    output_type: NumberType = "float32",
    input_range: Any = None,
) -> Conversion:
    """Convert a model for Larq Compute Engine, and return it only if it passes all checks.

    !!! example
        ```python
        conversion = larq_nas.convert(model, validation)
        print(conversion)
        conversion.save("model.tflite")
        ```

    # Arguments
        model: a built Keras or Larq model of static shapes: functional, Sequential, or subclassed
            and called on data. It may have several inputs and outputs.
        data: images to compare on, as an array of shape `(examples, height, width,
            channels)`, `(images, labels)`, or a batched data set of images or such pairs, as
            `search` takes it; a list of arrays for several inputs; by default random numbers.
            Real images are the better evidence.
        examples: number of images compared, at most.
        kernels: the kernels that must compute what Keras does: `"default"`, `"reference"` or
            `"indirect"`. The first is the one to deploy; another that cannot run the model is
            left out, with a warning.
        allow_float: names of binary layers that may run in float.
        rewrite: whether to compute what would run in float in another way that is binary and
            gives the same numbers; each is named in the result. Without `"default"` among
            `kernels`, ways to compute groups are timed here, and the faster one is taken: of
            two that are nearly as fast, another run may take the other.
        int8: which real layers run in int8: `"ends"` for those before the first binary layer
            and behind the last, `"all"` for all that is not binary, as far as it converts;
            needs `data`, on which ranges are calibrated.
        input_type: `"uint8"` or `"int8"` for integer inputs in place of float32; what
            these stand for is found from `data`, and reported in `Conversion.integers`.
        output_type: the same for outputs, over the range that was seen.
        input_range: what the smallest and the largest integer of an input stand for, such as
            `(-1, 1)`; by default found from `data`.

    # Returns
        A `Conversion`: flatbuffer, audit, parity, and what was rewritten.

    # Raises
        ConversionError: if a binary layer fell back to float, or an operation computes other
            numbers than Keras, naming the layer and the cause.
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
    for option, kind in (("input_type", input_type), ("output_type", output_type)):
        if kind not in NUMBER_TYPES:
            raise unknown_name(option, kind, NUMBER_TYPES)
    range_unknown = input_type != "float32" and input_range is None
    if data is None and (range_unknown or output_type != "float32"):
        raise InputError(
            "Integer inputs or outputs need `data`, real images, from which it is found "
            "what they stand for; for inputs alone, `input_range=(low, high)` will do."
        )
    if input_range is not None and input_type == "float32":
        raise InputError(
            "`input_range` says what integers stand for: give `input_type` as well, "
            '"uint8" or "int8".'
        )
    if not isinstance(rewrite, bool):
        raise InputError(f"`rewrite` must be True or False, but got {rewrite!r}.")
    require_whole(examples=examples)
    model = functional(model)
    _require_tensors(model)
    _require_found(model)
    images, labels = read_images(data, model, examples)
    cost = None if "default" in kernels else group_cost(kernels)
    # In int8 a sum has one range, which an offset that moved into it would widen.
    lowering = functools.partial(lower, model, cost, offsets=not int8)
    lowered = lowering(rewrite=rewrite)
    _require_possible(lowered, allow_float)
    signs, expected = survey_signs(lowered, images)
    _require_finite(model, images, expected)
    holding = {id(sign.layer) for sign in signs if sign.negative_zeros}
    guard = {index for index, call in enumerate(lowered.calls) if id(call.layer) in holding}
    if guard and rewrite:
        lowered = lowering(guard=guard)
    flatbuffer, audited = _export(lowered, signs, kernels, allow_float)
    zeros = Operations(flatbuffer, AARCH64, kernels[0]).negative_zeros(images)
    # An activation of the engine may give -0.0 where that of Keras does not.
    unguarded = _calls_named(lowered, zeros) - guard
    if unguarded and rewrite:
        lowered = lowering(guard=guard | unguarded)
        flatbuffer, audited = _export(lowered, signs, kernels, allow_float)
        zeros = Operations(flatbuffer, AARCH64, kernels[0]).negative_zeros(images)
    judge = _Judge(model, lowered, flatbuffer, images, expected, zeros)
    parity = judge.parity(kernels)
    compared = [kernel for kernel in kernels if kernel in {result.kernel for result in parity}]
    warnings = [*judge.warnings, *sign_warnings(signs)]
    warnings += [*float_signs(audited), *_unpacked_signs(lowered, audited)]
    warnings += [*warnings_of_loops(lowered.calls, flatbuffer), *_of_real_stage(model)]
    conversion = Conversion(flatbuffer, audited, parity, lowered.reasons, warnings, digest(model))
    if int8:
        conversion = in_int8(conversion, lowered, int8, images, labels, compared)
        _require_binary(conversion.audit, allow_float)
    if (input_type, output_type) != ("float32", "float32"):
        conversion = in_integers(
            conversion,
            images,
            compared,
            input_type=input_type,
            output_type=output_type,
            input_range=input_range,
        )
    return conversion


def _require_found(model: tf.keras.Model) -> None:
    """Raise `InputError` for the supernet of a search, as a callback may have saved it."""
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, Probabilities):
            raise InputError(
                f"`model` is the supernet of a search (layer `{layer.name}` weighs operations): "
                "convert the network that was found, which larq_nas.search returns."
            )


def _of_real_stage(model: tf.keras.Model) -> list[str]:
    """Return a warning if a network comes from a stage of real weights."""
    layers = [
        layer
        for layer in model._flatten_layers(include_self=False)
        if isinstance(layer, BinaryConv2D) and layer.input_quantizer and not layer.kernel_quantizer
    ]
    if not layers:
        return []
    return [
        f"The weights of {len(layers)} convolutions of signs, such as `{layers[0].name}`, are "
        "real, as in stage `train_real` of a run: convert the network of its last stage, which is "
        "returned and kept in model.keras."
    ]


def _export(
    lowered: Lowered, signs: Sequence[Signs], kernels: Sequence[Kernel], allow_float: Sequence[str]
) -> tuple[bytes, Audit]:
    """Return the flatbuffer of a network, and which layer runs as what; refuse a float fallback."""
    flatbuffer = export_lowered(lowered)
    require_kernels(lowered.model, flatbuffer)
    if cause := cause_of_state(lowered.calls, flatbuffer):
        raise ConversionError(cause)
    audited = audit(
        lowered.model,
        flatbuffer,
        lowered.kernels(),
        lowered.binary_layers,
        lowered.constant_layers,
    )
    _require_binary(audited, allow_float)
    _require_signs(audited, signs)
    _require_loadable(lowered, audited, kernels)
    return flatbuffer, audited


def _calls_named(lowered: Lowered, operations: Iterable[str]) -> set[int]:
    """Return the calls that take signs, and that operations are named after."""
    parts = {part for name in operations for part in re.split("[/;]", name)}
    return {
        index
        for index, call in enumerate(lowered.calls)
        if call.layer.name in parts
        and (call.facts.kind == "sign" or getattr(call.layer, "input_quantizer", None))
    }


@dataclass
class _Judge:
    """Decides whether a flatbuffer computes what its Keras model does."""

    model: tf.keras.Model
    lowered: Lowered
    flatbuffer: bytes
    images: Sequence[np.ndarray]
    expected: Sequence[np.ndarray]
    # How often operations read a -0.0 that 64-bit ARM takes for negative.
    negative_zeros: Mapping[str, int]
    warnings: list[str] = field(default_factory=list)

    def parity(self, kernels: Sequence[Kernel]) -> list[Parity]:
        """Return how each kernel compares with Keras, or refuse the flatbuffer.

        # Raises
            ConversionError: if an operation computes other numbers than Keras.
        """
        outputs = self._outputs(kernels)
        sample = self._sample(next(iter(outputs.values())))
        images = [image[sample] for image in self.images]
        recording = record(self.model, images)
        reference = InKeras(self.model)
        lacking = self.lowered.lacking_by_layer
        results = []
        for kernel, whole in outputs.items():
            part = [output[sample] for output in whole]
            operations = Operations(self.flatbuffer, kernel)
            found = compare_operations(recording, operations, images, part, lacking)
            self._require_equal(found)
            result = figures(kernel, self.expected, whole, reference.meanings)
            results.append(dataclasses.replace(result, operations=found.operations))
        results = with_rounding(results, reference, self.images, self.expected)
        self._warn_of_rounding(results)
        return [*results, self._on_aarch64(results[0])]

    def _outputs(self, kernels: Sequence[Kernel]) -> dict[Kernel, list[np.ndarray]]:
        """Return the outputs of each kernel that runs the model; the first has to."""
        found: dict[Kernel, list[np.ndarray]] = {}
        for kernel in dict.fromkeys(kernels):
            try:
                found[kernel] = run(self.flatbuffer, self.images, kernel, **KERNELS[kernel])
            except ConversionError as error:
                if not found:
                    raise
                deployed = next(iter(found))
                self.warnings.append(
                    f"{str(error).rstrip('.')}: the model was checked on the {deployed} kernel"
                )
        return found

    def _sample(self, outputs: Sequence[np.ndarray]) -> np.ndarray:
        """Return the images to compare operations on: the first, and those that differ most."""
        examples = len(self.images[0])
        tensors = sum(4 * call.area * call.shape[-1] for call in self.lowered.calls)
        number = int(np.clip(_SAMPLE_BYTES // max(tensors, 1), 4, _SAMPLE))
        if examples <= number:
            return np.arange(examples)
        worst = np.zeros(examples)
        for one, other in zip(self.expected, outputs, strict=True):
            rows = np.abs(one - np.reshape(other, one.shape)).reshape(examples, -1)
            worst = np.maximum(worst, np.nan_to_num(rows, nan=np.inf).max(axis=1, initial=0.0))
        first = np.arange(number // 2)
        order = np.argsort(-worst, kind="stable")
        others = order[~np.isin(order, first)]
        return np.sort(np.concatenate([first, others[: number - len(first)]]))

    def _require_equal(self, found: Equivalence) -> None:
        if found.holds:
            return
        start = f"The flatbuffer of `{self.model.name}` does not compute what Keras does: "
        if found.equal:
            raise ConversionError(
                f"{start}the {found.kernel} kernel gives other outputs for the whole than its "
                "operations give one after another; convert it for another kernel."
            )
        layer, cause = self._culprit(found)
        raise ConversionError(
            f"{start}layer `{layer}` is the first that differs on the {found.kernel} kernel, from "
            f"the same inputs: {cause}."
        )

    def _culprit(self, found: Equivalence) -> tuple[str, str]:
        """Return the first layer that differs, or that reads one which only moves numbers."""
        differing = list(found.differing)
        if not differing:
            return self.model.layers[-1].name, "use layers of Keras and Larq in its place"
        computing = [layer for layer in differing if facts_of(layer).kind not in _MOVING]
        first = (computing or differing)[0]
        indices = [i for i, call in enumerate(self.lowered.calls) if call.layer is first]
        if not indices or not self.lowered.calls[indices[0]].inputs:
            return first.name, "use layers of Keras and Larq in its place"
        return first.name, likely_cause_of_difference(self.lowered.calls, indices[0])

    def _warn_of_rounding(self, results: Sequence[Parity]) -> None:
        """Warn if the outputs differ although every operation agrees."""
        result = min(results, key=lambda one: one.exact)
        if result.nearly_exact:
            return
        what, equal = "images", result.exact
        if result.pixels is not None:
            what, equal = "pixels", result.pixels
        same = f" ({text})" if (text := result.agreement_text) else ""
        self.warnings.append(
            "each operation of the flatbuffer was compared with Keras and computes the same, but "
            f"the outputs of the whole differ on {1 - equal:.0%} of the {what}{same}. That is "
            "rounding, not an error: a number that is almost 0 takes the other sign, and the "
            f"layers behind it make more of that{_in_keras(result)}. To see whether it matters, "
            "measure the accuracy of the flatbuffer on your own data"
        )

    def _on_aarch64(self, result: Parity) -> Parity:
        """Return the comparison for 64-bit ARM, where -0.0 counts as negative."""
        if not self.negative_zeros:
            # There is no other known difference to x86, so the outputs are the same.
            return dataclasses.replace(result, kernel=AARCH64)
        operations = Operations(self.flatbuffer, AARCH64, result.kernel)
        sample = np.arange(min(_SAMPLE, len(self.images[0])))
        got = operations.chain([image[sample] for image in self.images])
        expected = [output[sample] for output in self.expected]
        there = figures(AARCH64, expected, got, InKeras(self.model).meanings)
        names = ", ".join(f"`{name}` ({number:,})" for name, number in self.negative_zeros.items())
        self.warnings.append(
            "on 64-bit ARM the engine takes -0.0 for negative, and elsewhere for positive: "
            f"{names} read -0.0. Add a small positive number before that sign, or train with "
            f"another activation ({there})"
        )
        return there


def _in_keras(result: Parity) -> str:
    """Return what rounding does to the images in Keras, where that explains something."""
    rounding = result.rounding
    if rounding is None or not rounding.mean <= 1 or rounding.exact >= result.exact + 0.5:
        return ""
    return (
        f"; Keras itself keeps {rounding.exact:.0%} of the images equal if its weights change by "
        "1e-6"
    )


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
    refused = [row for row in audited.fallbacks if row.layer not in allow_float]
    if refused:
        first = refused[0]
        raise ConversionError(_would_run_in_float(first.layer, first.cause, len(refused) - 1))


def _require_tensors(model: tf.keras.Model) -> None:
    """Refuse inputs that are no numbers, and outputs without a first axis of images."""
    for name, tensor in zip(model.input_names, model.inputs, strict=True):
        if not (tensor.dtype.is_floating or tensor.dtype.is_integer or tensor.dtype.is_bool):
            raise InputError(
                f"Input `{name}` must hold numbers, but is of type {tensor.dtype.name}: turn it "
                "into numbers before the model."
            )
    for name, tensor in zip(model.output_names, model.outputs, strict=True):
        if tensor.shape.rank == 0:
            raise InputError(
                f"Output `{name}` must have the images as its first axis, but is one number for "
                "all of them: leave the first axis as it is, such as by axis=[1, 2, 3]."
            )


def _require_finite(
    model: tf.keras.Model, images: Sequence[np.ndarray], expected: Sequence[np.ndarray]
) -> None:
    """Refuse a model that gives NaN or Inf in Keras, naming the first layer that does."""
    finite = np.ones(len(images[0]), bool)
    for output in expected:
        if output.dtype.kind == "f":
            finite &= np.isfinite(output).reshape(len(output), -1).all(axis=1)
    if finite.all():
        return
    for layer in model._flatten_layers(include_self=False):
        own = () if isinstance(layer, tf.keras.Model) else layer.weights
        for weight in own:
            if not np.isfinite(weight.numpy()).all():
                raise ConversionError(
                    f"`{model.name}` gives NaN or Inf in Keras already: weight `{weight.name}` of "
                    f"layer `{layer.name}` is not finite; train it anew."
                )
    (example, *_) = np.flatnonzero(~finite)
    recording = record(model, [image[example : example + 1] for image in images])
    first = next(
        call.layer.name
        for call in recording.calls
        if any(t.dtype.is_floating and not np.isfinite(t.numpy()).all() for t in call.outputs)
    )
    raise ConversionError(
        f"`{model.name}` gives NaN or Inf in Keras already, first in layer `{first}`; mend the "
        "layer or the images it is given, or train it anew."
    )


def _unpacked_signs(lowered: Lowered, audited: Audit) -> list[str]:
    """Return a warning if something other than a binary convolution reads signs."""
    network, passing = Network(lowered.calls), ("sign", *SIGN_PASSES)
    readers = [
        f"`{call.name}`"
        for index, call in enumerate(lowered.calls)
        if call.facts.kind not in passing
        and not network.binary(index)
        and any(network.signs(read) for read in call.inputs)
    ]
    number = audited.operations.get("LceDequantize", 0)
    if not number or audited.fallbacks:
        return []
    who = f"{', '.join(readers)} read" if readers else "a layer or an output reads"
    return [
        f"{who} signs as numbers: they are unpacked into 32 bits each (LceDequantize, {number}); a "
        "binary convolution that takes the sign itself needs no unpacking"
    ]


def _require_signs(audited: Audit, signs: Sequence[Signs]) -> None:
    """Refuse a binary layer whose input quantizer gives other numbers than signs."""
    binary = {row.layer for row in audited.layers if row.runs_as == "LceBconv2d"}
    for sign in signs:
        if sign.wrong and sign.layer.name in binary:
            raise ConversionError(
                f"Layer `{sign.layer.name}` would run in binary, but its input quantizer gives "
                f"other numbers than -1 and 1 for {sign.wrong:,} of the {sign.numbers:,} numbers "
                "it read; use ste_sign, approx_sign or swish_sign."
            )
