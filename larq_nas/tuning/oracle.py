"""The oracle that hands out a search's candidates, generation by generation."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from larq_nas.errors import InputError
from larq_nas.evolution import Breeder, Genome, Scored, scores_of
from larq_nas.tuning.kept import FINAL
from larq_nas.tuning.keras_tuner import Trial, TrialStatus, keras_tuner
from larq_nas.tuning.watched import WatchedOracle, cause

__all__ = ["EvolutionOracle", "Figures"]

Figures = Callable[[Genome, float], Mapping[str, float]]
"""Returns costs and fitness of a candidate of that accuracy."""


class EvolutionOracle(WatchedOracle):
    """Hands out the candidates of one generation after the other.

    A generation follows from the scores of those before and the seed alone, whoever scored
    them and in whichever order. Every candidate is a trial of keras-tuner, with the same number.

    # Arguments
        breeder: makes the generations.
        generations: how many.
        objectives: what to maximize, by name.
        figures: costs and fitness of a candidate.
        worker_timeout: seconds after which what a silent worker had is given to another.
        announce: called with each line for the user.
        record: called with the oracle when all candidates of a generation have ended.
    """

    def __init__(
        self,
        breeder: Breeder,
        generations: int,
        objectives: tuple[str, ...],
        figures: Figures,
        worker_timeout: float | None = None,
        announce: Callable[[str], None] = print,
        record: Callable[["EvolutionOracle"], None] = lambda oracle: None,
    ) -> None:
        parameters = keras_tuner.HyperParameters()
        for name, options in breeder.genes.options.items():
            parameters.Choice(name, [float(option) for option in options])
        super().__init__(
            worker_timeout,
            announce,
            objective=keras_tuner.Objective("fitness", "max"),
            # Without: with it, a worker would be told to stop while others may be lost.
            max_trials=None,
            hyperparameters=parameters,
            allow_new_entries=False,
            tune_new_entries=False,
            # keras-tuner takes 0 for a random seed; its own is not used.
            seed=breeder.seed + 1,
            # Counted here, where a generation of failures ends the search with its cause.
            max_consecutive_failed_trials=generations * breeder.population + 1,
        )
        self.breeder = breeder
        self.wanted_generations = generations
        self.objectives = objectives
        self.generations: list[tuple[Genome, ...]] = []
        self._began: float | None = None
        self._figures = figures
        self._record = record

    @property
    def genomes(self) -> list[Genome]:
        """All candidates, in the order of their trials."""
        return [genome for generation in self.generations for genome in generation]

    def scored(self) -> list[Scored]:
        """Return the candidates whose trials have ended, in the order of their numbers."""
        found = []
        for trial_id in sorted(self.trials, key=int):
            trial = self.trials[trial_id]
            if trial.status in FINAL and int(trial_id) < len(self.genomes):
                found.append(Scored(self.genomes[int(trial_id)], self._scores(trial)))
        return found

    def figures(self, trial: Trial) -> Mapping[str, float]:
        """Return accuracy, fitness and costs of a completed trial."""
        accuracy = trial.metrics.get_last_value("accuracy")
        return self._figures(self.genomes[int(trial.trial_id)], accuracy)

    def _scores(self, trial: Trial) -> tuple[float, ...] | None:
        if trial.status != TrialStatus.COMPLETED:
            return None
        return scores_of(self.figures(trial), self.objectives)

    @property
    def failures(self) -> list[Trial]:
        """The trials that failed."""
        return [trial for trial in self.trials.values() if trial.status == TrialStatus.FAILED]

    @property
    def all_failed(self) -> bool:
        """Whether every candidate of the first generation failed."""
        first = len(self.generations[0]) if self.generations else 0
        return 0 < first <= len(self.failures) == len(self.trials)

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        number = int(trial_id)
        if number == len(self.genomes):
            if any(trial.status not in FINAL for trial in self.trials.values()):
                return {"status": TrialStatus.IDLE}
            if not self._add_generation():
                return {"status": TrialStatus.STOPPED}
        values = self.breeder.genes.values(self.genomes[number])
        return {
            "status": TrialStatus.RUNNING,
            "values": {name: float(value) for name, value in values.items()},
        }

    def _add_generation(self) -> bool:
        """Add a generation; return whether there is one."""
        done = len(self.generations)
        if done == self.wanted_generations or self.all_failed:
            return False
        self._record(self)
        if done == 1:
            self._announce_time()
        generation = self.breeder.generation(done, self.scored())
        notes = [f"{len(generation.genomes)} new candidates"]
        if generation.known:
            notes.append(f"{generation.known} drawn again left out")
        if generation.over_budget:
            notes.append(f"{generation.over_budget} over budget rejected")
        self._announce(f"Generation {done + 1}/{self.wanted_generations}: {', '.join(notes)}")
        if not generation.genomes:
            self._announce("No further candidate was found: the search ends here")
            self.wanted_generations = done
            return False
        self.generations.append(generation.genomes)
        if not done:
            self._began = time.monotonic()
        return True

    def _announce_time(self) -> None:
        """Tell how long the search will take, if this process saw the first generation whole."""
        if self._began is not None:
            each = time.monotonic() - self._began
            minutes = each * (self.wanted_generations - 1) / 60
            self._announce(
                f"The first generation took {each:.0f} s: about {minutes:.0f} min for the others"
            )

    def tell(self, trial: Trial) -> None:
        number = int(trial.trial_id)
        where = f"Candidate {number + 1}/{len(self.genomes)}"
        if trial.status == TrialStatus.COMPLETED:
            figures = self.figures(trial)
            best = max(t.score for t in self.trials.values() if t.score is not None)
            self._announce(
                f"{where}: accuracy {figures['accuracy']:.2%}, fitness {figures['fitness']:.2f} "
                f"(best {best:.2f})"
            )
        elif trial.status == TrialStatus.FAILED:
            self._announce(f"{where} failed: {cause(trial)}")

    def get_state(self) -> dict[str, Any]:
        state: dict[str, Any] = super().get_state()
        return {
            **state,
            # keras-tuner lists a set, in another order in each process.
            "tried_so_far": sorted(state["tried_so_far"]),
            "generations": [[list(genome) for genome in one] for one in self.generations],
            "wanted_generations": self.wanted_generations,
            "random_state": [self.breeder.seed, len(self.generations)],
        }

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self.generations = [tuple(map(tuple, one)) for one in state["generations"]]
        self.wanted_generations = state["wanted_generations"]

    def after_reload(self) -> None:
        """Make what the state did not know from the trials, and trials again that are lost."""
        numbers = {int(trial_id) for trial_id in self.trials}
        wanted = max(numbers, default=-1) + 1
        while len(self.genomes) < wanted and self._all_ended() and self._add_generation():
            pass
        # Those of a generation that cannot be bred before others are trained again.
        for number in sorted(number for number in numbers if number >= len(self.genomes)):
            del self.trials[f"{number:04d}"]
        for number in range(min(wanted, len(self.genomes))):
            values = self.breeder.genes.values(self.genomes[number])
            if number not in numbers:
                self._make_again(number, values)
            elif self.trials[f"{number:04d}"].hyperparameters.values != values:
                raise InputError(
                    f"Trial {number:04d} in `{self._project_dir}` is not of this search: delete "
                    "that folder to search again."
                )

    def _all_ended(self) -> bool:
        return len(self.scored()) == len(self.genomes)

    def _make_again(self, number: int, values: Mapping[str, Any]) -> None:
        """Add a trial that was lost, to be run."""
        hyperparameters = self.hyperparameters.copy()
        hyperparameters.values = {name: float(value) for name, value in values.items()}
        trial_id = f"{number:04d}"
        self.trials[trial_id] = Trial(hyperparameters, trial_id, TrialStatus.RUNNING)
        self._run_times.pop(trial_id, None)
