"""Drawings of architectures, as SVG and HTML."""

import html
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import networkx as nx

__all__ = ["draw_cell", "draw_chain"]

_COLUMN, _ROW, _BOX, _LINE = 190, 46, 150, 30
_MARGIN = 14
_KINDS = (
    ("conv", "#cfe3ff"),
    ("pool", "#ffe5bf"),
    ("identity", "#e3e3e3"),
    ("skip", "#e3e3e3"),
    ("zero", "#ffffff"),
)
_STATE, _OPERATION = "#d9f2d9", "#ead9f7"


def draw_cell(
    inputs: int,
    nodes: Mapping[int, Sequence[tuple[str, int]]],
    concat: Sequence[int],
) -> str:
    """Return a cell as a graph: its inputs, the operations on them, and the sums of its nodes.

    # Arguments
        inputs: number of inputs, the first of the states.
        nodes: the operations that each node sums, with the states they read, by its own state.
        concat: the states that the cell concatenates.
    """
    import networkx as nx

    graph = nx.DiGraph()
    for state in range(inputs):
        graph.add_node(("state", state), label=f"input {state}", color=_STATE)
    for state, pairs in nodes.items():
        graph.add_node(("state", state), label=f"node {state}", color=_STATE)
        for slot, (operation, read) in enumerate(pairs):
            name = ("operation", state, slot)
            graph.add_node(name, label=operation, color=_color(operation))
            graph.add_edge(("state", read), name)
            graph.add_edge(name, ("state", state))
    graph.add_node("output", label="concatenated", color=_STATE)
    for state in concat:
        graph.add_edge(("state", state), "output")
    return _draw(graph)


def draw_chain(blocks: Sequence[tuple[str, str, str]]) -> str:
    """Return blocks in a row, each with a label, a second line, and what the mouse shows."""
    parts = [
        f'<span class="block" title="{html.escape(told)}">{html.escape(label)}'
        f"<small>{html.escape(second)}</small></span>"
        for label, second, told in blocks
    ]
    return f'<div class="chain">{"<i>&rarr;</i>".join(parts)}</div>'


def _color(operation: str) -> str:
    return next((color for word, color in _KINDS if word in operation), _OPERATION)


def _draw(graph: "nx.DiGraph[Any]") -> str:
    """Draw a graph from left to right: each node in a column, and no line behind a box."""
    columns = _columns(graph)
    routes = [_route(before, after, columns) for before, after in graph.edges]
    rows = _rows(columns, routes)
    parts = []
    for route in routes:
        x, y = _MARGIN + columns[route[0]] * _COLUMN + _BOX, _middle(rows[route[0]])
        path = f"M{x},{y:.0f}"
        for node in route[1:]:
            end, bottom = _MARGIN + columns[node] * _COLUMN, _middle(rows[node])
            bend = (x + end) / 2
            path += f" C{bend:.0f},{y:.0f} {bend:.0f},{bottom:.0f} {end},{bottom:.0f}"
            if node != route[-1]:
                end += _BOX
                path += f" H{end}"
            x, y = end, bottom
        parts.append(f'<path d="{path}" fill="none" stroke="#666" marker-end="url(#arrow)"/>')
    for node, told in graph.nodes(data=True):
        parts.append(_box(told, columns[node] * _COLUMN + _MARGIN, rows[node] * _ROW + _MARGIN))
    width = int(max(columns.values()) * _COLUMN + _BOX + 2 * _MARGIN)
    height = int(max(rows.values()) * _ROW + _LINE + 2 * _MARGIN)
    arrow = (
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="#666"/></marker></defs>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif" font-size="13">{arrow}{"".join(parts)}</svg>'
    )


def _middle(row: float) -> float:
    return row * _ROW + _MARGIN + _LINE / 2


def _columns(graph: "nx.DiGraph[Any]") -> dict[Any, int]:
    """Return the column of each node: behind all that it reads, and next to what reads it."""
    import networkx as nx

    columns = {
        node: column
        for column, layer in enumerate(nx.topological_generations(graph))
        for node in layer
    }
    for node in reversed(list(nx.topological_sort(graph))):
        following = [columns[after] for after in graph.successors(node)]
        if following and list(graph.predecessors(node)):
            columns[node] = min(following) - 1
    return columns


def _route(before: Any, after: Any, columns: dict[Any, int]) -> list[Any]:
    """Return the places that a line passes, one in each column; they are given to `columns`."""
    between = range(columns[before] + 1, columns[after])
    places = [("line", before, after, column) for column in between]
    columns.update({place: place[-1] for place in places})
    return [before, *places, after]


def _rows(columns: Mapping[Any, int], routes: Sequence[Sequence[Any]]) -> dict[Any, float]:
    """Return the row of each place: as near as can be to the places that lead there."""
    leading: dict[Any, list[Any]] = {}
    for route in routes:
        for before, after in pairwise(route):
            leading.setdefault(after, []).append(before)
    layers: dict[int, list[Any]] = {}
    for place, column in columns.items():
        layers.setdefault(column, []).append(place)
    most = max(map(len, layers.values()))
    rows: dict[Any, float] = {}
    for column in sorted(layers):
        wishes = {}
        for place in layers[column]:
            read = [rows[before] for before in leading.get(place, ())]
            wishes[place] = sum(read) / len(read) if read else 0.0
        first = (most - len(wishes)) / 2
        ordered = sorted(wishes, key=wishes.__getitem__)
        rows |= {place: first + number for number, place in enumerate(ordered)}
    return rows


def _box(told: Mapping[str, Any], x: float, y: float) -> str:
    label = html.escape(told["label"])
    return (
        f'<g><title>{label}</title><rect x="{x:.0f}" y="{y:.0f}" width="{_BOX}" height="{_LINE}" '
        f'rx="6" fill="{told["color"]}" stroke="#888"/><text x="{x + _BOX / 2:.0f}" '
        f'y="{y + 19:.0f}" text-anchor="middle">{label}</text></g>'
    )
