"""What the oracle hands out, keeps and recovers; candidates are worth what arithmetic says."""

import json
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import larq_nas  # isort: skip  (it prepares TensorFlow)
import numpy as np
import pytest
from keras_tuner.engine.trial import TrialStatus

from larq_nas.errors import InputError
from larq_nas.run_directory import RunDirectory
from larq_nas.searchers import Evolution
from larq_nas.searchers.evolution.candidates import CONFIRMATION, Measured, Plan
from larq_nas.searchers.evolution.generation import Breeder, Genes, Genetic
from larq_nas.searchers.evolution.oracle import (
    Confirmation,
    EvolutionOracle,
    cause,
)
from larq_nas.searchers.evolution.search import EvolutionSearch
from larq_nas.searchers.evolution.tuner import EvolutionTuner

GENES = Genes({"a": (0.25, 0.5, 1, 2), "b": (1, 2, 3), "c": (0.5, 4)})


class Arithmetic:
    """Trains nothing: what a candidate reaches follows from its ratios."""

    def __init__(self, failing: Callable[[Mapping[str, float]], bool] = lambda values: False):
        self.measured: list[int] = []
        self._failing = failing

    def measure(self, values: Mapping[str, float], plan: Plan, callbacks: Sequence[Any] = ()):
        self.measured.append(plan.number)
        if plan.correct:
            np.save(plan.correct, np.arange(8) < 4 * values["c"])
        if self._failing(values):
            raise RuntimeError(f"no memory for {values['a']}")
        # Of more epochs, "c" counts more.
        return Measured(values["a"] / 4 + plan.stops[-1] * values["c"] / 100, 1.0)

    def weights(self) -> dict[str, np.ndarray]:
        return {"layer/0": np.ones(3)}


def make_oracle(lines: list[str] | None = None, timeout: float | None = None, **settings: Any):
    breeder = Breeder(GENES, Genetic(), 4, settings.pop("seed", 0))
    return EvolutionOracle(
        breeder,
        settings.pop("generations", 3),
        ("fitness",),
        lambda candidate, accuracy: {
            "accuracy": accuracy,
            "fitness": 100 * accuracy - GENES.options["b"].index(candidate["b"]),
        },
        timeout,
        (lines if lines is not None else []).append,
        rungs=settings.pop("rungs", (1,)),
        confirmation=settings.pop("confirmation", None),
    )


def run(directory: Path, evaluator: Arithmetic, **settings: Any) -> EvolutionOracle:
    oracle = make_oracle(**settings)
    EvolutionTuner(oracle, lambda is_confirmation: evaluator, directory, keep=2).search()
    return oracle


def values(oracle: EvolutionOracle) -> list[tuple[float, ...]]:
    return [tuple(candidate.values()) for candidate in oracle.candidates]


