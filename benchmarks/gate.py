"""Whether the gate hands out what is wrong, or refuses what is right: 600 networks.

Written down before anything was run:

1. Of 300 sound networks, 0 are refused.
2. Of 600 networks, sound ones and those with a planted fault, 0 are handed out wrong.
3. For each that is handed out, the binary layers that `larq_nas.cost.profile` predicts are those
   that the audit found, and the bytes are predicted within 1 % or 512. Where `profile` names layers
   it cannot count, such as loops, its bytes are a lower bound, and have to be one; and fresh
   networks are smaller than predicted, as docs/budgets.md says: both are counted apart.

Beside that it is counted which planted faults end as they should: refused, handed out right
(rewritten exactly), or handed out with the warning that is due.

Who judges
----------
Not `larq_nas.deploy`. The judge runs what was handed out through Larq Compute Engine's own
interpreter with each kernel the conversion vouches for, on images the gate has not seen, and
compares with Keras. The difficulty is that a right flatbuffer may differ too: a sign of what is
almost 0 turns with the last bit of a float, and in a deep network all that follows with it. So the
judge compares only *decided* images: those for which, in Keras, no input of any quantizer lies so
near to where the quantizer jumps that rounding could take it across (1e-5 of the spread of its
channel, and 2e-6 of its largest number; float32 rounds to 6e-8). On such an image all signs are the
same in whatever order the numbers are added up: the first quantizer reads the same but for
rounding, gives the same signs, so the second reads the same but for rounding, and so on to the
outputs. What is continuous in between (ReLU, pools, sums, gates, loops) passes rounding on as
rounding; only what subtracts makes much of it: a batch norm of a channel that hardly varies, and
zero padding, for which kernels pad with ones and take back what that adds. So Keras computes the
network four times more with these rounded at random (twice in all positions alike), by 1e-6 of the
largest number of a tensor, and with all signs as they were: three times as far as that takes a
quantizer's input has to be from a jump, and three times as far an output may be off. On decided
images a right flatbuffer therefore agrees with Keras, however deep, and any that differs by more
(or by more than 1e-3 of an output's own spread, if that is more) is wrong. No tolerance depends on
what the flatbuffer does: all are read from Keras. Networks with no decided image, and those whose
outputs rounding alone takes further than a tenth of their spread, are undecided, and count neither
as right nor as wrong.

What such a judge cannot see: a fault that changes no output of the images it runs, by as much as
that. Where it says wrong it is wrong.

A 0 that stays exact is decided: what ReLU or a mask gives, or as many +1 as -1, is 0 in any order
of sums, and its sign is +1 on x86. On AArch64, LceQuantize reads sign bits of whole blocks of 128
numbers, and -0.0 becomes -1 (`bitpack_aarch64_4x32` in the engine's `bitpack.h`; a row is the whole
tensor where the channels fill words of 32, else a position; what is left of a row is compared with
0). So whatever it reads there is searched for -0.0; handed out with one, without a warning that
says so, it is wrong.

A network handed out with fewer binary convolutions than it has binary layers is wrong as well:
some run in float without a word.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import larq_nas  # isort: skip  (it prepares TensorFlow)
import larq as lq
import larq_compute_engine
import numpy as np
import tensorflow as tf

from larq_nas.deploy.flatbuffer import extract, operators, read_model
from larq_nas.errors import ConversionError, InputError
from larq_nas.latency.measure import measure_here
from larq_nas.training.loop import forgetting_graphs

from gate_faults import FAULTS, PLANTED, planted  # isort: skip  (beside this file)
from gate_networks import FAMILIES, IMAGES, Network, sound  # isort: skip
from record import record  # isort: skip  (beside this file)

__all__ = ["examine", "judge"]

KERNELS = {
    "default": {},
    "reference": {"use_reference_bconv": True},
    "indirect": {"use_indirect_bgemm": True},
}
MAKERS = {"sound": sound, "planted": planted}
NEAR, RESOLUTION = 1e-5, 2e-6
EXACT, COMPARED, SEARCHED = 1e-3, 24, 4
# Where no image is decided, others are tried: moved by so many positions.
SHIFTS = 8
ROUNDING, ROUNDINGS, TIMES, LARGEST = 1e-6, 4, 3.0, 0.1
TRIES = 2
BYTES, SHARE = 512, 0.01


def examine(network: Network) -> dict[str, Any]:
    """Convert a network, judge what is handed out, and return a row of figures."""
    start = time.perf_counter()
    row: dict[str, Any] = {
        "name": network.name,
        "family": network.family,
        "fault": network.fault,
        "weights": network.weights,
    }
    half = [array[:IMAGES] for array in network.images]
    data = half[0] if len(half) == 1 else half
    try:
        conversion = larq_nas.convert(
            network.model, data, kernels=tuple(KERNELS), **network.settings
        )
    except (ConversionError, InputError) as error:
        row |= {"outcome": "refused", "line": str(error), "named": PLANTED in str(error)}
    except Exception as error:  # noqa: BLE001 - whatever else it raises is a fault to record
        row |= {"outcome": "failed", "line": f"{type(error).__name__}: {error}"[:500]}
    else:
        warnings = list(conversion.warnings)
        if network.told == "slowest":
            latency = measure_here(conversion.flatbuffer, runs=1)
            warnings += latency.warnings
        kernels = [one.kernel for one in conversion.parity if one.kernel in KERNELS]
        row |= judge(network, conversion.flatbuffer, kernels, warnings)
        if row["outcome"] == "right" and any(network.told in line for line in warnings):
            row["outcome"] = "warned" if network.told else "right"
        row |= {"warnings": warnings, "rewrites": len(conversion.rewrites)}
        if not network.settings:
            row |= predicted(network.model, conversion, network.weights)
    row["as_expected"] = row["outcome"] in network.outcomes
    row["seconds"] = round(time.perf_counter() - start, 1)
    return row


def judge(
    network: Network, flatbuffer: bytes, kernels: Sequence[str], warnings: Sequence[str]
) -> dict[str, Any]:
    """Return whether what was handed out is right, and why not."""
    model = network.model
    for shift in range(SHIFTS):
        images = [shifted(array[IMAGES:], shift) for array in network.images]
        expected, decided, strayed = decide(model, images)
        if decided.any():
            break
    chosen = np.flatnonzero(decided)[:COMPARED]
    rounding = [TIMES * most / spread_of(one) for most, one in zip(strayed, expected, strict=True)]
    row = {"decided": int(decided.sum()), "bytes": len(flatbuffer), "reasons": []}
    row["rounding"] = max(float(most.max()) for most in rounding)
    if row["rounding"] > LARGEST:
        chosen = chosen[:0]
    kinds = Counter(operator.kind for operator in operators(flatbuffer))
    layers = [layer for layer in model._flatten_layers() if has_binary_kernel(layer)]
    if kinds["LceBconv2d"] < len(layers):
        row["reasons"].append(f"{kinds['LceBconv2d']} binary operations, {len(layers)} layers")
    whole = bool({"int8", "input_type", "output_type"} & set(network.settings))
    if whole:
        # Numbers are rounded on purpose: what has to be whole numbers has to be such, no more.
        row["reasons"] += not_whole(flatbuffer, network.settings)
        kernels = ()
    some = [array[chosen] for array in images]
    for kernel in kernels if len(chosen) else ():
        try:
            got = run(flatbuffer, some, [one.shape[1:] for one in expected], KERNELS[kernel])
        except (RuntimeError, ValueError) as error:
            row["reasons"].append(f"{kernel}: {error}"[:200])
            continue
        for number, (one, other) in enumerate(zip(expected, got, strict=True)):
            spread = spread_of(one)
            differences = np.nan_to_num(np.abs(one[chosen] - other) / spread, nan=np.inf)
            far = float(differences.max())
            row["largest"] = max(row.get("largest", 0.0), far)
            if (differences > np.maximum(EXACT, rounding[number])).any():
                row["reasons"].append(
                    f"{kernel}: output {number} differs by {far:.1e} of its spread"
                )
    searched = [array[: 0 if whole else SEARCHED] for array in images]
    zeros = negative_zeros(flatbuffer, searched)
    row["negative_zeros"] = zeros
    if zeros and not any("-0.0" in line for line in warnings):
        row["reasons"].append(f"LceQuantize reads {zeros} numbers -0.0, and no warning says so")
    row["outcome"] = "wrong" if row["reasons"] else "right" if len(chosen) else "undecided"
    return row


def shifted(images: np.ndarray, by: int) -> np.ndarray:
    """Return other images: each moved along its rows, and what leaves it comes in on the left."""
    return np.roll(images, by, axis=2) if images.ndim == 4 else images


def has_binary_kernel(layer: tf.keras.layers.Layer) -> bool:
    return isinstance(layer, lq.layers.QuantConv2D) and layer.kernel_quantizer is not None


def decide(
    model: tf.keras.Model, images: list[np.ndarray]
) -> tuple[list[np.ndarray], np.ndarray, list[np.ndarray]]:
    """Return the outputs in Keras, which images are decided, and how far rounding goes.

    # Returns
        The outputs; for each image whether no rounding can turn a sign; and for each output and
        channel how far rounding takes it while no sign turns.
    """
    read: list[np.ndarray] = []
    given: list[tuple[Any, tf.Tensor]] = []

    def record(quantizer: Any, x: tf.Tensor) -> tf.Tensor:
        read.append(x.numpy())
        given.append((quantizer, quantizer(x)))
        return given[-1][1]

    with watched(model, record):
        outputs = compute(model, images)
    moved = [np.zeros(values.shape[-1]) for values in read]
    stirred = [np.zeros(values.shape, bool) for values in read]
    strayed = [np.zeros(values.shape[-1]) for values in outputs]
    for seed in range(ROUNDINGS):
        places = iter(range(len(read)))

        def follow(_: Any, x: tf.Tensor, places: Iterator[int] = places) -> tf.Tensor:
            """Give the signs of Keras, whatever rounding makes of what they are read from."""
            number = next(places)
            moved[number] = np.maximum(moved[number], farthest(x.numpy(), read[number]))
            stirred[number] |= (x.numpy() != 0) & (read[number] == 0)
            return given[number][1]

        with watched(model, follow), rounded(model, seed):
            others = compute(model, images)
        strayed = [
            np.maximum(most, farthest(one, other))
            for most, one, other in zip(strayed, outputs, others, strict=True)
        ]
    decided = np.ones(len(images[0]), bool)
    for values, (quantizer, _), most, zero in zip(read, given, moved, stirred, strict=True):
        axes = tuple(range(values.ndim - 1))
        near = NEAR * values.std(axes) + RESOLUTION * np.abs(values).max(axes)
        near = np.maximum(near, TIMES * most).astype("float32")
        jumps = quantizer(values - near).numpy() != quantizer(values + near).numpy()
        jumps &= (values != 0) | zero
        decided &= ~jumps.reshape(len(values), -1).any(axis=1)
    return outputs, decided, strayed


def compute(model: tf.keras.Model, images: list[np.ndarray]) -> list[np.ndarray]:
    outputs = model(images[0] if len(images) == 1 else images, training=False)
    return [output.numpy() for output in tf.nest.flatten(outputs)]


def farthest(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.abs(one - other).reshape(-1, one.shape[-1]).max(axis=0)


@contextmanager
def watched(model: tf.keras.Model, watch: Any) -> Iterator[None]:
    """Let `watch` compute the quantizers of inputs."""
    with ExitStack() as stack:
        for layer in model._flatten_layers():
            if getattr(layer, "input_quantizer", None) is not None:
                stack.enter_context(replaced(layer, "input_quantizer", watch))
            elif isinstance(layer, lq.quantizers.Quantizer) and layer._inbound_nodes:
                stack.enter_context(replaced(layer, "call", watch))
        yield


@contextmanager
def rounded(model: tf.keras.Model, seed: int) -> Iterator[None]:
    """Round what makes much of rounding.

    Those are batch norms, which subtract, and binary convolutions that pad with zeros and whose
    scale is no whole number: kernels pad with ones and subtract what that adds, scaled.
    """
    generator = np.random.default_rng(seed)

    def noise(shape: Any, size: Any) -> np.ndarray:
        # Where a map is the same in all positions, so is its rounding, and no mean evens it out.
        shape = shape[-1:] if seed % 2 else shape
        return (size * generator.uniform(-1, 1, shape)).astype("float32")

    def disturb(x: tf.Tensor, zeros: bool) -> tf.Tensor:
        """Kernels round the largest sums that there may be, and not what is left of them."""
        moved = noise(x.shape, ROUNDING * np.abs(x).max())
        return x + (moved if zeros else moved * (x.numpy() != 0))

    def before(zeros: bool) -> Any:
        return lambda norm, x: norm(disturb(x, zeros))

    def behind(convolution: Any, x: tf.Tensor) -> tf.Tensor:
        return disturb(convolution(x), True)

    with ExitStack() as stack:
        for layer in model._flatten_layers():
            if isinstance(layer, tf.keras.layers.BatchNormalization):
                read = tf.nest.flatten(layer._inbound_nodes[0].inbound_layers)[0]
                stack.enter_context(replaced(layer, "call", before(pads(read))))
            elif pads(layer) and not isinstance(layer.kernel_quantizer, lq.quantizers.SteSign):
                stack.enter_context(replaced(layer, "call", behind))
        yield


def pads(layer: tf.keras.layers.Layer) -> bool:
    """Return whether a layer is a binary convolution that pads with zeros."""
    return has_binary_kernel(layer) and layer.padding == "same" and not layer.pad_values


@contextmanager
def replaced(layer: Any, name: str, watch: Any) -> Iterator[None]:
    """Let `watch` compute a function of a layer, behind the back of Keras's bookkeeping."""
    function = getattr(layer, name)
    own = name in vars(layer)

    def instead(x: tf.Tensor, *_: Any, **__: Any) -> tf.Tensor:
        return watch(function, x)

    object.__setattr__(layer, name, instead)
    try:
        yield
    finally:
        if own:
            object.__setattr__(layer, name, function)
        else:
            object.__delattr__(layer, name)


