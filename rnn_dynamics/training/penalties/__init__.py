"""What may be added to a loss so that gradients reach further: one file for each penalty.

Each is a frozen dataclass, so that penalties with equal settings are equal and share what is compiled for them; calling
it with a model and a batch gives a number [] (`rnn_dynamics.training.recipe.Penalty`). How much it counts is its weight
in the `Recipe`. Numbers among the settings may be traced.
"""

from dataclasses import fields, is_dataclass
from types import MappingProxyType
from typing import Any

from rnn_dynamics.discovery import discover, unknown_name
from rnn_dynamics.training.penalties.flossing import FlossingPenalty
from rnn_dynamics.training.penalties.norm_stabilizer import NormStabilizer
from rnn_dynamics.training.penalties.soft_orthogonality import SoftOrthogonality
from rnn_dynamics.training.penalties.vanishing_gradient import VanishingGradientPenalty
from rnn_dynamics.training.recipe import Penalty


def _is_penalty(item: Any) -> bool:
    return isinstance(item, type) and is_dataclass(item) and "__call__" in vars(item)


PENALTIES: MappingProxyType[str, type] = MappingProxyType(
    {item.__module__.rpartition(".")[2]: item for item in discover(__name__, _is_penalty).values()}
)
"""Every penalty by the name of its module."""


def make_penalty(name: str, **settings: Any) -> Penalty:
    """Make a penalty from the name that experiments call it by.

    Args:
        name: of the penalty's module, such as "flossing".
        **settings: the fields of its class.

    Returns:
        The penalty.

    Raises:
        ValueError: an unknown name, a setting that the penalty does not take, one that it needs and that is not there.
    """
    if name not in PENALTIES:
        raise ValueError(unknown_name("penalty", name, PENALTIES))
    penalty = PENALTIES[name]
    try:
        return penalty(**settings)
    except TypeError as error:
        takes = ", ".join(field.name for field in fields(penalty)) or "none"
        raise ValueError(f"settings of the penalty {name!r} must be of {takes}; got {', '.join(settings)}") from error


__all__ = [
    "PENALTIES",
    "FlossingPenalty",
    "NormStabilizer",
    "SoftOrthogonality",
    "VanishingGradientPenalty",
    "make_penalty",
]
