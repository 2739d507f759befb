import pytest

from larq_nas.errors import InputError
from larq_nas.run import Run

SETTINGS = {"seed": 0, "space": {"name": "bats", "cells": 5}, "betas": (0.5, 0.9)}


def test_the_same_settings_go_on(tmp_path) -> None:
    Run(tmp_path / "a" / "b", SETTINGS)
    assert Run(tmp_path / "a" / "b", SETTINGS).directory.name == "b"


def test_other_settings_are_refused_and_named(tmp_path) -> None:
    Run(tmp_path, SETTINGS)
    other = {"seed": 1, "space": {"name": "bats", "cells": 8}, "betas": (0.5, 0.9)}
    with pytest.raises(
        InputError, match=r"other settings \(seed was 0, now 1; space.cells was 5, now 8\)"
    ):
        Run(tmp_path, other)
    Run(tmp_path, SETTINGS)


def test_a_run_is_not_resumed_against_ones_will(tmp_path) -> None:
    Run(tmp_path, SETTINGS)
    with pytest.raises(InputError, match="holds a run already"):
        Run(tmp_path, SETTINGS, resume=False)


def test_directories_that_cannot_be_used_are_refused(tmp_path) -> None:
    (tmp_path / "file").write_text("x")
    for directory in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(InputError, match="`directory` must be writable"):
            Run(directory, SETTINGS)
    with pytest.raises(InputError, match="holds other files, such as file"):
        Run(tmp_path, SETTINGS)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "settings.json").write_text("{")
    with pytest.raises(InputError, match="not the settings of a run"):
        Run(tmp_path / "foreign", SETTINGS)


def test_two_processes_do_not_share_a_directory(tmp_path) -> None:
    with Run(tmp_path, SETTINGS):
        other, message = Run(tmp_path, SETTINGS), "Another process works in"
        with pytest.raises(InputError, match=message), other:
            pass
    with Run(tmp_path, SETTINGS):
        pass


def test_what_a_killed_process_left_is_removed(tmp_path) -> None:
    (tmp_path / ".writing-x").mkdir()
    Run(tmp_path, SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["settings.json"]
