import dataclasses
import json
import math
from typing import Any

import pytest

from larq_nas import Architecture
from larq_nas.errors import InputError
from larq_nas.layers import Domain
from larq_nas.methods import METHODS, recipe, resolve
from larq_nas.searchers import Differentiable, Dms, Evolution, Progressive
from larq_nas.spaces import Bats, Bnas, Darts, FunctionSpace, ResNet18Cifar, Vgg11, VggSmall
from larq_nas.training import Recipe, Stage

ROWS = [(name, row) for name, rows in METHODS.items() for row in rows]


ONE_CYCLE = {
    "optimizer": "sgd",
    "learning_rate": 0.05,
    "base_batch_size": 256,
    "schedule": "one_cycle",
    "drop_path": 0.2,
}
RESTARTED = {
    "optimizer": "sgd",
    "learning_rate": 0.05,
    "base_batch_size": 256,
    "schedule": "warm_restarts",
    "clip_norm": 5.0,
    "label_smoothing": 0.1,
}
BY_STEPS = {"optimizer": "sgd", "learning_rate": 0.1, "schedule": "steps"}
FALLS_OF_DMS = {"base_batch_size": 64, "milestones": (140 / 300, 220 / 300, 260 / 300)}


def changes(one: Any, other: Any) -> dict[str, Any]:
    """Return what `other` sets otherwise."""
    before, after = dataclasses.asdict(one), dataclasses.asdict(other)
    return {name: after[name] for name in before if before[name] != after[name]}


@pytest.mark.parametrize(("name", "row"), ROWS)
def test_each_is_named_by_its_parts(name: str, row: Any) -> None:
    """A name, with the name of its network, stands for the row, and its settings are JSON."""
    assert resolve(name, row.space) == row
    assert resolve(name, row.space.name).recipe == row.recipe or name == "default"
    json.dumps([row.space.settings(), row.searcher.settings(), row.recipe.settings()])
    assert row.sections.keys() == {"space", "searcher", "recipe"}


def test_bats_as_published() -> None:
    """Sections 4.1, 4.2, 6.1 and 6.2."""
    bats: Any = resolve("bats")
    assert (bats.space.cells, bats.space.channels, bats.space.groups) == (20, 36, 12)
    assert bats.space.search_domain == Domain(weights="real", affine=False)
    searcher = bats.searcher
    assert isinstance(searcher, Progressive)
    assert (searcher.stage_cells, searcher.stage_operations) == ((5, 11, 17), (8, 5, 3))
    assert searcher.temperature == {"normal": 0.2, "reduction": 0.15}
    assert (searcher.optimizer, searcher.final_learning_rate) == ("adam", None)
    assert (searcher.learning_rate, searcher.weight_decay) == (1e-3, 3e-4)
    assert searcher.architecture_learning_rate == 6e-4
    assert searcher.architecture_weight_decay == 1e-3
    assert searcher.architecture_betas == (0.5, 0.999)
    assert searcher.diversity == 0
    assert (bats.epochs, int(bats.epochs * searcher.weights_only + 1e-9)) == (25, 10)
    assert (bats.recipe.learning_rate, bats.recipe.auxiliary) == (1e-3, 0.4)
    assert (bats.recipe.weight_decay, bats.recipe.drop_path) == (0, 0)
    assert bats.recipe.split(bats.train_epochs) == {"real": 600, "binary": 600}
    imagenet: Any = resolve("bats_imagenet")
    assert (imagenet.space.cells, imagenet.space.channels) == (14, 80)
    assert imagenet.recipe.split(imagenet.train_epochs) == {"real": 75, "binary": 75}


