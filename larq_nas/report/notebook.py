"""How results show in a notebook."""

import html
from collections.abc import Sequence

__all__ = ["preformatted", "table"]


def preformatted(text: object) -> str:
    """Return text as HTML, as a terminal shows it."""
    return f"<pre>{html.escape(str(text))}</pre>"


def table(rows: Sequence[Sequence[object]]) -> str:
    """Return a table as HTML: the name of each row, and what stands behind it."""
    cells = [
        "".join(f"<td style='text-align: left'>{html.escape(str(cell))}</td>" for cell in row)
        for row in rows
    ]
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"
