"""Costs as a table for a reader."""

from typing import Any

from terminaltables import AsciiTable

from larq_nas.cost.profile import LayerProfile, Profile

__all__ = ["table"]


def table(profile: Profile) -> str:
    """Return the costs of a network as text: a row for each layer, and the totals.

    # Arguments
        profile: what the network costs.
    """
    bits = list(profile.parameters)
    header = ["layer", "output", *(f"{n}-bit weights" for n in bits), "memory", "MACs"]
    rows = [_cells(row, bits) for row in profile.layers if _counts(row)]
    total = [
        "total",
        "",
        *(f"{profile.parameters[n]:,}" for n in bits),
        size(profile.weight_bits / 8),
        f"{profile.macs:,}",
        f"{profile.binary_macs:,}",
        "",
    ]
    grid = AsciiTable([[*header, "binary MACs", "runs in"], *rows, total])
    grid.inner_footing_row_border = True
    for column in range(2, len(total) - 1):
        grid.justify_columns[column] = "right"
    return "\n".join([grid.table, *_lines(profile)])


def size(number: float) -> str:
    """Return a number of bytes with its unit: 1 KB is 1,000 bytes."""
    for unit, one in (("MB", 1e6), ("KB", 1e3)):
        if number >= one:
            return f"{number / one:,.2f} {unit}"
    return f"{number:,.0f} B"


def _counts(row: LayerProfile) -> bool:
    return bool(row.macs or row.binary_macs or row.parameters or row.kind == "unknown")


def _cells(row: LayerProfile, bits: list[int]) -> list[Any]:
    if row.kind == "unknown":
        runs = "unknown"
    elif not row.macs and not row.binary_macs:
        runs = ""
    else:
        runs = "binary" if row.binary and not row.fallback else "float"
    macs = "?" if row.kind == "unknown" else f"{row.macs:,}"
    return [
        row.name,
        "x".join(map(str, row.shape)),
        *(f"{row.parameters.get(n, 0):,}" for n in bits),
        size(row.weight_bits / 8),
        macs,
        f"{row.binary_macs:,}",
        runs,
    ]


def _lines(profile: Profile) -> list[str]:
    deployed, defined = profile.deployed_binary_macs, profile.binary_macs
    least = "at least" if profile.least else "about"
    lines = [
        f"flatbuffer, once trained: {least} {size(profile.flatbuffer_bytes)} in "
        f"{profile.operations:,} operations",
        f"activations of one image: {size(profile.activation_bytes)} at most at once "
        f"(float twin: {size(profile.float_activation_bytes)})",
    ]
    if defined:
        lines.append(
            f"binary MACs that Larq Compute Engine runs in binary: {deployed / defined:.1%}"
        )
    lines += [
        f"{row.name}: binary, but will run in float: {row.fallback}" for row in profile.fallbacks
    ]
    padded = sum(row.zero_padding for row in profile.layers)
    if padded:
        lines.append(
            f"{padded} binary layers pad with zeros, Larq's default: what follows is not fused "
            "into them; with pad_values=1 the file is smaller"
        )
    if any(row.groups > 1 and row.binary for row in profile.layers):
        lines.append("each group of a binary convolution is a convolution of its own in the file")
    if profile.unknown:
        lines.append(
            f"not counted: multiply-accumulates of {', '.join(profile.unknown)} (unknown layers; "
            "their weights are counted)"
        )
    return lines
