"""Facts about a model for its card and programs, and where each comes from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from typing import Any

import numpy as np
import tensorflow as tf

from larq_nas.architecture import Architecture
from larq_nas.cost import Profile, profile
from larq_nas.deploy.conversion import Conversion
from larq_nas.deploy.export import run
from larq_nas.deploy.golden import (
    Golden,
    Tensor,
    integer_inputs,
    make_golden,
    natural_order,
    tensors,
)
from larq_nas.deploy.integers import IntegerTensor
from larq_nas.deploy.meaning import Meaning
from larq_nas.deploy.operations import KERNELS, Kernel
from larq_nas.errors import ConversionError, InputError, require_not_negative, require_whole
from larq_nas.latency import Latency


@dataclass(frozen=True)
class Accuracy:
    """The share of examples that a model classified correctly.

    # Arguments
        value: the share, from 0 to 1.
        data: what it was measured on, such as `"CIFAR-10, test"`; empty if not known.
        examples: number of examples, if known.
        classes: the share of each class by its name, `None` where it has no examples.
    """

    value: float
    data: str = ""
    examples: int | None = None
    classes: Mapping[str, float | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_not_negative(value=self.value)
        if self.value > 1:
            raise InputError(f"`value` must be a share from 0 to 1, but got {self.value}.")
        if self.examples is not None:
            require_whole(examples=self.examples)

    def __str__(self) -> str:
        of = "examples" if self.examples is None else f"{self.examples:,} examples"
        return f"{self.value:.2%} of {of}, {self.data or 'data set not given'}"


@dataclass(frozen=True)
class Facts:
    """A converted model and what is known of it.

    # Arguments
        model: the Keras model.
        conversion: what it was converted to.
        kernel: the kernel that the snippets use.
        meanings: what each output of the model is.
        examples: for each input of the model what it reads, if known.
        architecture: the architecture it was built of, if known.
        accuracy: how well it classifies, if measured.
        latencies: what an inference takes, where that was measured.
        preprocessing: how an image becomes what the network reads; empty if not given.
    """

    model: tf.keras.Model
    conversion: Conversion
    kernel: Kernel
    meanings: Sequence[Meaning]
    examples: Sequence[np.ndarray] | None = None
    architecture: Architecture | None = None
    accuracy: Accuracy | None = None
    latencies: Sequence[Latency] = ()
    preprocessing: str = ""

    @cached_property
    def profile(self) -> Profile:
        """What the model costs."""
        return profile(self.model)

    @cached_property
    def inputs(self) -> list[tuple[Tensor, str]]:
        """The inputs of the flatbuffer in its order, with their names in Keras."""
        found, _ = tensors(self.conversion.flatbuffer)
        names = self.model.input_names
        return [(end, names[i]) for end, i in zip(found, natural_order(found), strict=True)]

    @cached_property
    def outputs(self) -> list[tuple[Tensor, Meaning]]:
        """The outputs of the flatbuffer in its order, and what they are."""
        _, found = tensors(self.conversion.flatbuffer)
        order = natural_order(found)
        return [(end, self.meanings[i]) for end, i in zip(found, order, strict=True)]

    @cached_property
    def golden(self) -> Golden:
        """Inputs with their expected outputs."""
        about = self.model, self.conversion, self.kernel
        return make_golden(*about, self.examples, self.meanings)

    @cached_property
    def runs(self) -> dict[Kernel, bool]:
        """Whether each kernel runs the flatbuffer; those not compared are tried."""
        compared = self.conversion.kernels
        return {kernel: kernel in compared or self._runs(kernel) for kernel in KERNELS}

    def _runs(self, kernel: Kernel) -> bool:
        ends = [end for end, _ in self.inputs]
        first = [
            stored[:1].reshape(end.shape)
            for stored, end in zip(self.golden.stored, ends, strict=True)
        ]
        places = natural_order(ends)
        given = [first[places.index(place)] for place in range(len(first))]
        try:
            run(self.conversion.flatbuffer, given, kernel, **KERNELS[kernel])
        except ConversionError:
            return False
        return True


def choose_kernel(conversion: Conversion, kernel: Kernel | None) -> Kernel:
    """Return the kernel to deploy with: `kernel`, or the first one that was compared.

    # Raises
        InputError: if `kernel` was not compared with Keras.
    """
    preferred: Sequence[Kernel] = ("default", "indirect", "reference")
    compared = [name for name in conversion.kernels if name in KERNELS]
    if kernel is None:
        return next(name for name in preferred if name in compared)
    if kernel not in compared:
        raise InputError(
            f"`kernel` must be one that was compared with Keras ({', '.join(compared)}), but got "
            f"{kernel!r}: convert with kernels=[{kernel!r}]."
        )
    return kernel


def engine_version() -> str:
    """Return the version of Larq Compute Engine here."""
    return metadata.version("larq-compute-engine")


def tensor_name(keras: str, tensor: Tensor) -> str:
    """Return the name of a tensor in Keras, with that in the flatbuffer where it is another."""
    other = f" (`{tensor.name}` in the flatbuffer)" if tensor.name != keras else ""
    return f"`{keras}`{other}"


def layout(tensor: Tensor) -> str:
    """Return which numbers a program takes for an input, and in which order."""
    kinds = {"FLOAT32": "float32 number", "UINT8": "byte", "INT8": "byte"}
    kind = kinds.get(tensor.type, f"{tensor.type.lower()} number")
    text = f"{tensor.elements} {kind}{'s' * (tensor.elements > 1)}"
    text += " from 0 to 255" if kind == "byte" else ""
    sizes = tensor.shape[1:]
    if len(sizes) == 3:
        rows, pixels, channels = sizes
        return f"{text}: {rows} rows of {pixels} pixels of {channels} channel{'s' * (channels > 1)}"
    if len(sizes) == 2:
        return f"{text}: {sizes[0]} rows of {sizes[1]}"
    if len(sizes) > 3:
        return f"{text}: {' x '.join(map(str, sizes))}, of which the last index runs fastest"
    return text


def byte_meaning(facts: Facts, tensor: Tensor) -> str:
    """Return what a byte of an input stands for; empty for an input of other numbers."""
    integer: IntegerTensor | None = integer_inputs(facts.conversion).get(tensor.name)
    if not tensor.scale and integer is None:
        return ""
    low, high = (np.asarray(end) for end in (integer.ends if integer else tensor.bounds))
    written = " is written as b - 128 and" if tensor.type == "INT8" else ""
    return (
        f"a byte b of 0 to 255{written} stands for {affine('b', (high - low) / 255, low)}, so 0 "
        f"for {number(low)} and 255 for {number(high)}"
    )


def value_range(facts: Facts, tensor: Tensor, name: str) -> str:
    """Return between which numbers an input lay on the images it was checked on."""
    if facts.examples is None:
        return "value range: not given"
    numbers = facts.examples[facts.model.input_names.index(name)]
    least, greatest = float(numbers.min()), float(numbers.max())
    what = "images" if len(tensor.shape) == 4 else "examples"
    before = " before they were made bytes" if tensor.scale else ""
    return f"the {what} it was checked on held numbers from {least:g} to {greatest:g}{before}"


def preprocessing(facts: Facts) -> str:
    """Return how an image becomes what the network reads, as far as it was given."""
    done = ", which the scale of the bytes above includes: give the bytes as they are"
    in_bytes = any(tensor.scale for tensor, _ in facts.inputs)
    given = facts.preprocessing
    return f"Preprocessing: {given or 'not given'}{done if given and in_bytes else ''}"


def affine(variable: str, scale: Any, offset: Any) -> str:
    """Return `variable * scale + offset` in as few words as say it."""
    text = variable if np.all(np.asarray(scale) == 1) else f"{variable} * {number(scale)}"
    return f"{text} + {number(offset)}".replace("+ -", "- ") if np.any(offset) else text


def number(value: Any) -> str:
    """Return a number, or the first of several, with few digits."""
    numbers = np.ravel(value)
    if len(numbers) == 1:
        return f"{float(numbers[0]):g}"
    return f"[{', '.join(f'{one:g}' for one in numbers[:4])}{', ...' * (len(numbers) > 4)}]"
