"""Costs as the papers count them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from larq_nas.architecture import Architecture
from larq_nas.cost.profile import LayerProfile, Profile, profile
from larq_nas.errors import InputError, require_known
from larq_nas.spaces.chooser import Fix, ImageShape, Operations, zeros
from larq_nas.spaces.space import Space, resolve
from larq_nas.spaces.width_space import WidthSpace

_WEIGHTED = ("conv", "dense")
_MERGES = ("add", "arithmetic", "average")
_MIB = 2**20


def by_convention(name: str, profile: Profile) -> dict[str, Any]:
    """Return a network's costs as a paper counts them.

    !!! example
        ```python
        model = larq_nas.Architecture("vgg_small", {"expansion": 2}).build((32, 32, 3), 10)
        larq_nas.cost.by_convention("shen2019", larq_nas.cost.profile(model))
        # {"flops": 45252608, "memory_bits": 23748608}
        ```

    # Arguments
        name: `"shen2019"`, `"dms"`, `"bats"` or `"bnas"`.
        profile: the network's profile.

    # Returns
        The paper's columns by name; see `CONVENTIONS` for their formulas.

    # Raises
        InputError: if the convention is unknown, or does not say how to count the network.
    """
    require_known("convention", name, CONVENTIONS)
    if not isinstance(profile, Profile):
        raise InputError(f"`profile` must be a larq_nas.cost.Profile, but got {profile!r}.")
    convention = CONVENTIONS[name]
    if profile.unknown:
        raise InputError(
            f"Convention `{name}` cannot count the model: the operations of layer "
            f"`{profile.unknown[0]}` are unknown."
        )
    reason = convention.misfit(profile)
    if reason:
        raise InputError(f"Convention `{name}` does not apply to the model: {reason}.")
    return convention.count(profile)


def _misfit_of_plain(profile: Profile) -> str:
    """Shen et al. and DMS count chains and residual networks of plain convolutions."""
    for layer in profile.layers:
        if layer.kind in ("depthwise", "separable", "transposed", "concat") or layer.groups > 1:
            what = f"groups in layer `{layer.name}`" if layer.groups > 1 else f"`{layer.name}`"
            return f"it counts VGG and ResNet, without {what}; `bats` counts cells"
    return _misfit_without_convolutions(profile)


def _misfit_without_convolutions(profile: Profile) -> str:
    if not any(layer.kind == "conv" for layer in profile.layers):
        return "it counts convolutional networks, but the model has no convolution"
    return ""


def _misfit_of_bats(profile: Profile) -> str:
    if not _has(profile, *_MERGES) and not _has(profile, "concat"):
        return "it counts networks of cells and residual ones; `shen2019` and `dms` count VGG"
    return _misfit_without_convolutions(profile)


def _misfit_of_bnas(profile: Profile) -> str:
    if not _has(profile, "concat") or not any(layer.binary for layer in profile.layers):
        return "it counts networks of binary cells"
    return ""


def _shen2019(profile: Profile) -> dict[str, Any]:
    if _has(profile, *_MERGES):
        extra = sum(row.elements * ((row.kind == "norm") + row.relu) for row in profile.layers)
        extra += sum(row.taps * row.elements for row in profile.layers if "pool" in row.kind)
        extra += sum(row.elements for row in profile.layers if row.kind == "dense" and row.bias)
    else:
        extra = next(row.elements for row in profile.layers if row.kind == "conv")
    bits = sum(row.kernel_bits for row in profile.layers if row.kind in _WEIGHTED)
    return {"flops": _flops(profile.macs + extra, profile.binary_macs), "memory_bits": bits}


def _dms(profile: Profile) -> dict[str, Any]:
    bits = sum(row.kernel_bits for row in profile.layers if row.kind in _WEIGHTED)
    if not _has(profile, *_MERGES):
        bits += 32 * sum(row.shape[-1] for row in profile.layers if row.binary)
    return {"megabytes": bits / 8 / _MIB}


def _bats(profile: Profile) -> dict[str, Any]:
    parts = dict.fromkeys(("norm_flops", "relu_flops", "addition_flops", "pool_flops"), 0)
    for row in profile.layers:
        part, per_element = _BATS_OPERATIONS.get(row.kind, ("", _none))
        if part:
            parts[part] += per_element(row) * row.elements
        # Table 6's residual networks have ReLU where those that BATS binarizes have PReLU.
        relu = row.relu or (row.kind == "prelu" and not _has(profile, "concat"))
        parts["relu_flops"] += 2 * relu * row.elements
    flops = profile.macs + sum(parts.values())
    return {"flops": flops, "bops": profile.binary_macs, "macs": profile.macs, **parts}


def _none(row: LayerProfile) -> int:
    return 0


_BATS_OPERATIONS: Mapping[str, tuple[str, Callable[[LayerProfile], int]]] = {
    "norm": ("norm_flops", lambda row: 2),
    "add": ("addition_flops", lambda row: row.summands - 1),
    "max_pool": ("pool_flops", lambda row: row.taps - 1),
    "average_pool": ("pool_flops", lambda row: row.taps),
    "global_average_pool": ("pool_flops", lambda row: row.taps),
}


def _bnas(profile: Profile) -> dict[str, Any]:
    binary = [row.binary for row in profile.layers]
    first = binary.index(True)
    skips = sum(row.macs for row in profile.layers[first:] if row.kind == "conv")
    return {
        "flops": _flops(profile.macs - skips, profile.binary_macs + skips),
        "parameters": sum(row.trainable for row in profile.layers),
    }


@dataclass(frozen=True)
class Convention:
    """How a paper counts.

    # Arguments
        paper: the paper.
        formulas: the formula of each column.
        flatters: what the columns leave out, beside the honest figures.
        count: computes the columns.
        whole: whether the paper counts parts of a network that only zeros read.
        misfit: returns why a network cannot be counted so; empty if it can.
        settings: settings of a backbone that the paper's tables are of, by its name.
    """

    paper: str
    formulas: Mapping[str, str]
    flatters: str
    count: Callable[[Profile], dict[str, Any]] = field(repr=False)
    misfit: Callable[[Profile], str] = field(repr=False)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    whole: bool = False


CONVENTIONS: Mapping[str, Convention] = {
    "shen2019": Convention(
        "Shen et al. 2019, Tables 1 and 2",
        {
            "flops": "real MACs + binary MACs / 64; in a chain + 1 for each output of the first "
            "convolution (Table 1); in a residual network + 1 for each output of batch norm and "
            "ReLU, for each bias of the last layer, and for each number a pool reads (Table 2)",
            "memory_bits": "bits of the kernels; no bias, no batch norm",
        },
        "a binary MAC counts as 1/64 FLOP, whatever it takes on a device; batch norm takes no "
        "memory",
        _shen2019,
        _misfit_of_plain,
    ),
    "dms": Convention(
        "DMS, Table 1",
        {
            "megabytes": "bytes of the kernels / 2^20; in a chain + 4 for each binary output "
            "channel (its scale); no bias, no batch norm; ResNet-18 for ImageNet has a 3x3 first "
            "convolution"
        },
        "batch norm takes no memory, nor do scales in a ResNet",
        _dms,
        _misfit_of_plain,
        {"resnet18": {"stem_kernel": 3}},
    ),
    "bats": Convention(
        "BATS, Table 6",
        {
            "flops": "macs + norm_flops + relu_flops + addition_flops + pool_flops",
            "bops": "binary MACs",
            "macs": "real MACs",
            "norm_flops": "2 for each output of batch norm",
            "relu_flops": "2 for each output of ReLU, and of PReLU in a residual network, where "
            "those of Table 6 have ReLU; 0 of PReLU in cells",
            "addition_flops": "1 for each number that is added",
            "pool_flops": "for each output k^2 - 1 of a k x k max-pool, k^2 of an average pool, "
            "height x width of the global one",
        },
        "FLOPs and BOPs stand side by side; PReLU in cells and scales of binary convolutions are "
        "free",
        _bats,
        _misfit_of_bats,
        {name: {"binarization": "bats"} for name in ("resnet18", "resnet18_cifar")},
    ),
    "bnas": Convention(
        "BNAS v2, Table 2",
        {
            "flops": "MACs of the stem and the last layer + MACs of all other convolutions / 64, "
            "binary or not",
            "parameters": "trainable weights before deployment, those too that only zeros read",
        },
        "the convolutions of the skips between cells are real, but count as binary",
        _bnas,
        _misfit_of_bnas,
        whole=True,
    ),
}
"""How papers count, by name: see `by_convention`."""


def _has(profile: Profile, *kinds: str) -> bool:
    return any(row.kind in kinds for row in profile.layers)


def _flops(real: int, binary: int) -> int | float:
    flops = real + binary / 64
    return int(flops) if flops == int(flops) else flops


_RATIOS = {"shen2019": ("flops", "speedup"), "dms": ("megabytes", "saving")}


class _Whole(Fix):
    """Answers with the chosen operations, and keeps what only a zero reads."""

    def _zero(self, x: tf.Tensor, operations: Operations, prefix: str) -> list[tf.Tensor]:
        return [zeros(x, operations, prefix, reads=x)]


def columns(
    convention: str, architecture: Architecture, space: Space, input_shape: ImageShape, classes: int
) -> dict[str, float]:
    """Return a paper's columns for a network, in the form that the paper counts.

    Where the paper compares with the float twin, its column over this one is there too: the
    speedup, or the saving in memory.
    """
    counts = CONVENTIONS[convention]
    space = resolve(space, counts.settings.get(space.name))
    choose = _Whole(architecture.choices) if counts.whole else Fix(architecture.choices)
    found = by_convention(convention, profile(space.build(choose, input_shape, classes)))
    if isinstance(space, WidthSpace) and convention in _RATIOS:
        twin = resolve(space, {"precision": "real", "expansion": 1})
        model = twin.build(Fix({}), input_shape, classes)
        of_twin = by_convention(convention, profile(model))
        column, name = _RATIOS[convention]
        found[name] = of_twin[column] / found[column]
    return found
