import dataclasses
import json
from typing import Any

import pytest

from larq_nas.errors import InputError
from larq_nas.spaces import Bats, Bnas
from larq_nas.training import RECIPES, Recipe
from larq_nas.training.recipe import resolve_recipe


def changes(one: Recipe, other: Recipe) -> dict[str, Any]:
    """Return what `other` sets otherwise."""
    before, after = one.settings(), other.settings()
    return {name: after[name] for name in before if before[name] != after[name]}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": 0}, "`learning_rate` must be positive, but got 0."),
        ({"learning_rate": -1e-3}, "`learning_rate` must be positive, but got -0.001."),
        ({"learning_rate": "1"}, "`learning_rate` must be a finite number, but got '1'."),
        ({"learning_rate": float("nan")}, "`learning_rate` must be a finite number, but got nan."),
        ({"distillation_temperature": 0}, "`distillation_temperature` must be positive, but got 0"),
        ({"base_batch_size": 0}, "`base_batch_size` must be positive, but got 0."),
        ({"base_batch_size": 64.0}, "`base_batch_size` must be a whole number, but got 64.0."),
        ({"restart_epochs": 0}, "`restart_epochs` must be positive, but got 0."),
        ({"restart_epochs": 2.5}, "`restart_epochs` must be a whole number, but got 2.5."),
        ({"weight_decay": -1}, "`weight_decay` must be 0 or more, but got -1."),
        ({"clip_norm": -5.0}, "`clip_norm` must be 0 or more, but got -5.0."),
        ({"clip_norm": None}, "`clip_norm` must be a finite number, but got None."),
        ({"optimizer": "sdg"}, "Unknown optimizer `sdg`; did you mean `sgd`?"),
        ({"optimizer": 3}, "Unknown optimizer `3`. Known: adam, sgd."),
        ({"schedule": "cosin"}, "Unknown schedule `cosin`; did you mean `cosine`?"),
        (
            {"stages": ("real",)},
            '`stages` must be ("binary",), ("real", "binary") or ("float", "binary"), but got',
        ),
        ({"first_share": 1.0}, "`first_share` must be below 1, but got 1.0."),
        ({"first_share": 0}, "`first_share` must be positive"),
        ({"stages": ("binary", "real")}, "but got ('binary', 'real')."),
        ({"stages": ()}, "but got ()."),
        ({"stages": "binary"}, "but got 'binary'."),
        ({"stages": None}, "but got None."),
        ({"label_smoothing": 1}, "`label_smoothing` must be below 1, but got 1."),
        ({"label_smoothing": -0.1}, "`label_smoothing` must be 0 or more, but got -0.1."),
        ({"drop_path": 1.0}, "`drop_path` must be below 1, but got 1.0."),
        ({"drop_path": True}, "`drop_path` must be a finite number, but got True."),
        ({"distillation": 1.00005}, "`distillation` must be 1 or less, but got 1.00005."),
        ({"distillation": -1}, "`distillation` must be 0 or more, but got -1."),
        ({"color_jitter": 1}, "`color_jitter` must be True or False, but got 1."),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        Recipe(**settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_ends_of_a_range_are_allowed() -> None:
    recipe = Recipe(distillation=1, label_smoothing=0, drop_path=0, clip_norm=0)
    assert recipe.distillation == 1


def test_unknown_recipes_give_the_nearest_name() -> None:
    with pytest.raises(InputError, match="Unknown recipe `bnas_v3`; did you mean `bnas_v2`"):
        resolve_recipe("bnas_v3")
    with pytest.raises(InputError, match="`recipe` must be a name or a Recipe, but got 3"):
        resolve_recipe(3)
    assert resolve_recipe("bnas") is RECIPES["bnas"]
    assert resolve_recipe(Recipe(0.5)) == Recipe(0.5)


def test_bnas_v2_is_bnas_without_weight_decay_and_colour_jitter() -> None:
    assert changes(RECIPES["bnas"], RECIPES["bnas_v2"]) == {"weight_decay": 0.0}
    assert changes(RECIPES["bnas_imagenet"], RECIPES["bnas_v2_imagenet"]) == {
        "weight_decay": 0.0,
        "color_jitter": False,
    }


def test_bnas_trains_as_its_paper_says() -> None:
    bnas = RECIPES["bnas"]
    assert (bnas.optimizer, bnas.learning_rate, bnas.schedule) == ("sgd", 0.05, "one_cycle")
    assert (bnas.weight_decay, bnas.clip_norm, bnas.drop_path) == (3e-6, 5.0, 0.2)
    imagenet = RECIPES["bnas_imagenet"]
    assert (imagenet.schedule, imagenet.restart_epochs) == ("warm_restarts", 50)
    assert (imagenet.weight_decay, imagenet.label_smoothing) == (3e-5, 0.1)


def test_learning_rates_are_in_proportion_to_the_batch() -> None:
    assert RECIPES["bnas"].rate(256) == 0.05
    assert RECIPES["bnas_v2_imagenet"].rate(64) == 0.0125
    assert RECIPES["bats"].rate(7) == RECIPES["bats"].learning_rate
    assert dataclasses.replace(RECIPES["bnas"], base_batch_size=None).rate(64) == 0.05


def test_stages_of_the_recipes() -> None:
    stages = {name: recipe.stages for name, recipe in RECIPES.items()}
    multi = {name for name in stages if stages[name] == ("real", "binary")}
    assert multi == {"bats", "bats_cifar100", "bnas_v2_multi_stage"}
    assert stages.pop("dms_resnet") == ("float", "binary")
    assert {stages[name] for name in stages.keys() - multi} == {("binary",)}


def test_spaces_are_trained_as_their_papers_do() -> None:
    assert Bats().recipe() == RECIPES["bats"]
    assert Bnas().recipe() == RECIPES["bnas_v2"]
    assert Bnas(stem="imagenet").recipe() == RECIPES["bnas_v2_imagenet"]


@pytest.mark.parametrize(
    ("epochs", "real", "binary"), [(10, 5, 5), (7, 3, 4), (1, 0, 1), (0, 0, 0)]
)
def test_the_last_stage_takes_what_is_left_over(epochs: int, real: int, binary: int) -> None:
    both = Recipe()
    assert (both.epochs_of("real", epochs), both.epochs_of("binary", epochs)) == (real, binary)
    assert Recipe(stages=("binary",)).epochs_of("binary", epochs) == epochs


def test_the_float_twin_of_dms_is_trained_for_200_of_500_epochs() -> None:
    resnet = RECIPES["dms_resnet"]
    assert (resnet.epochs_of("float", 500), resnet.epochs_of("binary", 500)) == (200, 300)
    rate = resnet.rates(64, 300, 10)
    rates = [float(rate(10 * epoch)) for epoch in (0, 139, 141, 219, 221, 259, 261)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001, 0.0001])


def test_settings_are_json_and_make_the_same_recipe() -> None:
    for recipe in RECIPES.values():
        assert Recipe(**json.loads(json.dumps(recipe.settings()))) == recipe
    assert dataclasses.replace(Recipe(), stages=["binary"]).stages == ("binary",)
