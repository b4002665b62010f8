r"""The mean field of `LSTMCell` (Gilboa et al. 2019, arXiv 1901.08987), its cell state's law exact."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnn_dynamics.theory.gated_mean_field import SMALLEST, GatedMeanField, GateLaw, check_laws, fixed_point
from rnn_dynamics.theory.gaussian_averages import average
from rnn_dynamics.theory.memory_law import MemoryLaw, memory_law, memory_moments

ALL_POWERS = ((0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (0, 2), (2, 2), (0, 4))
SQUARINGS = 40


def lstm_mean_field(input_: GateLaw, forget: GateLaw, candidate: GateLaw, output: GateLaw) -> GatedMeanField:
    r"""Predict what a wide `LSTMCell` with untied weights does.

    .. math:: q = E[o^2]\, E[\tanh^2 c],

    c following the stationary law of :math:`c_t = f_t c_{t-1} + i_t g_t`, see `memory_law`. A small perturbation has
    two parts that grow together, of c and of h. That of c is large where the forget gate was open for long, and there c
    is large too and tanh flat. So both are followed, by :math:`G_t(k) = E[\delta c_t^2 e^{ikc_t}]` and
    :math:`d_t = E[\delta h_t^2]`:

    .. math::
        G_t(k) &= \varphi_w(k) E[f^2 G_{t-1}(fk)] + S(k)\, d_{t-1} \\
        S(k) &= g_f^2 \varphi_w(k) E[f'^2 c^2 e^{ikfc}] + E[(g_i^2 i'^2 g^2 + g_g^2 i^2 g'^2) e^{ikig}]\, E[e^{ikfc}] \\
        d_t &= E[o^2]\, E[\mathrm{sech}^4(c_t)\, \delta c_t^2] + g_o^2 E[o'^2]\, E[\tanh^2 c]\, d_{t-1},

    slopes being those with respect to preactivations. The largest eigenvalue of this map is chi_1. The Jacobian is that
    of the flat state, c and h, N = 2H; its singular values are in `singular_values`. What is assumed is in
    `gated_mean_field`.

    Args:
        input_: law of the preactivation of i.
        forget: of f.
        candidate: of g.
        output: of o.

    Returns:
        The theory, with the preactivation variances of the four gates. Replicas get the same inputs: as long as
        chi_1 <= 1 their correlation ends at 1 with the slope chi_1; above it both are NaN, for they would need the
        joint law of two cell states.

    Raises:
        ValueError: gains or variances that are negative or not finite.
    """
    laws = {"input": input_, "forget": forget, "candidate": candidate, "output": output}
    check_laws(laws)

    def variances(q: Array) -> dict[str, Array]:
        return {gate: law.variance(q) for gate, law in laws.items()}

    def second_moment_after(q: Array) -> Array:
        opened = average(lambda u: jax.nn.sigmoid(u) ** 2, output.variance(q), output.bias_mean)
        return opened * memory_law(laws, variances(q), ((0, 0), (1, 0)), 0).squared_tanh

    q = fixed_point(second_moment_after, 1.0, SMALLEST, 1.0)
    found = variances(q)
    law = memory_law(laws, found, ALL_POWERS, 4)
    step = perturbation(laws, law, found["output"])
    growth = growth_of_perturbations(law, step)
    mean, spread = singular_values(law, step)
    stable = growth <= 1
    return GatedMeanField(
        second_moment=q,
        memory_second_moment=memory_moments(laws, found)[2],
        preactivation_variance=found,
        correlation=jnp.where(stable, 1.0, jnp.nan),
        slope=jnp.where(stable, growth, jnp.nan),
        growth=growth,
        mean_squared_singular_value=mean,
        squared_singular_value_variance=spread,
    )


class Perturbation(NamedTuple):
    """How small perturbations pass through one step, as transforms over the law of the new c.

    Attributes:
        kept: the matrix [n, n] of T(k) -> E[f^2 T(fk)] phi_w(k).
        into_memory: S, of p, the squared gain of c with respect to h, [n].
        memory_gain: of f^2 + p, that with respect to both, [n].
        squared_memory_gain: of (f^2 + p)^2, [n].
        opening: E[o^2], E[o^4], [] each.
        by_output: E[s], E[s^2] and E[o^2 s] for s = g_o^2 o'^2 without tanh^2 c, [] each.
    """

    kept: Array
    into_memory: Array
    memory_gain: Array
    squared_memory_gain: Array
    opening: tuple[Array, Array]
    by_output: tuple[Array, Array, Array]


def perturbation(laws: dict[str, GateLaw], law: MemoryLaw, output_variance: Array) -> Perturbation:
    """Put together what one step does.

    Args:
        laws: of the gates.
        law: of c.
        output_variance: of the output gate's preactivation, [].

    Returns:
        The step.
    """
    by_f, by_i, by_g, by_o = (jnp.asarray(laws[x].gain) ** 2 for x in ("forget", "input", "candidate", "output"))
    kept, w, (plain, _, square, _, fourth) = law.kept, law.written, law.transforms
    arriving, passing = w((0, 0), (0, 0)), kept[0, 0] @ plain
    writing = by_i * w((0, 2), (2, 0)) + by_g * w((2, 0), (0, 2))
    writing_twice = by_i**2 * w((0, 4), (4, 0)) + 2 * by_i * by_g * w((2, 2), (2, 2)) + by_g**2 * w((4, 0), (0, 4))
    forgetting = by_f * (kept[0, 2] @ square)
    keeping = kept[2, 0] @ plain + forgetting
    keeping_twice = kept[4, 0] @ plain + 2 * by_f * (kept[2, 2] @ square) + by_f**2 * (kept[0, 4] @ fourth)

    def output_moments(u: Array) -> Array:
        o, slope = jax.nn.sigmoid(u), jax.nn.sigmoid(u) * jax.nn.sigmoid(-u)
        return jnp.stack([o**2, o**4, slope**2, slope**4, o**2 * slope**2], axis=1)

    o2, o4, slope2, slope4, both = average(output_moments, output_variance, laws["output"].bias_mean)
    return Perturbation(
        kept=arriving[:, None] * kept[2, 0],
        into_memory=arriving * forgetting + passing * writing,
        memory_gain=arriving * keeping + passing * writing,
        squared_memory_gain=arriving * keeping_twice + 2 * keeping * writing + passing * writing_twice,
        opening=(o2, o4),
        by_output=(by_o * slope2, by_o**2 * slope4, by_o * both),
    )


def growth_of_perturbations(law: MemoryLaw, step: Perturbation) -> Array:
    """Return chi_1, the largest eigenvalue of a step, [].

    Positive perturbations stay positive, so that it is real and simple: repeated squaring turns every start towards it.
    """
    sech = jax.vmap(lambda column: law.frequencies.sech_average(column, 4), 1)
    read, source = step.opening[0] * sech(step.kept), step.into_memory
    read_imaginary = step.opening[0] * sech(1j * step.kept)
    last = step.opening[0] * law.frequencies.sech_average(source, 4) + step.by_output[0] * law.squared_tanh
    kept = step.kept
    matrix = jnp.concatenate(
        [
            jnp.concatenate([kept.real, -kept.imag, source.real[:, None]], axis=1),
            jnp.concatenate([kept.imag, kept.real, source.imag[:, None]], axis=1),
            jnp.concatenate([read, read_imaginary, last[None]])[None, :],
        ]
    )

    def squared(_: Array, power: Array) -> Array:
        power = power @ power
        return power / jnp.linalg.norm(power)

    direction = jnp.sum(jax.lax.fori_loop(0, SQUARINGS, squared, matrix / jnp.linalg.norm(matrix)), axis=1)
    return direction @ (matrix @ direction) / (direction @ direction)


def singular_values(law: MemoryLaw, step: Perturbation) -> tuple[Array, Array]:
    r"""Return mean and variance, [] each, of the squared singular values of the Jacobian [2H, 2H].

    With a = f^2 + p, t = o sech^2 c and s = g_o^2 o'^2 tanh^2 c, the unit's own block of J J^T is
    ((a, t a), (t a, t^2 a + s)), and the blocks of two units are Gaussian, of mean square
    (p (1 + t^2) + s) (p' (1 + t'^2) + s') / H.
    """
    ends, (o2, o4), (s, s_squared, opened_s) = law.frequencies, step.opening, step.by_output
    to_output = s * law.squared_tanh
    mean = (ends.at_zero(step.memory_gain) + o2 * ends.sech_average(step.memory_gain, 4) + to_output) / 2
    across = ends.at_zero(step.into_memory) + o2 * ends.sech_average(step.into_memory, 4) + to_output
    fourth_tanh = 2 * law.squared_tanh - 1 + ends.sech_average(law.transforms[0], 4)
    own = ends.at_zero(step.squared_memory_gain)
    own += 2 * o2 * ends.sech_average(step.squared_memory_gain, 4) + o4 * ends.sech_average(step.squared_memory_gain, 8)
    own += 2 * opened_s * (ends.sech_average(step.memory_gain, 4) - ends.sech_average(step.memory_gain, 6))
    own += s_squared * fourth_tanh
    return mean, (own + across**2) / 2 - mean**2
