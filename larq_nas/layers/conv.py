"""A binary convolution that Larq Compute Engine always runs in binary."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

from larq_nas.layers.precision import convolve
from larq_nas.quantizers import DoReFaSign, StandardizedSign, quantized_scope

_exporting: ContextVar[bool] = ContextVar("larq_nas_exporting", default=False)


@contextmanager
def exporting() -> Iterator[None]:
    """Trace convolutions in the form that converts, instead of the one that trains fast."""
    token = _exporting.set(True)
    try:
        yield
    finally:
        _exporting.reset(token)


def is_exporting() -> bool:
    """Return whether a network is traced for the converter."""
    return _exporting.get()


def block_diagonal(kernel: tf.Tensor, groups: int, parts: int = 1) -> tf.Tensor:
    """Return the dense kernel that computes a grouped convolution, zero between groups.

    Several grouped kernels may be side by side along the filters, in equal parts.
    """
    _, _, inputs, filters = kernel.shape
    mask = np.kron(np.eye(groups), np.ones((inputs, filters // parts // groups)))
    return tf.tile(kernel, [1, 1, groups, 1]) * tf.constant(np.tile(mask, parts), kernel.dtype)


# Their gradients pass weights of any size; neither paper clips them.
_OF_ANY_SIZE = (DoReFaSign, StandardizedSign)


@tf.keras.utils.register_keras_serializable("larq_nas")
class BinaryConv2D(lq.layers.QuantConv2D):
    """Binary 2D convolution, safe to convert.

    A `larq.layers.QuantConv2D` with the arguments that deploy (sign of the inputs, padding
    with ones, no bias) and two differences:

    - It dilates inside the convolution. Keras dilates through a space-to-batch transform,
      which two layers that read one tensor come to share; Larq Compute Engine then no
      longer recognizes them, and runs both in float without a word.
    - Its groups train as one dense convolution with a block-diagonal kernel: exactly equal
      to a grouped one, and many times faster on a CPU. Exported, each group is a binary
      convolution of its own, which every kernel of Larq Compute Engine runs.

    !!! example
        ```python
        x = larq_nas.layers.BinaryConv2D(64, 3, dilation_rate=2)(x)
        ```

    # Arguments
        filters: number of output channels.
        kernel_size: height and width of the kernel, in pixels.
        input_quantizer: quantizer of the inputs.
        kernel_quantizer: quantizer of the weights; `None` keeps them real.
        kernel_constraint: by default `"weight_clip"` for quantizers that stop to learn beyond -1
            and 1, and none for real weights, `DoReFaSign` and `StandardizedSign`, which do not.
        padding: `"same"` or `"valid"`.
        pad_values: the value `"same"` pads with; 1 stays exact on every kernel.
        use_bias: whether to add a bias.
        **kwargs: further arguments of `larq.layers.QuantConv2D`.
    """

    has_precision = True

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int],
        *,
        input_quantizer: Any = "ste_sign",
        kernel_quantizer: Any = "ste_sign",
        kernel_constraint: Any = None,
        padding: str = "same",
        pad_values: float = 1.0,
        use_bias: bool = False,
        **kwargs: Any,
    ) -> None:
        clip = "weight_clip" if kernel_quantizer is not None else None
        super().__init__(
            filters,
            kernel_size,
            input_quantizer=_quantizer(input_quantizer),
            kernel_quantizer=_quantizer(kernel_quantizer),
            kernel_constraint=clip if kernel_constraint is None else kernel_constraint,
            padding=padding,
            pad_values=pad_values,
            use_bias=use_bias,
            **kwargs,
        )
        if kernel_constraint is None and isinstance(self.kernel_quantizer, _OF_ANY_SIZE):
            # Taken away afterwards: Larq warns of weights that stop to learn, which these do not.
            self.kernel_constraint = None

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Nothing: loaded, it is built when called, which names its weights after it."""

    def _validate_init(self) -> None:
        # Keras refuses strides with dilation, which its space-to-batch transform cannot do.
        with lq.utils.patch_object(self, "dilation_rate", (1, 1)):
            super()._validate_init()

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        if self.groups > 1 and _exporting.get():
            return self._call_split(inputs)
        return super().call(inputs)

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        if self.groups > 1:
            kernel = block_diagonal(tf.convert_to_tensor(kernel), self.groups)
        compute = tf.nn.conv2d if _exporting.get() else convolve
        return compute(
            inputs, kernel, self.strides, self.padding.upper(), dilations=self.dilation_rate
        )

    def _jit_compiled_convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        # Keras compiles grouped convolutions with XLA; the dense form needs no compiler.
        return self.convolution_op(inputs, kernel)

    def _call_split(self, inputs: tf.Tensor) -> tf.Tensor:
        # Sign, padding and activation go into each branch, where the converter fuses them.
        with quantized_scope():
            kernels = tf.split(tf.convert_to_tensor(self.kernel), self.groups, axis=-1)
        # Other activations may be of all channels together, as softmax is.
        fuses = self.activation is tf.keras.activations.relu and not self.use_bias
        activate = self.activation or tf.keras.activations.linear
        pads = self.padding == "same" and self.pad_values != 0.0
        padding = "VALID" if pads else self.padding.upper()
        branches = []
        for part, kernel in zip(tf.split(inputs, self.groups, axis=-1), kernels, strict=True):
            if self.input_quantizer:
                part = self.input_quantizer(part)
            if pads:
                paddings = self._get_padding_same(part)
                part = tf.pad(part, paddings, constant_values=self.pad_values)
            branch = tf.nn.conv2d(part, kernel, self.strides, padding, dilations=self.dilation_rate)
            branches.append(activate(branch) if fuses else branch)
        outputs = tf.concat(branches, axis=-1)
        outputs = tf.nn.bias_add(outputs, self.bias) if self.use_bias else outputs
        return outputs if fuses else activate(outputs)


def _quantizer(identifier: Any) -> Any:
    # A name of its own would count up with each layer, and reach the flatbuffer's bytes.
    if isinstance(identifier, str):
        return lq.quantizers.get({"class_name": identifier, "config": {"name": identifier}})
    return identifier
