"""Check versions and select Keras 2 before TensorFlow is imported."""

import importlib
import importlib.util
import os
import sys
from importlib import metadata
from pathlib import Path

_PYTHON = ((3, 10), (3, 13))
_TENSORFLOW = ((2, 15), (2, 20))
# The last with Keras 2 inside, of which there are no wheels for Python 3.12.
_ADVICE = (
    "pip install tensorflow==2.15.1"
    if sys.version_info < (3, 12)
    else "pip install 'tensorflow==2.19.*' 'tf-keras==2.19.*'"
)


def _tensorflow_version() -> tuple[int, int]:
    for package in ("tensorflow", "tensorflow-cpu", "tensorflow-macos", "tensorflow-intel"):
        try:
            major, minor = metadata.version(package).split(".")[:2]
        except metadata.PackageNotFoundError:
            continue
        return int(major), int(minor)
    raise ImportError(f"larq_nas needs TensorFlow 2.15 to 2.19, but found none: {_ADVICE}")


def _require_python(version: tuple[int, int]) -> None:
    if not _PYTHON[0] <= version < _PYTHON[1]:
        raise ImportError(
            f"larq_nas needs Python 3.10 to 3.12, but this is {version[0]}.{version[1]}: "
            "install Python 3.11 and create the virtual environment with it"
        )


def _require_tensorflow(version: tuple[int, int]) -> None:
    if not _TENSORFLOW[0] <= version < _TENSORFLOW[1]:
        raise ImportError(
            f"larq_nas needs TensorFlow 2.15 to 2.19, but found {version[0]}.{version[1]}: "
            f"{_ADVICE}"
        )


def _use_keras_2(version: tuple[int, int]) -> None:
    if importlib.util.find_spec("tf_keras") is None:
        raise ImportError(
            f"larq_nas needs tf-keras beside TensorFlow {version[0]}.{version[1]}: "
            f"pip install 'tf-keras=={version[0]}.{version[1]}.*'"
        )
    if "tensorflow" in sys.modules and os.environ.get("TF_USE_LEGACY_KERAS") != "1":
        raise ImportError(
            "larq_nas needs Keras 2: import larq_nas before tensorflow, "
            "or set TF_USE_LEGACY_KERAS=1"
        )
    os.environ["TF_USE_LEGACY_KERAS"] = "1"


def _is_command() -> bool:
    """Return whether the program is `larq-nas`, by its name or as `python -m larq_nas`."""
    if sys.argv[0] == "-m":
        return not {"larq_nas", "larq_nas.cli"}.isdisjoint(sys.orig_argv[1:])
    return Path(sys.argv[0]).name.startswith("larq-nas")


def _check_versions() -> None:
    _require_python(sys.version_info[:2])
    version = _tensorflow_version()
    _require_tensorflow(version)
    if version >= (2, 16):
        _use_keras_2(version)


def prepare() -> None:
    """Check the versions and set what TensorFlow reads when it is first imported."""
    try:
        _check_versions()
    except ImportError as error:
        if _is_command():  # whose errors are one line
            sys.exit(f"Error: {error}")
        raise
    # Without a GPU, TensorFlow logs errors about CUDA as it starts. Errors that matter raise.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "tensorflow" not in sys.modules and os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3":
        _import_tensorflow_quietly()


def _import_tensorflow_quietly() -> None:
    """Import TensorFlow without what its libraries write before they read the log level."""
    try:
        stderr = os.dup(2)
    except OSError:  # a process without a console has nowhere to write to
        return
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            importlib.import_module("tensorflow")
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
