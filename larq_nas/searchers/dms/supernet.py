"""Supernet of DMS: masked channels (Eq. 11), and weights that stay when widths change (Eq. 9)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from larq_nas.choices import Filters, at
from larq_nas.data.validation import DataFacts
from larq_nas.errors import InputError, first_line
from larq_nas.graph.channels import Channels, LayerChannels, Part, latent, read_layers
from larq_nas.layers import Domain
from larq_nas.quantizers import quantized_scope
from larq_nas.searchers.dms.widths import Dimensions, channel_shares
from larq_nas.spaces import Space
from larq_nas.spaces.chooser import Widest
from larq_nas.supernet.resizable import resizable_constants, resizable_network

Computed: TypeAlias = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""Computes the output of a layer from inputs and kernel."""

_Compute = Callable[[Computed, tf.Tensor, tf.Tensor], tf.Tensor]


class Masks:
    r"""Lets the layers of a network read so much of each channel as is sampled.

    By the linearity of convolution (DMS, equation 11) the outputs of all three widths are
    added by adding their kernels, those of fewer channels filled up with zeros:

    \\[ \sum_i \pi_i (W_i * X) = \left( \sum_i \pi_i W_i \right) * X \\]

    The kernels are those of the layers that read the channels. Behind the layer that makes
    them follow batch norm, which would undo what they are multiplied with, and the sign, which
    would make ones of zeros. Nothing may stand behind a layer that reads them, as behind a dense
    one at the end: the shares add up to the middle width, that of the mean, or fewer channels
    would mean smaller logits, and a width would be learned for how sure they are. Behind batch norm
    that changes nothing. Without `shares`, of shape `(choices, 3)`, channels are read whole.
    """

    def __init__(self, dimensions: Dimensions) -> None:
        self.dimensions = dimensions
        self.shares: tf.Tensor | None = None

    @contextmanager
    def using(self, shares: tf.Tensor) -> Iterator[None]:
        """Compute with these shares of the three ratios, shape `(choices, 3)`, within a block."""
        before, self.shares = self.shares, shares
        try:
            yield
        finally:
            self.shares = before

    def apply(self, layer: tf.keras.layers.Layer, reads: Channels) -> None:
        """Let a convolution or a dense layer, not traced yet, read its inputs in the shares used.

        # Raises
            InputError: if a number of channels depends on several choices.
        """
        if not any(isinstance(part, Filters) for part in reads.parts):
            return
        names = [_choice(part, self.dimensions.widest(), layer.name) for part in reads.parts]

        def compute(whole: Computed, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
            return self.compute(whole, inputs, kernel, reads, names)

        if isinstance(layer, tf.keras.layers.Dense):
            _compute_dense(layer, compute)
        else:
            _compute_conv(layer, compute)

    def compute(
        self,
        layer: Computed,
        inputs: tf.Tensor,
        kernel: tf.Tensor,
        reads: Channels,
        names: Sequence[str | None],
    ) -> tf.Tensor:
        """Return the output of a layer, whose kernel reads channels along the last axis but one.

        `names` are the choices that each part of these channels follows from, if any.
        """
        if self.shares is None:
            return layer(inputs, kernel)
        parts = [
            tf.ones([int(part)]) if name is None else self._part(part, name)
            for part, name in zip(reads.parts, names, strict=True)
        ]
        shares = tf.tile(tf.concat(parts, axis=0), [reads.repeats])
        return layer(inputs, kernel * shares[:, None])

    def _part(self, part: int, name: str) -> tf.Tensor:
        assert self.shares is not None
        place = self.dimensions.names.index(name)
        widths = at(part, {name: self.dimensions.widths[place]})
        shares = channel_shares(self.shares[place], widths)
        middle = tf.cast(widths[widths.shape[0] // 2], shares.dtype)
        return shares * (middle / tf.reduce_sum(shares))


def _choice(part: int, widths: Mapping[str, int], layer: str) -> str | None:
    """Return the choice that a number of channels depends on."""
    if not isinstance(part, Filters):
        return None
    usual = at(part, widths)
    found = [
        name for name, width in widths.items() if at(part, {**widths, name: 64 + width}) != usual
    ]
    if len(found) <= 1:
        return found[0] if found else None
    raise InputError(
        f"Layer `{layer}` reads a number of channels that follows from several choices "
        f"({', '.join(found)}), which cannot be searched: ask for that width by itself."
    )


def _compute_conv(layer: tf.keras.layers.Layer, compute: _Compute) -> None:
    """Let a convolution be computed by `compute`, given what computes it now."""
    convolve = layer.convolution_op

    def convolution_op(inputs: tf.Tensor, kernel: Any) -> tf.Tensor:
        return compute(convolve, inputs, tf.convert_to_tensor(kernel))

    # Set as Keras sets attributes, it would be tracked.
    object.__setattr__(layer, "convolution_op", convolution_op)


def _compute_dense(layer: tf.keras.layers.Layer, compute: _Compute) -> None:
    """Let a dense layer be computed by `compute`, given what computes it now."""
    call = layer.call

    def with_kernel(inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        own = layer.kernel
        object.__setattr__(layer, "kernel", kernel)
        try:
            return call(inputs)
        finally:
            object.__setattr__(layer, "kernel", own)

    def masked(inputs: tf.Tensor) -> tf.Tensor:
        with quantized_scope():
            kernel = tf.convert_to_tensor(layer.kernel)
        return compute(with_kernel, inputs, kernel)

    object.__setattr__(layer, "call", masked)


_WEIGHTED = ("conv", "dense")


class Supernet:
    """A network as wide as the widest of the three ratios, of which any width can be computed.

    Its weights take any size; `parts` are these weights, and which of their axes are channels.
    `seed` is that of the values new channels start with, and `masks` how shares are computed.

    # Raises
        InputError: if a layer does with channels what cannot be followed.
    """

    def __init__(
        self,
        space: Space,
        facts: DataFacts,
        domain: Domain,
        dimensions: Dimensions,
        seed: int,
        masks: type[Masks] = Masks,
    ) -> None:
        self._dimensions = dimensions
        self._widths = dimensions.widest()
        self.network, initial = resizable_network(space, Widest(self._widths), facts, domain)
        layers = read_layers(self.network)
        self.parts = [part for layer in layers for part in layer.parts]
        self._made = {id(layer.layer): layer.gives for layer in layers}
        self._constants = resizable_constants(self.network)
        self._initial, self._seed = initial, seed
        for part in self.parts:
            if latent(part.weight).ref() not in initial:
                raise InputError(
                    f"Weight `{part.weight.name}` must be made by a Keras initializer, for new "
                    "channels to start with its values: give its layer one, such as "
                    '"glorot_uniform".'
                )
        self.masks = masks(dimensions)
        self._mask(layers)
        self.follow()

    def resize(self, number: int, best_effort: bool = True) -> None:
        """Take the widths that the dimensions have now (DMS, equations 9 and 10).

        What of the weights the new network has too stays as it is; new channels start as those
        of a new network do, by the `number` of the change. Without `best_effort` all start anew.
        """
        before, after = self._widths, self._dimensions.widest()
        for place, part in enumerate(self.parts):
            weight = latent(part.weight)
            old = weight.numpy()
            new = self._fresh(weight, _shape(part, old.shape, after), number, place)
            if best_effort:
                # Eq. 9 and 10: the channels of both stay.
                new[_shared(part, new.shape, before, layout=after)] = old[
                    _shared(part, old.shape, after, layout=before)
                ]
            weight.assign(new)
        self.follow()

    def follow(self) -> None:
        """Note the widths that the dimensions have now, to which the weights were restored."""
        self._widths = self._dimensions.widest()
        for constant, layer, filling in self._constants:
            channels = len(self._made[id(layer)].taken(self._widths, self._widths))
            constant.assign(tf.fill([channels], filling))

    def _fresh(
        self, weight: tf.Variable, shape: tuple[int, ...], number: int, place: int
    ) -> np.ndarray:
        """Return values that a new weight starts with, from the initializer of its layer."""
        made = self._initial[weight.ref()]
        config = made.get_config()
        if "seed" in config:
            words = np.random.SeedSequence([self._seed, number, place]).generate_state(1)
            made = type(made).from_config({**config, "seed": int(words[0] >> 1)})
        # A copy: TensorFlow's own cannot be written to.
        return np.array(made(shape, dtype=weight.dtype))

    def _mask(self, layers: Sequence[LayerChannels]) -> None:
        read: dict[int, LayerChannels] = {}
        for layer in layers:
            if layer.kind not in _WEIGHTED:
                continue
            first = read.setdefault(id(layer.layer), layer)
            if first is layer:
                self.masks.apply(layer.layer, layer.reads)
            elif not self._alike(first.reads, layer.reads):
                raise InputError(
                    f"Layer `{layer.layer.name}` is called on channels of several choices: give "
                    "each a layer of its own."
                )

    def _alike(self, first: Channels, second: Channels) -> bool:
        """Return whether the same choices give both numbers of channels."""
        apart = {name: 1000 + 17 * place for place, name in enumerate(self._dimensions.names)}
        first_parts, second_parts = (
            [at(part, apart) for part in one.parts] for one in (first, second)
        )
        return (first_parts, first.repeats) == (second_parts, second.repeats)


def _shape(part: Part, shape: tuple[int, ...], answers: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the shape of a weight in a network of these widths."""
    return tuple(
        len(part.axes[axis].taken(answers, answers)) if axis in part.axes else size
        for axis, size in enumerate(shape)
    )


def _shared(
    part: Part, shape: tuple[int, ...], other: Mapping[str, Any], *, layout: Mapping[str, Any]
) -> Any:
    """Return where in a weight of widths `layout` the channels are that `other` has too."""
    return np.ix_(
        *[
            part.axes[axis].taken(other, layout) if axis in part.axes else np.arange(size)
            for axis, size in enumerate(shape)
        ]
    )


_IMAGES = 2
_TOLERANCE = 1e-4


def require_widths(supernet: Supernet, dimensions: Dimensions, facts: DataFacts) -> None:
    """Raise `InputError` for a network, not traced yet, that does not go for widths that differ.

    Each choice is given a width of its own for a moment, and the network is computed; then
    what is not sampled is changed, which must change no output.
    """
    _require_use(supernet, dimensions)
    weights = [latent(part.weight) for part in supernet.parts]
    before, widths = [weight.numpy() for weight in weights], dimensions.widths.numpy()
    generator = np.random.default_rng(0)
    images = tf.constant(generator.normal(size=(_IMAGES, *facts.input_shape)), tf.float32)
    try:
        # No two as wide, where they were; half of the channels of each are not sampled.
        high = widths.max(axis=1) + np.arange(len(widths))
        dimensions.widths.assign(np.stack([high - high // 2, high, high], axis=1))
        supernet.resize(0)
        compute = tf.function(lambda: _narrowest(supernet, images))
        wide = compute().numpy()
        _disturb(supernet, dimensions, generator)
        narrow = compute().numpy()
    except (TypeError, ValueError, tf.errors.InvalidArgumentError) as error:
        raise InputError(
            "The network cannot be computed for widths that differ; where what a layer needs is "
            f"tied to another's width, ask for both by one name. {first_line(error)}."
        ) from error
    finally:
        dimensions.widths.assign(widths)
        supernet.follow()
        for weight, value in zip(weights, before, strict=True):
            weight.assign(value)
    # Written so that what is not a number is refused too.
    if not np.abs(narrow - wide).max() <= _TOLERANCE * max(1.0, float(np.abs(wide).max())):
        raise InputError(
            "A layer that is no convolution or dense layer mixes channels whose number is searched "
            "(as LayerNormalization does, or a softmax over them): leave it out, or give what it "
            "reads a fixed width."
        )


def _require_use(supernet: Supernet, dimensions: Dimensions) -> None:
    usual = dimensions.widest()
    for name in dimensions.names:
        other = {**usual, name: usual[name] + 64}
        made = (one for part in supernet.parts for axis in part.axes.values() for one in axis.parts)
        if all(at(one, other) == at(one, usual) for one in made):
            raise InputError(
                f"Choice `{name}` must set the width of a layer, but no weight follows from it."
            )


def _narrowest(supernet: Supernet, images: tf.Tensor) -> tf.Tensor:
    shares = tf.one_hot(tf.zeros(len(supernet.masks.dimensions.names), tf.int32), 3)
    with supernet.masks.using(shares):
        # What is drawn at random would differ.
        return supernet.network(images, training=False)


def _disturb(supernet: Supernet, dimensions: Dimensions, generator: np.random.Generator) -> None:
    """Change what makes the channels that the narrowest widths do not have."""
    widest = dimensions.widest()
    narrow = dict(zip(dimensions.names, dimensions.widths.numpy()[:, 0].tolist(), strict=True))
    for part in supernet.parts:
        if not part.axes:
            continue
        axis, weight = max(part.axes), latent(part.weight)
        values = weight.numpy()
        beyond = np.setdiff1d(np.arange(values.shape[axis]), part.axes[axis].taken(narrow, widest))
        # Of what reads alone, the last axis is not searched, and nothing is beyond.
        index = (*[slice(None)] * axis, beyond)
        # Upwards: a variance stays one.
        values[index] += np.abs(generator.normal(size=values[index].shape))
        weight.assign(values)
