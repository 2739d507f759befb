"""Quantizers that Larq lacks."""

from typing import Any

import larq as lq
import tensorflow as tf

__all__ = ["LearnedStep", "StandardizedSign"]

_SMALLEST_STEP = 1e-3


@tf.keras.utils.register_keras_serializable("larq_nas")
class LearnedStep(lq.quantizers.Quantizer):
    r"""Round activations to 0 or a learned step.

    \\[ x_b = \alpha \operatorname{round}(\operatorname{clip}(x / \alpha, 0, 1)) \\]

    The gradient passes rounding unchanged, so that \\(\alpha\\) learns with the weights.

    !!! example
        ```python
        lq.layers.QuantConv2D(64, 3, input_quantizer=LearnedStep(), kernel_quantizer="ste_sign")
        ```

    # Arguments
        step: \\(\alpha\\) at the start, in units of the activations.

    # References
        - DMS: Differentiable Dimension Search for Binary Neural Networks, equation 2
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
        step = _positive(self.step)
        share = tf.clip_by_value(inputs / step, 0.0, 1.0)
        return step * (share + tf.stop_gradient(tf.round(share) - share))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "step": self.initial_step}


def _positive(step: tf.Tensor) -> tf.Tensor:
    return tf.maximum(step, _SMALLEST_STEP)


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
