import keras_tuner
import numpy as np
import pytest
import tensorflow as tf

from larq_nas.errors import InputError
from larq_nas.spaces import Bats
from larq_nas.spaces.chooser import Chooser, Fix, Sample, Survey
from larq_nas.supernet.relax import Relax


def scale_by(factor: float):
    return lambda x, name: tf.keras.layers.Rescaling(factor, name=name)(x)


def dense(x: tf.Tensor, name: str) -> tf.Tensor:
    return tf.keras.layers.Dense(4, name=name)(x)


OPERATIONS = {"double": scale_by(2.0), "triple": scale_by(3.0), "dense": dense, "zero": None}


def build(choose: Chooser) -> tf.keras.Model:
    inputs = tf.keras.Input((4,))
    x = choose.op("first", inputs, OPERATIONS)
    x = choose.cell("cell", [inputs, x], lambda state: OPERATIONS, nodes=2)
    return tf.keras.Model(inputs, x)


VALUES = {
    "first": "double",
    "cell/2": [["triple", 0], ["double", 1]],
    "cell/3": [["double", 1], ["triple", 2]],
}


def test_fix_builds_what_was_chosen_and_nothing_else() -> None:
    model = build(Fix(VALUES))
    x = np.arange(4.0, dtype="float32")[None]
    node2 = 3 * x + 2 * (2 * x)
    node3 = 2 * (2 * x) + 3 * node2
    np.testing.assert_allclose(model(x), np.concatenate([node2, node3], axis=1))
    assert not model.weights


def test_supernet_at_one_hot_alphas_is_the_fixed_network() -> None:
    choose = Relax()
    supernet = build(choose)
    for name, value in VALUES.items():
        choice, mixture = choose.choices[name], choose.mixtures[name]
        alpha = np.zeros(mixture.alpha.shape, "float32")
        alpha[:, choice.operations.index("zero")] = 1e4
        for operation, i in choice.decode(value):
            alpha[i] = 1e4 * np.eye(4)[choice.operations.index(operation)]
        mixture.alpha.assign(alpha)
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    np.testing.assert_allclose(supernet(x), build(Fix(VALUES))(x), rtol=1e-6)


def test_relax_knows_which_operations_have_no_weights() -> None:
    choose = Relax()
    build(choose)
    free = {(name, i) for name in ("double", "triple") for i in (0, 1)}
    assert choose.choices["cell/2"].parameter_free == free
    assert choose.choices["cell/2"].zeros == {"zero"}


def test_parameter_free_is_told_for_each_input() -> None:
    """A skip that must halve the image has weights, one that need not has none."""
    choose = Relax()
    Bats(cells=1, channels=4, nodes=2).build(choose, (8, 8, 1), 10)
    free = choose.choices["reduction/3"].parameter_free
    assert ("identity", 2) in free
    assert ("identity", 0) not in free
    assert ("max_pool_3x3", 0) in free


def test_cells_of_a_kind_share_alphas_but_not_layers() -> None:
    choose = Relax()
    inputs = tf.keras.Input((4,))
    x = inputs
    for _ in range(2):
        cell = choose.cell("normal", [x, x], lambda state: OPERATIONS, nodes=1)
        x = tf.keras.layers.Dense(4)(cell)
    model = tf.keras.Model(inputs, x)
    assert list(choose.mixtures) == ["normal/2"]
    names = [layer.name for layer in model.layers]
    assert "normal0_node2_in0_dense" in names
    assert "normal1_node2_in0_dense" in names


def test_temperature_by_group() -> None:
    choose = Relax({"first": 0.5, "cell": 0.2})
    build(choose)
    assert choose.mixtures["first"].temperature == 0.5
    assert choose.mixtures["cell/3"].temperature == 0.2
    with pytest.raises(InputError, match="has none for `first`: it has frist, cell"):
        build(Relax({"frist": 0.5, "cell": 0.2}))
    with pytest.raises(InputError, match="`temperature` must be positive, but got 0"):
        Relax({"cell": 0})


def test_sample_draws_from_keras_tuner_what_fix_builds() -> None:
    parameters = keras_tuner.HyperParameters()
    parameters.Fixed("cell/2/operation0", "triple")
    choose = Sample(parameters)
    sampled = build(choose)
    assert choose.values["cell/2"][0] == ["triple", 0]
    assert "cell/3/inputs" in parameters.values
    rebuilt = build(Fix(choose.values))
    assert [a.name for a in rebuilt.layers[1:]] == [a.name for a in sampled.layers[1:]]


