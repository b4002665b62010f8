"""Every generated task: targets from inputs, chance level, oracle, what it draws."""

import functools
import math
from fractions import Fraction

import numpy as np
import pytest
from networks import slow_but
from tiny_tasks import GENERATED, TINY, VARIANTS, variant_name

from rnn_dynamics.tasks import TASKS, make_task
from rnn_dynamics.tasks.objectives import NOT_ASKED, Regression
from rnn_dynamics.tasks.pattern_recall import PatternRecall

COUNT = 4096


# These are drawn as others are, with other numbers in them.
ALIKE = [("multiplication", TINY["multiplication"]), ("memorization_20_bit", TINY["memorization_20_bit"]), VARIANTS[-1]]
QUICK = [variant for variant in VARIANTS if variant not in ALIKE]


@pytest.fixture(scope="module", params=slow_but(QUICK, VARIANTS), ids=variant_name)
def drawn(request):
    """A task, and the inputs and targets of 4096 examples."""
    name, options = request.param
    return draw(name, **options)


@functools.cache
def draw(name, **options):
    task = make_task(name, test_size=COUNT, **options)
    batch = next(task.batches("test", COUNT))
    return task, np.asarray(batch.inputs), np.asarray(batch.targets)


def assert_mean(values, expected):
    """The mean of independent values is the expected one to four standard errors, and those are small."""
    margin = 4 * np.std(values, axis=0) / np.sqrt(len(values))
    assert np.all(margin < 0.15)
    np.testing.assert_array_less(np.abs(np.mean(values, axis=0) - expected), margin + 1e-6)


# What the targets should be, from the inputs [B, T, F] alone


def pattern_again(task, inputs):
    symbols = inputs.argmax(axis=-1)
    blank, cue = inputs.shape[-1] - 2, inputs.shape[-1] - 1
    answers = np.full_like(symbols, blank)
    for row, sequence in enumerate(symbols):
        (at,) = np.flatnonzero(sequence == cue)
        answers[row, at + 1 :] = sequence[sequence < blank]
    return answers


def order_of_symbols(task, inputs):
    relevant = [sequence[sequence < 2] for sequence in inputs.argmax(axis=-1)]
    return np.array([sum(symbol * 2**place for place, symbol in enumerate(symbols)) for symbols in relevant])


def exclusive_or(task, inputs):
    answers = np.full(inputs.shape[:2], NOT_ASKED)
    for step in range(2 * task.delay, inputs.shape[1]):
        answers[:, step] = inputs[:, step - task.delay, 0] != inputs[:, step - 2 * task.delay, 0]
    return answers


BY_HAND = {
    "adding": lambda task, x: np.sum(x[..., 0], axis=1, keepdims=True, where=x[..., 1] == 1),
    "multiplication": lambda task, x: np.prod(x[..., 0], axis=1, keepdims=True, where=x[..., 1] == 1),
    "temporal_order": order_of_symbols,
    "random_permutation": lambda task, x: x[:, 0].argmax(axis=-1),
    "noiseless_memorization": pattern_again,
    "memorization_20_bit": pattern_again,
    "copying_memory": pattern_again,
    "delayed_xor": exclusive_or,
    "parity": lambda task, x: np.sum(x[..., 0] == 1, axis=1) % 2,
    "delayed_recall": lambda task, x: x[:, 0].argmax(axis=-1),
}


def certain(classes, count):
    return 100 * np.eye(count, dtype=np.float32)[np.maximum(classes, 0)]


def oracle(task, answers):
    return answers if isinstance(task, Regression) else certain(answers, task.output_features)


def memoryless(task, targets):
    """Outputs of the best answer that knows the time alone."""
    if isinstance(task, Regression):
        return np.full(targets.shape, {"adding": 1, "multiplication": 0.25}[task.name], np.float32)
    if isinstance(task, PatternRecall):
        answer = certain(np.full_like(targets, task.pattern_symbols), task.output_features)
        answer[:, -task.pattern_length :] = [*task.pattern_symbols * [0.0], -100.0]
        return answer
    return certain(np.zeros_like(targets), task.output_features)


def test_targets_follow_from_inputs(drawn):
    task, inputs, targets = drawn
    np.testing.assert_array_equal(targets, BY_HAND[task.name](task, inputs))


def test_an_oracle_solves_it(drawn):
    task, inputs, targets = drawn
    metric = task.metric(oracle(task, BY_HAND[task.name](task, inputs)), targets)
    np.testing.assert_allclose(metric, np.full(COUNT, float(task.larger_is_better)), rtol=0, atol=1e-6)
    assert task.solved(float(np.mean(metric)))
    assert not task.solved(task.solved_level)
    assert not task.solved(task.chance_level)


def test_chance_level_is_that_of_the_best_answer_without_inputs(drawn):
    task, _, targets = drawn
    assert_mean(np.asarray(task.metric(memoryless(task, targets), targets)), task.chance_level)


def test_no_answer_without_inputs_is_better(drawn):
    """The best number is the targets' mean; of classes that are equally likely none is better than another."""
    task, _, targets = drawn
    if isinstance(task, Regression):
        return assert_mean(targets, memoryless(task, targets[:1])[0])
    if isinstance(task, PatternRecall):
        classes, targets = range(task.pattern_symbols), targets[:, -task.pattern_length :]
    else:
        classes, targets = range(2 if task.name == "random_permutation" else task.output_features), targets
        targets = targets if task.regime == "many_to_one" else targets[:, -1]
    for number in classes:
        assert_mean(targets == number, 1 / len(classes))


