import flatbuffers
import numpy as np
import pytest
import tensorflow as tf
from conftest import quick, random_architecture
from tensorflow.lite.python import schema_py_generated as schema

from larq_nas.deploy.export import engine, export, run
from larq_nas.deploy.flatbuffer import extract, operators, read_model
from larq_nas.deploy.operations import KERNELS
from larq_nas.errors import InputError
from larq_nas.latency.measure import cut, hollow, measure_all_here, measure_here
from larq_nas.latency.table import randomize
from larq_nas.spaces import Bats

DTYPES = {schema.TensorType.FLOAT32: "float32", schema.TensorType.INT32: "int32"}


@pytest.fixture(scope="module")
def flatbuffer() -> bytes:
    space = Bats(cells=2, channels=8, nodes=2)
    return export(randomize(random_architecture(space, 0).build((8, 8, 1), 10)))


def test_each_operation_is_a_model_of_its_own_that_the_kernels_run(flatbuffer: bytes) -> None:
    pieces = cut(flatbuffer)
    found = operators(flatbuffer)
    assert [(piece.kind, piece.name) for piece in pieces] == [(op.kind, op.output) for op in found]
    for piece in pieces:
        assert [op.kind for op in operators(piece.model)] == [piece.kind]
        assert operators(piece.hollow) == []
    latency = measure_here(flatbuffer, kernel="indirect", runs=3, per_operation=True)
    assert [op.kind for op in latency.operations] == [op.kind for op in found]
    assert all(op.microseconds > 0 for op in latency.operations)


