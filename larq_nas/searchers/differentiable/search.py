"""Differentiable search: its settings and its run."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import numpy as np
import tensorflow as tf

from larq_nas.architecture import Architecture
from larq_nas.choices import Choice, Chosen, strongest
from larq_nas.cost import Limits
from larq_nas.data.data import Data
from larq_nas.data.labels import whole_labels
from larq_nas.data.streams import Stream, bilevel_stream
from larq_nas.errors import (
    DivergenceError,
    InputError,
    require_at_least,
    require_bool,
    require_falling,
    require_fields,
    require_known,
    require_not_negative,
    require_positive,
    use_plain_numbers,
    warn,
)
from larq_nas.layers import ComputedIn, Domain, building_in
from larq_nas.layers.mixture import Kept
from larq_nas.layers.precision import require_precision, warn_if_unused
from larq_nas.log import counted, log
from larq_nas.process_state import seed_everything
from larq_nas.report.charts import Section
from larq_nas.run_directory import RunDirectory
from larq_nas.searchers.differentiable.derivation import (
    collapsed_kinds,
    derive,
    describe_collapse,
    scores_of,
    warn_of_collapse,
    warn_of_dropped,
    weakened,
)
from larq_nas.searchers.differentiable.model import (
    DIVERSITY,
    MEASURED,
    BilevelModel,
    BudgetPenalty,
    Diversity,
    EpochTerm,
    mean_entropy,
)
from larq_nas.searchers.differentiable.record import (
    WITHOUT_WEIGHTS,
    ZEROS,
    Health,
    read_scores,
    sections,
)
from larq_nas.searchers.estimate import estimate, fitting_data, require_memory
from larq_nas.searchers.searcher import BUDGET_PENALTY, Callbacks
from larq_nas.spaces import Space
from larq_nas.spaces.cell_space import CellSpace
from larq_nas.spaces.space import Precision
from larq_nas.supernet.fuse import Fuse
from larq_nas.supernet.fused_cell import FusedCell
from larq_nas.supernet.relax import Relax, require_temperature
from larq_nas.training.callbacks import StageLogs
from larq_nas.training.distribution import building_on, require_halves, warn_if_apart
from larq_nas.training.loop import SEARCH_LEVEL, fit, read_history
from larq_nas.training.recipe import OptimizerName, Recipe, learning_rate, optimizer
from larq_nas.training.trainer import FLIP_RATIO
from larq_nas.training.transfer import constrain, initialize_scales

_UNDECIDED = 0.98


def warn_if_undecided(model: BilevelModel, what: str = "The search") -> bool:
    """Warn of probabilities that have hardly moved, and return whether they have not."""
    entropy = float(mean_entropy(model.mixtures))
    counts = np.concatenate([mixture.kept.sum(axis=1) for mixture in model.mixtures])
    largest = float(np.log(counts).mean())
    undecided = largest > 0 and entropy > _UNDECIDED * largest
    if undecided and not bool(model.searching):
        warn(
            f"{what} ended before it began to choose, since its first epochs train the weights "
            "alone: its choices are chance; give it a longer `time_limit`, fewer `epochs` or a "
            "smaller `weights_only`."
        )
    elif undecided:
        warn(
            f"{what} has hardly decided (entropy {entropy:.3f} of {largest:.3f} nats): its "
            "choices are little more than chance; search for more epochs, or raise the "
            "searcher's `architecture_learning_rate`."
        )
    return undecided


_LONG = 5.0
# Adam moves a parameter by about its rate in a step; after less of a way few choices are made.
_WAY = 0.3


def announce(search: "DifferentiableSearch", verbose: int | str) -> None:
    """Say what a search will need, and warn of settings that do nothing."""
    model, choose, batch_size = search.model, search.choose, search.data.facts.batch_size
    memory = estimate(model, batch_size)
    first, reason = next(iter(choose.obstacles.items()), ("", ""))
    if verbose:
        log.info(
            f"Supernet: {model.count_params():,} parameters, about {memory / 2**30:.1f} GiB of "
            f"memory, {counted(search.stream.steps * search.epochs, 'step')} of {batch_size} "
            "images for the weights and as many for the architecture parameters.",
        )
        steps = search.stream.steps * (search.epochs - search.warm_up)
        rate = float(tf.convert_to_tensor(model.architecture_optimizer.learning_rate))
        if steps * rate < _WAY:
            log.info(
                f"Few steps: architecture parameters move in {counted(steps, 'step')}, of about "
                f"{math.ceil(_WAY / rate):,} that decide at the searcher's "
                f"`architecture_learning_rate={rate:g}`: give more epochs, smaller batches or a "
                "higher rate",
            )
        if choose.obstacles:
            log.info(
                f"{len(choose.obstacles)} of {len(choose.obstacles) + choose.fused} cells are "
                f"computed operation by operation, which takes longer; `{first}`: {reason}",
            )
        slow = model.terms.get(BUDGET_PENALTY)
        if isinstance(slow, BudgetPenalty) and slow.seconds > _LONG:
            log.info(f"Budget: its costs take up to {slow.seconds:.0f} s before each epoch")
    warn_if_unused(model, model.precision)
    if choose.rematerialize and not choose.fused:
        why = f"no cell is fused; `{first}`: {reason}" if first else "the space has no cells"
        warn(f"`rematerialize=True` has no effect: {why}.")


_MEASURED_BATCHES = 8
_DROPPED = -100.0  # below any sum of probabilities


@dataclass(frozen=True)
class DifferentiableSearch:
    """A search that is ready to run; `warm_up` epochs of it train the weights alone.

    `stage` is unique in the run, and `epochs_before` are the epochs of the stages before it.
    """

    space: Space
    data: Data
    limits: Limits | None
    epochs: int
    warm_up: int
    choose: Fuse
    model: BilevelModel
    stream: Stream
    transfer_factor: float = 1.0
    stage: str = "search"
    epochs_before: int = 0
    derived_epoch: str = "last"
    on_collapse: str = "warn"

    def run(
        self, directory: RunDirectory, callbacks: Callbacks = (), verbose: int | str = "auto"
    ) -> Architecture:
        """Return the architecture found."""
        announce(self, verbose)
        self.learn(directory, callbacks, verbose)
        return self.derive(directory, verbose)

    def learn(self, run: RunDirectory, callbacks: Callbacks, verbose: int | str) -> None:
        """Train the supernet, from where it was."""
        model = self.model
        fit(
            model,
            self.stage,
            self.stream,
            self.epochs,
            run,
            seed=self.data.seed,
            optimizers=[model.optimizer, model.architecture_optimizer],
            callbacks=callbacks,
            own=[
                _Schedule(model, self.warm_up),
                Health(self.choose, run, self.stage, self.epochs_before, self.transfer_factor),
            ],
            verbose=verbose,
        )

    def derive(self, run: RunDirectory, verbose: int | str = 0) -> Architecture:
        """Return the architecture that the trained supernet stands for.

        # Raises
            DivergenceError: if the search collapsed, and is to be stopped by that.
        """
        choose = self.choose
        # Those of the found network, of which the supernet may have fewer cells.
        found = self.limits.costs.choices if self.limits else choose.choices
        scores = self._scores(run, found, verbose)
        dropped = {name: ~mixture.kept for name, mixture in choose.mixtures.items()}
        if any(of_choice.any() for of_choice in dropped.values()):
            # What a stage has dropped comes back if no other network keeps to a budget.
            scores = {name: np.where(dropped[name], _DROPPED, scores[name]) for name in scores}
        chosen = derive(choose.choices, choose.cells, scores, self.limits)
        collapsed = collapsed_kinds(found, chosen)
        undecided = warn_if_undecided(self.model)
        if collapsed and self.on_collapse == "stop":
            mend = ""
            if not run.is_temporary:
                earlier = f'larq_nas.derive("{run.directory}", epoch=...)'
                mend = f"train what {earlier} gives of an earlier epoch, or "
            raise DivergenceError(
                f"{describe_collapse(collapsed)}, and nothing was trained: {mend}search with a "
                "lower temperature or fewer epochs, in another directory."
            )
        warn_of_collapse(collapsed, undecided)
        warn_of_dropped(choose, chosen)
        if verbose and self.data.strategy is None:
            right, seen = self._measure(chosen)
            log.info(
                f"The found operations alone, with the supernet's weights: {right / seen:.2%} of "
                f"{seen:,} images of the search (chance {1 / self.data.facts.classes:.2%})"
            )
        values = {name: choose.choices[name].encode(pairs) for name, pairs in chosen.items()}
        return Architecture(self.space.name, self.space.settings(), values)

    def _scores(
        self, run: RunDirectory, found: Mapping[str, Choice], verbose: int | str
    ) -> dict[str, np.ndarray]:
        """Return the probabilities of the epoch that is derived, zeros weakened."""
        choose = self.choose
        if self.derived_epoch == "last" and self.on_collapse != "before":
            return scores_of(choose, self.transfer_factor)
        recorded = read_scores(run.probabilities, choose.choices)
        accuracy = {
            int(row["epoch"]): float(row[SEARCH_LEVEL[1]])
            for row in read_history(run.history)
            if row["stage"] == self.stage and SEARCH_LEVEL[1] in row
        }
        if not accuracy:
            # It was ended while the weights learned alone, which is told.
            return scores_of(choose, self.transfer_factor)
        # The first of equals, and of the last the last.
        order = sorted(accuracy, key=lambda epoch: (-accuracy[epoch], epoch))
        if self.derived_epoch == "last":
            order = sorted(accuracy, reverse=True)
        first = order[0]
        if self.on_collapse == "before":
            order = [
                epoch
                for epoch in order
                if not collapsed_kinds(
                    found,
                    strongest(choose.choices, self._weakened(recorded[self.epochs_before + epoch])),
                )
            ]
            if not order:
                warn("Every epoch of the search collapsed: none is before that.")
        epoch = order[0] if order else first
        if verbose:
            # Counted as `larq_nas.derive` does, through the stages.
            before = self.epochs_before
            passed = f"; epoch {before + first} collapsed" if epoch != first else ""
            log.info(
                f"Derived: epoch {before + epoch} of {before + self.epochs}, search accuracy "
                f"{accuracy[epoch]:.2%}{passed}"
            )
        return self._weakened(recorded[self.epochs_before + epoch])

    def _measure(self, chosen: Chosen) -> tuple[int, int]:
        """Return of how many images the chosen part of the supernet tells the class, and of all.

        Its norms have the statistics of each batch, as in the search.
        """
        right = seen = 0
        for name, mixture in self.choose.mixtures.items():
            mixture.fixed = self.choose.choices[name].one_hot(chosen[name])
        # Few batches, as they are not traced.
        for _, (images, labels, *_) in self.stream.from_epoch(0, 1).take(_MEASURED_BATCHES):
            outputs = tf.nest.flatten(self.model(images, training=True))[0]
            guessed = tf.argmax(outputs, -1, tf.int32)
            right += int(tf.reduce_sum(tf.cast(guessed == whole_labels(labels), tf.int32)))
            seen += len(labels)
        for mixture in self.choose.mixtures.values():
            mixture.fixed = None
        return right, seen

    def _weakened(self, probabilities: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {
            name: weakened(self.choose.choices[name], matrix, self.transfer_factor)
            for name, matrix in probabilities.items()
        }


class _Schedule(tf.keras.callbacks.Callback):
    """Starts the architecture steps after the warm-up, and prepares what is added to the loss."""

    def __init__(self, model: BilevelModel, warm_up: int) -> None:
        super().__init__()
        self._model = model
        self._terms = cast(Mapping[str, EpochTerm], model.terms)
        self._warm_up = warm_up

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._model.set_searching(epoch >= self._warm_up)
        for term in self._terms.values():
            term.begin_epoch(epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if logs is not None and epoch < self._warm_up:
            for name in (*SEARCH_LEVEL, *self._terms):
                logs.pop(name, None)


_QUANTIZERS = {"weights": "kernel_quantizer", "activations": "input_quantizer"}


def require_domain(supernet: tf.keras.Model, **asked: str | None) -> None:
    """Raise `InputError` for a supernet that is not built in the domain that was given.

    `weights` and `activations` are each `"binary"`, `"real"` or `None` for any.
    """
    for name, wanted in asked.items():
        binary = [layer.name for layer in _quantized(supernet, _QUANTIZERS[name])]
        if wanted == "real" and binary:
            raise InputError(
                f'`{name}` cannot be "real" in this space: layer `{binary[0]}` stays binary; build '
                "it of the blocks of larq_nas.layers."
            )
        if wanted == "binary" and not binary:
            raise InputError(
                f'`{name}` cannot be "binary" in this space, which has real ones alone: search it '
                'with precision="binary".'
            )


def _quantized(supernet: tf.keras.Model, attribute: str) -> Iterator[tf.keras.layers.Layer]:
    """Yield the layers that have a quantizer, those inside of fused cells too."""
    for layer in supernet._flatten_layers(include_self=False):
        inside = layer.plan.prototypes.values() if isinstance(layer, FusedCell) else ()
        for one in (layer, *inside):
            if getattr(one, attribute, None) is not None:
                yield one


def require_betas(betas: Any) -> None:
    """Raise `InputError` for decay rates that Adam cannot have."""
    pair = isinstance(betas, tuple | list) and len(betas) == 2
    if not pair or not all(isinstance(b, int | float) and 0 <= b < 1 for b in betas):
        raise InputError(
            f"`architecture_betas` must be two numbers from 0 to below 1, but got {betas!r}."
        )


_DECAYS = ("weight_decay", "architecture_weight_decay")
_CLIPS = ("clip_norm", "architecture_clip_norm")
_NOT_NEGATIVE = (*_DECAYS, *_CLIPS, "budget_weight", "diversity", "weights_only")
_POSITIVE = ("learning_rate", "architecture_learning_rate", "final_learning_rate")


@dataclass(frozen=True)
class Differentiable:
    """Learn weights and architecture parameters of a supernet, and derive the strongest.

    The defaults are those of method `"default"`; `larq_nas.methods` has those of each paper.

    !!! example
        ```python
        searcher = larq_nas.searchers.Differentiable(temperature=0.5)
        model = larq_nas.search(train, validation, space="bats", searcher=searcher)
        ```

    # Arguments
        temperature: temperature of the softmax over operations: one for all choices, or one
            for each group of choices by name.
        weights_only: share of the epochs, the first ones, that train the weights alone.
        optimizer: of the weights: `"adam"`, or `"sgd"` with a momentum of 0.9.
        learning_rate: learning rate of the weights, the first one.
        final_learning_rate: the last one, reached along a cosine; without, the rate stays.
        weight_decay: L2 coefficient of the weights.
        architecture_learning_rate: Adam's learning rate for the architecture parameters.
        architecture_weight_decay: L2 coefficient of the architecture parameters.
        architecture_betas: Adam's decay rates for the architecture parameters.
        clip_norm: the norm of all gradients of the weights is held at this; 0 for no limit.
        architecture_clip_norm: that of the gradients of the architecture parameters.
        diversity: lambda of the diversity regularizer, subtracted times the mean entropy of
            the edges from the loss of the architecture parameters; 0 for none.
        diversity_annealing: its tau: the epochs in which it falls to 1/e.
        transfer_factor: gamma, 1 or more: by so much the zero operation is weakened when the
            architecture is derived, for a network to be trained on more data than searched.
        derived_epoch: the epoch that the architecture is of: the `"last"`, or that of the `"best"`
            accuracy on the images of the architecture parameters, as BNAS' release has it; that is
            measured while these are learned, with the statistics of each batch.
        on_collapse: what follows if more than 3/4 of a kind of cell are skips and pools:
            `"warn"` goes on, `"stop"` ends the run before anything is trained, and `"before"`
            derives the last, or best, epoch in which it had not.
        budget_weight: loss of the architecture parameters for each limit of a budget that is
            exceeded by its own size.
        weights: what the convolutions' weights are while searched, `"binary"` or `"real"`; by
            default as the space is searched. The network that is found has those of its space.
        activations: what their inputs are while searched (BATS, Table 4).
        rematerialize: whether each cell is computed again for its gradient, for supernets that
            do not fit in memory: the same search in less of it, taking a quarter to a third longer.
        precision: `"bfloat16"` computes binary convolutions and their gradients in 16 bits, which
            processors with AMX and GPUs do faster; the rest stays float32.

    # References
        - [BATS: Binary ArchitecTure Search](https://arxiv.org/abs/2003.01711)
        - [BNAS v2](https://arxiv.org/abs/2110.08562)
        - [DARTS: Differentiable Architecture Search](https://arxiv.org/abs/1806.09055)
    """

    name: ClassVar[str] = "differentiable"
    default_epochs: ClassVar[int] = 25
    several_devices: ClassVar[bool] = True
    several_processes: ClassVar[bool] = False
    smallest_ratio: ClassVar[float | None] = None

    temperature: float | Mapping[str, float] = 0.2
    weights_only: float = 0.4
    optimizer: OptimizerName = "adam"
    learning_rate: float = 1e-3
    final_learning_rate: float | None = None
    weight_decay: float = 3e-4
    architecture_learning_rate: float = 6e-4
    architecture_weight_decay: float = 1e-3
    architecture_betas: tuple[float, float] = (0.5, 0.999)
    clip_norm: float = 0.0
    architecture_clip_norm: float = 0.0
    diversity: float = 0.0
    diversity_annealing: float = 7.7
    transfer_factor: float = 1.0
    derived_epoch: Literal["last", "best"] = "last"
    on_collapse: Literal["warn", "stop", "before"] = "warn"
    budget_weight: float = 1.0
    weights: Precision | None = None
    activations: Precision | None = None
    rematerialize: bool = False
    precision: ComputedIn = "float32"

    def __post_init__(self) -> None:
        use_plain_numbers(self)
        require_temperature(self.temperature)
        require_known("optimizer", self.optimizer, ("adam", "sgd"))
        require_fields(require_positive, self, *_POSITIVE)
        require_fields(require_not_negative, self, *_NOT_NEGATIVE)
        # Without the regularizer its annealing is not used, and may be anything.
        if self.diversity:
            require_positive(diversity_annealing=self.diversity_annealing)
        if self.weights_only >= 1:
            raise InputError(
                "`weights_only` must be a share of the epochs, from 0 to below 1, but got "
                f"{self.weights_only}."
            )
        require_falling(self, "learning_rate")
        for name in ("weights", "activations"):
            if getattr(self, name) is not None:
                require_known(name, getattr(self, name), ("binary", "real"))
        require_known("derived_epoch", self.derived_epoch, ("last", "best"))
        require_known("on_collapse", self.on_collapse, ("warn", "stop", "before"))
        require_betas(self.architecture_betas)
        require_at_least(1, transfer_factor=self.transfer_factor)
        require_precision(self.precision)
        require_bool(rematerialize=self.rematerialize)

    @property
    def stages(self) -> dict[str, StageLogs]:
        """What is logged."""
        return {"search": self._logs()}

    def _logs(self) -> StageLogs:
        always = ("loss", "accuracy", *MEASURED, WITHOUT_WEIGHTS)
        searching = (*SEARCH_LEVEL, *((DIVERSITY,) if self.diversity else ()))
        # The space tells of the first two.
        sometimes = (FLIP_RATIO, ZEROS, BUDGET_PENALTY)
        if self.weights_only:
            return StageLogs(always, searching + sometimes)
        return StageLogs(always + searching, sometimes)

    def unlogged(self, space: Space) -> set[str]:
        """Return what is not logged in a search of a space."""
        if not isinstance(space, CellSpace):
            return set()  # it is known of what was built alone
        is_real = self._domain(space).weights == "real"
        return {*([FLIP_RATIO] if is_real else []), *([] if space.keep_zero else [ZEROS])}

    def held_out(self, train_examples: int) -> float:
        """Return 0: the architecture learns from a half of the training images."""
        return 0.0

    def report(self, directory: RunDirectory) -> list[Section]:
        """Return what a report of a run shows of the search."""
        return sections(directory)

    def settings(self) -> dict[str, Any]:
        """Return the settings as a run keeps them."""
        settings = {"name": self.name, **dataclasses.asdict(self)}
        # What changes nothing but memory may be given to a run that is resumed.
        del settings["rematerialize"]
        return settings

    def prepare(
        self, space: Space, data: Data, limits: Limits | None, epochs: int, recipe: Recipe
    ) -> DifferentiableSearch:
        """Return a search with its supernet built; see `larq_nas.searchers.Searcher`.

        The training data is halved between weights and architecture parameters.
        """
        proxy = space.proxy()
        search = self.prepare_stage(space, proxy, data, limits, epochs)
        self.require_memory(search, proxy)
        return search

    def require_memory(self, search: DifferentiableSearch, proxy: Space) -> None:
        """Raise `InputError` if the supernet of `proxy` needs clearly more memory than is free."""
        size, facts = search.data.facts.batch_size, search.data.facts

        def of_batches(rematerialize: bool | None) -> Callable[[int], float]:
            return lambda batch: estimate(search.model, batch, rematerialize)

        def mends(free: float) -> list[str]:
            found = fitting_data(of_batches(None), free, size, facts.input_shape)
            if search.choose.fused and not self.rematerialize:
                if of_batches(True)(size) <= free:
                    found.append("use the searcher's `rematerialize=True`")
                elif not found:
                    both = fitting_data(of_batches(True), free, size, facts.input_shape)
                    found = [f"{one} with the searcher's `rematerialize=True`" for one in both]
            own = channels = proxy.channels if isinstance(proxy, CellSpace) else 1
            groups = getattr(proxy, "groups", 1)
            while channels := channels // 2 // groups * groups:
                if estimate(search.model, size, width=channels / own) > free:
                    continue
                try:
                    smaller: Any = dataclasses.replace(proxy, channels=channels)  # type: ignore[type-var]
                except InputError:  # such as a stem that is too narrow for groups
                    break
                with building_in(self._domain(search.space)):
                    supernet = smaller.build(
                        Fuse(self.temperature), facts.input_shape, facts.classes
                    )
                if estimate(supernet, size) <= free:
                    return [*found, f"use the space's `search_channels={channels}`"]
            return found

        require_memory(estimate(search.model, size), mends)

    def prepare_stage(
        self,
        space: Space,
        proxy: Space,
        data: Data,
        limits: Limits | None,
        epochs: int,
        kept: Mapping[str, Kept] | None = None,
        stage: str = "search",
        epochs_before: int = 0,
    ) -> DifferentiableSearch:
        """Return a stage of a search that is ready to run, and its supernet of `proxy`.

        `kept` are the operations of each choice that are still candidates; all, if not given.
        """
        require_halves(data.strategy, data.facts)
        seed_everything(data.seed)
        choose = Fuse(self.temperature, rematerialize=self.rematerialize, kept=kept)
        stream = bilevel_stream(data.train, data.facts, data.seed, data.augment)
        with building_on(data.strategy):
            with building_in(self._domain(space)):
                supernet = proxy.build(choose, data.facts.input_shape, data.facts.classes)
            warn_if_apart(supernet, data.strategy)
            self._require_choices(space, choose)
            model = self._model(supernet, choose, limits, epochs * stream.steps)
        return DifferentiableSearch(
            space,
            data,
            limits,
            epochs,
            # Of 0.4 times 25 the float is a little less than 10.
            int(self.weights_only * epochs + 1e-9),
            choose,
            model,
            stream,
            self.transfer_factor,
            stage,
            epochs_before,
            self.derived_epoch,
            self.on_collapse,
        )

    def _model(
        self, supernet: tf.keras.Model, choose: Relax, limits: Limits | None, steps: int
    ) -> BilevelModel:
        require_domain(supernet, weights=self.weights, activations=self.activations)
        constrain(supernet)
        initialize_scales(supernet)
        model = BilevelModel(
            supernet,
            choose.mixtures,
            self.weight_decay,
            self.architecture_weight_decay,
            self._terms(choose, limits),
            self.precision,
            self.clip_norm,
            self.architecture_clip_norm,
        )
        rate: Any = self.learning_rate
        if self.final_learning_rate is not None:
            rate = learning_rate("cosine", rate, steps, last=self.final_learning_rate)
        first, second = self.architecture_betas
        model.compile(
            optimizer(self.optimizer, rate),
            tf.keras.optimizers.Adam(self.architecture_learning_rate, beta_1=first, beta_2=second),
        )
        return model

    def _terms(self, choose: Relax, limits: Limits | None) -> dict[str, EpochTerm]:
        """Return what is added to the loss of the architecture parameters, by its name."""
        terms: dict[str, EpochTerm] = {}
        mixtures = choose.mixtures
        if limits:
            terms[BUDGET_PENALTY] = BudgetPenalty(
                limits, mixtures, self.budget_weight, self.transfer_factor
            )
        if self.diversity:
            terms[DIVERSITY] = Diversity(
                list(mixtures.values()), self.diversity, self.diversity_annealing
            )
        return terms

    def _domain(self, space: Space) -> Domain:
        given = {"weights": self.weights, "activations": self.activations}
        changes: Any = {name: value for name, value in given.items() if value is not None}
        return dataclasses.replace(space.search_domain, **changes)

    def _require_choices(self, space: Space, choose: Relax) -> None:
        if choose.expansions:
            raise InputError(
                f"Space `{space.name}` chooses widths ({next(iter(choose.expansions))}, ...), but "
                f"searcher `{self.name}` only chooses operations: give `searcher` evolution."
            )
        if not choose.mixtures:
            raise InputError(f"Space `{space.name}` asks nothing: there is nothing to search.")
        if all(len(choice.operations) == 1 for choice in choose.choices.values()):
            raise InputError(
                f"Each choice of space `{space.name}` is of one operation: there is nothing to "
                "search; give more `operations`."
            )
        keeps = any(choice.keeps_zero for choice in choose.choices.values())
        if self.transfer_factor != 1 and not keeps:
            raise InputError(
                f"`transfer_factor` weakens the zero operation, but space `{space.name}` never "
                "keeps it: leave it at 1."
            )
