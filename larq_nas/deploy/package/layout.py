"""Lines of Python in the form that ruff and black give them."""

from collections.abc import Sequence

__all__ = ["assignment"]

_WIDTH = 100
_INDENT = "    "


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
        return [f"{start}{', '.join(arguments)})(", *_inside(then), f"{_INDENT})"]
    return [start, *_inside(arguments), f"{_INDENT}{end}"]


def _inside(arguments: Sequence[str]) -> list[str]:
    line = f"{_INDENT * 2}{', '.join(arguments)}"
    if len(line) <= _WIDTH:
        return [line]
    return [part for argument in arguments for part in _argument(argument)]


def _argument(argument: str) -> list[str]:
    line = f"{_INDENT * 2}{argument},"
    if len(line) <= _WIDTH or not argument.endswith("]") or "(" in argument:
        return [line]
    start, items = argument[:-1].split("[", 1)
    rows = [f"{_INDENT * 3}{item}," for item in items.split(", ")]
    return [f"{_INDENT * 2}{start}[", *rows, f"{_INDENT * 2}],"]
