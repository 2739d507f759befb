"""What is installed: the wheel and the sdist, `python -m larq_nas` and shell completion."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from importlib.util import find_spec
from pathlib import Path

import pytest

import larq_nas

ROOT = Path(__file__).parents[1]
SOURCES = ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md")
REPOSITORY = "https://example.org/larq_nas"


def command(*arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "larq_nas", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.slow
def test_the_module_runs_as_the_command() -> None:
    assert command("--version") == f"larq-nas, version {larq_nas.__version__}\n"


@pytest.mark.parametrize(
    "shell", ["bash", *(pytest.param(one, marks=pytest.mark.slow) for one in ("zsh", "fish"))]
)
def test_the_command_is_completed_as_the_documentation_says(shell: str) -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    assert any("_LARQ_NAS_COMPLETE=bash_source larq-nas" in page.read_text() for page in pages)
    assert "larq-nas" in command(_LARQ_NAS_COMPLETE=f"{shell}_source")


@pytest.mark.slow
def test_options_are_completed() -> None:
    words = {"COMP_WORDS": "larq-nas search --tr", "COMP_CWORD": "2"}
    found = command(_LARQ_NAS_COMPLETE="bash_complete", **words)
    assert found.split() == ["plain,--train-epochs", "plain,--train-split"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a wheel and an sdist, built of a copy of the sources."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("sources")
    shutil.copytree(
        ROOT / "larq_nas", folder / "larq_nas", ignore=shutil.ignore_patterns("__pycache__")
    )
    for other in ("tests", "benchmarks", "examples", "docs"):
        shutil.copytree(ROOT / other, folder / other)
    for name in SOURCES:
        shutil.copy(ROOT / name, folder / name)
    subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(folder / "dist"), str(folder)],
        env={**os.environ, "REPOSITORY": REPOSITORY},
        capture_output=True,
        check=True,
    )
    return folder / "dist"


def names_of_package() -> set[str]:
    """All files of the package."""
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "larq_nas").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        metadata = message_from_bytes(
            file.read(next(name for name in names if name.endswith("/METADATA")))
        )
    info = f"larq_nas-{larq_nas.__version__}.dist-info/"
    assert {name for name in names if not name.startswith(info)} == names_of_package()
    assert f"{info}licenses/LICENSE" in names
    assert f"{info}entry_points.txt" in names
    assert metadata["License"] == "Apache-2.0"
    for field in ("Author", "Keywords", "Classifier", "Project-URL", "Summary"):
        assert metadata[field], field
    links = re.findall(r"\]\(([^)#]+)\)", metadata.get_payload())
    assert f"{REPOSITORY}/blob/main/CHANGELOG.md" in links
    assert all(link.startswith(("https://", "http://")) for link in links)


@pytest.mark.slow
def test_the_sdist_holds_what_builds_the_wheel(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as file:
        names = {
            name.partition("/")[2] for name in file.getnames() if file.getmember(name).isfile()
        }
    others = {name for name in names if not name.startswith(("larq_nas/", "larq_nas.egg-info/"))}
    assert others == {*SOURCES, "PKG-INFO", "setup.cfg"}
    assert names_of_package() <= names


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("twine"), reason="needs twine")
def test_the_index_can_render_the_long_description(built: Path) -> None:
    files = map(str, built.iterdir())
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *files], check=True)


def test_the_dockerfile_copies_what_there_is() -> None:
    copied = re.findall(r"^COPY (.*) \./?\S*$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    for name in " ".join(copied).split():
        assert (ROOT / name).exists(), name
