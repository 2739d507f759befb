"""Drawings of architectures, as SVG and HTML."""

import html
from collections.abc import Mapping, Sequence
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
    """Draw a graph from left to right, each node beside what it reads last."""
    import networkx as nx

    for column, layer in enumerate(nx.topological_generations(graph)):
        for node in layer:
            graph.nodes[node]["subset"] = column
    # An operation stands next to the node that sums it, where a longer way leads there.
    for node in reversed(list(nx.topological_sort(graph))):
        following = [graph.nodes[after]["subset"] for after in graph.successors(node)]
        if following and list(graph.predecessors(node)):
            graph.nodes[node]["subset"] = min(following) - 1
    places = _places(graph)
    columns = 1 + max(x for x, _ in places.values())
    rows = 1 + max(y for _, y in places.values())
    parts = []
    for before, after in graph.edges:
        (x0, y0), (x1, y1) = places[before], places[after]
        start, end = x0 * _COLUMN + _BOX + _MARGIN, x1 * _COLUMN + _MARGIN
        top, bottom = (y * _ROW + _MARGIN + _LINE / 2 for y in (y0, y1))
        bend = (end - start) / 2
        parts.append(
            f'<path d="M{start},{top:.0f} C{start + bend:.0f},{top:.0f} {end - bend:.0f},'
            f'{bottom:.0f} {end},{bottom:.0f}" fill="none" stroke="#777"/>'
        )
    for node, (x, y) in places.items():
        parts.append(_box(graph.nodes[node], x * _COLUMN + _MARGIN, y * _ROW + _MARGIN))
    width = int(columns * _COLUMN - (_COLUMN - _BOX) + 2 * _MARGIN)
    whole = int((rows - 1) * _ROW + _LINE + 2 * _MARGIN)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {whole}" width="{width}" '
        f'height="{whole}" font-family="sans-serif" font-size="13">{"".join(parts)}</svg>'
    )


def _places(graph: "nx.DiGraph[Any]") -> dict[Any, tuple[float, float]]:
    """Return the column and row of each node: as near as can be to what it reads."""
    import networkx as nx

    layers: dict[int, list[Any]] = {}
    for node in nx.topological_sort(graph):
        layers.setdefault(graph.nodes[node]["subset"], []).append(node)
    most = max(map(len, layers.values()))
    rows: dict[Any, float] = {}
    for column in sorted(layers):
        wishes = {}
        for node in layers[column]:
            read = [rows[before] for before in graph.predecessors(node)]
            wishes[node] = sum(read) / len(read) if read else 0.0
        layer = sorted(wishes, key=wishes.__getitem__)
        first = (most - len(layer)) / 2
        rows |= {node: first + number for number, node in enumerate(layer)}
    return {node: (graph.nodes[node]["subset"], row) for node, row in rows.items()}


def _box(told: Mapping[str, Any], x: float, y: float) -> str:
    label = html.escape(told["label"])
    return (
        f'<g><title>{label}</title><rect x="{x:.0f}" y="{y:.0f}" width="{_BOX}" height="{_LINE}" '
        f'rx="6" fill="{told["color"]}" stroke="#888"/><text x="{x + _BOX / 2:.0f}" '
        f'y="{y + 19:.0f}" text-anchor="middle">{label}</text></g>'
    )
