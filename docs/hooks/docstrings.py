"""Docstrings in Larq's form, for mkdocstrings: a griffe extension."""

import re
from typing import Any

import griffe

__all__ = ["LarqDocstrings"]

# The sections that griffe's parser of Google's form reads as names with their texts.
_LISTS = {"Arguments": "Args", "Attributes": "Attributes", "Raises": "Raises"}
_SECTION = re.compile(r"^# ([A-Z]\w+)\n((?:(?: {4}.*)?(?:\n|\Z))*)", re.MULTILINE)


def google_form(text: str) -> str:
    """Return a docstring with Larq's sections, such as `# Arguments`, in Google's form.

    Other sections become a bold word with their text behind it.
    """

    def section(found: re.Match[str]) -> str:
        name, body = found.groups()
        if name not in _LISTS:
            return f"**{name}:**\n\n" + re.sub("^ {4}", "", body, flags=re.MULTILINE)
        # A blank line between two names would end the section.
        return f"{_LISTS[name]}:\n" + re.sub(r"\n\n+(?= {4}\S)", "\n", body)

    return _SECTION.sub(section, text)


class LarqDocstrings(griffe.Extension):
    """Rewrite each docstring before it is parsed."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = google_form(obj.docstring.value)
