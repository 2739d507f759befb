"""Architecture search for binary neural networks, on Keras and Larq."""

from larq_nas._environment import prepare

prepare()

from larq_nas import choosers, cost, datasets, errors, layers, searchers, spaces, training  # noqa: E402
from larq_nas.architecture import Architecture  # noqa: E402
from larq_nas.deploy import Conversion, convert  # noqa: E402
from larq_nas.search import search  # noqa: E402

__all__ = [
    "Architecture",
    "Conversion",
    "choosers",
    "convert",
    "cost",
    "datasets",
    "errors",
    "layers",
    "search",
    "searchers",
    "spaces",
    "training",
]
__version__ = "0.1.0"
