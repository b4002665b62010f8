"""Watchers: what a terminal and TensorBoard are told of a training."""

import io
import struct

import numpy as np
import pytest
from largest_so_far import classifier, clipped_adam, trained
from test_ensemble_training import Orders

from rnn_dynamics.training import CHECK_EVERY, ProgressBar, TensorBoardWriter, TrainingConfig, train, train_ensemble
from rnn_dynamics.training.probes import Exponents

INPUTS = np.random.default_rng(0).normal(size=(2, 12, 2))


def watched(watchers, steps=CHECK_EVERY + 5, **options):
    config = TrainingConfig(steps, 8, evaluate_every=CHECK_EVERY)
    numbers = {"learning_rate": 0.05, "threshold": 0.6}
    probes = [Exponents(INPUTS, k=2, every=CHECK_EVERY)]
    return train(
        classifier(), Orders(), clipped_adam, config, numbers=numbers, probes=probes, watchers=watchers, **options
    )


def test_the_bar_shows_loss_metric_and_leading_exponent():
    stream = io.StringIO()
    with ProgressBar("net", stream) as bar:
        record = watched([bar])
    line = stream.getvalue().strip()
    exponents = record.probes.to_arrays()["exponents/mean"]
    assert line.startswith("net")
    assert f"55/55 loss {record.loss[-1]:.4g}, metric {record.metric[-1]:.4g}, λ₁ {exponents[-1, 0]:+.3f}" in line


def scalars(folder):
    """Tag -> step -> value, of all event files, read by TensorBoard's own format: TFRecords of Event messages."""
    from tensorboardX.proto.event_pb2 import Event

    found = {}
    for path in sorted(folder.glob("events.*")):
        content, place = path.read_bytes(), 0
        while place < len(content):
            (length,) = struct.unpack_from("<Q", content, place)
            event = Event.FromString(content[place + 12 : place + 12 + length])
            place += 12 + length + 4
            for value in event.summary.value:
                found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


def test_tensorboard_gets_every_number(tmp_path):
    with TensorBoardWriter(tmp_path) as board:
        record = watched([board])
    found = scalars(tmp_path)
    for name, values in record.series.items():
        assert list(found[name]) == list(range(CHECK_EVERY + 5))
        np.testing.assert_allclose(list(found[name].values()), values, rtol=1e-6, atol=1e-7)
    assert list(found["metric"]) == [CHECK_EVERY]
    arrays = record.probes.to_arrays()
    for number in range(2):
        told = found[f"exponents/mean/{number}"]
        assert list(told) == [CHECK_EVERY]  # what is measured before the first batch is in the record alone
        np.testing.assert_allclose(told[CHECK_EVERY], arrays["exponents/mean"][1, number], rtol=1e-6, atol=0)


@pytest.mark.slow
def test_an_ensemble_is_told_by_member_and_shown_by_its_median(tmp_path):
    stream, told = io.StringIO(), []
    models = [classifier(seed=seed) for seed in range(3)]
    numbers = {"learning_rate": 0.05, "threshold": 0.6}
    with ProgressBar(stream=stream) as bar, TensorBoardWriter(tmp_path) as board:
        watchers = [bar, board, told.append]
        train_ensemble(models, Orders(), clipped_adam, TrainingConfig(5, 8), numbers=numbers, watchers=watchers)
    found = scalars(tmp_path)
    for member in range(3):
        np.testing.assert_allclose(found[f"loss/{member}"][4], told[0].series["loss"][4, member], rtol=1e-6, atol=0)
    assert f"loss {np.median(told[0].series['loss'][4]):.4g}" in stream.getvalue()


def test_probes_change_no_number_and_say_what_they_cost():
    model, alone = classifier(), classifier()
    numbers, config = {"learning_rate": 0.05, "threshold": 0.6}, TrainingConfig(6, 8)
    probes = [Exponents(INPUTS, k=1, every=1)]
    record = train(model, Orders(), clipped_adam, config, numbers=numbers, probes=probes)
    without = trained(alone, Orders(), steps=6, clip_threshold=0.6)
    for name, values in without.series.items():
        assert record.series[name].tobytes() == values.tobytes()
    assert 0 < record.probe_share < 1
    assert np.isnan(without.probe_share)
    assert record.probes.to_arrays()["exponents/step"].tolist() == list(range(7))
