"""Crossover, mutation, strategies and generations; no TensorFlow."""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import numpy as np

from larq_nas.choices import Choice, Expansion, Parameter, Value
from larq_nas.errors import (
    InputError,
    is_number,
    require_fields,
    require_known,
    require_whole,
    use_plain_numbers,
)
from larq_nas.searchers.evolution.fitness import ranking

Candidate: TypeAlias = Mapping[str, Parameter]
"""The genes of a network by name: the scalars that the values of its choices are made of."""


@dataclass(frozen=True)
class Genes:
    """The options of each gene of a space, such as expansion ratios or operations, by its name.

    # Arguments
        options: the options by gene.
        questions: the choices of the space by name, whose `parameters` the genes are; without, each
            gene is the value of a choice.
    """

    options: Mapping[str, tuple[Parameter, ...]]
    questions: Mapping[str, Choice | Expansion] = field(default_factory=dict)

    @classmethod
    def of(cls, questions: Mapping[str, Choice | Expansion]) -> "Genes":
        """Return the genes of a space that asks these questions."""
        options: dict[str, tuple[Parameter, ...]] = {}
        for question in questions.values():
            options |= question.parameters()
        return cls(options, questions)

    @property
    def size(self) -> int:
        """Number of candidates; of cells, some of them may be one network."""
        return math.prod(len(options) for options in self.options.values())

    @property
    def groups(self) -> Sequence[Sequence[str]]:
        """The genes of each choice: a node's are passed on together.

        Among them are the inputs of one that has no others to choose: a network that a search was
        given may read one of them twice.
        """
        if not self.questions:
            return [[name] for name in self.options]
        return [
            list(dict.fromkeys([*question.parameters(), f"{name}/inputs"]))
            for name, question in self.questions.items()
        ]

    def values(self, candidate: Candidate) -> dict[str, Value]:
        """Return the value of each choice, as an `Architecture` holds them."""
        if not self.questions:
            return dict(candidate)
        return {name: question.value(candidate) for name, question in self.questions.items()}

    def candidate(self, values: Mapping[str, Value]) -> Candidate:
        """Return the genes of a network, which need not be among the options."""
        found: dict[str, Parameter] = {}
        for name, question in self.questions.items():
            found |= question.of_value(values[name])
        return found

    def child(self, given: object, strategy: str, initial: Sequence[Candidate] = ()) -> Candidate:
        """Return the candidate that a strategy gives, in values and order of the options.

        Those of `initial` need not be among the options, and their children inherit from them.

        # Raises
            InputError: if it is none.
        """
        found: dict[str, Parameter] = {}
        values = given if isinstance(given, Mapping) else {}
        for name in (name for group in self.groups for name in group if name in values):
            known = [*self.options.get(name, ()), *(one[name] for one in initial if name in one)]
            if values[name] in known:
                found[name] = known[known.index(values[name])]
        if found.keys() != values.keys() or not found.keys() >= self.options.keys():
            options = "; ".join(f"{name}: {values}" for name, values in self.options.items())
            raise InputError(
                f"Strategy `{strategy}` must give a value of each choice ({options}), but gave "
                f"{given!r}."
            )
        return found

    def holds(self, candidate: Candidate) -> bool:
        """Return whether a candidate has only options."""
        return candidate.keys() == self.options.keys() and all(
            candidate[name] in options for name, options in self.options.items()
        )

    def random(self, rng: np.random.Generator) -> Candidate:
        """Return a candidate drawn evenly."""
        return {
            name: options[int(rng.integers(len(options)))] for name, options in self.options.items()
        }

    def smaller(self, candidate: Candidate, rng: np.random.Generator) -> Candidate:
        """Return a candidate with one width or depth at its next smaller option, if there is one.

        Where there is none, an operation is another.
        """
        below: dict[str, list[Any]] = {}
        for name, options in self.options.items():
            value: Any = candidate[name]
            if not isinstance(value, str):
                below[name] = [one for one in sorted(options) if one < value]
        movable = [name for name, options in below.items() if options]
        if movable:
            name = movable[int(rng.integers(len(movable)))]
            return {**candidate, name: below[name][-1]}
        operations = [n for n, options in self.options.items() if n not in below and options[1:]]
        if not operations:
            return candidate
        name = operations[int(rng.integers(len(operations)))]
        return {**candidate, name: _other(name, candidate[name], self.options[name], rng)}


def crossover(
    first: Candidate, second: Candidate, genes: Genes, rng: np.random.Generator
) -> Candidate:
    """Return a child with the value of each choice from either parent, evenly."""
    takes_first = rng.random(len(genes.groups)) < 0.5
    pairs = zip(genes.groups, takes_first, strict=True)
    parents = ((first if takes else second, group) for group, takes in pairs)
    return {name: parent[name] for parent, group in parents for name in group if name in parent}


