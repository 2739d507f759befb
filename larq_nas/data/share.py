"""Share of images that is held out to validate on."""

import hashlib

import numpy as np

from larq_nas.errors import InputError


def hash_images(images: np.ndarray) -> np.ndarray:
    """Return a number for each image, the same for copies of one."""
    digests = [hashlib.sha256(row.data).digest()[:8] for row in np.ascontiguousarray(images)]
    return np.frombuffer(b"".join(digests), dtype="<u8")


def hold_out(
    labels: np.ndarray, copies: np.ndarray, share: float, generator: np.random.Generator
) -> np.ndarray:
    """Return which images are held out: a share of each class, all copies of one or none.

    A class has images on both sides, unless it has one of its own, which is not held out.

    # Arguments
        labels: label of each image, or a number for each class.
        copies: a number for each image, the same for copies of one.
        share: share of each class, of its different images.
        generator: what draws them.

    # Raises
        InputError: if each class has one image, or all of one go with copies in other classes.
    """
    if labels.ndim == 2:
        labels = labels.argmax(axis=1)
    names, classes = np.unique(labels, return_inverse=True)
    _, first, copy = np.unique(copies, return_index=True, return_inverse=True)
    class_of_copies = classes[first[copy]]
    held_out = np.zeros(len(labels), bool)
    for index in range(len(names)):
        members = np.flatnonzero(classes == index)
        # An image of two classes is on the side that the first draws.
        own = members[class_of_copies[members] == index]
        own = own if len(own) else members
        originals = np.unique(copies[own])
        # Copies of one image alone are on both sides.
        drawn, among = (originals, copies) if len(originals) > 1 else (own, np.arange(len(labels)))
        count = min(max(1, round(share * len(drawn))), len(drawn) - 1)
        held_out |= np.isin(among, generator.permutation(drawn)[:count])
    if not held_out.any():
        raise InputError(
            f"A share of {share:g} to validate on must hold out some images, but each class has "
            "one: give validation data."
        )
    left_out = np.setdiff1d(names, names[classes[~held_out]])
    if len(left_out):
        name = left_out[0]
        raise InputError(
            f"A share of {share:g} to validate on leaves no image of class "
            f"{name.decode('utf-8', 'replace') if isinstance(name, bytes) else name} to train on: "
            "all of its images are copies of such in other classes, which are held out; mend the "
            "labels, or leave the class out."
        )
    return held_out
