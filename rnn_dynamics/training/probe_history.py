"""What the probes of a training have told so far."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flax import nnx

from rnn_dynamics.training.probes.probe import Label, Probe

STEP = "step"
"""Name of the updates that were made before a measurement, among a probe's quantities."""

MEMBER = "member"
"""Name of the ensemble's axis."""


class ProbeHistory:
    """Arrays of every probe, stacked over its measurements.

    A measurement of an ensemble has one leading axis more than the labels of its probe name; all of one probe have it,
    or none. What is kept is NumPy's.

    Args:
        probes: whose measurements will come.
        model: one that they were made for, of an ensemble any one; it names what lies along their axes.

    Attributes:
        probes: name -> probe.

    Raises:
        ValueError: two probes of one name, and what a probe's `check` refuses.
    """

    def __init__(self, probes: Sequence[Probe], model: nnx.Module):
        names = [probe.name for probe in probes]
        if len(set(names)) < len(names):
            raise ValueError(f"probes must have names of their own, got {', '.join(names)}")
        for probe in probes:
            probe.check(model)
        self.probes: dict[str, Probe] = dict(zip(names, probes, strict=True))
        self._coordinates = {name: probe.coordinates(model) for name, probe in self.probes.items()}
        self._steps: dict[str, list[int]] = {name: [] for name in names}
        self._rows: dict[str, list[dict[str, np.ndarray]]] = {name: [] for name in names}

    def append(self, step: int, measured: Mapping[str, Mapping[str, Any]]) -> None:
        """Add what some of the probes, or all, measured.

        Args:
            step: updates made before; more than at the last measurement of the same probes.
            measured: name of the probe -> what its `measure` returned, for an ensemble with a leading axis.

        Raises:
            ValueError: an unknown probe, quantities that are not those of its labels, an array of another rank or shape
                than those before, a step that is not after the last.
        """
        for name, quantities in measured.items():
            if name not in self.probes:
                raise ValueError(f"measured must be of the probes {', '.join(self.probes)}, got {name!r}")
            if self._steps[name] and step <= self._steps[name][-1]:
                raise ValueError(f"step must be after {self._steps[name][-1]}, the last of probe {name!r}, got {step}")
            self._check_quantities(name, quantities)
        for name, quantities in measured.items():
            self._steps[name].append(step)
            self._rows[name].append({quantity: np.array(quantities[quantity]) for quantity in self._labels(name)})

    def _check_quantities(self, name: str, quantities: Mapping[str, Any]) -> None:
        labels = self._labels(name)
        if set(quantities) != set(labels):
            raise ValueError(f"probe {name!r} must measure {', '.join(labels)}, got {', '.join(quantities)}")
        extra = {np.ndim(quantities[quantity]) - len(label.dims) for quantity, label in labels.items()}
        if extra not in ({0}, {1}):
            raise ValueError(f"probe {name!r} must measure arrays of its labels' ranks, or one more for an ensemble")
        if self._rows[name]:
            before = {quantity: array.shape for quantity, array in self._rows[name][0].items()}
            shapes = {quantity: np.shape(quantities[quantity]) for quantity in labels}
            if shapes != before:
                raise ValueError(f"probe {name!r} must measure arrays of one shape, {before}, got {shapes}")

    def _labels(self, name: str) -> Mapping[str, Label]:
        return self.probes[name].labels

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return all as plain arrays, for a checkpoint.

        Returns:
            "PROBE/step" -> int64 [n], and "PROBE/QUANTITY" -> [n, ...], of those probes that have measured.
        """
        arrays: dict[str, np.ndarray] = {}
        for name, rows in self._rows.items():
            if rows:
                arrays[f"{name}/{STEP}"] = np.array(self._steps[name], np.int64)
                arrays |= {f"{name}/{quantity}": np.stack([row[quantity] for row in rows]) for quantity in rows[0]}
        return arrays

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take what `to_arrays` returned in the place of all that was measured here.

        Args:
            arrays: of a history of the same probes.

        Raises:
            ValueError: arrays of other probes, or what `append` refuses.
        """
        unknown = {key.partition("/")[0] for key in arrays} - set(self.probes)
        if unknown:
            raise ValueError(f"arrays must be of the probes {', '.join(self.probes)}, got {', '.join(sorted(unknown))}")
        self._steps, self._rows = ({name: [] for name in self.probes} for _ in range(2))
        for name in self.probes:
            own = {key.partition("/")[2]: array for key, array in arrays.items() if key.startswith(f"{name}/")}
            for row, step in enumerate(own.pop(STEP, ())):
                self.append(int(step), {name: {quantity: array[row] for quantity, array in own.items()}})

    def to_dataset(self) -> Any:
        """Return all as labelled arrays, for the store of results.

        Returns:
            An `xarray.Dataset`: of each probe that has measured PROBE_QUANTITY with the axes (PROBE_step, member, ...),
            member for an ensemble alone, and every other axis of its labels as PROBE_AXIS.
        """
        import xarray as xr

        from rnn_dynamics.results import labelled

        variables: dict[str, Any] = {}
        for key, array in self.to_arrays().items():
            name, _, quantity = key.partition("/")
            step = f"{name}_{STEP}"
            if quantity == STEP:
                variables[step] = labelled(step, array, "updates", "updates made before the measurement")
                for dim, place in self._coordinates[name].items():
                    dim = f"{name}_{dim}"
                    variables[dim] = labelled(dim, list(place.values), place.units, place.description)
                continue
            label = self._labels(name)[quantity]
            dims = tuple(f"{name}_{dim}" for dim in label.dims)
            ensemble = (MEMBER,) * (array.ndim - 1 - len(dims))
            variables[f"{name}_{quantity}"] = labelled((step, *ensemble, *dims), array, label.units, label.description)
        return xr.Dataset(variables)