def test_every_candidate_is_trained_once_and_results_are_those_of_keras_tuner(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluator = Arithmetic()
    oracle = make_oracle()
    tuner = EvolutionTuner(oracle, lambda is_confirmation: evaluator, tmp_path, keep=2)
    tuner.search()
    assert evaluator.measured == list(range(12))
    assert len(set(values(oracle))) == 12
    best = oracle.get_best_trials(1)[0]
    assert best.score == max(trial.score for trial in oracle.trials.values())
    tuner.results_summary(1)
    assert f"Trial {best.trial_id} summary" in capsys.readouterr().out
    found = tuner.get_best_hyperparameters()[0].values
    assert found == oracle.candidates[int(best.trial_id)]


def test_weights_of_the_best_alone_are_kept(tmp_path: Path) -> None:
    oracle = run(tmp_path, Arithmetic())
    best = {trial.trial_id for trial in oracle.get_best_trials(2)}
    kept = {path.parent.name.removeprefix("trial_") for path in tmp_path.rglob("weights.npz")}
    assert kept == best


@pytest.mark.parametrize("ended", range(12))
def test_stopped_anywhere_it_goes_on_to_the_same(tmp_path: Path, ended: int) -> None:
    class Stop(BaseException):
        pass

    class Stopping(Arithmetic):
        def measure(self, values: Mapping[str, float], plan: Plan, callbacks: Any = ()):
            if plan.number == ended:
                raise Stop
            return super().measure(values, plan)

    whole = run(tmp_path / "whole", Arithmetic())
    first, second = Stopping(), Arithmetic()
    with pytest.raises(Stop):
        run(tmp_path / "stopped", first)
    resumed = run(tmp_path / "stopped", second)
    assert first.measured + second.measured == list(range(12))
    assert resumed.candidates == whole.candidates
    assert [t.score for t in resumed.trials.values()] == [t.score for t in whole.trials.values()]


LONG: dict[str, Any] = {
    "rungs": (1, 4),
    "confirmation": Confirmation(2, 8, ({"a": 0.25, "b": 1, "c": 0.5},)),
}


def trainings(oracle: EvolutionOracle) -> list[tuple[Any, ...]]:
    found = [(one.number, one.generation, one.rung, one.source) for one in oracle.trainings]
    return [(*one, oracle.trials[f"{n:04d}"].score) for n, one in enumerate(found)]


def test_the_best_of_a_generation_climb_and_the_best_of_all_are_confirmed(tmp_path: Path) -> None:
    evaluator = Arithmetic()
    oracle = run(tmp_path, evaluator, **LONG)
    assert [len(one) for one in oracle.rounds] == [4, 1, 4, 1, 4, 1, 3]
    for low, high in zip(oracle.rounds[0:6:2], oracle.rounds[1:6:2], strict=True):
        first = oracle.trainings.index(low[0])
        scores = [oracle.trials[f"{first + n:04d}"].score for n in range(4)]
        assert high[0].source == first + int(np.argmax(scores))
        assert high[0].candidate == low[int(np.argmax(scores))].candidate
    # All of a generation one epoch, a quarter of it three more: 7 of 16.
    plans = [one.hyperparameters.values for one in oracle.trials.values()][:15]
    epochs = [one["tuner/epochs"] - one.get("tuner/initial_epoch", 0) for one in plans]
    assert sum(epochs) == 3 * 7
    # A candidate's batches are the same on each rung, and those of the confirmation for all.
    assert evaluator.measured[:5] == [0, 1, 2, 3, oracle.rounds[1][0].number]
    assert evaluator.measured[-3:] == [CONFIRMATION] * 3
    best = max(oracle.rounds[1::2][:3], key=lambda one: trainings(oracle)[one[0].source][-1])
    assert best[0].number in [one.number for one in oracle.rounds[-1]]
    assert not list(tmp_path.rglob("state.npz"))


@pytest.mark.parametrize("ended", range(18))
def test_rungs_and_confirmation_go_on_to_the_same(tmp_path: Path, ended: int) -> None:
    class Stop(BaseException):
        pass

    class Stopping(Arithmetic):
        def measure(self, values: Mapping[str, float], plan: Plan, callbacks: Any = ()):
            if len(self.measured) == ended:
                raise Stop
            return super().measure(values, plan)

    whole = run(tmp_path / "whole", Arithmetic(), **LONG)
    first, second = Stopping(), Arithmetic()
    with pytest.raises(Stop):
        run(tmp_path / "stopped", first, **LONG)
    resumed = run(tmp_path / "stopped", second, **LONG)
    assert trainings(resumed) == trainings(whole)
    assert len(first.measured) + len(second.measured) == 18


@pytest.mark.parametrize("settings", [{}, LONG])
def test_more_generations_are_those_of_having_asked_at_first(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    whole = run(tmp_path / "whole", Arithmetic(), generations=4, **settings)
    run(tmp_path / "run", Arithmetic(), generations=2, **settings)
    evaluator = Arithmetic()
    continued = run(tmp_path / "run", evaluator, generations=4, **settings)
    assert trainings(continued) == trainings(whole)
    done = len(whole.generations[0]) * 2 + (2 if settings else 0)
    assert len(evaluator.measured) == len(whole.trainings) - done
    kept = {path.parent.name for path in (tmp_path / "whole").rglob("weights.npz")}
    assert {path.parent.name for path in (tmp_path / "run").rglob("weights.npz")} == kept


def test_a_confirmation_that_no_state_knows_of_is_no_trial_of_more_generations(
    tmp_path: Path,
) -> None:
    # Killed between the two files that keras-tuner writes of a trial.
    whole = run(tmp_path / "whole", Arithmetic(), generations=3)
    run(tmp_path / "killed", Arithmetic(), generations=2)
    folder = tmp_path / "killed" / "trials"
    trial = json.loads((folder / "trial_0000" / "trial.json").read_text())
    trial |= {"trial_id": "0008", "status": "RUNNING"}
    trial["hyperparameters"]["values"] |= {"tuner/epochs": 8, "tuner/round": "confirmation"}
    (folder / "trial_0008").mkdir()
    (folder / "trial_0008" / "trial.json").write_text(json.dumps(trial))
    assert trainings(run(tmp_path / "killed", Arithmetic(), generations=3)) == trainings(whole)


def test_what_failed_on_a_later_rung_is_not_confirmed(tmp_path: Path) -> None:
    class Failing(Arithmetic):
        def measure(self, values: Mapping[str, float], plan: Plan, callbacks: Any = ()):
            if plan.stops == (1, 4) and plan.number < 4:
                raise RuntimeError("no memory")
            return super().measure(values, plan)

    oracle = run(tmp_path, Failing(), **{**LONG, "confirmation": Confirmation(9, 8)})
    ((failed,),) = [one for one in oracle.rounds if one[0].rung == 1 and one[0].number < 4]
    assert failed.number not in [training.number for training in oracle.rounds[-1]]
    assert len(oracle.rounds[-1]) == 9


def concluding(tmp_path: Path, evaluator: Arithmetic) -> tuple[EvolutionSearch, EvolutionOracle]:
    oracle = run(tmp_path, evaluator, **LONG)
    incumbents = LONG["confirmation"].incumbents
    nothing: Any = None
    of_run = (nothing, nothing, 3, nothing, oracle.breeder, nothing, incumbents)
    return EvolutionSearch(Evolution(), *of_run), oracle


def test_a_given_network_that_nothing_is_confirmed_against_is_told(tmp_path: Path) -> None:
    oracle = run(tmp_path, Arithmetic(), generations=1)
    (best, *_), nothing = oracle.trainings, cast(Any, None)
    of_run = (nothing, nothing, 1, nothing, oracle.breeder, nothing, (best.candidate,))
    search = EvolutionSearch(Evolution(), *of_run)
    with pytest.warns(UserWarning, match=r"No candidate .* better .* given .*, which is returned"):
        assert search._named(oracle, RunDirectory(tmp_path, {}), best, 0) == [best]


def test_the_best_so_far_is_of_trainings_that_are_as_long(tmp_path: Path) -> None:
    lines: list[str] = []
    oracle = run(tmp_path, Arithmetic(), lines=lines, **LONG)
    told = [float(line.split("(best ")[1][:-1]) for line in lines if "(best " in line]
    best: dict[int | None, float] = {}
    for training, (*_, score), one in zip(oracle.trainings, trainings(oracle), told, strict=True):
        best[training.rung] = max(score, best.get(training.rung, 0))
        assert one == pytest.approx(best[training.rung], abs=0.01)


def test_trainings_of_the_confirmation_that_fail_are_told(tmp_path: Path) -> None:
    class Failing(Arithmetic):
        def measure(self, values: Mapping[str, float], plan: Plan, callbacks: Any = ()):
            if plan.correct:
                raise RuntimeError("no memory")
            return super().measure(values, plan)

    search, oracle = concluding(tmp_path, Failing())
    with pytest.warns(UserWarning, match=r"3 trainings of the confirmation failed, of cand"):
        assert search._confirmed(oracle, RunDirectory(tmp_path, {}), 0) == []


@pytest.mark.parametrize("content", [None, b"", b"\x93NUMPY"])
def test_a_damaged_part_of_the_confirmation_is_named(tmp_path: Path, content: bytes | None) -> None:
    search, oracle = concluding(tmp_path, Arithmetic())
    path = next(tmp_path.rglob("correct.npy"))
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(InputError, match=r"correct.npy` is damaged .*: delete its folder"):
        search._confirmed(oracle, RunDirectory(tmp_path, {}), 0)
    # As it says.
    shutil.rmtree(path.parent)
    again = run(tmp_path, Arithmetic(), **LONG)
    ranked = search._confirmed(again, RunDirectory(tmp_path, {}), 0)
    assert sorted(ranked, key=lambda one: one.number) == list(again.rounds[-1])


def test_what_was_confirmed_is_ranked_by_that(tmp_path: Path) -> None:
    search, oracle = concluding(tmp_path, Arithmetic())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ranked = search._confirmed(oracle, RunDirectory(tmp_path, {}), 0)
    scores = {t.number: oracle.figures(trial)["fitness"] for t, trial in oracle.completed(True)}
    found = [scores[one.number] for one in ranked]
    # The one that is named goes first, the others by their fitness.
    assert found[1:] == sorted(found[1:], reverse=True)
    assert sorted(scores) == sorted(one.number for one in ranked)


def test_the_state_that_is_kept_is_complete(tmp_path: Path) -> None:
    oracle = run(tmp_path, Arithmetic())
    state = json.loads(json.dumps(oracle.get_state()))
    found = [[training["candidate"] for training in one] for one in state["rounds"]]
    assert found == [list(one) for one in oracle.generations]
    assert state["random_state"] == [0, 3]
    other = make_oracle()
    other.trials = oracle.trials
    other.set_state(state)
    assert other.get_state() == oracle.get_state()
    assert other.scored() == oracle.scored()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_state_is_recovered_from_the_one_before(tmp_path: Path, share: float) -> None:
    whole = run(tmp_path, Arithmetic())
    path = tmp_path / "trials" / "oracle.json"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    evaluator = Arithmetic()
    with pytest.warns(UserWarning, match=r"oracle.json` is damaged .* going on from"):
        resumed = run(tmp_path, evaluator)
    assert evaluator.measured == []
    assert resumed.candidates == whole.candidates


@pytest.mark.parametrize("content", ["{", "{}", None])
def test_without_a_state_it_follows_from_the_trials(tmp_path: Path, content: str | None) -> None:
    whole = run(tmp_path, Arithmetic())
    for path in (tmp_path / "trials").glob("oracle*.json"):
        path.unlink() if content is None else path.write_text(content)
    evaluator = Arithmetic()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        resumed = run(tmp_path, evaluator)
    said = [str(one.message) for one in told if "oracle.json` is damaged" in str(one.message)]
    assert len(said) == 1
    assert evaluator.measured == []
    assert resumed.scored() == whole.scored()


@pytest.mark.parametrize("with_state", [True, False])
@pytest.mark.parametrize("content", ["{", "{}", None])
def test_a_trial_that_is_damaged_or_gone_is_run_again(
    tmp_path: Path, content: str | None, with_state: bool
) -> None:
    whole = run(tmp_path, Arithmetic())
    path = tmp_path / "trials" / "trial_0002" / "trial.json"
    path.unlink() if content is None else path.write_text(content)
    if not with_state:
        for state in (tmp_path / "trials").glob("oracle*.json"):
            state.unlink()
    evaluator = Arithmetic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        resumed = run(tmp_path, evaluator)
    assert 2 in evaluator.measured
    # Without the state, generations after it are bred from its score, and trained again.
    assert with_state == (evaluator.measured == [2])
    assert resumed.scored() == whole.scored()


def test_trials_of_another_search_are_refused(tmp_path: Path) -> None:
    run(tmp_path, Arithmetic())
    for path in (tmp_path / "trials").glob("oracle*.json"):
        state = json.loads(path.read_text())
        state["rounds"][0][0]["candidate"] = {"a": 9, "b": 9, "c": 9}
        path.write_text(json.dumps(state))
    with pytest.raises(InputError, match="is not of this search"):
        run(tmp_path, Arithmetic())


def test_candidates_that_fail_are_told_and_the_search_goes_on(tmp_path: Path) -> None:
    lines: list[str] = []
    evaluator = Arithmetic(lambda values: values["a"] == 2)
    oracle = run(tmp_path, evaluator, lines=lines)
    assert evaluator.measured == list(range(12))
    failed = [i for i, candidate in enumerate(oracle.candidates) if candidate["a"] == 2]
    assert [int(trial.trial_id) for trial in oracle.failures] == failed != []
    told = [line for line in lines if "failed" in line]
    widths = ", ".join(f"{name}={value}" for name, value in oracle.candidates[failed[0]].items())
    assert told[0] == (
        f"Candidate {failed[0] + 1}/4 ({widths}) failed: RuntimeError: no memory for 2"
    )


def test_accuracies_that_are_not_numbers_are_failures(tmp_path: Path) -> None:
    class NotANumber(Arithmetic):
        def measure(self, values: Mapping[str, float], plan: Plan, callbacks: Any = ()):
            return Measured(float("nan") if plan.number == 1 else 0.5, 1.0)

    oracle = run(tmp_path, NotANumber())
    assert [trial.trial_id for trial in oracle.failures] == ["0001"]
    assert cause(oracle.failures[0]) == "its accuracy is not a number"


def test_where_a_whole_first_generation_fails_the_search_ends(tmp_path: Path) -> None:
    evaluator = Arithmetic(lambda values: True)
    oracle = run(tmp_path, evaluator)
    assert oracle.all_failed
    assert evaluator.measured == [0, 1, 2, 3]


def ask(oracle: EvolutionOracle, worker: str) -> Any:
    return oracle.create_trial(worker)


def end(oracle: EvolutionOracle, trial: Any) -> None:
    oracle.update_trial(trial.trial_id, {"fitness": 1.0, "accuracy": 0.1, "loss": 1.0})
    trial.status = TrialStatus.COMPLETED
    oracle.end_trial(trial)


def test_workers_wait_for_the_rest_of_a_generation(tmp_path: Path) -> None:
    oracle = make_oracle()
    oracle._set_project_dir(str(tmp_path), "trials")
    trials = [ask(oracle, f"worker{n}") for n in range(4)]
    assert [trial.trial_id for trial in trials] == ["0000", "0001", "0002", "0003"]
    for trial in trials[:0:-1]:
        end(oracle, trial)
    assert ask(oracle, "worker3").status == TrialStatus.IDLE
    end(oracle, trials[0])
    assert ask(oracle, "worker3").trial_id == "0004"


def test_a_worker_that_asks_again_is_given_what_it_has(tmp_path: Path) -> None:
    oracle = make_oracle(timeout=100)
    oracle._set_project_dir(str(tmp_path), "trials")
    first = ask(oracle, "worker1")
    assert ask(oracle, "worker1").trial_id == first.trial_id
    assert ask(oracle, "worker2").trial_id != first.trial_id


def test_what_a_silent_worker_has_is_given_to_another_and_ends_once(tmp_path: Path) -> None:
    lines: list[str] = []
    oracle = make_oracle(lines, timeout=100)
    oracle._set_project_dir(str(tmp_path), "trials")
    first = ask(oracle, "worker1")
    oracle._heard["worker1"] -= 101
    taken = ask(oracle, "worker2")
    assert taken.trial_id == first.trial_id
    assert "Worker worker1 has not been heard of for 100 s: candidate 1 is given" in lines[-1]
    end(oracle, taken)
    score = oracle.trials["0000"].score
    first.status = TrialStatus.COMPLETED
    oracle.update_trial("0000", {"fitness": 99.0, "accuracy": 0.9, "loss": 1.0})
    oracle.end_trial(first)
    assert oracle.trials["0000"].score == score
    assert oracle.end_order == ["0000"]


def test_a_worker_that_reports_is_not_taken_for_lost(tmp_path: Path) -> None:
    oracle = make_oracle(timeout=100)
    oracle._set_project_dir(str(tmp_path), "trials")
    trial = ask(oracle, "worker1")
    oracle._heard["worker1"] -= 101
    oracle.update_trial(trial.trial_id, {})
    assert ask(oracle, "worker2").trial_id != trial.trial_id


def test_a_candidate_that_workers_are_lost_with_again_and_again_fails(tmp_path: Path) -> None:
    oracle = make_oracle(timeout=100)
    oracle._set_project_dir(str(tmp_path), "trials")
    for number in range(3):
        assert ask(oracle, f"worker{number}").trial_id == "0000"
        oracle._heard[f"worker{number}"] -= 101
    assert ask(oracle, "worker9").trial_id == "0001"
    assert cause(oracle.trials["0000"]) == "3 workers were lost while they trained it"


def test_the_chief_does_not_wait_for_lost_workers(tmp_path: Path) -> None:
    oracle = make_oracle(timeout=100)
    oracle._set_project_dir(str(tmp_path), "trials")
    ask(oracle, "worker1")
    assert len(oracle.tuner_ids) == 1
    oracle._heard["worker1"] -= 101
    assert len(oracle.tuner_ids) == 0


assert larq_nas
