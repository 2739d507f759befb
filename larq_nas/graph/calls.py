"""A Keras network as a list of layer calls, nested models and own layers taken apart."""

import dataclasses
import logging
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.ops import custom_gradient

from larq_nas.errors import InputError
from larq_nas.graph.layers import Facts, facts_of, is_own
from larq_nas.quantizers import quantized_scope


@dataclass(frozen=True)
class Call:
    """One call of one layer.

    # Arguments
        layer: the layer; shared layers have several calls.
        name: name of the layer, behind those of the models it is nested in.
        inputs: indices of the calls whose outputs it reads.
        shape: shape of its output without the batch.
        facts: what the layer does.
        index: how often the layer was called before, in the order the network was written.
        first: whether it is the layer's first call here, at which its weights are counted.
        outputs: which outputs of the network it gives, by their numbers.
        position: which of the layer's outputs it is, for layers with several.
        argument: which input of the network it is; `None` for what is computed.
        variables: numbers in variables of an own layer that was taken apart, counted at its
            first call.
        function: from its inputs to its output, where it stands for several calls.
    """

    layer: tf.keras.layers.Layer
    name: str
    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    facts: Facts
    index: int = 0
    first: bool = True
    outputs: tuple[int, ...] = ()
    position: int = 0
    argument: int | None = None
    variables: int = 0
    function: Callable[..., tf.Tensor] | None = field(default=None, repr=False, compare=False)

    @property
    def output(self) -> bool:
        """Whether it gives an output of the network."""
        return bool(self.outputs)

    @property
    def owner(self) -> str:
        """The name of the layer; of a function in an own layer or a model, the name of that."""
        outer, _, _ = self.name.rpartition("/")
        return outer if outer and hasattr(self.layer, "symbol") else self.name

    @property
    def area(self) -> int:
        """Number of positions of the output, such as height times width."""
        return int(np.prod(self.shape[:-1]))


@quantized_scope(None)
def read_graph(model: tf.keras.Model, *, apart: bool = True) -> list[Call]:
    """Return the calls of `model`, each after those it reads.

    # Arguments
        model: a built model.
        apart: whether layers and models of the user's own are taken apart, as far as their
            `call` can be followed; otherwise each is one call.

    # Raises
        InputError: if the model is not built, or has no static shape.
    """
    model = functional(model)
    reader = _Reader(apart)
    inputs = [reader.add_input(layer, n) for n, layer in enumerate(model._input_layers)]
    outputs = reader.read(model, inputs, "")
    return prune(reader.calls, outputs)


def functional(model: tf.keras.Model) -> tf.keras.Model:
    """Return `model` as a functional one: itself, or a subclassed one behind inputs as it had.

    # Raises
        InputError: if it is no model, or was never called.
    """
    if not isinstance(model, tf.keras.Model):
        raise InputError(f"`model` must be a tf.keras.Model, but got {model!r}.")
    if getattr(model, "_is_graph_network", False):
        return model
    spec = model.save_spec() if model.built else None
    if spec is None:
        raise InputError(
            f"`model` must have an input shape, but `{model.name}` has none: call it on data, or "
            "give it a tf.keras.Input."
        )
    (first, *others), named = spec
    if others or any(isinstance(value, tf.TensorSpec) for value in tf.nest.flatten(named)):
        raise InputError(
            f"`{model.name}` must take one argument: a tensor, or a list of tensors. A SavedModel "
            "is read so if the class of its model is not known: import it, or give --load FILE.py."
        )
    inputs = tf.nest.map_structure(
        lambda one: tf.keras.Input(one.shape[1:], dtype=one.dtype), first
    )
    return tf.keras.Model(inputs, model(inputs), name=model.name)


