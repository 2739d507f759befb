"""The result of a search or training, as it is returned and as a run keeps it."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import tensorflow as tf
from terminaltables import AsciiTable

from larq_nas.architecture import Architecture
from larq_nas.cost import LATENCY, Budget
from larq_nas.cost.profile import size
from larq_nas.deploy import Conversion
from larq_nas.errors import InputError, first_line, require_whole
from larq_nas.files import read_table
from larq_nas.report import notebook
from larq_nas.run_directory import RunDirectory, read_settings
from larq_nas.training.callbacks import duration, read_ended
from larq_nas.training.loop import read_history

__all__ = ["Result", "load"]

_WORST = 3
_TOLD = ("candidate", "fitness", "accuracy", "binary_macs", "flatbuffer_bytes")


@dataclass(frozen=True, repr=False, eq=False)
class Result:
    """What a search or training has found, and what is known of it.

    !!! example
        ```python
        result = larq_nas.search(train, validation, return_result=True)
        result.accuracy, result.class_accuracy["7"]
        result.conversion.save("model.tflite")
        result = larq_nas.load("runs/digits")
        ```

    # Arguments
        architecture: the architecture.
        accuracy: share of the validation images that are classified rightly.
        loss: mean cross-entropy on them.
        metrics: further metrics on them, by their names.
        class_accuracy: the accuracy of the images of each class, by its name or number.
        baselines: networks to hold it against, each with its `label`, `widths`, `costs`,
            `flatbuffer_bytes` and, if it was trained, `accuracy`.
        test_accuracy, test_loss, test_metrics: the same on the test data, if there is any.
        top5_accuracy: share of the images whose class is among the five that are the most likely;
            `None` with five classes or less.
        seconds: what the search and the training took, as `"search"` and `"train"`.
        costs: the figures of `larq_nas.cost.Profile.summary` without the layers; with a table of
            latencies `latency` in microseconds.
        budget: the limits, by the names of costs.
        conversion: the `larq_nas.Conversion`; `None` if it was refused, as `warnings` tell.
        history: a row for each epoch: `stage`, `epoch` and the metrics.
        warnings: what may not be as it was meant.
        directory: the directory of the run; `None` if nothing was kept.

        class_names: names of the classes in the order of the outputs; empty if the data has none.
        preprocessing: what was done to the images before the network reads them, in words; empty if
            the data does not say.

    # Attributes
        model: the network, compiled.
    """

    architecture: Architecture
    accuracy: float
    loss: float
    metrics: Mapping[str, float]
    class_accuracy: Mapping[str, float]
    costs: Mapping[str, Any]
    budget: Mapping[str, int]
    conversion: Conversion | None
    history: Sequence[Mapping[str, Any]]
    warnings: Sequence[str]
    directory: Path | None
    read_model: Callable[[], tf.keras.Model] = field(repr=False)
    top5_accuracy: float | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    class_names: Sequence[str] = ()
    preprocessing: str = ""
    test_accuracy: float | None = None
    test_loss: float | None = None
    test_metrics: Mapping[str, float] = field(default_factory=dict)
    baselines: Sequence[Mapping[str, Any]] = ()

    @cached_property
    def model(self) -> tf.keras.Model:
        """The network, compiled; of a run that was loaded it is read now."""
        return self.read_model()

    @classmethod
    def of(cls, run: RunDirectory, model: tf.keras.Model | None = None) -> "Result":
        """Return the result of a run that has ended.

        # Raises
            InputError: if it has not.
        """
        try:
            result = cls._read(run, model)
            # What is damaged is not of the kind that is shown.
            str(result)
            str(result.conversion)
        except InputError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"The run in `{run.directory}` has no whole result ({type(error).__name__}): "
                "finish it with the same call or command."
            ) from None
        return result

    @classmethod
    def _read(cls, run: RunDirectory, model: tf.keras.Model | None) -> "Result":
        told: dict[str, Any] = json.loads(run.result.read_text(encoding="utf-8"))
        conversion = None
        if "refused" not in told:
            flatbuffer = run.flatbuffer.read_bytes()
            if len(flatbuffer) != told["bytes"]:
                raise ValueError("a flatbuffer of another size")
            conversion = Conversion.from_summary(flatbuffer, told)
        warned = run.read_warnings()
        refused = [told["refused"]] if "refused" in told else []
        refused = [text for text in refused if not any(text in one for one in warned)]
        warnings = [*read_ended(run.time_limit), *warned, *refused, *told.get("warnings", [])]
        return cls(
            Architecture.load(run.architecture),
            told["accuracy"],
            told["loss"],
            metrics=told.get("metrics", {}),
            class_accuracy=told.get("class_accuracy", {}),
            top5_accuracy=told.get("top5_accuracy"),
            seconds=run.read_times(),
            costs=told["costs"],
            budget=told["budget"],
            conversion=conversion,
            history=[_numbers(row) for row in read_history(run.history)],
            warnings=list(dict.fromkeys(warnings)),
            directory=None if run.is_temporary else run.directory,
            read_model=(lambda: model) if model is not None else (lambda: _read_model(run.model)),
            class_names=told.get("class_names", []),
            preprocessing=told.get("preprocessing", ""),
            test_accuracy=told.get("test_accuracy"),
            test_loss=told.get("test_loss"),
            test_metrics=told.get("test_metrics", {}),
            baselines=told.get("baselines", []),
        )

    def rows(self) -> list[tuple[str, str]]:
        """Return what is known, each with its name."""
        costs = self.costs
        rows = [("space", self.architecture.space), ("accuracy", f"{self.accuracy:.2%}")]
        if self.top5_accuracy is not None:
            rows.append(("top-5 accuracy", f"{self.top5_accuracy:.2%}"))
        worst = sorted(self.class_accuracy.items(), key=lambda pair: pair[1])[:_WORST]
        if worst:
            rows.append(("lowest classes", ", ".join(f"{n} {a:.2%}" for n, a in worst)))
        rows.append(("loss", f"{self.loss:.4f}"))
        rows += [(name, f"{value:.4f}") for name, value in self.metrics.items()]
        if self.test_accuracy is not None:
            rows += [
                ("test accuracy", f"{self.test_accuracy:.2%}"),
                ("test loss", f"{self.test_loss:.4f}"),
                *((f"test {name}", f"{value:.4f}") for name, value in self.test_metrics.items()),
            ]
        weights = f"{costs['parameters']:,} in {size(costs['weight_bytes'])}"
        rows += [
            ("weights", weights),
            ("binary MACs", f"{costs['binary_macs']:,}"),
            ("real MACs", f"{costs['macs']:,}"),
        ]
        if self.conversion:
            rows.append(("flatbuffer", f"{len(self.conversion.flatbuffer):,} bytes"))
        if LATENCY in costs:
            rows.append(("latency, predicted", f"{costs[LATENCY] / 1000:.3f} ms"))
        if self.budget and self.conversion:
            used = {**costs, "flatbuffer_bytes": len(self.conversion.flatbuffer)}
            rows.append(("budget", Budget(dict(self.budget)).report(used)))
        for row in self.baselines:
            name = "uniform twin" if row["label"] == "uniform" else row["label"]
            accuracy = f"{row['accuracy']:.2%}" if "accuracy" in row else "not trained"
            macs = f"{row['costs']['binary_macs']:,} binary MACs"
            rows.append((name, f"{accuracy}, {macs}, {row['flatbuffer_bytes']:,.0f} bytes"))
        stages = dict.fromkeys(row["stage"] for row in self.history)
        counted = [f"{s} {sum(row['stage'] == s for row in self.history)}" for s in stages]
        if counted:
            rows.append(("epochs", ", ".join(counted)))
        if self.seconds:
            took = [f"{part} {duration(seconds)}" for part, seconds in self.seconds.items()]
            rows.append(("time", ", ".join(took)))
        rows += [("warning", warning) for warning in self.warnings]
        return [*rows, ("directory", str(self.directory) if self.directory else "not kept")]

    def results_summary(self, number: int = 10) -> None:
        """Print the result, and the best candidates of a search that has measured some.

        As `results_summary` of a keras-tuner `Tuner` does. Candidates are measured on images held
        out of the training data.

        # Arguments
            number: number of candidates at most, from the fittest on.
        """
        require_whole(number=number)
        print(self)
        rows = [] if self.directory is None else _candidates(self.directory)
        if rows:
            columns = list(rows[0])
            names = columns[columns.index("generation") + 1 : columns.index("fitness")]
            told = [name for name in _TOLD if name in columns]
            cells = [
                [
                    *(f"{round(row[name], 4):,}" for name in told),
                    " ".join(str(row[name]) for name in names),
                ]
                for row in rows[:number]
            ]
            grid = AsciiTable([[*told, "choices"], *cells])
            print(f"The best of {len(rows)} candidates, with the choices {', '.join(names)}:")
            print(grid.table)

    def __str__(self) -> str:
        grid = AsciiTable([list(row) for row in self.rows()])
        grid.inner_heading_row_border = False
        text: str = grid.table
        return text

    def __repr__(self) -> str:
        where = f", directory={str(self.directory)!r}" if self.directory else ""
        return f"Result(space={self.architecture.space!r}, accuracy={self.accuracy:.4f}{where})"

    def _repr_html_(self) -> str:
        return notebook.table(self.rows())


def _candidates(directory: Path) -> list[dict[str, Any]]:
    """Return the rows of the candidates that were measured, the fittest first."""
    path = RunDirectory(directory, {}).candidates
    rows = [row for row in read_table(path) if "accuracy" in row] if path.exists() else []
    return sorted(rows, key=lambda row: -row["fitness"])


def load(path: str | Path) -> Any:
    """Load the result of a run, or a model with layers of larq_nas and Larq.

    !!! example
        ```python
        result = larq_nas.load("runs/digits")
        model = larq_nas.load("runs/digits/model.keras")
        ```

    # Arguments
        path: the directory of a run that has ended, or a `.keras` or `.h5` file or SavedModel that
            Keras has saved.

    # Returns
        A `larq_nas.Result`, or a `tf.keras.Model`.

    # Raises
        InputError: if there is neither.
    """
    if not isinstance(path, str | Path):
        raise InputError(f"`path` must be that of a run or a model, but got {path!r}.")
    path = Path(path).expanduser()
    if not path.is_dir() or (path / "saved_model.pb").exists():
        return _read_model(path)
    return Result.of(RunDirectory(path, read_settings(path)))


def _read_model(path: Path) -> tf.keras.Model:
    if path.suffix == ".tflite":
        raise InputError(f"`{path}` is converted: load the Keras model it was made of.")
    if path.suffix == ".json":
        raise InputError(
            f"`{path}` is no model: give the directory of a run, or read an architecture with "
            "larq_nas.Architecture.load."
        )
    if not path.exists():
        raise InputError(f"Cannot load a Keras model from `{path}`: there is no such file.")
    try:
        return tf.keras.models.load_model(path)
    except (OSError, ValueError, TypeError, KeyError) as error:
        cause = first_line(error)
        if cause.startswith("No model config found"):
            cause = "it holds weights alone; build the network and use its load_weights"
        own = (
            ". (Layers of your own are loaded by tf.keras.models.load_model(path, "
            "custom_objects={...}).)"
        )
        known = not any(word in str(error) for word in ("Unknown", "Could not locate", "custom"))
        raise InputError(
            f"Cannot load a Keras model from `{path}`: {cause}{'.' if known else own}"
        ) from error


def _numbers(row: Mapping[str, str]) -> dict[str, Any]:
    """Return a row of a history with its numbers."""
    figures = {name: float(value) for name, value in row.items() if name not in ("stage", "epoch")}
    return {"stage": row["stage"], "epoch": int(row["epoch"]), **figures}