def test_an_operation_may_be_used_twice_in_a_node() -> None:
    model = build(Fix({**VALUES, "cell/2": [["double", 0], ["double", 0]]}))
    assert {"cell0_node2_in0_double", "cell0_node2_in0_double_2"} <= {
        layer.name for layer in model.layers
    }


def test_questions_that_contradict_are_refused() -> None:
    inputs = tf.keras.Input((4,))
    choose = Relax()
    choose.op("a", inputs, OPERATIONS)
    with pytest.raises(InputError, match="`a` was asked before with other operations"):
        choose.op("a", inputs, {"dense": dense})
    with pytest.raises(InputError, match="would name its layers `a_1`, as another does"):
        choose.op("a", choose.op("a_1", inputs, OPERATIONS), OPERATIONS)
    with pytest.raises(InputError, match="`keep` must be positive, but got 0"):
        choose.node("e", [inputs], [OPERATIONS], keep=0)
    with pytest.raises(InputError, match="must have inputs to choose from"):
        choose.node("f", [], [])
    wide = {"dense": dense, "wide": lambda x, name: tf.keras.layers.Dense(5, name=name)(x)}
    with pytest.raises(InputError, match=r"one shape, but `dense` .* and `wide` on input 0 gives"):
        choose.op("d", inputs, wide)
    with pytest.raises(InputError, match="no operation to choose"):
        choose.op("b", inputs, {"zero": None})
    with pytest.raises(InputError, match="same operations on every input"):
        choose.node("c", [inputs, inputs], [OPERATIONS, {"dense": dense}])
    with pytest.raises(InputError, match="no value for choice `first`"):
        build(Fix({}))
    with pytest.raises(InputError, match="cannot keep the zero operation"):
        build(Fix({**VALUES, "first": "zero"}))


def test_a_cell_concatenates_the_states_it_is_told() -> None:
    def build_cell(concat: list[int] | None) -> tf.keras.Model:
        inputs = tf.keras.Input((4,))
        values = {f"cell/{i}": [["double", 0], ["triple", i - 1]] for i in (1, 2, 3)}
        values["cell/1"] = [["double", 0]]
        choose = Fix(values)
        x = choose.cell("cell", [inputs], lambda state: OPERATIONS, nodes=3, concat=concat)
        return tf.keras.Model(inputs, x)

    x = np.arange(4.0, dtype="float32")[None]
    np.testing.assert_allclose(build_cell([1, 3])(x), np.concatenate([2 * x, 26 * x], axis=1))
    assert build_cell(None).output_shape == (None, 12)
    with pytest.raises(InputError, match=r"must hold nodes, 1 to 3, each once, but got \[0, 1\]"):
        build_cell([0, 1])


def test_zero_that_is_kept_adds_nothing() -> None:
    def build_zeros(choose: Chooser) -> tf.keras.Model:
        inputs = tf.keras.Input((4,))
        x = choose.cell("cell", [inputs, inputs], lambda _: OPERATIONS, nodes=2, keep_zero=True)
        return tf.keras.Model(inputs, x)

    values = {"cell/2": [["zero", 0], ["double", 1]], "cell/3": [["zero", 2], ["zero", 1]]}
    model = build_zeros(Fix(values))
    x = np.arange(4.0, dtype="float32")[None]
    np.testing.assert_allclose(model(x), np.concatenate([2 * x, 0 * x], axis=1))
    copy = tf.keras.models.clone_model(model)
    np.testing.assert_allclose(copy(x), model(x))

    parameters = keras_tuner.HyperParameters()
    parameters.Fixed("cell/2/operation0", "zero")
    choose = Sample(parameters)
    build_zeros(choose)
    assert choose.values["cell/2"][0] == ["zero", 0]
    assert choose.choices["cell/2"].question() == [[*OPERATIONS], 2, 2, "keep_zero"]


def test_cells_of_a_kind_hang_together_alike() -> None:
    choose, x = Survey(), tf.keras.Input((1,))
    x = choose.cell("cell", [x], lambda state: OPERATIONS, nodes=2, concat=[2])
    with pytest.raises(InputError, match="Cell `cell` was asked before with other inputs, nodes"):
        choose.cell("cell", [x], lambda state: OPERATIONS, nodes=2, concat=[1])
