"""Sections of a report, and the charts in them."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

import numpy as np

__all__ = [
    "Section",
    "bars",
    "checked",
    "dots",
    "heat",
    "is_finite",
    "lines",
    "plain",
    "thinned",
]

_EPOCHS, _ROWS, _TICKS = 50, 6000, 12
_WIDTH, _HEIGHT = 440, 240
_LEGEND: Mapping[str, Any] = {"orient": "bottom", "columns": 3, "labelLimit": 140, "symbolLimit": 0}


@dataclass(frozen=True)
class Section:
    """A part of a report.

    !!! example
        ```python
        from larq_nas.files import read_table
        from larq_nas.report.charts import Section, lines

        rows = read_table(directory.history)
        curve = lines(rows, "epoch", "loss", title="loss of the search")
        Section("My search", "The loss falls as candidates learn.", charts=[curve])
        ```

    # Arguments
        title: its heading.
        text: what it shows, in a sentence or two.
        charts: charts of this module, or other `altair` charts.
        drawings: SVG or HTML, each with what it shows.
        rows: a table, with the columns of its first row.
    """

    title: str
    text: str = ""
    charts: Sequence[Any] = ()
    drawings: Sequence[tuple[str, str]] = ()
    rows: Sequence[Mapping[str, Any]] = ()


def checked(section: Any) -> Section:
    """Return a section as the page shows it, with its charts as JSON holds them.

    # Raises
        Exception: of any kind, if it is not one that can be shown.
    """
    if not isinstance(section, Section):
        raise TypeError(f"{section!r} is not a Section")
    charts = [plain(one if isinstance(one, dict) else one.to_dict()) for one in section.charts]
    json.dumps(charts)
    drawings = [(str(caption), str(drawing)) for caption, drawing in section.drawings]
    return replace(section, charts=charts, drawings=drawings, rows=[{**r} for r in section.rows])


def plain(value: Any) -> Any:
    """Return a value with what JSON does not have, such as NaN, as text."""
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def lines(
    rows: Sequence[Mapping[str, Any]],
    x: str,
    y: str,
    *,
    color: str | None = None,
    select: str | None = None,
    title: str = "",
    y_title: str | None = None,
    percent: bool = False,
    domain: tuple[float, float] | None = None,
) -> Any:
    """Return a chart of lines; values are shown where the mouse is.

    # Arguments
        rows: a row for each point.
        x: the column of whole numbers along the axis, such as `"epoch"`.
        y: the column of values.
        color: the column that tells the lines apart.
        select: a column of which one value is shown at a time, chosen from a list.
        title: the heading of the chart.
        y_title: what the values are; by default the name of the column.
        percent: whether values are shares.
        domain: the least and the largest value of the axis; by default those of the rows.
    """
    import altair as alt

    scale = alt.Scale(domain=list(domain)) if domain else alt.Scale(zero=False)
    rows = _finite(rows, x, y)
    if not rows:
        return _empty(title)
    y_axis = alt.Axis(format="%") if percent else alt.Axis()
    steps = sorted({int(row[x]) for row in rows})
    # Between few whole numbers, Vega would put fractions.
    ticks: dict[str, Any] = {"values": steps} if len(steps) <= _TICKS else {}
    chart = alt.Chart(_data(rows), title=title, width=_WIDTH, height=_HEIGHT).encode(
        x=alt.X(field=_field(x), type="quantitative", title=x).axis(format="d", **ticks),
        y=alt.Y(field=_field(y), type="quantitative", title=y_title or y, axis=y_axis, scale=scale),
        tooltip=[_told(name) for name in dict.fromkeys((color, select, x, y)) if name],
    )
    if color:
        order = list(dict.fromkeys(str(row[color]) for row in rows))
        shade = alt.Color(field=_field(color), type="nominal", sort=order, title=color)
        chart = chart.encode(color=shade.legend(**_LEGEND))
    drawn = chart.mark_line(point=alt.OverlayMarkDef(size=16))
    if select:
        options = list(dict.fromkeys(str(row[select]) for row in rows))
        chosen = alt.selection_point(
            fields=[_field(select)],
            bind=alt.binding_select(options=options, name=f"{select}: "),
            value=options[0],
        )
        drawn = drawn.add_params(chosen).transform_filter(chosen)
    return drawn


def bars(
    rows: Sequence[Mapping[str, Any]],
    x: str,
    y: str,
    *,
    color: str | None = None,
    title: str = "",
    x_title: str | None = None,
    stacked: bool = False,
    percent: bool = False,
) -> Any:
    """Return a chart of horizontal bars: of a column `x`, for each `y` in the order of the rows."""
    import altair as alt

    rows = _finite(rows, x)
    if not rows:
        return _empty(title)
    order = list(dict.fromkeys(str(row[y]) for row in rows))
    axis = alt.Axis(format="%") if percent else alt.Axis(format="~s")
    chart = alt.Chart(_data(rows), title=title, width=_WIDTH).encode(
        x=alt.X(field=_field(x), type="quantitative", title=x_title or x, axis=axis),
        y=alt.Y(field=_field(y), type="nominal", sort=order, title=None),
        tooltip=[_told(name) for name in dict.fromkeys((y, color, x)) if name],
    )
    if color:
        colors = list(dict.fromkeys(str(row[color]) for row in rows))
        shade = alt.Color(field=_field(color), type="nominal", sort=colors, title=None)
        shade = shade.legend(**_LEGEND)
        chart = chart.encode(color=shade)
        if not stacked:
            offset = alt.YOffset(field=_field(color), type="nominal", sort=colors)
            chart = chart.encode(yOffset=offset)
    return chart.mark_bar()


def heat(rows: Sequence[Mapping[str, Any]], x: str, y: str, value: str, *, title: str = "") -> Any:
    """Return a chart of a square for each row, dark for a `value` of 1 and light for 0."""
    import altair as alt

    rows = _finite(rows, value)
    if not rows:
        return _empty(title)
    order = list(dict.fromkeys(str(row[y]) for row in rows))
    shade = alt.Color(field=_field(value), type="quantitative", title=value)
    return (
        alt.Chart(_data(rows), title=title, width=0.7 * _WIDTH)
        .mark_rect()
        .encode(
            x=alt.X(field=_field(x), type="ordinal", title=x),
            y=alt.Y(field=_field(y), type="nominal", sort=order, title=None),
            color=shade.scale(domain=[0, 1], scheme="blues").legend(orient="bottom"),
            tooltip=[_told(name) for name in (y, x, value)],
        )
    )


def dots(
    rows: Sequence[Mapping[str, Any]],
    x: str,
    y: str,
    *,
    color: str | None = None,
    line: Sequence[Mapping[str, Any]] = (),
    title: str = "",
    x_title: str | None = None,
    y_title: str | None = None,
    percent: bool = False,
) -> Any:
    """Return a chart of a dot for each row, which shows all of the row where the mouse is.

    # Arguments
        rows: a row for each dot.
        x: the column along the axis.
        y: the column of values.
        color: the column that tells kinds of dots apart.
        line: rows that a line connects, such as a Pareto front.
        title: the heading of the chart.
        x_title: what is along the axis; by default the name of the column.
        y_title: what the values are; by default the name of the column.
        percent: whether values are shares.
    """
    import altair as alt

    rows, line = _finite(rows, x, y), _finite(line, x, y)
    if not rows:
        return _empty(title)
    axis = alt.Axis(format="%") if percent else alt.Axis()
    x_axis = alt.Axis(format="~s")
    places = {
        "x": alt.X(field=_field(x), type="quantitative", title=x_title or x, axis=x_axis),
        "y": alt.Y(field=_field(y), type="quantitative", title=y_title or y, axis=axis),
    }
    places = {name: place.scale(zero=False) for name, place in places.items()}
    columns = dict.fromkeys(name for row in rows for name in row)
    chart = alt.Chart(_data(rows), title=title, width=_WIDTH, height=1.2 * _HEIGHT)
    drawn = chart.mark_circle(size=60, opacity=0.8).encode(
        **places, tooltip=[_told(name) for name in columns]
    )
    if color:
        shade = alt.Color(field=_field(color), type="nominal", title=None).legend(**_LEGEND)
        drawn = drawn.encode(color=shade)
    if not line:
        return drawn
    front = alt.Chart(_data(line)).mark_line(interpolate="step-after", color="#444")
    return front.encode(**places) + drawn


def is_finite(value: Any) -> bool:
    """Return whether a value is a number that has a place on an axis."""
    return isinstance(value, int | float | np.number) and math.isfinite(value)


def _finite(rows: Sequence[Mapping[str, Any]], *columns: str) -> list[Mapping[str, Any]]:
    """Return the rows that have a place in a chart."""
    return [row for row in rows if all(is_finite(row.get(name)) for name in columns)]


def _empty(title: str) -> Any:
    """Return what stands in place of a chart of nothing, of which Vega would warn."""
    import altair as alt

    chart = alt.Chart(_data([{}]), title=title, width=_WIDTH, height=_HEIGHT)
    return chart.mark_text(text="no finite values")


def _data(rows: Sequence[Mapping[str, Any]]) -> Any:
    import altair as alt

    return alt.InlineData(
        values=[{_field(name): value for name, value in row.items()} for row in rows]
    )


def _told(name: str) -> Any:
    """Return what the mouse shows of a column."""
    import altair as alt

    return alt.Tooltip(field=_field(name), type="nominal", title=name)


def _field(name: str) -> str:
    """Return the name of a column without what Vega reads as code or as nested objects."""
    return quote(name, safe=" /").replace(".", "%2E")


def thinned(
    rows: Iterable[Mapping[str, Any]], key: str = "epoch", most: int = _ROWS
) -> list[Mapping[str, Any]]:
    """Return the rows of some values of a column, the first and the last among them.

    A report would be too large with all of a long search: of so many rows at most, but of two
    values at least, and of no more than 50.
    """
    rows = list(rows)
    values = sorted({int(row[key]) for row in rows})
    number = max(2, min(_EPOCHS, most * len(values) // max(1, len(rows))))
    if len(values) > number:
        step = (len(values) - 1) / (number - 1)
        values = [values[round(step * place)] for place in range(number)]
    shown = set(values)
    return [row for row in rows if int(row[key]) in shown]