def mutate(
    candidate: Candidate, genes: Genes, probability: float, rng: np.random.Generator
) -> Candidate:
    """Return a candidate with each gene changed to another of its options by chance."""
    pairs = zip(candidate.items(), rng.random(len(candidate)) < probability, strict=True)
    return {
        name: _other(name, value, genes.options.get(name, ()), rng) if changes else value
        for (name, value), changes in pairs
    }


def mutate_one(candidate: Candidate, genes: Genes, rng: np.random.Generator) -> Candidate:
    """Return a candidate with one gene changed to another of its options."""
    free = [name for name, options in genes.options.items() if len(options) > 1]
    if not free:
        return candidate
    name = free[int(rng.integers(len(free)))]
    return {**candidate, name: _other(name, candidate[name], genes.options[name], rng)}


def _other(
    name: str, value: Parameter, options: Sequence[Parameter], rng: np.random.Generator
) -> Parameter:
    """Return another option of a gene."""
    others = [option for option in options if option != value]
    if isinstance(value, str) and name.endswith("/inputs"):
        # Of the inputs of a node one changes, as Real et al. mutate a hidden state.
        was = set(value.split(","))
        others = [one for one in others if len(set(str(one).split(",")) - was) == 1]
    return others[int(rng.integers(len(others)))] if others else value


Draw = Callable[[], Candidate]


@dataclass(frozen=True)
class Scored:
    """A candidate that was trained, and what is to be maximized of it: `None` if it failed.

    `rung` is the last one of those of the search that it was trained on.
    """

    candidate: Candidate
    scores: tuple[float, ...] | None
    rung: int = 0


def ordered(scored: Sequence[Scored]) -> list[int]:
    """Return the places of candidates that did not fail, the best first.

    One of a later rung goes before those that were left behind on an earlier one.
    """
    found: list[int] = []
    for rung in sorted({one.rung for one in scored}, reverse=True):
        places = [n for n, one in enumerate(scored) if one.rung == rung and one.scores is not None]
        scores = [scored[n].scores or () for n in places]
        found += [places[i] for i in ranking(scores)]
    return found


@runtime_checkable
class Strategy(Protocol):
    """Proposes candidates; what it proposes follows from its arguments alone."""

    name: ClassVar[str]

    def children(
        self, genes: Genes, scored: Sequence[Scored], population: int, rng: np.random.Generator
    ) -> Draw:
        """Return what draws one child after the other.

        # Arguments
            genes: the options.
            scored: all candidates so far, oldest first.
            population: number of candidates that may be parents.
            rng: what decides.
        """


@dataclass(frozen=True)
class Genetic:
    """Crossover and mutation of the best candidates so far.

    Two parents are the better ones of two random pairs each. With one objective the better one
    has the higher score, as Shen et al. evolve the fitness of Eq. 4; with several it is in an
    earlier Pareto front, or has more room to itself in the same: NSGA-II.

    # Arguments
        crossover: how probable a child has two parents.
        mutation: how probable each of its genes changes; by default one gene in the mean.

    # References
        - [Searching for Accurate Binary Neural Architectures](https://arxiv.org/abs/1909.07378)
        - [A Fast and Elitist Multiobjective Genetic Algorithm:
          NSGA-II](https://doi.org/10.1109/4235.996017)
    """

    name: ClassVar[str] = "genetic"

    crossover: float = 0.9
    mutation: float | None = None

    def __post_init__(self) -> None:
        use_plain_numbers(self)
        require_fields(_require_probability, self, "crossover", "mutation")

    def children(
        self, genes: Genes, scored: Sequence[Scored], population: int, rng: np.random.Generator
    ) -> Draw:
        parents = [scored[place].candidate for place in ordered(scored)[:population]]
        probability = 1 / len(genes.options) if self.mutation is None else self.mutation

        def parent() -> Candidate:
            # Parents are ordered, so the better of two has the smaller index.
            return parents[int(rng.integers(len(parents), size=2).min())]

        def child() -> Candidate:
            candidate = parent()
            if rng.random() < self.crossover:
                candidate = crossover(candidate, parent(), genes, rng)
            return mutate(candidate, genes, probability, rng)

        return child if parents else lambda: genes.random(rng)


