"""Differentiable search of widths (DMS): the mean of each width is learned."""
