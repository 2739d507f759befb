"""The HTML report: its figures, what a browser shows of it, and what is refused."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import larq_nas  # isort: skip  (it prepares TensorFlow)
import numpy as np
import pytest
from click.testing import CliRunner

from larq_nas.cli import main
from larq_nas.errors import InputError
from larq_nas.report.charts import Section, bars, dots, lines, thinned
from larq_nas.report.report import report

CHROMIUM = next((path for path in map(shutil.which, ("chromium", "google-chrome")) if path), None)
BINARY = {"stages": ("binary",)}
SEARCHES: dict[str, dict[str, Any]] = {
    "bats": {
        "space": larq_nas.spaces.Bats(cells=5, channels=4, nodes=2),
        "searcher": larq_nas.searchers.Progressive(stage_cells=(3, 5), stage_operations=(8, 3)),
        "budget": {"flatbuffer_bytes": "100KB"},
    },
    "bnas": {"space": larq_nas.spaces.Bnas(cells=1, channels=4, nodes=2)},
    "dms": {
        "method": "dms_a",
        "space": larq_nas.spaces.VggSmall(ratios=(0.05, 0.1)),
        "searcher": {
            "weight_epochs": 1,
            "initial_ratio": 0.5,
            "least_mean": 0.1,
            "least_ratio": 0.1,
        },
    },
    "evolution": {
        "space": larq_nas.spaces.VggSmall(ratios=(0.05, 0.1)),
        "searcher": larq_nas.searchers.Evolution(
            population=4, candidate_epochs=1, widest_epochs=0, subset=300
        ),
    },
}


def search(name: str, directory: Path, **changes: Any) -> None:
    train, validation = larq_nas.datasets.load("digits", batch_size=96)
    arguments = {"epochs": 2, "train_epochs": 1, "recipe": BINARY, **SEARCHES[name], **changes}
    larq_nas.search(train, validation, directory=directory, verbose=0, **arguments)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "bnas"
    search("bnas", directory)
    return directory


def figures(path: Path) -> Any:
    _, _, rest = path.read_text(encoding="utf-8").partition('id="figures">')
    return json.loads(rest.partition("</script>")[0])


def require_fields(path: Path) -> None:
    """Fail if a chart draws a column that its rows do not have, which Vega leaves empty."""
    (line,) = (line for line in path.read_text().splitlines() if line.startswith("const charts = "))
    charts = json.loads(line.removeprefix("const charts = ").removesuffix(";"))
    assert charts
    for chart in charts:
        for layer in chart.get("layer", [chart]):
            rows = chart["datasets"][layer["data"]["name"]]
            encoding = dict(layer.get("encoding", {}))
            for place in [*encoding.pop("tooltip", []), *encoding.values()]:
                field = place["field"]
                assert any(field in row for row in rows), (chart.get("title"), field)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


def shown(browser: Any, path: Path) -> Any:
    """Return the page as it is shown, after it was held to what every report promises."""
    page = browser.new_page()
    messages: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    require_fields(path)
    page.goto(path.resolve().as_uri())
    places = page.locator(".charts > div").count()
    page.wait_for_function(
        "n => document.querySelectorAll('.charts > div svg.marks').length === n", arg=places
    )
    assert messages == []
    assert requests == [path.resolve().as_uri()]
    assert path.stat().st_size < 5_000_000
    return page


def test_a_search_leaves_a_report_of_the_figures_of_its_result(run: Path) -> None:
    result = json.loads((run / "result.json").read_text())
    (found,) = figures(run / "report.html")
    assert found == {name: result[name] for name in found}
    assert {"accuracy", "loss", "bytes", "costs", "budget"} <= found.keys()


def test_a_browser_shows_the_figures_and_draws_every_chart(run: Path, browser: Any) -> None:
    result = json.loads((run / "result.json").read_text())
    page = shown(browser, run / "report.html")
    text = page.locator("main").inner_text()
    assert f"{result['accuracy']:.2%}" in text
    assert f"{result['bytes']:,} bytes" in text
    margin = 1.96 * (result["accuracy"] * (1 - result["accuracy"]) / 360) ** 0.5
    assert f"margin for so many images: {100 * margin:.1f} percentage points more or less" in text
    assert "chance is 10.0%" in text
    assert f"{result['costs']['binary_macs']:,}" in text
    assert all(layer["layer"] in text for layer in result["audit"]["layers"])
    architecture = json.loads((run / "architecture.json").read_text())
    drawn = page.locator(".drawing svg text").all_text_contents()
    for pairs in architecture["choices"].values():
        assert all(operation in drawn for operation, _ in pairs)
    # The probabilities of another edge are shown where it is chosen.
    chosen = page.locator("select").first
    options = chosen.locator("option").all_inner_texts()
    assert len(options) == 5
    chosen.select_option(options[-1])
    assert page.locator(".charts svg").count() > 4


def test_the_call_in_it_gives_the_run_again(run: Path) -> None:
    record = json.loads((run / "settings.json").read_text())["start"]
    train, validation = larq_nas.datasets.load("digits", batch_size=96)
    names = {"larq_nas": larq_nas, "train": train, "validation": validation, "run": run}
    call = record["call"].removesuffix(")")
    # A run of other settings would be refused.
    again = eval(f"{call}, directory=run, return_result=True)", names)
    assert again.accuracy == json.loads((run / "result.json").read_text())["accuracy"]
    assert record["versions"]["larq"]


def test_a_run_that_goes_on_is_shown_as_far_as_it_is(
    run: Path, tmp_path: Path, browser: Any
) -> None:
    for name in ("settings.json", "history.csv", "probabilities.csv"):
        shutil.copy(run / name, tmp_path)
    page = shown(browser, report(tmp_path))
    assert page.locator(".status").inner_text().startswith("not finished: stage train_binary")
    assert "Why these operations" in page.locator("main").inner_text()
    assert figures(tmp_path / "report.html") == [{}]
    # A report is no sign of life of the run.
    for path in tmp_path.iterdir():
        os.utime(path, (0, 0))
    for _ in range(2):
        assert "last file written 1970-01-01" in report(tmp_path).read_text()
    # It is the run's own file: the run goes on beside it.
    with larq_nas.run_directory.RunDirectory(
        tmp_path, json.loads((run / "settings.json").read_text())["settings"]
    ):
        report(tmp_path)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("result.json", b"\xff{"),
        ("result.json", b"[1]"),
        ("result.json", b'{"accuracy": "high"}'),
        ("result.json", b'{"accuracy": 0.5, "costs": {}, "bytes": 3, "audit": 4}'),
        ("result.json", b'{"accuracy": 0.5, "costs": {"macs": "many"}, "bytes": "3"}'),
        ("history.csv", b"stage,epoch\nsearch,inf\n"),
        ("history.csv", b"\xff,"),
        ("history.csv", b"stage,epoch\nsearch,first\n"),
        ("probabilities.csv", b"\xff,"),
        ("probabilities.csv", b"epoch,choice\n1,normal\n"),
        ("stages.json", b"{"),
        ("architecture.json", b"{"),
        ("seeds.csv", b"seed\n1\n2\n"),
    ],
)
def test_a_damaged_file_is_named_and_the_rest_is_shown(
    run: Path, tmp_path: Path, name: str, damage: bytes
) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / name).write_bytes(damage)
    text = report(tmp_path / "run").read_text()
    assert f"{name}</code> " in text
    assert "Cells of kind reduction" in text or name == "architecture.json"
    assert "Deployment" in text or name == "result.json"
    report(tmp_path / "run", run, output=tmp_path / "both.html")


@pytest.mark.parametrize(
    "change",
    [
        {"start": [1]},
        {"start": {"versions": [1], "call": 3, "cells": 3, "filters": [1]}},
        {"settings": {}},
        {"settings": {"searcher": "bats", "space": "bats", "data": [1]}},
        {"settings": {"data": {"classes": {"a": 1}, "validation_examples": "many"}}},
    ],
)
def test_damaged_settings_cost_their_own_part_alone(
    run: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    shutil.copytree(run, tmp_path / "run")
    record = json.loads((run / "settings.json").read_text())
    (tmp_path / "run" / "settings.json").write_text(json.dumps({**record, **change}))
    assert "Deployment" in report(tmp_path / "run").read_text()
    report(tmp_path / "run", run, output=tmp_path / "both.html")


def test_what_is_no_run_is_refused(run: Path, tmp_path: Path) -> None:
    for wrong, told in (
        (tmp_path, "holds no run"),
        (tmp_path / "absent", "holds no run"),
        (3, "`runs` must be directories of runs, but got 3"),
    ):
        with pytest.raises(InputError, match=told):
            report(wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="`runs` must name the directory of a run"):
        report()
    with pytest.raises(InputError, match="`output` must be given with several runs"):
        report(run, run)
    with pytest.raises(InputError, match=r"`output` must be a file, such as report\.html, but"):
        report(run, output=3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="Cannot write"):
        report(run, output=tmp_path / "absent" / "report.html")
    (tmp_path / "comparison.json").write_text("{")
    with pytest.raises(InputError, match="damaged, or not of a comparison"):
        report(tmp_path)


class Stranger:
    """A searcher of one's own that has a part in the report."""

    name = "stranger"

    def __init__(self, found: Any) -> None:
        self.found = found

    def report(self, directory: Any) -> Any:
        return self.found(directory)