def test_bnas_as_published() -> None:
    bnas: Any = resolve("bnas")
    searcher = bnas.searcher
    assert searcher.optimizer == "sgd"
    assert (searcher.learning_rate, searcher.final_learning_rate) == (0.025, 0.001)
    assert searcher.weight_decay == 3e-4
    assert searcher.architecture_learning_rate == 3e-4
    assert searcher.architecture_weight_decay == 1e-3
    assert searcher.architecture_betas == (0.5, 0.999)
    assert (searcher.temperature, searcher.weights_only) == (1, 0)
    assert (searcher.diversity, searcher.diversity_annealing) == (1, 7.7)
    proxy = bnas.space.proxy()
    assert (bnas.epochs, proxy.cells, proxy.channels) == (50, 8, 16)
    assert (Bnas(cells=5, channels=12).proxy().cells, Bnas(channels=12).proxy().channels) == (5, 12)
    found = bnas.recipe
    assert (found.optimizer, found.learning_rate, found.schedule) == ("sgd", 0.05, "one_cycle")
    # As released: gradients of the training on CIFAR-10 are not clipped.
    assert (found.weight_decay, found.clip_norm, found.drop_path) == (3e-6, 0.0, 0.2)
    imagenet = recipe("bnas_imagenet")
    assert (imagenet.schedule, imagenet.restart_epochs) == ("warm_restarts", 50)
    assert (imagenet.weight_decay, imagenet.label_smoothing) == (3e-5, 0.1)


def test_bnas_v2_is_bnas_without_weight_decay_and_colour_jitter() -> None:
    assert changes(recipe("bnas"), recipe("bnas_v2")) == {"weight_decay": 0.0}
    assert changes(recipe("bnas_imagenet"), recipe("bnas_v2_imagenet")) == {
        "weight_decay": 0.0,
        "color_jitter": False,
    }


def test_shen_as_published() -> None:
    shen: Any = resolve("shen2019")
    assert isinstance(shen.searcher, Evolution)
    assert (shen.epochs, shen.searcher.population, shen.searcher.candidate_epochs) == (50, 32, 10)
    assert (shen.searcher.trade_off, shen.searcher.widest_epochs) == (4, 150)
    assert (shen.space.binarization, shen.train_epochs) == ("dorefa", 200)
    assert [200 * share for share in shen.recipe.milestones] == [60, 120, 180]
    imagenet: Any = resolve("shen2019_imagenet")
    assert (imagenet.searcher.subset, imagenet.train_epochs) == (50_000, 150)
    assert [150 * share for share in imagenet.recipe.milestones] == pytest.approx([50, 100, 135])


@pytest.mark.parametrize(
    ("name", "ratio", "target", "decay"), [("dms_a", 1.5, 0.12, 1e-4), ("dms_b", 2.5, 1.0, 2e-4)]
)
def test_dms_as_published(name: str, ratio: float, target: float, decay: float) -> None:
    """Each network has its rate of the means, its recipe and DMS' signs (B.2.1, B.2.2)."""
    for network, rate in (("vgg11", 2e-3), ("resnet18_cifar", 1e-3)):
        found: Any = resolve(name, network)
        assert isinstance(found.searcher, Dms)
        assert (found.searcher.initial_ratio, found.searcher.memory_target) == (ratio, target)
        assert (found.searcher.trade_off, found.searcher.mean_learning_rate) == (0.01, rate)
        assert (found.epochs, found.recipe.weight_decay) == (250, decay)
        assert found.space.binarization == "dms"
    resnet = resolve(name, "resnet18_cifar").recipe
    assert resnet.split(500) == {"float": 200, "binary": 300}
    rates = resnet.rates(64, 300, 10)
    at = [float(rates(10 * epoch)) for epoch in (0, 139, 141, 219, 221, 259, 261)]
    assert at == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001, 0.0001])


