"""Search a space, train what is found, and convert it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from larq_nas.architecture import Architecture
from larq_nas.baselines import (
    BaselinesLike,
    add_baselines,
    at_random,
    cost_of,
    read_baselines,
    require_trainable,
    settings_of,
)
from larq_nas.choices import Choice, Pair
from larq_nas.cost import LATENCY, Budget, BudgetLike, Limits, SpaceCosts
from larq_nas.cost.budget import require_light
from larq_nas.data.augmentation import AugmentLike
from larq_nas.data.data import ClassWeight, Data, check_seed, read_data
from larq_nas.data.forms import DataLike
from larq_nas.data.preprocessing import PreprocessingLike
from larq_nas.data.validation import DataFacts
from larq_nas.errors import (
    InputError,
    collecting_warnings,
    plain_number,
    require_bool,
    require_whole,
    warn,
)
from larq_nas.finalists import best_of_ranking, best_of_seeds, ranked
from larq_nas.latency import LatencyTable
from larq_nas.log import log
from larq_nas.methods import Method, RecipeLike, SearcherLike, SpaceLike, resolve
from larq_nas.process_state import keeps_process_state
from larq_nas.provenance import provenance
from larq_nas.report.report import write_report
from larq_nas.result import Result
from larq_nas.run_directory import RunDirectory, read_settings
from larq_nas.searchers import Differentiable, Search, Searcher
from larq_nas.searchers.estimate import require_training_memory
from larq_nas.searchers.evolution.processes import chief_address, current_role
from larq_nas.searchers.searcher import BUDGET_PENALTY, SEARCH_SPLIT
from larq_nas.spaces import Space
from larq_nas.spaces.chooser import Survey
from larq_nas.spaces.space import fingerprint, is_built_in
from larq_nas.train import (
    check_metrics,
    is_binary,
    read_epochs,
    train_and_finish,
    warn_of_real_layers,
)
from larq_nas.training.callbacks import (
    GivenCallbacks,
    Stages,
    TimeLimit,
    read_seconds,
    resolve_callbacks,
)
from larq_nas.training.distribution import (
    noticing_lost_processes,
    process_count,
    require_one_directory,
    verbose_here,
    working_in,
)
from larq_nas.training.loop import forgetting_graphs
from larq_nas.training.metrics import GivenMetrics, Metrics
from larq_nas.training.recipe import Epochs
from larq_nas.training.teacher import Teacher
from larq_nas.training.trainer import (
    Trainer,
    check_training,
    epochs_of_stages,
    training_stages,
)

__all__ = ["search"]


def require_one_device(searcher: Searcher, strategy: object) -> None:
    """Raise `InputError` for a strategy that the searcher does not train on."""
    if isinstance(strategy, tf.distribute.Strategy) and not searcher.several_devices:
        raise InputError(
            f"Searcher `{searcher.name}` trains on one device: leave `strategy` out, and give it "
            "to larq_nas.train for the network that was found."
        )


def require_role(searcher: Searcher, directory: str | Path | None) -> None:
    """Raise `InputError` if processes of keras-tuner are to do what one does."""
    role = current_role()
    if role == "alone":
        return
    if not searcher.several_processes:
        raise InputError(
            f"KERASTUNER_ORACLE_IP is set in the environment, but searcher `{searcher.name}` runs "
            "in one process: unset it."
        )
    if directory is None:
        raise InputError(
            f"`directory` must be given to a {role}: one that all processes of the search share."
        )
    if role == "chief":
        chief_address()


def resolve_table(given: str | Path | LatencyTable | None, budget: Budget) -> LatencyTable | None:
    """Return the table of latencies, if any, or raise `InputError` if there must be one."""
    if LATENCY in budget.limits and given is None:
        raise InputError(
            "A `budget` of latency needs `latency_table`, of the device that it is about: measure "
            "one with larq-nas latency --build-table."
        )
    if given is None or isinstance(given, LatencyTable):
        return given
    if not isinstance(given, str | Path):
        raise InputError(f"`latency_table` must be a LatencyTable or its file, but got {given!r}.")
    return LatencyTable.load(given)


def limits_of(
    budget: Budget,
    space: Space,
    facts: DataFacts,
    table: LatencyTable | None,
    searcher: Searcher,
    verbose: int | str,
) -> Limits | None:
    """Return what the search must keep to, or raise `InputError` if nothing can."""
    if not budget:
        return None
    if verbose:
        log.info("Costing the space: its lightest networks, then one build of all of it")
    require_light(space, facts.input_shape, facts.classes, budget)
    if verbose and table:
        log.info(table)
    # A searcher that learns widths is not held to the ratios of the space.
    least = searcher.smallest_ratio
    limits = Limits(SpaceCosts(space, facts.input_shape, facts.classes, table, least), budget)
    feasible = limits.require_feasible()
    if verbose:
        log.info(feasible)
    if limits.costs.unknown:
        warn(
            f"The budget does not count the operations of {', '.join(limits.costs.unknown)}: "
            "larq_nas does not know these layers."
        )
    return limits


@keeps_process_state
@collecting_warnings()
def search(
    train: DataLike,
    validation: DataLike | float,
    space: SpaceLike | None = None,
    searcher: SearcherLike | None = None,
    *,
    method: str | Method | None = None,
    recipe: RecipeLike | None = None,
    budget: BudgetLike | None = None,
    latency_table: str | Path | LatencyTable | None = None,
    epochs: int | None = None,
    train_epochs: Epochs | None = None,
    classes: int | None = None,
    augment: AugmentLike | None = None,
    class_weight: ClassWeight | None = None,
    preprocessing: PreprocessingLike | None = None,
    teacher: tf.keras.Model | None = None,
    test: DataLike | float | None = None,
    directory: str | Path | None = None,
    seed: int = 0,
    seeds: int = 1,
    pick_epochs: int | None = None,
    retrain: int = 1,
    baselines: BaselinesLike = False,
    resume: bool = True,
    strategy: tf.distribute.Strategy | None = None,
    callbacks: GivenCallbacks = None,
    metrics: GivenMetrics = None,
    time_limit: float | str | None = None,
    return_result: bool = False,
    verbose: int | str = "auto",
) -> Any:
    """Search a space for a binary network, train it, and convert it.

    A run can be killed at any moment: the same call goes on where it was, with the same
    result. In `directory` it leaves `architecture.json`, `history.csv`, `probabilities.csv`
    (of a progressive search `stages.json` too; of an evolution `candidates.csv`, `pareto/` and
    keras-tuner's `trials/`; of DMS `widths.csv`), `model.keras`, `model.tflite`, `result.json`,
    `report.html`, `sample.npy` (the validation images it was checked on), `checkpoints/` and
    TensorBoard's `logs/`.

    !!! example
        ```python
        train, validation = larq_nas.datasets.load("digits", batch_size=32)
        decides = {"architecture_learning_rate": 0.003}  # in the few steps that the digits give
        model = larq_nas.search(
            train, validation, searcher=decides, epochs=8, train_epochs=20, directory="runs/a"
        )
        larq_nas.convert(model, validation).save("digits.tflite")

        # A published method, other settings in parts of it, and limits.
        model = larq_nas.search(
            train,
            validation,
            method="bnas_v2",
            space={"cells": 8},
            searcher={"diversity": 0.5},
            budget={"flatbuffer_bytes": "64KB", "binary_macs": "10M"},
        )
        ```

    # Arguments
        train: a batched `tf.data.Dataset` of `(images, labels)`, or such arrays; sample weights may
            follow. Images are `(batch, height, width, channels)`. Labels are whole numbers, text,
            one-hot, or probabilities of the classes. larq_nas shuffles. One half trains the
            weights of the supernet, the other its architecture parameters; the network that is
            found trains on both.
        validation: data of the same form that is only measured on, or a share of `train` to hold
            out, such as 0.2, of each class alike and by `seed`.
        space: name of a search space, settings to change in that of the method, a
            `larq_nas.spaces.Space`, or a function of your own of
            `(choose, input_shape, classes)`.
        searcher: name of a searcher, settings to change in that of the method, or a searcher.
        method: name of a published method, see `larq_nas.methods.METHODS`, or a
            `larq_nas.methods.Method`: what it sets is used where nothing else is given. By
            default the first that has `space`, and without one `"default"`.
        recipe: how the found network is trained: the name of the method whose recipe it is,
            settings to change, or a `larq_nas.training.Recipe`.
        budget: what the found network may cost at most, by name: `weight_bytes`,
            `flatbuffer_bytes` (of `model.tflite`) and `activation_bytes` (alive at once) as
            numbers or text such as `"64KB"` (1,000 bytes each) or `"64KiB"` (1,024); `macs` of
            one image that are not binary, `binary_macs` and `parameters`, such as `"1.5M"`;
            `latency` of one image, such as `"5ms"` (a number is in microseconds).
        latency_table: a `larq_nas.latency.LatencyTable` of the device and this space, or the
            file of one; see `larq-nas latency --build-table`.
        epochs: epochs of the search (of DMS those that train weights, of a progressive one those
            of each stage), or generations of an evolution; by default the method's. The same call
            with more generations continues a run; a gradient search, whose schedules run along all
            epochs, is made anew.
        train_epochs: epochs the found network is trained for, of all stages or of each by its
            name, such as `{"real": 20, "binary": 30}`; 0 leaves it as derived, with random
            weights; by default the method's.
        classes: number of classes; by default what the labels say.
        augment: `"standard"` (shift and mirror), `"cutout"` (and a square of zeros), `"crop"` (7/8
            of images that are so much larger than those of `validation`), `"resized_crop"` (any
            part of those, resized, and mirror), a Keras layer such as
            `tf.keras.layers.RandomRotation(0.1)`, a list or `Sequential` of them, a function of
            `(images, seed)`, or `None`.
        class_weight: how much images of each class count in training: weights by number or name, as
            `{0: 1.0, 1: 5.0}`, or `"balanced"`, by which each class counts alike.
        preprocessing: layers of Keras that images pass first, such as
            `tf.keras.layers.Rescaling(1 / 127.5, -1)`, an adapted `Normalization` or a list of
            layers; they become the first layers of the network, which reads raw images then.
        teacher: a trained network of the same images and classes, such as one of larq-zoo,
            that the found network learns from too.
        test: further data of the form of `validation`, or a share of `train`: measured on once,
            when the found network is trained.
        directory: where the run is kept; by default nothing is.
        seed: seed of everything random; the same seed gives the same result.
        seeds: number of searches, of this seed and those that follow, each in a directory `seedN`
            of the run. What each finds is trained for `pick_epochs`, and the best on images held
            out of the training data goes on, as in DARTS; `seeds.csv` has all. A seed whose search
            diverged, or collapsed and is stopped by that, is left out.
        pick_epochs: epochs of these trainings; by default 5.
        retrain: number of the best candidates of a search that ranks them, an evolution, that are
            each trained for all `train_epochs`, on the training images but a tenth; the best on
            that goes on, and is trained on all. `retrained.csv` has them.
        baselines: what is trained beside the found network, alike: `True` or `"uniform"` the
            network whose widths are all the same multiple of the space's own, and which costs as
            much; `"random"` the best of as many random candidates; or a list of both. Costs of the
            uniform one are told of any space with widths. A later call may ask for them.
        resume: whether to go on with a run that is in `directory` already.
        strategy: a `tf.distribute.Strategy`, such as `MirroredStrategy()` for several GPUs or
            `MultiWorkerMirroredStrategy()` for several machines: each replica has a part of every
            batch, and batch norm is over all of it, where it is of larq_nas or synchronized.
        callbacks: Keras callbacks: one or a list for all stages of the run, or those of stages by
            name: `"search"`, `"train"` or single ones such as `"train_binary"`, as in
            `{"train": [tf.keras.callbacks.EarlyStopping("val_accuracy")]}`.
        metrics: further metrics of labels and logits, by Keras's names or as its objects, such as
            `"sparse_top_k_categorical_accuracy"`: of the epochs of the training, of the result, and
            of the model that is returned.
        time_limit: seconds that the search may take at most, or text such as `"2h"`: its stages (of
            an evolution, generations) end with the epoch in which their share is over, and what was
            found until then is trained, on top of that time, for all `train_epochs`. What was used
            before a search was killed counts. A search that it ends is not repeatable by its seed.
        return_result: whether to return a `larq_nas.Result`, which has the model, its accuracy,
            its conversion and the history.
        verbose: as in `tf.keras.Model.fit`; 0 prints nothing.

    # Returns
        The found network: a plain functional `tf.keras.Model` of Keras and Larq layers,
        compiled, from images to logits of shape `(batch, classes)`; or the `larq_nas.Result`.

    # Raises
        InputError: if an argument or the data cannot be used; nothing was trained then.
        DivergenceError: if a loss becomes NaN or infinite.
        ProcessLostError: if another process of `strategy` ends.
    """
    start = provenance(search, locals())
    plan = resolve(method, space, searcher, recipe)
    epochs = plan.epochs if epochs is None else epochs
    train_epochs = plan.train_epochs if train_epochs is None else train_epochs
    require_role(plan.searcher, directory)
    require_whole(seeds=seeds, retrain=retrain)
    check_seed(seed, seeds)
    require_bool(resume=resume, return_result=return_result)
    epochs, classes, seed, seeds = map(plain_number, (epochs, classes, seed, seeds))
    retrain = plain_number(retrain)
    require_whole(epochs=epochs)
    if hasattr(plan.searcher, "require_epochs"):
        plan.searcher.require_epochs(epochs)
    train_epochs = read_epochs("train_epochs", train_epochs, plan.recipe)
    if seeds > 1:
        _require_several_seeds(time_limit, strategy)
    elif pick_epochs is not None:
        raise InputError("`pick_epochs` has no effect on one search: give `seeds` too.")
    if retrain > 1:
        _require_ranking(plan, seeds, train_epochs)
    pick_epochs = plain_number(_PICK_EPOCHS if pick_epochs is None else pick_epochs)
    require_whole(pick_epochs=pick_epochs)
    seconds = None if time_limit is None else read_seconds(time_limit)
    if seconds is not None and process_count(strategy) > 1:
        raise InputError(
            "`time_limit` is for a search in one process, as those of a strategy end at the same "
            "epoch: leave it out."
        )
    further = Metrics(metrics)
    resolved_budget = Budget.parse(budget)
    stages = stages_of(plan.searcher, plan.space, resolved_budget, several=seeds > 1)
    groups = {"search": stages, "train": training_stages(plan.recipe, further)}
    later = epochs_of_stages(plan.recipe, train_epochs)
    resolved_callbacks = resolve_callbacks(callbacks, groups, later)
    table = resolve_table(latency_table, resolved_budget)
    require_one_device(plan.searcher, strategy)
    require_one_directory(strategy, directory)
    verbose = verbose_here(strategy, directory, verbose)
    if verbose:
        picks = _listed(epochs_of_stages(plan.recipe, pick_epochs))
        log.info(
            f"Space `{plan.space.name}`, searcher `{plan.searcher.name}`: epochs={epochs}, "
            + (f"seeds={seeds}, pick_epochs={pick_epochs}{picks}, " if seeds > 1 else "")
            + f"train_epochs={sum(later.values())}{_listed(later)}",
        )
        if retrain > 1:
            log.info(
                f"The best {retrain} candidates are trained for {sum(later.values())} epochs each, "
                "and the best of these once more, on all training images"
            )
    data = read_data(
        train,
        validation,
        classes,
        augment,
        seed,
        plan.space,
        verbose,
        strategy,
        class_weight,
        preprocessing,
        test,
    )
    check_metrics(further, data)
    facts = data.facts
    if table:
        table.require_for(plan.space, facts.input_shape, facts.classes)
    resolved_teacher = None if teacher is None else Teacher(teacher, data)
    survey = plan.space.survey(facts.input_shape, facts.classes)
    settings = {
        "space": {"name": plan.space.name, **plan.space.settings()},
        "choices": survey.questions(),
        **_own_network(plan.space, facts),
        "searcher": plan.searcher.settings(),
        "recipe": plan.recipe.settings(),
        **({"teacher": resolved_teacher.digest} if resolved_teacher else {}),
        **({"metrics": further.settings()} if further.names else {}),
        **data.settings(),
        "budget": dict(resolved_budget.limits),
        **({"latency_table": table.digest} if table else {}),
        "epochs": epochs,
        "train_epochs": train_epochs,
        **({"seeds": seeds, "pick_epochs": pick_epochs} if seeds > 1 else {}),
        **({"retrain": retrain} if retrain > 1 else {}),
    }
    continues = bool(getattr(plan.searcher, "continues", False))
    beside = read_baselines(baselines, plan.searcher, survey.expansions, seeds > 1)
    if beside:
        require_trainable(beside, strategy, sum(later.values()))
        if verbose:
            log.info(cost_of(beside, epochs, sum(later.values())))
        if callbacks:
            warn("`callbacks` do not take part in the trainings of `baselines`.")
    run = RunDirectory(directory, settings, resume, {**start, **survey.structure()}, continues)
    # A searcher without stages is given its callbacks, and no others.
    has_stages = hasattr(plan.searcher, "stages")
    searching = resolved_callbacks if has_stages else resolved_callbacks.of("search")

    def trainer(run: RunDirectory) -> Trainer:
        architecture = Architecture.load(run.architecture)
        return Trainer(architecture, plan.space, data, plan.recipe, resolved_teacher, further)

    def prepare(
        verbose: int | str, limits: Limits | None = None, seed: int = seed
    ) -> tuple[Search, Limits | None]:
        limits = limits or limits_of(
            resolved_budget, plan.space, facts, table, plan.searcher, verbose
        )
        apart = _apart(dataclasses.replace(data, seed=seed), plan.searcher, verbose)
        return plan.searcher.prepare(plan.space, apart, limits, epochs, plan.recipe), limits

    def pick(
        run: RunDirectory, compared: Data, first: Search, limits: Limits | None
    ) -> Architecture:
        def find(one: int, part: RunDirectory) -> Architecture:
            return (first if one == seed else prepare(0, limits, one)[0]).run(
                part, searching, verbose
            )

        def measure(architecture: Architecture, part: RunDirectory) -> dict[str, float]:
            return measured(compared, architecture, pick_epochs, part)

        return best_of_seeds(range(seed, seed + seeds), run, find, measure, verbose)

    def refined(
        architecture: Architecture, run: RunDirectory, limits: Limits | None
    ) -> Architecture:
        if retrain == 1:
            return architecture
        apart = data.to_search(SEARCH_SPLIT, log.info if verbose else lambda line: None, split=2)
        with run.timed("retraining"):
            return best_of_ranking(
                ranked(architecture, run, limits)[:retrain],
                run,
                lambda one, part: measured(apart, one, train_epochs, part),
                verbose,
            )

    def measured(
        compared: Data, architecture: Architecture, epochs: Epochs, part: RunDirectory
    ) -> dict[str, float]:
        short = Trainer(architecture, plan.space, compared, plan.recipe, resolved_teacher)
        return short.measure(short.train(epochs, part, (), verbose))

    def hold_against_others(run: RunDirectory, limits: Limits | None) -> None:
        def costs() -> SpaceCosts:
            if limits:
                return limits.costs
            shape, least = facts.input_shape, plan.searcher.smallest_ratio
            return SpaceCosts(plan.space, shape, facts.classes, table, least)

        def find(part: RunDirectory) -> Architecture:
            own = limits or limits_of(resolved_budget, plan.space, facts, table, plan.searcher, 0)
            drawing = at_random(plan.searcher)
            apart = _apart(data, drawing, verbose)
            drawn = drawing.prepare(plan.space, apart, own, epochs, plan.recipe)
            if seconds is not None:
                resolved_callbacks.limit = TimeLimit(seconds, list(stages), part.time_limit)
            return refined(drawn.run(part, searching, verbose), part, own)

        def finish(part: RunDirectory) -> None:
            train_and_finish(trainer(part), train_epochs, part, resolved_budget, table, (), verbose)

        settings = settings_of(run.settings, plan.searcher, beside)
        names = list(resolved_budget.limits)
        add_baselines(run, beside, costs, names, find, finish, settings, verbose)

    if current_role() == "worker":
        result = _work(prepare(0)[0], run, trainer, searching, verbose)
        return result if return_result else result.model
    with forgetting_graphs(), noticing_lost_processes(strategy, run):
        run.check()
        goes_on = run.goes_on
        if goes_on and verbose:
            before = read_settings(run.directory)["epochs"]
            log.info(f"The search goes on from {before} to {epochs} epochs; what follows is new")
        # Everything that can be wrong shows here, before anything is written.
        if goes_on or not run.model.exists():
            shape, number = facts.input_shape, facts.classes
            check_training(
                lambda: plan.space.build(Survey(), shape, number),
                data,
                plan.recipe,
                resolved_teacher,
                train_epochs,
                verbose,
            )
            if goes_on or not run.architecture.exists():
                _warn_if_nothing_is_binary(plan.space, facts)
                # Other searchers change widths, and look at these themselves.
                if train_epochs and isinstance(plan.searcher, Differentiable):
                    network = plan.space.build(Survey(), shape, number)
                    size = facts.batch_size // process_count(strategy)
                    mend = "give the space fewer cells or channels"
                    require_training_memory(network, size, "A network of the space", mend, False)
        found = prepare(verbose) if goes_on or not run.architecture.exists() else None
        compared = data
        if found and seeds > 1:
            # Others than those that the search of the first seed compares candidates on: it would
            # be ahead on its own.
            tell = log.info if verbose else lambda line: None
            compared = data.to_search(SEARCH_SPLIT, tell, split=2)
        with working_in(run, strategy) as run:
            if found and not run.architecture.exists():
                if seconds is not None:
                    limit = TimeLimit(seconds, list(stages), run.time_limit)
                    resolved_callbacks.limit = limit
                    searching = searching if has_stages else (*searching, limit)
                with run.timed("search"):
                    if seeds > 1:
                        architecture = pick(run, compared, *found)
                    else:
                        architecture = found[0].run(run, searching, verbose)
                _require_found(architecture, plan, found[1])
                refined(architecture, run, found[1]).save(run.architecture)
            result = train_and_finish(
                trainer(run), train_epochs, run, resolved_budget, table, resolved_callbacks, verbose
            )
            if (survey.expansions or beside) and not run.is_copy:
                hold_against_others(run, found[1] if found else None)
                result = Result.of(run, result.model)
            if result.directory:
                write_report(result.directory, plan.searcher, verbose)
            return result if return_result else result.model


_PICK_EPOCHS = 5


def _require_several_seeds(time_limit: object, strategy: object) -> None:
    """Raise `InputError` for what several searches in turn cannot have."""
    given = {"time_limit": time_limit, "strategy": strategy}
    for name, value in given.items():
        if value is not None:
            raise InputError(f"`{name}` is for one search, but `seeds` asks for several: choose.")
    if current_role() != "alone":
        raise InputError("`seeds` are searched in one process: leave out the workers.")


def _require_ranking(plan: Method, seeds: int, train_epochs: Epochs) -> None:
    """Raise `InputError` for a search of which the best few cannot be trained again."""
    name = plan.searcher.name
    if not getattr(plan.searcher, "ranks", False):
        raise InputError(
            f"`retrain` trains the best candidates of a search that ranks some, as evolution does, "
            f"but searcher `{name}` finds one network: leave `retrain` out, or give `seeds`."
        )
    if seeds > 1:
        raise InputError(
            "`retrain` and `seeds` both choose by trainings of what was found: give one of them."
        )
    if not sum(plan.recipe.split(train_epochs).values()):
        raise InputError("`retrain` needs `train_epochs` above 0, by which it chooses.")


def _apart(data: Data, searcher: Searcher, verbose: int | str) -> Data:
    """Return the data for a searcher, which never sees an image that is reported."""
    held_out = getattr(searcher, "held_out", None)
    share = held_out(data.facts.train_examples) if held_out else SEARCH_SPLIT
    return data.to_search(share, log.info if verbose else lambda line: None)


def _listed(epochs: Mapping[str, int]) -> str:
    """Return the epochs of several stages in brackets."""
    listed = ", ".join(f"{name} {number}" for name, number in epochs.items() if number)
    return f" ({listed})" if len(epochs) > 1 and listed else ""


def stages_of(searcher: Searcher, space: Space, budget: Budget, several: bool = False) -> Stages:
    """Return the stages of a search, or of several in turn, and what they log where known."""
    stages: Stages = getattr(searcher, "stages", {"search": None})
    unlogged = searcher.unlogged(space) if isinstance(searcher, Differentiable) else set()
    unlogged |= set() if budget else {BUDGET_PENALTY}
    return {
        name: logs and dataclasses.replace(logs.without(unlogged), several=several or logs.several)
        for name, logs in stages.items()
    }


class _Numbered(Survey):
    """Takes the operation of a number everywhere."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def _pairs(self, choice: Choice) -> list[Pair]:
        name = choice.eligible[self._number % len(choice.eligible)]
        return [(name, index) for _, index in choice.any()]


def _warn_if_nothing_is_binary(space: Space, facts: DataFacts) -> None:
    """Warn of a space without a binary layer, whichever operation is chosen."""
    number, operations = 0, 1
    while number < operations:
        choose = _Numbered(number)
        if is_binary(space.build(choose, facts.input_shape, facts.classes), space):
            return
        number += 1
        operations = max((len(one.eligible) for one in choose.choices.values()), default=1)
    warn_of_real_layers(space)


def _require_found(architecture: object, plan: Method, limits: Limits | None) -> None:
    """Raise `InputError` for what a searcher must not return."""
    where = f"Searcher `{plan.searcher.name}`"
    if not isinstance(architecture, Architecture):
        raise InputError(f"{where} must return an Architecture, but returned {architecture!r}.")
    given = (plan.space.name, plan.space.settings())
    if (architecture.space, dict(architecture.settings)) != given:
        raise InputError(
            f"{where} must return an architecture of space `{given[0]}` with its settings, but "
            f"returned one of `{architecture.space}` with {dict(architecture.settings)}."
        )
    if limits and not limits.allow(architecture.choices):
        costs = limits.costs.exact(architecture.choices)
        raise InputError(
            f"{where} returned an architecture over the budget: it needs "
            f"{limits.budget.describe(costs)}."
        )


def _work(
    found: Search,
    run: RunDirectory,
    trainer: Callable[[RunDirectory], Trainer],
    callbacks: Sequence[tf.keras.callbacks.Callback],
    verbose: int | str,
) -> Result:
    """Train candidates for a chief, and return the result of what the chief has trained."""
    if verbose:
        log.info(f"Worker: waiting for the chief of `{run.directory}`")
    run.wait_for_chief()
    found.work(run, callbacks)  # type: ignore[attr-defined]
    tf.keras.backend.clear_session()
    if verbose:
        log.info("Worker: the search has ended; waiting for the chief to train")
    run.wait_for(run.result)
    return Result.of(run, trainer(run).restore(run))


def _own_network(space: Space, facts: DataFacts) -> dict[str, str]:
    """Return what tells a space of the user's own from another, which settings do not."""
    if is_built_in(space):
        return {}
    return {"network": fingerprint(space.build(Survey(), facts.input_shape, facts.classes))}
