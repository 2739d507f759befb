"""What an evolution leaves for its user: a table of candidates, and the Pareto front."""

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from larq_nas.architecture import Architecture
from larq_nas.files import write_table
from larq_nas.run import Run
from larq_nas.tuning import EvolutionOracle, cause
from larq_nas.tuning.keras_tuner import TrialStatus

__all__ = ["write_candidates", "write_front"]


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
