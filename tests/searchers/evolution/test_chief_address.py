"""Who reaches the port of a chief, by real sockets."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import larq_nas  # isort: skip  (it prepares TensorFlow)
import pytest
from keras_tuner.engine.trial import TrialStatus
from keras_tuner.src.distribute.oracle_client import OracleClient

from larq_nas.errors import InputError
from larq_nas.searchers.evolution.generation import Breeder, Genes, Genetic
from larq_nas.searchers.evolution.oracle import EvolutionOracle
from larq_nas.searchers.evolution.processes import chief_address, is_loopback
from larq_nas.searchers.evolution.tuner import EvolutionTuner

LOOPBACK = ("127.0.0.1", "127.0.1.1", "localhost", "[::1]")
OPEN = ("0.0.0.0", "[::]", "10.0.0.1", "no.such.name.invalid", "192.0.2.1")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def other_address() -> str:
    """Return an address by which other machines would reach this one, or skip the test."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Sends nothing: it asks which of its addresses this machine would send from.
            probe.connect(("198.51.100.1", 9))
        except OSError:
            pytest.skip("needs a network, if only to have an address in it")
        return probe.getsockname()[0]


def answers(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(5)
        return probe.connect_ex((host, port)) == 0


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    found = free_port()
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "chief")
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", str(found))
    monkeypatch.delenv("LARQ_NAS_CHIEF_ADDRESS", raising=False)
    return found


@contextmanager
def listening(directory: Path, port: int, lines: list[str]) -> Iterator[None]:
    """Run a chief whose search is over as soon as a worker asks."""
    breeder = Breeder(Genes({"a": (0.5, 1)}), Genetic(), 2, 0)
    oracle = EvolutionOracle(breeder, 0, ("fitness",), lambda *_: {}, announce=lines.append)
    tuner = EvolutionTuner(oracle, lambda: None, directory, keep=0)  # type: ignore[arg-type]
    chief = threading.Thread(target=tuner.search)
    chief.start()
    try:
        while chief.is_alive() and not answers("127.0.0.1", port):
            time.sleep(0.01)
        yield
        assert OracleClient(oracle).create_trial("worker1").status == TrialStatus.STOPPED
    finally:
        chief.join()


def test_a_chief_is_reached_from_this_machine_alone(port: int, tmp_path: Path) -> None:
    lines: list[str] = []
    with listening(tmp_path, port, lines):
        assert answers("127.0.0.1", port)
        assert not answers(other_address(), port)
    assert lines == []


def test_told_so_a_chief_is_reached_by_others_and_says_it(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = other_address()
    monkeypatch.setenv("LARQ_NAS_CHIEF_ADDRESS", "0.0.0.0")
    lines: list[str] = []
    with listening(tmp_path, port, lines):
        assert answers(address, port)
    assert lines == [f"The chief listens at 0.0.0.0:{port} to all who reach it, without a password"]
    assert os.environ["KERASTUNER_ORACLE_IP"] == "127.0.0.1", "What was given has changed."


@pytest.mark.parametrize("address", OPEN)
def test_an_address_that_others_may_reach_must_be_meant(
    address: str, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", address)
    data = larq_nas.datasets.load("digits", 32)
    searcher = larq_nas.searchers.Evolution(population=2)
    with pytest.raises(
        InputError, match=r"asks for no password: use 127\.0\.0\.1, which workers els"
    ):
        larq_nas.search(*data, "vgg_small", searcher, directory=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_addresses_that_this_machine_alone_reaches() -> None:
    assert all(map(is_loopback, LOOPBACK))
    assert not any(map(is_loopback, OPEN))


@pytest.mark.parametrize("wrong", ["eight thousand", "-1", "70000"])
def test_a_port_that_cannot_be_is_refused(
    wrong: str, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", wrong)
    with pytest.raises(InputError, match=rf"cannot listen at 127\.0\.0\.1:{wrong} "):
        chief_address()


def test_a_port_or_an_address_that_is_not_free_is_refused(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(InputError, match="Address already in use"),
    ):
        chief_address()
    monkeypatch.setenv("LARQ_NAS_CHIEF_ADDRESS", "192.0.2.1")
    with pytest.raises(InputError, match=r"cannot listen at 192\.0\.2\.1"):
        chief_address()
