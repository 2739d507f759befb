"""The command `larq-nas convert`."""

import json
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
import tensorflow as tf

from larq_nas.architecture import Architecture
from larq_nas.cli.common import load_code, load_model, model_path, named, one_line_errors
from larq_nas.deploy import convert as convert_model
from larq_nas.deploy.integers import NUMBER_TYPES, NumberType
from larq_nas.deploy.package import Accuracy, write_package
from larq_nas.errors import InputError, first_line
from larq_nas.run_directory import read_settings

__all__ = ["convert"]


@click.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="File to write; by default a .tflite (or .int8.tflite) of the same name beside the model.",
)
@click.option(
    "--examples", type=int, default=512, show_default=True, help="Images to compare on, at most."
)
@click.option(
    "--kernel",
    "kernels",
    multiple=True,
    default=("default", "reference"),
    show_default=True,
    help="Kernel that must agree with Keras: default, reference or indirect; repeat for more.",
)
@click.option(
    "--package",
    type=click.Path(path_type=Path),
    help="Directory to write all into that deploying takes: model card, C++ and Android code, "
    "and the network as plain Keras.",
)
@click.option(
    "--class-names",
    help="Names of the classes for the package, with commas, or a file with one on each line; by "
    "default those of the run's data.",
)
@click.option(
    "--preprocessing",
    default="",
    help='For its card, such as "x / 127.5 - 1"; by default what the run knows.',
)
@click.option(
    "--allow-float", multiple=True, help="Binary layer that may run in float; repeat for more."
)
@click.option(
    "--images",
    "image_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="NumPy file (.npy) of images to compare on, first axis the examples, as the model reads "
    "them; by default those that a run kept.",
)
@click.option(
    "--load",
    "code",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="Python file with layers and functions of the model; repeat for more.",
)
@click.option(
    "--no-rewrite",
    is_flag=True,
    help="Convert each layer as it is, and refuse what would run in float then.",
)
@click.option(
    "--int8",
    type=click.Choice(["ends", "all"]),
    help="Real layers to run in int8: the first and last, or all; calibrated on a run's images.",
)
@click.option(
    "--input-type",
    type=click.Choice(NUMBER_TYPES),
    default="float32",
    show_default=True,
    help="Type of the inputs: uint8 for pixels of 0 to 255 as a camera gives them.",
)
@click.option(
    "--output-type",
    type=click.Choice(NUMBER_TYPES),
    default="float32",
    show_default=True,
    help="Type of the outputs.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, nothing else.")
@one_line_errors
def convert(
    source: Path,
    output: Path | None,
    examples: int,
    kernels: tuple[str, ...],
    package: Path | None,
    class_names: str | None,
    preprocessing: str,
    allow_float: tuple[str, ...],
    int8: Literal["ends", "all"] | None,
    image_file: Path | None,
    code: tuple[Path, ...],
    no_rewrite: bool,
    input_type: NumberType,
    output_type: NumberType,
    as_json: bool,
) -> None:
    """Convert the model of a run, or any saved Keras or Larq model, for Larq Compute Engine.

    SOURCE is the directory of a run, a .keras or .h5 file, or a SavedModel. Outputs are compared
    with those of Keras on the run's validation images, otherwise on random ones. Nothing is
    written if a binary layer would run in float, or an operation computes something else than
    Keras does.

    \b
    larq-nas convert runs/digits
    larq-nas convert model.keras --output model.tflite --kernel indirect
    larq-nas convert runs/digits --package packages/digits
    larq-nas convert runs/digits --int8 ends --input-type uint8
    larq-nas convert model.keras --images images.npy --load my_layers.py
    """
    if not package and (class_names or preprocessing):
        raise click.UsageError("--class-names and --preprocessing go with --package.")
    path = model_path(source)
    images = _images(image_file) if image_file else None
    if images is None and path != source:
        images = _images(path.with_name("sample.npy"))
    if images is None:
        click.echo("No images at hand: comparing on random numbers", err=True)
    model = load_model(path, load_code(code))
    if path != source:
        model.compile(loss="sparse_categorical_crossentropy")  # so that outputs are of classes
    known = _known(source, model) if package and path != source else {}
    known |= {"class_names": _names(class_names)} if class_names else {}
    known |= {"preprocessing": preprocessing} if preprocessing else {}
    conversion = convert_model(
        model,
        images,
        examples=examples,
        kernels=kernels,  # type: ignore[arg-type]
        allow_float=allow_float,
        rewrite=not no_rewrite,
        int8=int8,
        input_type=input_type,
        output_type=output_type,
    )
    target = output or path.with_suffix(".int8.tflite" if int8 else ".tflite")
    if package:
        write_package(package, conversion, model, images=images, **known)
    conversion.save(target)
    written = {"output": str(target), **({"package": str(package)} if package else {})}
    if as_json:
        click.echo(json.dumps({**written, **conversion.summary()}, indent=2))
    else:
        click.echo("\n".join([str(conversion), *(f"written: {at}" for at in written.values())]))


def _names(text: str | None) -> list[str] | None:
    """Return class names as they were given, or those in the file that was."""
    if text is None or not Path(text).is_file():
        return None if text is None else named(text)
    try:
        lines = Path(text).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"Cannot read the class names in `{text}`: {first_line(error)}.") from None
    return [line.strip() for line in lines if line.strip()]


def _known(run: Path, model: tf.keras.Model) -> dict[str, Any]:
    """Return what a run tells of its network: architecture, accuracy, classes and images."""
    known: dict[str, Any] = {"architecture": Architecture.load(run / "architecture.json")}
    examples = read_settings(run).get("data", {}).get("validation_examples")
    try:
        result = json.loads((run / "result.json").read_text(encoding="utf-8"))
        value, of_classes = result["accuracy"], result.get("class_accuracy", {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return known
    data = "the validation data of the search"
    known["accuracy"] = Accuracy(value, data, examples, of_classes)
    names = result.get("class_names") or ()
    known["class_names"] = names if len(names) == model.output_shape[-1] else None
    known["preprocessing"] = result.get("preprocessing", "")
    return known


def _images(path: Path) -> np.ndarray | None:
    """Return the images in a NumPy file; `None` if there is no such file."""
    if not path.exists():
        return None
    try:
        images: np.ndarray = np.load(path)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"`{path}` holds no NumPy array ({first_line(error)}).") from error
    return images
