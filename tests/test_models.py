"""The models: what they read, at which steps they answer, with our cells and Flax's, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from largest_so_far import LargestSoFar
from networks import any_cell, noise

from rnn_dynamics.models import ManyToMany, ManyToOne, make_model
from rnn_dynamics.tasks import make_task

BATCH, STEPS, FEATURES, CLASSES, WORDS = 3, 5, 2, 4, 7
LENGTHS = np.array([5, 1, 3], np.int32)
TOKENS = np.array([[6, 1, 2, 0, 3], [4, 0, 0, 0, 0], [5, 5, 1, 0, 0]], np.int32)


def classifier(cell=None, **options):
    cell = any_cell("GRUCell", hidden=3) if cell is None else cell
    return ManyToOne(cell, CLASSES, rngs=nnx.Rngs(3), **options)


def sequences(seed=1):
    return noise(BATCH * STEPS, FEATURES, seed=seed).reshape(BATCH, STEPS, FEATURES)


def by_hand(model, features, length):
    """Logits of one sequence [T, F]: a step at a time up to its length, then the head's affine map."""
    cell = model.cell
    carry, output = cell.initialize_carry((FEATURES,), nnx.Rngs(0)), None
    for x in features[:length]:
        carry, output = cell(carry, x)
    return output @ model.head.kernel[...] + model.head.bias[...]


@pytest.mark.parametrize("padding", [0.0, 1e9, np.nan])
def test_answers_at_the_last_valid_step(padding):
    model, inputs = classifier(), sequences()
    padded = jnp.where(np.arange(STEPS)[:, None] < LENGTHS[:, None, None], inputs, padding)
    logits = model(padded, LENGTHS)
    assert logits.shape == (BATCH, CLASSES)
    for number, length in enumerate(LENGTHS):
        np.testing.assert_allclose(logits[number], by_hand(model, inputs[number], length), rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    "cell",
    [
        any_cell("LSTMCell", hidden=3),
        nnx.SimpleCell(FEATURES, 3, dtype=jnp.float64, param_dtype=jnp.float64, rngs=nnx.Rngs(0)),
        nnx.LSTMCell(FEATURES, 3, param_dtype=jnp.float64, rngs=nnx.Rngs(0)),
        nnx.OptimizedLSTMCell(FEATURES, 3, param_dtype=jnp.float64, rngs=nnx.Rngs(0)),
        nnx.GRUCell(FEATURES, 3, param_dtype=jnp.float64, rngs=nnx.Rngs(0)),
    ],
    ids=lambda cell: f"{type(cell).__module__}.{type(cell).__name__}",
)
def test_takes_any_cell(cell):
    model, inputs = classifier(cell), sequences()
    expected = jnp.stack([by_hand(model, inputs[number], LENGTHS[number]) for number in range(BATCH)])
    np.testing.assert_allclose(model(inputs, LENGTHS), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("padding", [0.0, np.nan])
def test_many_to_many_answers_at_every_step(padding):
    """What the one answer would be if the sequence ended there."""
    model = ManyToMany(any_cell("GRUCell", hidden=3), CLASSES, rngs=nnx.Rngs(3))
    inputs = sequences()
    padded = jnp.where(np.arange(STEPS)[:, None] < LENGTHS[:, None, None], inputs, padding)
    outputs = model(padded, LENGTHS)
    assert outputs.shape == (BATCH, STEPS, CLASSES)
    for number, length in enumerate(LENGTHS):
        for step in range(length):
            expected = by_hand(model, inputs[number], step + 1)
            np.testing.assert_allclose(outputs[number, step], expected, rtol=0, atol=1e-14)
        after = np.broadcast_to(model.head.bias[...], (STEPS - length, CLASSES))
        np.testing.assert_array_equal(outputs[number, length:], after)
    np.testing.assert_allclose(model(inputs)[:, -1], classifier()(inputs), rtol=0, atol=1e-14)


def test_a_task_gets_the_model_of_its_regime():
    xor, digits = make_task("delayed_xor"), make_task("sequential_digits")
    for task, regime in ((xor, ManyToMany), (digits, ManyToOne)):
        model = make_model(task, any_cell("ElmanCell", features=1), rngs=nnx.Rngs(0))
        assert type(model) is regime
        assert model.head.out_features == task.output_features
        assert model.embedding is None


def test_a_task_with_a_vocabulary_gets_an_embedding():
    model = make_model(Words(), any_cell("ElmanCell", features=2), rngs=nnx.Rngs(0))
    assert model.embedding.embedding.shape == (WORDS, 2)


def test_an_unknown_regime_gets_one_sentence():
    task = Words()
    task.regime = "one_to_many"
    with pytest.raises(ValueError, match=r"unknown regime 'one_to_many': did you mean .* known are many_to_many"):
        make_model(task, any_cell("ElmanCell"), rngs=nnx.Rngs(0))


def test_without_lengths_all_steps_count():
    model, inputs = classifier(), sequences()
    np.testing.assert_allclose(model(inputs), model(inputs, np.full(BATCH, STEPS)), rtol=0, atol=1e-14)
    assert not np.allclose(model(inputs), model(inputs, LENGTHS))


def test_tokens_are_rows_of_the_embedding():
    model = classifier(vocabulary_size=WORDS)
    assert model.embedding.embedding.shape == (WORDS, FEATURES)
    features = model.embedding.embedding[...][TOKENS]
    logits = model(TOKENS, LENGTHS)
    for number, length in enumerate(LENGTHS):
        np.testing.assert_allclose(logits[number], by_hand(model, features[number], length), rtol=0, atol=1e-14)
    other_padding = np.where(np.arange(STEPS) < LENGTHS[:, None], TOKENS, WORDS - 1)
    assert np.any(other_padding != TOKENS)
    np.testing.assert_array_equal(model(other_padding, LENGTHS), logits)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.slow
def test_encoder_and_head_have_the_precision_of_the_cell(dtype):
    model = classifier(any_cell("ElmanCell", hidden=3, dtype=dtype), vocabulary_size=WORDS)
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))} == {jnp.dtype(dtype)}
    assert model(TOKENS, LENGTHS).dtype == dtype


