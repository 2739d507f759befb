"""State of the process that a call leaves as it was: random numbers, and TensorFlow's log."""

import functools
import logging
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context
from tensorflow.python.eager.polymorphic_function import polymorphic_function
from tensorflow.python.ops import stateful_random_ops

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

_ABSENT = object()


def keeps_process_state(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Decorate a function that seeds and traces, so that a program around it does not notice."""

    @functools.wraps(function)
    def call(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        with restoring_random_states(), without_retracing_warnings(), restoring_root_log():
            return function(*args, **kwargs)

    return call


@contextmanager
def restoring_random_states() -> Iterator[None]:
    """Give Python, NumPy, TensorFlow and Keras back the random states that they had."""
    python, numpy = random.getstate(), np.random.get_state()
    owners = [
        (context.context(), ("_seed", "_rng")),
        (_keras_seeds(), ("generator",)),
        (stateful_random_ops, ("global_generator",)),
    ]
    states = [
        (owner, name, value, _state(value))
        for owner, names in owners
        for name in names
        for value in (getattr(owner, name, _ABSENT),)
    ]
    seeds = _keras_seeds()
    drawing = getattr(seeds, "generator", None)
    if type(drawing) is random.Random:
        seeds.generator = _WholeNumbers()
        seeds.generator.setstate(drawing.getstate())
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        for owner, name, value, state in states:
            if value is not _ABSENT:
                setattr(owner, name, value)
                _restore(value, state)
            elif hasattr(owner, name):
                delattr(owner, name)
        # Operations of the same seed would go on from where they are.
        context.context().clear_kernel_cache()


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and TensorFlow; the seed is 0 or a whole number above."""
    # TensorFlow takes a global seed of 0 for none at all where a data set is shuffled.
    tf.keras.utils.set_random_seed(seed + 1)
    _keras_seeds().generator = _WholeNumbers(seed + 1)


class _WholeNumbers(random.Random):
    """The generator of Keras, which asks for whole numbers up to 1e9: Python warns of floats."""

    def randint(self, a: float, b: float) -> int:
        return super().randint(int(a), int(b))


def _keras_seeds() -> Any:
    """Return what holds the generator that Keras draws seeds of layers and initializers by."""
    return sys.modules[tf.keras.utils.set_random_seed.__module__].backend._SEED_GENERATOR


def _state(generator: Any) -> Any:
    if isinstance(generator, random.Random):
        return generator.getstate()
    # In a graph nothing is drawn eagerly: what is called refuses to run there.
    is_readable = isinstance(generator, tf.random.Generator) and tf.executing_eagerly()
    return tf.identity(generator.state) if is_readable else None


def _restore(generator: Any, state: Any) -> None:
    if isinstance(generator, random.Random):
        generator.setstate(state)
    elif state is not None:
        generator.state.assign(state)


@contextmanager
def without_retracing_warnings() -> Iterator[None]:
    """Leave out TensorFlow's advice on functions that are traced again and again.

    It counts functions by their code, and so the steps of different models as one. What is counted
    here is no part of what it counts afterwards.
    """
    log = logging.getLogger("tensorflow")
    counts = polymorphic_function._frequent_tracing_detector_manager
    before = counts._detectors
    log.addFilter(_is_no_retracing)
    counts._detectors = WeakKeyDictionary()
    try:
        yield
    finally:
        counts._detectors = before
        log.removeFilter(_is_no_retracing)


@contextmanager
def restoring_root_log() -> Iterator[None]:
    """Take back the handler that Python gives a root logger without any when it is used.

    A converter uses it, and TensorFlow's warnings would be shown twice from then on.
    """
    root = logging.getLogger()
    before = list(root.handlers)
    try:
        yield
    finally:
        if not before:
            root.handlers.clear()


def _is_no_retracing(record: logging.LogRecord) -> bool:
    return "triggered tf.function retracing" not in str(record.msg)
