"""Networks of the widths that are found run in binary, on inputs of 0 and a learned step."""

import larq_nas  # isort: skip  (it prepares TensorFlow)
import numpy as np
import pytest
from conftest import quick, randomize

from larq_nas.spaces import resolve
from larq_nas.spaces.chooser import Fix

WIDTHS = {
    "vgg11": {f"conv{n}": width for n, width in enumerate((13, 21, 40, 33, 39, 97, 50, 31), 1)},
    "resnet18_cifar": {
        f"stage{stage}{block}": 5 + 7 * stage + 3 * len(block)
        for stage in range(1, 5)
        for block in ("", "_block1", "_block2")
    },
}


@pytest.mark.parametrize("name", quick(WIDTHS, 0))
def test_any_widths_convert_in_binary(name: str) -> None:
    space = resolve(name, {"binarization": "dms"})
    values = {choice: width / space.layers[choice] for choice, width in WIDTHS[name].items()}
    model = randomize(space.build(Fix(values), (32, 32, 3), 10))
    images = np.random.default_rng(0).normal(size=(8, 32, 32, 3)).astype("float32")
    conversion = larq_nas.convert(model, images, kernels=("default", "reference", "indirect"))
    binary = sum(1 for layer in model.layers if getattr(layer, "input_quantizer", None) is not None)
    assert conversion.audit.operations["LceBconv2d"] == binary
    assert all(parity.agreement == 1 for parity in conversion.parity)
