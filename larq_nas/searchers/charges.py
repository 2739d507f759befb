"""What the widths of a dimension search are charged for."""

import warnings

from larq_nas.choosers import Survey
from larq_nas.cost import LATENCY, Budget, Limits, SpaceCosts, by_convention, profile
from larq_nas.cost.budget import BUDGETS
from larq_nas.dimension import BudgetHinge, Dimensions, MemoryHinge, megabytes
from larq_nas.errors import InputError, callers_level
from larq_nas.pipeline.check import DataFacts
from larq_nas.spaces import Space
from larq_nas.training.levels import Term

__all__ = ["budget_hinge", "memory_hinge"]


def memory_hinge(
    space: Space,
    costs: SpaceCosts,
    facts: DataFacts,
    dimensions: Dimensions,
    target: float,
    weight: float,
) -> Term:
    """Return the penalty of DMS, or raise `InputError` if the paper cannot count the network.

    # Arguments
        space: the space.
        costs: its costs.
        facts: the images and classes.
        dimensions: the widths.
        target: memory above which they are charged, in MiB.
        weight: loss for each MiB.
    """
    try:
        by_convention("dms", profile(space.build(Survey(), facts.input_shape, facts.classes)))
    except InputError as error:
        raise InputError(f"`memory_target` cannot be used, but `max_memory` can: {error}") from None
    structure = costs.structure({})
    smallest = megabytes(structure, dimensions.smallest())
    if smallest > target:
        raise InputError(
            f"`memory_target` must be at least {smallest:.4f} MiB, of the smallest network "
            f"(`least_mean`), but got {target}."
        )
    return MemoryHinge(structure, dimensions, target, weight)


def budget_hinge(limits: Limits, dimensions: Dimensions, weight: float) -> Term | None:
    """Return the penalty for a budget; `None` if no limit of it can be charged for.

    # Arguments
        limits: the budget, and the costs of the space.
        dimensions: the widths.
        weight: loss for each limit that is exceeded by its own size.
    """
    smooth = {name: most for name, most in limits.budget.limits.items() if BUDGETS[name] != LATENCY}
    if len(smooth) < len(limits.budget.limits):
        warnings.warn(
            "Widths do not learn by `max_latency`, which a table knows at some widths alone: the "
            "widths found are narrowed until they keep to it.",
            stacklevel=callers_level(),
        )
    if not smooth:
        return None
    return BudgetHinge(Budget(smooth), limits.costs.structure({}), dimensions, weight)
