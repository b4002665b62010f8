"""Pointwise nonlinearities by name, each with the two slopes that the theory of vanishing gradients needs.

`max_slope` is gamma = sup|phi'|: gradients must vanish if ||W||_2 < 1/gamma (Pascanu, Mikolov and Bengio 2013, section
2.1). `slope_at_zero` is phi'(0), the linear gain of a quiescent network. At the kink of a piecewise linear function
`slope_at_zero` is the one that automatic differentiation uses.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from rnn_dynamics.discovery import unknown_name


@dataclasses.dataclass(frozen=True)
class Activation:
    """A pointwise function and what is known of its slope; call it like the function.

    Attributes:
        name: as the command line spells it.
        function: Array [...] -> Array [...].
        max_slope: sup|phi'| over the reals.
        slope_at_zero: phi'(0).
        reference: paper, where it has one.
    """

    name: str
    function: Callable[[Array], Array]
    max_slope: float
    slope_at_zero: float
    reference: str = ""

    def __call__(self, preactivation: Array) -> Array:
        """Apply the function elementwise."""
        return self.function(preactivation)


# The slope of x*Phi(x) is Phi(x) + x*phi(x); its own derivative vanishes at x = sqrt(2).
_GELU_MAX_SLOPE = 1.1289043315
_SELU_SCALE = 1.0507009873554804934
_SELU_ALPHA = 1.6732632423543772848

ACTIVATIONS: dict[str, Activation] = {
    activation.name: activation
    for activation in (
        Activation("tanh", jnp.tanh, 1.0, 1.0),
        Activation("relu", jax.nn.relu, 1.0, 0.0, "Nair and Hinton 2010"),
        Activation("leaky_relu", jax.nn.leaky_relu, 1.0, 1.0, "Maas, Hannun and Ng 2013"),
        Activation("sigmoid", jax.nn.sigmoid, 0.25, 0.25),
        Activation("identity", lambda x: x, 1.0, 1.0, "Saxe, McClelland and Ganguli 2014"),
        Activation("softplus", jax.nn.softplus, 1.0, 0.5, "Dugas et al. 2001"),
        Activation("gelu", lambda x: jax.nn.gelu(x, approximate=False), _GELU_MAX_SLOPE, 0.5, "Hendrycks, Gimpel 2016"),
        Activation("elu", jax.nn.elu, 1.0, 1.0, "Clevert, Unterthiner and Hochreiter 2016"),
        Activation("selu", jax.nn.selu, _SELU_SCALE * _SELU_ALPHA, _SELU_SCALE * _SELU_ALPHA, "Klambauer et al. 2017"),
        Activation("hard_tanh", jax.nn.hard_tanh, 1.0, 1.0, "Collobert 2004"),
        Activation("softsign", jax.nn.soft_sign, 1.0, 1.0, "Bergstra et al. 2009"),
        Activation("sin", jnp.sin, 1.0, 1.0, "Parascandolo, Huttunen and Virtanen 2017"),
        Activation("positive", lambda x: jnp.where(x >= 0, x + 0.5, jax.nn.sigmoid(x)), 1.0, 1.0, "Feng et al. 2024"),
    )
}


def find_activation(name: str) -> Activation:
    """Look an activation up.

    Args:
        name: one of `ACTIVATIONS`.

    Returns:
        The activation.

    Raises:
        ValueError: if there is none of that name.
    """
    if name not in ACTIVATIONS:
        raise ValueError(unknown_name("activation", name, ACTIVATIONS))
    return ACTIVATIONS[name]
