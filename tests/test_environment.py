import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from larq_nas import _environment


@pytest.mark.parametrize("version", [(3, 9), (3, 13)])
def test_unsupported_python_is_told_what_to_install(version: tuple[int, int]) -> None:
    with pytest.raises(
        ImportError, match=r"needs Python 3.10 to 3.12, but this is 3\.\d+: install"
    ) as caught:
        _environment._require_python(version)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("version", [(2, 14), (2, 20)])
def test_unsupported_tensorflow_is_told_what_to_install(version: tuple[int, int]) -> None:
    with pytest.raises(ImportError, match=r"but found 2\.\d+: pip install '?tensorflow==2\.1"):
        _environment._require_tensorflow(version)


@pytest.mark.parametrize("start", [("-m", "larq_nas"), ("-m", "larq_nas.cli")], ids=" ".join)
def test_the_command_tells_an_unsupported_tensorflow_in_one_line(
    start: tuple[str, str], tmp_path: Path
) -> None:
    installed = tmp_path / "tensorflow-2.20.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: tensorflow\nVersion: 2.20.0\n"
    )
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])])
    result = subprocess.run(
        [sys.executable, *start, "--help"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert result.returncode == 1
    assert re.fullmatch(
        r"Error: larq_nas needs TensorFlow 2.15 to 2.19, but found 2.20: pip install .*\n",
        result.stderr,
    )


def test_importing_is_silent() -> None:
    environment = {key: value for key, value in os.environ.items() if key != "TF_CPP_MIN_LOG_LEVEL"}
    code = "import larq_nas, tensorflow as tf; tf.zeros(1) + 1"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert result.stdout + result.stderr == ""
