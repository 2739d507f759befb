"""What one trace for all candidates saves, beside a network of its own for each."""

import argparse
import dataclasses
import time
from typing import Any

import larq_nas  # isort: skip  (it prepares TensorFlow)
import numpy as np
import tensorflow as tf

from larq_nas.data.data import read_data
from larq_nas.searchers.evolution.candidates import (
    CandidateTraining,
    Inheritance,
    Rebuilt,
    Shared,
)
from larq_nas.spaces import resolve
from larq_nas.spaces.chooser import Widest
from larq_nas.training import Recipe

from record import record  # isort: skip  (beside this file)


def measure(space_name: str, ratios: tuple[float, ...], arguments: Any) -> dict[str, Any]:
    space = resolve(space_name, {"ratios": ratios})
    data = larq_nas.datasets.load(
        "cifar10",
        train_split="train[:5000]",
        validation_split="test[:500]",
        batch_size=100,
        image_size=arguments.image_size,
    )
    task = read_data(*data, 10, None, 0, space, 0)
    subset = task.subset(arguments.images)
    validation = tf.data.Dataset.from_tensor_slices(
        tuple(tf.concat(parts, 0) for parts in zip(*task.validation, strict=True))
    ).batch(100)
    subset = dataclasses.replace(subset, validation=validation)
    training = CandidateTraining(subset, 1, Recipe(stages=("binary",)))
    choose = Widest()
    source = Inheritance(space.build(choose, task.facts.input_shape, 10), choose)
    rng = np.random.default_rng(0)
    candidates = [
        {name: float(rng.choice(ratios)) for name in choose.expansions}
        for _ in range(arguments.candidates)
    ]
    seconds, reached = {}, {}
    for name, kind in (("shared", Shared), ("rebuilt", Rebuilt)):
        start = time.perf_counter()
        evaluator = kind(space, training, source)
        reached[name] = [evaluator.measure(one, number) for number, one in enumerate(candidates)]
        seconds[name] = time.perf_counter() - start
        print(space_name, name, f"{seconds[name]:.1f} s", flush=True)
    return {
        "space": space_name,
        "ratios": ratios,
        "seconds": seconds,
        "times_faster": seconds["rebuilt"] / seconds["shared"],
        "same": reached["shared"] == reached["rebuilt"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--candidates", type=int, default=32)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--image-size", type=int, default=16)
    arguments = parser.parse_args()
    measured = [
        measure("vgg_small", (0.03125, 0.0625, 0.125), arguments),
        measure("resnet18_cifar", (0.25, 0.5, 1), arguments),
    ]
    for one in measured:
        print(one)
    record("shared_graph", vars(arguments), measured)


if __name__ == "__main__":
    main()
