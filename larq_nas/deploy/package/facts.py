"""What a package tells about a model, and where each figure comes from."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata

import numpy as np
import tensorflow as tf

from larq_nas.architecture import Architecture
from larq_nas.cost import Profile
from larq_nas.deploy.conversion import Conversion
from larq_nas.deploy.export import input_shape, run
from larq_nas.deploy.parity import KERNELS, Kernel
from larq_nas.errors import ConversionError, InputError, require_not_negative, require_whole
from larq_nas.latency import Latency

__all__ = ["Accuracy", "Facts", "choose_kernel", "engine_version"]


@dataclass(frozen=True)
class Accuracy:
    """The share of examples that a model classified correctly.

    # Arguments
        value: the share, from 0 to 1.
        data: what it was measured on, such as `"CIFAR-10, test"`; empty if not known.
        examples: number of examples, if known.
    """

    value: float
    data: str = ""
    examples: int | None = None

    def __post_init__(self) -> None:
        require_not_negative(value=self.value)
        if self.value > 1:
            raise InputError(f"`value` must be a share from 0 to 1, but got {self.value}.")
        if self.examples is not None:
            require_whole(examples=self.examples)

    def __str__(self) -> str:
        of = "examples" if self.examples is None else f"{self.examples:,} examples"
        return f"{self.value:.2%} of {of}, {self.data or 'data set not told'}"


@dataclass(frozen=True)
class Facts:
    """A converted model and what is known of it.

    # Arguments
        model: the Keras model.
        conversion: what it was converted to.
        profile: what it costs.
        kernel: the kernel that the snippets use.
        architecture: the architecture it was built of, if known.
        accuracy: how well it classifies, if measured.
        value_range: least and greatest number in the images it reads, if known.
        latencies: what an inference takes, where that was measured.
    """

    model: tf.keras.Model
    conversion: Conversion
    profile: Profile
    kernel: Kernel
    architecture: Architecture | None = None
    accuracy: Accuracy | None = None
    value_range: tuple[float, float] | None = None
    latencies: Sequence[Latency] = ()

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return input_shape(self.model)

    @property
    def inputs(self) -> int:
        """Numbers of one image."""
        return math.prod(self.shape)

    @property
    def outputs(self) -> int:
        """Numbers of one output."""
        return math.prod(self.model.output.shape[1:])

    @cached_property
    def meaning(self) -> str:
        """What the outputs are."""
        last = self.model.output._keras_history.layer
        activation = getattr(last, "activation", None)
        if isinstance(last, tf.keras.layers.Softmax) or activation is tf.keras.activations.softmax:
            return f"probabilities of {self.outputs} classes"
        if activation is tf.keras.activations.linear:
            return f"logits of {self.outputs} classes, without softmax"
        return f"{self.outputs} outputs of layer `{last.name}`"

    @cached_property
    def runs(self) -> dict[Kernel, bool]:
        """Whether each kernel runs the flatbuffer; those not compared are tried."""
        compared = {result.kernel for result in self.conversion.parity}
        return {kernel: kernel in compared or self._runs(kernel) for kernel in KERNELS}

    def _runs(self, kernel: Kernel) -> bool:
        image = np.zeros((1, *self.shape), "float32")
        try:
            run(self.conversion.flatbuffer, image, kernel, **KERNELS[kernel])
        except ConversionError:
            return False
        return True


def choose_kernel(conversion: Conversion, kernel: Kernel | None) -> Kernel:
    """Return the kernel to deploy with: `kernel`, or the first one that was compared.

    # Raises
        InputError: if `kernel` was not compared with Keras.
    """
    preferred: Sequence[Kernel] = ("default", "indirect", "reference")
    compared = [result.kernel for result in conversion.parity]
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
