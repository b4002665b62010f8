"""An ensemble trained as one program: every member does what it would do alone."""

import jax
import numpy as np
import pytest
from flax import nnx
from largest_so_far import TASK, LargestSoFar, assert_trees_close, classifier, clipped_adam, parameters, trained

from rnn_dynamics.cells import GRUCell
from rnn_dynamics.models import make_model
from rnn_dynamics.tasks import make_task
from rnn_dynamics.training import TrainingBroke, TrainingConfig, train, train_ensemble, update
from rnn_dynamics.types import Batch

RATES, SEEDS, WEIGHTS = (0.05, 0.02, 0.05), (0, 0, 4), (1, 2, 3)


class Orders(LargestSoFar):
    """The tiny task, with batches of several orders at once."""

    def batches(self, split, batch_size, *, seed=None, epochs=1):
        if not isinstance(seed, tuple):
            yield from super().batches(split, batch_size, seed=seed, epochs=epochs)
            return
        each = [super(Orders, self).batches(split, batch_size, seed=own, epochs=epochs) for own in seed]
        for several in zip(*each, strict=True):
            yield Batch(*(np.stack(leaves) for leaves in zip(*several, strict=True)))


def numbers(rates=RATES):
    return {"learning_rate": list(rates), "threshold": 0.6}


@pytest.fixture(params=["one by one", pytest.param("at once", marks=pytest.mark.slow)])
def either_way(request, monkeypatch):
    """As on CPUs, and as on accelerators."""
    if request.param == "at once":
        monkeypatch.setattr(update, "over_members", lambda function, members: jax.vmap(function)(members))
    for compiled in (update.compiled_ensemble_update, update.compiled_question):
        compiled.cache_clear()


@pytest.mark.usefixtures("either_way")
def test_every_member_is_what_it_would_be_alone():
    models = [classifier(seed=seed) for seed in WEIGHTS]
    config = TrainingConfig(steps=9, batch_size=8, evaluate_every=4)
    record = train_ensemble(models, Orders(), clipped_adam, config, seeds=SEEDS, numbers=numbers())
    assert record.loss.shape == (9, 3)
    assert record.metric.shape == (2, 3)
    for member, (rate, seed, weights) in enumerate(zip(RATES, SEEDS, WEIGHTS, strict=True)):
        alone = classifier(seed=weights)
        config = TrainingConfig(steps=9, batch_size=8, seed=seed, evaluate_every=4)
        own = train(alone, Orders(), clipped_adam, config, numbers={"learning_rate": rate, "threshold": 0.6})
        for name, values in own.series.items():
            np.testing.assert_allclose(record.series[name][:, member], values, rtol=0, atol=1e-12, err_msg=name)
        np.testing.assert_array_equal(record.metric[:, member], own.metric)
        assert_trees_close(parameters(models[member]), parameters(alone), atol=1e-12)
        assert record.clipping.share[member] == own.clipping.share


@pytest.mark.usefixtures("either_way")
def test_a_member_that_breaks_is_frozen_and_recorded_and_the_others_go_on():
    """A rate of 1e308 sends the weights so far that the loss breaks."""
    models = [classifier(seed=seed) for seed in WEIGHTS]
    rates = (0.05, 1e308, 0.05)
    config = TrainingConfig(steps=9, batch_size=8)
    record = train_ensemble(models, Orders(), clipped_adam, config, seeds=SEEDS, numbers=numbers(rates))
    alone = classifier(seed=WEIGHTS[1])
    with pytest.raises(TrainingBroke) as caught:
        train(alone, Orders(), clipped_adam, TrainingConfig(9, 8), numbers={"learning_rate": 1e308, "threshold": 0.6})
    broken = caught.value.step
    assert record.broken_step.tolist() == [-1, broken, -1]
    np.testing.assert_array_equal(record.loss[: broken + 1, 1], caught.value.record.loss)
    assert np.isnan(record.loss[broken + 1 :, 1]).all()
    assert np.isfinite(record.loss[:, [0, 2]]).all()
    assert_trees_close(parameters(models[1]), parameters(alone), atol=1e-15 * 1e308)
    whole = trained(third := classifier(seed=WEIGHTS[2]), Orders(), steps=9, clip_threshold=0.6, seed=SEEDS[2])
    np.testing.assert_allclose(record.loss[:, 2], whole.loss, rtol=0, atol=1e-12)
    assert_trees_close(parameters(models[2]), parameters(third), atol=1e-12)


@pytest.mark.slow
def test_a_member_that_has_solved_the_task_stops_as_it_would_alone():
    """The seeds are such that the two solve it at different evaluations; checked here, not assumed."""
    task = make_task("delayed_recall", lag=3, test_size=256)

    def model(seed):
        rngs = nnx.Rngs(seed)
        return make_model(task, GRUCell(task.input_features, 8, rngs=rngs), rngs=rngs)

    config = TrainingConfig(400, 16, evaluate_every=20, stop_when_solved=True)
    rates = [0.03, 0.008]
    models = [model(0), model(1)]
    record = train_ensemble(models, task, clipped_adam, config, numbers={"learning_rate": rates, "threshold": 1.0})
    assert 0 < record.solved_step[0] < record.solved_step[1] < 400
    for member, rate in enumerate(rates):
        own = train(
            alone := model(member), task, clipped_adam, config, numbers={"learning_rate": rate, "threshold": 1.0}
        )
        assert own.solved_step == record.solved_step[member] == len(own.loss) == own.evaluated[-1]
        assert task.solved(own.metric[-1])
        assert not any(task.solved(metric) for metric in own.metric[:-1])
        np.testing.assert_allclose(record.loss[: len(own.loss), member], own.loss, rtol=1e-3, atol=1e-4)
        assert np.isnan(record.loss[len(own.loss) :, member]).all()
        assert_trees_close(parameters(models[member]), parameters(alone), atol=1e-3)


def test_bad_ensembles_get_one_sentence():
    config, two = TrainingConfig(1, 8), [classifier(seed=0), classifier(seed=1)]
    rate = {"learning_rate": 0.1, "threshold": 1.0}
    with pytest.raises(ValueError, match=r"^models must hold at least one model, got none$"):
        train_ensemble([], TASK, clipped_adam, config, numbers=rate)
    with pytest.raises(ValueError, match=r"^seeds must be one for each of the 2 models, got 1$"):
        train_ensemble(two, TASK, clipped_adam, config, numbers=rate, seeds=[0])
    with pytest.raises(ValueError, match=r"^numbers must be one, or one for each of the 2 models; threshold has shape"):
        train_ensemble(two, TASK, clipped_adam, config, numbers=rate | {"threshold": [1.0, 2.0, 3.0]})
    with pytest.raises(ValueError, match=r"^learning_rate must be a finite number > 0, got -0.1$"):
        train_ensemble(two, TASK, clipped_adam, config, numbers=rate | {"learning_rate": [0.1, -0.1]})
    other = [two[0], classifier("GRUCell")]
    with pytest.raises(ValueError, match=r"^models must differ in their weights alone, but model 1 is not built"):
        train_ensemble(other, TASK, clipped_adam, config, numbers=rate)
