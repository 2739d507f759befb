"""Run an evolution, alone or as one of many processes."""

import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from larq_nas.architecture import Architecture
from larq_nas.data.data import Task
from larq_nas.errors import DivergenceError
from larq_nas.files import write_table
from larq_nas.run_directory import Run
from larq_nas.searchers.evolution.candidates import (
    CandidateTraining,
    Inheritance,
    Rebuilt,
    Shared,
    draw_subset,
    load_widest,
    train_widest,
)
from larq_nas.searchers.evolution.fitness import Worth, front, scores_of
from larq_nas.searchers.evolution.generation import Breeder
from larq_nas.searchers.evolution.oracle import EvolutionOracle, Trial, TrialStatus, cause
from larq_nas.searchers.evolution.processes import current_role
from larq_nas.searchers.evolution.tuner import EvolutionTuner
from larq_nas.spaces import Space
from larq_nas.training.loop import seed_everything
from larq_nas.training.recipe import Recipe

if TYPE_CHECKING:
    from larq_nas.searchers.evolution.settings import Evolution

__all__ = ["EvolutionSearch"]


def write_candidates(run: Run, oracle: EvolutionOracle) -> None:
    """Write `candidates.csv`: a row for each candidate so far, in the order of their numbers.

    # Arguments
        run: the run.
        oracle: knows the candidates.
    """
    rows = []
    number = 0
    for generation, genomes in enumerate(oracle.generations, 1):
        for genome in genomes:
            number += 1
            trial = oracle.trials.get(f"{number - 1:04d}")
            if trial is None:
                continue
            figures = oracle.figures(trial) if trial.status == TrialStatus.COMPLETED else {}
            rows.append(
                {
                    "candidate": number,
                    "generation": generation,
                    **oracle.breeder.genes.values(genome),
                    **figures,
                    "failure": cause(trial) if trial.status == TrialStatus.FAILED else "",
                }
            )
    if rows:
        write_table(run.candidates, rows)


def write_front(run: Run, found: Sequence[tuple[Architecture, Mapping[str, Any]]]) -> None:
    """Write `pareto/`: the architectures that none is better than, and a table of them.

    # Arguments
        run: the run.
        found: the architectures with their figures.
    """
    ordered = sorted(found, key=lambda pair: pair[1]["flops"])
    shutil.rmtree(run.pareto, ignore_errors=True)
    run.pareto.mkdir()
    rows = []
    for number, (architecture, figures) in enumerate(ordered, 1):
        name = f"{number:03d}.json"
        architecture.save(run.pareto / name)
        rows.append({"file": name, **figures})
    write_table(run.pareto / "front.csv", rows)


_WAIT_SECONDS = 0.5


