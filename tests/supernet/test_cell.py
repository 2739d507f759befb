"""Fused cells against the same cells, layer by layer."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import tensorflow as tf
from conftest import quick

from larq_nas.layers import BINARY_SEARCH, SEARCH, Domain, building_in
from larq_nas.spaces import Bats, Bnas, Space
from larq_nas.supernet.fuse import Fuse
from larq_nas.supernet.fused_cell import FusedCell
from larq_nas.supernet.relax import Relax

SHAPE, CLASSES = (8, 8, 3), 4


class Normal(Bnas):
    """Without reduction cells, which double the channels.

    Sums of scaled signs that cancel are 0, or what rounding leaves of it, and whether a ReLU
    passes a gradient is chance then. Of an odd number of channels none cancels. Nor are the
    equal numbers, among which a max pool would choose.
    """

    @property
    def reductions(self) -> set[int]:
        return set()


ODD = tuple(name for name in Bnas().operations if name != "max_pool_3x3")
CASES = {
    "bnas": (Normal(cells=2, channels=5, nodes=3, operations=ODD), BINARY_SEARCH),
    "bnas_real": (
        Bnas(cells=3, channels=4, nodes=3),
        dataclasses.replace(BINARY_SEARCH, weights="real"),
    ),
    "bats": (Bats(cells=3, channels=6, nodes=2), SEARCH),
    "bats_groups": (
        Bats(cells=2, channels=6, groups=3, nodes=2, activation="prelu"),
        SEARCH,
    ),
    "bats_parts": (  # two of 12 channels in the normal cell, three of 16 in the reduction
        Bats(cells=2, channels=24, groups=6, nodes=2, activation="prelu"),
        SEARCH,
    ),
    "bats_real": (
        Bats(cells=2, channels=6, groups=2, nodes=2),
        dataclasses.replace(SEARCH, activations="real"),
    ),
    "bats_fewer": (Bats(cells=3, channels=12, groups=3, nodes=3, activation="prelu"), SEARCH, 3),
}


def fewer(space: Space, number: int) -> dict[str, np.ndarray]:
    """Keep so many operations of each edge, with no order in it."""
    generator = np.random.default_rng(1)
    kept = {}
    for name, (operations, inputs, _) in space.survey(SHAPE, CLASSES).questions().items():
        drawn = generator.random((inputs, len(operations)))
        kept[name] = (np.argsort(drawn, axis=1).argsort(axis=1) < number).tolist()
    return kept


class Both:
    """A supernet, plain and fused, of the same weights and alphas."""

    def __init__(self, space: Space, domain: Domain, number: int | None = None) -> None:
        tf.keras.utils.set_random_seed(0)
        kept = fewer(space, number) if number else None
        self.choosers = Relax(0.5, kept=kept), Fuse(0.5, kept=kept)
        with building_in(domain):
            built = [space.build(choose, SHAPE, CLASSES) for choose in self.choosers]
        self.plain, self.fused = built
        for choose in self.choosers:
            for seed, mixture in enumerate(choose.mixtures.values()):
                noise = np.random.default_rng(seed).normal(size=mixture.alpha.shape)
                mixture.alpha.assign(noise)
        for fused, plain in self.pairs():
            fused.assign(plain)

    @property
    def cells(self) -> list[FusedCell]:
        return [layer for layer in self.fused.layers if isinstance(layer, FusedCell)]

    def pairs(self) -> Iterator[tuple[tf.Variable, np.ndarray]]:
        """Yield each weight of the fused supernet but alphas, with what it is in the plain one."""
        plain = {layer.name: layer for layer in self.plain.layers}
        yield from self.stacked(lambda name: plain[name].weights)

    def stacked(self, weights_of) -> Iterator[tuple[tf.Variable, np.ndarray]]:
        operations = next(iter(self.choosers[1].choices.values())).operations
        for layer in self.fused.layers:
            if not isinstance(layer, FusedCell):
                if layer.weights and not layer.name.startswith("mixture"):
                    yield from zip(layer.weights, weights_of(layer.name), strict=True)
                continue
            prefix = layer.name.removesuffix("_cell")
            slopes_of = iter(layer.slopes)
            for stack, kernel in zip(layer.plan.stacks, layer.kernels, strict=True):
                names = [
                    f"{prefix}_node{node}_in{state}_{operations[number]}"
                    for state, number, _ in stack.convolutions
                    for node in layer.plan.readers(state, number)
                ]
                kernels = [np.array(weights_of(f"{name}_conv")[0]) for name in names]
                yield kernel, np.concatenate(kernels, axis=-1)
                if stack.prelu:
                    slopes = [np.array(weights_of(f"{name}_prelu")[0]).ravel() for name in names]
                    yield next(slopes_of), np.concatenate(slopes)


@pytest.fixture(scope="module", params=quick(CASES, 0, 4, 6))
def both(request) -> Both:
    return Both(*CASES[request.param])


def batch(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    images = generator.normal(size=(6, *SHAPE)).astype("float32")
    return images, generator.integers(0, CLASSES, 6)


def gradients(model: tf.keras.Model, variables: list[tf.Variable]) -> list[np.ndarray]:
    images, labels = batch()
    with tf.GradientTape() as tape:
        logits = model(images, training=True)
        losses = tf.keras.losses.sparse_categorical_crossentropy(labels, logits, True)
        loss = tf.reduce_mean(losses)
    found = tape.gradient(loss, variables)
    return [tf.convert_to_tensor(g).numpy() for g in found]


def assert_close(got: np.ndarray, expected: np.ndarray, what: str) -> None:
    scale = max(np.abs(expected).max(), 1e-3)
    np.testing.assert_allclose(got / scale, expected / scale, atol=2e-4, err_msg=what)


def test_every_cell_is_fused(both: Both) -> None:
    assert len(both.cells) == len(
        {layer.name.split("_")[0] for layer in both.plain.layers if layer.name.startswith("cell")}
    )


def test_outputs_are_those_of_the_plain_supernet(both: Both) -> None:
    images, _ = batch()
    for training in (True, False):
        plain, fused = (m(images, training=training).numpy() for m in (both.plain, both.fused))
        assert_close(fused, plain, f"training={training}")


def test_gradients_of_alphas_are_those_of_the_plain_supernet(both: Both) -> None:
    found = []
    for model, choose in zip((both.plain, both.fused), both.choosers, strict=True):
        alphas = [mixture.alpha for mixture in choose.mixtures.values()]
        found.append(gradients(model, alphas))
    for name, plain, fused in zip(both.choosers[0].mixtures, *found, strict=True):
        assert_close(fused, plain, name)


def test_gradients_of_weights_are_those_of_the_plain_supernet(both: Both) -> None:
    weights = both.plain.trainable_weights
    found = dict(zip([w.ref() for w in weights], gradients(both.plain, weights), strict=True))
    plain = {layer.name: layer for layer in both.plain.layers}
    pairs = [
        (variable, value)
        for variable, value in both.stacked(
            lambda name: [found.get(w.ref(), w) for w in plain[name].weights]
        )
        if variable.trainable
    ]
    slopes = gradients(both.fused, [variable for variable, _ in pairs])
    for (variable, expected), slope in zip(pairs, slopes, strict=True):
        assert_close(slope, np.array(expected), variable.name)


def test_choices_are_described_alike(both: Both) -> None:
    plain, fused = both.choosers
    assert plain.choices == fused.choices
    assert plain.cells == fused.cells
    assert plain.prefixes == fused.prefixes


@pytest.mark.slow
def test_statistics_move_as_in_the_plain_supernet() -> None:
    both = Both(*CASES["bnas_real"])
    for seed in range(3):
        both.plain(batch(seed)[0], training=True)
        both.fused(batch(seed)[0], training=True)
    operations = list(next(iter(both.choosers[0].choices.values())).operations)
    compared = 0
    for cell in both.cells:
        prefix = cell.name.removesuffix("_cell")
        for (state, number), row in cell.plan.rows.items():
            operation = "conv_3x3" if number < 0 else operations[number]
            for node in cell.plan.targets(state):
                norm = both.plain.get_layer(f"{prefix}_node{node}_in{state}_{operation}_bn")
                assert_close(cell.mean.numpy()[row], norm.moving_mean.numpy(), norm.name)
                assert_close(cell.variance.numpy()[row], norm.moving_variance.numpy(), norm.name)
                compared += 1
    assert compared > 20


def test_a_fused_supernet_can_be_saved_and_loaded(both: Both, tmp_path) -> None:
    both.fused.save(tmp_path / "supernet.keras")
    again = tf.keras.models.load_model(tmp_path / "supernet.keras")
    images, _ = batch()
    np.testing.assert_allclose(again(images), both.fused(images), atol=1e-6)
    mixtures = [layer for layer in again.layers if layer.name.startswith("mixture")]
    assert len(mixtures) == len(both.choosers[1].mixtures)