@dataclass(frozen=True)
class Aging:
    """Mutation of the best of a few random candidates; the oldest ones die (Real et al.).

    # Arguments
        sample: number of candidates, of the youngest `population`, that the parent is best of;
            by default a quarter of them.

    # References
        - [Regularized Evolution for Image Classifier Architecture
          Search](https://arxiv.org/abs/1802.01548)
    """

    name: ClassVar[str] = "aging"

    sample: int | None = None

    def __post_init__(self) -> None:
        use_plain_numbers(self)
        require_fields(require_whole, self, "sample")

    def children(
        self, genes: Genes, scored: Sequence[Scored], population: int, rng: np.random.Generator
    ) -> Draw:
        alive = [one for one in scored if one.scores is not None][-population:]
        sample = min(self.sample or max(2, population // 4), len(alive))

        def child() -> Candidate:
            drawn = [alive[int(i)] for i in sorted(rng.choice(len(alive), sample, replace=False))]
            return mutate_one(drawn[ordered(drawn)[0]].candidate, genes, rng)

        return child if alive else lambda: genes.random(rng)


@dataclass(frozen=True)
class Random:
    """Candidates drawn evenly, whatever was found: what a search has to beat."""

    name: ClassVar[str] = "random"

    def children(
        self, genes: Genes, scored: Sequence[Scored], population: int, rng: np.random.Generator
    ) -> Draw:
        return lambda: genes.random(rng)


STRATEGIES: dict[str, type[Any]] = {kind.name: kind for kind in (Genetic, Aging, Random)}


def resolve_strategy(strategy: "str | Strategy") -> Strategy:
    """Return the strategy that a name stands for."""
    if isinstance(strategy, str):
        require_known("strategy", strategy, STRATEGIES)
        made: Strategy = STRATEGIES[strategy]()
        return made
    if isinstance(strategy, type):
        raise InputError(f"`strategy` must be an instance, such as {strategy.__name__}().")
    if not isinstance(strategy, Strategy):
        raise InputError(
            f"`strategy` must be one of {', '.join(STRATEGIES)}, or have a `name` and a method "
            f"`children`, but got {strategy!r}."
        )
    return strategy


def _require_probability(**values: float) -> None:
    for name, value in values.items():
        if not is_number(value) or not 0 <= value <= 1:
            raise InputError(f"`{name}` must be a probability from 0 to 1, but got {value!r}.")


# How often a candidate is drawn at most, and of one too large how often a gene is made smaller.
_TRIES, _STEPS = 50, 32


@dataclass(frozen=True)
class Generation:
    """Candidates to train, and how many drawn ones were over the budget or seen before."""

    candidates: tuple[Candidate, ...]
    over_budget: int = 0
    repeated: int = 0


def _genes(candidate: Candidate) -> Hashable:
    """Return what tells a candidate of a space from others."""
    return tuple(candidate.values())


@dataclass(frozen=True)
class Breeder:
    """Makes generations; the same seed and scores give the same.

    # Arguments
        genes: the options.
        strategy: what proposes candidates.
        population: number of candidates of a generation.
        seed: what decides, with the number of a generation.
        fits: whether a candidate keeps to the budget, and computes anything.
        identity: what is the same for candidates whose networks are the same.
        initial: the first candidates of the first generation.
    """

    genes: Genes
    strategy: Strategy
    population: int
    seed: int
    fits: Callable[[Candidate], bool] = lambda candidate: True
    identity: Callable[[Candidate], Hashable] = _genes
    initial: tuple[Candidate, ...] = ()

    def generation(self, number: int, scored: Sequence[Scored]) -> Generation:
        """Return a generation, smaller than the population if there are no more candidates.

        `number` counts those before; `scored` are all their candidates, oldest first.
        """
        rng = np.random.default_rng([self.seed, number])
        draw = self.strategy.children(self.genes, scored, self.population, rng)
        if not callable(draw):
            raise InputError(
                f"`children` of strategy `{self.strategy.name}` must return a function that draws "
                f"a child, but returned {draw!r}."
            )
        seen = {self.identity(one.candidate) for one in scored}
        found: list[Candidate] = []
        over, repeated = 0, 0
        for candidate in () if number else self.initial:
            if self.identity(candidate) not in seen:
                seen.add(self.identity(candidate))
                found.append(candidate)
        tried = sum(self.genes.holds(one.candidate) for one in scored)
        wanted = min(self.population, max(self.genes.size - tried, len(found)))
        for draws in range(_TRIES * wanted):
            if len(found) == wanted:
                break
            # Where children are all seen before, as late in a small space, others are drawn.
            candidate = draw() if draws < _TRIES * wanted // 2 else self.genes.random(rng)
            candidate = self.genes.child(candidate, self.strategy.name, self.initial)
            if self.identity(candidate) in seen:
                repeated += 1
                continue
            if not self.fits(candidate):
                over += 1
                candidate = self._slimmed(candidate, rng)
                if self.identity(candidate) in seen or not self.fits(candidate):
                    continue
            seen.add(self.identity(candidate))
            found.append(candidate)
        return Generation(tuple(found), over, repeated)

    def _slimmed(self, candidate: Candidate, rng: np.random.Generator) -> Candidate:
        """Return a candidate that fits, made smaller a choice at a time; the smallest if none."""
        for _ in range(_STEPS * len(candidate)):
            if self.fits(candidate):
                break
            smaller = self.genes.smaller(candidate, rng)
            if smaller == candidate:
                break
            candidate = smaller
        return candidate
