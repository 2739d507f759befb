"""The command `larq-nas latency`."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import click

from larq_nas.cli.common import (
    image_size,
    one_line_errors,
    read_space,
    settings_option,
    space_settings,
)
from larq_nas.errors import InputError, warn
from larq_nas.latency import Latency, LatencyTable, build_table, measure
from larq_nas.latency.devices.transport import OutputsError
from larq_nas.latency.measure import HERE
from larq_nas.run_directory import RunDirectory
from larq_nas.spaces import resolve

__all__ = ["latency"]


@click.command()
@click.argument("source", required=False, type=click.Path(path_type=Path))
@click.option(
    "--device",
    default=HERE,
    show_default=True,
    help="Where to measure: here, ssh://[user@]host[:port] or adb://[serial].",
)
@click.option(
    "--kernel",
    type=click.Choice(["default", "reference", "indirect"]),
    default="default",
    show_default=True,
    help="Kernel of the binary convolutions.",
)
@click.option("--threads", type=int, default=1, show_default=True, help="Threads, on a device.")
@click.option("--runs", type=int, default=50, show_default=True, help="Inferences to time.")
@click.option("--per-operation", is_flag=True, help="Time each operation too.")
@click.option(
    "--tool",
    type=click.Path(path_type=Path),
    help="lce_benchmark_model for the device, on this machine; by default one on the device.",
)
@click.option(
    "--golden",
    type=click.Path(path_type=Path),
    help="golden.bin of a package, to compare outputs there; by default one beside the model.",
)
@click.option("--no-golden", is_flag=True, help="Compare no outputs.")
@click.option(
    "--program",
    type=click.Path(path_type=Path),
    help="Build of the package's main.cc for the device, to compare outputs with; by default "
    "lce_benchmark_model does.",
)
@click.option("--ssh-option", "ssh_options", multiple=True, help="For ssh; repeat for more.")
@click.option(
    "--build-table",
    type=click.Path(path_type=Path),
    help="File of a latency table to build for a space, for larq-nas search --latency-table.",
)
@click.option("--space", help="Space of the table, or your own as FILE.py:FUNCTION.")
@settings_option("A setting of the space, such as channels=32; repeat for more.")
@click.option("--input", "size", help="Images of the table as HEIGHTxWIDTHxCHANNELS.")
@click.option("--classes", type=int, help="Number of classes of the table.")
@click.option(
    "--networks",
    type=int,
    default=24,
    show_default=True,
    help="Networks to measure operation by operation, at most.",
)
@click.option(
    "--checks",
    type=int,
    default=20,
    show_default=True,
    help="Other networks to check the table with.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the networks.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, nothing else.")
@one_line_errors
def latency(
    source: Path | None,
    build_table: Path | None,
    device: str,
    kernel: str,
    threads: int,
    runs: int,
    per_operation: bool,
    tool: Path | None,
    golden: Path | None,
    no_golden: bool,
    program: Path | None,
    ssh_options: tuple[str, ...],
    as_json: bool,
    **table: Any,
) -> None:
    """Measure what a converted network takes, here or on a device, or build a table of a space.

    SOURCE is a .tflite, or the directory of a run or a package. With a package, its golden test
    runs first: outputs that are not as expected are an error. A table holds what each operation
    takes that a network of the space can have; a build that was stopped goes on with the same
    command.

    \b
    larq-nas latency runs/digits --kernel indirect --per-operation
    larq-nas latency model.tflite --device ssh://pi@raspberrypi --tool lce_benchmark_model_aarch64
    larq-nas latency --build-table pi.json --space vgg_small --input 32x32x3 --classes 10 \\
        --device ssh://pi@raspberrypi
    """
    if (source is None) == (build_table is None):
        raise click.UsageError("Give either SOURCE or --build-table.")
    options: dict[str, Any] = {"device": device, "threads": threads, "runs": runs}
    options |= {"tool": tool} if tool else {}
    options |= {"ssh_options": ssh_options} if ssh_options else {}
    if build_table:
        if golden or program or no_golden:
            raise click.UsageError("--golden, --no-golden and --program go with SOURCE.")
        if per_operation:
            raise click.UsageError("--per-operation goes with SOURCE; a table always times each.")
        made = _build(build_table, kernel, options, **table)
        click.echo(build_table.read_text(encoding="utf-8") if as_json else f"{made}")
        return
    if table["space"] or table["settings"] or table["size"] or table["classes"]:
        raise click.UsageError("--space, --set, --input and --classes go with --build-table.")
    assert source is not None
    model = source / "model.tflite" if source.is_dir() else source
    options |= {"kernel": kernel, "per_operation": per_operation}
    options |= {"program": program} if program else {}
    beside = model.with_name("golden.bin")
    if no_golden and (golden or program):
        raise click.UsageError("--no-golden goes with neither --golden nor --program.")
    if golden or no_golden or not beside.exists():
        measured = measure(model, golden=golden, **options)
    else:
        measured = _compared_if_possible(model, beside, options)
    if source.is_dir() and (source / "settings.json").exists():
        run = RunDirectory(source, {})
        try:
            run.keep_latency(measured.summary())
            click.echo(f"kept in {run.latencies}, for larq-nas report", err=True)
        except OSError as error:
            warn(f"The latency is not kept in `{run.latencies}` ({error.strerror}).")
    click.echo(json.dumps(measured.summary(), indent=2) if as_json else f"{measured}")


def _compared_if_possible(model: Path, golden: Path, options: dict[str, Any]) -> Latency:
    """Measure a model with the golden test beside it, which not every program can run."""
    try:
        return measure(model, golden=golden, **options)
    except OutputsError as error:
        click.echo(f"Warning: no golden test. {error}", err=True)
        return measure(model, **options)


def _build(
    path: Path,
    kernel: str,
    options: dict[str, Any],
    *,
    space: str | None,
    settings: dict[str, Any],
    size: str | None,
    classes: int | None,
    networks: int,
    checks: int,
    seed: int,
) -> LatencyTable:
    if not space or not size or classes is None:
        raise InputError(
            "A table needs --space, --input and --classes: what networks it is of, such as "
            "--space vgg_small --input 32x32x3 --classes 10."
        )
    return build_table(
        resolve(read_space(space), space_settings(settings)),
        partial(measure, **options),
        path=path,
        input_shape=image_size(size),
        classes=classes,
        kernel=kernel,  # type: ignore[arg-type]
        networks=networks,
        checks=checks,
        seed=seed,
        on_progress=partial(click.echo, err=True),
    )
