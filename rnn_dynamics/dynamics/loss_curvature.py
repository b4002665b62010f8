"""The shape of a loss around its parameters: extreme curvatures, and slices through it."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree
from jaxtyping import Float

from rnn_dynamics.arguments import whole_number
from rnn_dynamics.types import PyTree

LossOfParams = Callable[[PyTree], Array]
"""`loss(params) -> scalar`. A function is compiled in by its identity: define it once. With data that change, give
`jax.tree_util.Partial(function, data)`, whose data are not: it calls `function(data, params)`."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LossCurvature:
    """Extreme eigenvalues of a loss's Hessian, in units of loss per squared unit of parameter.

    Attributes:
        largest: [K], largest first.
        smallest: [K], smallest (most negative) first.
        largest_error: [K], residual ||H v - value v|| of the unit vector v below: some eigenvalue of H lies so near.
        smallest_error: [K], the same for `smallest`.
        largest_directions: like the parameters, with a leading axis [K]: unit vectors over all leaves together.
        smallest_directions: the same for `smallest`.
    """

    largest: Float[Array, "*E K"]
    smallest: Float[Array, "*E K"]
    largest_error: Float[Array, "*E K"]
    smallest_error: Float[Array, "*E K"]
    largest_directions: PyTree
    smallest_directions: PyTree


def loss_curvature(
    loss: LossOfParams, params: PyTree, *, k: int = 1, iterations: int = 64, key: Array | None = None
) -> LossCurvature:
    r"""Measure the k largest and the k smallest eigenvalues of the Hessian of a loss.

    .. math:: H = \frac{\partial^2 L}{\partial \theta \, \partial \theta^T}

    Algorithm: Lanczos (J. Res. Natl. Bur. Stand. 45, 1950) from a random vector, every new one orthogonalised twice
    against all before it, so that no eigenvalue comes twice by rounding. The Hessian is seen through its products with
    vectors alone, forward-mode through the gradient (Pearlmutter 1994), for a recurrent network through time; the
    gradient is linearised once for all of them. The residual of each value is measured with one product more.

    An error that is small against its value means an eigenvalue, which in practice is the extreme one: Lanczos finds
    the ends of the spectrum first. With fewer than P iterations multiple eigenvalues are found once, as one start has
    one component in their space. A Hessian that is not finite gives NaN.

    Cost: `iterations` + 2 k products, each some two to four gradients, and 16 P `iterations`^2 flops. Memory: P
    `iterations` numbers, and what linearising the gradient keeps, some three times what the gradient itself keeps.

    Args:
        loss: params -> scalar, twice differentiable where it is looked at.
        params: pytree of floating point arrays with P numbers in all.
        k: how many eigenvalues at each end, 1 ... P.
        iterations: Lanczos vectors, at least k; P of them at most are made, and then all eigenvalues are exact.
        key: of the random start (default: `jax.random.key(0)`).

    Returns:
        Eigenvalues with their errors and directions.

    Raises:
        ValueError: parameters that are not floating point, k < 1 or above P, fewer iterations than k, a loss that is
            not a scalar.
    """
    size = _check(loss, params)
    k = whole_number("k", k, least=1)
    if k > size:
        raise ValueError(f"k must be between 1 and the number of parameters {size}, got {k}")
    iterations = whole_number("iterations", iterations, least=1)
    if iterations < k:
        raise ValueError(f"iterations must be at least k = {k}, got {iterations}")
    key = jax.random.key(0) if key is None else key
    return _curvature(_as_pytree(loss), params, key, k, min(iterations, size))


@partial(jax.jit, static_argnames=("k", "iterations"))
def _curvature(loss: Any, params: PyTree, key: Array, k: int, iterations: int) -> LossCurvature:
    flat, unravel = ravel_pytree(params)
    _, times_hessian = jax.linearize(jax.grad(lambda flat: loss(unravel(flat))), flat)
    values, basis = _lanczos(times_hessian, jax.random.normal(key, (iterations + 1, flat.size), flat.dtype))

    def residual(value: Array, vector: Array) -> Array:
        return jnp.linalg.norm(times_hessian(vector) - value * vector)

    chosen = jnp.concatenate([jnp.arange(iterations)[::-1][:k], jnp.arange(k)])  # ascending values
    values, vectors = values[chosen], basis[chosen]
    errors = jax.lax.map(lambda pair: residual(*pair), (values, vectors))
    directions = jax.vmap(unravel)(vectors)
    return LossCurvature(
        largest=values[:k],
        smallest=values[k:],
        largest_error=errors[:k],
        smallest_error=errors[k:],
        largest_directions=jax.tree.map(lambda leaf: leaf[:k], directions),
        smallest_directions=jax.tree.map(lambda leaf: leaf[k:], directions),
    )


class _Krylov(NamedTuple):
    """Where the iteration stands: basis [m, P] with zeros in rows to come, and the tridiagonal matrix's entries [m]."""

    basis: Array
    diagonal: Array
    beside: Array


