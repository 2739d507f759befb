"""The published methods, as data: space, searcher and recipe of each network.

A method is a row of a paper's tables. No setting is inherited from another paper, but for rows that
are versions of one; each names all that it sets otherwise than `larq_nas.spaces`,
`larq_nas.searchers` and `larq_nas.training.Recipe` do for a network of one's own.
`docs/own_method.md` tells how to add one.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from larq_nas.errors import InputError, unknown_name
from larq_nas.searchers import Differentiable, Dms, Evolution, Progressive, Searcher
from larq_nas.spaces import (
    Bats,
    Bnas,
    Darts,
    ResNet18,
    ResNet18Cifar,
    Space,
    SpaceFunction,
    Vgg11,
    VggSmall,
    names,
)
from larq_nas.spaces import resolve as resolve_space
from larq_nas.spaces.space import has_setting
from larq_nas.training.recipe import OF_STAGES, Recipe, Stage

__all__ = [
    "METHODS",
    "SEARCHERS",
    "Method",
    "RecipeLike",
    "SearcherLike",
    "SpaceLike",
    "recipe",
    "resolve",
]

SpaceLike: TypeAlias = str | Space | SpaceFunction | Mapping[str, Any]
"""The name of a space, a space, a function that builds networks, or settings to change."""

SearcherLike: TypeAlias = str | Searcher | Mapping[str, Any]
"""The name of a searcher, a searcher, or settings to change."""

RecipeLike: TypeAlias = str | Recipe | Mapping[str, Any]
"""The name of the method whose recipe it is, a recipe, or settings to change."""


DEFAULT_EPOCHS = 100
"""Epochs of a training where neither a method nor its stages have any."""


@dataclass(frozen=True)
class Method:
    """A way to search and train one network.

    !!! example
        ```python
        bats = larq_nas.methods.METHODS["bats"][0]
        shallow = dataclasses.replace(bats, space=larq_nas.spaces.Bats(cells=8))
        model = larq_nas.search(train, validation, method=shallow)
        ```

    # Arguments
        paper: where it is published.
        space: what is searched.
        searcher: how.
        epochs: epochs of the search, of each stage, or generations.
        recipe: how the found network is trained.
        train_epochs: for how long: that of the recipe's stages, where they have epochs.
        sections: where the paper has each part.
        ours: settings that the paper leaves open, and why they are as they are.
    """

    paper: str
    space: Space
    searcher: Searcher
    epochs: int
    recipe: Recipe
    train_epochs: int = DEFAULT_EPOCHS
    sections: Mapping[str, str] = field(default_factory=dict)
    ours: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.recipe.epochs is not None:
            object.__setattr__(self, "train_epochs", self.recipe.epochs)


def _of_epochs(recipe: Recipe, epochs: int) -> Recipe:
    """Return a recipe each of whose stages takes so many epochs."""
    stages = tuple(dataclasses.replace(stage, epochs=epochs) for stage in recipe.stages)
    return dataclasses.replace(recipe, stages=stages)


# --- BATS -----------------------------------------------------------------------------------------

_BATS = "BATS: Binary ArchitecTure Search, https://arxiv.org/abs/2003.01711"

_BATS_SEARCH: Mapping[str, Any] = {
    "temperature": {"normal": 0.2, "reduction": 0.15},  # T of section 4.2, its values in 6.1
    "weights_only": 0.4,  # 10 of the 25 epochs of each stage, section 6.1
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "weight_decay": 3e-4,
    "architecture_learning_rate": 6e-4,
    "architecture_weight_decay": 1e-3,
    "architecture_betas": (0.5, 0.999),
    "weights": "real",  # section 4.3, Table 4
    "activations": "binary",
}
_BATS_STAGES = Progressive(
    **_BATS_SEARCH, stage_cells=(5, 11, 17), stage_operations=(8, 5, 3)
)  # section 6.1
_BATS_RECIPE = Recipe(
    learning_rate=1e-3,
    stages=(Stage("real", 600), Stage("binary", 600)),  # section 4.3: real weights first
    optimizer="adam",
    schedule="cosine",
    auxiliary=0.4,  # section 6.2
)
_BATS_SECTIONS = {"space": "4.1 and Table 1", "searcher": "4.2, 4.3, 6.1", "recipe": "4.3, 6.2"}
_BATS_OURS = (
    "each of the two stages takes the epochs that the paper prints: it prints one number, and the "
    "same authors train each stage alike in arXiv:2003.11535",
    "supernets as wide as the network: the paper names no width",
    "no augmentation of its own: the paper names none for the search",
    "no batch norm behind pools and no clipping in the search: the paper names neither",
    "padding with 1, which is a sign",
)

_BATS_CIFAR = Method(
    _BATS,
    Bats(cells=20, channels=36, groups=12, activation="prelu"),
    _BATS_STAGES,
    25,
    _BATS_RECIPE,
    sections=_BATS_SECTIONS,
    ours=_BATS_OURS,
)

_DEFAULT = dataclasses.replace(
    _BATS_CIFAR,
    # What Larq Compute Engine runs fastest: 32 channels take as long as 3, ReLU is fused.
    space=Bats(cells=5, channels=32, groups=1, activation="relu"),
    searcher=Differentiable(**_BATS_SEARCH),
    recipe=_of_epochs(_BATS_RECIPE, 50),
    ours=(
        "dense convolutions and ReLU, which Larq Compute Engine runs fastest",
        "5 cells of 32 channels, searched in one stage",
        "100 epochs of training, half of them with real weights",
    ),
)

_DEFAULT_IMAGENET = dataclasses.replace(
    _DEFAULT, space=Bats(cells=5, channels=32, groups=1, activation="relu", stem="imagenet")
)
_BATS_REAL: Mapping[str, Any] = {
    **_BATS_SEARCH,
    "optimizer": "sgd",  # appendix B
    "learning_rate": 0.1,
    "activations": "real",
}
_BATS_REAL_RECIPE = Recipe(
    learning_rate=0.1,
    # The last stage; with precision="real" nothing in it is binary.
    stages=(Stage("binary", 600),),
    optimizer="sgd",
    schedule="cosine",
    auxiliary=0.4,
)
_DEFAULT_REAL = dataclasses.replace(
    _DEFAULT,
    space=Bats(cells=5, channels=32, groups=1, activation="relu", precision="real"),
    searcher=Differentiable(**_BATS_REAL),
    recipe=_of_epochs(_BATS_REAL_RECIPE, 100),
)

# --- BNAS -----------------------------------------------------------------------------------------

_BNAS = "Learning Architectures for Binary Networks, https://arxiv.org/abs/2002.06963"
_BNAS_V2 = "BNAS v2, https://arxiv.org/abs/2110.08562"

_BNAS_SEARCH = Differentiable(
    temperature=1.0,
    weights_only=0.0,  # both levels from the start
    optimizer="sgd",
    learning_rate=0.025,
    final_learning_rate=0.001,
    weight_decay=3e-4,
    architecture_learning_rate=3e-4,
    architecture_weight_decay=1e-3,
    architecture_betas=(0.5, 0.999),
    diversity=1.0,  # lambda of Eq. 2
    diversity_annealing=7.7,  # tau of Eq. 2
    weights="binary",
    activations="binary",
)
_BNAS_RECIPE = Recipe(
    learning_rate=0.05,
    base_batch_size=256,
    stages=(Stage("binary", 600),),
    optimizer="sgd",
    schedule="one_cycle",  # as released, which clips no gradients here
    weight_decay=3e-6,
    drop_path=0.2,
)
_BNAS_IMAGENET_RECIPE = Recipe(
    learning_rate=0.05,
    base_batch_size=256,
    stages=(Stage("binary", 250),),
    optimizer="sgd",
    schedule="warm_restarts",
    restart_epochs=50,
    weight_decay=3e-5,
    clip_norm=5.0,
    label_smoothing=0.1,
    color_jitter=True,
)
_BNAS_SECTIONS = {
    "space": "4.1 and Table 1; the template 4.2",
    "searcher": "4.3, Eq. 2; 5, experimental setup",
    "recipe": "5, experimental setup; v2: minimal regularization",
}
_BNAS_OURS = (
    "a skip from the cell before alone, as in the release",
    "all convolutions of cells are binary, where an index of the release leaves the last two real",
    "padding with 1, which is a sign",
    "H(p) is the mean over the edges of both kinds of cells",
    'the last epoch is derived, and that of the best accuracy by derived_epoch="best"',
)
_BNAS_CIFAR = Method(
    _BNAS,
    Bnas(cells=20, channels=36),
    _BNAS_SEARCH,
    50,
    _BNAS_RECIPE,
    sections=_BNAS_SECTIONS,
    ours=_BNAS_OURS,
)
_BNAS_IMAGENET = dataclasses.replace(
    _BNAS_CIFAR,
    space=Bnas(cells=12, channels=64, stem="imagenet"),  # BNAS-D
    recipe=_BNAS_IMAGENET_RECIPE,
)
# v2 takes weight decay and colour jitter away, and groups the stem's convolutions.
_BNAS_V2_CIFAR = dataclasses.replace(
    _BNAS_CIFAR, paper=_BNAS_V2, recipe=dataclasses.replace(_BNAS_RECIPE, weight_decay=0.0)
)
_BNAS_V2_IMAGENET = dataclasses.replace(
    _BNAS_IMAGENET,
    paper=_BNAS_V2,
    space=Bnas(cells=12, channels=64, stem="imagenet", stem_groups=True),
    recipe=dataclasses.replace(_BNAS_IMAGENET_RECIPE, weight_decay=0.0, color_jitter=False),
)

# --- DARTS ----------------------------------------------------------------------------------------

_DARTS = Method(
    "DARTS: Differentiable Architecture Search, https://arxiv.org/abs/1806.09055",
    Darts(cells=20, channels=36, precision="real", search_cells=8, search_channels=16),
    Differentiable(
        temperature=1.0,
        weights_only=0.0,
        optimizer="sgd",
        learning_rate=0.025,
        final_learning_rate=0.001,
        weight_decay=3e-4,
        architecture_learning_rate=3e-4,
        architecture_weight_decay=1e-3,
        architecture_betas=(0.5, 0.999),
        clip_norm=5.0,  # as released
        weights="real",
        activations="real",
    ),
    50,
    Recipe(
        learning_rate=0.025,
        base_batch_size=96,
        # The last stage; with precision="real" nothing in it is binary.
        stages=(Stage("binary", 600),),
        optimizer="sgd",
        schedule="cosine",
        weight_decay=3e-4,
        clip_norm=5.0,
        drop_path=0.2,
        auxiliary=0.4,
    ),
    sections={"space": "2.1 and 3.1", "searcher": "A.1.1", "recipe": "A.2.1"},
    ours=("the first order alone",),
)

# --- Shen et al. ----------------------------------------------------------------------------------

_SHEN = "Searching for Accurate Binary Neural Architectures, https://arxiv.org/abs/1909.07378"

_SHEN_SEARCH = Evolution(
    population=32,
    candidate_epochs=10,
    widest_epochs=150,
    trade_off=4.0,  # lambda of Eq. 4
    strategy="genetic",
    confirm=0,
)  # section 3
_SHEN_RECIPE = Recipe(
    learning_rate=0.1,
    base_batch_size=100,
    stages=(Stage("binary", 200),),
    optimizer="sgd",
    schedule="steps",
    milestones=(0.3, 0.6, 0.9),  # epochs 60, 120 and 180 of 200
    weight_decay=5e-4,
)
_SHEN_OURS = (
    "batch and weight decay are of the works that the paper follows: HWGQ, and ResNet on ImageNet",
    "crossover and mutation of the genetic strategy",
    "a tenth of the training images, since validation is reported",
)
_SHEN_VGG = Method(
    _SHEN,
    VggSmall(binarization="dorefa"),  # Eq. 1
    _SHEN_SEARCH,
    50,
    _SHEN_RECIPE,
    sections={"space": "Eq. 2 and 3.1", "searcher": "Eq. 3 and 4, 3", "recipe": "3.1"},
    ours=_SHEN_OURS,
)
_SHEN_RESNET = dataclasses.replace(
    _SHEN_VGG,
    space=ResNet18(binarization="dorefa"),
    searcher=dataclasses.replace(_SHEN_SEARCH, subset=50_000),  # 50 images of each class
    recipe=Recipe(
        learning_rate=0.1,
        base_batch_size=256,
        stages=(Stage("binary", 150),),
        optimizer="sgd",
        schedule="steps",
        milestones=(1 / 3, 2 / 3, 0.9),  # epochs 50, 100 and 135 of 150
        weight_decay=1e-4,
    ),
    sections={"space": "Eq. 2 and 3.2", "searcher": "Eq. 3 and 4, 3", "recipe": "3.2"},
)

# --- DMS ------------------------------------------------------------------------------------------

_DMS = "DMS: Differentiable Dimension Search for Binary Neural Networks, under review"


def _dms(initial_ratio: float, memory_target: float, mean_learning_rate: float) -> Dms:
    """Return the searcher of appendix B.2.1."""
    return Dms(
        initial_ratio=initial_ratio,  # mu
        memory_target=memory_target,  # of Eq. 7, in MiB
        trade_off=0.01,  # lambda of Eq. 7
        scale=1.0,  # sigma
        final_scale=0.3,
        half_step=0.4,  # Delta of Eq. 5, in units of sigma
        least_mean=0.3,
        least_ratio=0.25,
        temperature=1.0,
        weight_epochs=5,
        learning_rate=0.05,
        final_learning_rate=0.01,
        weight_decay=1e-4,
        mean_learning_rate=mean_learning_rate,
        best_effort=True,
    )


def _dms_recipe(weight_decay: float, *stages: Stage) -> Recipe:
    """Return the recipe of appendix B.2.2: rates fall at epochs 140, 220 and 260 of 300."""
    return Recipe(
        learning_rate=0.1,
        base_batch_size=64,
        stages=stages,
        optimizer="sgd",
        schedule="steps",
        milestones=(140 / 300, 220 / 300, 260 / 300),
        weight_decay=weight_decay,
    )


_DMS_SECTIONS = {"space": "3.1", "searcher": "2.2, 2.3 and B.2.1", "recipe": "B.2.2"}
_DMS_OURS = (
    "the batch of a training is that of the search: the paper names no other",
    "shares add up to the middle width: a layer without a norm behind it would learn its width for "
    "the size of the logits",
    "a ReLU wherever an addition or the last layer reads: so that both forms of a network read the "
    "same values",
    "the gradient of the step is scaled as by LSQ: the paper names no scale",
    "weight decay is of the weights alone: the paper names it behind the optimizer of the means",
)
_DMS_IMAGENET_OURS = (
    *_DMS_OURS[1:],
    "searched on CIFAR-10 as the paper does; a search of ImageNet itself has the settings of that, "
    "but for the memory: that of its own 1x or 3x BNN, as B.2.1 matches them",
    "epochs, learning rate and weight decay of the binary stage, which the paper leaves open, are "
    "those of the float stage",
)
# The float stage as ResNet-18 was trained first, and the binary one along a cosine.
_DMS_IMAGENET_RECIPE = Recipe(
    learning_rate=0.1,
    base_batch_size=256,
    stages=(
        Stage("float", 100, schedule="steps", milestones=(0.3, 0.6, 0.9)),
        Stage("binary", 100, schedule="cosine"),
    ),
    optimizer="sgd",
    weight_decay=1e-4,
)


def _dms_networks(
    initial_ratio: float, memory_target: float, weight_decay: float, memory_on_imagenet: float
) -> tuple[Method, ...]:
    vgg = Method(
        _DMS,
        Vgg11(binarization="dms"),  # Eq. 2
        _dms(initial_ratio, memory_target, 2e-3),
        250,
        _dms_recipe(weight_decay, Stage("binary", 300)),
        sections=_DMS_SECTIONS,
        ours=_DMS_OURS,
    )
    resnet = dataclasses.replace(
        vgg,
        space=ResNet18Cifar(binarization="dms"),
        searcher=_dms(initial_ratio, memory_target, 1e-3),
        # The float twin first, and then as VGG.
        recipe=_dms_recipe(weight_decay, Stage("float", 200), Stage("binary", 300)),
    )
    imagenet = dataclasses.replace(
        resnet,
        space=ResNet18(binarization="dms", stem_kernel=3),
        searcher=_dms(initial_ratio, memory_on_imagenet, 1e-3),
        recipe=_DMS_IMAGENET_RECIPE,
        ours=_DMS_IMAGENET_OURS,
    )
    return vgg, resnet, imagenet


METHODS: Mapping[str, tuple[Method, ...]] = {
    "default": (_DEFAULT, _DEFAULT_IMAGENET, _DEFAULT_REAL),
    "bats": (_BATS_CIFAR,),
    "bats_cifar100": (
        dataclasses.replace(_BATS_CIFAR, recipe=dataclasses.replace(_BATS_RECIPE, mix_up=0.2)),
    ),
    "bats_imagenet": (
        dataclasses.replace(
            _BATS_CIFAR,
            space=Bats(cells=14, channels=80, groups=16, activation="prelu", stem="imagenet"),
            recipe=_of_epochs(_BATS_RECIPE, 75),
        ),
    ),
    # Appendix B: the same with real numbers, by SGD.
    "bats_real": (
        dataclasses.replace(
            _BATS_CIFAR,
            space=Bats(cells=20, channels=36, groups=12, activation="prelu", precision="real"),
            searcher=Progressive(**_BATS_REAL, stage_cells=(5, 11, 17), stage_operations=(8, 5, 3)),
            recipe=_BATS_REAL_RECIPE,
            ours=_BATS_OURS[1:],  # it has one stage
        ),
    ),
    # Tables 2 and 5: DARTS' cells, binarized and trained as BATS' are.
    "bats_darts": (
        dataclasses.replace(
            _BATS_CIFAR,
            space=Darts(precision="binary", activation="prelu"),
            searcher=Differentiable(**_BATS_SEARCH),
            ours=(
                *(one for one in _BATS_OURS if "behind pools" not in one),
                "searched in one stage",
                "batch norm behind pools, as in DARTS, and no clipping in the search",
            ),
        ),
    ),
    "bnas_v2": (_BNAS_V2_CIFAR,),
    "bnas_v2_imagenet": (_BNAS_V2_IMAGENET,),
    # "Multi-Stage": trained in BATS' two stages.
    "bnas_v2_multi_stage": (
        dataclasses.replace(
            _BNAS_V2_IMAGENET,
            recipe=Recipe(
                learning_rate=1e-3,
                stages=(Stage("real", 250), Stage("binary", 250)),
                optimizer="adam",
                schedule="cosine",
            ),
            ours=(
                *_BNAS_OURS,
                "optimizer and regularization of BATS: the paper names the scheme alone",
                "each of the two stages takes the epochs that the paper prints for one",
            ),
        ),
    ),
    "bnas": (_BNAS_CIFAR,),
    "bnas_imagenet": (_BNAS_IMAGENET,),
    "darts": (_DARTS,),
    "shen2019": (_SHEN_VGG,),
    "shen2019_imagenet": (_SHEN_RESNET,),
    "dms_a": _dms_networks(1.5, memory_target=0.12, weight_decay=1e-4, memory_on_imagenet=3.29),
    "dms_b": _dms_networks(2.5, memory_target=1.0, weight_decay=2e-4, memory_on_imagenet=17.8),
}
"""The methods by name, each with its networks; the first is the one that is meant by the name.

