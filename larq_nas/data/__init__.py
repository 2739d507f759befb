"""Validated data, shuffled streams, augmentation and data sets."""
