"""keras-tuner, with the Keras that larq_nas uses.

From TensorFlow 2.16 on, larq needs `tf_keras`, while keras-tuner asks the package `keras` for its
version, finds 3, and refuses models of Keras 2. It is told another version while it is imported.
"""

import importlib
import os
from types import ModuleType

__all__ = ["Trial", "TrialStatus", "keras_tuner"]


def _import() -> ModuleType:
    if os.environ.get("TF_USE_LEGACY_KERAS") != "1":
        return importlib.import_module("keras_tuner")
    keras = importlib.import_module("keras")
    version = keras.version
    keras.version = lambda: "2.99"  # type: ignore[attr-defined]
    try:
        return importlib.import_module("keras_tuner")
    finally:
        keras.version = version  # type: ignore[attr-defined]


_import()

import keras_tuner  # noqa: E402
from keras_tuner.engine.trial import Trial, TrialStatus  # noqa: E402