@pytest.fixture
def own_run(run: Path, tmp_path: Path) -> Path:
    """Return a run of a searcher of one's own."""
    shutil.copytree(run, tmp_path / "own")
    record = json.loads((run / "settings.json").read_text())
    record["settings"]["searcher"] = {"name": Stranger.name}
    (tmp_path / "own" / "settings.json").write_text(json.dumps(record))
    return tmp_path / "own"


def test_a_searcher_of_ones_own_shows_its_part(run: Path, own_run: Path, tmp_path: Path) -> None:
    searcher: Any = Stranger(
        lambda directory: [
            Section(
                "Mine",
                "My search has ended.",
                rows=[{"file": directory.history.name, "value": np.float32(0.5)}],
                charts=[lines([{"epoch": np.int64(1), "value": np.float32(2)}], "epoch", "value")],
            )
        ]
    )
    text = report(own_run, searcher=searcher).read_text()
    assert "My search has ended." in text
    assert "history.csv" in text
    # A run of another searcher keeps its own.
    both = report(own_run, run, searcher=searcher, output=tmp_path / "both.html").read_text()
    assert both.count("My search has ended.") == 1
    assert "Why these operations" in both


@pytest.mark.parametrize(
    "found",
    [
        lambda directory: 1 / 0,
        lambda directory: None,
        lambda directory: ["text"],
        lambda directory: [Section("Mine", rows=[3])],  # type: ignore[list-item]
        lambda directory: [Section("Mine", drawings=["<svg/>"])],  # type: ignore[list-item]
        lambda directory: [Section("Mine", charts=["bars"])],
        lambda directory: [Section("Mine", charts=[{"data": object()}])],
    ],
)
def test_a_searcher_whose_part_fails_costs_no_other(own_run: Path, found: Any) -> None:
    searcher: Any = Stranger(found)
    text = report(own_run, searcher=searcher).read_text()
    told = "The part of searcher <code>stranger</code> is left out: its <code>report</code> failed"
    assert told in text
    assert "Deployment" in text


