"""Every initialiser of recurrent kernels keeps what it says of each block, under vmap over gains and keys too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnn_dynamics.cells.initializers import (
    RECURRENT_INITIALIZERS,
    ginibre,
    identity,
    positive_definite,
    sparse,
    spectral_radius,
)

pytestmark = pytest.mark.usefixtures("strict_dtypes")

SIZE, GAIN, NONZEROS = 40, 1.5, 15


def has_variance(factor):
    """Variance factor * gain^2 / H; the relative error of 1600 squares is sqrt(2/1600) = 3.5 %."""

    def check(block):
        assert np.var(block) * SIZE == pytest.approx(factor * GAIN**2, rel=0.15)

    return check


def has_radius(block):
    assert np.max(np.abs(np.linalg.eigvals(block))) == pytest.approx(GAIN, rel=1e-12)


def is_sparse(block):
    assert np.count_nonzero(block, axis=0).tolist() == [NONZEROS] * SIZE
    assert len(set(np.count_nonzero(block, axis=1))) > 1  # out-degrees are left to chance
    has_radius(block)


def is_orthogonal(block):
    np.testing.assert_allclose(block @ block.T, GAIN**2 * np.eye(SIZE), rtol=0, atol=1e-12)


def is_identity(block):
    np.testing.assert_array_equal(block, GAIN * np.eye(SIZE))


def is_positive_definite(block):
    """A = R'R/H has least eigenvalue ~ 1/H^2 and mean 1 +- sqrt(2)/H, so A + I has their ratio 1/2 +- 2 %."""
    np.testing.assert_allclose(block, block.T, rtol=0, atol=1e-14)
    eigenvalues = np.linalg.eigvalsh(block)
    assert eigenvalues[-1] == pytest.approx(GAIN, rel=1e-13)
    assert eigenvalues[0] / np.mean(eigenvalues) == pytest.approx(0.5, abs=0.04)


KEEPS = {
    "gaussian": has_variance(1),
    "he": has_variance(2),
    "glorot": has_variance(1),
    "ginibre": has_radius,
    "sparse": is_sparse,
    "orthogonal": is_orthogonal,
    "identity": is_identity,
    "positive_definite": is_positive_definite,
}


@pytest.mark.parametrize("name", RECURRENT_INITIALIZERS)
def test_every_block_is_what_its_initialiser_says(name):
    """Three draws by one vmap: a key at one gain and at twice that gain, and another key."""

    @jax.jit
    @jax.vmap
    def draw(gain, seed):
        return RECURRENT_INITIALIZERS[name](gain)(jax.random.key(seed), (SIZE, 2 * SIZE), jnp.float64)

    once, twice, other = np.asarray(draw(jnp.array([GAIN, 2 * GAIN, GAIN]), jnp.array([0, 0, 1])))
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-15)
    blocks = [*np.split(once, 2, axis=1), *np.split(other, 2, axis=1)]
    for number, block in enumerate(blocks):
        KEEPS[name](block)
        assert name == "identity" or not any(np.allclose(block, another) for another in blocks[:number])


def test_low_precision_is_drawn_in_single_and_then_rounded():
    key, shape = jax.random.key(0), (4, 8)
    for initializer in RECURRENT_INITIALIZERS.values():
        assert jax.eval_shape(lambda key, i=initializer: i(1.5)(key, shape, jnp.bfloat16), key).dtype == jnp.bfloat16
    rounded, single = [RECURRENT_INITIALIZERS["orthogonal"](1.5)(key, shape, t) for t in (jnp.bfloat16, jnp.float32)]
    np.testing.assert_array_equal(rounded, single.astype(jnp.bfloat16))


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float64, 1e-14), (jnp.float32, 1e-6)])
def test_spectral_radius_where_powers_are_slow(dtype, tolerance):
    """Equal, defective, rotating and nearly equal eigenvalues, all at 0.7; powers that fall far; a nilpotent matrix."""
    turn = [[0.6, -0.8], [0.8, 0.6]]
    for matrix, radius in [
        ([[0.7, 1.0], [0.0, 0.7]], 0.7),
        (0.7 * np.array(turn), 0.7),
        ([[0.7, 0.0], [0.0, -0.7]], 0.7),
        ([[0.7, 0.0], [0.0, 0.7 * (1 - 1e-9)]], 0.7),
        ([[1e-15, 1.0], [0.0, 1e-15]], 1e-15),
        ([[0.0, 1.0], [0.0, 0.0]], 0.0),
    ]:
        assert float(spectral_radius(jnp.asarray(matrix, dtype))) == pytest.approx(radius, rel=tolerance)


def test_bad_input_gets_one_sentence():
    for initializer in (ginibre(), sparse(), identity(), positive_definite()):
        with pytest.raises(ValueError, match=r"shape must be \[H, n\*H\] for this initialiser.*got \(3, 8\)"):
            jax.eval_shape(lambda key, i=initializer: i(key, (3, 8)), jax.random.key(0))
    with pytest.raises(ValueError, match="nonzeros must be >= 1, got 0"):
        sparse(nonzeros=0)
