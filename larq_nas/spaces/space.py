"""The contract of a search space, and spaces by name."""

import dataclasses
import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeAlias

import tensorflow as tf

from larq_nas.errors import InputError, first_line, require_known, unknown_name, warn
from larq_nas.graph.calls import read_graph
from larq_nas.layers import SEARCH, Domain
from larq_nas.spaces.chooser import Chooser, ImageShape, Survey

SpaceFunction: TypeAlias = Callable[[Chooser, ImageShape, int], tf.keras.Model]
"""A space as a function of `(choose, input_shape, classes)`."""


Precision = Literal["binary", "real"]
"""A binary network, its first and last layer real, or its float twin."""


class Space(ABC):
    """A family of networks, written as one function that asks a chooser.

    Settings are the fields of a dataclass; they are checked when it is created.
    """

    name: ClassVar[str]
    search_domain: ClassVar[Domain] = SEARCH
    """What is binary while it is searched."""

    @property
    def images(self) -> tuple[ImageShape, int]:
        """The images its paper's tables are of: their shape, and the number of classes."""
        return (32, 32, 3), 10

    @property
    def smallest(self) -> Sequence["Space"]:
        """Spaces of its kind with the smallest networks, for where none keeps to a budget."""
        return ()

    @abstractmethod
    def build(self, choose: Chooser, input_shape: ImageShape, classes: int) -> tf.keras.Model:
        """Build the network that `choose` answers.

        # Arguments
            choose: answers each question; see `larq_nas.spaces.Chooser`.
            input_shape: `(height, width, channels)` of the images, in pixels.
            classes: number of classes.

        # Returns
            A functional model from images to logits, shape `(batch, classes)`.
        """

    def check(self, input_shape: ImageShape) -> None:
        """Raise `InputError` if no network of the space can read such images."""

    def proxy(self) -> "Space":
        """Return the smaller space that is searched in place of this one, or itself."""
        return self

    def survey(self, input_shape: ImageShape, classes: int) -> Survey:
        """Return a chooser that knows what the space asks: `questions()`, and its `cells`.

        # Raises
            InputError: if the space that is searched in place of this one asks otherwise.
        """
        return self.require_like(self.proxy(), input_shape, classes)

    def require_like(self, proxy: "Space", input_shape: ImageShape, classes: int) -> Survey:
        """Return what the space asks, or raise `InputError` if `proxy` asks otherwise."""
        survey = _survey(self, input_shape, classes)
        survey_of_proxy = survey if proxy == self else _survey(proxy, input_shape, classes)
        asked, asked_by_proxy = survey.questions(), survey_of_proxy.questions()
        for name in sorted(asked.keys() ^ asked_by_proxy.keys()):
            where, other = ("network", "supernet") if name in asked else ("supernet", "network")
            raise InputError(
                f"The {where} of space `{self.name}` asks for `{name}`, but its {other} does not: "
                "give both the same kinds of cells, of which 3 cells or more have all (`cells`, "
                "`search_cells`, `stage_cells`)."
            )
        return survey

    def settings(self) -> dict[str, Any]:
        """Return the settings as an `Architecture` holds them."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in _fields(self).items()
        }


class FunctionSpace(Space):
    """A space given as a plain function of `(choose, input_shape, classes)`."""

    def __init__(self, function: SpaceFunction) -> None:
        self.function = function
        self.name = getattr(function, "__name__", type(function).__name__)  # type: ignore[misc]

    def build(self, choose: Chooser, input_shape: ImageShape, classes: int) -> tf.keras.Model:
        try:
            model = self.function(choose, input_shape, classes)
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"Space `{self.name}` cannot be built: {first_line(error)}."
            ) from error
        if not isinstance(model, tf.keras.Model):
            raise InputError(f"Space `{self.name}` must return a tf.keras.Model, got {model!r}.")
        return model

    def settings(self) -> dict[str, Any]:
        return {}


SpaceLike: TypeAlias = str | Space | SpaceFunction
"""The name of a space, a space, or a function that builds networks."""

_registry: dict[str, type[Space]] = {}


def register(space: type[Space]) -> type[Space]:
    """Make a space known by its name."""
    _registry[space.name] = space
    return space


def resolve(space: SpaceLike, settings: Mapping[str, Any] | None = None) -> Space:
    """Return the space that a name, a function or a space stands for.

    # Arguments
        space: name of a space, a `Space`, or a function of `(choose, input_shape, classes)`.
        settings: the space's settings by name; they replace those of a given `Space`.

    # Raises
        InputError: if the name or a setting is unknown, or a setting cannot be used.
    """
    settings = dict(settings or {})
    if isinstance(space, type) and issubclass(space, Space):
        raise InputError(f"`space` must be an instance, such as {space.__name__}().")
    if isinstance(space, tf.keras.Model):
        raise InputError(
            "`space` must be a name, a Space or a function, but got a Keras model: its widths are "
            "searched as larq_nas.spaces.ModelWidths(model)."
        )
    if isinstance(space, Space) and settings and not dataclasses.is_dataclass(space):
        raise InputError(f"Space `{space.name}` has no settings: leave {', '.join(settings)} out.")
    if isinstance(space, Space):
        return create(type(space), {**_fields(space), **settings}) if settings else space
    if isinstance(space, str):
        require_known("space", space, _registry)
        return create(_registry[space], settings)
    if not callable(space):
        raise InputError(f"`space` must be a name, a Space or a function, but got {space!r}.")
    if settings:
        raise InputError(f"Space `{space.__name__}` is a function and has no settings: {settings}.")
    return FunctionSpace(space)


def resolve_recorded(
    name: str, settings: Mapping[str, Any], space: SpaceLike | None = None
) -> Space:
    """Return the space that a file names, in its settings; one of a user's own must be given."""
    if space is None:
        if name not in _registry:
            unknown = str(unknown_name("space", name, _registry)).rstrip(".")
            raise InputError(
                f"{unknown}; give your own as `space`, the object itself or FILE.py:FUNCTION."
            )
        return resolve(name, settings)
    given = resolve(space)
    if given.name != name:
        raise InputError(f"The architecture is of space `{name}`, but got `{given.name}`.")
    found = resolve(space, settings)
    if isinstance(space, Space) and is_built_in(given) and given != found:
        own, used = given.settings(), found.settings()
        changed = next((one for one in own if own[one] != used[one]), None)
        if changed:
            warn(
                f"`space` has `{changed}` {own[changed]!r}, but the architecture was found with "
                f"{used[changed]!r}, which is used: change it by architecture.with_settings("
                f"{changed}={own[changed]!r})."
            )
    return found


