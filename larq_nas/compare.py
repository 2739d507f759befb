"""Compare architectures trained alike on one data set, with several seeds each."""

import dataclasses
import json
import re
import statistics
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import tensorflow as tf
from filelock import FileLock
from terminaltables import AsciiTable

from larq_nas.architecture import Architecture
from larq_nas.data.augmentation import AugmentLike
from larq_nas.data.data import ClassWeight, Data, check_seed, read_data
from larq_nas.data.forms import DataLike
from larq_nas.data.preprocessing import PreprocessingLike
from larq_nas.data.validation import DataFacts
from larq_nas.errors import (
    DivergenceError,
    InputError,
    LarqNasError,
    require_whole,
    unknown_name,
    warn,
)
from larq_nas.files import (
    lock_directory,
    require_ours,
    unwritable,
    write_atomically,
    write_table,
)
from larq_nas.latency.measure import measure_all_here
from larq_nas.log import counted, log
from larq_nas.methods import RecipeLike
from larq_nas.methods import resolve as resolve_method
from larq_nas.process_state import keeps_process_state
from larq_nas.provenance import provenance
from larq_nas.report.report import write_report
from larq_nas.run_directory import RunDirectory, differences, flat, read_times
from larq_nas.spaces import Space, SpaceLike, WidthSpace, names, resolve
from larq_nas.train import read_epochs, require_living, run_of, train_architecture
from larq_nas.training.callbacks import duration
from larq_nas.training.distribution import verbose_here
from larq_nas.training.recipe import Epochs, Recipe
from larq_nas.training.trainer import require_stages

__all__ = ["Record", "compare", "drawn_from", "read_entries", "summarize", "table"]


_RANDOM = re.compile(r"random(?::(\d+))?")


@dataclass(frozen=True)
class Entry:
    """Architectures that are one row of a comparison: one, or several random ones of a space.

    `told` are its settings, what was changed, and what it does not have; `search_seconds` what the
    search took that has found it.
    """

    label: str
    architectures: tuple[Architecture, ...]
    space: Space
    told: tuple[str, ...]
    search_seconds: float | None = None

    @property
    def folder(self) -> str:
        """The name of the folder of its runs."""
        return re.sub(r"[^\w.-]", "_", self.label)


@dataclass
class _Reader:
    """Reads entries, and remembers which settings were used."""

    settings: Mapping[str, Any]
    space: Space
    facts: DataFacts
    used: set[str] = field(default_factory=set)

    def read(self, source: str | Path | Architecture) -> Entry:
        """Return what `source` stands for; digits of its own tell it apart that has no name."""
        drawn = _RANDOM.fullmatch(source) if isinstance(source, str) else None
        if drawn:
            return self._random(int(drawn[1] or 1))
        if isinstance(source, Architecture):
            digits = zlib.crc32(source.to_json().encode())
            return self._one(f"{source.space} {digits:08x}", source)
        if not isinstance(source, str | Path):
            raise InputError(
                "`architectures` must hold names, paths and objects of larq_nas.Architecture, but "
                f"got {source!r}."
            )
        if source not in Architecture.published_names():
            if source in names():
                return self._one(str(source), _backbone(str(source)))
            _require_file(source)
        path = Path(source)
        path = path.parent if path.name == "architecture.json" else path
        label = path.as_posix().strip("./") or path.resolve().name
        found = self._one(label, Architecture.read(source))
        return dataclasses.replace(found, search_seconds=read_times(path).get("search"))

    def _one(self, label: str, found: Architecture) -> Entry:
        own = self.space if found.space == self.space.name and found.space not in names() else None
        before = found.resolve(own)
        changes = self._changes(before)
        found = found.with_settings(**changes) if changes else found
        space = found.resolve(own)
        return Entry(label, (found,), space, self._told(before, space))

    def _random(self, count: int) -> Entry:
        if not count:
            raise InputError("`random:0` is no architecture: ask for 1 or more.")
        changes = self._changes(self.space)
        space = resolve(self.space, changes) if changes else self.space
        shape, classes = self.facts.input_shape, self.facts.classes
        found = [Architecture.random(space, shape, classes, seed) for seed in range(count)]
        label = f"{count} random {space.name}"
        return Entry(label, tuple(found), space, self._told(self.space, space))

    def _told(self, before: Space, after: Space) -> tuple[str, ...]:
        """Return what a row is: rows may differ in more than their cells."""
        old, new = before.settings(), after.settings()
        told = [
            f"{name}={value}" + (f" (was {old[name]})" if old[name] != value else "")
            for name, value in new.items()
            if isinstance(value, int | float | str)
        ]
        return *told, *(f"no {name}" for name in self.settings if name not in new)

    def _changes(self, space: Space) -> dict[str, Any]:
        """Return the settings that a space has, and that make it binary as BATS does."""
        known = {one.name for one in fields(space)} if is_dataclass(space) else set[str]()
        changes = {name: value for name, value in self.settings.items() if name in known}
        self.used.update(changes)
        if getattr(space, "precision", "binary") != "binary":
            binary = {"precision": "binary", "activation": "prelu"}
            changes = {name: v for name, v in binary.items() if name in known} | changes
        return changes


