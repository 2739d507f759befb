"""The result of a conversion: the flatbuffer and the evidence for it."""

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from larq_nas.deploy.audit import Audit, LayerAudit
from larq_nas.deploy.int8.report import Int8Report
from larq_nas.deploy.integers import Integers, IntegerTensor
from larq_nas.deploy.parity import Parity, kernel_lines
from larq_nas.errors import InputError
from larq_nas.files import write_atomically
from larq_nas.report.notebook import preformatted

_SHOWN = 3
# The layers that a reason begins with, if it does, and the reason.
_NAMES = re.compile(r"((?:`[^`]*`(?:, )?)*)(.*)", re.DOTALL)


@dataclass(frozen=True)
class Conversion:
    """A model that Larq Compute Engine runs, and the evidence for it.

    # Arguments
        flatbuffer: the bytes of the `.tflite` file.
        audit: which layer became which operation.
        parity: the comparison with Keras, for each kernel; with int8 that with fake-quant.
        rewrites: what was computed in another way than the layers say, and why; exact.
        warnings: what works, but probably not as it was meant.
        weights: a digest of the weights that were converted.
        int8: what int8 costs and saves, if layers run in it.
        integers: what integer inputs and outputs stand for, if there are any.
    """

    flatbuffer: bytes = field(repr=False)
    audit: Audit
    parity: Sequence[Parity]
    rewrites: Sequence[str] = ()
    warnings: Sequence[str] = ()
    weights: str = ""
    int8: Int8Report | None = None
    integers: Integers | None = None

    @property
    def kernels(self) -> list[str]:
        """The kernels that were compared."""
        return [result.kernel for result in self.parity]

    def save(self, path: str | Path) -> None:
        """Write the flatbuffer to `path`, whole or not at all."""
        try:
            write_atomically(path, self.flatbuffer)
        except OSError as error:
            raise InputError(f"Cannot write `{path}`: {error.strerror}.") from None

    @classmethod
    def from_summary(cls, flatbuffer: bytes, summary: Mapping[str, Any]) -> "Conversion":
        """Return a conversion of which the summary was kept, without what rounding alone does."""
        return cls(
            flatbuffer,
            _audit(summary),
            _parity(summary),
            summary.get("rewrites", []),
            summary.get("warnings", []),
            summary.get("weights", ""),
            Int8Report(**summary["int8"]) if summary.get("int8") else None,
            _integers(summary["integers"]) if summary.get("integers") else None,
        )

    def summary(self) -> dict[str, Any]:
        """Return the figures as a dictionary for JSON."""
        return {
            "bytes": len(self.flatbuffer),
            "audit": dataclasses.asdict(self.audit),
            "parity": [dataclasses.asdict(result) for result in self.parity],
            "rewrites": list(self.rewrites),
            "warnings": list(self.warnings),
            "weights": self.weights,
            "int8": dataclasses.asdict(self.int8) if self.int8 else None,
            "integers": dataclasses.asdict(self.integers) if self.integers else None,
        }

    def __str__(self) -> str:
        return summarize(self.summary())

    def _repr_html_(self) -> str:
        return preformatted(self)


def digest(model: tf.keras.Model) -> str:
    """Return a digest of the weights of `model`, which other weights do not have."""
    hashed = hashlib.sha256()
    for weight in model.weights:
        hashed.update(str(weight.shape).encode())
        hashed.update(np.ascontiguousarray(weight.numpy()).tobytes())
    return hashed.hexdigest()


def summarize(summary: dict[str, Any]) -> str:
    """Return the figures of a `Conversion.summary`, read from JSON or not, for a reader."""
    kernels = kernel_lines(_parity(summary))
    lines = [f"flatbuffer: {summary['bytes']:,} bytes", _audit(summary), *kernels]
    lines += [Int8Report(**summary["int8"])] if summary.get("int8") else []
    lines += [_integers(summary["integers"])] if summary.get("integers") else []
    lines += _rewritten(summary.get("rewrites", []))
    lines += [f"warning: {warning}" for warning in summary.get("warnings", [])]
    return "\n".join(map(str, lines))


def _audit(summary: Mapping[str, Any]) -> Audit:
    rows = [LayerAudit(**row) for row in summary["audit"]["layers"]]
    return Audit(rows, summary["audit"]["operations"])


def _parity(summary: Mapping[str, Any]) -> list[Parity]:
    return [Parity(**{**result, "rounding": None}) for result in summary["parity"]]


def _rewritten(reasons: Sequence[str]) -> list[str]:
    """Return what was rewritten, with one line for all layers of the same reason."""
    layers: dict[str, list[str]] = {}
    for reason in reasons:
        names, why = _NAMES.match(reason).groups()  # type: ignore[union-attr]
        layers.setdefault(why, []).append(names)
    return [
        f"rewritten, exactly: {', '.join(names[:_SHOWN])}"
        f"{f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''}{why}"
        for why, names in layers.items()
    ]


def _integers(figures: dict[str, Any]) -> Integers:
    tensors = {
        side: [IntegerTensor(**one) for one in figures[side]] for side in ("inputs", "outputs")
    }
    return Integers(**{**figures, **tensors})