def run(
    flatbuffer: bytes,
    images: list[np.ndarray],
    shapes: Sequence[tuple[int, ...]],
    options: dict[str, bool],
) -> list[np.ndarray]:
    """Return the outputs of the engine; inputs and outputs are told apart by their shapes."""
    interpreter = larq_compute_engine.testing.Interpreter(flatbuffer, **options)
    wanted = [tuple(shape[1:]) for shape in interpreter.input_shapes]
    given = [next(x for x in images if x.shape[1:] == shape) for shape in wanted]
    got = interpreter.predict(given if len(given) > 1 else given[0])
    found = [np.asarray(one) for one in (got if isinstance(got, list) else [got])]
    if len(found) == 1:
        return [found[0].reshape(-1, *shapes[0])]
    return [next(one for one in found if one.shape[1:] == shape) for shape in shapes]


def spread_of(values: np.ndarray) -> np.ndarray:
    """Return by how much each output varies."""
    axes = tuple(range(values.ndim - 1))
    # float32 gives no more than some ten millionths of what the sums behind it are made of.
    spread: np.ndarray = np.maximum(values.std(axes), 1e-2 * np.abs(values).max(axes) + 1e-7)
    return spread


def not_whole(flatbuffer: bytes, settings: dict[str, Any]) -> list[str]:
    """Return what is not of the whole numbers that `settings` ask for."""
    reasons = []
    if "int8" in settings and not any(one.type == "INT8" for one in operators(flatbuffer)):
        reasons.append("no operation is int8")
    interpreter = larq_compute_engine.testing.Interpreter(flatbuffer)
    for side, found in (("input", interpreter.input_types), ("output", interpreter.output_types)):
        wanted = settings.get(f"{side}_type", "float32")
        if any(np.dtype(kind).name != wanted for kind in found):
            reasons.append(f"an {side} is not {wanted}")
    return reasons


