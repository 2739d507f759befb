"""A function that is called again and again while a block runs."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def heartbeat(function: Callable[[], object], seconds: float) -> Iterator[None]:
    """Call a function every so many seconds while a block runs."""
    ended = threading.Event()

    def call() -> None:
        while not ended.wait(seconds):
            function()

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