def unread_weights(
    layer: tf.keras.layers.Layer, function: Callable[..., Any], specs: Sequence[tf.TensorSpec]
) -> set[int]:
    """Return the ids of the weights of a built layer that inference does not read.

    Those of a part that only training calls are such. None, where `function`, which calls the
    layer without training on tensors of these specifications, cannot be traced.
    """
    try:
        traced = tf.function(function).get_concrete_function(*specs)
    except Exception:  # noqa: BLE001 - an own layer may do anything
        return set()
    read = {id(tensor) for tensor in traced.captured_inputs}
    handles = {id(one): getattr(one, "latent_variable", one).handle for one in layer.weights}
    return {weight for weight, handle in handles.items() if id(handle) not in read}


class _Reader:
    """Collects calls, models within models in their place."""

    def __init__(self, apart: bool) -> None:
        self._apart = apart
        self.calls: list[Call] = []
        self._counted: set[int] = set()

    def add_input(self, layer: tf.keras.layers.Layer, argument: int) -> int:
        facts, shape = facts_of(layer), layer.output_shape
        return self._add(layer, layer.name, (), shape, facts=facts, argument=argument)

    def read(self, model: tf.keras.Model, inputs: list[int], prefix: str) -> list[int]:
        """Read the calls of `model` on `inputs`, and return the calls of its outputs."""
        made = {id(tensor): call for tensor, call in zip(model.inputs, inputs, strict=True)}
        for node in _nodes(model):
            if all(id(tensor) in made for tensor in tf.nest.flatten(node.outputs)):
                continue
            read = tuple(made[id(tensor)] for tensor in node.keras_inputs)
            calls = self._read_node(node, read, prefix)
            made |= {
                id(tensor): call
                for tensor, call in zip(tf.nest.flatten(node.outputs), calls, strict=True)
            }
        return [made[id(tensor)] for tensor in model.outputs]

    def _read_node(
        self, node: "tf.keras.engine.node.Node", inputs: tuple[int, ...], prefix: str
    ) -> list[int]:
        layer, name = node.layer, prefix + node.layer.name
        if getattr(layer, "_is_graph_network", False):
            _require_inference(layer, node, name)
            return self.read(layer, list(inputs), f"{name}/")
        index = layer._inbound_nodes.index(node)
        parts = _taken_apart(layer, node) if self._apart and is_own(layer) else None
        if parts is not None:
            return self._read_parts(node, parts, inputs, f"{name}/")
        _require_batch(node, name)
        facts = facts_of(layer, node)
        return [
            self._add(
                layer, name, inputs, tensor.shape, facts=facts, index=index, position=position
            )
            for position, tensor in enumerate(tf.nest.flatten(node.outputs))
        ]

    def _read_parts(
        self,
        node: "tf.keras.engine.node.Node",
        parts: tf.keras.Model,
        inputs: tuple[int, ...],
        prefix: str,
    ) -> list[int]:
        """Read an own layer that was taken apart, and count its own variables at its first call."""
        layer, start = node.layer, len(self.calls)
        outputs = self.read(parts, list(inputs), prefix)
        inside = {id(weight) for call in self.calls[start:] for weight in call.layer.weights}
        own = [weight for weight in layer.weights if id(weight) not in inside | self._counted]
        if own:
            specs = [tf.TensorSpec(one.shape, one.dtype) for one in node.keras_inputs]
            unread = unread_weights(layer, lambda *x: _call(layer, layer, node, x), specs)
            own = [weight for weight in own if id(weight) not in unread]
        self._counted |= {id(weight) for weight in own}
        numbers = sum(int(weight.shape.num_elements()) for weight in own)
        # The kernels of functions, such as `tf.nn.conv2d`, are counted as such.
        functions = {
            weights_key(c): c.facts.constants for c in self.calls[start:] if _multiplies(c)
        }
        numbers -= sum(functions.values())
        if numbers > 0 and len(self.calls) > start:
            self.calls[start] = dataclasses.replace(self.calls[start], variables=numbers)
        return outputs

    def _add(
        self, layer: Any, name: str, inputs: tuple[int, ...], shape: Any, **settings: Any
    ) -> int:
        if isinstance(shape, list):
            (shape,) = shape
        static = tuple(shape)[1:] or (1,)
        if None in static:
            raise InputError(
                f"Every shape must be static, but the output of layer `{name}` is "
                f"{tuple(shape)}: give the input its height and width."
            )
        self.calls.append(Call(layer, name, inputs, static, **settings))
        return len(self.calls) - 1


