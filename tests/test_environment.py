import os
import subprocess
import sys

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
    with pytest.raises(ImportError, match=r"but found 2\.\d+: pip install tensorflow==2.15.1"):
        _environment._require_tensorflow(version)


def test_importing_is_silent() -> None:
    environment = {key: value for key, value in os.environ.items() if key != "TF_CPP_MIN_LOG_LEVEL"}
    code = "import larq_nas, tensorflow as tf; tf.zeros(1) + 1"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert result.stdout + result.stderr == ""