The order matters: a space without a method has the first row that is most like it.
"""

SEARCHERS: Mapping[str, type[Any]] = {
    row.searcher.name: type(row.searcher) for rows in METHODS.values() for row in rows
}
"""The searchers of the methods by name."""

# What tells networks of one space apart.
_KINDS = ("precision", "stem", "binarization")


def resolve(
    method: str | Method | None = None,
    space: SpaceLike | None = None,
    searcher: SearcherLike | None = None,
    recipe: RecipeLike | None = None,
) -> Method:
    """Return a method, with the parts that are given in place of its own.

    !!! example
        ```python
        method = larq_nas.methods.resolve("dms_b", space="resnet18_cifar")
        method = larq_nas.methods.resolve("bats", space={"cells": 8}, searcher={"weights_only": 0})
        ```

    # Arguments
        method: a name of `METHODS` or a `Method`; by default the first that has the space.
        space: a space: its name, which of a method that is given stands for its network of that
            name; settings to change in the method's; a `Space`; or a function.
        searcher: a searcher: its name, which stands for the published one of the space where
            there is one; settings to change in the method's; or a `Searcher`.
        recipe: a recipe, alike; a name is that of a method.

    # Raises
        InputError: if a name or a setting is unknown, or a setting cannot be used.
    """
    if isinstance(method, Method) and isinstance(space, str):
        # Of a method of several networks, the one that is named.
        of_same = [name for name, rows in METHODS.items() if method in rows]
        method = of_same[0] if of_same else method
    if isinstance(space, Mapping) and not isinstance(method, Method):
        # The settings may make it the network of another row.
        space = resolve_space(_named(method, None).space, space)
    found = method if isinstance(method, Method) else _named(method, space)
    resolved = _space(found, space, is_named=method is not None)
    changed: dict[str, Any] = {"space": resolved}
    if searcher is not None:
        changed["searcher"] = _searcher(found, searcher)
        if changed["searcher"].name != found.searcher.name:
            changed["epochs"] = changed["searcher"].default_epochs
    if recipe is not None:
        changed["recipe"] = _recipe(found, recipe, resolved)
    return dataclasses.replace(found, **changed)


def recipe(name: str, space: str | Space | None = None) -> Recipe:
    """Return the recipe of a method, for the network of `space` if it has several.

    # Raises
        InputError: if there is no such method.
    """
    if not isinstance(name, str) or name not in METHODS:
        raise unknown_name("recipe", name, METHODS)
    found = _network(name, resolve_space(space)) if space else None
    return (found or METHODS[name][0]).recipe


def _named(name: str | None, space: SpaceLike | None) -> Method:
    """Return the network of a method that is named, or the first that has the space."""
    if name is not None and not isinstance(name, str):
        raise InputError(f"`method` must be a name or a Method, but got {name!r}.")
    if name is not None and name not in METHODS:
        for what, known in (("space", names()), ("searcher", SEARCHERS)):
            if name in known:
                raise InputError(f'`{name}` is a {what}, not a method: give {what}="{name}".')
        raise unknown_name("method", name, METHODS)
    default = METHODS[name or "default"][0]
    if space is None or isinstance(space, Mapping):
        return default
    if isinstance(space, str) and space in METHODS and space not in names():
        raise InputError(f'`{space}` is a method, not a space: give method="{space}".')
    found = _network(name, resolve_space(space))
    if found or name:
        return found or default
    # A space of one's own has no paper.
    return dataclasses.replace(default, searcher=Differentiable(), recipe=Recipe(), ours=())


def _network(name: str | None, space: Space, searcher: str | None = None) -> Method | None:
    """Return the network that is most like `space`, of one method or of all."""
    rows = METHODS[name] if name else [row for rows in METHODS.values() for row in rows]
    same = [
        row
        for row in rows
        if type(row.space) is type(space) and searcher in (None, row.searcher.name)
    ]

    def likeness(row: Method) -> int:
        return sum(getattr(row.space, kind, 0) == getattr(space, kind, 0) for kind in _KINDS)

    # Of several that are as like it, the first.
    return max(same, key=likeness, default=None)


def _space(method: Method, space: SpaceLike | None, is_named: bool) -> Space:
    if space is None:
        return method.space
    if isinstance(space, Mapping):
        return resolve_space(method.space, space)
    if not is_named or not isinstance(space, str):
        return resolve_space(space)
    if space == method.space.name:
        return method.space
    # A method binarizes any network as its own.
    binarization = getattr(method.space, "binarization", None)
    binarizes = binarization and has_setting(space, "binarization")
    return resolve_space(space, {"binarization": binarization} if binarizes else {})


def _searcher(method: Method, searcher: SearcherLike) -> Searcher:
    if isinstance(searcher, Mapping):
        return _changed(method.searcher, searcher, f"setting of searcher `{method.searcher.name}`")
    if searcher == method.searcher.name:
        return method.searcher
    if isinstance(searcher, str):
        if searcher in METHODS and searcher not in SEARCHERS:
            raise InputError(f'`{searcher}` is a method, not a searcher: give method="{searcher}".')
        if searcher not in SEARCHERS:
            raise unknown_name("searcher", searcher, SEARCHERS)
        published = _network(None, method.space, searcher)
        found: Searcher = published.searcher if published else SEARCHERS[searcher]()
        return found
    if isinstance(searcher, type):
        raise InputError(f"`searcher` must be an instance, such as {searcher.__name__}().")
    if not isinstance(searcher, Searcher):
        raise InputError(
            f"`searcher` must be a name, settings or a searcher, but got {searcher!r}: see "
            "larq_nas.searchers.Searcher for what one has."
        )
    return searcher


def _recipe(method: Method, given: RecipeLike, space: Space) -> Recipe:
    if isinstance(given, Recipe):
        return given
    if isinstance(given, str):
        return recipe(given, space)
    if isinstance(given, type):
        raise InputError(f"`recipe` must be an instance, such as {given.__name__}(...).")
    if not isinstance(given, Mapping):
        raise InputError(f"`recipe` must be a name, settings or a Recipe, but got {given!r}.")
    changed: Recipe = _changed(method.recipe, given, "setting of the recipe")
    if "stages" in given:
        return changed
    # What is given for the recipe is for its stages too, which may have had their own.
    nothing: dict[str, Any] = dict.fromkeys(name for name in given if name in OF_STAGES)
    stages = tuple(dataclasses.replace(stage, **nothing) for stage in changed.stages)
    return dataclasses.replace(changed, stages=stages)


def _changed(part: Any, settings: Mapping[str, Any], what: str) -> Any:
    """Return a dataclass of other settings, or raise `InputError` for one it does not have."""
    known = [one.name for one in dataclasses.fields(part)] if dataclasses.is_dataclass(part) else []
    for name in settings:
        if name not in known:
            raise unknown_name(what, name, known)
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
    return dataclasses.replace(part, **values)
