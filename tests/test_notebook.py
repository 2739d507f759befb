"""Notebooks: one in which a search runs again and again, and those of examples/."""

import re
from pathlib import Path
from typing import Any

import pytest
from conftest import EXAMPLES
from test_own_data import write_digits

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
pytest.importorskip("altair")

START = """
import larq_nas
train, validation = larq_nas.datasets.load("digits", batch_size=32)
space = larq_nas.spaces.Bats(cells=1, channels=4, nodes=1)
recipe = larq_nas.training.Recipe(stages=("binary",))
"""
SEARCH = """
result = larq_nas.search(
    train.take(6), validation.take(2), space, recipe=recipe, epochs=2, train_epochs=1,
    searcher={"architecture_learning_rate": 0.3}, return_result=True, verbose=0
)
result
"""
SHOWN = ("result.conversion", "larq_nas.cost.profile(result.model)", "result.architecture")


@pytest.mark.slow
def test_a_search_run_three_times_gives_the_same_without_a_word(tmp_path: Path) -> None:
    """Nothing but its table is shown: no warning, and no dump of a dataclass."""
    cells = [START, SEARCH, SEARCH, SEARCH, *SHOWN]
    notebook = nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, cells)))
    nbclient.NotebookClient(notebook, kernel_name="python3", timeout=600).execute()
    outputs: list[list[Any]] = [cell["outputs"] for cell in notebook["cells"]]
    assert outputs[0] == []
    for own in outputs[1:]:
        assert [one["output_type"] for one in own] == ["execute_result"], own
        assert own[0]["data"]["text/html"].startswith(("<table>", "<pre>"))
    shown = [own[0]["data"]["text/html"] for own in outputs[1:4]]
    tables = [re.sub(r"<tr><td[^>]*>time</td>.*?</tr>", "", table) for table in shown]
    assert all(len(table) < len(whole) for table, whole in zip(tables, shown, strict=True))
    assert tables[0] == tables[1] == tables[2]


NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
# Behind the parameters of a notebook, as papermill has it.
TOY = """
SPACE = {"cells": 1, "channels": 4, "nodes": 1}
EPOCHS, TRAIN_EPOCHS, IMAGE_SIZE = 1, 2, 8
"""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_without_outputs(path: Path) -> None:
    cells = [cell for cell in nbformat.read(path, 4)["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem == "digits" else [])
        for path in NOTEBOOKS
    ],
)
def test_notebooks_run_from_data_to_a_flatbuffer(path: Path, tmp_path: Path) -> None:
    write_digits(tmp_path / "photos", 150)
    notebook = nbformat.read(path, 4)
    cells = notebook["cells"]
    (at,) = (i for i, cell in enumerate(cells) if "parameters" in cell["metadata"].get("tags", ()))
    cells.insert(at + 1, nbformat.v4.new_code_cell(TOY))
    nbclient.NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=600,
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    shown = [
        output["data"].get("text/html", "")
        for cell in cells
        for output in cell.get("outputs", [])
        if "data" in output
    ]
    assert any(html.startswith("<table>") for html in shown)
    assert any("vega" in html and '"encoding"' in html for html in shown)
    assert list(tmp_path.glob("runs/*/model.tflite"))
