"""A bilevel step of a supernet: cells fused and plain, beside what its convolutions must take.

Each formulation runs in a process of its own, whose memory is nothing else's. The limit is what
the convolutions of the fused step take at the best rate of a float32 convolution of its shapes,
measured in its process.
"""

import argparse
import gc
import itertools
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

BNAS = {"space": "bnas", "cells": 8, "channels": 16, "batch": 16}
BATS = {"space": "bats", "cells": 5, "channels": 36, "groups": 12, "batch": 16}
CASES: dict[str, dict[str, Any]] = {
    "bnas": BNAS,
    "bnas_17": {**BNAS, "cells": 17},
    "bats": BATS,
    "bats_small": {**BATS, "cells": 1, "batch": 4},
}
GROWTH = {
    **{f"batch_{n}": {**BNAS, "cells": 2, "batch": n} for n in (4, 16, 64)},
    **{f"channels_{n}": {**BNAS, "cells": 2, "channels": n} for n in (8, 32)},
    "cells_4": {**BNAS, "cells": 4},
    "operations_4": {**BNAS, "cells": 2, "operations": 4},
    "bats_batch_32": {**BATS, "cells": 2, "batch": 32},
    "bats_channels_60": {**BATS, "cells": 2, "channels": 60},
}
FORMULATIONS = ("fused", "bfloat16", "rematerialized", "plain", "onednn", "native", "compiled")
MEASURED = {
    "bnas": ("fused", "bfloat16", "rematerialized", "plain"),
    "bnas_17": ("fused", "plain"),
    "bats": ("fused", "bfloat16", "plain", "onednn"),
    "bats_small": ("fused", "plain", "onednn", "native"),
    "batch_4": ("fused", "plain", "compiled"),
}
SHAPE, CLASSES = (32, 32, 3), 10


def supernet(case: dict[str, Any], formulation: str) -> Any:
    """Return the compiled supernet, as a search has it."""
    import tensorflow as tf

    from larq_nas.layers import BinaryConv2D, building_in
    from larq_nas.searchers.differentiable.model import BilevelModel
    from larq_nas.spaces import Bats, Bnas
    from larq_nas.supernet.fuse import Fuse
    from larq_nas.supernet.relax import Relax

    if formulation == "native":  # grouped convolutions as Keras has them: compiled by XLA
        BinaryConv2D.convolution_op = lambda layer, x, kernel: tf.function(
            layer._convolve, jit_compile=True
        )(x, kernel)
    if formulation == "onednn":  # which needs oneDNN for their gradients
        BinaryConv2D.convolution_op = BinaryConv2D._convolve
    tf.keras.utils.set_random_seed(0)
    sizes = {key: case[key] for key in ("cells", "channels", "groups") if key in case}
    space = {"bnas": Bnas, "bats": Bats}[case["space"]](**sizes)
    if "operations" in case:
        space = Bnas(**sizes, operations=Bnas().operations[-case["operations"] :])
    plain = formulation in ("plain", "onednn", "native")
    choose = Relax() if plain else Fuse(rematerialize=formulation == "rematerialized")
    with building_in(space.search_domain):
        built = space.build(choose, SHAPE, CLASSES)
    precision = "bfloat16" if formulation == "bfloat16" else "float32"
    model = BilevelModel(built, choose.mixtures, 3e-4, 1e-3, precision=precision)
    model.compile(tf.keras.optimizers.SGD(0.025, momentum=0.9), tf.keras.optimizers.Adam(3e-4))
    model.searching.assign(True)
    return model


