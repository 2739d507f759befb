"""What golden tests see: networks of ten families, each with wrong constants, one at a time."""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import larq_nas
from larq_nas.deploy.export import run
from larq_nas.deploy.flatbuffer import read_model
from larq_nas.deploy.golden import read_golden, tensors
from larq_nas.deploy.operations import KERNELS
from larq_nas.deploy.package import write_package
from larq_nas.errors import ConversionError
from larq_nas.latency.measure import golden_here

from gate_networks import IMAGES, Network, sound  # isort: skip  (beside this file)
from record import record  # isort: skip

KINDS = {"sign": 2, "number": 0}  # types of the tensors: int32 of 32 signs, float32


def wrong(flatbuffer: bytes, kind: str, generator: np.random.Generator) -> bytes | None:
    """Return the flatbuffer with one sign of a kernel turned, or one number times -1."""
    model = read_model(flatbuffer)
    graph = model.subgraphs[0]
    used = {i for op in graph.operators for i in op.inputs if i >= 0}
    held = [graph.tensors[i] for i in sorted(used)]
    held = [t for t in held if model.buffers[t.buffer].data is not None and t.type == KINDS[kind]]
    held = [t for t in held if kind == "number" or len(t.shape) == 4]
    if not held:
        return None
    data = bytes(model.buffers[held[generator.integers(len(held))].buffer].data)
    at = flatbuffer.index(data) + 4 * int(generator.integers(len(data) // 4))
    changed = bytearray(flatbuffer)
    if kind == "sign":
        # The first bit of a word is a channel in every kernel; the last ones may be spare.
        changed[at] ^= 1
    else:
        value = np.frombuffer(flatbuffer[at : at + 4], "<f4")
        changed[at : at + 4] = (-value).tobytes()
    return bytes(changed)


def passes(flatbuffer: bytes, golden: Any, kernel: Any = "default") -> bool:
    try:
        golden_here(golden, flatbuffer, kernel)
    except ConversionError:
        return False
    return True


def outputs(flatbuffer: bytes, golden: Any) -> list[bytes]:
    """Return the outputs for the inputs of a golden test."""
    inputs, _ = tensors(flatbuffer)
    by_name = sorted(zip(inputs, golden.stored, strict=True), key=lambda pair: pair[0].name)
    given = [values.reshape(-1, *tensor.shape[1:]) for tensor, values in by_name]
    return [values.tobytes() for values in run(flatbuffer, given, "default")]


def measured(network: Network, number: int, faults: int) -> dict[str, Any]:
    images = [values[:IMAGES] for values in network.images]
    row: dict[str, Any] = {"family": network.family, "weights": network.weights}
    try:
        conversion = larq_nas.convert(network.model, images, **network.settings)
    except ConversionError as error:
        return {**row, "refused": str(error)}
    with tempfile.TemporaryDirectory() as folder:
        write_package(folder, conversion, network.model, images=images, standalone=False)
        golden = read_golden(Path(folder) / "golden.bin")
    sound_outputs = outputs(conversion.flatbuffer, golden)
    row |= {"origin": golden.origin, "steady": golden.steady, "weak": golden.weak}
    row["false_alarms"] = [k for k in KERNELS if not passes(conversion.flatbuffer, golden, k)]
    generator = np.random.default_rng([2, number])
    for kind in KINDS:
        planted = [wrong(conversion.flatbuffer, kind, generator) for _ in range(faults)]
        planted = [one for one in planted if one and one != conversion.flatbuffer]
        changing = [one for one in planted if outputs(one, golden) != sound_outputs]
        seen = sum(not passes(one, golden) for one in changing)
        row[kind] = {"planted": len(planted), "changing": len(changing), "seen": seen}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=30)
    parser.add_argument("--faults", type=int, default=8, help="of each kind, in each network")
    arguments = parser.parse_args()
    rows = []
    for number in range(arguments.networks):
        rows.append(measured(sound(number), number, arguments.faults))
        print(number, rows[-1], flush=True)
    record("golden", vars(arguments), rows)


if __name__ == "__main__":
    main()