def has_setting(name: str, setting: str) -> bool:
    """Return whether a space of larq_nas has a setting."""
    kind = _registry.get(name)
    return kind is not None and setting in {one.name for one in dataclasses.fields(kind)}  # type: ignore[arg-type]


def names() -> list[str]:
    """Return the names of the spaces that `resolve` knows."""
    return sorted(_registry)


def is_built_in(space: Space) -> bool:
    """Return whether a space comes with larq_nas."""
    return type(space) in _registry.values()


def create(kind: type[Space], settings: Mapping[str, Any]) -> Space:
    """Return a space of `kind`, or raise `InputError` for a setting it does not have."""
    known: list[str] = []
    if dataclasses.is_dataclass(kind):
        known = [entry.name for entry in dataclasses.fields(kind)]
    for name in settings:
        require_known(f"setting of space `{kind.name}`", name, known)
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
    return kind(**values)


def _survey(space: Space, input_shape: ImageShape, classes: int) -> Survey:
    choose = Survey()
    model = space.build(choose, input_shape, classes)
    outputs, last = model.output_shape, tf.nest.flatten(model.output)[0]._keras_history.layer
    softmax = getattr(last, "activation", None) is tf.keras.activations.softmax
    if softmax or isinstance(last, tf.keras.layers.Softmax):
        raise InputError(
            f"Space `{space.name}` must end in logits, but `{last.name}` applies softmax: leave it "
            "out, the loss does it."
        )
    if outputs != (None, classes):
        raise InputError(
            f"Space `{space.name}` must end in logits of shape (None, {classes}), but got "
            f"{outputs}."
        )
    return choose


def _fields(space: Space) -> dict[str, Any]:
    if not dataclasses.is_dataclass(space):
        return {}
    return {entry.name: getattr(space, entry.name) for entry in dataclasses.fields(space)}


# What Keras and Python number anew in each process.
_NUMBER, _ADDRESS = re.compile(r'("name": "[^"]*?)_\d+"'), re.compile(r" at 0x[0-9a-f]+")


def fingerprint(model: tf.keras.Model) -> str:
    """Return a text that is another one if layers, their settings or their inputs differ.

    Names that Keras numbers anew in each process count as the same, and so does what the
    functions of `Lambda` layers do.
    """
    described = [
        (type(call.layer).__name__, _settings(call.layer), call.inputs, call.index, call.output)
        for call in read_graph(model, apart=False)
    ]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]


def _settings(layer: tf.keras.layers.Layer) -> str:
    try:
        settings: dict[str, Any] = dict(layer.get_config())
    except NotImplementedError:
        settings = {"name": layer.name}
    if isinstance(layer, tf.keras.layers.Lambda):
        # Its code changes with the line it stands in.
        settings.pop("function", None)
    text = json.dumps(settings, sort_keys=True, default=str)
    return _ADDRESS.sub("", _NUMBER.sub(r'\1"', text))
