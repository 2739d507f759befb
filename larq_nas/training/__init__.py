"""Recipes, the trainer that runs them, and a fit loop that resumes."""

from larq_nas.training.recipe import Recipe, Stage

__all__ = ["Recipe", "Stage"]