def read_entries(
    sources: Sequence[str | Path | Architecture],
    settings: Mapping[str, Any],
    space: Space,
    facts: DataFacts,
    recipe: Recipe,
    adds: bool = False,
) -> list[Entry]:
    """Return what is compared, each network built once for each stage of its training.

    If it adds to others that are there already, those may have the settings that these have not.
    """
    if not isinstance(sources, list | tuple) or not sources:
        raise InputError(f"`architectures` must be a list of one or more, but got {sources!r}.")
    reader = _Reader(settings, space, facts)
    entries: list[Entry] = []
    for source in sources:
        entry = reader.read(source)
        for other in entries:
            if other.folder == entry.folder or other.architectures == entry.architectures:
                raise InputError(
                    f"`architectures` must be different ones, of different names, but got "
                    f"`{other.label}` and `{entry.label}`."
                )
        entries.append(entry)
    for name in () if adds else settings.keys() - reader.used:
        raise InputError(f"None of the architectures has a setting `{name}`: leave it out.")
    for entry in entries:
        try:
            for architecture in entry.architectures:
                require_living(architecture, entry.space, facts)
                shape, classes = facts.input_shape, facts.classes
                require_stages(partial(architecture.build, shape, classes, entry.space), recipe)
        except InputError as error:
            text = f"`{entry.label}` cannot be built in these settings: {error}"
            raise InputError(text) from None
    return entries


def drawn_from(space: SpaceLike) -> Space:
    """Return a space; by the name of a published architecture, in the settings of that."""
    if isinstance(space, str) and space in Architecture.published_names():
        return Architecture.published(space).resolve()
    return resolve(space)


def _space_of(sources: Sequence[str | Path | Architecture]) -> Space:
    """Return the space of the first run, file or `Architecture`, for random ones beside it."""
    for source in sources if isinstance(sources, list | tuple) else ():
        is_name = isinstance(source, str) and bool(
            _RANDOM.fullmatch(source) or source in (*Architecture.published_names(), *names())
        )
        is_path = isinstance(source, str | Path) and Path(source).expanduser().exists()
        if isinstance(source, Architecture) or (is_path and not is_name):
            found = Architecture.read(source)
            if found.space in names():
                return found.resolve()
    return drawn_from("bats")


def _backbone(name: str) -> Architecture:
    if not isinstance(resolve(name), WidthSpace):
        raise InputError(
            f"`{name}` is a space, not an architecture: compare random:5 of it with `space`, or "
            "the directory of a run."
        )
    return Architecture(name, {"expansion": 1, "binarization": "bats"})


def _require_file(source: str | Path) -> None:
    """Raise `InputError` for a name of nothing, in words of all that may be compared."""
    path = Path(source)
    if not path.exists() and not path.suffix:
        backbones = [name for name in names() if isinstance(resolve(name), WidthSpace)]
        known = (*Architecture.published_names(), *backbones, "random:5")
        raise unknown_name("architecture", source, known)


_DIVERGED = "diverged.txt"