@dataclass(frozen=True)
class EvolutionSearch:
    """An evolution that is ready to run.

    # Arguments
        searcher: its settings.
        space: where to search.
        task: the data to search on.
        generations: how many.
        recipe: how candidates are trained.
        breeder: makes the generations.
        worth: what candidates cost and are worth.
    """

    searcher: "Evolution"
    space: Space
    task: Task
    generations: int
    recipe: Recipe
    breeder: Breeder
    worth: Worth

    def search(
        self,
        run: Run,
        callbacks: Sequence[tf.keras.callbacks.Callback] = (),
        verbose: int | str = "auto",
    ) -> Architecture:
        """Return the architecture found: of the Pareto front, the one of the highest fitness.

        # Arguments
            run: where trials, weights and records go.
            callbacks: Keras callbacks of each training.
            verbose: as in `fit`; 0 prints nothing.
        """
        self._announce(verbose)
        training = self._training()
        train_widest(
            self.space, self.recipe, self.searcher.widest_epochs, training, run, callbacks, verbose
        )
        oracle = self._oracle(self._print(verbose), partial(write_candidates, run))
        tuner = self._tuner(oracle, training, run, callbacks)
        tuner.search()
        return self._conclude(oracle, run, verbose)

    def work(self, run: Run, callbacks: Sequence[tf.keras.callbacks.Callback] = ()) -> None:
        """Train candidates that the chief hands out, until there are no more."""
        while not run.widest.exists():
            time.sleep(_WAIT_SECONDS)
        training = self._training()
        tuner = self._tuner(
            self._oracle(lambda line: None, lambda oracle: None), training, run, callbacks
        )
        tuner.search()

    def _training(self) -> CandidateTraining:
        task, seed = self.task, self.task.seed
        seed_everything(seed)
        subset, facts = draw_subset(task.train, task.facts, self.searcher.subset, seed)
        return CandidateTraining(
            subset,
            task.validation,
            facts,
            self.searcher.candidate_epochs,
            self.recipe,
            task.augment,
            seed,
        )

    def _oracle(
        self, announce: Callable[[str], None], record: Callable[[EvolutionOracle], None]
    ) -> EvolutionOracle:
        genes, alone = self.breeder.genes, current_role() == "alone"
        return EvolutionOracle(
            self.breeder,
            self.generations,
            tuple(self.searcher.objectives),
            lambda genome, accuracy: self.worth.figures(genes.values(genome), accuracy),
            None if alone else self.searcher.worker_timeout,
            announce,
            record,
        )

    def _tuner(
        self,
        oracle: EvolutionOracle,
        training: CandidateTraining,
        run: Run,
        callbacks: Sequence[tf.keras.callbacks.Callback],
    ) -> EvolutionTuner:
        kind = Shared if self.searcher.shared else Rebuilt

        def evaluator() -> Shared | Rebuilt:
            choose, widest = load_widest(self.space, self.recipe, training, run)
            return kind(self.space, training, Inheritance(widest, choose))

        return EvolutionTuner(
            oracle,
            evaluator,
            run.directory,
            self.searcher.keep,
            run.architecture.exists,
            callbacks,
        )

    def _conclude(self, oracle: EvolutionOracle, run: Run, verbose: int | str) -> Architecture:
        """Write what was found, and return the best."""
        write_candidates(run, oracle)
        done = [t for t in oracle.trials.values() if t.status == TrialStatus.COMPLETED]
        done.sort(key=lambda trial: int(trial.trial_id))
        if not done:
            failed = oracle.failures[0]
            raise DivergenceError(
                f"Every candidate of the first generation failed, {len(oracle.failures)} of them; "
                f"the first: {cause(failed)}. Mend that, or use a lower learning rate, in another "
                "directory."
            )
        figures = [dict(oracle.figures(trial)) for trial in done]
        objectives = tuple(self.searcher.objectives)
        best = front([scores_of(one, objectives) for one in figures])
        write_front(run, [(self._architecture(done[i]), figures[i]) for i in best])
        chosen = max(best, key=lambda i: (figures[i]["fitness"], -i))
        if verbose:
            self._report(len(done), len(oracle.failures), len(best), figures[chosen])
        return self._architecture(done[chosen])

    def _architecture(self, trial: Trial) -> Architecture:
        genes = self.breeder.genes
        values: dict[str, Any] = genes.values(genes.genome(trial.hyperparameters.values))
        return Architecture(self.space.name, self.space.settings(), values)

    def _report(self, done: int, failed: int, best: int, figures: dict[str, Any]) -> None:
        lost = f", {failed} failed" if failed else ""
        of_front = f"; {best} on the Pareto front" if len(self.searcher.objectives) > 1 else ""
        print(
            f"Trained {done} candidates{lost}{of_front}. Best: accuracy {figures['accuracy']:.2%}, "
            f"fitness {figures['fitness']:.2f}, {figures['flops'] / self.worth.original:.2f} times "
            "the operations of the original",
            flush=True,
        )

    def _announce(self, verbose: int | str) -> None:
        if verbose:
            searcher, facts = self.searcher, self.task.facts
            images = searcher.subset or facts.train_examples
            steps = max(1, images // facts.batch_size)
            print(
                f"Evolution: {self.generations} generations of {searcher.population} candidates, "
                f"each {searcher.candidate_epochs} epochs of {steps} steps; "
                f"{self.breeder.genes.size:,} candidates in all to choose from",
                flush=True,
            )

    @staticmethod
    def _print(verbose: int | str) -> Callable[[str], None]:
        if not verbose:
            return lambda line: None
        return lambda line: print(line, file=sys.stdout, flush=True)
