"""The command `larq-nas cost`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from larq_nas.architecture import Architecture
from larq_nas.cli.common import (
    image_size,
    load_model,
    model_path,
    one_line_errors,
    read_space,
    settings_option,
    space_settings,
)
from larq_nas.cost import CONVENTIONS, Profile, by_convention, profile, table
from larq_nas.cost.conventions import columns
from larq_nas.errors import InputError, unknown_name
from larq_nas.run_directory import read_settings
from larq_nas.spaces import Space, SpaceLike, WidthSpace, names, resolve

__all__ = ["cost"]


@dataclass(frozen=True)
class _Found:
    """A network that was asked for: of an architecture, or a model as it is."""

    name: str
    profile: Profile
    architecture: Architecture | None = None
    space: Space | None = None
    input_shape: tuple[int, ...] = ()
    classes: int = 0

    def columns(self, convention: str) -> dict[str, float]:
        """Return the columns of a convention."""
        if self.architecture is None or self.space is None:
            return by_convention(convention, self.profile)
        height, width, channels = self.input_shape
        shape = (height, width, channels)
        return columns(convention, self.architecture, self.space, shape, self.classes)


@click.command()
@click.argument("source", required=False, type=click.Path(path_type=Path))
@click.option(
    "--model",
    help="A backbone (vgg_small, vgg11, resnet18, resnet18_cifar) or a published architecture "
    "(bats, bats_imagenet, bnas_cifar, nasnet_a, ...).",
)
@click.option(
    "--expansion", help="Times a backbone's own width: a ratio, or one for each layer as 1,2,0.5."
)
@click.option("--real", is_flag=True, help="The float twin of a backbone.")
@settings_option("Another setting of the space, such as channels=80; repeat for more.")
@click.option("--space", help="Your own space of an architecture file, as FILE.py:FUNCTION.")
@click.option(
    "--input", "size", help="Images as HEIGHTxWIDTHxCHANNELS; by default those of the paper."
)
@click.option("--classes", type=int, help="Number of classes; by default that of the paper.")
@click.option(
    "--convention",
    "conventions",
    multiple=True,
    help="Count as a paper does, too: shen2019, dms, bats or bnas; repeat for more.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, nothing else.")
@one_line_errors
def cost(
    source: Path | None,
    model: str | None,
    expansion: str | None,
    real: bool,
    settings: dict[str, Any],
    space: str | None,
    size: str | None,
    classes: int | None,
    conventions: tuple[str, ...],
    as_json: bool,
) -> None:
    """Count what a network costs, layer by layer.

    SOURCE is the directory of a run, a saved model (.keras, .h5 or SavedModel) or an architecture
    (.json). Without SOURCE, --model names a network.

    \b
    larq-nas cost runs/digits
    larq-nas cost --model vgg_small --expansion 2 --convention shen2019
    larq-nas cost --model resnet18 --expansion 1 --input 224x224x3 --classes 1000 --json
    larq-nas cost --model bats_imagenet --set channels=120 --set groups=24 --convention bats
    """
    for name in conventions:
        if name not in CONVENTIONS:
            raise unknown_name("convention", name, CONVENTIONS)
    if (source is None) == (model is None):
        raise click.UsageError("Give either SOURCE or --model.")
    short: dict[str, Any] = {} if expansion is None else {"expansion": _ratios(expansion)}
    short |= {"precision": "real"} if real else {}
    settings = space_settings(settings)
    for name in short.keys() & settings.keys():
        raise InputError(f"`{name}` was given twice: as an option and by --set; leave one out.")
    changes = {**settings, **short}
    if not as_json:
        click.echo("Reading the network", err=True)
    own = None if space is None else read_space(space)
    if source is not None and source.suffix != ".json":
        if changes or size or classes or own:
            raise InputError(
                f"`{source}` is a model as it is: leave out --set, --expansion, --real, --space, "
                "--input and --classes, which are for architectures and backbones."
            )
        path = model_path(source)
        found = _Found(str(source), profile(load_model(path)))
    else:
        architecture = _named(model) if model else Architecture.load(source or "")
        found = _of_architecture(
            model or str(source),
            _changed(architecture, changes),
            own,
            size,
            classes,
            _images_of_run(source) if source else None,
        )
    record = {"model": found.name, **_described(found), **found.profile.summary()}
    if conventions:
        record["conventions"] = _by_conventions(conventions, found)
    click.echo(json.dumps(record, indent=2) if as_json else _text(found, record))


def _named(name: str) -> Architecture:
    """Return a published architecture, or a backbone at its own width."""
    published = Architecture.published_names()
    if name in published:
        return Architecture.published(name)
    backbones = [known for known in names() if isinstance(resolve(known), WidthSpace)]
    if name not in backbones:
        raise unknown_name("model", name, [*published, *backbones])
    return Architecture(name, {"expansion": 1})


def _changed(architecture: Architecture, changes: dict[str, Any]) -> Architecture:
    if architecture.space in names():
        known = resolve(architecture.space, architecture.settings).settings()
        for name, option in (("expansion", "--expansion"), ("precision", "--real")):
            if name in changes and name not in known:
                raise InputError(
                    f"`{option}` is for other networks: the settings of `{architecture.space}` are "
                    f"{', '.join(known)}; change them by --set NAME=VALUE."
                )
    return architecture.with_settings(**changes)


def _images_of_run(path: Path) -> tuple[tuple[int, int, int], int] | None:
    """Return what the run was searched for that an architecture file lies in, if it does."""
    if not (path.parent / "settings.json").exists():
        return None
    data = read_settings(path.parent)["data"]
    height, width, channels = data["input_shape"]
    return (height, width, channels), data["classes"]


def _of_architecture(
    name: str,
    architecture: Architecture,
    own: SpaceLike | None,
    size: str | None,
    classes: int | None,
    images: tuple[tuple[int, int, int], int] | None,
) -> _Found:
    space = architecture.resolve(own)
    shape, number = images or space.images
    shape = image_size(size) if size else shape
    number = number if classes is None else classes
    if number < 1:
        raise InputError(f"`--classes` must be 1 or more, but got {number}.")
    model = architecture.build(shape, number, own)
    return _Found(name, profile(model), architecture, space, shape, number)


def _described(found: _Found) -> dict[str, Any]:
    if found.architecture is None:
        return {}
    settings = dict(found.architecture.settings)
    return {"settings": settings, "input": list(found.input_shape), "classes": found.classes}


def _by_conventions(names: tuple[str, ...], found: _Found) -> dict[str, Any]:
    """Return the columns of each convention; one of several may not apply."""
    if len(names) == 1:
        return {names[0]: _counted(names[0], found)}
    counted: dict[str, Any] = {}
    for name in names:
        try:
            counted[name] = _counted(name, found)
        except InputError as error:
            counted[name] = {"refused": str(error)}
    return counted


def _counted(name: str, found: _Found) -> dict[str, Any]:
    convention = CONVENTIONS[name]
    changed = dict(convention.settings.get(found.space.name, {})) if found.space else {}
    return {
        "paper": convention.paper,
        **found.columns(name),
        "formulas": dict(convention.formulas),
        "flatters": convention.flatters,
        **({"counted_with": changed} if changed else {}),
    }


def _text(found: _Found, record: dict[str, Any]) -> str:
    lines = [table(found.profile)]
    if found.architecture is not None:
        size = "x".join(map(str, found.input_shape))
        lines.append(f"for images of {size} and {found.classes} classes")
    for name, counted in record.get("conventions", {}).items():
        if "refused" in counted:
            lines.append(f"\n{counted['refused']}")
            continue
        lines.append(f"\nas {counted['paper']} counts ({name}):")
        for column, value in counted.items():
            if isinstance(value, int | float):
                formula = counted["formulas"].get(column, "the float twin's over it")
                shown = f"{value:,}" if isinstance(value, int) else f"{value:,.4f}"
                lines.append(f"  {column}: {shown}  ({formula})")
        lines.append(f"  beside the figures above: {counted['flatters']}")
        if "counted_with" in counted:
            settings = ", ".join(f"{k}={v}" for k, v in counted["counted_with"].items())
            lines.append(f"  counted with {settings}, as the paper does")
    return "\n".join(lines)


def _ratios(text: str) -> float | list[float]:
    try:
        ratios = [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(
            f"`--expansion` must be a ratio such as 2, or one for each layer such as 1,2,0.5, but "
            f"got {text!r}."
        ) from None
    return ratios if len(ratios) > 1 else ratios[0]