def _multiplies(call: Call) -> bool:
    """Return whether a call is a function with a kernel, as `tf.nn.conv2d`."""
    return hasattr(call.layer, "symbol") and call.facts.kind in ("conv", "dense", "depthwise")


def _require_inference(model: tf.keras.Model, node: Any, name: str) -> None:
    """Refuse a nested model that is called as in training, where that makes a difference."""
    kinds = (tf.keras.layers.BatchNormalization, tf.keras.layers.Dropout)
    differs = any(isinstance(layer, kinds) for layer in model._flatten_layers())
    if node.call_kwargs.get("training") is True and differs:
        raise InputError(
            f"Model `{name}` is called with training=True, so that its outputs depend on the "
            "batch or on chance: call it without."
        )


def _require_batch(node: Any, name: str) -> None:
    """Refuse a call that fixes the number of images, as `tf.reshape(x, (1, -1))` does."""
    read, written = tf.nest.flatten(node.keras_inputs), tf.nest.flatten(node.outputs)
    any_batch = any(len(tensor.shape) and tensor.shape[0] is None for tensor in read)
    for tensor in written:
        # Vectors are shapes and the like, of no image.
        if any_batch and len(tensor.shape) > 1 and tensor.shape[0] is not None:
            rest = ", ".join(str(-1 if size is None else size) for size in tensor.shape[1:])
            raise InputError(
                f"Every layer must take any number of images, but layer `{name}` fixes the batch "
                f"at {tensor.shape[0]} (its output is {tuple(tensor.shape)}): leave the batch "
                f"open, as (-1, {rest.replace('-1', 'size')})."
            )


def _taken_apart(layer: Any, node: Any) -> tf.keras.Model | None:
    """Return the calls that an own layer makes as a model; `None` if they cannot be followed.

    Its `call` runs on Keras's symbolic tensors once more. What it computes from its variables
    alone is a constant in the model, as of now.
    """
    read = [
        tf.keras.Input(tensor.shape[1:], dtype=tensor.dtype)
        for tensor in tf.nest.flatten(node.keras_inputs)
    ]
    logger = tf.get_logger()
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)  # Keras warns of variables in functions, as here
        with _without_own_gradients():
            outputs = _call(layer, getattr(layer.call, "python_function", layer.call), node, read)
        parts = tf.keras.Model(read, tf.nest.flatten(outputs))
        tensors = [tensor for part in _nodes(parts) for tensor in tf.nest.flatten(part.outputs)]
        static = all(None not in tuple(tensor.shape)[1:] for tensor in tensors)
        return parts if static and _are_equal(layer, node, parts, read) else None
    except Exception:  # noqa: BLE001 - an own layer may do anything
        return None
    finally:
        logger.setLevel(level)


@contextmanager
def _without_own_gradients() -> Iterator[None]:
    """Let functions with a gradient of their own take symbolic tensors: only outputs matter."""
    original = custom_gradient._eager_mode_decorator

    def forward(function: Any, args: Any, kwargs: Any) -> Any:
        given = tf.nest.flatten((args, kwargs))
        if any(hasattr(value, "_keras_history") for value in given):
            return function(*args, **kwargs)[0]
        return original(function, args, kwargs)

    custom_gradient._eager_mode_decorator = forward
    try:
        yield
    finally:
        custom_gradient._eager_mode_decorator = original


