"""Which workers are heard of, and what those had that are not."""

import time
from collections import Counter
from collections.abc import Mapping

__all__ = ["LiveWorkers", "Watch"]


class LiveWorkers(set[str]):
    """Names of workers; one that was not heard of for long no longer counts.

    keras-tuner's chief ends when there are none left.

    # Arguments
        watch: knows when each was heard of.
    """

    def __init__(self, watch: "Watch") -> None:
        super().__init__()
        self._watch = watch

    def __len__(self) -> int:
        return sum(not self._watch.is_lost(name) for name in self)

    def remove(self, name: str) -> None:
        # Asked again, a worker that was told to stop is told again.
        self.discard(name)


class Watch:
    """Remembers when workers were heard of.

    # Arguments
        timeout: seconds after which a silent worker is lost; `None` for never.
    """

    def __init__(self, timeout: float | None) -> None:
        self.timeout = timeout
        self._heard: dict[str, float] = {}
        self.losses: Counter[str] = Counter()

    def hear(self, name: str) -> None:
        """Note that a worker is there."""
        self._heard[name] = time.monotonic()

    def is_lost(self, name: str) -> bool:
        """Return whether a worker was silent for too long; a new name is heard of now."""
        heard = self._heard.setdefault(name, time.monotonic())
        return self.timeout is not None and time.monotonic() - heard > self.timeout

    def lost(self, holders: Mapping[str, str]) -> dict[str, str]:
        """Return those of `holders` that are lost, with what they hold, and count it.

        # Arguments
            holders: the trial that each worker has.
        """
        found = {name: trial for name, trial in holders.items() if self.is_lost(name)}
        self.losses.update(found.values())
        return found
