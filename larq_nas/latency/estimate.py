"""Estimates what an operation takes that was not measured, from those that were."""

from collections.abc import Mapping

import numpy as np
from scipy.optimize import nnls

from larq_nas.latency.signature import Signature

__all__ = ["Estimate"]

_ENOUGH = 3


class Estimate:
    """Time by work: a call, the bytes moved, and the steps computed each take their time.

    The three rates are fitted to what was measured of the operation's kind, or of all kinds
    where that is too little. They are not negative, and what counts is the relative error.

    # Arguments
        measured: microseconds of each operation that was measured.
    """

    def __init__(self, measured: Mapping[Signature, float]) -> None:
        self._measured = measured
        self._rates: dict[tuple[str, int], np.ndarray] = {}

    def __call__(self, signature: Signature) -> float:
        """Return about how many microseconds an operation takes."""
        return float(_work(signature) @ self._of(signature))

    def _of(self, signature: Signature) -> np.ndarray:
        taps = _taps(signature)
        key = signature.kind, taps
        if key not in self._rates:
            kind = [one for one in self._measured if one.kind == signature.kind]
            alike = [one for one in kind if _taps(one) == taps]
            groups = (alike, kind, list(self._measured))
            used = next((group for group in groups if len(group) >= _ENOUGH), groups[-1])
            times = np.array([self._measured[one] for one in used])
            work = np.array([_work(one) for one in used])
            self._rates[key] = nnls(work / times[:, np.newaxis], np.ones(len(times)))[0]
        return self._rates[key]


def _work(signature: Signature) -> np.ndarray:
    # In thousands and millions: about as much of each, which keeps the fit well conditioned.
    return np.array([1.0, signature.moved / 1e3, signature.steps / 1e6])


def _taps(signature: Signature) -> int:
    return signature.kernel[0] * signature.kernel[1] if signature.kernel else 1
