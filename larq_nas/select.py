"""Derive another architecture from a search."""

from pathlib import Path

from larq_nas.architecture import Architecture
from larq_nas.errors import InputError, require_at_least, warn
from larq_nas.process_state import keeps_process_state
from larq_nas.run_directory import RunDirectory, read_settings
from larq_nas.searchers.differentiable.derivation import derive as derive_from
from larq_nas.searchers.differentiable.derivation import weakened
from larq_nas.searchers.differentiable.record import read_scores
from larq_nas.spaces import SpaceLike
from larq_nas.spaces.chooser import Survey
from larq_nas.spaces.space import resolve_recorded

__all__ = ["derive"]


@keeps_process_state
def derive(
    directory: str | Path,
    *,
    transfer_factor: float | None = None,
    epoch: int | None = None,
    space: SpaceLike | None = None,
) -> Architecture:
    r"""Derive another architecture from a search, of an earlier epoch or for more data.

    Searched on a small data set and trained on a large one, a network underfits if it has as
    many zeros as the search found best: their probabilities are divided by \\(\gamma\\).
    Budgets are not kept to, and a warning says so if the run had one.

    !!! example
        ```python
        architecture = larq_nas.derive("runs/cifar10", transfer_factor=3.0)
        model = larq_nas.train(architecture.with_settings(stem="imagenet"), train, validation)
        ```

    # Arguments
        directory: the directory of the run.
        transfer_factor: \\(\gamma\\), 1 or more; by default that of the search.
        epoch: the epoch to derive, from 1 on, counted through all stages as in
            `probabilities.csv`; by default the last of a finished search.
        space: the search space, needed if it is a function of your own.

    # Raises
        InputError: if the run has no finished search, or never keeps the zero operation.

    # References
        - [Learning Architectures for Binary Networks](https://arxiv.org/abs/2002.06963)
    """
    if transfer_factor is not None:
        require_at_least(1, transfer_factor=transfer_factor)
    settings = read_settings(Path(directory).expanduser())
    run = RunDirectory(directory, settings)
    if int(settings.get("seeds", 1)) > 1 and not run.probabilities.exists():
        raise InputError(
            f"`{directory}` holds searches by several seeds, each in a directory of its own: give "
            f"one, such as `{run.directory}/seed{settings['seed']}`."
        )
    is_there = run.architecture if epoch is None else run.probabilities
    if not {"space", "data"} <= settings.keys() or not is_there.exists():
        raise InputError(f"`{directory}` holds no finished search: run larq-nas search first.")
    if transfer_factor is None:
        transfer_factor = float(settings["searcher"].get("transfer_factor", 1.0))
    if settings["budget"]:
        limits = ", ".join(f"{name} {limit:,}" for name, limit in settings["budget"].items())
        warn(f"The run's budget ({limits}) is not kept to: see larq-nas cost.")
    recorded_space = dict(settings["space"])
    searched = resolve_recorded(str(recorded_space.pop("name")), recorded_space, space)
    choose = Survey()
    data = settings["data"]
    searched.build(choose, tuple(data["input_shape"]), data["classes"])
    if transfer_factor != 1 and not any(c.keeps_zero for c in choose.choices.values()):
        raise InputError(
            f"`transfer_factor` weakens the zero operation, but space `{searched.name}` never "
            "keeps it."
        )
    recorded = read_scores(run.probabilities, choose.choices)
    if epoch is not None and epoch not in recorded:
        raise InputError(f"`epoch` must be from 1 to {max(recorded)}, but got {epoch!r}.")
    scores = {
        name: weakened(choose.choices[name], probabilities, transfer_factor)
        for name, probabilities in recorded[epoch or max(recorded)].items()
    }
    chosen = derive_from(choose.choices, choose.cells, scores)
    values = {name: choose.choices[name].encode(pairs) for name, pairs in chosen.items()}
    return Architecture(searched.name, searched.settings(), values)
