"""Wall-clock times of competitors, taken in turns so that a neighbour's load falls on all of them alike."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Timing:
    """What one competitor took.

    Attributes:
        compile_seconds: the first call less a median one.
        rounds: seconds of every later call.
    """

    compile_seconds: float
    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.rounds)

    @property
    def spread(self) -> float:
        """Interquartile range over the median: above some 0.1 the machine was too busy to compare on."""
        first, _, third = statistics.quantiles(self.rounds, n=4)
        return (third - first) / self.median


def take_turns(competitors: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, Timing]:
    """Time functions that return jax arrays.

    Each is called once to compile, then all of them once a round, another one first each time.

    Args:
        competitors: name -> function of no arguments.
        rounds: calls of each, >= 2.

    Returns:
        The timings by name.
    """
    first = {name: _seconds(call) for name, call in competitors.items()}
    taken: dict[str, list[float]] = {name: [] for name in competitors}
    order = list(competitors)
    for _ in range(rounds):
        for name in order:
            taken[name].append(_seconds(competitors[name]))
        order = [*order[1:], order[0]]
    return {
        name: Timing(max(first[name] - statistics.median(seconds), 0.0), tuple(seconds))
        for name, seconds in taken.items()
    }


def ratio(timings: Mapping[str, Timing], name: str, reference: str) -> float:
    """Return the median over rounds of time / time of the reference in the same round: robust to a drifting load."""
    pairs = zip(timings[name].rounds, timings[reference].rounds, strict=True)
    return statistics.median(own / other for own, other in pairs)


def rows(timings: Mapping[str, Timing], over: Mapping[str, str], **labels: Any) -> list[dict[str, Any]]:
    """Make a table's rows, one for each competitor.

    Args:
        timings: by name, from `take_turns`.
        over: column -> competitor whose time the times are divided by in it.
        **labels: columns that are the same in all rows, such as the shape; they come first.

    Returns:
        Column -> value: the labels, method, milliseconds (the median), the ratios, spread and compile_seconds.
    """
    return [
        {
            **labels,
            "method": method,
            "milliseconds": taken.median * 1e3,
            **{column: ratio(timings, method, reference) for column, reference in over.items()},
            "spread": taken.spread,
            "compile_seconds": taken.compile_seconds,
        }
        for method, taken in timings.items()
    ]


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start
