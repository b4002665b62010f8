"""Means over seeds with their errors, as rows of a summary."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from rnn_dynamics.results import read_provenance


def by_series(datasets: Iterable[xr.Dataset], *fields: str) -> dict[tuple[Any, ...], list[xr.Dataset]]:
    """Sort the points of a run by some of their settings.

    Args:
        datasets: points, as `rnn_dynamics.results.load_run` gives them.
        *fields: names of settings, e.g. "network", "gain".

    Returns:
        Values of those settings -> the points that share them, in the run's order.
    """
    series: dict[tuple[Any, ...], list[xr.Dataset]] = {}
    for dataset in datasets:
        settings = read_provenance(dataset).config
        series.setdefault(tuple(settings[field] for field in fields), []).append(dataset)
    return series


def mean_and_error(values: np.ndarray, within: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Average over seeds.

    Args:
        values: [S, ...], one entry for each seed.
        within: [S, ...], the standard error that each entry itself carries; stands in where there is one seed only.

    Returns:
        Mean [...] and its standard error [...]: the scatter between seeds over sqrt(S), which holds the error within
        each as well. NaN where neither is known. A mean over entries of which one is infinite is infinite.
    """
    count = values.shape[0]
    with np.errstate(invalid="ignore"):
        mean = values.mean(axis=0)
        if count > 1:
            return mean, values.std(axis=0, ddof=1) / np.sqrt(count)
    return mean, np.full_like(mean, np.nan) if within is None else within[0]


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    r"""Bracket the rate behind so many successes with 68 % confidence (Wilson, J. Am. Stat. Assoc. 22, 1927).

    .. math:: \frac{p + z^2 / 2n \pm z \sqrt{p (1 - p) / n + z^2 / 4n^2}}{1 + z^2 / n}, \qquad z = 1

    Its width is never 0, as that of the binomial standard error is where all trials or none succeed.

    Args:
        successes: how many.
        trials: n, of so many; at least 1.

    Returns:
        The ends of the interval, within [0, 1].
    """
    rate = successes / trials
    half = np.sqrt(rate * (1 - rate) / trials + 1 / (4 * trials**2))
    low, high = ((rate + 1 / (2 * trials) + side * half) / (1 + 1 / trials) for side in (-1, 1))
    return float(max(low, 0.0)), float(min(high, 1.0))


def rows(
    series: Mapping[str, Any],
    quantity: str,
    units: str,
    points: list[xr.DataArray],
    *,
    within: list[xr.DataArray] | None = None,
    x: str | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield the rows of one curve, or the one row of a number.

    Args:
        series: which curve.
        quantity: its name in the summary.
        units: of the mean.
        points: one array for each seed, with the one dimension x or none.
        within: the standard errors that belong to them.
        x: dimension to spread over rows.

    Yields:
        A row for each value along x.
    """
    errors = None if within is None else np.stack([error.values for error in within])
    mean, error = mean_and_error(np.stack([point.values for point in points]), errors)
    places = [np.nan] if x is None else points[0][x].values
    finite_seeds = np.isfinite(np.stack([point.values for point in points])).sum(axis=0)
    along_x = (np.atleast_1d(mean), np.atleast_1d(error), np.atleast_1d(finite_seeds))
    for place, value, spread, finite in zip(places, *along_x, strict=True):
        yield {
            **series,
            "quantity": quantity,
            "units": units,
            "x": place,
            "mean": value,
            "error": spread,
            "count": len(points),
            "finite": finite,
        }


def share_row(series: Mapping[str, Any], quantity: str, happened: np.ndarray, *, x: float = np.nan) -> dict[str, Any]:
    """Return the row of a share of seeds.

    Args:
        series: which curve.
        quantity: its name in the summary.
        happened: [S], whether it did with each seed.
        x: where on the curve.

    Returns:
        The share, and for its error half of Wilson's 68 % interval (Wilson 1927), which is not 0 for all or none.
    """
    count, share = len(happened), float(np.mean(happened))
    low, high = wilson_interval(int(np.sum(happened)), count)
    row = {"quantity": quantity, "units": "1", "x": x, "mean": share, "error": (high - low) / 2}
    return {**series, **row, "count": count, "finite": count}


def single(summary: pd.DataFrame, quantity: str, **series: Any) -> tuple[float, float]:
    """Look one number up in a summary.

    Args:
        summary: as `summarise` makes it.
        quantity: name of the number.
        **series: which curve.

    Returns:
        Mean and error.

    Raises:
        ValueError: if there is not exactly one such row.
    """
    chosen = summary[summary["quantity"] == quantity]
    for column, value in series.items():
        chosen = chosen[chosen[column] == value]
    if len(chosen) != 1:
        raise ValueError(f"{quantity} of {series} must be one row of the summary, found {len(chosen)}")
    return float(chosen["mean"].iloc[0]), float(chosen["error"].iloc[0])


def shown(mean: float, error: float, digits: int) -> str:
    """Write a number for a person: "0.123 ± 0.004", without the error where it is not known, "—" if there is none."""
    if np.isnan(mean):
        return "—"
    if not np.isfinite(error):
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ± {error:.{digits}f}"
