"""Many devices, of one machine or of several: which of them holds what.

An axis, that of an ensemble or that of the chunks of a run, is cut into as many equal shares as there are devices. Each
device holds and computes its own share. docs/devices.md has an example of each, and says how to start several hosts.
"""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rnn_dynamics.types import Device, PyTree

ENSEMBLE = "ensemble"


def first_devices(count: int | None = None) -> list[Device]:
    """Return the first devices, those of all processes counted one process after the other.

    Args:
        count: how many (default: all).

    Returns:
        The devices, in an order that all processes agree on.

    Raises:
        ValueError: fewer than 1, or more than there are.
    """
    there = jax.devices()
    if count is not None and not 1 <= count <= len(there):
        raise ValueError(f"devices must be between 1 and the {len(there)} devices that jax sees, got {count}")
    return there[:count]


def line_of(devices: Sequence[Device] | None, axis: str) -> Mesh:
    """Line devices up along one axis; shards are moved by the compiler, not declared in types.

    Args:
        devices: at least one (default: all of all processes).
        axis: its name.

    Returns:
        The mesh.

    Raises:
        ValueError: no device.
    """
    devices = first_devices() if devices is None else list(devices)
    if not devices:
        raise ValueError("devices must hold at least one device, got none")
    # Not jax.make_mesh: its axes are explicit by default, and a constant beside a shard is then an error.
    return Mesh(np.asarray(devices), (axis,))


def shard_ensemble(systems: PyTree, devices: Sequence[Device] | None = None) -> PyTree:
    """Spread an ensemble over devices, equal shares of its members on each.

    `jax.jit(jax.vmap(measure))` of what comes out runs on all the devices, each on its own members, but every QR waits
    for all of them; `vmap_on_devices` does not.

    Args:
        systems: a pytree of arrays with a leading axis E: an ensemble of systems, their keys or their inputs. Where
            there are several processes, all of them pass the same.
        devices: D of them, D a divisor of E (default: all of all processes).

    Returns:
        The same arrays, E / D members on each device.

    Raises:
        ValueError: leaves without a common leading axis that is a multiple of D.
    """
    mesh = line_of(devices, ENSEMBLE)
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(systems)]
    if len({shape[:1] for shape in shapes}) != 1 or not shapes[0] or shapes[0][0] % mesh.size:
        raise ValueError(
            f"systems must have one leading axis, a multiple of the {mesh.size} devices, "
            f"got leaves of shapes {', '.join(map(str, dict.fromkeys(shapes))) or 'none'}"
        )
    return jax.device_put(systems, NamedSharding(mesh, PartitionSpec(ENSEMBLE)))


def vmap_on_devices(measure: Callable[..., PyTree], devices: Sequence[Device] | None = None) -> Callable[..., PyTree]:
    """Map a function over an ensemble, each device over its own members and without a word to the others.

    Each device computes what `jax.vmap(measure)` of its members alone does. What a measurement decides once for all
    that it is mapped over, such as which QR will do, it so decides once for each device; `jax.vmap` over a sharded
    ensemble asks all the devices twice at every QR, and may take another that rounds otherwise.

    Args:
        measure: a function of pytrees without the leading axis E.
        devices: D of them, D a divisor of E (default: all of all processes).

    Returns:
        The function of pytrees with a leading axis, such as `shard_ensemble` makes; others are spread by it. It is
        compiled, so keep it. Its results have the leading axis too, and stay where they were computed.

    Raises:
        ValueError: no device.
    """
    mesh, spread = line_of(devices, ENSEMBLE), PartitionSpec(ENSEMBLE)
    # Constants that a measurement starts its loops from do not vary over devices, and what it carries does: unchecked.
    return jax.jit(jax.shard_map(jax.vmap(measure), mesh=mesh, in_specs=spread, out_specs=spread, check_vma=False))
