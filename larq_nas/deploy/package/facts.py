"""What a package reports of a model, and where each figure comes from."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata

import tensorflow as tf

from larq_nas.architecture import Architecture
from larq_nas.cost import Profile
from larq_nas.deploy.conversion import Conversion
from larq_nas.deploy.export import run
from larq_nas.deploy.golden import Golden, Tensor, natural_order, tensors
from larq_nas.deploy.meaning import Meaning
from larq_nas.deploy.parity import KERNELS, Kernel
from larq_nas.errors import ConversionError, InputError, require_not_negative, require_whole
from larq_nas.latency import Latency

__all__ = ["Accuracy", "Facts", "choose_kernel", "engine_version", "outputs_in_order"]


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
        return f"{self.value:.2%} of {of}, {self.data or 'data set not given'}"


@dataclass(frozen=True)
class Facts:
    """A converted model and what is known of it.

    # Arguments
        model: the Keras model.
        conversion: what it was converted to.
        profile: what it costs.
        kernel: the kernel that the snippets use.
        meanings: what each output of the model is.
        golden: inputs with their expected outputs.
        architecture: the architecture it was built of, if known.
        accuracy: how well it classifies, if measured.
        value_ranges: for each input of the model the least and greatest number in what it
            reads; empty if not known.
        latencies: what an inference takes, where that was measured.
        preprocessing: how an image becomes what the network reads; empty if not given.
    """

    model: tf.keras.Model
    conversion: Conversion
    profile: Profile
    kernel: Kernel
    meanings: Sequence[Meaning]
    golden: Golden
    architecture: Architecture | None = None
    accuracy: Accuracy | None = None
    value_ranges: Sequence[tuple[float, float]] = ()
    latencies: Sequence[Latency] = ()
    preprocessing: str = ""

    @cached_property
    def inputs(self) -> list[tuple[Tensor, str]]:
        """The inputs of the flatbuffer in its order, with their names in Keras."""
        found, _ = tensors(self.conversion.flatbuffer)
        names = self.model.input_names
        return [(end, names[i]) for end, i in zip(found, natural_order(found), strict=True)]

    @cached_property
    def outputs(self) -> list[tuple[Tensor, Meaning]]:
        """The outputs of the flatbuffer in its order, and what they are."""
        return outputs_in_order(self.conversion, self.meanings)

    @cached_property
    def runs(self) -> dict[Kernel, bool]:
        """Whether each kernel runs the flatbuffer; those not compared are tried."""
        compared = {result.kernel for result in self.conversion.parity}
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


def outputs_in_order(
    conversion: Conversion, meanings: Sequence[Meaning]
) -> list[tuple[Tensor, Meaning]]:
    """Return the outputs of a flatbuffer in its order, and what they are."""
    _, found = tensors(conversion.flatbuffer)
    return [(end, meanings[i]) for end, i in zip(found, natural_order(found), strict=True)]


def choose_kernel(conversion: Conversion, kernel: Kernel | None) -> Kernel:
    """Return the kernel to deploy with: `kernel`, or the first one that was compared.

    # Raises
        InputError: if `kernel` was not compared with Keras.
    """
    preferred: Sequence[Kernel] = ("default", "indirect", "reference")
    compared = [result.kernel for result in conversion.parity if result.kernel in KERNELS]
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
