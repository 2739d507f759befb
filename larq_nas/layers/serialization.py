"""Saved networks that Keras loads without an import of larq_nas before."""

import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import tensorflow as tf

_CONFIG = "config.json"

Functional: type = tf.keras.Sequential.__base__
"""Keras's class of a functional model, here by a name that `save` writes."""


def save(model: tf.keras.Model, path: str | Path, **settings: Any) -> None:
    """Save a model as `tf.keras.Model.save` does; a `.keras` file names where its layers are.

    Of a layer that it does not know Keras imports no module, and fails with `'str' object is not
    callable`; of the class of the model it does. Without larq_nas the error says what is missing.
    """
    model.save(path, **settings)
    if not str(path).endswith(".keras"):
        return
    written = f"{path}.zip"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(written, "w") as target:
        for item in source.infolist():
            if item.filename != _CONFIG:
                with source.open(item) as read, target.open(item, "w", force_zip64=True) as write:
                    shutil.copyfileobj(read, write)
                continue
            config = json.loads(source.read(item))
            if config["class_name"] == Functional.__name__:
                config["module"] = "larq_nas.layers"
            target.writestr(item, json.dumps(config))
    os.replace(written, path)
