"""The log of larq_nas."""

import logging

import pytest

from larq_nas.log import counted, log


def test_lines_are_printed_to_standard_output_once(capsys: pytest.CaptureFixture[str]) -> None:
    log.info("a line")

    assert capsys.readouterr() == ("a line\n", "")


def test_a_program_takes_the_log_over(
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log, "handlers", [])
    monkeypatch.setattr(log, "propagate", True)

    with caplog.at_level(logging.INFO, "larq_nas"):
        log.info("a line of 100 %")

    assert caplog.messages == ["a line of 100 %"]
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("number", "told"), [(0, "0 epochs"), (1, "1 epoch"), (1600, "1,600 epochs")]
)
def test_numbers_of_things_are_told_as_they_are_said(number: int, told: str) -> None:
    assert counted(number, "epoch") == told
