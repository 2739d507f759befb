"""The tables of docs/papers: all settings of the published methods, and figures of networks."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import quick

import larq_nas
from larq_nas.cost import profile
from larq_nas.cost.conventions import columns
from larq_nas.methods import METHODS, Method, resolve

PAPERS = Path(__file__).parents[1] / "docs" / "papers"
PAGES = [page for page in sorted(PAPERS.glob("*.md")) if page.stem != "architectures"]
# larq_nas's own: it is no paper's.
OWN = {"default"}

Key = tuple[str, str]
HEADING = re.compile(r"^## `(\w+)`(?:, `(\w+)`)?$")
BASE = re.compile(r"^As `(\w+)`(?:, `(\w+)`)?, but$", re.MULTILINE)
SETTING = re.compile(r"`((?:(?:space|searcher|recipe)\.)?\w+) = ([^`]+)`")
# A value is written as in Python; what a recipe is made of is known by name.
NAMES = {"__builtins__": {}, **vars(larq_nas.training)}


def network(name: str, space: str | None) -> Key:
    return name, space or METHODS[name][0].space.name


def method(key: Key) -> Method:
    name, space = key
    return next(row for row in METHODS[name] if row.space.name == space)


def rows(text: str) -> Iterator[list[str]]:
    """The cells of each row of the tables."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split(" | ")]
        if line.startswith("|") and cells[0] not in ("ingredient", "architecture", "---"):
            yield cells


def read(pages: list[Path] = PAGES) -> dict[Key, tuple[Key | None, str]]:
    """What each method is like, and the text of its section."""
    found: dict[Key, tuple[Key | None, str]] = {}
    for page in pages:
        for section in re.split(r"^(?=## )", page.read_text(), flags=re.MULTILINE)[1:]:
            heading, base = HEADING.match(section.splitlines()[0]), BASE.search(section)
            assert heading, section
            like = network(base[1], base[2]) if base else None
            found[network(heading[1], heading[2])] = like, section
    return found


SECTIONS = read()


def sections_of(key: Key) -> list[str]:
    """The section of a method behind those of what it is like."""
    like, section = SECTIONS[key]
    return [*(sections_of(like) if like else []), section]


def listed(key: Key) -> dict[str, Any]:
    return {
        name: eval(value, NAMES)
        for section in sections_of(key)
        for cells in rows(section)
        for name, value in SETTING.findall(cells[2])
        if _has(method(key), name)
    }


def _has(found: Method, name: str) -> bool:
    # A searcher of another kind has not all settings of what its method is like.
    part, _, setting = name.rpartition(".")
    return hasattr(getattr(found, part) if part else found, setting)


def settings_of(key: Key) -> dict[str, Any]:
    """All settings of a method, those apart that no paper has a word on."""
    found = method(key)
    settings: dict[str, Any] = {"epochs": found.epochs, "train_epochs": found.train_epochs}
    for name in ("space", "searcher", "recipe"):
        part: Any = getattr(found, name)
        settings |= {
            f"{name}.{one.name}": getattr(part, one.name) for one in dataclasses.fields(part)
        }
    return settings


def defaults_of(key: Key) -> dict[str, Any]:
    found = method(key)
    return {
        f"{name}.{one.name}": getattr(default, one.name)
        for name in ("space", "searcher", "recipe")
        for default in [type(getattr(found, name))()]
        for one in dataclasses.fields(default)
    }


def test_every_published_method_has_a_table() -> None:
    expected = {(name, row.space.name) for name, found in METHODS.items() for row in found}
    assert SECTIONS.keys() == {key for key in expected if key[0] not in OWN}


@pytest.mark.parametrize("key", SECTIONS, ids="-".join)
def test_a_method_has_the_settings_of_its_table_and_no_others(key: Key) -> None:
    name, space = key
    assert resolve(name, space) == method(key)
    settings = settings_of(key)
    table = listed(key)
    assert table == {name: settings[name] for name in table}
    for name, default in defaults_of(key).items():
        assert name in table or settings[name] == default, (
            f"`{name} = {settings[name]!r}` is missing"
        )
    assert {"epochs", "train_epochs"} <= table.keys()


@pytest.mark.parametrize("key", SECTIONS, ids="-".join)
def test_every_ingredient_is_marked_and_what_is_ours_says_why(key: Key) -> None:
    marks = []
    for cells in rows(SECTIONS[key][1]):
        assert len(cells) == 4, cells
        assert all(cells), cells
        assert re.fullmatch(r"as published|(ours|not derivable): .+", cells[3]), cells
        marks.append(cells[3])
    # A row stands for that of the same ingredient in what the method is like.
    found = {cells[0]: cells[3] for section in sections_of(key) for cells in rows(section)}
    ours = {f"ours: {text}" for text in method(key).ours}
    assert {mark for mark in found.values() if mark.startswith("ours: ")} == ours


def test_a_table_that_has_drifted_is_found(tmp_path: Path) -> None:
    (page,) = [page for page in PAGES if page.name == "darts.md"]
    copy = tmp_path / page.name
    copy.write_text(page.read_text().replace("searcher.learning_rate = 0.025", "drift = 0"))
    ((_, section),) = read([copy]).values()
    names = {name for cells in rows(section) for name, _ in SETTING.findall(cells[2])}
    assert "searcher.learning_rate" not in names
    assert "searcher.final_learning_rate" in names


FIGURES = list(rows((PAPERS / "architectures.md").read_text()))


def test_every_published_architecture_has_its_papers_figures() -> None:
    """Those that agree do so in all digits that are printed, rounded or cut off."""
    names = {cells[0].strip("`") for cells in FIGURES}
    assert names == set(larq_nas.Architecture.published_names())
    for *_, printed, _, here, mark in FIGURES:
        mantissa, _, exponent = printed.partition("e")
        last = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
        agrees = -last / 2 <= float(here.replace(",", "")) - float(printed) < last
        assert mark == "as published" if agrees else mark.startswith("not derivable: "), mark


@pytest.mark.parametrize(
    ("name", "figure", "here"),
    quick([(cells[0].strip("`"), cells[1], int(cells[4].replace(",", ""))) for cells in FIGURES]),
)
def test_published_architectures_have_the_figures_of_the_table(
    name: str, figure: str, here: int
) -> None:
    architecture = larq_nas.Architecture.published(name)
    space = architecture.resolve()
    shape, classes = space.images
    if figure == "parameters" and space.name != "bnas":
        counted = profile(architecture.build(shape, classes))
        assert sum(row.trainable for row in counted.layers) == here
        return
    found = columns(space.name, architecture, space, shape, classes)
    found["operations"] = found["flops"] + found.get("bops", 0) / 64
    assert found[figure] == here