@pytest.mark.parametrize("name", ["dms_a", "dms_b"])
def test_dms_trains_the_float_twin_on_imagenet_as_resnet_was_first(name: str) -> None:
    """A tenth every 30 of 100 epochs, and then both binary along a cosine (B.2.2)."""
    found: Any = resolve(name, "resnet18")
    assert (found.space.binarization, found.train_epochs) == ("dms", 200)
    twin, binary = found.recipe.stages
    assert (twin.name, binary.name, found.recipe.weight_decay) == ("float", "binary", 1e-4)
    steps = 10
    falling = found.recipe.of(twin).rates(256, 100, steps)
    for epoch in range(100):
        expected = 0.1 * 0.1 ** (epoch // 30)
        assert float(falling(steps * epoch + 5)) == pytest.approx(expected), epoch
    cosine = found.recipe.of(binary).rates(256, 100, steps)
    for step in (0, 250, 500, 999):
        expected = 0.05 * (1 + math.cos(math.pi * step / 1000))
        assert float(cosine(step)) == pytest.approx(expected, rel=1e-4, abs=1e-8)


def test_widths_found_on_cifar_build_the_network_of_imagenet() -> None:
    """Both networks ask for the same widths, as the paper applies them."""
    cifar, imagenet = resolve("dms_a", "resnet18_cifar").space, resolve("dms_a", "resnet18").space
    found = Architecture.random(cifar, (32, 32, 3), 10, seed=0)
    wide = Architecture("resnet18", imagenet.settings(), found.choices)
    channels = [
        {layer.name: layer.filters for layer in model.layers if hasattr(layer, "filters")}
        for model in (found.build((32, 32, 3), 10), wide.build((64, 64, 3), 5))
    ]
    assert {name: 4 * number for name, number in channels[0].items()} == channels[1]
    assert resolve(space=wide.resolve()).recipe == recipe("dms_a", "resnet18")


def test_no_paper_inherits_from_another() -> None:
    """DARTS has its own optimizer, and trains with its own recipe."""
    darts: Any = resolve(space="darts")
    assert (darts.searcher.optimizer, darts.searcher.weights_only) == ("sgd", 0)
    assert darts.searcher.architecture_learning_rate == 3e-4
    assert (darts.recipe.learning_rate, darts.recipe.weight_decay) == (0.025, 3e-4)


PUBLISHED: dict[str, tuple[dict[str, int], dict[str, Any]]] = {
    # BATS 4.3 and 6.2; appendix B; BNAS 5, its release and v2; DARTS A.2.1; Shen et al. 3.1, 3.2.
    "bats": ({"real": 600, "binary": 600}, {"auxiliary": 0.4}),
    "bats_cifar100": ({"real": 600, "binary": 600}, {"auxiliary": 0.4, "mix_up": 0.2}),
    "bats_imagenet": ({"real": 75, "binary": 75}, {"auxiliary": 0.4}),
    "bats_darts": ({"real": 600, "binary": 600}, {"auxiliary": 0.4}),
    "bats_real": ({"binary": 600}, {"optimizer": "sgd", "learning_rate": 0.1, "auxiliary": 0.4}),
    "bnas": ({"binary": 600}, {**ONE_CYCLE, "weight_decay": 3e-6}),
    "bnas_v2": ({"binary": 600}, ONE_CYCLE),
    "bnas_imagenet": (
        {"binary": 250},
        {**RESTARTED, "weight_decay": 3e-5, "color_jitter": True},
    ),
    "bnas_v2_imagenet": ({"binary": 250}, RESTARTED),
    "bnas_v2_multi_stage": ({"real": 250, "binary": 250}, {}),
    "darts": (
        {"binary": 600},
        {
            "optimizer": "sgd",
            "learning_rate": 0.025,
            "base_batch_size": 96,
            "weight_decay": 3e-4,
            "clip_norm": 5.0,
            "drop_path": 0.2,
            "auxiliary": 0.4,
        },
    ),
    # To a tenth after 60, 120 and 180 epochs, as by default.
    "shen2019": ({"binary": 200}, {**BY_STEPS, "base_batch_size": 100, "weight_decay": 5e-4}),
    "shen2019_imagenet": (
        {"binary": 150},
        {
            **BY_STEPS,
            "base_batch_size": 256,
            "milestones": (1 / 3, 2 / 3, 0.9),
            "weight_decay": 1e-4,
        },
    ),
    "dms_a": ({"binary": 300}, {**BY_STEPS, **FALLS_OF_DMS, "weight_decay": 1e-4}),
    "dms_b": ({"binary": 300}, {**BY_STEPS, **FALLS_OF_DMS, "weight_decay": 2e-4}),
}


@pytest.mark.parametrize("name", [name for name in METHODS if name != "default"])
def test_recipes_have_the_numbers_of_the_papers_and_no_others(name: str) -> None:
    """What a row does not name is as in `Recipe()`: Adam, 0.001 along a cosine, nothing else."""
    epochs, settings = PUBLISHED[name]
    found = resolve(name)
    assert found.recipe.split(found.train_epochs) == epochs
    assert {**changes(Recipe(stages=found.recipe.stages), found.recipe)} == settings


def cosine(share: float) -> float:
    return (1 + math.cos(math.pi * share)) / 2


@pytest.mark.parametrize(
    ("name", "epochs", "expected"),
    [
        ("bats", 600, {0: 1e-3, 150: 1e-3 * cosine(0.25), 599: 1e-3 * cosine(599 / 600)}),
        ("darts", 600, {0: 0.025, 300: 0.0125, 599: 0.025 * cosine(599 / 600)}),
        ("bnas", 600, {0: 0.0025, 270: 0.05, 540: 0.0025, 570: 0.0012625}),
        ("bnas_imagenet", 250, {0: 0.05, 25: 0.025, 50: 0.05, 149: 0.05 * cosine(49 / 50)}),
        ("shen2019", 200, {59: 0.1, 60: 0.01, 119: 0.01, 120: 1e-3, 179: 1e-3, 180: 1e-4}),
        ("shen2019_imagenet", 150, {49: 0.1, 50: 0.01, 99: 0.01, 100: 1e-3, 134: 1e-3, 135: 1e-4}),
        ("dms_a", 300, {139: 0.1, 140: 0.01, 219: 0.01, 220: 1e-3, 259: 1e-3, 260: 1e-4}),
    ],
)
def test_learning_rates_are_those_of_the_papers(
    name: str, epochs: int, expected: dict[int, float]
) -> None:
    """At the start of epochs, in batches of the paper; each stage goes its whole way."""
    found, steps = recipe(name), 20
    for stage in found.stages:
        rates = found.of(stage).rates(found.base_batch_size or 256, epochs, steps)
        for epoch, rate in expected.items():
            assert float(rates(epoch * steps)) == pytest.approx(rate, rel=1e-3), epoch


def test_stages_of_the_recipes() -> None:
    rows = [pair for pair in ROWS if pair[1] not in METHODS["default"][1:]]
    stages = {
        (name, row.space.name): tuple(stage.name for stage in row.recipe.stages)
        for name, row in rows
    }
    multi = {key for key in stages if stages[key] == ("real", "binary")}
    assert {name for name, _ in multi} == {
        "default",
        "bats",
        "bats_cifar100",
        "bats_imagenet",
        "bats_darts",
        "bnas_v2_multi_stage",
    }
    twins = {key for key in stages if stages[key] == ("float", "binary")}
    networks = ("resnet18_cifar", "resnet18")
    assert twins == {(name, network) for name in ("dms_a", "dms_b") for network in networks}
    assert {stages[key] for key in stages.keys() - multi - twins} == {("binary",)}


def test_a_space_has_the_method_that_is_as_like_it_as_can_be() -> None:
    assert resolve() == METHODS["default"][0]
    assert resolve(space="bats") == METHODS["default"][0]
    assert resolve(space=Bats(cells=2)).searcher == Differentiable(
        temperature={"normal": 0.2, "reduction": 0.15}, weights="real", activations="binary"
    )
    assert resolve(space=Bnas(stem="imagenet")).recipe == recipe("bnas_v2_imagenet")
    assert resolve(space="bnas").recipe == recipe("bnas_v2")
    assert resolve(space="vgg11", searcher="dms").searcher == METHODS["dms_a"][0].searcher


def test_without_a_method_a_name_is_the_space_by_itself() -> None:
    """As it is in an architecture, a table of latencies and a command."""
    assert resolve(space="vgg_small").space == resolve(space=VggSmall()).space == VggSmall()
    assert resolve(space="vgg_small").recipe == recipe("shen2019")
    assert resolve("shen2019", "vgg_small").space == VggSmall(binarization="dorefa")
    assert resolve(space=Vgg11()).space == Vgg11()
    for given in ("bats", Bats()):
        found: Any = resolve(space=given, searcher="progressive")
        assert (found.space, found.searcher) == (Bats(), METHODS["bats"][0].searcher)
    for space in (Bats(stem="imagenet"), Bats(precision="real"), Darts(precision="binary")):
        assert isinstance(resolve(space=space).searcher, Differentiable)
        assert not isinstance(resolve(space=space).searcher, Progressive)


def test_a_space_of_ones_own_has_no_paper() -> None:
    def own(choose, input_shape, classes):
        raise AssertionError

    for given in (own, FunctionSpace(own)):
        found = resolve(space=given)
        assert (found.searcher, found.recipe) == (Differentiable(), Recipe())


def test_parts_that_are_given_go_before_the_methods() -> None:
    found: Any = resolve("bnas_v2", {"cells": 8}, {"diversity": 0.0}, {"drop_path": 0.1})
    assert (found.space, found.searcher.diversity) == (Bnas(cells=8), 0)
    assert changes(recipe("bnas_v2"), found.recipe) == {"drop_path": 0.1}
    assert found.searcher.learning_rate == 0.025
    other = resolve("bnas_v2", searcher="progressive", recipe="bats")
    assert (other.searcher, other.epochs, other.recipe) == (Progressive(), 25, recipe("bats"))
    own = Recipe(0.5)
    assert resolve("bats", recipe=own).recipe is own


def test_what_is_given_for_a_recipe_is_for_its_stages_too() -> None:
    given = {"schedule": "one_cycle", "milestones": (0.5,)}
    found = resolve("dms_a", "resnet18", recipe=given).recipe
    for stage, epochs in zip(found.stages, (100, 100), strict=True):
        assert (found.of(stage).schedule, found.of(stage).milestones) == ("one_cycle", (0.5,))
        assert stage.epochs == epochs
    stages = (Stage("binary", 9, schedule="steps"),)
    assert resolve("bats", recipe={**given, "stages": stages}).recipe.stages == stages


def test_a_method_binarizes_any_network_as_its_own() -> None:
    assert resolve("dms_b", "vgg_small").space == VggSmall(binarization="dms")
    assert resolve("shen2019", "resnet18_cifar").space == ResNet18Cifar(binarization="dorefa")
    assert resolve("dms_b", VggSmall()).space == VggSmall()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "bnas_v3"}, "Unknown method `bnas_v3`; did you mean `bnas_v2`"),
        ({"method": "vgg_small"}, '`vgg_small` is a space, not a method: give space="vgg_small"'),
        ({"method": "evolution"}, "`evolution` is a searcher, not a method"),
        ({"space": "bnas_v2"}, '`bnas_v2` is a method, not a space: give method="bnas_v2"'),
        ({"space": Bats}, "`space` must be an instance, such as Bats()"),
        ({"searcher": Differentiable}, "`searcher` must be an instance, such as Differentiable()"),
        ({"method": 3}, "`method` must be a name or a Method, but got 3"),
        ({"space": "bat"}, "Unknown space `bat`; did you mean `bats`"),
        ({"space": {"cels": 3}}, "Unknown setting of space `bats` `cels`; did you mean `cells`"),
        ({"space": 3}, "`space` must be a name, a Space or a function, but got 3"),
        ({"searcher": "dms_a"}, '`dms_a` is a method, not a searcher: give method="dms_a"'),
        ({"searcher": "diferentiable"}, "Unknown searcher `diferentiable`; did you mean"),
        ({"searcher": 3}, "`searcher` must be a name, settings or a searcher, but got 3"),
        ({"searcher": {"heat": 1}}, "Unknown setting of searcher `differentiable` `heat`"),
        ({"searcher": {"temperature": -1}}, "`temperature` must be positive, but got -1"),
        ({"recipe": "bnas_v3"}, "Unknown recipe `bnas_v3`; did you mean `bnas_v2`"),
        ({"recipe": {"rate": 1}}, "Unknown setting of the recipe `rate`"),
        ({"recipe": 3}, "`recipe` must be a name, settings or a Recipe, but got 3"),
    ],
)
def test_what_cannot_be_resolved_is_told(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve(**given)
    assert message in str(caught.value)


def test_settings_of_the_default_may_make_it_the_network_of_another_row() -> None:
    assert resolve(space={"precision": "real"}) == resolve(space=Bats(precision="real"))


def test_a_space_that_shares_a_name_is_not_the_papers() -> None:
    def bats(choose, input_shape, classes):
        raise AssertionError

    assert resolve(space=bats).recipe == Recipe()


def test_a_method_object_has_the_networks_of_its_name() -> None:
    row = METHODS["dms_a"][0]
    assert resolve(row, "resnet18_cifar") == METHODS["dms_a"][1]
