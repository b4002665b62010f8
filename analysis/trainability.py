"""Trainability: which lags were learnt, beside the exponents and the reach of the networks before training.

Errors of exponents and reaches are standard errors over seeds, those of shares half of Wilson's 68 % interval. The
longest lag learnt is the largest that at least half of the seeds solved within the budget of updates; where that is the
longest of the grid it is a lower bound. Of it there is no error; beside it stand the largest lags that all seeds and
that any seed solved.
"""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import linregress

from analysis.seeds import by_series, rows, share_row, shown, single

LONGEST = {"longest_lag": 0.5, "longest_lag_of_all": 1.0, "longest_lag_of_any": 1e-9}
"""Quantity -> share of the seeds that must have solved a lag."""


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
    solved = {lag: point["solved_update"].values >= 0 for lag, point in by_lag.items()}
    table = [
        *rows(series, "largest_exponent", "nats per step", exponents, within=within),
        *rows(series, "reach", "steps", _all(drawn, "reach")),
    ]
    for quantity, share in LONGEST.items():
        learnt = [lag for lag, each in solved.items() if each.mean() >= share]
        longest = [xr.DataArray(float(max(learnt, default=np.nan)))]
        table += rows(series, quantity, "steps", longest)
    for lag, point in by_lag.items():
        table.append(share_row(series, "success", solved[lag], x=lag))
        table.append(share_row(series, "broken", point["broken_update"].values >= 0, x=lag))
        table += rows(
            series, "accuracy", "1", [one.expand_dims(lag=[lag]) for one in _all(_seeds(point), "accuracy")], x="lag"
        )
    return table


def _fit(network: str, summary: pd.DataFrame) -> list[dict]:
    """Fit a power law of the reach to the longest lag, where both are known and gradients fade."""
    known = summary[summary["network"] == network].pivot_table(index="control", columns="quantity", values="mean")
    longest_of_grid = summary["x"].max()
    fits = (known["largest_exponent"] < 0) & np.isfinite(known["reach"]) & (known["longest_lag"] < longest_of_grid)
    chosen = known[fits]
    if len(chosen) < 3:
        return []
    line = linregress(np.log(chosen["reach"]), np.log(chosen["longest_lag"]))
    shared = {"network": network, "control": np.nan, "x": np.nan, "count": len(chosen), "finite": len(chosen)}
    return [
        {**shared, "quantity": "fit_power", "units": "1", "mean": line.slope, "error": line.stderr},
        {**shared, "quantity": "fit_log_factor", "units": "ln steps", "mean": line.intercept,
         "error": line.intercept_stderr},
    ]  # fmt: skip


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
        table.append(cells)
    return pd.DataFrame(table)
