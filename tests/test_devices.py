"""Ensembles and chunks over devices: the numbers of one device, and no device holds the whole."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from eight_devices import CHUNK, CHUNKS, MEMBERS, STEPS
from networks import linear_system

from rnn_dynamics.devices import first_devices, line_of, shard_ensemble, vmap_on_devices
from rnn_dynamics.dynamics import Chunked, lyapunov_spectrum
from rnn_dynamics.dynamics.chunks import _worst

ROOT = Path(__file__).resolve().parents[1]
ROUNDING = 1e-11
"""Errors u exp(spread) per block, of spreads up to some 10 nats."""


def on_eight_devices(*parts):
    script = Path(__file__).with_name("eight_devices.py")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script), *parts]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


@pytest.fixture(scope="module")
def quick():
    return on_eight_devices("ensemble", "chunks")


def assert_spread(seen, axis):
    assert seen["devices"] == 8
    assert seen["size"][0] == axis
    assert [shard[0] for shard in seen["shards"]] == [axis / 8]


@pytest.mark.slow
def test_each_device_measures_its_own_members(quick):
    seen = quick["ensemble"]
    assert seen["differences"]["growth"] == 0
    assert max(seen["differences"].values()) < 1e-15  # another program takes the means
    assert_spread(seen, MEMBERS)
    assert {shape[0] for shape in seen["inputs"]} == {MEMBERS / 8}
    assert seen["whole"] == []
    assert seen["collectives"] == []


@pytest.mark.slow
def test_devices_share_the_chunks_of_a_run(quick):
    seen = quick["chunks"]
    assert max(seen["differences"].values()) < ROUNDING
    assert 1 < seen["sweeps"] < 20
    assert seen["devices"] == 8
    assert seen["size"] == [CHUNKS * CHUNK / 4, 3]  # neighbours are added up to at most 100 stretches
    assert set(seen["whole"]) <= {f"f64[{CHUNKS * CHUNK},3]"}


@pytest.mark.slow
def test_transients_and_what_chunks_leave_over_are_run_by_all():
    """The statistics gather the growth, [R, K]; inputs and frames stay where they are."""
    seen = on_eight_devices("chunks and more")["chunks and more"]
    assert max(seen["differences"].values()) < ROUNDING
    assert set(seen["whole"]) <= {f"f64[{CHUNKS * CHUNK},3]"}


@pytest.mark.slow
def test_plain_vmap_of_a_sharded_ensemble_gathers_nothing():
    """Only "may all of you go the fast way?" is asked of all devices."""
    seen = on_eight_devices("partitioned")["partitioned"]
    assert max(seen["differences"].values()) < ROUNDING
    assert_spread(seen, MEMBERS)
    assert seen["collectives"] == ["all-reduce"]
    assert set(seen["reduced"]) <= {"pred", "s32"}
    assert set(seen["whole"]) <= {f"f64[{MEMBERS}]"}  # a constant for each member


def test_one_device_is_enough():
    systems = jax.vmap(lambda scale: linear_system(scale * jnp.eye(2)))(jnp.array([0.5, 1.0, 2.0]))
    measure = vmap_on_devices(lambda system: lyapunov_spectrum(system, steps=STEPS).exponents)
    expected = jnp.log(jnp.array([[0.5], [1.0], [2.0]])) * jnp.ones((1, 2))
    assert jnp.max(jnp.abs(measure(shard_ensemble(systems)) - expected)) < 1e-14


def test_worst_number_of_all_is_nan_if_one_is():
    assert jnp.isnan(_worst(jnp.array([1.0, jnp.nan, 2.0])))
    assert _worst(jnp.array([1.0, 3.0, 2.0])) == 3.0


TWICE = jax.devices() * 2


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: shard_ensemble(jnp.ones((3, 2)), TWICE), "a multiple of the 2 devices, got leaves of shapes (3, 2)"),
        (lambda: shard_ensemble((jnp.ones(2), jnp.ones(4))), "one leading axis, a multiple of the 1 devices"),
        (lambda: shard_ensemble(jnp.ones(())), "got leaves of shapes ()"),
        (lambda: shard_ensemble({}), "got leaves of shapes none"),
        (lambda: line_of([], "ensemble"), "devices must hold at least one device, got none"),
        (lambda: first_devices(0), "devices must be between 1 and the 1 devices that jax sees, got 0"),
        (lambda: first_devices(2), "devices must be between 1 and the 1 devices that jax sees, got 2"),
        (lambda: Chunked(3, devices=TWICE).checked(10), "into a multiple of the 2 devices, got 3 chunks of 3 steps"),
        (lambda: Chunked(devices=()).checked(10), "devices must hold at least one device, got none"),
    ],
)
def test_one_sentence(call, says):
    with pytest.raises(ValueError, match=re.escape(says)) as raised:
        call()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("steps", "devices", "length"), [(640, 1, 64), (1000, 1, 64), (1000, 2, 62), (1000, 5, 64)])
def test_default_chunks_suit_the_devices(steps, devices, length):
    method = Chunked(devices=jax.devices() * devices).checked(steps)
    assert method.length == length
    assert steps // length % devices == 0
    assert Chunked().checked(steps).length == (length if devices == 1 else 64)


@pytest.mark.parametrize("devices", [8, 16, 32])
def test_a_default_chunk_is_found_wherever_there_is_one(devices):
    for steps in range(devices, 2400, 3):
        possible = [length for length in range(1, min(64, steps) + 1) if steps // length % devices == 0]
        if possible:
            assert Chunked(devices=jax.devices() * devices).checked(steps).length == max(possible)
