"""What a differentiable search is put together of, as its settings say."""

from typing import Any

import tensorflow as tf

from larq_nas.choosers import Relax
from larq_nas.errors import InputError
from larq_nas.searchers.objective import Diversity
from larq_nas.searchers.penalty import BudgetPenalty
from larq_nas.task import Task
from larq_nas.training.levels import Term
from larq_nas.training.optimizers import learning_rate, optimizer

__all__ = ["added_terms", "require_betas", "warm_up_epochs", "weight_optimizer"]


def require_betas(betas: Any) -> None:
    """Raise `InputError` for decay rates that Adam cannot have."""
    if betas is None:
        return
    pair = isinstance(betas, tuple | list) and len(betas) == 2
    if not pair or not all(isinstance(b, int | float) and 0 <= b < 1 for b in betas):
        raise InputError(
            f"`architecture_betas` must be two numbers from 0 to below 1, but got {betas!r}."
        )


def warm_up_epochs(warm_up: int | None, epochs: int) -> int:
    """Return the epochs that train the weights alone: by default two fifths, as BATS does."""
    if warm_up is None:
        return 2 * epochs // 5
    if warm_up >= epochs:
        raise InputError(
            f"`weights_only_epochs` must be below `epochs`, but got {warm_up} of {epochs}."
        )
    return warm_up


def added_terms(settings: Any, choose: Relax, task: Task) -> dict[str, Term]:
    """Return what is added to the loss of the architecture parameters, by its name."""
    terms: dict[str, Term] = {}
    if task.limits:
        terms["budget_penalty"] = BudgetPenalty(
            task.limits, choose.mixtures, settings.budget_weight, settings.transfer_factor
        )
    if settings.diversity:
        terms["diversity"] = Diversity(
            list(choose.mixtures.values()), settings.diversity, settings.diversity_annealing
        )
    return terms


def weight_optimizer(settings: Any, steps: int) -> tf.keras.optimizers.Optimizer:
    """Return the optimizer of the weights, for so many steps."""
    rate, last = settings.learning_rate, settings.final_learning_rate
    if last is not None:
        rate = learning_rate("cosine", rate, steps, last=last)
    return optimizer(settings.optimizer, rate)
