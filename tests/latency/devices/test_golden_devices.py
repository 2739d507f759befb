"""Golden test on a device: sshd, `ssh` and engine are real, the device is a folder here."""

import json
import shutil
import sys
from pathlib import Path

import local_sshd
import pytest
from click.testing import CliRunner
from deploy.package.programs import (
    classifying,
    compiled,
    first,
    images,
    needs_compiler,
    plant,
)

import larq_nas
from larq_nas.cli import main
from larq_nas.deploy.package import write_package
from larq_nas.errors import ConversionError, InputError
from larq_nas.latency import DeviceError, measure
from larq_nas.latency.devices import measure_on

PROGRAM = Path(__file__).parents[2] / "deploy" / "package" / "engine_program.py"
STAND_INS = Path(__file__).parent / "stand_ins"


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    model = classifying()
    directory = tmp_path_factory.mktemp("golden") / "package"
    conversion = larq_nas.convert(model, images(model))
    write_package(directory, conversion, model, images=images(model), standalone=False)
    (directory / "golden.bin").write_bytes(first(4, directory / "golden.bin"))
    for kind in ("sign", "number"):
        (directory.parent / f"{kind}.tflite").write_bytes(plant(conversion.flatbuffer, kind))
    return directory


@pytest.fixture
def device(tmp_path: Path):
    server = local_sshd.start(tmp_path)
    yield server
    server.stop()


def engine(folder: Path, unknown: str = "") -> Path:
    """Return a benchmark program that runs the real engine."""
    path = folder / "lce_benchmark_model_here"
    text = PROGRAM.read_text()
    if unknown:
        text = text.replace("UNKNOWN: tuple[str, ...] = ()", f"UNKNOWN = ({unknown!r},)")
    path.write_text(f"#!{sys.executable}\n{text}")
    return path


def check(device: local_sshd.LocalSshd, model: Path, golden: Path, **settings):
    settings.setdefault("tool", None)
    settings["tool"] = settings["tool"] or engine(device.home.parent)
    return measure_on(
        device.address,
        model.read_bytes(),
        golden=golden,
        ssh_options=device.options(),
        repeats=1,
        **settings,
    )


def test_a_device_that_computes_the_network_passes(device, package: Path) -> None:
    latency = check(device, package / "model.tflite", package / "golden.bin", kernel="indirect")
    (line,) = latency.golden
    assert line.startswith("output `which`: 4 of 4 inputs as expected (at least 4 must be), same")
    assert "same class on 4 of 4, largest difference " in line
    assert f"golden test: {line}" in str(latency)
    assert latency.summary()["golden"] == [line]
    assert device.leftovers() == []


@pytest.mark.parametrize("kind", ["sign", pytest.param("number", marks=pytest.mark.slow)])
def test_a_wrong_constant_fails_over_ssh(device, package: Path, kind: str) -> None:
    with pytest.raises(ConversionError, match=r"The golden test failed on `ssh://.*`: output") as e:
        check(device, package.parent / f"{kind}.tflite", package / "golden.bin")
    assert "\n" not in str(e.value)
    assert "of 4 inputs as expected (at least 4 must be), same class on" in str(e.value)
    assert device.leftovers() == []


@pytest.mark.slow
@needs_compiler
def test_a_build_of_the_program_compares_on_the_device(device, package: Path, tmp_path) -> None:
    folder = tmp_path / "build"
    folder.mkdir()
    program = compiled(package, folder)
    settings = {"tool": engine(tmp_path, "output_filepath"), "program": program}
    latency = check(device, package / "model.tflite", package / "golden.bin", **settings)
    assert latency.golden[0].startswith("output `which`: 4 of 4 inputs as expected")
    with pytest.raises(ConversionError, match=r"The golden test failed on `ssh://.*: output") as e:
        check(device, package.parent / "sign.tflite", package / "golden.bin", **settings)
    assert "\n" not in str(e.value)
    assert device.leftovers() == []


def test_a_program_that_cannot_hand_out_outputs_is_told(device, package: Path, tmp_path) -> None:
    tool = engine(tmp_path, "output_filepath")
    model, golden = package / "model.tflite", package / "golden.bin"
    with pytest.raises(
        DeviceError, match=r"does not know --output_filepath: build main\.cc"
    ) as caught:
        check(device, model, golden, tool=tool)
    assert "\n" not in str(caught.value)
    assert device.leftovers() == []


