"""`larq-nas cost`: tables, JSON, and one line for every bad input."""

import json
from pathlib import Path

import pytest
from test_cli import invoke, refused

import larq_nas


def counted(*arguments: str) -> dict:
    result = invoke("cost", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_backbone_as_a_paper_counts_it() -> None:
    record = counted(
        *("--model", "vgg_small", "--expansion", "2", "--input", "32x32x3", "--classes", "10"),
        *("--convention", "shen2019"),
    )
    columns = record["conventions"]["shen2019"]
    assert (columns["flops"], columns["memory_bits"]) == (45_252_608, 23_748_608)
    assert round(columns["speedup"], 1) == 13.4
    assert {"flops", "memory_bits"} <= columns["formulas"].keys()
    assert record["binary_macs"] == 4 * 603_979_776
    assert record["parameters_by_bits"]["1"] == 4 * 4_571_136
    assert sum(row["macs"] for row in record["layers"]) == record["macs"]


def test_a_ratio_for_each_layer_and_the_float_twin() -> None:
    ratios = "1,1,1,1,1,0.5"
    narrow = counted("--model", "vgg_small", "--expansion", ratios)
    assert narrow["settings"]["expansion"] == [1, 1, 1, 1, 1, 0.5]
    real = counted("--model", "vgg_small", "--real", "--convention", "shen2019")
    assert real["conventions"]["shen2019"]["flops"] == 607_731_712
    assert real["binary_macs"] == 0


def test_a_convention_says_with_what_it_counts() -> None:
    record = counted("--model", "resnet18", "--real", "--convention", "dms")
    columns = record["conventions"]["dms"]
    assert columns["counted_with"] == {"stem_kernel": 3}
    assert round(columns["megabytes"], 4) == 44.5222
    assert record["input"] == [224, 224, 3]


@pytest.mark.slow
def test_published_architectures_and_settings() -> None:
    record = counted(
        *("--model", "bats", "--set", "cells=14", "--set", "channels=80", "--set", "groups=16"),
        *("--set", "stem=imagenet", "--convention", "bats"),
    )
    assert record["conventions"]["bats"]["bops"] == 1_149_657_600
    assert record["classes"] == 1000


def test_an_architecture_file_and_a_saved_model(tmp_path: Path) -> None:
    architecture = larq_nas.Architecture("vgg11", {"expansion": 0.5})
    architecture.save(tmp_path / "a.json")
    from_file = counted(str(tmp_path / "a.json"))
    model = architecture.build((32, 32, 3), 10)
    model.save(tmp_path / "model.keras")
    from_model = counted(str(tmp_path / "model.keras"), "--convention", "dms")
    assert from_model["layers"] == from_file["layers"]
    assert "settings" not in from_model
    assert from_model["conventions"]["dms"]["megabytes"] > 0


@pytest.mark.slow
def test_an_architecture_of_a_run_is_costed_for_its_images(tmp_path: Path) -> None:
    arguments = ["search", "--set", "cells=1", "--set", "channels=4", "--set", "nodes=1"]
    settings = ["--batch-size", "300", "--epochs", "1", "--train-epochs", "0"]
    run = tmp_path / "run"
    assert invoke(*arguments, *settings, "--directory", str(run)).exit_code == 0
    found = counted(str(run / "architecture.json"))
    assert (found["input"], found["classes"]) == ([8, 8, 1], 10)
    assert found["macs"] == counted(str(run))["macs"]


def test_one_convention_of_several_may_not_apply() -> None:
    conventions = counted("--model", "vgg11", "--convention", "dms", "--convention", "bats")
    assert conventions["conventions"]["dms"]["megabytes"] > 0
    assert "does not apply" in conventions["conventions"]["bats"]["refused"]


def test_a_space_of_ones_own_is_asked_for(tmp_path: Path) -> None:
    larq_nas.Architecture("mine", {}, {}).save(tmp_path / "a.json")
    assert "give your own as `--space`" in refused("cost", str(tmp_path / "a.json"))


def test_a_table_for_a_reader() -> None:
    result = invoke("cost", "--model", "vgg11", "--convention", "dms")
    assert result.exit_code == 0
    assert "| conv2_conv" in result.output
    assert "flatbuffer, once trained: about" in result.output
    assert "for images of 32x32x3 and 10 classes" in result.output
    assert "as DMS, Table 1 counts (dms):" in result.output
    assert "saving:" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Give either SOURCE or --model"),
        (("--model", "vgg_smal"), "Unknown model `vgg_smal`; did you mean `vgg_small`?"),
        (("--model", "vgg11", "--input", "32x32"), "must be HEIGHTxWIDTHxCHANNELS"),
        (("--model", "vgg11", "--input", "0x32x3"), "must be HEIGHTxWIDTHxCHANNELS"),
        (("--model", "vgg11", "--input", "8x8x3"), "at least 32x32 pixels"),
        (("--model", "vgg11", "--expansion", "wide"), "`--expansion` must be a ratio"),
        (("--model", "vgg11", "--expansion", "-1"), "`--expansion` must be positive"),
        (("--model", "vgg11", "--expansion", "1e9"), "must be positive, up to 64"),
        (("--model", "vgg11", "--real", "--set", "precision=binary"), "was given twice"),
        (("--model", "vgg11", "--classes", "0"), "`--classes` must be 1 or more"),
        (("--model", "vgg11", "--convention", "bats"), "does not apply"),
        (("--model", "vgg11", "--convention", "shen"), "did you mean `shen2019`"),
        (("--model", "vgg11", "--set", "depth=3"), "Unknown setting"),
        (
            ("--model", "bats", "--expansion", "2"),
            "`--expansion` is for other networks",
        ),
        (("--model", "bats", "--real"), "`--real` is for other networks"),
        (("nowhere.tflite",), "is converted already"),
        (("nowhere.json",), "Cannot read architecture"),
        (("nowhere.keras",), "Cannot load a Keras model"),
    ],
)
def test_misuse_is_one_line(arguments: tuple[str, ...], message: str) -> None:
    if message.startswith("Give"):
        result = invoke("cost", *arguments)
        assert result.exit_code == 2
        assert message in result.output
    else:
        assert message in refused("cost", *arguments)


def test_a_model_as_it_is_takes_no_settings(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    larq_nas.Architecture("vgg11", {"expansion": 0.25}).build((32, 32, 3), 10).save(path)
    assert "is a model as it is" in refused("cost", str(path), "--classes", "10")