@dataclass
class Job:
    """A training of a comparison."""

    entry: Entry
    architecture: Architecture
    data: Data
    folder: Path
    result: dict[str, Any] | None = None
    failure: str | None = None

    def run(self, recipe: Recipe, epochs: Epochs) -> RunDirectory:
        """Return its run."""
        return run_of(self.architecture, self.data, recipe, None, epochs, self.folder)

    def train(self, recipe: Recipe, epochs: Epochs, verbose: int | str) -> None:
        """Train, or note why that has no end."""
        run, space = self.run(recipe, epochs), self.entry.space
        self.failure = None
        if verbose:
            log.info(f"{self.entry.label}, seed {self.data.seed}: `{self.folder}`")
        try:
            train_architecture(
                self.architecture, space, self.data, recipe, None, epochs, run, (), verbose
            )
            self.read()
        except DivergenceError as error:
            self.failure = str(error)
            write_atomically(self.folder / _DIVERGED, self.failure)
            warn(f"`{self.folder}` is left out: {error}")
        tf.keras.backend.clear_session()

    def read(self) -> None:
        """Read what a training that has ended has left, if it has."""
        result, diverged = self.folder / "result.json", self.folder / _DIVERGED
        if result.exists():
            self.result = json.loads(result.read_text(encoding="utf-8"))
            self.result["seconds"] = read_times(self.folder)
        elif diverged.exists():
            self.failure = diverged.read_text(encoding="utf-8")


def jobs_of(entry: Entry, data: Data, directory: Path, seed: int) -> list[Job]:
    """Return the trainings of an entry by one seed."""
    data, place = dataclasses.replace(data, seed=seed), directory / entry.folder
    alone = len(entry.architectures) == 1
    return [
        Job(entry, architecture, data, place / f"{'' if alone else f'{number}_'}seed{seed}")
        for number, architecture in enumerate(entry.architectures)
    ]


def finished_before(entry: Entry, data: Data, directory: Path, seeds: Sequence[int]) -> list[Job]:
    """Return what of an entry has ended in earlier calls, by other seeds than these."""
    names = [path.name for path in (directory / entry.folder).glob("*seed*")]
    known = {int(found[1]) for name in names if (found := re.search(r"seed(\d+)$", name))}
    others = [
        job for seed in sorted(known - set(seeds)) for job in jobs_of(entry, data, directory, seed)
    ]
    for job in others:
        job.read()
    return [job for job in others if job.result is not None or job.failure is not None]


_COLUMNS: Mapping[str, tuple[str, Callable[[Any], str]]] = {
    "accuracy": ("accuracy", lambda value: f"{value:.2%}"),
    "spread": ("spread", lambda value: f"{100 * value:.2f}"),
    "top5_accuracy": ("top-5", lambda value: f"{value:.2%}"),
    "runs": ("runs", str),
    "diverged": ("diverged", str),
    "binary_macs": ("binary MACs", lambda value: f"{value:,.0f}"),
    "macs": ("real MACs", lambda value: f"{value:,.0f}"),
    "weight_bytes": ("weights (bytes)", lambda value: f"{value:,.0f}"),
    "flatbuffer_bytes": ("flatbuffer (bytes)", lambda value: f"{value:,.0f}"),
    "microseconds": ("latency (ms)", lambda value: f"{value / 1000:.2f}"),
    "search_seconds": ("search", duration),
    "train_seconds": ("training", duration),
}


