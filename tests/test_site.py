"""The site: its pages are reached, links lead somewhere, quoted messages are in the code."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import larq_nas

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *sorted(DOCS.rglob("*.md"))]
CODE = re.compile(r"^( *)```.*?^\1```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(((?!\w+:)[^)\s]*)\)")
# Pages of the site that are kept elsewhere: docs/hooks/links.py.
ELSEWHERE = {"index.md", "changelog.md", "benchmarks.md"}


def text(page: Path) -> str:
    """The text of a page without its code."""
    return CODE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs both make them."""
    headings = re.findall(r"^#+ (.+)$", text(page), re.MULTILINE)
    plain = [re.sub(r"\[(.+?)\]\(.*?\)|`", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", one).strip()) for one in plain}


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    named = re.findall(r"(\S+\.md)$", navigation, re.MULTILINE)
    assert len(named) == len(set(named))
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    assert set(named) == pages | ELSEWHERE


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(text(page)):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_the_reference_has_all_modules_of_the_package() -> None:
    reference = "".join(page.read_text() for page in (DOCS / "reference").glob("*.md"))
    for name in larq_nas.__all__:
        home = getattr(larq_nas, name)
        module = getattr(home, "__module__", None)
        path = home.__name__ if module is None else f"{module}.{name}"
        assert re.search(rf"^::: {path}\b", reference, re.MULTILINE), path


def literals() -> Iterator[str]:
    """The texts of the code, with `\\0` for what is filled in."""
    for path in Path(larq_nas.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                parts = [
                    part.value if isinstance(part, ast.Constant) else "\0" for part in node.values
                ]
                yield "".join(map(str, parts))


def test_messages_that_are_quoted_are_in_the_code() -> None:
    page = (DOCS / "errors.md").read_text()
    messages = re.findall(r"^```text\n(.+)\n```", page.partition("\n## ")[2], re.MULTILINE)
    assert len(messages) >= 15
    causes = (DOCS / "converting.md").read_text().partition("| the error says |")[2]
    messages += re.findall(r"^\| `(.+)` \| ", causes.partition("\n\n")[0], re.MULTILINE)
    texts = list(literals())
    for message in messages:
        pattern = re.compile(".*".join(map(re.escape, message.split("..."))), re.DOTALL)
        assert any(pattern.search(one) for one in texts), message


def test_every_command_is_in_the_reference() -> None:
    from larq_nas.cli import main

    marks = re.findall(
        r"^::: larq-nas ?(\S*)$", (DOCS / "reference" / "cli.md").read_text(), re.MULTILINE
    )
    assert set(marks) == {"", *main.commands}
