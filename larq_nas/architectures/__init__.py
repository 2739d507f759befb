"""Published architectures: the papers' cells, by name."""

from larq_nas.architecture import Architecture

__all__ = ["get", "names"]


def names() -> list[str]:
    """Return the name of each published architecture.

    !!! example
        ```python
        larq_nas.architectures.names()  # ["amoebanet_a", "bats", "bats_imagenet", ...]
        ```
    """
    return Architecture.published_names()


def get(name: str) -> Architecture:
    """Return a published architecture, in the settings of its paper.

    !!! example
        ```python
        model = larq_nas.architectures.get("bats").build((32, 32, 3), classes=10)
        small = larq_nas.architectures.get("bats").with_settings(cells=5, channels=24)
        ```

    # Arguments
        name: one of `larq_nas.architectures.names()`.

    # Raises
        InputError: if there is none of that name.
    """
    return Architecture.published(name)
