"""What Jacobians do before training: exponents of every cell, and the spectra of initial weights and gate biases."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from rnn_dynamics.cells.base import Cell
from rnn_dynamics.dynamics import DrivenSystem, lyapunov_spectrum

SEEDS = 8
"""Networks, each with inputs of its own."""

HIDDEN = 32
"""H, and F."""

TRANSIENT, TANGENT_TRANSIENT, STEPS = 100, 200, 500
"""Steps from the zero state until tangents are followed; until their growth counts; of which it is the mean."""

WIDTH = 128
"""H of the matrices."""

RESOLVED = 1e-6
"""Nats per step that exponents and determinants may differ by."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """A number with the standard error over seeds."""

    value: float
    standard_error: float

    @classmethod
    def of(cls, samples: Any) -> "Measured":
        """Take the mean over seeds; the error is 0 where all are infinite."""
        samples = np.asarray(samples, float)
        if np.any(np.isneginf(samples)):
            return cls(-np.inf, 0.0)
        return cls(float(np.mean(samples)), float(np.std(samples, ddof=1) / np.sqrt(len(samples))))


@dataclasses.dataclass(frozen=True)
class Exponents:
    """Of a cell's networks, nats per step; -inf if it is so in one of them.

    Attributes:
        largest: the leading one.
        mean: of all N, which is that of ln|det J| / N; NaN where the two disagree.
    """

    largest: Measured
    mean: Measured


def exponents_at_start(cells: Iterable[type[Cell]]) -> dict[str, Exponents]:
    """Measure Lyapunov spectra of cells as they are by default, driven by independent normal inputs of variance 1.

    Cells whose states are of one size are measured by one program that is told which of them it is, for compiling
    takes the time.

    Args:
        cells: the classes.

    Returns:
        Name of the cell -> exponents.
    """
    drawn = {cell: [_system(cell, seed) for seed in range(SEEDS)] for cell in cells}
    found: dict[str, Exponents] = {}
    for size in sorted({systems[0].state_size for systems in drawn.values()}):
        group = {cell: systems for cell, systems in drawn.items() if systems[0].state_size == size}
        for number, cell in enumerate(group):
            spectra = [
                _spectrum(jnp.asarray(number), [systems[seed] for systems in group.values()], seed)
                for seed in range(SEEDS)
            ]
            exponents = np.stack([spectrum.exponents for spectrum in spectra])
            residual = np.max([spectrum.log_det_residual for spectrum in spectra])
            found[cell.__name__] = Exponents(
                Measured.of(exponents[:, 0]),
                Measured.of(np.mean(exponents, axis=1) if residual < RESOLVED else np.full(SEEDS, np.nan)),
            )
    return found


def _system(cell: type[Cell], seed: int) -> DrivenSystem:
    options: dict[str, Any] = {"param_dtype": jnp.float64, "rngs": nnx.Rngs(seed)}
    return DrivenSystem.from_cell(cell(HIDDEN, HIDDEN, **options))


def _one_of(params: Any, state: Array, inputs_t: Array) -> Array:
    number, systems = params
    return jax.lax.switch(number, [system.step for system in systems], state, inputs_t)


def _spectrum(number: Array, systems: Sequence[DrivenSystem], seed: int) -> Any:
    system = DrivenSystem.from_step(_one_of, (number, systems), systems[0].initial_state)
    inputs = jax.random.normal(jax.random.key(seed), (TRANSIENT + TANGENT_TRANSIENT + STEPS, HIDDEN), jnp.float64)
    return lyapunov_spectrum(system, inputs, transient=TRANSIENT, tangent_transient=TANGENT_TRANSIENT)


@dataclasses.dataclass(frozen=True)
class MatrixSpectrum:
    """Of a square matrix: what one step does, and what many do.

    Attributes:
        radius: largest modulus of an eigenvalue.
        norm: largest singular value.
        mean_log: mean logarithm of the singular values, nats, which is that of the eigenvalues' moduli.
    """

    radius: Measured
    norm: Measured
    mean_log: Measured


def matrix_spectrum(draw: Callable[[Array], Array]) -> MatrixSpectrum:
    """Draw matrices [H, H] and decompose them.

    Args:
        draw: from a key.

    Returns:
        Their spectra.
    """
    matrices = [np.asarray(draw(jax.random.key(seed))) for seed in range(SEEDS)]
    singular = np.linalg.svd(matrices, compute_uv=False)
    return MatrixSpectrum(
        Measured.of(np.max(np.abs(np.linalg.eigvals(matrices)), axis=1)),
        Measured.of(singular[:, 0]),
        Measured.of(np.mean(np.log(singular), axis=1)),
    )
