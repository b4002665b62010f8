"""Measures an ensemble that is spread over the devices of all processes; the first writes `argv[1]`."""

import sys
from functools import partial

import jax
import numpy as np
from jax.experimental.multihost_utils import process_allgather

from rnn_dynamics.devices import shard_ensemble, vmap_on_devices
from rnn_dynamics.dynamics import Chunked, lyapunov_spectrum

if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    jax.distributed.initialize()
    from eight_devices import ensemble  # draws random weights, which starts jax
    from networks import noise

    systems, inputs = ensemble(), np.asarray(noise(40))
    sharded = shard_ensemble(systems)
    shares = [len(shard.data) for shard in sharded.initial_state.addressable_shards]
    assert shares == [len(systems.initial_state) // jax.device_count()] * jax.local_device_count()
    spectra = vmap_on_devices(partial(lyapunov_spectrum, inputs=inputs, k=2))(sharded)
    ensemble_growth = process_allgather(spectra.growth, tiled=True)
    method = Chunked(5, devices=tuple(jax.devices()))
    one = jax.tree.map(lambda leaf: np.asarray(leaf[-1]), systems)
    chunked = lyapunov_spectrum(one, inputs, k=2, method=method)
    chunked_growth = process_allgather(chunked.growth, tiled=True)
    if jax.process_index() == 0:
        np.savez(sys.argv[1], ensemble=ensemble_growth, chunked=chunked_growth)
