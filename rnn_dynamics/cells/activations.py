"""Pointwise nonlinearities by name, each with the two slopes that the theory of vanishing gradients needs.

`max_slope` is gamma = sup|phi'|: gradients must vanish if ||W||_2 < 1/gamma (Pascanu, Mikolov and Bengio 2013, section
2.1). `slope_at_zero` is phi'(0), the linear gain of a quiescent network. At the kink of a piecewise linear function
`slope_at_zero` is the one that automatic differentiation uses.

`modrelu` has a trained bias of each unit and so is no entry of `ACTIVATIONS`, but a function that cells call.
"""

import dataclasses
import math
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
        reference: the paper that it comes from, or that brought it into networks.
    """

    name: str
    function: Callable[[Array], Array]
    max_slope: float
    slope_at_zero: float
    reference: str

    def __call__(self, preactivation: Array) -> Array:
        """Apply the function elementwise."""
        return self.function(preactivation)


# The slope of x*Phi(x) is Phi(x) + x*phi(x), steepest at x = sqrt(2).
_GELU_MAX_SLOPE = (1 + math.erf(1)) / 2 + math.exp(-1) / math.sqrt(math.pi)
SELU_SCALE = 1.0507009873554804934
SELU_ALPHA = 1.6732632423543772848

ACTIVATIONS: dict[str, Activation] = {
    activation.name: activation
    for activation in (
        Activation("tanh", jnp.tanh, 1.0, 1.0, "Sompolinsky, Crisanti and Sommers 1988"),
        Activation("relu", jax.nn.relu, 1.0, 0.0, "Nair and Hinton 2010"),
        Activation("leaky_relu", jax.nn.leaky_relu, 1.0, 1.0, "Maas, Hannun and Ng 2013"),
        Activation("sigmoid", jax.nn.sigmoid, 0.25, 0.25, "Rumelhart, Hinton and Williams 1986"),
        Activation("identity", lambda x: x, 1.0, 1.0, "Saxe, McClelland and Ganguli 2014"),
        Activation("softplus", jax.nn.softplus, 1.0, 0.5, "Dugas et al. 2001"),
        Activation("gelu", lambda x: jax.nn.gelu(x, approximate=False), _GELU_MAX_SLOPE, 0.5, "Hendrycks, Gimpel 2016"),
        Activation("elu", jax.nn.elu, 1.0, 1.0, "Clevert, Unterthiner and Hochreiter 2016"),
        Activation("selu", jax.nn.selu, SELU_SCALE * SELU_ALPHA, SELU_SCALE * SELU_ALPHA, "Klambauer et al. 2017"),
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


def modrelu(preactivation: Array, bias: Array) -> Array:
    r"""Shrink the modulus and keep the direction (Arjovsky, Shah and Bengio 2016).

    .. math:: \mathrm{modReLU}(z) = \frac{z}{|z|}\,\max(|z| + b,\, 0), \qquad \mathrm{modReLU}(0) = 0

    On the real line its slope is 1 where |x| + b >= 0 and else 0, so sup|phi'| = 1, and phi'(0) is 1 at b = 0, where it
    is the identity, and 0 below. In the plane it is 1 along z and 1 + b/|z| across: at most 1 as long as b <= 0.

    Args:
        preactivation: z, real or complex [..., H].
        bias: b, real, of a shape that meets the preactivation's.

    Returns:
        Values like the preactivation.
    """
    modulus, direction = jnp.abs(preactivation), jnp.sign(preactivation)
    if jnp.iscomplexobj(preactivation):  # sign would pass no slope on, and z/|z| one that is NaN at 0
        somewhere = jnp.where(preactivation == 0, 1, preactivation)
        direction = jnp.where(preactivation == 0, 0, somewhere / jnp.abs(somewhere).astype(preactivation.dtype))
    return jnp.where(modulus + bias >= 0, preactivation + bias.astype(preactivation.dtype) * direction, 0)