def test_charts_of_odd_names_and_values_are_drawn(own_run: Path, browser: Any) -> None:
    rows = [
        {"epoch": 1, name: value, "other": 1.0}
        for name in ("a.b[0]", "it's", 'say "x"', "a\\b", "ü<b>")
        for value in (0.5, float("nan"), float("inf"))
    ]
    names = [name for row in rows for name in row if name not in ("epoch", "other")]
    charts = [dots(rows, "epoch", name, title=name) for name in dict.fromkeys(names)]
    charts += [bars(rows, name, "epoch", color=name) for name in dict.fromkeys(names)]
    nothing = [{"epoch": 1, "loss": float("nan")}]
    charts += [lines(nothing, "epoch", "loss"), dots([], "a", "b"), bars([], "a", "b")]
    searcher: Any = Stranger(lambda directory: [Section("Mine", charts=charts)])
    page = shown(browser, report(own_run, searcher=searcher))
    assert page.locator(".charts svg text", has_text="no finite values").count() == 3


def test_a_search_is_imported_without_what_draws_reports() -> None:
    code = (
        "import larq_nas, sys;"
        "print({'altair', 'jinja2', 'networkx', 'vl_convert'}.intersection(sys.modules))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "set()"


def test_the_command_writes_it(run: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        main, ["report", str(run), str(run), "--output", str(tmp_path / "two.html")]
    )
    assert result.exit_code == 0, result.output
    assert len(figures(tmp_path / "two.html")) == 2
    require_fields(tmp_path / "two.html")
    refused = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert refused.exit_code == 1
    assert "holds no run" in refused.output


def test_a_latency_that_was_measured_is_shown_with_its_device(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    command = ["latency", str(tmp_path / "run"), "--kernel", "indirect", "--runs", "5"]
    for _ in range(2):
        result = CliRunner().invoke(main, [*command, "--per-operation"])
        assert result.exit_code == 0, result.output
    (kept,) = json.loads((tmp_path / "run" / "latencies.json").read_text())
    text = report(tmp_path / "run").read_text()
    assert f"{kept['microseconds'] / 1000:.3g} ms" in text
    assert kept["device"] in text
    assert "Latency by operation" in text
    # Of another flatbuffer it says nothing.
    with open(tmp_path / "run" / "model.tflite", "ab") as file:
        file.write(b"1")
    assert "latency, measured" not in report(tmp_path / "run").read_text()
    # Where it cannot be kept, it is told all the same.
    (tmp_path / "run" / "latencies.json").unlink()
    (tmp_path / "run" / "latencies.json").mkdir()
    shutil.copy(run / "model.tflite", tmp_path / "run")
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert "is not kept in" in result.output
    assert " ms (middle half of 5 runs" in result.output


def test_runs_of_other_data_are_shown_apart(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "other")
    record = json.loads((run / "settings.json").read_text())
    record["settings"]["data"]["validation_content"] = "another"
    (tmp_path / "other" / "settings.json").write_text(json.dumps(record))
    text = report(run, tmp_path / "other", output=tmp_path / "report.html").read_text()
    assert "data 1 of 2" in text
    assert "Runs of other data cannot be compared" in text
    same = report(run, run, output=tmp_path / "same.html").read_text()
    assert "cannot be compared" not in same


@pytest.mark.slow
def test_each_method_is_shown_alone_and_beside_the_others(
    run: Path, tmp_path: Path, browser: Any
) -> None:
    for name in SEARCHES:
        search(name, tmp_path / name)
        page = shown(browser, tmp_path / name / "report.html")
        assert page.locator(".status").inner_text() == "finished"
        page.close()
    train, validation = larq_nas.datasets.load("digits", batch_size=96)
    larq_nas.compare(
        [tmp_path / "bats", "random:2"],
        train,
        validation,
        directory=tmp_path / "comparison",
        seeds=(0, 1),
        epochs=1,
        recipe=larq_nas.training.Recipe(stages=("binary",)),
        space=larq_nas.spaces.Bats(cells=1, channels=4, nodes=1),
        latency=False,
        verbose=0,
    )
    directories = [tmp_path / name for name in (*SEARCHES, "comparison")]
    page = shown(browser, report(*directories, output=tmp_path / "report.html"))
    text = page.locator("main").inner_text()
    assert "Runs side by side" in text
    assert "2 random bats" in text
    assert len(figures(tmp_path / "report.html")) == 5


def test_a_long_search_is_thinned_and_its_ends_are_shown() -> None:
    rows = [{"epoch": epoch, "edge": edge} for epoch in range(1, 601) for edge in range(300)]
    told = thinned(rows)
    assert len(told) <= 6000
    assert {told[0]["epoch"], told[-1]["epoch"]} == {1, 600}
    assert thinned(rows[:600]) == rows[:600]


def test_text_of_a_run_cannot_become_part_of_the_page(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    evil = "</script><script>alert(1)</script><!--"
    result = json.loads((run / "result.json").read_text())
    result["class_accuracy"] = {evil: 0.5}
    result["warnings"] = [evil]
    (tmp_path / "run" / "result.json").write_text(json.dumps(result))
    assert evil not in report(tmp_path / "run").read_text()


def test_a_network_that_has_learned_nothing_is_told(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    result = json.loads((run / "result.json").read_text())
    result["class_accuracy"] = {"cat": 0.0, "dog": 1.0, "bird": 0.0}
    (tmp_path / "run" / "result.json").write_text(json.dumps(result))
    told = "It takes every image for class dog: it has learned nothing."
    assert told in report(tmp_path / "run").read_text()
    assert "it has learned nothing" not in report(run).read_text()
