"""Differentiable search: architecture parameters learned with the weights of a supernet."""
