"""A worker's line to the chief, which may be killed and come back."""

import sys
import time
from collections.abc import Callable
from typing import Any

import grpc

from larq_nas.errors import LarqNasError
from larq_nas.tuning.keras_tuner import Trial, TrialStatus

__all__ = ["Patient"]

_CALL_SECONDS, _RETRY_SECONDS, _MOST_SECONDS = 20, 0.5, 3600
_PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


class Patient:
    """Calls keras-tuner's client again while the chief is away.

    Without it, a call that the chief's end interrupts counts as a candidate that failed. Every
    call may be repeated: a worker is given the trial it has, and a trial ends once.

    # Arguments
        client: keras-tuner's client.
        is_over: whether the search has ended, and the chief will not come back.
    """

    def __init__(self, client: Any, is_over: Callable[[], bool]) -> None:
        self._client = client
        self._is_over = is_over
        # keras-tuner lets each call wait for an hour, whether or not the chief has left for good.
        sys.modules[type(client).__module__].TIMEOUT = _CALL_SECONDS  # type: ignore[attr-defined]

    def create_trial(self, tuner_id: str) -> Trial:
        """Return the next trial; one that says to stop if the search has ended."""
        stopped = Trial(None, "none", TrialStatus.STOPPED)
        return self._call(self._client.create_trial, tuner_id, over=stopped)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if not callable(found):
            return found
        return lambda *args, **kwargs: self._call(found, *args, **kwargs)

    def _call(self, method: Callable[..., Any], *args: Any, over: Any = None, **kwargs: Any) -> Any:
        started = time.monotonic()
        while True:
            try:
                return method(*args, **kwargs)
            except grpc.RpcError as error:
                if error.code() not in _PASSING:
                    raise
            if self._is_over():
                return over
            if time.monotonic() - started > _MOST_SECONDS:
                raise LarqNasError(
                    f"The chief was away for {_MOST_SECONDS} s: start it again with the same "
                    "command, and then this worker."
                )
            time.sleep(_RETRY_SECONDS)