def test_the_pieces_together_compute_what_the_whole_does(flatbuffer: bytes) -> None:
    """Each piece keeps its constants: run one after the other, they give the same numbers."""
    image = np.random.default_rng(0).standard_normal((1, 8, 8, 1)).astype("float32")
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(flatbuffer, 0))
    graph = model.subgraphs[0]
    known = {graph.inputs[0]: image}
    for piece, operator in zip(cut(flatbuffer), graph.operators, strict=True):
        read = [index for index in dict.fromkeys(operator.inputs) if index in known]
        part = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(piece.model, 0))
        inner = part.subgraphs[0]
        assert len(inner.inputs) == len(read) + len(operator.outputs) + 1
        inner.outputs = list(inner.operators[0].outputs)
        # What it writes over is given to it too.
        written = [graph.tensors[index] for index in operator.outputs]
        spare = [np.zeros(tensor.shape, DTYPES[tensor.type]) for tensor in written]
        outputs = run_whole(part, [*(known[index] for index in read), *spare])
        known |= dict(zip(operator.outputs, outputs, strict=True))
    (expected,) = run(flatbuffer, image, "default")
    np.testing.assert_allclose(known[graph.outputs[0]], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layer", quick(("GRU", "SimpleRNN", "LSTM", "ConvLSTM1D"), 0, 2))
def test_a_recurrent_layer_is_one_operation(layer: str) -> None:
    """A loop runs subgraphs, and LSTM has a state: both are kept with the operation."""
    layers = tf.keras.layers
    settings = {"filters": 2, "kernel_size": 3} if layer == "ConvLSTM1D" else {"units": 5}
    shape = (4, 8, 3) if layer == "ConvLSTM1D" else (6, 8)
    recurrent = getattr(layers, layer)(**settings)
    network = [layers.Input(shape), recurrent, layers.Flatten(), layers.Dense(3)]
    flatbuffer = export(tf.keras.Sequential(network))
    model = read_model(flatbuffer)
    graph, found = model.subgraphs[0], operators(flatbuffer)
    kinds = [operator.kind for operator in found]
    assert ("UNIDIRECTIONAL_SEQUENCE_LSTM" if layer == "LSTM" else "WHILE") in kinds
    latency = measure_here(flatbuffer, runs=2, per_operation=True)
    assert [operation.kind for operation in latency.operations] == kinds
    # Run one after the other, they compute what the whole does.
    images = np.random.default_rng(0).standard_normal((1, *shape)).astype("float32")
    known = {graph.inputs[0]: images}
    for index, operator in enumerate(graph.operators):
        read = [i for i in dict.fromkeys(operator.inputs) if i in known]
        part = extract(model, [index], read, operator.outputs)
        outputs = run_once(part, [known[i] for i in read])
        known |= dict(zip(operator.outputs, outputs, strict=True))
    (expected,) = run(flatbuffer, images, "default")
    np.testing.assert_array_equal(known[graph.outputs[0]], expected)


def test_any_operations_and_tensors_are_a_model(flatbuffer: bytes) -> None:
    """All operations at once give every tensor of the network, signs in words too."""
    image = np.random.default_rng(0).standard_normal((1, 8, 8, 1)).astype("float32")
    model = read_model(flatbuffer)
    graph = model.subgraphs[0]
    written = [index for operator in graph.operators for index in operator.outputs]
    everything = extract(model, range(len(graph.operators)), graph.inputs, written)
    values = dict(zip(written, run_once(everything, [image]), strict=True))
    assert {values[i].dtype for i in written} == {np.dtype("float32"), np.dtype("int32")}
    (expected,) = run(flatbuffer, image, "default")
    np.testing.assert_array_equal(values[graph.outputs[0]], expected)
    # Behind the middle, the rest runs on what it reads of the first half.
    half = len(written) // 2
    rest = range(half, len(graph.operators))
    needed = {i for k in rest for i in graph.operators[k].inputs if i in written[:half]}
    later = extract(model, rest, sorted(needed), graph.outputs)
    (got,) = run_once(later, [values[i] for i in sorted(needed)])
    np.testing.assert_array_equal(got, expected)


def test_operations_that_share_a_variable_are_named(flatbuffer: bytes) -> None:
    model = read_model(flatbuffer)
    graph = model.subgraphs[0]
    graph.tensors[graph.operators[1].outputs[0]].type = schema.TensorType.RESOURCE
    kind = operators(flatbuffer)[1].kind
    with pytest.raises(InputError, match=rf"{kind}.* cannot be measured alone: they share a"):
        cut(packed(model))


def run_whole(model: schema.ModelT, inputs: list[np.ndarray]) -> list[np.ndarray]:
    return run_once(packed(model), [*inputs, np.zeros(1, "float32")])


def packed(model: schema.ModelT) -> bytes:
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def run_once(flatbuffer: bytes, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """Run inputs of which the first axis need not be that of images."""
    interpreter = engine().testing.Interpreter(flatbuffer).interpreter
    return [np.array(found) for found in interpreter.predict(inputs)]


def test_hollow_models_read_what_the_whole_reads(flatbuffer: bytes) -> None:
    nothing = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(hollow(flatbuffer), 0))
    (graph,) = nothing.subgraphs
    assert not graph.operators
    assert [list(graph.tensors[i].shape) for i in graph.inputs] == [[1, 8, 8, 1], [1]]


def test_a_measurement_says_where_and_how(flatbuffer: bytes, monkeypatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "AMD64")
    first, second = measure_all_here([flatbuffer, flatbuffer], kernel="reference", runs=12)
    assert first.runs == second.runs == 12
    assert (first.device, first.kernel, first.threads) == (
        "this machine (x86-64)",
        "reference",
        1,
    )
    assert first.operations == []
    assert "this machine (x86-64): reference kernel" in str(first)
    assert "timings say nothing about ARM" in str(first)
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert "say nothing" not in str(measure_here(flatbuffer, runs=2))


def test_what_cannot_be_measured_is_refused(flatbuffer: bytes) -> None:
    with pytest.raises(InputError, match="Unknown kernel `indirekt`; did you mean `indirect`"):
        measure_here(flatbuffer, kernel="indirekt")
    with pytest.raises(InputError, match="`runs` must be positive"):
        measure_here(flatbuffer, runs=0)
    for kernel in KERNELS:
        with pytest.raises(InputError, match=r"This is no \.tflite file"):
            measure_here(b"not a flatbuffer", kernel=kernel)