def negative_zeros(flatbuffer: bytes, images: list[np.ndarray]) -> int:
    """Return how many numbers of which LceQuantize reads the sign bit on AArch64 are -0.0."""
    model = read_model(flatbuffer)
    graph = model.subgraphs[0]
    pairs = zip(operators(flatbuffer), graph.operators, strict=True)
    read = {int(operator.inputs[0]) for found, operator in pairs if found.kind == "LceQuantize"}
    read -= set(map(int, graph.inputs))
    if not read:
        return 0
    part = extract(model, range(len(graph.operators)), graph.inputs, sorted(read))
    interpreter = larq_compute_engine.testing.Interpreter(part).interpreter
    count = 0
    for number in range(len(images[0])):
        shapes = [tuple(shape[1:]) for shape in interpreter.input_shapes]
        given = [next(x[number : number + 1] for x in images if x.shape[1:] == s) for s in shapes]
        for values in interpreter.predict(given):
            row = values.size if values.shape[-1] % 32 == 0 else values.shape[-1]
            blocks = values.reshape(-1, row)[:, : row // 128 * 128]
            count += int(np.sum((blocks == 0) & np.signbit(blocks)))
    return count


def predicted(
    model: tf.keras.Model, conversion: larq_nas.Conversion, weights: str
) -> dict[str, Any]:
    """Return how what was predicted compares with what came out."""
    profile = larq_nas.cost.profile(model)
    foreseen = sorted(
        layer.name.rpartition("/")[-1]
        for layer in profile.layers
        if layer.binary and not layer.fallback
    )
    found = sorted(row.layer for row in conversion.audit.layers if row.binary and not row.cause)
    size = len(conversion.flatbuffer)
    more, slack = profile.flatbuffer_bytes - size, max(BYTES, SHARE * size)
    bound = "at least" if profile.unknown else "at most" if weights == "fresh" else ""
    return {
        "predicted_bytes": profile.flatbuffer_bytes,
        "bound": bound,
        "bytes_agree": (bound == "at most" or more <= slack)
        and (bound == "at least" or more >= -slack),
        "binary_agree": foreseen == found,
        "binary_differ": sorted(set(foreseen) ^ set(found)),
    }


# The run: one line for each network, added as a whole.


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sound", type=int, default=300)
    parser.add_argument("--planted", type=int, default=300)
    parser.add_argument("--part", default="0/1", help="which part of how many, such as 0/2")
    parser.add_argument("--directory", type=Path, default=Path("runs/gate"))
    parser.add_argument("--only", nargs=2, metavar=("KIND", "NUMBER"), help="show one network")
    arguments = parser.parse_args()
    if arguments.only:
        kind, number = arguments.only
        print(json.dumps(examine(MAKERS[kind](int(number))), indent=2))
        return
    commit = version()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    path = arguments.directory / f"{commit}.jsonl"
    names = [f"sound {n}" for n in range(arguments.sound)]
    names += [f"planted {n}" for n in range(arguments.planted)]
    # A part of a run shows of both kinds alike.
    names.sort(key=lambda name: int(name.split()[1]))
    part, parts = map(int, arguments.part.split("/"))
    for name in names[part::parts]:
        rows = read_rows(path)
        if name in rows and "outcome" in rows[name]:
            continue
        kind, number = name.split()
        starts = rows.get(name, {}).get("starts", 0)
        if starts >= TRIES:
            # It takes the whole process with it.
            row = {"name": name, "outcome": "crashed", "as_expected": False}
        else:
            add_row(path, {"name": name, "starts": starts + 1})
            with forgetting_graphs():
                row = examine(MAKERS[kind](int(number)))
            tf.keras.backend.clear_session()
            gc.collect()
        add_row(path, row)
        print(brief(row), flush=True)
    rows = read_rows(path)
    if all("outcome" in rows.get(name, {}) for name in names):
        report([rows[name] for name in names], path)


def version() -> str:
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def add_row(path: Path, row: dict[str, Any]) -> None:
    line = json.dumps(row) + "\n"
    # One write to a file opened for appending is whole, whoever else writes.
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def read_rows(path: Path) -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:  # the line that a full disk cut short
                continue
            rows[row["name"]] = rows.get(row["name"], {}) | row
    return rows


def brief(row: dict[str, Any]) -> str:
    text = f"{row['name']}: {row['outcome']}"
    if not row["as_expected"]:
        text += " (NOT AS EXPECTED)"
    text += f", {row.get('family')} {row.get('weights')} {row.get('fault')}"
    text += f" {row.get('line', '')} {row.get('reasons', '') or ''}"
    if not row.get("bytes_agree", True) or not row.get("binary_agree", True):
        text += f" PREDICTED {row['predicted_bytes']} of {row['bytes']} {row['binary_differ']}"
    return f"{text} ({row.get('seconds', 0)} s)"


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    whole = [row for row in rows if not row["name"].startswith("planted")]
    faulty = [row for row in rows if row["name"].startswith("planted")]
    handed = [row for row in rows if row["outcome"] in ("right", "warned", "wrong", "undecided")]
    foreseen = [row for row in handed if "bytes_agree" in row]
    return {
        "sound": dict(Counter(row["outcome"] for row in whole)),
        "planted": dict(Counter(row["outcome"] for row in faulty)),
        "sound_refused": sum(row["outcome"] in ("refused", "failed", "crashed") for row in whole),
        "wrong_handed_out": sum(row["outcome"] == "wrong" for row in rows),
        "undecided": sum(row["outcome"] == "undecided" for row in rows),
        "planted_not_as_expected": [row["name"] for row in faulty if not row["as_expected"]],
        "refused_without_the_layer": sum(
            row["outcome"] == "refused" and not row["named"] for row in faulty
        ),
        "predicted": len(foreseen),
        "bounds": dict(Counter(row["bound"] for row in foreseen if row["bound"])),
        "bytes_disagree": [row["name"] for row in foreseen if not row["bytes_agree"]],
        "binary_disagree": [row["name"] for row in foreseen if not row["binary_agree"]],
    }


def report(rows: list[dict[str, Any]], path: Path) -> None:
    found = summary(rows)
    print(json.dumps(found, indent=2))
    settings = {
        "seeds": "numpy.random.default_rng([1, number]) of sound, [2, number] of planted networks",
        "families": list(FAMILIES),
        "faults": list(FAULTS),
        "larq_nas": path.stem,
        "larq": lq.__version__ if hasattr(lq, "__version__") else "",
        "larq_compute_engine": larq_compute_engine.__version__,
        "numpy": np.__version__,
    }
    record("gate", settings, {"summary": found, "networks": rows})


if __name__ == "__main__":
    sys.exit(main())
