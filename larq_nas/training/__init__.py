"""How a network is trained, and a fit loop that resumes."""

from larq_nas.training.recipe import RECIPES, Recipe

__all__ = ["RECIPES", "Recipe"]
