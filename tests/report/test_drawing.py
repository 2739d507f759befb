"""Drawings of cells: what reads what, and no line behind a box."""

import random
import re
from xml.etree import ElementTree

import pytest

from larq_nas.report.drawing import draw_cell

BOX = re.compile(r'<rect x="(\d+)" y="(\d+)" width="(\d+)" height="(\d+)"')
LINE = re.compile(r'<path d="(M[^"]+)"')


def drawn(seed: int) -> tuple[str, int]:
    """Return a cell at random, and the number of its lines."""
    draw = random.Random(seed)
    nodes = {
        state: [(draw.choice(("conv", "pool")), read) for read in draw.sample(range(state), 2)]
        for state in range(2, 6)
    }
    concat = range(2, 6)
    return draw_cell(2, nodes, concat), 4 * 4 + len(concat)


@pytest.mark.parametrize("seed", range(8))
def test_no_line_passes_behind_a_box(seed: int) -> None:
    svg, lines = drawn(seed)
    ElementTree.fromstring(svg)
    boxes = [tuple(map(int, box)) for box in BOX.findall(svg)]
    assert len(boxes) == len(set(boxes)) == 2 + 4 + 8 + 1
    paths = [path for path in LINE.findall(svg) if "C" in path]
    assert len(paths) == lines
    for path in paths:
        # Where a line passes a column of boxes it is straight: "... x,y H end".
        passes = re.findall(r"(\d+),(\d+) H(\d+)", path)
        for start, y, _ in passes:
            for left, top, _, height in boxes:
                assert left != int(start) or not top <= int(y) <= top + height


def test_a_line_begins_at_what_is_read_and_ends_at_what_reads() -> None:
    svg = draw_cell(2, {2: [("conv", 1)]}, [2])
    names = re.findall(r">([^<]+)</text>", svg)
    places = {
        name: (int(x), int(y), int(x) + int(width), int(y) + int(height) / 2)
        for name, (x, y, width, height) in zip(names, BOX.findall(svg), strict=True)
    }
    ends = [re.findall(r"[\d.]+,[\d.]+", path) for path in LINE.findall(svg) if "C" in path]
    pairs = {(points[0], points[-1]) for points in ends}

    def line(before: str, after: str) -> tuple[str, str]:
        _, _, right, y0 = places[before]
        left, _, _, y1 = places[after]
        return f"{right},{y0:.0f}", f"{left},{y1:.0f}"

    assert pairs == {
        line("input 1", "conv"),
        line("conv", "node 2"),
        line("node 2", "concatenated"),
    }
