"""Reading what the benchmark program prints, in each form that is documented."""

from pathlib import Path

import pytest

from larq_nas.latency.devices.benchmark import (
    Timing,
    ignored_flags,
    read_operations,
    read_timing,
    what_failed,
)

RECORDED = Path(__file__).parent / "recorded"


def recorded(name: str) -> str:
    return (RECORDED / f"{name}.txt").read_text()


@pytest.mark.parametrize(
    ("name", "timing"),
    [
        ("plain", Timing(2950340, 48)),
        ("profile", Timing(2822.25, 354)),
        ("prefixed", Timing(2822.25, 354)),
        ("older", Timing(79760.9, 50)),
        ("all_same", Timing(31, 50)),
        ("stopped", None),
        ("failed", None),
    ],
)
def test_the_timing_is_that_of_the_measured_runs(name: str, timing: Timing | None) -> None:
    assert read_timing(recorded(name)) == timing
    assert read_timing(recorded(name).replace("\n", "\r\n")) == timing


def test_a_timing_alone_is_enough() -> None:
    line = "Timings (microseconds): count=50 first=79449 curr=81350 min=77385 max=88213 avg=79732"
    assert read_timing(f"something\n{line}\nsomething else") == Timing(79732, 50)
    assert read_timing("Timings (microseconds): count=0") is None
    assert read_timing("") is None


def test_lines_that_are_mixed_with_errors_are_read() -> None:
    noisy = "\n".join(f"{line}\nERROR: noise count=x" for line in recorded("plain").splitlines())
    assert read_timing(noisy) == Timing(2950340, 48)


def test_operations_are_those_of_the_runs_in_their_order() -> None:
    operations = read_operations(recorded("profile"))
    assert [(op.kind, op.name, op.microseconds) for op in operations] == [
        ("CONV_2D", "quant_net/stem_conv/Conv2D;quant_net/stem_norm/FusedBatchNormV3", 1334),
        ("LceQuantize", "quant_net/block_1/ste_sign", 39),
        ("LceBconv2d", "quant_net/block_1/conv/Conv2D", 874),
        ("ADD", "quant_net/block_1/add", 99),
        ("LceBMaxPool2d", "quant_net/pool/MaxPool", 17),
        ("LceBconv2d", "quant_net/block_2/conv/Conv2D", 393),
        ("AVERAGE_POOL_2D", "quant_net/head_pool/Mean", 20),
        ("FULLY_CONNECTED", "quant_net/head_dense/MatMul", 6),
        ("SOFTMAX", "Identity", 2),
    ]


def test_columns_are_found_by_their_titles() -> None:
    operations = read_operations(recorded("prefixed"))
    assert [(op.kind, op.name, op.microseconds) for op in operations] == [
        (
            "Convolution (NHWC, F32) IGEMM",
            "Delegate/Convolution (NHWC, F32) IGEMM:0",
            pytest.approx(1033),
        ),
        ("LceQuantize", "quant_net/block_1/ste_sign", 39),
        ("LceBconv2d", "quant_net/block_1/conv/Conv2D", 874),
        ("TfLiteXNNPackDelegate", "Identity", 1071),
    ]


def test_spaces_in_place_of_tabs_change_nothing() -> None:
    text = recorded("profile")
    assert read_operations(text.expandtabs(4)) == read_operations(text)
    assert read_operations(recorded("plain")) == []


def test_the_first_error_says_why_it_failed() -> None:
    cause = "larq_compute_engine/tflite/kernels/bconv2d.cc:312 groups == 1 was not true"
    assert what_failed(recorded("failed")) == cause
    assert what_failed("one\nanother.\n\n") == "another"
    assert what_failed("") == ""


def test_flags_that_are_not_known_are_found() -> None:
    text = "STARTING!\nWARN: Unconsumed cmdline flags: --use_indirect_bgemm=true\nmore"
    assert ignored_flags(text) == "--use_indirect_bgemm=true"
    assert ignored_flags(recorded("plain")) == ""