def _lanczos(times: Callable[[Array], Array], randoms: Array) -> tuple[Array, Array]:
    """Approximate the eigenpairs of a symmetric matrix within a Krylov space.

    Args:
        times: vector [P] -> matrix times vector.
        randoms: [m+1, P], the start and a fresh vector for every step at which the space is exhausted.

    Returns:
        Ritz values [m], ascending, and unit Ritz vectors [m, P].
    """
    iterations, dtype = len(randoms) - 1, randoms.dtype

    def normalised_against(basis: Array, vector: Array) -> tuple[Array, Array]:
        for _ in range(2):  # twice is enough (Parlett, The Symmetric Eigenvalue Problem, 6.9)
            vector = vector - basis.T @ (basis @ vector)
        length = jnp.linalg.norm(vector)
        return vector / jnp.where(length > 0, length, 1.0), length

    def iterate(number: Array, krylov: _Krylov) -> _Krylov:
        vector = krylov.basis[number]
        image = times(vector)
        diagonal = krylov.diagonal.at[number].set(vector @ image)
        following, length = normalised_against(krylov.basis, image)
        # What is left of the image is rounding: the space is closed under the matrix, and another one begins.
        exhausted = length <= iterations * jnp.finfo(dtype).eps * jnp.linalg.norm(image)
        fresh, _ = normalised_against(krylov.basis, randoms[number + 1])
        following, length = jnp.where(exhausted, fresh, following), jnp.where(exhausted, 0.0, length)
        basis = krylov.basis.at[number + 1].set(following, mode="drop")
        return _Krylov(basis, diagonal, krylov.beside.at[number].set(length))

    start = jnp.zeros_like(randoms[1:]).at[0].set(randoms[0] / jnp.linalg.norm(randoms[0]))
    zeros = jnp.zeros(iterations, dtype)
    basis, diagonal, beside = jax.lax.fori_loop(0, iterations, iterate, _Krylov(start, zeros, zeros))
    matrix = jnp.diag(diagonal) + jnp.diag(beside[:-1], 1) + jnp.diag(beside[:-1], -1)
    values, rotation = jnp.linalg.eigh(matrix)
    return values, rotation.T @ basis


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LossSlice:
    """A loss on a line or a plane through its parameters.

    Attributes:
        offsets: for each of the D = 1 or 2 directions [S_d], how many times it is added.
        loss: [S_1] or [S_1, S_2].
        slope: [D, S_1] or [D, S_1, S_2], derivative of the loss by each offset.
    """

    offsets: tuple[Array, ...]
    loss: Float[Array, "..."]
    slope: Float[Array, "D ..."]


def loss_slice(loss: LossOfParams, params: PyTree, directions: Sequence[PyTree], extents: Sequence[Array]) -> LossSlice:
    r"""Evaluate a loss and its slopes on a line or a plane through its parameters.

    .. math:: L(\theta + a\,u), \qquad L(\theta + a\,u + b\,v)

    A recurrent network's loss has cliffs: flat ground and walls, where the growth of its Jacobians' products is large
    (Pascanu, Mikolov and Bengio 2013, section 2.3). Slopes, the derivatives proper, show them between the points too.

    Algorithm: the points one by one, each with one forward-mode derivative for each direction.

    Cost: 1 + D losses for each point, in about as many times the memory of one loss.

    Args:
        loss: params -> scalar.
        params: pytree of floating point arrays, theta.
        directions: one or two pytrees like the parameters, u and v, of any length.
        extents: for each direction the offsets [S] to look at, in units of its length.

    Returns:
        Loss and slopes at the grid of all offsets.

    Raises:
        ValueError: parameters that are not floating point, directions of another number than one or two or unlike the
            parameters, extents that do not fit them, a loss that is not a scalar.
    """
    _check(loss, params)
    if len(directions) not in (1, 2) or len(extents) != len(directions):
        raise ValueError(
            f"directions must be one or two, with extents for each, got {len(directions)} and {len(extents)} extents"
        )
    shapes = jax.tree.structure(params), [jnp.shape(leaf) for leaf in jax.tree.leaves(params)]
    for direction in directions:
        came = jax.tree.structure(direction), [jnp.shape(leaf) for leaf in jax.tree.leaves(direction)]
        if came != shapes:
            raise ValueError(f"directions must be like the parameters, {shapes}, got {came}")
    offsets = tuple(jnp.asarray(extent) for extent in extents)
    if any(extent.ndim != 1 or extent.size == 0 for extent in offsets):
        raise ValueError(f"extents must be offsets [S] for each direction, got shapes {[e.shape for e in offsets]}")
    return _slice(_as_pytree(loss), params, tuple(directions), offsets)


@jax.jit
def _slice(loss: Any, params: PyTree, directions: tuple[PyTree, ...], offsets: tuple[Array, ...]) -> LossSlice:
    flat, unravel = ravel_pytree(params)
    axes = jnp.stack([ravel_pytree(direction)[0].astype(flat.dtype) for direction in directions])

    def at(point: Array) -> tuple[Array, Array]:
        value, push = jax.linearize(lambda point: loss(unravel(flat + point @ axes)), point)
        return value, jax.vmap(push)(jnp.eye(len(axes), dtype=flat.dtype))

    offsets = tuple(extent.astype(flat.dtype) for extent in offsets)
    grid = jnp.stack(jnp.meshgrid(*offsets, indexing="ij"), axis=-1)
    values, slopes = jax.lax.map(at, grid.reshape(-1, len(axes)))
    shape = grid.shape[:-1]
    return LossSlice(offsets, values.reshape(shape), slopes.T.reshape(len(axes), *shape))


def _as_pytree(loss: LossOfParams) -> Any:
    return loss if isinstance(loss, jax.tree_util.Partial) else jax.tree_util.Partial(loss)


def _check(loss: LossOfParams, params: PyTree) -> int:
    """Count the parameters of a loss.

    Raises:
        ValueError: parameters that are not floating point, a loss that is not a scalar.
    """
    dtypes = {jnp.result_type(leaf) for leaf in jax.tree.leaves(params)}
    if not dtypes or not all(jnp.issubdtype(dtype, jnp.floating) for dtype in dtypes):
        raise ValueError(f"params must hold floating point arrays alone, got {sorted(map(str, dtypes)) or 'none'}")
    shape = jax.eval_shape(loss, params).shape
    if shape != ():
        raise ValueError(f"loss must return a scalar, got shape {shape}")
    return sum(jnp.size(leaf) for leaf in jax.tree.leaves(params))
