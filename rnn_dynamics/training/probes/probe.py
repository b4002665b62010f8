"""The contract of a probe: what is measured every n batches on fixed data while a network learns."""

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeVar

from flax import nnx
from jax import Array

from rnn_dynamics.arguments import whole_number

Model = TypeVar("Model", bound=nnx.Module)


@dataclass(frozen=True)
class Label:
    """What a measured array is, for the store of results.

    Attributes:
        dims: names of its axes; () for a number.
        units: as on an axis label; "1" for pure numbers.
        description: what it is, as on an axis label.
    """

    dims: tuple[str, ...]
    units: str
    description: str


class Coordinate(NamedTuple):
    """The places along one of those axes.

    Attributes:
        values: numbers or names, one for each place.
        units: as on an axis label; "1" for pure numbers and names.
        description: what they are.
    """

    values: tuple[Any, ...]
    units: str
    description: str


@dataclass(frozen=True, eq=False, kw_only=True)
class Probe(abc.ABC):
    """One kind of look at a model that is being trained, which it does not disturb.

    A probe is a frozen dataclass that holds what it looks with: fixed inputs or a fixed batch, and numbers. A subclass
    has its `labels`, and says what it measures in `quantities`.

    Attributes:
        labels: name of each quantity -> what it is; the same for every model.
        name: of the probe, the prefix of its quantities in the results; another one for each of several of a kind.
        every: batches between two measurements.

    Raises:
        ValueError: a name that no variable could have, or less than one update.
    """

    labels: ClassVar[Mapping[str, Label]]
    name: str
    every: int = 100

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(f"name of a probe must be letters, digits and underscores, got {self.name!r}")
        whole_number("every", self.every, least=1)

    def measure(self, model: nnx.Module) -> dict[str, Array]:
        """Look at a model as one that is not trained any more, without dropout.

        It can be compiled, and `jax.vmap` goes through it for an ensemble whose parameters have a leading axis.

        Args:
            model: what is being trained; nothing in it changes, its random keys included.

        Returns:
            An array for each of `labels`.
        """
        return self.quantities(at_rest(model))

    @abc.abstractmethod
    def check(self, model: nnx.Module) -> None:
        """See whether a model has what this probe looks at, before it is trained.

        Args:
            model: one model, no ensemble.

        Raises:
            ValueError: if it has not.
        """

    @abc.abstractmethod
    def coordinates(self, model: nnx.Module) -> dict[str, Coordinate]:
        """Say what is along those axes of `labels` that have names or numbers for a model.

        Args:
            model: one that `check` lets pass; of an ensemble, any one.

        Returns:
            Axis -> its places.
        """

    @abc.abstractmethod
    def quantities(self, model: nnx.Module) -> dict[str, Array]:
        """Measure a model that nobody else needs, and that is at rest; see `measure`."""


def at_rest(model: Model) -> Model:
    """Return a copy of a model as it is when it is not trained, without dropout.

    Args:
        model: which is not changed.
    """
    copy = nnx.clone(model)
    copy.eval()
    return copy
