"""A fifth method, added exactly as docs/own_method.md says."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import larq_nas

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(
    r"^`([\w/.]+)`(?:, behind the line `([^\n]+)`)?:\n\n```py(?:thon)?\n(.*?)```",
    re.MULTILINE | re.DOTALL,
)
PROGRAM = """
import sys, larq_nas
train, validation = larq_nas.datasets.load("digits", 48)
larq_nas.search(
    train.take(3), validation.take(1), method="random_search", epochs=1, train_epochs=0,
    searcher={"candidates": 1},
    space=larq_nas.spaces.Bats(cells=3, channels=4, nodes=1), directory=sys.argv[1], verbose=0,
)
"""


def test_a_method_is_added_in_one_folder_and_one_entry(tmp_path: Path) -> None:
    shutil.copytree(
        Path(larq_nas.__file__).parent,
        tmp_path / "larq_nas",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    page = (ROOT / "docs" / "own_method.md").read_text()
    changed = []
    for name, anchor, code in BLOCK.findall(page):
        path = tmp_path / name
        changed.append(name)
        if anchor:
            lines = path.read_text().splitlines(keepends=True)
            (place,) = [number for number, line in enumerate(lines) if line.strip() == anchor]
            path.write_text("".join([*lines[: place + 1], code, *lines[place + 1 :]]))
        else:
            path.parent.mkdir(parents=True)
            path.write_text(code)
    folders = {str(Path(name).parent) for name in changed} - {"larq_nas"}
    assert len(folders) == 1
    assert set(changed) - {"larq_nas/methods.py"} == {f"{folders.pop()}/__init__.py"}
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "run")]
    subprocess.run(command, env=environment, check=True, cwd=tmp_path)
    assert (tmp_path / "run" / "model.tflite").exists()


def test_the_searcher_of_the_page_is_the_example() -> None:
    page = (ROOT / "docs" / "searchers.md").read_text()
    assert (ROOT / "examples" / "own_searcher.py").read_text().strip() in page
