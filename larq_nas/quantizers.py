"""Quantizers that Larq lacks."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

__all__ = ["DoReFaSign", "LearnedStep", "StandardizedSign", "XnorSign", "quantized_scope"]

_SMALLEST_STEP = 1e-3


@contextlib.contextmanager
def quantized_scope(quantize: bool | None = True) -> Iterator[None]:
    """Let quantized variables give their quantized values, and leave the scope as it was.

    Larq's own scope stays switched on if an error leaves it, and so does that inside a layer of
    Larq's that fails. Whatever is trained after that would train signs in place of weights.

    # Arguments
        quantize: as `larq.context.quantized_scope` takes it; `None` changes nothing, but restores
            the scope in the end.
    """
    before = lq.context.should_quantize()
    try:
        with lq.context.quantized_scope(before if quantize is None else quantize):
            yield
    finally:
        lq.context._quantized_scope.should_quantize = before


@tf.keras.utils.register_keras_serializable("larq_nas")
class LearnedStep(lq.quantizers.Quantizer):
    r"""Round activations to 0 or a learned step.

    \\[ x_b = \alpha \operatorname{round}(\operatorname{clip}(x / \alpha, 0, 1)) \\]

    The gradient passes rounding unchanged, so that \\(\alpha\\) learns with the weights. That of
    \\(\alpha\\), a sum over all \\(n\\) activations of an image, is divided by \\(\sqrt{n}\\) as in
    LSQ: without, steps of wide layers diverge at learning rates that the weights need.

    !!! example
        ```python
        lq.layers.QuantConv2D(64, 3, input_quantizer=LearnedStep(), kernel_quantizer="ste_sign")
        ```

    # Arguments
        step: \\(\alpha\\) at the start, in units of the activations.

    # References
        - DMS: Differentiable Dimension Search for Binary Neural Networks, equation 2
        - [Learned Step Size Quantization](https://arxiv.org/abs/1902.08153)
    """

    precision = 1

    def __init__(self, step: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.initial_step = step

    def build(self, input_shape: Any) -> None:
        self.step = self.add_weight(
            name="step",
            shape=(),
            initializer=tf.keras.initializers.Constant(self.initial_step),
            constraint=_positive,
        )
        super().build(input_shape)

    @property
    def height(self) -> float:
        r"""\\(\\alpha\\), the step as it is now."""
        return float(_positive(self.step)) if self.built else self.initial_step

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        step = _slowed(_positive(self.step), inputs)
        share = tf.clip_by_value(inputs / step, 0.0, 1.0)
        return step * (share + tf.stop_gradient(tf.round(share) - share))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "step": self.initial_step}


def _slowed(step: tf.Tensor, inputs: tf.Tensor) -> tf.Tensor:
    """Return `step`, with its gradient divided by the root of the activations of an image."""
    known = inputs.shape[1:].num_elements()
    count = tf.reduce_prod(tf.shape(inputs)[1:]) if known is None else known
    share = tf.math.rsqrt(tf.cast(count, step.dtype))
    return step + (share - 1) * (step - tf.stop_gradient(step))


def _positive(step: tf.Tensor) -> tf.Tensor:
    return tf.maximum(step, _SMALLEST_STEP)


@tf.keras.utils.register_keras_serializable("larq_nas")
class DoReFaSign(lq.quantizers.Quantizer):
    r"""Take the sign of weights, times the mean magnitude of all weights of the layer.

    \\[ w_b = \operatorname{sign}(w) E(|w|) \\]

    The gradient passes unchanged, as DoReFa-Net has it for weights of one bit.

    !!! example
        ```python
        lq.layers.QuantConv2D(
            64, 3, input_quantizer=lq.quantizers.DoReFa(1), kernel_quantizer=DoReFaSign()
        )
        ```

    # Arguments
        name: name of the layer that a quantizer is.

    # References
        - [DoReFa-Net](https://arxiv.org/abs/1606.06160)
        - [Searching for Accurate Binary Neural Architectures](https://arxiv.org/abs/1909.07378),
          equation 1
    """

    precision = 1

    def __init__(self, name: str = "dorefa_sign", **kwargs: Any) -> None:
        # A name that counted up would reach the flatbuffer's bytes.
        super().__init__(name=name, **kwargs)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        @tf.custom_gradient
        def scaled_sign(weights: tf.Tensor) -> Any:
            signs = lq.math.sign(weights)
            return signs * tf.reduce_mean(tf.abs(weights)), lambda upstream: upstream

        return scaled_sign(inputs)


@tf.keras.utils.register_keras_serializable("larq_nas")
class StandardizedSign(lq.quantizers.Quantizer):
    r"""Take the sign of standardized weights, times their mean magnitude in each filter.

    \\[ \hat w = \frac{w - E(w)}{\sigma(w)}, \quad w_b = \operatorname{sign}(\hat w) E(|\hat w|) \\]

    Gradients pass the sign where \\(|\hat w| \le 1\\), and reach the standardization.

    # References
        - DMS: Differentiable Dimension Search for Binary Neural Networks, appendix
        - [Micro-Batch Training with Batch-Channel Normalization and Weight
          Standardization](https://arxiv.org/abs/1903.10520)
    """

    precision = 1

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        axes = list(range(len(inputs.shape) - 1))
        mean, variance = tf.nn.moments(inputs, axes, keepdims=True)
        standardized = (inputs - mean) * tf.math.rsqrt(variance + 1e-8)
        scale = tf.reduce_mean(tf.abs(standardized), axes, keepdims=True)
        return lq.quantizers.ste_sign(standardized) * scale


@tf.keras.utils.register_keras_serializable("larq_nas")
class XnorSign(lq.quantizers.Quantizer):
    r"""Take the sign of weights, times their mean magnitude in each filter, as XNOR-Net does.

    \\[ \tilde w = \alpha \operatorname{sign}(w), \quad \alpha = \frac{1}{n} \sum_j |w_j| \\]

    The gradient passes the sign where \\(|w| \le 1\\), and reaches \\(\alpha\\) too, which
    `larq.quantizers.MagnitudeAwareSign` holds constant:

    \\[ \frac{\partial L}{\partial w_i} = \alpha \, 1_{|w_i| \le 1} \frac{\partial L}{\partial
    \tilde w_i} + \frac{\operatorname{sign}(w_i)}{n} \sum_j \operatorname{sign}(w_j)
    \frac{\partial L}{\partial \tilde w_j} \\]

    XNOR-Net prints the second term with \\(j = i\\) alone; this is the whole derivative. Its
    authors trained with \\(n (1 - 1 / c)\\) times that, without which SGD hardly flips a sign:
    \\(\alpha\\) makes the gradient as small as the weights are.

    !!! example
        ```python
        lq.layers.QuantConv2D(64, 3, input_quantizer="ste_sign", kernel_quantizer=XnorSign())
        ```

    # Arguments
        amplified: whether the gradient is \\(n (1 - 1 / c)\\) times the derivative, \\(n\\) being
            the number of a filter's weights and \\(c\\) that of its input channels.
        name: name of the layer that a quantizer is.

    # References
        - [XNOR-Net: ImageNet Classification Using Binary Convolutional Neural
          Networks](https://arxiv.org/abs/1603.05279)
    """

    precision = 1

    def __init__(self, amplified: bool = False, name: str = "xnor_sign", **kwargs: Any) -> None:
        # A name that counted up would reach the flatbuffer's bytes.
        super().__init__(name=name, **kwargs)
        self.amplified = amplified

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        axes = list(range(len(inputs.shape) - 1))
        if self.amplified:
            inputs = _amplify(inputs, self.amplification(inputs.shape))
        return lq.quantizers.ste_sign(inputs) * tf.reduce_mean(tf.abs(inputs), axes)

    def upstream(self, kernel: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
        r"""Return the gradient by the binary weights, which that by the weights is made of.

        # Arguments
            kernel: \\(w\\), from -1 to 1.
            gradient: what this quantizer makes of the gradient that is returned.
        """
        axes = list(range(len(kernel.shape) - 1))
        derivative = gradient / self.amplification(kernel.shape)
        signs, scale = lq.math.sign(kernel), tf.reduce_mean(tf.abs(kernel), axes)
        # The sum of the derivative's second term, times 1 / n.
        shared = tf.reduce_mean(signs * derivative, axes) / (1 + scale)
        return (derivative - signs * shared) / tf.maximum(scale, 1e-12)

    def amplification(self, shape: Sequence[int]) -> float:
        """Return by how much the gradient of a kernel of that shape is amplified."""
        return float(np.prod(shape[:-1]) * (1 - 1 / shape[-2])) if self.amplified else 1.0

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "amplified": self.amplified}


def _amplify(kernel: tf.Tensor, factor: float) -> tf.Tensor:
    @tf.custom_gradient
    def amplified(x: tf.Tensor) -> Any:
        return tf.identity(x), lambda upstream: factor * upstream

    return amplified(kernel)


# Larq looks up the quantizers of `.h5` files by their bare names.
tf.keras.utils.get_custom_objects().update(
    {kind.__name__: kind for kind in (LearnedStep, StandardizedSign, XnorSign)}
)
