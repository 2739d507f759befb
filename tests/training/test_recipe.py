import dataclasses
import json
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from larq_nas.errors import InputError
from larq_nas.train import read_epochs
from larq_nas.training import Recipe, Stage


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
            '`stages` must be ("binary",), ("real", "binary") or ("float", "binary"), each a',
        ),
        (
            {"stages": ("real", "binry")},
            '("float", "binary"), each a name, a Stage or its settings',
        ),
        (
            {"stages": [{"name": "binary", "epoch": 3}]},
            "A stage has no setting 'epoch': it has name, epochs",
        ),
        (
            {"stages": [{"name": "binary", "epochs": -3}]},
            "`epochs of stage binary` must be 0 or more, but got -3.",
        ),
        (
            {"stages": [{"name": "binary", "schedule": "cosin"}]},
            "Unknown schedule of stage binary `cosin`; did",
        ),
        (
            {"stages": [{"name": "binary", "learning_rate": 0}]},
            "`learning_rate of stage binary` must",
        ),
        (
            {"stages": [{"name": "binary", "milestones": [2]}]},
            "`milestones of stage binary` must be",
        ),
        ({"stages": [{"name": "real", "epochs": 3}, "binary"]}, "`stages` must all have `epochs`"),
        ({"schedule": None}, "Unknown schedule `None`"),
        ({"milestones": None}, "`milestones` must be shares of the epochs"),
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


@pytest.mark.parametrize(
    ("epochs", "real", "binary"), [(10, 5, 5), (7, 3, 4), (1, 0, 1), (0, 0, 0)]
)
def test_the_last_stage_takes_what_is_left_over(epochs: int, real: int, binary: int) -> None:
    both = Recipe()
    assert both.split(epochs) == {"real": real, "binary": binary}
    assert Recipe(stages=("binary",)).split(epochs) == {"binary": epochs}


def test_epochs_are_split_as_those_of_the_stages() -> None:
    recipe = Recipe(stages=(Stage("float", 200), Stage("binary", 300)))
    assert (recipe.epochs, Recipe().epochs) == (500, None)
    for epochs, shares in {500: (200, 300), 100: (40, 60), 7: (2, 5), 1: (0, 1), 0: (0, 0)}.items():
        assert tuple(recipe.split(epochs).values()) == shares
    assert recipe.split({"binary": 1, "float": 9}) == {"float": 9, "binary": 1}
    for wrong, message in {
        "flot": "did you mean `float`",
        "float": "binary of float, binary is",
    }.items():
        with pytest.raises(InputError, match=message):
            recipe.split({wrong: 3})
    with pytest.raises(InputError, match="`epochs of stage binary` must be 0 or more"):
        recipe.split({"float": 3, "binary": -1})


def test_epochs_by_stage_are_numbers_that_a_run_can_keep() -> None:
    given = MappingProxyType({"real": np.int64(2), "binary": 3})
    assert json.loads(json.dumps(read_epochs("epochs", given, Recipe()))) == dict(given)


def test_what_is_no_name_is_no_stage() -> None:
    name: Any = ["binary"]
    with pytest.raises(InputError, match="Unknown stage"):
        Stage(name)


def test_a_stage_has_its_own_settings_or_those_of_the_recipe() -> None:
    own = Stage("float", 100, 0.2, "adam", "steps", (0.5,), 1e-4)
    recipe = Recipe(0.1, stages=(own, {"name": "binary", "epochs": 50}), optimizer="sgd")
    first, last = map(recipe.of, recipe.stages)
    assert (first.learning_rate, first.optimizer, first.schedule) == (0.2, "adam", "steps")
    assert (first.milestones, first.weight_decay) == ((0.5,), 1e-4)
    assert last == recipe
    assert recipe.settings()["stages"][1] == {"name": "binary", "epochs": 50}
    assert Recipe().settings()["stages"] == ["real", "binary"]


def test_settings_are_json_and_make_the_same_recipe() -> None:
    recipe = Recipe(0.1, stages=("binary",), milestones=(0.5,), precision="bfloat16")
    assert Recipe(**json.loads(json.dumps(recipe.settings()))) == recipe
    recipe = Recipe(stages=(Stage("float", 2, milestones=(0.5,)), Stage("binary", 3, 0.1)))
    assert Recipe(**json.loads(json.dumps(recipe.settings()))) == recipe
    assert dataclasses.replace(Recipe(), stages=["binary"]).stages == (Stage("binary"),)


def test_learning_rates_are_in_proportion_to_the_batch() -> None:
    recipe = Recipe(0.05, base_batch_size=256)
    assert (recipe.rate(256), recipe.rate(64)) == (0.05, 0.0125)
    assert dataclasses.replace(recipe, base_batch_size=None).rate(64) == 0.05
