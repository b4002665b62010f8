"""Checkpoints: a training killed anywhere ends with the bits of one that was not; a bad folder gets one sentence."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from largest_so_far import STEPS, assert_trees_equal, classifier, clipped_adam, parameters
from networks import any_cell, slow_but
from test_ensemble_training import Orders
from trained_and_killed import STEPS as BATCHES
from trained_and_killed import contents, trained

from rnn_dynamics.models import ManyToMany, ManyToOne, make_model
from rnn_dynamics.results import UnwritableFolder
from rnn_dynamics.tasks import make_task
from rnn_dynamics.training import CheckpointError, Checkpoints, Recipe, TrainingConfig, train, train_ensemble
from rnn_dynamics.training.probes import RecurrentMatrix
from rnn_dynamics.training.program import Program

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def command(*arguments):
    return [sys.executable, "-m", "trained_and_killed", *map(str, arguments)]


def assert_same_bits(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype, name
        assert a[name].tobytes() == b[name].tobytes(), name


@pytest.fixture(scope="module")
def uninterrupted():
    return contents(*trained(None))


def stop_before(batch, monkeypatch):
    """Raise where the update with that number, from 0, would be made."""
    made, advance = [], Program.advance

    def counted(self, state, inputs):
        if len(made) == batch:
            raise KeyboardInterrupt
        made.append(1)
        return advance(self, state, inputs)

    monkeypatch.setattr(Program, "advance", counted)


def test_checkpoints_change_nothing(uninterrupted, tmp_path):
    assert_same_bits(contents(*trained(tmp_path / "kept")), uninterrupted)


@pytest.mark.parametrize("batches", slow_but([(12, 13, 1, 25)], [(3,), (10,), (27,), (45,), (12, 13, 1, 25)]), ids=str)
def test_a_training_that_was_stopped_ends_with_the_same_bits(batches, uninterrupted, tmp_path, monkeypatch):
    """Every run gets so many batches further, before and after a checkpoint, and within a sequence's windows."""
    for batch in batches:
        with monkeypatch.context() as patch:
            stop_before(batch, patch)
            with pytest.raises(KeyboardInterrupt):
                trained(tmp_path)
    assert_same_bits(contents(*trained(tmp_path)), uninterrupted)


def test_a_finished_training_is_not_repeated_and_a_longer_one_goes_on(tmp_path, monkeypatch):
    def steps(count, folder):
        model = classifier()
        config, numbers = TrainingConfig(count, 8), {"learning_rate": 0.05, "threshold": 0.6}
        record = train(model, Orders(), clipped_adam, config, numbers=numbers, checkpoints=folder)
        return parameters(model), record

    params, record = steps(4, tmp_path)
    with monkeypatch.context() as patch:
        stop_before(0, patch)
        again, recorded = steps(4, tmp_path)
    assert_trees_equal(params, again)
    np.testing.assert_array_equal(record.loss, recorded.loss)
    longer, at_once = steps(9, tmp_path), steps(9, None)
    assert_trees_equal(longer[0], at_once[0])
    np.testing.assert_array_equal(longer[1].loss, at_once[1].loss)
    assert longer[1].clipping == at_once[1].clipping


def test_an_ensemble_goes_on_with_the_same_bits(tmp_path, monkeypatch):
    def ensemble(folder):
        models = [classifier(seed=seed) for seed in (1, 2)]
        numbers = {"learning_rate": [0.05, 1e308], "threshold": 0.6}
        checkpoints = None if folder is None else Checkpoints(folder, every=3)
        config = TrainingConfig(8, 8)
        record = train_ensemble(
            models, Orders(), clipped_adam, config, seeds=[0, 4], numbers=numbers, checkpoints=checkpoints
        )
        return [parameters(model) for model in models], record

    with monkeypatch.context() as patch:
        stop_before(7, patch)
        with pytest.raises(KeyboardInterrupt):
            ensemble(tmp_path)
    (models, record), (expected, whole) = ensemble(tmp_path), ensemble(None)
    assert_trees_equal(models, expected)
    assert record.broken_step.tolist() == whole.broken_step.tolist()
    for name, values in whole.series.items():
        np.testing.assert_array_equal(record.series[name], values)


def numbered(folder):
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def test_the_latest_checkpoints_are_kept(tmp_path):
    trained(tmp_path)
    assert numbered(tmp_path) == [BATCHES - 10, BATCHES]


def run_once(folder, **numbers):
    numbers = {"learning_rate": 0.05, "threshold": 0.6} | numbers
    return train(
        classifier(),
        Orders(),
        clipped_adam,
        TrainingConfig(4, 8),
        numbers=numbers,
        checkpoints=Checkpoints(folder, every=2),
    )


def test_a_checkpoint_of_another_training_is_refused_by_what_differs(tmp_path):
    run_once(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"another training \(numbers.learning_rate 0.05 there and 0.1 here\): take another"
    ):
        run_once(tmp_path, learning_rate=0.1)
    assert numbered(tmp_path) == [2, 4]


