"""Networks that an evolution begins with: given ones, uniform ones, and what its space has."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from larq_nas.architecture import Architecture
from larq_nas.choices import Depth, Value, all_alive
from larq_nas.cost import Limits, SpaceCosts
from larq_nas.errors import InputError, first_line, warn
from larq_nas.searchers.evolution.generation import Candidate, Genes
from larq_nas.spaces import Space
from larq_nas.spaces.space import is_built_in


def initial_candidates(
    initial: tuple[str | Path | Architecture, ...],
    space: Space,
    costs: SpaceCosts,
    genes: Genes,
    limits: Limits | None,
    with_own: bool,
) -> tuple[Candidate, ...]:
    """Return different candidates to begin with, those over the budget left out.

    # Arguments
        initial: what `read_initial` returned.
        space: the space.
        costs: its costs.
        genes: its genes.
        limits: the budget.
        with_own: whether ratio 1, or the published cells of the space, are among them.

    # Raises
        InputError: for what is no network of the space.
    """
    given: dict[str, Mapping[str, Value]] = {}
    for one in initial:
        told = one.space if isinstance(one, Architecture) else str(one)
        given[f"{told} ({len(given) + 1} of `initial`)"] = _values_of(one, space, costs)
    if with_own:
        own = _own(space, costs).items()
        given |= {f"{name} of `{space.name}`": values for name, values in own}
    found: dict[str, Candidate] = {}
    for told, values in given.items():
        _require_network(told, values, costs)
        _require_narrower(told, values, costs)
        if limits and not limits.allow(values):
            warn(
                f"{told[0].upper()}{told[1:]} is over the budget, and no candidate: it needs "
                f"{limits.budget.describe(limits.costs.exact(values))}."
            )
            continue
        found.setdefault(costs.identity(values), genes.candidate(values))
    return tuple(found.values())


_UNIFORM = "uniform"


def read_initial(initial: object) -> tuple[str | Architecture, ...]:
    """Return what files and runs hold, and texts of uniform networks as they are."""
    if not isinstance(initial, tuple | list):
        raise InputError(
            '`initial` must be a list of architectures, files, runs or texts such as "uniform", '
            f"but got {initial!r}."
        )
    found: list[str | Architecture] = []
    for one in initial:
        folder = Path(one).expanduser() if isinstance(one, str | Path) else None
        if isinstance(one, str) and one.partition(":")[0] == _UNIFORM:
            _uniform_ratio(one)
            found.append(one)
        elif folder is not None and folder.is_dir() and (folder / "front.csv").exists():
            found += [Architecture.load(path) for path in sorted(folder.glob("*.json"))]
        elif isinstance(one, str | Path | Architecture):
            found.append(Architecture.read(one))
        else:
            raise InputError(
                "`initial` must hold architectures, files, runs or texts such as "
                f'"uniform:0.5", but got {one!r}.'
            )
    return tuple(found)


def _uniform_ratio(text: str) -> float:
    """Return the ratio of `"uniform:0.5"`, which is 1 without one."""
    _, _, ratio = text.partition(":")
    try:
        number = float(ratio or 1)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise InputError(f'`initial` must hold texts such as "uniform:0.5", but got {text!r}.')
    return number


def plain_values(costs: SpaceCosts) -> dict[str, Value]:
    """Return the first operation of each choice, and all blocks of each row."""
    found: dict[str, Value] = {}
    for name, choice in costs.choices.items():
        is_depth = isinstance(choice, Depth)
        pairs = [(choice.operations[-1], 0)] if is_depth else choice.any()
        found[name] = choice.encode(pairs)
    return found


def _values_of(one: str | Path | Architecture, space: Space, costs: SpaceCosts) -> dict[str, Value]:
    """Return the values of one of `initial`, or raise `InputError` if it is of another space."""
    if not isinstance(one, Architecture):
        ratio = _uniform_ratio(str(one))
        if not costs.expansions:
            raise InputError(
                f"`initial` holds {one!r}, but space `{space.name}` chooses no widths: name a "
                "published architecture or a file."
            )
        return {**plain_values(costs), **dict.fromkeys(costs.expansions, ratio)}
    try:
        if one.space != space.name:
            raise InputError(f"it is of space `{one.space}`")
        costs.decode(one.choices)
    except InputError as error:
        raise InputError(
            f"`initial` must hold networks of space `{space.name}` in its settings, but of one: "
            f"{first_line(error)}"
        ) from None
    return dict(one.choices)


def _own(space: Space, costs: SpaceCosts) -> dict[str, dict[str, Value]]:
    """Return what a user would take without a search: ratio 1, or the published cells."""
    if not costs.choices:
        is_there = all(asked.width(1) in asked.options for asked in costs.expansions.values())
        return {"ratio 1": dict.fromkeys(costs.expansions, 1.0)} if is_there else {}
    found = {}
    if is_built_in(space) and space.name in Architecture.published_names():
        published = Architecture.published(space.name).choices
        try:
            costs.decode(published)
            found["the published architecture"] = dict(published)
        except InputError:
            pass  # of other operations or nodes than these settings have
    return found


def _require_network(told: str, values: Mapping[str, Value], costs: SpaceCosts) -> None:
    """Raise `InputError` for operations that no network has, and a cell that computes nothing."""
    chosen, _ = costs.decode(values)
    for name, pairs in chosen.items():
        for operation, _ in pairs:
            if operation not in costs.choices[name].eligible:
                raise InputError(
                    f"{told}: choice `{name}` has `{operation}`, which no network of the space "
                    f"has: give it one of {', '.join(costs.choices[name].eligible)}."
                )
    if not all_alive(costs.cells, costs.choices, chosen):
        raise InputError(f"{told}: a cell of it is zero on every path, and computes nothing.")


def _require_narrower(told: str, values: Mapping[str, Value], costs: SpaceCosts) -> None:
    """Raise `InputError` for a width that the widest network has no weights for."""
    if costs.choices:
        return
    for name, asked in costs.expansions.items():
        ratio: Any = values[name]
        if asked.width(ratio) > max(asked.options):
            raise InputError(
                f"{told}: choice `{name}` has ratio {ratio:g}, above the largest of the space, "
                f"{max(asked.ratios):g}, whose weights candidates inherit: add it to `ratios`."
            )
