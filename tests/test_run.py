import json
from pathlib import Path
from typing import Any

import pytest

from larq_nas.errors import InputError
from larq_nas.files import replacing
from larq_nas.run_directory import RunDirectory, differences, flat, read_settings

SETTINGS = {"seed": 0, "space": {"name": "bats", "cells": 5}, "betas": (0.5, 0.9)}


def enter(directory: Path, settings: dict = SETTINGS, **options: bool) -> None:
    with RunDirectory(directory, settings, **options):
        pass


def test_the_same_settings_go_on(tmp_path) -> None:
    enter(tmp_path / "a" / "b")
    before = (tmp_path / "a" / "b" / "settings.json").stat().st_mtime_ns
    enter(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b" / "settings.json").stat().st_mtime_ns == before


def test_other_settings_are_refused_and_named(tmp_path) -> None:
    enter(tmp_path)
    other = {"seed": 1, "space": {"name": "bats", "cells": 8}, "betas": (0.5, 0.9)}
    message = r"other settings \(seed was 0, now 1; space.cells was 5, now 8\)"
    with pytest.raises(InputError, match=message):
        enter(tmp_path, other)
    enter(tmp_path)


def test_what_differs_is_told_in_few_words() -> None:
    old = {
        "space": {"name": "bats", "cells": 5},
        "choices": {f"normal/{node}": [["conv"], node] for node in range(20)},
        "data": {"content_and_order": "12345678", "classes": 10},
    }
    questions = {f"stage{number}": ["filters", number] for number in range(20)}
    new: dict[str, Any] = {**old, "space": {"name": "vgg_small", "ratios": [1]}}
    other = differences(flat(old), flat({**new, "choices": questions}))
    assert other == "space.name was 'bats', now 'vgg_small'"
    assert differences(flat(old), flat({**old, "choices": questions})) == (
        "other questions of the space"
    )
    data = {"content_and_order": "12345679", "classes": 3}
    assert differences(flat(old), flat({**old, "data": data})) == (
        "data.classes was 10, now 3; other training images, labels or order of them"
    )
    long = differences({}, {f"recipe.{number}": "x" * 1000 for number in range(30)})
    assert long.endswith("; and 18 more")
    assert len(long) < 1500


def test_a_run_is_not_resumed_against_ones_will(tmp_path) -> None:
    enter(tmp_path)
    with pytest.raises(InputError, match="holds a run already"):
        enter(tmp_path, resume=False)


def test_directories_that_cannot_be_used_are_refused(tmp_path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / ".writing-mine").mkdir()
    with pytest.raises(InputError, match=r"`directory` must be a folder, but .* is a file"):
        enter(tmp_path / "file")
    with pytest.raises(InputError, match="`directory` must be writable"):
        enter(tmp_path / "file" / "run")
    with pytest.raises(InputError, match="holds other files, such as file"):
        enter(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"file", ".writing-mine"}
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "settings.json").write_text("{")
    with pytest.raises(InputError, match="not the settings of a run"):
        enter(tmp_path / "foreign")


def test_a_directory_is_a_path() -> None:
    with pytest.raises(InputError, match="`directory` must be a path, but got 3"):
        RunDirectory(3, SETTINGS)  # type: ignore[arg-type]


def test_two_processes_do_not_share_a_directory(tmp_path) -> None:
    """The second is refused, and the first goes on writing what it was writing."""
    with RunDirectory(tmp_path, SETTINGS) as run:
        with replacing(run.history) as path:
            path.write_text("whole")
            with pytest.raises(InputError, match="Another process works in"):
                enter(tmp_path)
            with pytest.raises(InputError, match="Another process works in"):
                enter(tmp_path, {"seed": 5})
        assert run.history.read_text() == "whole"
    enter(tmp_path)


def test_what_a_killed_process_left_is_removed(tmp_path) -> None:
    (tmp_path / ".writing-x").mkdir()
    enter(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"settings.json", ".lock"}


@pytest.mark.parametrize("schema", [1, 2, 3])
def test_a_run_of_an_earlier_version_is_read_and_not_continued(tmp_path, schema: int) -> None:
    record = {"schema": schema, "settings": SETTINGS}
    (tmp_path / "settings.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"is a run of an earlier larq_nas.* larq-nas train\."):
        enter(tmp_path)
    assert read_settings(tmp_path) == json.loads(json.dumps(SETTINGS))
    (tmp_path / "settings.json").write_text(json.dumps({**record, "schema": 9}))
    with pytest.raises(InputError, match="has schema 9, but this larq_nas reads up to 4: upgrade"):
        read_settings(tmp_path)