class Words(LargestSoFar):
    """A task of the tests, as if its inputs were tokens."""

    input_features, vocabulary_size = None, WORDS


class Nameless(nnx.RNNCellBase):
    """A cell that tells its width but not its size."""

    in_features = FEATURES


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: ManyToOne(any_cell("GRUCell"), 0, rngs=nnx.Rngs(0)), "output_features must be >= 1, got 0"),
        (lambda: classifier(vocabulary_size=0), "vocabulary_size must be >= 1, or None .*, got 0"),
        (lambda: classifier(Nameless()), "cell must have an attribute hidden_features, Nameless has none"),
    ],
    ids=["no_output", "no_vocabulary", "no_size"],
)
def test_bad_size_gets_one_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


FLOATS = r"inputs must be floats \[batch, time, feature\] without a vocabulary_size, got "
NUMBERS = r"inputs must be token numbers \[batch, time\] with a vocabulary_size, got "


@pytest.mark.parametrize(
    ("vocabulary_size", "inputs", "sentence"),
    [
        (None, TOKENS, FLOATS + r"int32 of shape \(3, 5\)"),
        (None, TOKENS[..., None], FLOATS + r"int32 of shape \(3, 5, 1\)"),
        (None, np.ones((3, 5)), FLOATS + r"float64 of shape \(3, 5\)"),
        (None, np.ones((3, 5, 3)), r"inputs must have 2 features, got shape \(3, 5, 3\)"),
        (WORDS, np.ones((3, 5, 2)), NUMBERS + r"float64 of shape \(3, 5, 2\)"),
        (WORDS, np.ones((3, 5)), NUMBERS + r"float64 of shape \(3, 5\)"),
        (WORDS, TOKENS[0], NUMBERS + r"int32 of shape \(5,\)"),
        (WORDS, TOKENS + 1, r"tokens must lie in 0 \.\.\. 6, got 1 \.\.\. 7"),
        (WORDS, TOKENS - 1, r"tokens must lie in 0 \.\.\. 6, got -1 \.\.\. 5"),
    ],
)
def test_bad_input_gets_one_sentence(vocabulary_size, inputs, sentence):
    model = classifier(vocabulary_size=vocabulary_size)
    with pytest.raises(ValueError, match=sentence):
        model(inputs, LENGTHS)


def test_bad_kind_of_input_is_refused_under_jit_too():
    with pytest.raises(ValueError, match=NUMBERS):
        nnx.jit(lambda model, inputs: model(inputs))(classifier(vocabulary_size=WORDS), sequences())


def test_tokens_and_lengths_may_be_constants_under_jit():
    model, lengths = classifier(vocabulary_size=WORDS), jnp.asarray(LENGTHS)
    tokens, wrong = jnp.asarray(TOKENS), jnp.asarray(TOKENS + 1)
    logits = nnx.jit(lambda model: model(tokens, lengths))(model)
    np.testing.assert_allclose(logits, model(tokens, lengths), rtol=0, atol=1e-14)
    with pytest.raises(ValueError, match=r"tokens must lie in 0 \.\.\. 6, got 1 \.\.\. 7"):
        nnx.jit(lambda model: model(wrong, lengths))(model)
