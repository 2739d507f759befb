"""The recipes of the papers, by name."""

import dataclasses
from collections.abc import Mapping
from typing import TypeAlias

from larq_nas.errors import InputError, unknown_name
from larq_nas.training.recipe import Recipe

__all__ = ["RECIPES", "RecipeLike", "resolve_recipe"]

_BATS = Recipe(auxiliary=0.4)
_SHEN = Recipe(
    0.1,
    base_batch_size=100,
    stages=("binary",),
    optimizer="sgd",
    schedule="steps",
    weight_decay=5e-4,
)
_BNAS_V2 = Recipe(
    0.05,
    base_batch_size=256,
    stages=("binary",),
    optimizer="sgd",
    schedule="one_cycle",
    clip_norm=5.0,
    drop_path=0.2,
)
_BNAS_V2_IMAGENET = dataclasses.replace(
    _BNAS_V2, schedule="warm_restarts", label_smoothing=0.1, drop_path=0.0
)

_DMS = Recipe(
    0.1,
    base_batch_size=64,
    stages=("binary",),
    optimizer="sgd",
    schedule="steps",
    milestones=(140 / 300, 220 / 300, 260 / 300),
    weight_decay=1e-4,
)

RECIPES: Mapping[str, Recipe] = {
    "bats": _BATS,
    "bats_cifar100": dataclasses.replace(_BATS, mix_up=0.2),
    "bats_real": dataclasses.replace(_BATS, learning_rate=0.1, stages=("binary",), optimizer="sgd"),
    "bnas": dataclasses.replace(_BNAS_V2, weight_decay=3e-6),
    "bnas_imagenet": dataclasses.replace(_BNAS_V2_IMAGENET, weight_decay=3e-5, color_jitter=True),
    "bnas_v2": _BNAS_V2,
    "bnas_v2_imagenet": _BNAS_V2_IMAGENET,
    "bnas_v2_multi_stage": Recipe(),
    "dms_a": _DMS,
    "dms_b": dataclasses.replace(_DMS, weight_decay=2e-4),
    "dms_resnet": dataclasses.replace(_DMS, stages=("float", "binary"), first_share=200 / 500),
    "shen2019": _SHEN,
    "shen2019_imagenet": dataclasses.replace(
        _SHEN, base_batch_size=256, weight_decay=1e-4, milestones=(1 / 3, 2 / 3, 0.9)
    ),
}
"""The papers' recipes by name. BNAS v2 is BNAS without weight decay and colour jitter; its
multi-stage training is that of BATS. Shen et al. name the rates alone: batch and weight decay are
those of the works they follow, HWGQ and ResNet. DMS names the batch of its search alone."""

RecipeLike: TypeAlias = str | Recipe


def resolve_recipe(recipe: RecipeLike) -> Recipe:
    """Return the recipe that a name stands for."""
    if isinstance(recipe, Recipe):
        return recipe
    if not isinstance(recipe, str):
        raise InputError(f"`recipe` must be a name or a Recipe, but got {recipe!r}.")
    if recipe not in RECIPES:
        raise unknown_name("recipe", recipe, RECIPES)
    return RECIPES[recipe]
