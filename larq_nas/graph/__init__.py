"""Keras networks read as graphs of layer calls."""
