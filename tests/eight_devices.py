"""Measures on eight simulated devices, and says what it saw as JSON: `python eight_devices.py PART ...`.

The shapes in a compiled program are those on one device, so a shape that is not in it is held by no device.
"""

import json
import os
import re
import sys
from functools import partial

if __name__ == "__main__":
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import jax
import jax.numpy as jnp
import numpy as np
from networks import elman, noise

from rnn_dynamics.devices import first_devices, line_of, shard_ensemble, vmap_on_devices
from rnn_dynamics.dynamics import Chunked, DrivenSystem, lyapunov_spectrum

MEMBERS, STEPS, UNITS = 24, 30, 6
"""No other size in a program is 24."""
CHUNKS, CHUNK = 24, 10


def ensemble():
    systems = [DrivenSystem.from_cell(elman(UNITS, gain=0.5 + 0.1 * seed, seed=seed)) for seed in range(MEMBERS)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *systems)


def differences(ours, theirs):
    """Largest absolute difference of each field; NaN equals NaN."""
    fields = {}
    for name, value in vars(ours).items():
        a, b = np.asarray(value), np.asarray(getattr(theirs, name))
        fields[name] = float(np.max(np.where(np.isnan(a) & np.isnan(b) | (a == b), 0, np.abs(a - b)), initial=0))
    return fields


def seen(program, whole, result):
    """What a compiled program does: its collectives, floats with an axis as long as the whole, its results' shards."""
    text = program.as_text()
    return {
        "collectives": sorted(set(re.findall(r" (all-\w+|collective-\w+|reduce-scatter)(?:-start)?\(", text))),
        "reduced": sorted(set(re.findall(r"= \(?(\w+)\[.*all-reduce", text))),
        "whole": sorted(set(re.findall(rf"f64\[(?:\d+,)*(?:{'|'.join(map(str, whole))})(?:,\d+)*\]", text))),
        "devices": len(result.growth.sharding.device_set),
        "shards": sorted({shard.data.shape for shard in result.growth.addressable_shards}),
        "size": result.growth.shape,
    }


def spread_ensemble():
    measure = partial(lyapunov_spectrum, inputs=noise(STEPS), k=3)
    systems = ensemble()
    sharded = shard_ensemble(systems)
    program = vmap_on_devices(measure).lower(sharded).compile()
    result = program(sharded)
    one_share, share = jax.jit(jax.vmap(measure)), MEMBERS // jax.device_count()
    shares = [
        one_share(jax.tree.map(lambda leaf, first=first: leaf[first : first + share], systems))
        for first in range(0, MEMBERS, share)
    ]
    joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *shares)
    inputs = sorted({shard.data.shape for leaf in jax.tree.leaves(sharded) for shard in leaf.addressable_shards})
    return {**seen(program, [MEMBERS], result), "inputs": inputs, "differences": differences(result, joined)}


def partitioned_ensemble():
    measure = jax.jit(jax.vmap(partial(lyapunov_spectrum, inputs=noise(STEPS), k=3)))
    systems = ensemble()
    sharded = shard_ensemble(systems)
    program = measure.lower(sharded).compile()
    result = program(sharded)
    return {**seen(program, [MEMBERS], result), "differences": differences(result, measure(systems))}


def spread_chunks(transient, rest):
    everywhere = tuple(first_devices())
    system = DrivenSystem.from_cell(elman(UNITS, features=2))
    inputs = np.asarray(noise(transient + CHUNKS * CHUNK + rest, 2))
    options = {"k": 3, "transient": transient // 2, "tangent_transient": transient - transient // 2}
    ways = {devices: Chunked(CHUNK, devices=devices) for devices in (None, everywhere)}
    expected = lyapunov_spectrum(system, inputs, method=ways[None], **options)
    along_time = jax.sharding.NamedSharding(line_of(everywhere, "time"), jax.sharding.PartitionSpec("time"))
    own_inputs = jax.device_put(inputs, along_time)
    measure = jax.jit(partial(lyapunov_spectrum, method=ways[everywhere], **options))
    program = measure.lower(system, own_inputs).compile()
    result = program(system, own_inputs)
    report = seen(program, [CHUNKS, CHUNKS * CHUNK, len(inputs)], result)
    return {**report, "sweeps": int(result.sweeps), "differences": differences(result, expected)}


WHAT = {
    "ensemble": spread_ensemble,
    "chunks": partial(spread_chunks, 0, 0),
    "partitioned": partitioned_ensemble,
    "chunks and more": partial(spread_chunks, 16, 8),
}

if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    print(json.dumps({name: WHAT[name]() for name in sys.argv[1:]}))
