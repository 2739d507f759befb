"""The text files that a package is filled in from."""

from pathlib import Path
from string import Template

__all__ = ["fill", "read_template"]

_FOLDER = Path(__file__).parent / "templates"


def read_template(name: str) -> str:
    """Return the text of a template."""
    return (_FOLDER / f"{name}.txt").read_text(encoding="utf-8")


def fill(template: str, **values: object) -> str:
    """Return the text of a template with `$name` replaced by each value."""
    return Template(read_template(template)).substitute(values)
