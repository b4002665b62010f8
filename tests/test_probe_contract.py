"""What every probe promises: labels that are right, a model left as it was, one sentence for what it cannot look at."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from largest_so_far import FEATURES, TASK, LargestSoFar, assert_trees_close, assert_trees_equal, classifier
from networks import any_cell
from probes_made import BATCH, INPUTS, MADE, model_of, task_loss

from rnn_dynamics.cells import StackedCells
from rnn_dynamics.layers import Recurrence
from rnn_dynamics.training import standard_probes
from rnn_dynamics.training.probes import PROBES, Adjoints, Curvature, Exponents, Gates, Reach, RecurrentMatrix


def test_every_probe_is_here():
    assert set(MADE) == set(PROBES)


@pytest.mark.parametrize("name", PROBES)
def test_what_is_measured_is_what_the_labels_say(name):
    probe, model = MADE[name], model_of(0)
    probe.check(model)
    places, sizes = probe.coordinates(model), {}
    shapes = nnx.eval_shape(probe.measure, model)
    assert set(shapes) == set(probe.labels)
    for quantity, label in probe.labels.items():
        assert shapes[quantity].dtype == jnp.float64
        assert label.units
        assert label.description
        for dim, size in zip(label.dims, shapes[quantity].shape, strict=True):
            assert sizes.setdefault(dim, size) == size
            assert dim not in places or len(places[dim].values) == size
    assert set(places) <= set(sizes)


class WithDropout(nnx.Module):
    """Features are dropped on the way to the recurrence, and calls are counted."""

    def __init__(self, rate=0.5):
        self.recurrence = Recurrence(any_cell("ElmanCell", hidden=4))
        self.dropout = nnx.Dropout(rate, rngs=nnx.Rngs(dropout=3))
        self.calls = nnx.Variable(jnp.int32(0))

    @property
    def cell(self):
        return self.recurrence.cell

    def __call__(self, inputs, lengths=None):
        self.calls[...] += 1
        return self.recurrence(self.dropout(jnp.asarray(inputs)))[1][:, -1]


def sum_of_squares(model, batch):
    return jnp.sum(model(batch.inputs) ** 2, axis=-1)


def numbers_of(model):
    """All that a model holds, its random keys as what they are made of."""
    leaves = [leaf[...] for _, leaf in nnx.to_flat_state(nnx.state(model))]
    keys = [jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves]
    return [np.array(jax.random.key_data(leaf) if key else leaf) for leaf, key in zip(leaves, keys, strict=True)]


PROBES_OF_LOSSES = [
    Adjoints(BATCH, sum_of_squares),
    pytest.param(Curvature(BATCH, sum_of_squares, iterations=2), marks=pytest.mark.slow),
]


@pytest.mark.parametrize("probe", PROBES_OF_LOSSES, ids=["adjoints", "curvature"])
def test_measuring_changes_nothing_and_drops_nothing(probe):
    model, without = WithDropout(), WithDropout(rate=0.0)
    before = numbers_of(model)
    found = probe.measure(model)
    assert_trees_equal(before, numbers_of(model))
    assert not model.dropout.deterministic
    assert_trees_close(found, probe.measure(without), atol=1e-13)


class WithoutSizes(nnx.RNNCellBase):
    """Has neither sizes nor gates nor weights."""


@pytest.mark.parametrize(
    ("probe", "make_model", "sentence"),
    [
        (MADE["Exponents"], lambda: nnx.Linear(1, 1, rngs=nnx.Rngs(0)), "attribute cell, Linear has none"),
        (MADE["Reach"], lambda: Recurrence(WithoutSizes()), "attribute in_features, WithoutSizes has none"),
        (Exponents(INPUTS, k=9), lambda: model_of(0), r"k must lie in 1 ... 8, the size of the model's state, got 9"),
        (MADE["Gates"], lambda: Recurrence(any_cell("ElmanCell")), r"gates that lie in \(0, 1\), ElmanCell has none"),
        (MADE["Gates"], lambda: Recurrence(nnx.GRUCell(2, 3, rngs=nnx.Rngs(0))), "a cell that names its gates"),
        (
            MADE["RecurrentMatrix"],
            lambda: Recurrence(nnx.GRUCell(2, 3, rngs=nnx.Rngs(0))),
            "by recur, GRUCell does not",
        ),
        (MADE["RecurrentMatrix"], lambda: Recurrence(any_cell("LayerNormLSTMCell")), "recur is linear in the state"),
        (MADE["Adjoints"], lambda: nnx.Linear(1, 1, rngs=nnx.Rngs(0)), "must hold a layer that can be tapped"),
        (MADE["Curvature"], lambda: Recurrence(WithoutSizes()), "must have parameters, Recurrence has none"),
    ],
)
def test_a_model_without_the_part_is_refused(probe, make_model, sentence):
    with pytest.raises(ValueError, match=sentence):
        probe.check(make_model())


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: RecurrentMatrix(every=0), "every must be a whole number >= 1, got 0"),
        (lambda: RecurrentMatrix(name="a/b"), "name of a probe must be letters, digits and underscores, got 'a/b'"),
        (lambda: Exponents(INPUTS[0, 0]), r"inputs must be features .* or tokens .*, got shape \(2,\)"),
        (lambda: Gates(INPUTS[:0]), r"inputs must be features .* or tokens .*, got shape \(0, 14, 2\)"),
        (lambda: Reach(INPUTS, max_lag=0), "max_lag must be a whole number >= 1, got 0"),
        (lambda: Curvature(BATCH, task_loss, iterations=0), "iterations must be a whole number >= 1, got 0"),
    ],
)
def test_bad_numbers_get_one_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


class TestSplit(LargestSoFar):
    """No example to train on is looked at."""

    __test__ = False

    def batches(self, split, batch_size, *, seed=None, epochs=1):
        assert split == "test"
        return super().batches(split, batch_size, seed=seed, epochs=epochs)


def deep_model():
    """A GRU below an Elman network, as one cell."""
    model = classifier()
    model.recurrence = Recurrence(StackedCells([any_cell("GRUCell"), any_cell("ElmanCell", features=6, hidden=4)]))
    return model


@pytest.mark.parametrize(
    ("make_model", "names"),
    [
        (lambda: model_of(0), "exponents reach adjoints recurrent_matrix gates"),
        pytest.param(classifier, "exponents reach adjoints recurrent_matrix", marks=pytest.mark.slow),
        pytest.param(deep_model, "exponents reach adjoints", marks=pytest.mark.slow),
    ],
    ids=["lstm", "elman", "deep"],
)
def test_standard_probes_suit_the_model(make_model, names):
    probes = standard_probes(make_model(), TestSplit(), seed=0)
    assert [probe.name for probe in probes] == names.split()


@pytest.mark.slow
def test_standard_probes_look_at_the_longest_examples():
    probes = {probe.name: probe for probe in standard_probes(model_of(0), TestSplit(), seed=5, every=7)}
    batch = next(TASK.batches("test", 16, seed=5, epochs=None))
    inputs = probes["exponents"].inputs
    shortest = np.sort(batch.lengths)[-4]
    assert inputs.shape == (4, shortest, FEATURES)
    for stream in inputs:
        same = [np.array_equal(stream, example[:shortest]) for example in batch.inputs]
        assert sum(same) == 1
        assert batch.lengths[same.index(True)] >= shortest
    assert {probe.every for probe in probes.values()} == {7}
    np.testing.assert_array_equal(probes["adjoints"].batch.inputs, batch.inputs)
    losses = probes["adjoints"].loss(model_of(0), batch)
    np.testing.assert_array_equal(losses, task_loss(model_of(0), batch))