@pytest.mark.slow
def test_a_golden_test_that_cannot_run_is_a_warning_unless_asked_for(
    device, package: Path, tmp_path
) -> None:
    tool, golden = engine(tmp_path, "output_filepath"), package / "golden.bin"
    command = ["latency", str(package), "--device", device.address, "--tool", str(tool), "--json"]
    for option in device.options():
        command += ["--ssh-option", option]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.stderr
    assert "Warning: no golden test. `lce_benchmark_model`" in result.stderr
    assert json.loads(result.stdout)["golden"] == []
    result = CliRunner().invoke(main, [*command, "--golden", str(golden)])
    assert result.exit_code == 1
    assert "cannot write outputs" in result.stderr


@pytest.mark.slow
def test_a_package_is_compared_from_a_shell(device, package: Path, tmp_path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(package, broken)
    shutil.copy(package.parent / "sign.tflite", broken / "model.tflite")
    command = ["--device", device.address, "--tool", str(engine(tmp_path))]
    for option in device.options():
        command += ["--ssh-option", option]
    result = CliRunner().invoke(main, ["latency", str(package), *command])
    assert result.exit_code == 0, result.output
    assert "golden test: output `which`: 4 of 4 inputs as expected" in result.output
    result = CliRunner().invoke(main, ["latency", str(broken), *command])
    assert result.exit_code == 1
    assert result.output.startswith("Error: The golden test failed on `ssh://")
    assert result.output.count("\n") == 1


def test_a_package_is_compared_on_this_machine(package: Path) -> None:
    latency = measure(package / "model.tflite", golden=package / "golden.bin", runs=2)
    assert latency.golden[0].startswith("output `which`: 4 of 4")
    with pytest.raises(ConversionError, match="failed on this machine: output `which`"):
        measure(package.parent / "sign.tflite", golden=package / "golden.bin", runs=2)


def test_what_cannot_be_compared_is_refused_before_a_device_is_contacted(package: Path) -> None:
    model = (package / "model.tflite").read_bytes()
    other = package.parent / "other"
    network = classifying(classes=3)
    write_package(other, larq_nas.convert(network, images(network)), network, standalone=False)
    cases = [
        ({"golden": other / "golden.bin"}, "is the golden test of another model"),
        ({"golden": b"x"}, r"must be the `golden\.bin` of a package"),
        ({"program": "main"}, "runs a golden test: give its file as `golden`"),
    ]
    for settings, message in cases:
        with pytest.raises(InputError, match=message) as caught:
            measure_on("ssh://no-such-device.invalid", model, **settings)
        assert "\n" not in str(caught.value)


def test_a_phone_is_compared_by_adb(package: Path, tmp_path: Path, monkeypatch) -> None:
    for name in ("tmp", "bin", "path"):
        (tmp_path / name).mkdir()
    shutil.copy(STAND_INS / "stand_in_adb", tmp_path / "path" / "adb")
    monkeypatch.setenv("PATH", str(tmp_path / "path"), prepend=":")
    monkeypatch.setenv("STAND_IN_ADB", str(tmp_path))
    (tmp_path / "devices").write_text("ABC123\tdevice\n")
    model, golden = package / "model.tflite", package / "golden.bin"
    settings = {"tool": engine(tmp_path), "repeats": 1}
    latency = measure_on("adb://", model.read_bytes(), golden=golden, **settings)
    assert latency.golden[0].startswith("output `which`: 4 of 4")
    # As before Android 7: lines end in CR LF.
    (tmp_path / "old").touch()
    wrong = (package.parent / "sign.tflite").read_bytes()
    with pytest.raises(ConversionError, match="The golden test failed on `adb://`"):
        measure_on("adb://", wrong, golden=golden, **settings)
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.slow
def test_the_bytes_of_outputs_are_those_of_the_engine(device, package: Path) -> None:
    """Nothing on the way changes them: the difference is that of the engine here."""
    here = measure(package / "model.tflite", golden=package / "golden.bin", runs=2)
    there = check(device, package / "model.tflite", package / "golden.bin")
    assert here.golden == there.golden
