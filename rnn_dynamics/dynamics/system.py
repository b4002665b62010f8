"""Any recurrent network, seen as a driven dynamical system with a flat state. The one file that knows frameworks."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.core import Tracer

from rnn_dynamics.dynamics.carry_layout import CarryLayout
from rnn_dynamics.dynamics.closed_loops import ClosedStep, Feedback, LoopParams
from rnn_dynamics.dynamics.integrators import INTEGRATORS, OdeParams, OdeStep
from rnn_dynamics.types import Carry, Evaluable, NamedGates, PyTree, StepFunction


@dataclasses.dataclass(frozen=True)
class CellStep:
    """The step of an nnx cell as a pure function of its parameters; equal for cells of equal configuration."""

    graph: Any

    def cell(self, params: PyTree) -> nnx.RNNCellBase:
        """Return the cell with these parameters."""
        return nnx.merge(self.graph, params)

    def __call__(self, params: PyTree, carry: Carry, inputs: Array) -> Carry:
        """Make one step and drop the output."""
        return self.cell(params)(carry, inputs)[0]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DrivenSystem:
    r"""A recurrent network as the map :math:`s_t = F_\theta(s_{t-1}, x_t)` on a flat state of size N.

    It is a pytree whose leaves are the parameters and the initial state, so an ensemble is a system whose leaves have a
    leading axis E, and `jax.vmap`, `jax.jit` and `jax.grad` go through it. Make one with `from_cell`, `from_step` or
    `from_ode`; `closed_loop` feeds a network its own output. docs/any_network.md has an example of each.

    Attributes:
        params: pytree of arrays, theta.
        initial_state: [N], s_0.
        layout: where the carry's arrays lie in the state (static).
        step_function: (params, carry, inputs_t) -> carry (static).
        in_features: F, or None where it is not known (static).
    """

    params: PyTree
    initial_state: Array
    layout: CarryLayout = dataclasses.field(metadata={"static": True})
    step_function: StepFunction = dataclasses.field(metadata={"static": True})
    in_features: int | None = dataclasses.field(default=None, metadata={"static": True})

    @classmethod
    def from_cell(cls, cell: nnx.RNNCellBase, carry: Carry | None = None, dtype: Any = None) -> "DrivenSystem":
        """See a Flax NNX cell, ours or Flax's own, as a driven system.

        The state is the whole carry: for an LSTM c and h one after the other, N = 2H.

        Args:
            cell: any `nnx.RNNCellBase` with an attribute `in_features`.
            carry: initial carry without batch axes (default: the cell's own, zeros).
            dtype: dtype to measure in (default: the carry's); parameters and initial carry are cast to it.

        Returns:
            The system.

        Raises:
            TypeError: if the cell is no `nnx.RNNCellBase`.
            ValueError: a cell without `in_features`; a carry of other shapes than the cell's own, or of another dtype
                where `dtype` is not given; a dtype that jax is not set to compute in.
        """
        if not isinstance(cell, nnx.RNNCellBase):
            raise TypeError(
                f"cell must be an nnx.RNNCellBase, got {type(cell).__name__}; for a function use from_step, "
                "for layers Stacked(...).as_cell()"
            )
        if not hasattr(cell, "in_features"):
            raise ValueError(f"cell must have an attribute in_features, {type(cell).__name__} has none")
        if dtype is not None:
            _check_dtype(dtype)
            # First, for what is evaluated in float32 is a rotation to no more than its digits.
            cell = _with_dtype(cell, dtype)
        if isinstance(cell, Evaluable):
            cell = cell.evaluated()
        in_features = cell.in_features  # pyright: ignore[reportAttributeAccessIssue]
        own_carry = cell.initialize_carry((in_features,), nnx.Rngs(0))
        carry = own_carry if carry is None else carry
        expected, came = CarryLayout.of(own_carry), CarryLayout.of(carry)
        if came != expected:
            raise ValueError(f"carry must be like the cell's own, {expected}, got {came}")
        if dtype is None and _dtypes(carry) != _dtypes(own_carry):
            # Gates in float32 under a carry in float64 cost half of the digits, and what they return does not show it.
            raise ValueError(
                f"carry must have the cell's dtype {_dtypes(own_carry)}, got {_dtypes(carry)}; "
                "dtype=... casts cell and carry"
            )
        graph, params = nnx.split(cell)
        return cls._make(CellStep(graph), params, carry, in_features, dtype)

    @classmethod
    def from_step(cls, step: StepFunction, params: PyTree, carry: Carry, dtype: Any = None) -> "DrivenSystem":
        """See a plain step function as a driven system: linen, Equinox, Haiku, hand-written.

        Args:
            step: (params, carry, inputs_t) -> carry. Compiled functions are cached by its identity, so define it once
                and not anew for each system. An undriven system gets inputs_t = None.
            params: pytree of arrays.
            carry: initial carry of one network, a pytree of arrays without batch axes.
            dtype: dtype to measure in (default: the carry's).

        Returns:
            The system.

        Raises:
            TypeError: if the step is not callable.
            ValueError: parameters that are not arrays, a carry with anything but floating point arrays.
        """
        _check_function("step", step)
        return cls._make(step, params, carry, None, dtype)

    @classmethod
    def from_ode(
        cls,
        rhs: StepFunction,
        params: PyTree,
        carry: Carry,
        *,
        dt: float | int | Array,
        method: str = "rk4",
        dtype: Any = None,
    ) -> "DrivenSystem":
        r"""See a differential equation :math:`\dot s = f_\theta(s, x)` as a driven system, one step of dt at a time.

        The inputs are held during a step. What is measured is the map that the method makes, whose Jacobian is exact:
        an exponent in nats per step, over dt, is one in nats per unit of time, and differs from the flow's by what the
        method leaves, O(dt) or O(dt^4). The step is a parameter, `system.params.dt`, that `jax.vmap` can carry.

        Args:
            rhs: (params, carry, inputs_t) -> derivative of the carry by time, a pytree like it; define it once, as
                `from_step` says.
            params: pytree of arrays.
            carry: initial carry of one network, a pytree of arrays without batch axes.
            dt: length of a step in units of time, > 0.
            method: "euler", of first order, or "rk4", the classical Runge-Kutta method of fourth.
            dtype: dtype to measure in (default: the carry's).

        Returns:
            The system.

        Raises:
            TypeError: if the right-hand side is not callable.
            ValueError: a dt that is no positive number, an unknown method, or what `from_step` refuses.
        """
        _check_function("rhs", rhs)
        if method not in INTEGRATORS:
            raise ValueError(f"method must be one of {', '.join(INTEGRATORS)}, got {method!r}")
        if np.shape(dt) != () or not (isinstance(dt, Tracer) or 0 < dt < np.inf):
            raise ValueError(f"dt must be one positive number, got {dt}")
        _check_arrays("params", params)
        return cls._make(OdeStep(rhs, method), OdeParams(params, jnp.asarray(dt, float)), carry, None, dtype)

    @classmethod
    def _make(
        cls, step: StepFunction, params: PyTree, carry: Carry, in_features: int | None, dtype: Any
    ) -> "DrivenSystem":
        _check_arrays("params", params)
        _check_arrays("carry", carry)
        if dtype is not None:
            _check_dtype(dtype)
            params, carry = _cast((params, carry), dtype)
        for leaf in jax.tree.leaves(carry):
            if not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
                raise ValueError(f"carry must hold floating point arrays, got one of dtype {jnp.result_type(leaf)}")
        layout = CarryLayout.of(carry)
        return cls(params, layout.flatten(carry), layout, step, in_features)

    @property
    def state_size(self) -> int:
        """N."""
        return self.initial_state.shape[-1]

    def step(self, state: Array, inputs_t: Array | None) -> Array:
        """Make one step: state [N], inputs_t [F] -> state [N].

        Matmuls that do not say otherwise, and their derivatives, run in the full precision of their dtype: a GPU's
        TF32 would move exponents in the third digit.

        Raises:
            ValueError: if the step's carry differs from the one it takes in structure, shapes or dtype. A step to
                float32 between states in float64 would cost half of the digits without a word.
        """
        with jax.default_matmul_precision("highest"):
            carry = self.step_function(self.params, self.layout.unflatten(state), inputs_t)
        after = self.layout.flatten(carry)
        if _dtypes(carry) != str(state.dtype):
            raise ValueError(
                f"the step must return a carry of the state's dtype {state.dtype}, got {_dtypes(carry)}; "
                "make the system with dtype=... to cast parameters and initial carry"
            )
        return after

    def closed_loop(self, feedback: Feedback, params: PyTree = None) -> "DrivenSystem":
        r"""Feed this network what is read off its own state, so that it runs by itself.

        .. math:: s_t = F(s_{t-1}, x_t), \qquad x_t = y(s_{t-1}, u_t)

        The state Jacobian holds the way through the feedback, :math:`\partial_s F + \partial_x F\, \partial_s y`. The
        inputs of the new system are u, for what comes from outside as well; without any, run it by `steps=`.

        Args:
            feedback: (params, carry, u_t) -> x_t [F]; define it once, as `from_step` says. The carry is the one before
                the step, of an LSTM (c, h), and u_t is None in a run without inputs.
            params: of the feedback, a pytree of arrays; cast to the dtype of this system.

        Returns:
            The system, its parameters `params.network` and `params.feedback`.

        Raises:
            TypeError: if the feedback is not callable.
            ValueError: parameters that are not arrays; when it runs, a feedback of another width than the inputs.
        """
        _check_function("feedback", feedback)
        _check_arrays("params", params)
        return dataclasses.replace(
            self,
            params=LoopParams(self.params, _cast(params, self.initial_state.dtype)),
            step_function=ClosedStep(self.step_function, feedback, self.in_features),
            in_features=None,
        )

    def gated_cell(self) -> NamedGates:
        """Return the cell that the system was made from, for what is measured gate by gate.

        Returns:
            The cell, with the system's parameters; its carry is `layout.unflatten(state)`.

        Raises:
            ValueError: a system not made by `from_cell`, or of a cell that does not name its gates, such as Flax's own.
        """
        came = f"one made by {getattr(self.step_function, 'made_by', 'from_step')}"
        if isinstance(self.step_function, CellStep):
            cell = self.step_function.cell(self.params)
            if isinstance(cell, NamedGates):
                return cell
            came = f"one of {type(cell).__module__}.{type(cell).__name__}"
        raise ValueError(f"system must be made by from_cell, of a cell that names its gates (NamedGates), got {came}")


def _check_function(name: str, function: Any) -> None:
    if not callable(function):
        raise TypeError(f"{name} must be a function of (params, carry, inputs_t), got {type(function).__name__}")


def _check_arrays(name: str, tree: PyTree) -> None:
    for path, leaf in jax.tree.leaves_with_path(tree):
        try:
            jax.eval_shape(lambda array: array, leaf)  # which refuses whatever `jax.jit` would
        except TypeError as error:
            place = f"{name}{jax.tree_util.keystr(path)}"
            raise ValueError(f"{name} must be a pytree of arrays, got {type(leaf).__name__} at {place}") from error


def _dtypes(tree: PyTree) -> str:
    """Name the dtypes of a tree's arrays, or those of a complex one's parts: "float32", or "float32 and float64"."""
    dtypes = {jnp.result_type(leaf) for leaf in jax.tree.leaves(tree)}
    return " and ".join(sorted({str(jnp.finfo(d).dtype if jnp.issubdtype(d, jnp.inexact) else d) for d in dtypes}))


def _check_dtype(dtype: Any) -> None:
    try:
        known = jnp.dtype(dtype)
    except TypeError:
        known = None
    if known is None or not jnp.issubdtype(known, jnp.floating):
        raise ValueError(f"dtype must be one of floating point, such as float64, got {dtype!r}")
    if jax.dtypes.canonicalize_dtype(known) != known:
        raise ValueError(f'dtype {known} needs jax.config.update("jax_enable_x64", True)')


def _cast(tree: PyTree, dtype: Any) -> PyTree:
    def cast(leaf: Any) -> Any:
        if jnp.iscomplexobj(leaf):
            return jnp.asarray(leaf, jnp.result_type(dtype, jnp.complex64))
        return jnp.asarray(leaf, dtype) if jnp.issubdtype(jnp.result_type(leaf), jnp.floating) else leaf

    return jax.tree.map(cast, tree)


def _with_dtype(cell: nnx.RNNCellBase, dtype: Any) -> nnx.RNNCellBase:
    """Copy a cell with its computation, and that of its layers, set to `dtype`."""
    copy = nnx.clone(cell)
    for _, module in nnx.iter_modules(copy):
        if getattr(module, "dtype", None) is not None:
            module.dtype = jnp.dtype(dtype)  # pyright: ignore[reportAttributeAccessIssue]
    return copy
