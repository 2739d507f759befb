"""Run a flatbuffer one operation at a time, on a kernel of the engine."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from larq_nas.deploy.export import engine, running
from larq_nas.deploy.flatbuffer import (
    Operator,
    extract,
    operators,
    ordered,
    pack,
    read_model,
)
from larq_nas.deploy.flatbuffer import values as values_of

Kernel = Literal["default", "reference", "indirect"]
"""The binary convolution kernels of Larq Compute Engine."""

KERNELS: dict[Kernel, dict[str, bool]] = {
    "default": {},
    "reference": {"use_reference_bconv": True},
    "indirect": {"use_indirect_bgemm": True},
}

AARCH64 = "aarch64"
"""The engine on 64-bit ARM, where it differs from x86 in what LceQuantize makes of -0.0."""

_WORD = 32
# AArch64 packs four words at once.
_BLOCK = 4 * _WORD


@dataclass(frozen=True)
class Operations:
    """The operations of a flatbuffer, each to be run alone.

    # Arguments
        flatbuffer: the model.
        kernel: the kernel that runs binary convolutions; `"aarch64"` packs signs as the engine
            does on 64-bit ARM.
        emulated: the kernel that runs all else for `"aarch64"`.
    """

    flatbuffer: bytes = field(repr=False)
    kernel: str
    emulated: str = "reference"

    @cached_property
    def model(self) -> schema.ModelT:
        """The tables of the flatbuffer."""
        return read_model(self.flatbuffer)

    @cached_property
    def steps(self) -> list[Operator]:
        """The operations, in the order they run."""
        return operators(self.flatbuffer)

    @cached_property
    def inputs(self) -> list[int]:
        """Indices of the input tensors, in the order of their names: that of the model."""
        return ordered(self.model, "inputs")

    @cached_property
    def outputs(self) -> list[int]:
        """Indices of the output tensors, in the order of their names: that of the model."""
        return ordered(self.model, "outputs")

    def quantization(self, index: int) -> tuple[float, int] | None:
        """Return scale and zero point of an int8 tensor; `None` for others."""
        tensor = self.model.subgraphs[0].tensors[index]
        found = tensor.quantization
        if tensor.type != schema.TensorType.INT8 or found is None or found.scale is None:
            return None
        return float(found.scale[0]), int(found.zeroPoint[0])

    def constant_outputs(self, examples: int) -> dict[int, np.ndarray]:
        """Return the outputs that no operation writes, as often as there are examples."""
        found = {}
        for index in self.outputs:
            constant = values_of(self.model, self.model.subgraphs[0].tensors[index])
            if constant is not None:
                found[index] = np.broadcast_to(constant, (examples, *constant.shape))
        return found

    @cached_property
    def _interpreters(self) -> dict[int, Any]:
        return {}

    def run(self, step: Operator, values: dict[int, np.ndarray], examples: int) -> list[np.ndarray]:
        """Return what an operation writes."""
        if self.kernel == AARCH64 and step.kind == "LceQuantize":
            (read,) = step.reads
            if values[read].dtype == np.float32:
                return [pack(sign_bits(values[read]))]
        interpreter = self._interpreter(step)
        rows = [
            interpreter.predict([values[read][example] for read in step.reads])
            for example in range(examples)
        ]
        return [np.stack(column) for column in zip(*rows, strict=True)]

    def _interpreter(self, step: Operator) -> Any:
        if step.index not in self._interpreters:
            alone = extract(self.model, [step.index], step.reads, step.writes)
            self._interpreters[step.index] = self._load(alone, f"{step.kind} `{step.output}`")
        return self._interpreters[step.index]

    def _load(self, flatbuffer: bytes, what: str) -> Any:
        """Return an interpreter, or raise `ConversionError` saying what cannot run."""
        kernel = self.emulated if self.kernel == AARCH64 else self.kernel
        with running(kernel, what):
            options = KERNELS[kernel]  # type: ignore[index]
            interpreter = engine().testing.Interpreter(flatbuffer, **options)
        # The wrapper takes a first axis for that of images, which not every tensor has.
        return interpreter.interpreter

    def chain(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the outputs for `images`, each operation on what the ones before it gave."""
        last = {read: step.index for step in self.steps for read in step.reads}
        values = {index: image[:, None] for index, image in zip(self.inputs, images, strict=True)}
        values |= self.constant_outputs(len(images[0]))
        for step in self.steps:
            written = self.run(step, values, len(images[0]))
            values.update(zip(step.writes, written, strict=True))
            for index in step.reads:
                if last[index] == step.index and index not in self.outputs:
                    del values[index]
        return [values[index] for index in self.outputs]

    def negative_zeros(self, images: Sequence[np.ndarray]) -> dict[str, int]:
        """Return how often LceQuantize reads a -0.0 that AArch64 takes for negative.

        # Returns
            The number for each such operation, by the name of its output.
        """
        tensors = self.model.subgraphs[0].tensors
        steps = [
            step
            for step in self.steps
            if step.kind == "LceQuantize"
            and tensors[step.reads[0]].type == schema.TensorType.FLOAT32
        ]
        counts = dict.fromkeys((step.output for step in steps), 0)
        if not steps:
            return {}
        everything = [step.index for step in self.steps]
        watched = [step.reads[0] for step in steps]
        whole = extract(self.model, everything, self.inputs, list(dict.fromkeys(watched)))
        interpreter = self._load(whole, "the model")
        for example in range(len(images[0])):
            found = interpreter.predict([image[example : example + 1] for image in images])
            values = dict(zip(dict.fromkeys(watched), found, strict=True))
            for step in steps:
                read = values[step.reads[0]][None]
                counts[step.output] += int(np.sum(sign_bits(read) & (read == 0)))
        return {name: count for name, count in counts.items() if count}


def sign_bits(values: np.ndarray) -> np.ndarray:
    """Return which numbers LceQuantize takes for negative on AArch64.

    `bitpack_array` of the engine gives whole blocks of 128 floats to `bitpack_aarch64_4x32`,
    which collects their sign bits: -0.0 counts as negative. What is left over is compared with
    `< 0`, as on any other processor: -0.0 does not. `bitpack_matrix` takes a tensor as one row
    where its channels fill words of 32, and position by position otherwise.
    """
    examples, channels = len(values), values.shape[-1]
    row = values[0].size if channels % _WORD == 0 else channels
    rows = values.reshape(examples, -1, row)
    negative = rows < 0
    whole = row // _BLOCK * _BLOCK
    negative[..., :whole] = np.signbit(rows[..., :whole])
    return negative.reshape(values.shape)
