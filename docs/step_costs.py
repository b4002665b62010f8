"""What one step of a cell costs, counted on the program that it is traced to; nothing is compiled or run."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from rnn_dynamics.cells.base import Cell

MOVES = {
    *("broadcast_in_dim", "concatenate", "convert_element_type", "copy", "dynamic_slice", "expand_dims", "gather"),
    *("iota", "pad", "reshape", "rev", "slice", "split", "squeeze", "stop_gradient", "transpose"),
    *("complex", "imag", "real"),
}
"""Primitives that compute nothing."""

SIZES = ((1, 2), (2, 4), (3, 4), (5, 6), (64, 128))
"""F and H at which polynomials of four terms are read off: one more, which tells whether they are polynomials."""


@dataclasses.dataclass
class Cost:
    """What one step of one sequence takes.

    Attributes:
        matmul_flops: 2 for each product of two numbers in a matmul.
        elementwise: results of pointwise functions, tanh one as an addition is one; numbers that a sum runs over.
        matmuls_in_a_row: matmuls on the longest way from the old carry to the new one.
    """

    matmul_flops: int = 0
    elementwise: int = 0
    matmuls_in_a_row: int = 0


@dataclasses.dataclass(frozen=True)
class CellSize:
    """A cell's sizes and costs at one F and H, in float32.

    Attributes:
        state: N, real numbers.
        carry_bytes: of the carry of one sequence.
        parameters: trained numbers.
        of_inputs: `project`, which may be done for all steps at once.
        of_state: `advance`, step by step, the output included.
    """

    state: int
    carry_bytes: int
    parameters: int
    of_inputs: Cost
    of_state: Cost


def cell_size(cell: type[Cell], in_features: int, hidden_features: int) -> CellSize:
    """Trace one step of a cell as it is by default, and count.

    Args:
        cell: the class.
        in_features: F.
        hidden_features: H.

    Returns:
        Sizes and costs.
    """
    made = nnx.eval_shape(lambda: cell(in_features, hidden_features, rngs=nnx.Rngs(0)))  # pyright: ignore[reportCallIssue]
    inputs = jax.ShapeDtypeStruct((in_features,), jnp.float32)
    carry = jax.eval_shape(lambda: made.initialize_carry((in_features,)))
    project, drive = _traced(made, lambda cell, inputs: cell.project(inputs), inputs)
    advance, _ = _traced(made, lambda cell, *state: cell.advance(*state), carry, drive)
    leaves = jax.tree.leaves(carry)
    return CellSize(
        state=sum(leaf.size * (2 if jnp.iscomplexobj(leaf) else 1) for leaf in leaves),
        carry_bytes=sum(leaf.size * leaf.dtype.itemsize for leaf in leaves),
        parameters=sum(leaf.size for leaf in jax.tree.leaves(nnx.state(made, nnx.Param))),
        of_inputs=_cost(project, jax.tree.leaves(inputs), 1),
        of_state=_cost(advance, jax.tree.leaves((carry, drive)), len(leaves)),
    )


def polynomial(values: Sequence[int]) -> str:
    """Read a polynomial of the terms FH, H², H and 1 off its values at `SIZES`: "4FH + 4H² + 4H".

    Args:
        values: at each of the sizes.

    Returns:
        The polynomial, "0" where it is none.

    Raises:
        ValueError: values of no such polynomial with whole coefficients.
    """
    features, hidden = np.transpose(SIZES)
    terms = np.stack([features * hidden, hidden**2, hidden, np.ones_like(hidden)], axis=1)
    coefficients = np.round(np.linalg.lstsq(terms, np.asarray(values, float))[0]).astype(int)
    if np.any(terms @ coefficients != values):
        raise ValueError(f"values must be those of a polynomial in F and H at {SIZES}, got {values}")
    written = [
        f"{abs(n) if abs(n) != 1 or not name else ''}{name}"
        for n, name in zip(coefficients, ("FH", "H²", "H", ""), strict=True)
        if n
    ]
    signs = ["-" if n < 0 else "+" for n in coefficients if n]
    text = " ".join(f"{sign} {term}" for sign, term in zip(signs, written, strict=True))
    return text.removeprefix("+ ") or "0"


def _traced(made: Cell, function: Callable[..., Any], *arguments: Any) -> tuple[ClosedJaxpr, Any]:
    """Trace a function of a cell: the program, whose inputs are the arguments and then the cell's, and its output."""
    graph, variables = nnx.split(made)

    def split(arguments: Sequence[Any], variables: Any) -> Any:
        return function(nnx.merge(graph, variables), *arguments)

    return jax.make_jaxpr(split, return_shape=True)(arguments, variables)


def _cost(program: ClosedJaxpr, live: Sequence[Any], results: int) -> Cost:
    """Count what a program does with its first inputs, the live ones, and on the longest way to its first results.

    What depends on parameters alone, such as a rotation made from a skew matrix, is done once, ahead of a scan.
    """
    cost = Cost()
    rest = len(program.jaxpr.invars) - len(live)
    after = _walk(program.jaxpr, [*[0] * len(live), *[None] * rest], cost)
    cost.matmuls_in_a_row = max(depth or 0 for depth in after[:results])
    return cost


def _walk(jaxpr: Jaxpr, depths: Sequence[int | None], cost: Cost) -> list[int | None]:
    """Add up what is done with live values.

    Args:
        jaxpr: the program.
        depths: for each of its inputs the matmuls on the longest way there, or None for what is not live.
        cost: to be added to.

    Returns:
        The depth of each output.

    Raises:
        ValueError: a loop or a branch, or a call that is not understood.
    """
    depth_of: dict[Any, int | None] = dict(zip(jaxpr.invars, depths, strict=True))

    def depth(variable: Any) -> int | None:
        return None if isinstance(variable, Literal) else depth_of.get(variable)

    for equation in jaxpr.eqns:
        name = equation.primitive.name
        before = [depth(variable) for variable in equation.invars]
        reached = max((d for d in before if d is not None), default=None)
        after = [reached] * len(equation.outvars)
        called = list(_called(equation.params))
        if reached is None:
            pass
        elif called:
            if len(called) > 1 or len(called[0].invars) != len(before) or name in {"scan", "while", "cond"}:
                raise ValueError(f"a step must be made of plain operations and calls to be counted, got {name}")
            after = _walk(called[0], before, cost)
        elif name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            terms = math.prod(_array(equation.invars[0]).shape[axis] for axis in contracted)
            cost.matmul_flops += 2 * _array(equation.outvars[0]).size * terms
            after = [reached + 1]
        elif name not in MOVES:
            counted = _array(equation.invars[0] if name.startswith("reduce_") else equation.outvars[0])
            cost.elementwise += counted.size * _operations(name, counted.dtype)
        depth_of |= dict(zip(equation.outvars, after, strict=True))
    return [depth(variable) for variable in jaxpr.outvars]


def _array(variable: Any) -> Any:
    """Return shape, size and dtype of a value."""
    return variable.aval


def _operations(name: str, dtype: Any) -> int:
    """Return how many operations on real numbers one result takes."""
    if not jnp.issubdtype(dtype, jnp.complexfloating):
        return 1
    return 6 if name == "mul" else 2


def _called(params: dict[str, Any]) -> Iterator[Jaxpr]:
    for value in params.values():
        for item in value if isinstance(value, (tuple, list)) else [value]:
            if isinstance(item, ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, Jaxpr):
                yield item
