"""The pages of commands, from the options of `larq-nas` itself."""

import inspect
import re
from collections.abc import Iterator
from textwrap import dedent

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

# In a page, what stands for a command: `::: larq-nas search`.
_MARK = re.compile(r"^::: larq-nas ?(\w*)$", re.MULTILINE)


def text(help_text: str) -> str:
    """Return the help of a command with its examples, behind `\\b`, as code."""
    parts = re.split(r"^\x08\n((?:.+\n?)+)", inspect.cleandoc(help_text), flags=re.MULTILINE)
    for number in range(1, len(parts), 2):
        parts[number] = f"```shell\n{dedent(parts[number]).rstrip()}\n```"
    return "\n".join(parts)


def lines(command: click.Command, name: str) -> Iterator[str]:
    """Yield the Markdown of a command: what it does, and a table of its options."""
    context = click.Context(command, info_name=name)
    yield text(command.help or "")
    yield f"\n```text\n{command.get_usage(context)}\n```\n"
    yield "| option | what it is |"
    yield "| --- | --- |"
    for option in command.get_params(context):
        record = option.get_help_record(context)
        if record:
            names, told = (part.replace("|", "\\|").replace("*", "\\*") for part in record)
            yield f"| `{names}` | {told} |"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put commands where a page names them."""
    if not _MARK.search(markdown):
        return markdown
    # It takes seconds to import, as it brings TensorFlow.
    from larq_nas.cli import main

    def command(found: re.Match[str]) -> str:
        name = found[1]
        return "\n".join(lines(main.commands[name] if name else main, f"larq-nas {name}".strip()))

    return _MARK.sub(command, markdown)
