"""Lines of Python in the form that ruff and black give them."""

import re
from collections.abc import Sequence

__all__ = ["assignment"]

_WIDTH = 100
_INDENT = "    "
_BRACKETS = re.compile(r"[(\[]")
_PARTS = re.compile(r'"(?:[^"\\]|\\.)*"|[^"]')


def assignment(
    target: str, callee: str, arguments: Sequence[str], then: Sequence[str] | None = None
) -> list[str]:
    """Return `target = callee(arguments)(then)`, in as few lines as fit.

    # Arguments
        target: what is assigned to, or `"return"`.
        callee: what is called.
        arguments: source of its arguments.
        then: source of the arguments that its result is called with; by default it is not.
    """
    start = f"{_INDENT}{target}{'' if target == 'return' else ' ='} {callee}("
    end = ")" if then is None else f")({', '.join(then)})"
    line = f"{start}{', '.join(arguments)}{end}"
    if len(line) <= _WIDTH:
        return [line]
    if then is not None and len(f"{start}{', '.join(arguments)})(") <= _WIDTH:
        return [f"{start}{', '.join(arguments)})(", *_inside(then, 2), f"{_INDENT})"]
    return [start, *_inside(arguments, 2), f"{_INDENT}{end}"]


def _inside(items: Sequence[str], depth: int) -> list[str]:
    """Return what stands between brackets: on one line, or each item on its own."""
    line = f"{_INDENT * depth}{', '.join(items)}"
    if len(line) <= _WIDTH:
        return [line]
    return [part for item in items for part in _item(item, depth)]


def _item(item: str, depth: int) -> list[str]:
    indent = _INDENT * depth
    line, brackets = f"{indent}{item},", _BRACKETS.search(item)
    if len(line) <= _WIDTH or not brackets or item[-1] not in ")]":
        return [line]
    within = _split(item[brackets.end() : -1])
    start = f"{indent}{item[: brackets.end()]}"
    return [start, *_inside(within, depth + 1), f"{indent}{item[-1]},"]


def _split(text: str) -> list[str]:
    """Return the items of `text` that commas part, those within brackets left whole."""
    items, depth = [""], 0
    for part in _PARTS.findall(text):
        depth += (part in "([{") - (part in ")]}")
        if part == "," and depth == 0:
            items.append("")
        else:
            items[-1] += part
    return [item.strip() for item in items]
