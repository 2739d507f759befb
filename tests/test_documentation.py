"""What the documentation shows can be done: spaces can be made, commands are read."""

import ast
import inspect
import pkgutil
import re
import shlex
import textwrap
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import larq_nas  # isort: skip  (it prepares TensorFlow)
import click
import pytest

from larq_nas.cli import main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MADE = re.compile(r"larq_nas\.(spaces\.[A-Z]|searchers\.[A-Z]|Architecture\.published)")


def docstrings() -> Iterator[tuple[str, str]]:
    for module in pkgutil.walk_packages(larq_nas.__path__, "larq_nas."):
        if module.name.endswith("__main__"):
            continue
        for name, made in vars(import_module(module.name)).items():
            if getattr(made, "__module__", None) == module.name and inspect.getdoc(made):
                yield f"{module.name}.{name}", str(inspect.getdoc(made))


def examples() -> Iterator[tuple[str, str]]:
    texts = [(page.name, page.read_text()) for page in PAGES]
    for where, text in [*texts, *docstrings()]:
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
            yield where, textwrap.dedent(block)


def commands() -> Iterator[str]:
    for page in PAGES:
        for block in re.findall(r"```shell\n(.*?)```", page.read_text(), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("larq-nas "):
                    yield line


def calls() -> Iterator[Any]:
    """Calls of plain values alone: names in an example stand for what its user has."""
    for where, code in examples():
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Call) and MADE.match(ast.unparse(node.func)):
                names = {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
                if names == {"larq_nas"}:
                    yield where, ast.unparse(node)


@pytest.mark.parametrize(("where", "call"), sorted(set(calls())))
def test_spaces_and_searchers_of_examples_can_be_made(where: str, call: str) -> None:
    assert eval(call, {"larq_nas": larq_nas}) is not None, where


def test_examples_are_found() -> None:
    assert {"README.md", "bats.md", "larq_nas.spaces.bnas.Bnas"} <= {where for where, _ in calls()}


@pytest.mark.parametrize("line", sorted(set(commands())))
def test_commands_are_read(line: str) -> None:
    arguments = shlex.split(line, comments=True)[1:]
    group: Any = main
    while isinstance(group, click.Group):
        group = group.commands[arguments.pop(0)]
    try:
        group.make_context(group.name, arguments)
    except click.ClickException as error:
        # What an example names, its user has.
        if not re.search("does not exist|No such file|holds no", error.message):
            raise
