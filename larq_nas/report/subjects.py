"""What a report shows of a run, and of a comparison."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from larq_nas.architecture import Architecture
from larq_nas.choices import expand
from larq_nas.cost import LATENCY
from larq_nas.cost.profile import size
from larq_nas.errors import InputError, first_line
from larq_nas.files import read_table
from larq_nas.methods import SEARCHERS
from larq_nas.report.charts import (
    Section,
    bars,
    checked,
    dots,
    is_finite,
    lines,
    thinned,
)
from larq_nas.report.drawing import draw_cell, draw_chain
from larq_nas.run_directory import RunDirectory, read_record
from larq_nas.searchers import Searcher
from larq_nas.training.callbacks import duration

__all__ = ["COST_LABELS", "Subject", "number_text", "read"]

_COMPARISON = "comparison.json"
_PARTS = {"train": "training"}
_DAMAGES = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError)
_Part = TypeVar("_Part")
_SCORES = {
    "accuracy": ("accuracy", "search_accuracy", "val_accuracy"),
    "loss": ("loss", "search_loss", "val_loss"),
}
_FIGURES: tuple[str, ...] = (
    "accuracy",
    "top5_accuracy",
    "loss",
    "test_accuracy",
    "test_loss",
    "bytes",
    "metrics",
    "costs",
    "budget",
)
COST_LABELS = {
    "parameters": "parameters",
    "weight_bytes": "bytes of weights",
    "activation_bytes": "bytes of activations at once",
    "binary_macs": "binary MACs",
    "macs": "real MACs",
}


@dataclass(frozen=True)
class Subject:
    """What a report shows of a run or a comparison."""

    path: Path
    status: str
    figures: Mapping[str, Any] = field(default_factory=dict)
    sections: Sequence[Section] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[Mapping[str, Any]] = ()
    warnings: Sequence[str] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    summary: str = ""
    tiles: Sequence[tuple[str, str, str]] = ()

    @property
    def name(self) -> str:
        """Its directory as it was given, or the name of the one that the report is called in."""
        return str(self.path) if self.path.name.strip(".") else self.path.resolve().name

    @property
    def data(self) -> str:
        """What two runs must share for their accuracies to be compared: images and classes."""
        facts = _mapping(self.settings, "data")
        return json.dumps([facts.get(name) for name in ("validation_content", "classes")])


def read(path: Path, searcher: Searcher | None) -> Subject:
    """Return what a report shows of the run or comparison in a directory."""
    if (path / _COMPARISON).exists():
        return comparison(path)
    return RunReader(path, searcher).subject()


class RunReader:
    """Reads a run as far as it is; what is damaged is named, and the rest is shown."""

    def __init__(self, path: Path, searcher: Searcher | None) -> None:
        record = read_record(path)
        self.path = path
        self.settings: Mapping[str, Any] = record["settings"]
        self.start: Mapping[str, Any] = record["start"]
        self.directory = RunDirectory(path, self.settings)
        self.problems: list[str] = []
        self.result: Mapping[str, Any] = self._result(self.directory.result)
        self.architecture = self._architecture()
        self.history = self._rows(self.directory.history)
        self.seeds = self._rows(self.directory.seeds)
        self.retrained = self._rows(self.directory.retrained)
        self.searcher = self._searcher(searcher)

    def subject(self) -> Subject:
        """Return what a report shows of it."""
        parts = {
            self._network: "result.json",
            self._search: "what the search has left",
            self._training: "history.csv",
            self._baselines: "result.json",
            self._classes: "result.json",
            self._costs: "result.json",
            self._latency: "latencies.json",
            self._deployment: "result.json",
        }
        sections = [
            section for part, source in parts.items() for section in self._whole(part, source)
        ]
        tiles = self._whole(self._tiles, "result.json")
        summary = "".join(self._whole(self._summary, "settings.json"))
        kept = [*self.directory.read_warnings(), *(self.result.get("warnings") or ())]
        # This one is written.
        warned = [one for one in map(str, kept) if not one.startswith("No `report.html` was")]
        refused = [self.result["refused"]] if "refused" in self.result else []
        return Subject(
            self.path,
            self._status(),
            self._figures(),
            sections,
            self.settings,
            self.history,
            list(dict.fromkeys(map(str, [*self.problems, *refused, *warned]))),
            self.start,
            summary,
            tiles,
        )

    def _whole(self, part: Callable[[], list[_Part]], source: str) -> list[_Part]:
        """Return a part of the report; of a damaged file there is none."""
        try:
            return part()
        except Exception as error:  # noqa: BLE001 - whatever damage leads to
            cause = f": {error}" if isinstance(error, InputError) else ""
            self._damaged(source, cause)
            return []

    def _result(self, path: Path) -> Mapping[str, Any]:
        """Return `result.json`, if it is there and whole."""
        if not path.exists():
            return {}
        try:
            found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            numbers = [found["accuracy"], *(found["costs"][name] for name in COST_LABELS)]
            if not all(map(is_finite, [*numbers, found.get("bytes", 0)])):
                raise TypeError
        except (OSError, *_DAMAGES):
            self._damaged(path.name)
            return {}
        return found

    def _rows(self, path: Path) -> list[dict[str, Any]]:
        if not path.exists():
            return []
        try:
            rows = read_table(path)
            if path == self.directory.history:
                rows = [{**row, "epoch": int(row["epoch"]), "stage": row["stage"]} for row in rows]
            return rows
        except (InputError, *_DAMAGES):
            self._damaged(path.name)
            return []

    def _damaged(self, source: str, cause: str = "") -> None:
        again = "measure again" if source == "latencies.json" else "run the same call again"
        told = f"`{source}` is damaged, and left out here{cause or f': {again}.'}"
        if told not in self.problems:
            self.problems.append(told)

    def _architecture(self) -> Architecture | None:
        if not self.directory.architecture.exists():
            return None
        try:
            return Architecture.load(self.directory.architecture)
        except InputError:
            self._damaged(self.directory.architecture.name)
            return None

    def _searcher(self, given: Searcher | None) -> Searcher | None:
        name = str(_mapping(self.settings, "searcher").get("name", ""))
        if name and given is not None and (name == given.name or name not in SEARCHERS):
            return given
        if name and name not in SEARCHERS:
            self.problems.append(
                f"Searcher `{name}` is not one of larq_nas: give it as `searcher` to show its part."
            )
        return SEARCHERS[name]() if name in SEARCHERS else None

    def _figures(self) -> dict[str, Any]:
        """Return the figures of `result.json` that a report shows, by their names there."""
        return {name: self.result[name] for name in _FIGURES if name in self.result}

    def _status(self) -> str:
        if "refused" in self.result:
            return "trained, not converted"
        if self.result:
            return "finished"
        when = datetime.fromtimestamp(self._changed()).strftime("%Y-%m-%d %H:%M:%S")
        done = "has not ended an epoch"
        if self.history:
            last = self.history[-1]
            done = f"stage {last['stage']}, epoch {last['epoch']}"
        return f"not finished: {done}; last file written {when}"

    def _changed(self) -> float:
        """Return when the run has last written a file; reports are not of it."""
        found = 0.0
        for path in self.path.iterdir():
            if path.name != self.directory.report.name and not path.match(".*"):
                # What a run is writing may be moved meanwhile.
                with suppress(OSError):
                    found = max(found, path.stat().st_mtime)
        return found

    def _summary(self) -> list[str]:
        """Return what was found, in sentences for a colleague."""
        space = (_mapping(self.settings, "space") or _mapping(self.settings, "architecture")).get(
            "name", self.architecture.space if self.architecture else "of one's own"
        )
        found = "found" if "searcher" in self.settings else "trained"
        if not self.result:
            return [f"A network of space {space} is being {found}."]
        data = _mapping(self.settings, "data")
        images, classes = data.get("validation_examples"), data.get("classes")
        accuracy = self.result["accuracy"]
        told = (
            f"A network of space {space} was {found}{self._by()}. It classifies {accuracy:.2%} of "
            f"{number_text(images)} validation images correctly"
        )
        if images:
            # Of the binomial distribution: an accuracy is that of so many images.
            margin = 1.96 * math.sqrt(accuracy * (1 - accuracy) / images)
            points = f"{100 * margin:.1f} percentage points"
            told += f" (95 % margin for so many images: {points} more or less)"
        told += f"; chance is {1 / classes:.1%}." if classes else "."
        accuracies = self.result.get("class_accuracy") or {}
        if len(accuracies) > 1 and sorted(accuracies.values())[-2] == 0:
            name = max(accuracies, key=accuracies.__getitem__)
            told += f" It takes every image for class {name}: it has learned nothing."
        if "bytes" in self.result:
            told += f" Its .tflite has {number_text(self.result['bytes'])} bytes."
        took = self.directory.read_times()
        if took:
            parts = [f"the {_PARTS.get(p, p)} took {duration(s)}" for p, s in took.items()]
            told += f" {' and '.join(parts).capitalize()}."
        if "searcher" in self.settings:
            told += (
                " Whether it is better than random networks shows larq-nas compare RUN random:5."
            )
        return [told]

    def _by(self) -> str:
        """Return what found it, for how long and by which seed."""
        searcher, seed = self.settings.get("searcher"), self.settings.get("seed")
        if not searcher:
            return "" if seed is None else f" (seed {seed})"
        epochs = self.settings.get("epochs")
        return f" by searcher {searcher.get('name')} (epochs {epochs}, seed {seed})"

    def _tiles(self) -> list[tuple[str, str, str]]:
        """Return the figures at the top: what each is, its value and a remark."""
        result = self.result
        if not result:
            return []
        top5 = f"top-5 {result['top5_accuracy']:.2%}" if result.get("top5_accuracy") else ""
        tiles = [("accuracy on validation data", f"{result['accuracy']:.2%}", top5)]
        if "test_accuracy" in result:
            images = _mapping(self.settings, "test").get("examples")
            remark = f"{number_text(images)} images, measured once"
            tiles.append(("accuracy on test data", f"{result['test_accuracy']:.2%}", remark))
        tiles += self._whole(self._tile_of_seeds, "seeds.csv")
        if "bytes" in result:
            tiles.append((".tflite", size(result["bytes"]), f"{result['bytes']:,} bytes"))
        costs = result.get("costs", {})
        if "binary_macs" in costs:
            real = f"{costs['macs']:,} real"
            tiles.append(("binary MACs of an image", _short(costs["binary_macs"]), real))
        if LATENCY in costs:
            device = result.get("device", "the device of the latency table")
            tiles.append(("latency, predicted", f"{costs[LATENCY] / 1000:.3g} ms", device))
        tiles += self._whole(self._tiles_of_latency, "latencies.json")
        if result.get("budget") and "bytes" in result:
            used = {**costs, "flatbuffer_bytes": result["bytes"]}
            for name, limit in result["budget"].items():
                told = "within it" if used[name] <= limit else "exceeded"
                share = f"{number_text(math.ceil(used[name]))} of at most {limit:,}"
                tiles.append((f"budget of {name}", told, f"{share} ({used[name] / limit:.0%})"))
        return tiles

    def _tiles_of_latency(self) -> list[tuple[str, str, str]]:
        return [
            (
                "latency, measured",
                f"{one['microseconds'] / 1000:.3g} ms",
                f"{one['device']}, {one['kernel']} kernel, threads: {one['threads']}",
            )
            for one in self.directory.read_latencies()
        ]

    def _tile_of_seeds(self) -> list[tuple[str, str, str]]:
        if len(self.seeds) < 2:
            return []
        accuracies = [row["accuracy"] for row in self.seeds]
        spread = f"{min(accuracies):.2%} to {max(accuracies):.2%}"
        return [(f"{len(accuracies)} seeds, briefly trained", spread, "the best went on")]

    def _network(self) -> list[Section]:
        """Return the drawings of the network: blocks, cells, and widths."""
        drawings = self._whole(self._chain, "result.json")
        drawings += self._whole(self._cells, "settings.json")
        rows = self._whole(self._widths, "settings.json")
        title = "Widths found"
        charts = [bars(rows, "filters", "layer", color="network", title=title)] if rows else []
        if not drawings and not charts:
            return []
        return [Section("The network", "", charts, drawings)]

    def _cells(self) -> list[tuple[str, str]]:
        if self.architecture is None:
            return []
        choices, drawings = self.architecture.choices, []
        for name, cell in (self.start.get("cells") or {}).items():
            nodes = {int(k): _pairs(choices[q]) for k, q in cell["questions"].items()}
            drawn = draw_cell(cell["inputs"], nodes, cell["concat"])
            drawings.append((f"Cells of kind {name}", drawn))
        return drawings

    def _blocks(self) -> dict[str, list[Mapping[str, Any]]]:
        """Return the layers of each block: those whose names begin alike."""
        blocks: dict[str, list[Mapping[str, Any]]] = {}
        for layer in self.result.get("layers", ()):
            blocks.setdefault(layer["name"].partition("_")[0], []).append(layer)
        return blocks

    def _chain(self) -> list[tuple[str, str]]:
        told = []
        for name, layers in self._blocks().items():
            shape = "x".join(map(str, layers[-1]["shape"]))
            binary = sum(layer["binary_macs"] for layer in layers)
            macs = sum(layer["macs"] for layer in layers)
            weights = sum(layer["weight_bytes"] for layer in layers)
            told.append(
                (
                    name,
                    shape,
                    f"{name}: {len(layers)} layers to {shape}; {binary:,} binary and {macs:,} real "
                    f"MACs, {weights:,.0f} bytes of weights",
                )
            )
        return [("Blocks, and the shape of what each gives", draw_chain(told))] if told else []

    def _widths(self) -> list[dict[str, Any]]:
        """Return the filters of each width that was chosen, beside the uniform ones."""
        rows = []
        choices: Mapping[str, Any] = self.architecture.choices if self.architecture else {}
        multiples: Mapping[str, int] = self.start.get("multiple_of") or {}
        for name, own in (self.start.get("filters") or {}).items():
            if name in choices:
                ratios = {"found": choices[name], "uniform": 1}
                multiple = multiples.get(name, 1)
                widths = {label: expand(own, one, multiple) for label, one in ratios.items()}
                # Of equal cost, where it is known.
                for one in self.result.get("baselines") or ():
                    widths[one["label"]] = one["widths"].get(name, widths["found"])
                rows += [
                    {"layer": name, "network": label, "filters": filters}
                    for label, filters in widths.items()
                ]
        return rows

    def _search(self) -> list[Section]:
        """Return what the searcher shows of its search, and the seeds."""
        sections: list[Section] = []
        if self.searcher is not None and hasattr(self.searcher, "report"):
            sections += self._whole(self._of_searcher, "the record of the search")
        if self.seeds:
            text = "What the search of each seed has found, trained briefly on the same images."
            sections.append(Section("Seeds", text, rows=self.seeds))
        if self.retrained:
            text = (
                "The best candidates of the search by their rank, each trained as the found one on "
                "the training images but a tenth, and measured on that. The most accurate went on."
            )
            sections.append(Section("Best candidates, trained", text, rows=self.retrained))
        return sections

    def _of_searcher(self) -> list[Section]:
        try:
            found = self.searcher.report(self.directory)  # type: ignore[union-attr]
            return [checked(section) for section in found]
        except Exception as error:  # code of one's own
            if isinstance(error, InputError) or type(self.searcher) in SEARCHERS.values():
                raise
            self.problems.append(
                f"The part of searcher `{self.settings['searcher']['name']}` is left out: its "
                f"`report` failed ({type(error).__name__}: {first_line(error)})."
            )
            return []

    def _training(self) -> list[Section]:
        """Return the curves of each stage."""
        charts = []
        for stage in dict.fromkeys(row["stage"] for row in self.history):
            rows = thinned(row for row in self.history if row["stage"] == stage)
            for title, names in _SCORES.items():
                told = [
                    {"epoch": row["epoch"], "metric": name, "value": row[name]}
                    for row in rows
                    for name in names
                    if is_finite(row.get(name))
                ]
                if len({one["epoch"] for one in told}) > 1:
                    label = f"{stage}: {title}"
                    chart = lines(
                        told,
                        "epoch",
                        "value",
                        color="metric",
                        title=label,
                        y_title=title,
                        percent=title == "accuracy",
                    )
                    charts.append(chart)
        return [Section("Training", "Each stage, epoch by epoch.", charts)] if charts else []

    def _baselines(self) -> list[Section]:
        """Return the found network beside its uniform twin and the best random one."""
        baselines = self.result.get("baselines") or []
        if not baselines:
            return []
        bytes_ = self.result.get("bytes")
        found = {**self.result, "label": "found", "flatbuffer_bytes": bytes_}
        every = [found, *baselines]
        rows = [
            {
                "network": one["label"],
                "each width times": f"{one['ratio']:g}" if "ratio" in one else "",
                "accuracy": f"{one['accuracy']:.2%}" if "accuracy" in one else "not trained",
                "binary MACs": number_text(one["costs"]["binary_macs"]),
                "real MACs": number_text(one["costs"]["macs"]),
                "bytes of weights": number_text(one["costs"]["weight_bytes"]),
                ".tflite bytes": number_text(one["flatbuffer_bytes"]),
            }
            for one in every
        ]
        trained = [
            {"network": one["label"], "accuracy": one["accuracy"], **_counted(one)}
            for one in every
            if "accuracy" in one and one["flatbuffer_bytes"] is not None
        ]
        charts = [
            dots(
                trained,
                cost,
                "accuracy",
                color="network",
                title=f"Accuracy by {cost}",
                percent=True,
            )
            for cost in ("binary MACs", ".tflite bytes")
            if len(trained) > 1
        ]
        told = {
            "uniform": "uniform has one multiple for all widths, so chosen that it costs as much "
            "as the found network at most",
            "random": "random is the best of as many random candidates",
        }
        named = "; ".join(told[one["label"]] for one in baselines)
        text = f"What the search has to beat: {named}. What is trained is trained alike."
        return [Section("Baselines", text, charts, rows=rows)]

    def _classes(self) -> list[Section]:
        accuracies = self.result.get("class_accuracy") or {}
        ordered = sorted(accuracies.items(), key=lambda pair: pair[1])[:_MOST_CLASSES]
        if not ordered:
            return []
        rows = [{"class": str(name), "accuracy": value} for name, value in ordered]
        few = f" The {_MOST_CLASSES} lowest are shown." if len(accuracies) > len(rows) else ""
        text = f"The accuracy of the images of each class, the lowest first.{few}"
        return [Section("Classes", text, [bars(rows, "accuracy", "class", percent=True)])]

    def _costs(self) -> list[Section]:
        costs = self.result.get("costs")
        if not costs:
            return []
        rows = [
            {"cost": COST_LABELS[name], "of one image": number_text(costs[name])}
            for name in COST_LABELS
        ]
        if "bytes" in self.result:
            rows.append(
                {"cost": "bytes of the .tflite", "of one image": number_text(self.result["bytes"])}
            )
        charts = []
        macs = [
            {"block": name, "kind": kind, "MACs": total}
            for name, layers in self._blocks().items()
            for kind, of in (("binary", "binary_macs"), ("real", "macs"))
            if (total := sum(layer[of] for layer in layers))
        ]
        if macs:
            title = "Multiply-accumulates of each block"
            charts.append(bars(macs, "MACs", "block", color="kind", title=title, stacked=True))
        return [Section("Costs", "", charts, rows=rows)]

    def _latency(self) -> list[Section]:
        """Return what each operation takes, where it was measured."""
        charts = []
        for one in self.directory.read_latencies():
            rows = [
                {"operation": f"{number} {operation['kind']}", "microseconds": operation[_TIME]}
                for number, operation in enumerate(one["operations"], 1)
            ]
            if rows:
                title = f"{one['device']}, {one['kernel']} kernel"
                charts.append(bars(rows, _TIME, "operation", title=title))
        return [Section("Latency by operation", "", charts)] if charts else []

    def _deployment(self) -> list[Section]:
        if "audit" not in self.result:
            return []
        rows = [
            {
                "layer": layer["layer"],
                "by definition": "binary" if layer["binary"] else "real",
                "runs as": layer["runs_as"],
                "remark": layer["cause"] or layer["note"],
            }
            for layer in self.result["audit"]["layers"]
        ]
        parity = [
            {
                "kernel": one["kernel"],
                "images compared": one["examples"],
                "operations compared": one["operations"],
                "same class": "" if one["agreement"] is None else f"{one['agreement']:.2%}",
                "images equal to rounding": f"{one['exact']:.2%}",
            }
            for one in self.result["parity"]
        ]
        counts = self.result["audit"]["operations"]
        operations = [{"operation": kind, "number": number} for kind, number in counts.items()]
        fallen = sum(bool(layer["cause"]) for layer in self.result["audit"]["layers"])
        binary = sum(layer["binary"] for layer in self.result["audit"]["layers"])
        text = (
            f"{binary - fallen} of {binary} binary layers run in binary. Layers that are real by "
            "definition, such as the first and the last, run in float, or in int8 where asked for."
        )
        compared = (
            "The .tflite is right on this computer: with each kernel, every operation gives the "
            "numbers of Keras up to rounding, or it would not have been written. aarch64 is "
            "computed here with the rule for signs of ARM; larq-nas latency PACKAGE --device "
            "checks a device."
        )
        return [
            Section("Deployment: layer by layer", text, rows=rows),
            Section("Deployment: operations of the .tflite", "", rows=operations),
            Section("Deployment: the .tflite beside Keras (parity)", compared, rows=parity),
        ]


_MOST_CLASSES = 40
_TIME = "microseconds"


def comparison(path: Path) -> Subject:
    """Return what a report shows of a comparison."""
    try:
        record = json.loads((path / _COMPARISON).read_text(encoding="utf-8"))
        rows, terms = record["rows"], record["terms"]
        shown = [
            {
                "architecture": row["architecture"],
                "accuracy": f"{row['accuracy']:.2%}",
                "spread": "" if row.get("spread") is None else f"{row['spread']:.2%}",
                "runs": row["runs"],
                "binary MACs": number_text(round(row["binary_macs"])),
                "real MACs": number_text(round(row["macs"])),
                "bytes of weights": number_text(round(row["weight_bytes"])),
                ".tflite bytes": number_text(row.get("flatbuffer_bytes")),
                "latency here": ""
                if row.get("microseconds") is None
                else f"{row['microseconds'] / 1000:.2f} ms",
            }
            for row in sorted(rows, key=lambda row: -row.get("accuracy", -1.0))
            if "accuracy" in row
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"`{path / _COMPARISON}` is damaged, or not of a comparison: compare again."
        ) from None
    every = [
        {
            "architecture": row["architecture"],
            "accuracy": accuracy,
            "binary MACs": row["binary_macs"],
            "weight bytes": row["weight_bytes"],
        }
        for row in rows
        for accuracy in row.get("accuracies", ())
    ]
    charts = [
        dots(
            every,
            name,
            "accuracy",
            color="architecture",
            percent=True,
            title=f"Accuracy and {name}",
        )
        for name in ("binary MACs", "weight bytes")
        if every
    ]
    lost = [f"{r['architecture']}: {text}" for r in rows for text in r.get("failures", ())]
    text = (
        "Architectures trained alike on the same images. Accuracies are means over runs, with "
        "their standard deviation; each run is a dot. Latencies are of the machine of the "
        "comparison."
    )
    section = Section("Comparison", text, charts, rows=shown)
    start = record.get("start", {})
    return Subject(path, "comparison", {"rows": rows}, [section], terms, (), lost, start)


def _counted(one: Mapping[str, Any]) -> dict[str, Any]:
    """Return the costs of a network that are drawn."""
    return {
        "binary MACs": one["costs"]["binary_macs"],
        ".tflite bytes": one["flatbuffer_bytes"],
    }


def _pairs(value: Any) -> list[tuple[str, int]]:
    return [(value, 0)] if isinstance(value, str) else [(name, index) for name, index in value]


def _mapping(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = settings.get(name)
    return found if isinstance(found, dict) else {}


def number_text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if isinstance(value, float) else f"{value:,}"


def _short(number: float) -> str:
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= factor:
            return f"{number / factor:.3g} {unit}"
    return f"{number:g}"
