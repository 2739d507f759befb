"""Plots of searches and comparisons."""
