"""What is refused before a device is contacted."""

import pytest

from larq_nas.errors import InputError
from larq_nas.latency.devices import measure_on
from larq_nas.latency.devices.transport import Ssh, reach

MODEL = b"\x1c\x00\x00\x00TFL3" + bytes(8)


@pytest.mark.parametrize(
    "device",
    [
        *("raspberrypi", "ssh://", "ssh://-oProxyCommand=x", "ssh://a b", "ssh://pi@", "ssh://h/x"),
        *(
            "ssh://-l@host",
            "ssh://user:password@host",
            "adb://-x",
            "adb://a/b",
            "http://host",
            None,
        ),
    ],
)
def test_devices_of_another_form_are_refused(device) -> None:
    with pytest.raises(InputError, match=r"must be ssh://\[user@\]host\[:port\]"):
        measure_on(device, MODEL)


@pytest.mark.parametrize(
    ("device", "end"),
    [
        ("ssh://pi@raspberrypi", ["--", "pi@raspberrypi", "true"]),
        ("ssh://Board.local/", ["--", "Board.local", "true"]),
        ("ssh://[fe80::1%eth0]", ["--", "fe80::1%eth0", "true"]),
        ("ssh://my_board", ["--", "my_board", "true"]),
    ],
)
def test_where_ssh_goes(device: str, end: list[str]) -> None:
    way = reach(device, ["-i", "key"], 60)
    assert isinstance(way, Ssh)
    command = way._command("true")
    assert command[-3:] == end
    assert "-p" not in command
    assert command.index("-i") < command.index("ConnectTimeout=10")


def test_the_port_is_given_to_ssh() -> None:
    command = reach("ssh://pi@host:2222", [], 4)._command("true")
    assert command[command.index("-p") + 1] == "2222"
    assert "ConnectTimeout=4" in command
    with pytest.raises(InputError, match="between 1 and 65535"):
        reach("ssh://pi@host:70000", [], 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"flatbuffer": b"no"}, r"bytes of a \.tflite file"),
        ({"flatbuffer": "model.tflite"}, r"bytes of a \.tflite file, .*'model.tflite'"),
        ({"kernel": "indirekt"}, "Unknown kernel `indirekt`; did you mean `indirect`"),
        ({"threads": 0}, "`threads` must be positive"),
        ({"runs": 1.5}, "`runs` must be a whole number"),
        ({"repeats": 0}, "`repeats` must be positive"),
        ({"warmup_runs": -1}, "`warmup_runs` must be 0 or more"),
        ({"warmup_runs": 1.5}, "`warmup_runs` must be a whole number"),
        ({"timeout": 0}, "`timeout` must be positive"),
        ({"ssh_options": "-i key"}, "`ssh_options` must be a list such as"),
        ({"ssh_options": [1]}, "`ssh_options` must be a list such as"),
    ],
)
def test_arguments_that_cannot_be_used(settings, message: str) -> None:
    arguments = {"flatbuffer": MODEL, **settings}
    with pytest.raises(InputError, match=message) as caught:
        measure_on("ssh://raspberrypi", **arguments)
    assert "\n" not in str(caught.value)
