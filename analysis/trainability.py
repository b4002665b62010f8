"""Trainability: which lags were learnt, beside the exponents and the reach of the networks before training.

Errors of exponents and reaches are standard errors over seeds, those of shares half of Wilson's 68 % interval. The
longest lag learnt is the largest that at least half of the seeds solved within the budget of updates; there is no error
of it. Every seed has a longest lag as well: `mean_longest_lag` is their geometric mean, with its standard error. Where
seeds solved the longest lag of the grid, which `solved_longest` tells, both are lower bounds.
"""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import linregress

from analysis.seeds import by_series, mean_and_error, rows, share_row, shown, single

LEARNT = 0.5
"""Share of the seeds that must have solved a lag for it to count as learnt."""

LEAST_FITTED = 3
"""Points that a line is put through; two always lie on one."""


def summarise(datasets: list[xr.Dataset]) -> pd.DataFrame:
    """Reduce a run to the shares of success, and to one number of each kind for every network.

    Args:
        datasets: the points of a run.

    Returns:
        Rows with the series columns network and control, a gain or a gate's bias. Those of a fit are about all controls
        of a network, which is then NaN.
    """
    table = []
    for (network, control), points in by_series(datasets, "network", "control").items():
        by_lag = {lag: one for (lag,), (one,) in by_series(points, "lag").items()}
        table += _network({"network": network, "control": control}, by_lag)
    summary = pd.DataFrame(table)
    fits = [row for network in summary["network"].unique() for row in _fit(network, summary)]
    return pd.DataFrame([*table, *fits])


def _network(series: dict[str, Any], by_lag: dict[int, xr.Dataset]) -> list[dict]:
    drawn = _seeds(next(iter(by_lag.values())))  # before training they are the same at every lag
    exponents, within = _all(drawn, "largest_exponent"), _all(drawn, "largest_exponent_error")
    table = [
        *rows(series, "largest_exponent", "nats per step", exponents, within=within),
        *rows(series, "reach", "steps", _all(drawn, "reach")),
        *longest_lags(series, {lag: point["solved_update"].values >= 0 for lag, point in by_lag.items()}),
    ]
    for lag, point in by_lag.items():
        accuracies = [one.expand_dims(lag=[lag]) for one in _all(_seeds(point), "accuracy")]
        table += rows(series, "accuracy", "1", accuracies, x="lag")
        table.append(share_row(series, "success", point["solved_update"].values >= 0, x=lag))
        table.append(share_row(series, "broken", point["broken_update"].values >= 0, x=lag))
    return table


def longest_lags(series: dict[str, Any], solved: dict[int, np.ndarray]) -> list[dict]:
    """Return the rows of the longest lags.

    Args:
        series: which network.
        solved: lag -> [S], whether each seed solved it.

    Returns:
        The rows of longest_lag, mean_longest_lag and solved_longest, see above.
    """
    learnt = [lag for lag, by_seed in solved.items() if by_seed.mean() >= LEARNT]
    lags = np.array(list(solved), float)[:, None]
    of_seeds = np.where(np.stack(list(solved.values())), lags, -np.inf).max(axis=0)
    logarithm, error = mean_and_error(np.log(np.where(of_seeds > 0, of_seeds, np.nan)))
    mean = float(np.exp(logarithm))  # NaN where a seed solved nothing, for then there is none
    shared = {**series, "units": "steps", "x": np.nan, "count": len(of_seeds), "finite": int((of_seeds > 0).sum())}
    return [
        {**shared, "quantity": "longest_lag", "mean": float(max(learnt, default=np.nan)), "error": np.nan},
        {**shared, "quantity": "mean_longest_lag", "mean": mean, "error": mean * float(error)},
        share_row(series, "solved_longest", solved[max(solved)]),
    ]


def _fit(network: str, summary: pd.DataFrame) -> list[dict]:
    """Fit longest lag = factor x reach^power over a network's controls, where gradients fade and no lag is a bound."""
    numbers = summary[(summary["network"] == network) & summary["x"].isna()]
    known = numbers.set_index(["control", "quantity"])["mean"].unstack()
    is_known = np.isfinite(known["reach"]) & np.isfinite(known["mean_longest_lag"])
    inside = (known["largest_exponent"] < 0) & is_known & (known["solved_longest"] == 0)
    chosen = known[inside]
    if len(chosen) < LEAST_FITTED:
        return []
    line: Any = linregress(np.log(chosen["reach"]), np.log(chosen["mean_longest_lag"]))
    shared = {"network": network, "control": np.nan, "x": np.nan, "count": len(chosen), "finite": len(chosen)}
    numbers = {"fit_power": (line.slope, line.stderr), "fit_log_factor": (line.intercept, line.intercept_stderr)}
    return [
        {**shared, "quantity": quantity, "units": "1", "mean": mean, "error": error}
        for quantity, (mean, error) in numbers.items()
    ]


def _seeds(point: xr.Dataset) -> list[xr.Dataset]:
    return [point.isel(seed=number) for number in range(point.sizes["seed"])]


def _all(points: list[xr.Dataset], name: str) -> list[xr.DataArray]:
    return [point[name] for point in points]


def report(summary: pd.DataFrame) -> pd.DataFrame:
    """Lay out what a person wants to read first.

    Args:
        summary: as `summarise` makes it.

    Returns:
        A row of text for each network and control.
    """
    table = []
    lags = sorted(summary.loc[summary["quantity"] == "success", "x"].unique())
    for network, control in summary[["network", "control"]].dropna().drop_duplicates().itertuples(index=False):
        series = {"network": network, "control": control}
        cells = {"network": network, "gain or bias": f"{control:g}"}
        cells["λ₁ [nats/step]"] = shown(*single(summary, "largest_exponent", **series), digits=3)
        reach, error = single(summary, "reach", **series)
        cells["reach [steps]"] = "beyond" if np.isinf(reach) else shown(reach, error, digits=1)
        for lag in lags:
            share, _ = single(summary, "success", **series, x=lag)
            cells[f"lag {lag:g}"] = f"{100 * share:.0f} %"
        cells["longest"] = shown(*single(summary, "longest_lag", **series), digits=0)
        cells["mean longest"] = shown(*single(summary, "mean_longest_lag", **series), digits=0)
        table.append(cells)
    return pd.DataFrame(table)
