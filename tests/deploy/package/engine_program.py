"""Larq Compute Engine behind the flags of its benchmark program, for tests.

It stands in for `lce_benchmark_model`, of which there is none for tests: the engine is the real
one, of the Python package, and its outputs are too; the times it prints are made up. It is run
as a program of its own, so it imports neither larq_nas nor TensorFlow.
"""

import importlib.util
import os
import sys
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # it starts for each example, so it starts fast

import numpy as np

KNOWN = (
    *("graph", "num_threads", "num_runs", "warmup_runs", "max_secs", "min_secs"),
    *("warmup_min_secs", "use_xnnpack", "use_reference_bconv", "use_indirect_bgemm"),
    *("input_layer", "input_layer_shape", "input_layer_value_files", "output_filepath"),
    "enable_op_profiling",
)
UNKNOWN: tuple[str, ...] = ()  # a test may put flags here that an older program does not know


def interpreter(path: str, **options: bool):
    package = importlib.util.find_spec("larq_compute_engine").submodule_search_locations[0]
    library = next(Path(package).glob("tflite/python/interpreter_wrapper_lite*.so"))
    specification = importlib.util.spec_from_file_location("interpreter_wrapper_lite", library)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    kernels = options.get("use_reference_bconv", False), options.get("use_indirect_bgemm", False)
    return module.LiteInterpreter(Path(path).read_bytes(), 1, *kernels, False)


def main(arguments: list[str]) -> None:
    given = dict(argument.removeprefix("--").split("=", 1) for argument in arguments)
    unknown = [f"--{name}={value}" for name, value in given.items() if name not in KNOWN]
    unknown += [f"--{name}={given[name]}" for name in UNKNOWN if name in given]
    if unknown:
        print("Unconsumed cmdline flags:", *unknown)
    options = {name: value == "true" for name, value in given.items() if name.startswith("use_")}
    engine = interpreter(given["graph"], **options)
    if "input_layer_value_files" in given:
        files = [part.split(":", 1)[1] for part in given["input_layer_value_files"].split(",")]
        inputs = []
        for file, shape, kind in zip(files, engine.input_shapes, engine.input_types, strict=True):
            inputs.append(np.frombuffer(Path(file).read_bytes(), kind).reshape(shape))
        outputs = engine.predict(inputs)
        if "output_filepath" in given and "output_filepath" not in UNKNOWN:
            Path(given["output_filepath"]).write_bytes(b"".join(x.tobytes() for x in outputs))
    print("count=50 first=1020 curr=1003 min=990 max=1100 avg=1000 std=12\n")
    print("Inference timings in us: Init: 900, First inference: 2, Inference (avg): 1000")


if __name__ == "__main__":
    main(sys.argv[1:])
