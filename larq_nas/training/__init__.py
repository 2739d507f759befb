"""How a network is trained, and a fit loop that resumes."""

from larq_nas.training.recipe import Recipe
from larq_nas.training.recipes import RECIPES

__all__ = ["RECIPES", "Recipe"]