def measure(case: dict[str, Any], formulation: str, repeats: int) -> dict[str, Any]:
    """Return what tracing, steps and memory take."""
    import tensorflow as tf

    from larq_nas.searchers.estimate import estimate

    start = time.perf_counter()
    model = supernet(case, formulation)
    built = time.perf_counter()
    batch = case["batch"]
    estimated = estimate(model, batch)
    images = tf.random.stateless_normal((batch, *SHAPE), (0, 1))
    labels = tf.random.stateless_uniform((batch,), (0, 2), 0, CLASSES, tf.int32)

    @tf.function(jit_compile=formulation == "compiled")
    def step() -> Any:
        return model.train_step(((images, labels), (images, labels)))

    step.get_concrete_function()
    traced = time.perf_counter()
    float(step()["loss"])
    first = time.perf_counter()
    seconds = [timed(lambda: float(step()["loss"])) for _ in range(repeats)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    measured = {
        "build_seconds": built - start,
        "trace_seconds": traced - built,
        "first_step_seconds": first - traced,
        "step_seconds": seconds,
        "peak_bytes": peak,
        "estimated_bytes": estimated,
    }
    if formulation != "fused":
        return measured
    forward = tf.function(lambda: model(images, training=True)).get_concrete_function()
    found = list(convolutions(forward.graph))
    rates = conv_rates(found)
    return {
        **measured,
        "forward_flop": sum(flop(*one) for one in found),
        "best_flop_per_second": max(rates.values()),
        "flop_per_second": rates,
    }


def timed(run: Any) -> float:
    gc.collect()
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def convolutions(graph: Any) -> Iterator[tuple[tuple[int, ...], tuple[int, ...], int]]:
    """Yield kernel, output and dilation of each convolution that is a part of the network.

    What weighs pools and inputs is none: the plain formulation multiplies and adds there.
    """
    for operation in graph.get_operations():
        if operation.type == "Conv2D" and "weigh" not in operation.name:
            kernel, output = operation.inputs[1].shape, operation.outputs[0].shape
            yield tuple(kernel), tuple(output), operation.get_attr("dilations")[1]
        if "f" in operation.node_def.attr:
            yield from convolutions(graph._get_function(operation.get_attr("f").name).graph)


def flop(kernel: tuple[int, ...], output: tuple[int, ...], _: int) -> int:
    height, width, read, _ = kernel
    batch, down, right, filters = output
    return 2 * batch * down * right * filters * height * width * read


def conv_rates(found: list[Any]) -> dict[str, float]:
    """Return the rate of each shape of convolution, forward, in FLOP a second."""
    import tensorflow as tf

    rates = {}
    for kernel, output, dilation in sorted(set(found)):
        x = tf.random.stateless_normal((*output[:3], kernel[2]), (0, 1))
        w = tf.random.stateless_normal(kernel, (0, 2))
        run = tf.function(lambda x, w, d=dilation: tf.nn.conv2d(x, w, 1, "SAME", dilations=d))
        run(x, w)
        fastest = min(timed(lambda run=run, x=x, w=w: run(x, w)) for _ in range(5))
        rates[f"{kernel} to {output}, dilation {dilation}"] = flop(kernel, output, 0) / fastest
    return rates


def _child(connection: Any, run: Callable[..., Any], *arguments: Any) -> None:
    from larq_nas.training.loop import exact

    with exact():  # as a search runs
        connection.send(run(*arguments))


def apart(*arguments: Any, run: Callable[..., dict[str, Any]] = measure) -> dict[str, Any]:
    """Return what `run` returns in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_child, args=(theirs, run, *arguments))
    process.start()
    while not ours.poll(0.5):
        if not process.is_alive():
            raise SystemExit(f"the process ended with {process.exitcode}")
    found: dict[str, Any] = ours.recv()
    process.join()
    return found


def shown(name: str, formulation: str, row: dict[str, Any]) -> str:
    row["median_seconds"] = median = statistics.median(row["step_seconds"])
    first = sum(row[f"{part}_seconds"] for part in ("build", "trace", "first_step"))
    limit = ""
    if "forward_flop" in row:
        # Weights need the gradient of images and of kernels, alphas that of images alone; with
        # that of kernels both times it would be six.
        row["limit_seconds"] = needed = 5 * row["forward_flop"] / row["best_flop_per_second"]
        row["of_limit"] = needed / median
        limit = (
            f", {needed / median:.2f} of the limit ({row['best_flop_per_second'] / 1e9:.0f} "
            f"GFLOP/s, 5 x {row['forward_flop'] / 1e9:.1f} GFLOP)"
        )
    return (
        f"{name} {formulation}: {median:.2f} s{limit}; first step after {first:.1f} s (build "
        f"{row['build_seconds']:.1f}, trace {row['trace_seconds']:.1f}); "
        f"{row['peak_bytes'] / 2**30:.2f} GiB, estimated {row['estimated_bytes'] / 2**30:.2f}"
    )


def main() -> None:
    from record import record

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=[*CASES, "growth"])
    parser.add_argument("--formulations", nargs="+", default=FORMULATIONS, choices=FORMULATIONS)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--name", default="search_step")
    arguments = parser.parse_args()
    cases = GROWTH if arguments.cases == ["growth"] else CASES
    measured = []
    for name in cases if cases is GROWTH else arguments.cases:
        for formulation in MEASURED.get(name, ("fused", "plain")):
            if formulation in arguments.formulations:
                row = apart(cases[name], formulation, arguments.repeats)
                print(shown(name, formulation, row), flush=True)
                measured.append({"case": name, "formulation": formulation, **cases[name], **row})
    for one, other in itertools.combinations(measured, 2):
        if one["case"] == other["case"]:
            ratio = one["median_seconds"] / other["median_seconds"]
            print(
                f"{one['case']}: {one['formulation']} takes {ratio:.2f} of {other['formulation']}"
            )
    settings = {"image": SHAPE, "classes": CLASSES, "repeats": arguments.repeats}
    record(arguments.name, settings, measured)


if __name__ == "__main__":
    main()