def summarize(
    label: str, results: Sequence[Mapping[str, Any]], failures: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the row of an entry: means over its runs, and the spread of the accuracies.

    Results are what is in `result.json` of each run that came to its end; failures, why others
    did not.
    """
    accuracies = [result["accuracy"] for result in results]
    row: dict[str, Any] = {"architecture": label, "runs": len(results)}
    if failures:
        row |= {"diverged": len(failures), "failures": list(failures)}
    if not results:
        return row
    row["accuracy"] = statistics.mean(accuracies)
    row["spread"] = statistics.stdev(accuracies) if len(accuracies) > 1 else None
    row["accuracies"] = accuracies
    top5 = [result["top5_accuracy"] for result in results if "top5_accuracy" in result]
    times = [result.get("seconds", {}).get("train") for result in results]
    trained = [seconds for seconds in times if seconds is not None]
    row["top5_accuracy"] = statistics.mean(top5) if len(top5) == len(results) else None
    row["train_seconds"] = statistics.mean(trained) if len(trained) == len(results) else None
    costs = [result["costs"] for result in results]
    row |= {name: statistics.mean(cost[name] for cost in costs) for name in ("binary_macs", "macs")}
    row["weight_bytes"] = statistics.mean(cost["weight_bytes"] for cost in costs)
    sizes = [result["bytes"] for result in results if "bytes" in result]
    row["flatbuffer_bytes"] = statistics.mean(sizes) if sizes else None
    return row


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as text, the most accurate first."""
    ordered = sorted(rows, key=lambda row: -row.get("accuracy", -1.0))
    shown = [name for name in _COLUMNS if any(row.get(name) is not None for row in ordered)]
    titles = ["architecture", *(_COLUMNS[name][0] for name in shown)]
    cells = [[str(row["architecture"]), *(_cell(row, name) for name in shown)] for row in ordered]
    grid = AsciiTable([titles, *cells])
    grid.justify_columns = dict.fromkeys(range(1, len(titles)), "right")
    text: str = grid.table
    return text


def _cell(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    return "" if value is None else _COLUMNS[name][1](value)


class Record:
    """The rows of a comparison, which grows from call to call on the same terms.

    Within a `with` block, no other process can add to it.

    # Arguments
        directory: where it is kept.
        terms: settings that all of its trainings share.
        start: versions, and the call, of which the last is kept.

    # Raises
        InputError: if the directory holds something else, or a comparison on other terms.
    """

    def __init__(
        self, directory: Path, terms: Mapping[str, Any], start: Mapping[str, Any] | None = None
    ) -> None:
        self._directory, self._path = directory, directory / "comparison.json"
        self._terms = json.loads(json.dumps(terms))
        self._start = dict(start or {})
        require_ours(directory, "a comparison", _is_comparison)
        self._earlier = self._read()
        self._lock: FileLock | None = None

    def __enter__(self) -> "Record":
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._lock = lock_directory(self._directory)
        except OSError as error:
            raise unwritable(self._directory, error) from None
        self._earlier = self._read()
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock:
            self._lock.release()

    @property
    def has_rows(self) -> bool:
        """Whether earlier calls have left any."""
        return bool(self._earlier)

    def others(self, labels: Sequence[str]) -> list[dict[str, Any]]:
        """Return the rows of earlier calls, of other architectures than `labels`."""
        return [row for label, row in self._earlier.items() if label not in labels]

    def with_earlier(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return rows and those of earlier calls; what was timed of the same networks stays."""
        whole = []
        for row in rows:
            before = self._earlier.get(row["architecture"], {})
            alike = before.get("flatbuffers") == row.get("flatbuffers")
            whole.append({**row, "microseconds": before.get("microseconds") if alike else None})
        return whole + self.others([row["architecture"] for row in rows])

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write `comparison.json` and `comparison.csv`."""
        record = {"terms": self._terms, "rows": list(rows), "start": self._start}
        write_atomically(self._path, json.dumps(record, indent=1) + "\n")
        scalars = [{k: v for k, v in row.items() if not isinstance(v, list)} for row in rows]
        write_table(self._directory / "comparison.csv", scalars)

    def show(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Print the rows as a table, and where they are."""
        log.info(table(rows))
        log.info(f"written: {self._directory}")

    def _read(self) -> dict[str, dict[str, Any]]:
        if not self._path.exists():
            return {}
        try:
            record = json.loads(self._path.read_text(encoding="utf-8"))
            old = flat(record["terms"])
            rows = {row["architecture"]: dict(row) for row in record["rows"]}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise InputError(
                f"`{self._path}` is damaged, or not of a comparison: delete it, and it is written "
                "again from the runs of the architectures that are given."
            ) from None
        changed = differences(old, flat(self._terms))
        if changed:
            raise InputError(
                f"`{self._directory}` holds a comparison on other terms ({changed}): use those, "
                "or another directory."
            )
        return rows


def _is_comparison(path: Path) -> bool:
    return path.name.startswith(("comparison.", "report.")) or any(path.glob("*seed*/"))


@keeps_process_state
def compare(
    architectures: Sequence[str | Path | Architecture],
    train: DataLike,
    validation: DataLike | float,
    *,
    directory: str | Path,
    seeds: Sequence[int] = (0, 1, 2),
    epochs: Epochs | None = None,
    recipe: RecipeLike = "bats",
    settings: Mapping[str, Any] | None = None,
    space: SpaceLike | None = None,
    classes: int | None = None,
    augment: AugmentLike | None = None,
    class_weight: ClassWeight | None = None,
    preprocessing: PreprocessingLike | None = None,
    latency: bool = True,
    verbose: int | str = "auto",
) -> list[dict[str, Any]]:
    """Train architectures alike, several times each, and compare what comes of them.

    Real cells, and networks by name, are binarized by one process, as in BATS' Table 5 (section 3),
    and all are trained by one recipe.
    Killed at any moment, the same call goes on; further architectures and seeds are added to what
    a call has left. In `directory` that is each run, `comparison.json`, `comparison.csv` and
    `report.html`.

    !!! example
        ```python
        rows = larq_nas.compare(
            ["runs/digits", "bats", "darts_second_order", "random:5", "resnet18_cifar"],
            train,
            validation,
            settings={"cells": 5, "channels": 24},
            epochs=20,
            directory="runs/comparison",
        )
        ```

    # Arguments
        architectures: each the directory of a run, the file of an architecture, the name of a
            published one or of a backbone (`resnet18_cifar`), an `Architecture`, or
            `"random:5"`: five of `space`, which are one row.
        train: a batched `tf.data.Dataset` of `(images, labels)`, or such arrays; sample weights may
            follow. Images are `(batch, height, width, channels)`. Labels are whole numbers, text,
            one-hot, or probabilities of the classes. larq_nas shuffles.
        validation: data of the same form that is only measured on, or a share of `train` to hold
            out, such as 0.2, of each class alike and by seed 0, for all seeds alike.
        directory: where the runs and the comparison are kept.
        seeds: a training for each.
        epochs: number of epochs of each training, of all stages or of each by its name; by default
            those of the recipe, or 100.
        recipe: how all of them are trained, a `larq_nas.training.Recipe` or the name of
            the method whose recipe it is.
        settings: settings of spaces, such as `cells`, for each that has them.
        space: where random architectures are drawn from: by name in the settings of the
            published architecture of that name, otherwise as given. By default it is that of the
            first run, file or `Architecture` to compare, in its settings, or else `"bats"`.
        classes: number of classes; by default what the labels say.
        augment, class_weight, preprocessing: see `larq_nas.train`.
        latency: whether to time the flatbuffers on this machine.
        verbose: as in `tf.keras.Model.fit`; 0 prints nothing.

    # Returns
        A row for each of `architectures`, and for those of earlier calls: `accuracy` (the mean),
        `spread` (the standard deviation, `None` of a single run), `accuracies`, `top5_accuracy`,
        costs, `microseconds`, and the seconds of a training and of the search of a run.

    # Raises
        InputError: if an argument or the data cannot be used; nothing was trained then.

    # References
        - [BATS: Binary ArchitecTure Search](https://arxiv.org/abs/2003.01711)
    """
    start = provenance(compare, locals())
    _require(seeds, directory, settings)
    verbose = verbose_here(None, directory, verbose)
    drawn = _space_of(architectures) if space is None else drawn_from(space)
    place = Path(directory).expanduser()
    training = resolve_method(None, drawn, recipe=recipe).recipe
    epochs = read_epochs("epochs", epochs, training)
    total = sum(training.split(epochs).values())
    require_whole(epochs=total)
    # What is held out must be the same for all seeds, and for those of later calls.
    data = read_data(
        train,
        validation,
        classes,
        augment,
        0,
        drawn,
        verbose,
        class_weight=class_weight,
        preprocessing=preprocessing,
    )
    record = Record(place, _terms(data, training, epochs, settings or {}), start)
    facts = data.facts
    entries = read_entries(architectures, settings or {}, drawn, facts, training, record.has_rows)
    jobs = [job for seed in seeds for entry in entries for job in jobs_of(entry, data, place, seed)]
    before = [job for entry in entries for job in finished_before(entry, data, place, seeds)]
    for job in (*jobs, *before):
        job.run(training, epochs).check()
    if verbose:
        _announce(entries, before, record, len(seeds), total)
    for job in jobs:
        job.read()
    with record:
        for job in jobs:
            job.train(training, epochs, verbose)
            rows = record.with_earlier(_rows(entries, [*jobs, *before], place))
            record.write(rows)
        if latency:
            _time(rows, place, verbose)
            record.write(rows)
    write_report(place, None, verbose)
    if verbose:
        record.show(rows)
    return rows


def _require(seeds: object, directory: object, settings: object) -> None:
    given = seeds if isinstance(seeds, list | tuple | range) else ()
    for seed in given:
        check_seed(seed)
    if not given or len(set(given)) < len(given):
        raise InputError(f"`seeds` must be a list of different whole numbers, but got {seeds!r}.")
    if not isinstance(directory, str | Path):
        raise InputError(f"`directory` must be the path of a folder, but got {directory!r}.")
    if settings is not None and not isinstance(settings, Mapping):
        raise InputError(f"`settings` must be a mapping of names to values, but got {settings!r}.")


def _terms(
    data: Data, recipe: Recipe, epochs: Epochs, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what all trainings share, but for the seed."""
    shared = {key: value for key, value in data.settings().items() if key != "seed"}
    return {**shared, "recipe": recipe.settings(), "epochs": epochs, "settings": dict(settings)}


def _announce(
    entries: Sequence[Entry], before: Sequence[Job], record: Record, seeds: int, epochs: int
) -> None:
    for entry in entries:
        log.info(f"{entry.label}: {', '.join(entry.told)}")
        known = sorted({job.data.seed for job in before if job.entry is entry})
        if known:
            log.info(f"{entry.label}: seeds {', '.join(map(str, known))} were done before")
    others = [row["architecture"] for row in record.others([entry.label for entry in entries])]
    if others:
        log.info(f"Kept from earlier calls: {', '.join(others)}")
    networks = sum(len(entry.architectures) for entry in entries)
    log.info(
        f"Comparison: {counted(networks, 'network')}, {counted(seeds, 'seed')}, "
        f"{counted(epochs, 'epoch')} each: {counted(networks * seeds * epochs, 'epoch')} in all",
    )


def _rows(entries: Sequence[Entry], jobs: Sequence[Job], place: Path) -> list[dict[str, Any]]:
    """Return the rows of what has ended, and where their networks are, one seed of each."""
    rows = []
    for entry in entries:
        own = sorted((job for job in jobs if job.entry is entry), key=lambda job: job.data.seed)
        results = [job.result for job in own if job.result is not None]
        failures = [job.failure for job in own if job.failure is not None]
        networks: dict[int, str] = {}
        for job in own:
            path = job.folder / "model.tflite"
            if job.result is not None and path.exists():
                networks.setdefault(id(job.architecture), path.relative_to(place).as_posix())
        if results or failures:
            row = summarize(entry.label, results, failures)
            row["search_seconds"] = entry.search_seconds
            rows.append({**row, "flatbuffers": sorted(networks.values())})
    return rows


def _time(rows: Sequence[dict[str, Any]], place: Path, verbose: int | str) -> None:
    """Time the networks of all rows, those of earlier calls too, in turns: loads change."""
    paths = [path for row in rows for path in row["flatbuffers"] if (place / path).exists()]
    if verbose:
        log.info(f"Timing {len(paths)} flatbuffers, in turns")
    try:
        found = measure_all_here([(place / path).read_bytes() for path in paths])
    except LarqNasError as error:
        warn(f"No latencies: {error}")
        return
    for warning in sorted({text for latency in found for text in latency.warnings}):
        warn(warning)
    timed = {path: one.microseconds for path, one in zip(paths, found, strict=True)}
    for row in rows:
        times = [timed[path] for path in row["flatbuffers"] if path in timed]
        row["microseconds"] = statistics.mean(times) if times else None
