"""HTML report of runs and comparisons: one file that needs no internet connection."""

import functools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from larq_nas.cost import LATENCY
from larq_nas.errors import InputError, first_line, warn
from larq_nas.files import write_atomically
from larq_nas.log import log
from larq_nas.report.charts import Section, dots, is_finite, lines, plain, thinned
from larq_nas.report.subjects import COST_LABELS, Subject, number_text, read
from larq_nas.run_directory import flat
from larq_nas.searchers import Searcher

__all__ = ["report", "write_report"]

_QUOTED = re.compile("`([^`]*)`")


def report(
    *runs: str | Path,
    output: str | Path | None = None,
    searcher: Searcher | None = None,
) -> Path:
    """Write an HTML report of runs and comparisons: one file, which needs no internet connection.

    It shows how good each network is, what it costs, what it looks like and why, what became of
    each layer, and what repeats it. A run that still goes on is shown as far as it is.

    !!! example
        ```python
        larq_nas.report("runs/digits")  # runs/digits/report.html
        larq_nas.report("runs/bats", "runs/bnas", "runs/comparison", output="report.html")
        ```

    # Arguments
        runs: directories of runs (`larq_nas.search`, `larq_nas.train`) and of comparisons
            (`larq_nas.compare`).
        output: the file to write; by default `report.html` in the directory of a single run.
        searcher: a searcher of your own: its sections are shown of the runs that are of it.

    # Returns
        The path of the file.

    # Raises
        InputError: if a directory holds neither, or the file cannot be written.
    """
    if not runs:
        raise InputError("`runs` must name the directory of a run, or several, but is empty.")
    if output is None and len(runs) > 1:
        raise InputError("`output` must be given with several runs, such as report.html.")
    subjects = [read(_path(run), searcher) for run in runs]
    path = _path(output, "output") if output else subjects[0].path / "report.html"
    try:
        write_atomically(path, _page(subjects))
    except OSError as error:
        raise InputError(
            f"Cannot write `{path}` ({error.strerror}): give another file as `output`."
        ) from None
    return path


def write_report(directory: Path, searcher: Searcher | None, verbose: int | str) -> None:
    """Write `report.html` of what has ended; a report that fails costs nothing else."""
    try:
        path = report(directory, searcher=searcher)
    except Exception as error:  # noqa: BLE001 - a report must not cost what was found
        warn(f"No `report.html` was written in `{directory}`: {first_line(error)}.")
        return
    if verbose:
        log.info(f"report: {path}")


def _path(path: object, name: str = "runs") -> Path:
    if not isinstance(path, str | Path):
        what = "directories of runs" if name == "runs" else "a file, such as report.html"
        raise InputError(f"`{name}` must be {what}, but got {path!r}.")
    return Path(path).expanduser()


def _overview(subjects: Sequence[Subject]) -> list[Section]:
    """Return runs side by side; those of other data are apart."""
    runs = [subject for subject in subjects if subject.status != "comparison"]
    if len(runs) < 2:
        return []
    groups: dict[str, list[Subject]] = {}
    for run in runs:
        groups.setdefault(run.data, []).append(run)
    sections = []
    for number, group in enumerate(groups.values(), 1):
        title = "Runs side by side"
        text = "All are measured on the same validation images."
        if len(groups) > 1:
            title += f": data {number} of {len(groups)}"
            text += " Runs of other data cannot be compared with them, and are shown apart."
        rows = [_row(run) for run in group]
        columns = list(dict.fromkeys(name for row in rows for name in row))
        rows = [{name: row.get(name, "") for name in columns} for row in rows]
        sections.append(Section(title, text, _charts_of(group), rows=rows))
        changed = _differences(group)
        if changed:
            sections.append(Section("Settings that differ", "", rows=changed))
    return sections


