"""Predictions of what Larq Compute Engine's converter makes of a network."""
