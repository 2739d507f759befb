import pytest
import tensorflow as tf

import larq_nas
from larq_nas.errors import InputError
from larq_nas.latency import measure
from larq_nas.layers import BinaryConv2D, classifier


@pytest.fixture(scope="module")
def conversion() -> larq_nas.Conversion:
    inputs = tf.keras.Input((8, 8, 32))
    model = tf.keras.Model(inputs, classifier(BinaryConv2D(32, 3)(inputs), 4))
    return larq_nas.convert(model, kernels=("default", "indirect"))


def test_a_conversion_its_bytes_and_its_file_are_measured(conversion, tmp_path) -> None:
    conversion.save(tmp_path / "model.tflite")
    for model in (conversion, conversion.flatbuffer, tmp_path / "model.tflite"):
        latency = measure(model, kernel="indirect", runs=2, warmup_runs=1)
        assert latency.microseconds > 0
        assert (latency.kernel, latency.threads, latency.runs) == ("indirect", 1, 2)


def test_the_default_kernel_is_not_what_x86_is_timed_with(conversion) -> None:
    slowest = "the default kernel is the slowest on x86-64: time the indirect one here"
    assert slowest in measure(conversion, runs=2).warnings
    assert slowest not in measure(conversion, kernel="indirect", runs=2).warnings


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        ("nothing.tflite", {}, r"Cannot read `nothing.tflite`: No such file"),
        (3, {}, "`model` must be a conversion, a flatbuffer or the path of one, but got int"),
        (b"", {"threads": 2}, "`threads` must be 1 on this machine, but got 2"),
        (b"", {"tool": "x"}, "`tool` is for a device"),
        (b"....TFL3", {"device": "pi"}, "`device` must be ssh://"),
    ],
)
def test_what_cannot_be_measured_is_refused(model, settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        measure(model, **settings)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_a_file_that_is_cut_short_is_refused(conversion, share: float) -> None:
    """The interpreter would take the whole process with it."""
    whole = conversion.flatbuffer
    with pytest.raises(InputError, match=r"no .tflite file, or one that is cut short or damaged"):
        measure(whole[: int(share * len(whole))], runs=1)
