import numpy as np
import pytest
from conftest import quick, random_architecture

from larq_nas.cost import SpaceCosts
from larq_nas.cost.profile import Structure
from larq_nas.deploy.export import export
from larq_nas.errors import InputError
from larq_nas.graph.calls import read_graph
from larq_nas.latency.signature import Signature, Size, parse, predicted, signatures
from larq_nas.latency.table import randomize
from larq_nas.lce.count import understand
from larq_nas.spaces import (
    Bats,
    Bnas,
    Darts,
    ResNet18,
    ResNet18Cifar,
    Space,
    Vgg11,
    VggSmall,
)

SMALL = (0.125, 0.25, 0.5)
NETWORKS: list[tuple[Space, tuple[int, int, int], int]] = [
    (Bats(cells=3, channels=8, nodes=2), (16, 16, 3), 0),
    (Bats(cells=3, channels=40, nodes=3), (16, 16, 3), 1),
    (Bats(cells=3, channels=12, groups=3, activation="prelu"), (16, 16, 1), 0),
    (Bats(cells=3, channels=8, nodes=2, stem="imagenet"), (64, 64, 3), 2),
    (Bnas(cells=3, channels=8), (16, 16, 3), 0),
    (Bnas(cells=3, channels=8, nodes=2, stem="imagenet"), (64, 64, 3), 1),
    (Darts(cells=3, channels=8), (16, 16, 3), 0),
    (Darts(cells=3, channels=8), (16, 16, 3), 1),
    (Darts(cells=3, channels=4, nodes=2, precision="binary"), (16, 16, 3), 0),
    (VggSmall(ratios=SMALL), (32, 32, 3), 0),
    (VggSmall(ratios=SMALL, precision="real"), (16, 16, 1), 0),
    (Vgg11(), (32, 32, 3), 0),
    (ResNet18Cifar(), (32, 32, 3), 0),
    (ResNet18Cifar(downsample="real"), (32, 32, 3), 1),
    (ResNet18(ratios=SMALL), (64, 64, 3), 0),
    (ResNet18(ratios=SMALL, precision="real"), (32, 32, 3), 0),
]


@pytest.mark.parametrize(("space", "shape", "seed"), quick(NETWORKS, 9))
def test_predicted_signatures_are_those_of_the_flatbuffer(
    space: Space, shape: tuple[int, int, int], seed: int
) -> None:
    model = random_architecture(space, seed, shape).build(shape, 10)
    structure = Structure(understand(read_graph(model)))
    real = [str(signature) for signature in signatures(export(randomize(model)))]
    assert [str(signature) for signature in predicted(structure)] == real
    assert [str(parse(text)) for text in real] == real


def test_arrays_of_widths_give_each_candidates_signatures() -> None:
    costs = SpaceCosts(ResNet18Cifar(), (32, 32, 3), 10)
    structure = costs.structure({})
    narrow, wide = dict.fromkeys(costs.expansions, 8), dict.fromkeys(costs.expansions, 40)
    both = {name: np.array([narrow[name], wide[name]]) for name in costs.expansions}
    for number, answers in enumerate((narrow, wide)):
        of_both = [
            signature.at([int(np.broadcast_to(width, 2)[number]) for width in signature.widths])
            for signature in predicted(structure, both)
        ]
        assert of_both == predicted(structure, answers)


def test_a_signature_says_all_that_decides_the_time() -> None:
    conv = Signature("LceBconv2d", (Size(1024, 2, "words"),), (Size(256, 64),), (3, 3), (2, 2))
    assert str(conv) == "LceBconv2d 3x3 dilated 2x2: 1024x2 words -> 256x64 float"
    assert parse(str(conv)) == conv
    assert conv.moved == 4 * (1024 * 2 + 256 * 64)
    assert conv.steps == 9 * 2 * 256 * 64


@pytest.mark.parametrize(
    "text", ["", "CONV_2D", "CONV_2D 3x3: 4 float -> 4x4 float", "A: 1x1 float -> ", 3, None]
)
def test_other_texts_are_refused(text: object) -> None:
    with pytest.raises(InputError, match="An operation must read like"):
        parse(text)
