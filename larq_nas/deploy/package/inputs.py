"""What a device gives a network: its inputs in words, for the card and the programs."""

from typing import Any

import numpy as np

from larq_nas.deploy.golden import Tensor, integer_inputs
from larq_nas.deploy.package.facts import Facts
from larq_nas.deploy.quantization import IntegerTensor

__all__ = [
    "affine",
    "byte_meaning",
    "layout",
    "number",
    "preprocessing",
    "tensor_name",
    "value_range",
]


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
    if not facts.value_ranges:
        return "value range: not given"
    least, greatest = facts.value_ranges[facts.model.input_names.index(name)]
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