@pytest.mark.parametrize(
    ("name", "options", "level"),
    [
        ("adding", {}, 2 * (Fraction(1, 3) - Fraction(1, 4))),  # var(X + Y) = 2 (E X^2 - (E X)^2)
        ("multiplication", {}, Fraction(1, 3) ** 2 - Fraction(1, 4) ** 2),  # E X^2 E Y^2 - (E X E Y)^2
        ("temporal_order", {"symbols": 2}, Fraction(1, 4)),
        ("temporal_order", {"symbols": 3}, Fraction(1, 8)),
        ("random_permutation", {}, Fraction(1, 2)),
        ("noiseless_memorization", {}, Fraction(1, 32)),
        ("memorization_20_bit", {}, Fraction(1, 9765625)),
        ("copying_memory", {"delay": 100}, 10 * math.log(8) / 120),
        ("copying_memory", {"delay": 1000}, 10 * math.log(8) / 1020),
        ("delayed_xor", {}, Fraction(1, 2)),
        ("parity", {}, Fraction(1, 2)),
        ("delayed_recall", {"symbols": 5}, Fraction(1, 5)),
    ],
)
def test_chance_levels_in_closed_form(name, options, level):
    assert make_task(name, **options).chance_level == pytest.approx(float(level), rel=1e-15)


# What is drawn


def test_tokens_are_one_hot(drawn):
    task, inputs, _ = drawn
    steps = slice(1) if task.name == "delayed_recall" else slice(None)  # its noise follows
    if task.input_features > 2:
        assert set(np.unique(inputs[:, steps])) == {0, 1}
        np.testing.assert_array_equal(inputs[:, steps].sum(axis=-1), np.ones(inputs[:, steps].shape[:2]))


@pytest.mark.parametrize("length", slow_but([7], [2, 7]))
def test_marks_lie_one_in_each_half(length):
    _, inputs, _ = draw("adding", length=length)
    half = length // 2
    marks = inputs[..., 1]
    assert set(np.unique(marks)) <= {0, 1}
    for part in (slice(half), slice(half, None)):
        steps = marks[:, part]
        np.testing.assert_array_equal(steps.sum(axis=1), np.ones(COUNT))
        assert_mean(steps, 1 / steps.shape[1])
    assert np.all((inputs[..., 0] >= 0) & (inputs[..., 0] < 1))
    assert_mean(inputs[..., 0], 1 / 2)
    assert_mean(inputs[..., 0] ** 2, 1 / 3)


@pytest.mark.parametrize("starts", slow_but([(2, 10)], [(2, 10), (2, 6, 12)]), ids=len)
def test_symbols_lie_in_their_windows(starts):
    task, inputs, _ = draw("temporal_order", length=20, **({"symbols": 3} if len(starts) == 3 else {}))
    relevant = inputs[..., :2].sum(axis=-1)
    windows = [range(start, start + 2) for start in starts]
    assert task.windows == tuple(windows)
    for window in windows:
        np.testing.assert_array_equal(relevant[:, window].sum(axis=1), np.ones(COUNT))
        assert_mean(relevant[:, window], 1 / 2)
    assert np.all(relevant.sum(axis=1) == len(starts))
    assert_mean(inputs[:, 0, 2:], 1 / 4)


@pytest.mark.parametrize("length", [10, 19, 33, 107])
def test_windows_neither_meet_nor_leave_the_sequence(length):
    for symbols in (2, 3):
        windows = make_task("temporal_order", length=length, symbols=symbols).windows
        steps = [step for window in windows for step in window]
        assert len(steps) == symbols * (length // 10)
        assert sorted(set(steps)) == steps
        assert 0 <= steps[0] <= steps[-1] < length


def test_the_cue_comes_before_the_first_answer():
    task, inputs, targets = draw("noiseless_memorization", delay=2)
    assert inputs.shape == (COUNT, 12, 4)
    assert np.all(inputs[:, 6, 3] == 1)
    assert np.all(targets[:, :7] == 2)
    assert len(np.unique(targets, axis=0)) == 32
    one_wrong = certain(targets, 3)
    one_wrong[0, -1] = -one_wrong[0, -1]
    np.testing.assert_array_equal(task.metric(one_wrong, targets), np.arange(COUNT) > 0)


@pytest.mark.parametrize("noise", slow_but([0.5], [0.0, 0.5]))
def test_noise_follows_the_symbol(noise):
    _, inputs, _ = draw("delayed_recall", lag=3, noise=noise)
    assert inputs.shape == (COUNT, 4, 4)
    assert_mean(inputs[:, 1:], 0)
    assert_mean(inputs[:, 1:] ** 2, noise**2)


@pytest.mark.parametrize(("name", "values"), [("parity", (-1, 1)), ("delayed_xor", (0, 1))])
def test_bits_are_fair(name, values):
    _, inputs, _ = draw(name, **TINY[name])
    assert set(np.unique(inputs)) == set(values)
    assert_mean(inputs == values[1], 1 / 2)


def test_every_generated_task_is_tested_by_hand():
    assert set(BY_HAND) == GENERATED <= set(TASKS)