def _row(run: Subject) -> dict[str, Any]:
    figures = run.figures
    costs = figures.get("costs", {})
    row: dict[str, Any] = {"run": run.name, "status": run.status.partition(":")[0]}
    if figures:
        row["accuracy"] = f"{figures['accuracy']:.2%}"
        row[".tflite bytes"] = number_text(figures.get("bytes"))
        row |= {
            COST_LABELS[name]: number_text(costs[name]) for name in COST_LABELS if name in costs
        }
        if LATENCY in costs:
            row["latency, predicted"] = f"{costs[LATENCY] / 1000:.3g} ms"
    return row


def _charts_of(runs: Sequence[Subject]) -> list[Any]:
    found = [
        {
            "run": run.name,
            "accuracy": run.figures["accuracy"],
            ".tflite bytes": run.figures["bytes"],
            "binary MACs": run.figures["costs"]["binary_macs"],
        }
        for run in runs
        if "bytes" in run.figures
    ]
    charts = [
        dots(found, name, "accuracy", color="run", percent=True, title=f"Accuracy and {name}")
        for name in (".tflite bytes", "binary MACs")
        if found
    ]
    curves = [
        {"run": run.name, "epoch": row["epoch"], "accuracy": row["val_accuracy"]}
        for run in runs
        for row in thinned(row for row in run.history if row["stage"] == run.history[-1]["stage"])
        if is_finite(row.get("val_accuracy"))
    ]
    if curves:
        title = "Accuracy on validation data, last stage"
        charts.append(lines(curves, "epoch", "accuracy", color="run", title=title, percent=True))
    return charts


def _differences(runs: Sequence[Subject]) -> list[dict[str, Any]]:
    """Return the settings that differ between runs."""
    settings = [_readable(run.settings) for run in runs]
    names = sorted({name for one in settings for name in one})
    rows = []
    for name in names:
        values = [one.get(name, "") for one in settings]
        if len(set(values)) > 1:
            rows.append({"setting": name, **{r.name: v for r, v in zip(runs, values, strict=True)}})
    return rows


def _readable(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return settings by their full names; questions of the space are drawn, not listed."""
    told = {name: one for name, one in settings.items() if name != "choices"}
    return {name: _text(value) for name, value in flat(told).items()}


def _text(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value)


@functools.lru_cache(maxsize=1)
def _script() -> str:
    """Return the code of Vega, which draws the charts."""
    import altair as alt
    import vl_convert

    major = alt.SCHEMA_VERSION.lstrip("v").partition(".")[0]
    known = [one for one in vl_convert.get_vegalite_versions() if one.partition(".")[0] == major]
    version = max(known, key=lambda one: int(one.partition(".")[2]))
    code: str = vl_convert.javascript_bundle("window.draw = vegaEmbed;", vl_version=version)
    return code.replace("</script", "<\\/script")


def _page(subjects: Sequence[Subject]) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code"] = _code
    charts: list[Any] = []

    def chart_id(chart: Any) -> str:
        charts.append(chart if isinstance(chart, dict) else chart.to_dict())
        return f"chart{len(charts)}"

    template = environment.get_template("template.html")
    return template.render(
        title=", ".join(subject.name for subject in subjects),
        overview=_overview(subjects),
        subjects=subjects,
        settings=[_readable(subject.settings) for subject in subjects],
        chart_id=chart_id,
        figures=_embedded([dict(subject.figures) for subject in subjects]),
        script=_script(),
        # They are collected while the template is rendered, and stand at its end.
        all_charts=lambda: _embedded(charts),
    )


def _code(text: str) -> Any:
    """Return a text as HTML, with what stands in backquotes as code."""
    import markupsafe

    return markupsafe.Markup(_QUOTED.sub(r"<code>\1</code>", str(markupsafe.escape(text))))


def _embedded(value: Any) -> str:
    """Return JSON that cannot end the script it stands in."""
    return json.dumps(plain(value), separators=(",", ":")).replace("<", "\\u003c")