def _are_equal(layer: Any, node: Any, parts: tf.keras.Model, read: Sequence[Any]) -> bool:
    """Return whether the parts of an own layer compute what it does, on random numbers."""
    numbers = np.random.default_rng(0)
    inputs = [
        tf.cast(numbers.normal(size=(2, *tensor.shape[1:])).astype("float32"), tensor.dtype)
        for tensor in read
    ]
    expected = tf.nest.flatten(_call(layer, layer, node, inputs))
    with quantized_scope():
        got = tf.nest.flatten(parts(inputs, training=False))
    return len(expected) == len(got) and all(
        one.shape == other.shape and np.allclose(one, other, rtol=1e-4, atol=1e-5)
        for one, other in zip(expected, got, strict=True)
    )


def call_layer(call: Call, inputs: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Call the layer as the network does, with the arguments that are no tensors too."""
    if call.function is not None:
        return [call.function(*inputs)]
    node = call.layer._inbound_nodes[call.index]
    # A function in an own layer of Larq's kind reads the kernel as that layer does.
    quantized = quantized_scope() if hasattr(call.layer, "symbol") else nullcontext()
    with quantized:
        outputs: list[tf.Tensor] = tf.nest.flatten(_call(call.layer, call.layer, node, inputs))
    return outputs


@quantized_scope(None)
def _call(layer: Any, function: Callable[..., Any], node: Any, inputs: Sequence[Any]) -> Any:
    """Call `function` as `node` calls `layer`, on other tensors, without training."""
    args, kwargs = arguments_of(node, inputs)
    if layer._expects_training_arg and kwargs.get("training") is None:
        kwargs["training"] = False
    return function(*args, **kwargs)


def arguments_of(node: Any, inputs: Sequence[Any]) -> tuple[Any, Any]:
    """Return the arguments of a call, with other tensors in the place of those it reads."""
    tensors: dict[str, list[Any]] = {}
    # Of a tensor that is read twice, Keras takes the last one first; both are the same.
    for keras_input, value in zip(node.keras_inputs, inputs, strict=True):
        tensors.setdefault(str(id(keras_input)), []).append(value)
    return node.map_arguments(tensors)


def _nodes(model: tf.keras.Model) -> Iterator["tf.keras.engine.node.Node"]:
    for depth in sorted(model._nodes_by_depth, reverse=True):
        yield from model._nodes_by_depth[depth]


def weights_key(call: Call) -> Hashable:
    """Return what tells the weights of a call from others: its layer, or a function's kernel."""
    if not _multiplies(call):
        return id(call.layer)
    node = call.layer._inbound_nodes[-1]
    given = tf.nest.flatten((node.call_args, node.call_kwargs))
    for value in given:
        if isinstance(value, tf.Variable):
            return id(value)
        # A kernel that is quantized, made anew at each call of an own layer.
        if isinstance(value, tf.Tensor) and value.shape.rank > 1:
            return call.owner, value.numpy().tobytes()
    return id(call.layer)


def needed_by(outputs: Iterable[int], reads: Callable[[int], Iterable[int]]) -> set[int]:
    """Return the calls that `outputs` depend on, themselves among them."""
    needed, waiting = set[int](), list(outputs)
    while waiting:
        index = waiting.pop()
        if index not in needed:
            needed.add(index)
            waiting += reads(index)
    return needed


def prune(calls: list[Call], outputs: Sequence[int]) -> list[Call]:
    """Return the calls that `outputs` depend on, in the order they were in."""
    order = sorted(needed_by(outputs, lambda index: calls[index].inputs))
    numbers = {old: new for new, old in enumerate(order)}
    seen: set[Hashable] = set()
    kept = []
    for old in order:
        call = calls[old]
        first = weights_key(call) not in seen
        seen.add(weights_key(call))
        inputs = tuple(numbers[index] for index in call.inputs)
        given = tuple(number for number, output in enumerate(outputs) if output == old)
        kept.append(dataclasses.replace(call, inputs=inputs, first=first, outputs=given))
    return kept