def no_numbers(folder, *, rate=0.1, steps=2, seed=0, probes=(), hidden=4):
    model = ManyToOne(any_cell("ElmanCell", hidden=hidden, seed=seed), 3, rngs=nnx.Rngs(1))
    recipe = Recipe(optax.sgd(rate))
    return train(model, Orders(), recipe, TrainingConfig(steps, 8), probes=probes, checkpoints=folder)


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"rate": 0.2}, r"another training \(weights or recipe \w+ there and \w+ here\)"),
        ({"seed": 7}, r"another training \(weights or recipe"),
        ({"hidden": 5}, r"another training \(learned.params.head.kernel.value float64\[4, 3\] there"),
        ({"probes": [RecurrentMatrix(every=3)]}, r"another training \(probes \[\] there"),
        ({"steps": 1}, r"holds a checkpoint of 2 batches, more than the 1 steps asked for: take another folder"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_no_number_tells_apart_is_refused_too(other, sentence, tmp_path):
    no_numbers(tmp_path)
    with pytest.raises(CheckpointError, match=sentence):
        no_numbers(tmp_path, **other)
    no_numbers(tmp_path)


def test_a_generated_task_of_another_seed_is_another_task(tmp_path):
    def on(seed):
        task = make_task("delayed_recall", lag=2, symbols=2, train_size=16, seed=seed)
        rngs = nnx.Rngs(0)
        model = make_model(task, any_cell("ElmanCell", features=2, hidden=3), rngs=rngs)
        train(model, task, Recipe(optax.sgd(0.1)), TrainingConfig(1, 2), checkpoints=tmp_path)

    on(0)
    with pytest.raises(CheckpointError, match=r"another training \(task.seed 0 there and 1 here"):
        on(1)


class Endless(Orders):
    """The tiny task, many to many, whose batches cannot tell where they stand."""

    regime = "many_to_many"

    def batches(self, split, batch_size, *, seed=None, epochs=1):
        for batch in super().batches(split, batch_size, seed=seed, epochs=epochs):
            yield batch._replace(targets=np.repeat(batch.targets[:, None], STEPS, axis=1))

    @staticmethod
    def loss(outputs, targets):
        picked = jnp.take_along_axis(jax.nn.log_softmax(outputs), jnp.asarray(targets)[:, :, None], axis=2)
        return -jnp.mean(picked[:, :, 0], axis=1)


def test_batches_that_cannot_tell_where_they_stand_are_read_again(tmp_path, monkeypatch):
    task = Endless()

    def windowed(folder):
        model = ManyToMany(any_cell("ElmanCell", hidden=4), 3, rngs=nnx.Rngs(1))
        config = TrainingConfig(7, 8, truncation=2)
        checkpoints = None if folder is None else Checkpoints(folder, every=2)
        return train(model, task, Recipe(optax.sgd(0.1)), config, checkpoints=checkpoints)

    with monkeypatch.context() as patch:
        stop_before(5, patch)
        with pytest.raises(KeyboardInterrupt):
            windowed(tmp_path)
    np.testing.assert_array_equal(windowed(tmp_path).loss, windowed(None).loss)


def data_files(folder):
    return [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size > 0]


def damaged(path):
    """Turn one bit of every byte from the middle on."""
    content = path.read_bytes()
    half = len(content) // 2
    path.write_bytes(content[:half] + bytes(byte ^ 1 for byte in content[half:]))


def emptied(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("harm", [damaged, emptied, Path.unlink])
def test_a_corrupt_checkpoint_is_named_and_the_one_before_is_intact(harm, tmp_path):
    whole = run_once(tmp_path)
    for path in data_files(tmp_path / "4" / "arrays"):
        harm(path)
    with pytest.raises(CheckpointError, match=r"4 cannot be read .*: remove that folder to go on from that of step 2$"):
        run_once(tmp_path)
    shutil.rmtree(tmp_path / "4")
    np.testing.assert_array_equal(run_once(tmp_path).loss, whole.loss)


@pytest.mark.slow
def test_every_damaged_file_of_numbers_is_noticed(tmp_path):
    """Whichever file is hit: what is read is what was saved, or an error."""
    whole = run_once(tmp_path / "whole")
    for number, path in enumerate(data_files(tmp_path / "whole" / "4" / "arrays")):
        copy = tmp_path / str(number)
        shutil.copytree(tmp_path / "whole", copy)
        damaged(copy / path.relative_to(tmp_path / "whole"))
        try:
            record = run_once(copy)
        except CheckpointError:
            continue
        np.testing.assert_array_equal(record.loss, whole.loss)


def test_a_folder_that_cannot_be_written_in_is_refused_before_the_training(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UnwritableFolder, match=r"^cannot write in .*file"):
        run_once(file)


@pytest.mark.slow
def test_a_full_disk_gets_one_sentence_and_leaves_the_checkpoint_before(tmp_path):
    finished = subprocess.run(command(tmp_path), env=ENVIRONMENT, capture_output=True, text=True, check=False)
    reason = "File too large"  # a disk that is really full says "No space left on device"
    sentence = f"the checkpoint of step 30 cannot be written in {tmp_path} ({reason}); that of step 20 is intact"
    assert finished.stdout.strip() == f"CheckpointError {sentence}", finished.stderr
    assert numbered(tmp_path) == [10, 20]


@pytest.mark.slow
def test_a_training_killed_ten_times_anywhere_ends_with_the_same_bits(tmp_path):
    """SIGKILL after a random time, until it has been killed ten times; then it is left in peace."""

    def start(folder):
        words = command(tmp_path / folder, tmp_path / f"{folder}.npz")
        return subprocess.Popen(words, env=ENVIRONMENT, stderr=subprocess.DEVNULL)

    begun = time.monotonic()
    assert start("whole").wait() == 0
    duration = time.monotonic() - begun
    chance = random.Random(0)
    for _ in range(10):
        process = start("killed")
        time.sleep(chance.uniform(0.3, 1.0) * duration)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert start("killed").wait() == 0
    with np.load(tmp_path / "whole.npz") as whole, np.load(tmp_path / "killed.npz") as killed:
        assert_same_bits(dict(killed), dict(whole))
