"""Architecture search for binary neural networks, on Keras and Larq."""

from larq_nas._environment import prepare

prepare()

from larq_nas import (  # noqa: E402
    cost,
    errors,
    latency,
    layers,
    methods,
    quantizers,
    searchers,
    spaces,
    supernet,
    training,
)
from larq_nas.architecture import Architecture  # noqa: E402
from larq_nas.compare import compare  # noqa: E402
from larq_nas.data import datasets  # noqa: E402
from larq_nas.deploy import Conversion, convert  # noqa: E402
from larq_nas.report.report import report  # noqa: E402
from larq_nas.result import Result, load  # noqa: E402
from larq_nas.search import search  # noqa: E402
from larq_nas.select import derive  # noqa: E402
from larq_nas.train import train  # noqa: E402

__all__ = [
    "Architecture",
    "Conversion",
    "Result",
    "compare",
    "convert",
    "cost",
    "datasets",
    "derive",
    "errors",
    "latency",
    "layers",
    "load",
    "methods",
    "quantizers",
    "report",
    "search",
    "searchers",
    "spaces",
    "supernet",
    "train",
    "training",
]
__version__ = "0.1.0"
