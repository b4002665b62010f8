"""Long-memory tasks: how the test metric falls while networks learn, and how many of their seeds solve the task.

Means and standard errors are over the seeds whose metric is finite, those that have not broken by then; the column
finite says how many they are. Curves are means of the metric's logarithm, which a seed that goes astray for a while
does not rule; the final metric is a plain mean. Solved is what is solved in the end; the first solved update is that of
the first evaluation below the level, of those seeds that have one. Errors of shares are half of Wilson's 68 % interval
over all seeds.
"""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from analysis.seeds import by_series, rows, share_row, shown, single


def summarise(datasets: list[xr.Dataset]) -> pd.DataFrame:
    """Reduce a run to its curves, and to what became of the seeds.

    Args:
        datasets: the points of a run.

    Returns:
        Rows with the series columns task and network.
    """
    table = []
    for (task, network), (point,) in by_series(datasets, "task", "network").items():
        table += _network({"task": task, "network": network}, point)
    return pd.DataFrame(table)


def _network(series: dict[str, str], point: xr.Dataset) -> list[dict[str, Any]]:
    metric, units = point["metric"].where(np.isfinite(point["metric"])), point["metric"].attrs["units"]
    solved = metric < point["solved_level"]
    first_solved = metric["update"].where(solved).min("update")
    decades = metric.copy(data=np.log10(metric.values)).transpose("update", ...)
    curve = [_of_survivors(series, "log10_metric", "decades", at, x=float(at["update"])) for at in decades]
    return [
        *curve,
        _of_survivors(series, "final_metric", units, metric.isel(update=-1)),
        share_row(series, "solved", solved.isel(update=-1).values),
        share_row(series, "broken", point["broken_update"].values >= 0),
        _of_survivors(series, "first_solved_update", "updates", first_solved),
        *rows(series, "chance_level", units, [point["chance_level"]]),
        *rows(series, "solved_level", units, [point["solved_level"]]),
    ]


def _of_survivors(
    series: dict[str, str], quantity: str, units: str, values: xr.DataArray, *, x: float = np.nan
) -> dict[str, Any]:
    """Return the row of a mean over the seeds that have a number; NaN where none has."""
    finite = [values.isel(seed=number) for number in np.flatnonzero(np.isfinite(values))]
    row = next(rows(series, quantity, units, finite or [values.isel(seed=0)]))
    return {**row, "x": x, "count": values.sizes["seed"], "finite": len(finite)}


def report(summary: pd.DataFrame) -> pd.DataFrame:
    """Lay out what a person wants to read first.

    Args:
        summary: as `summarise` makes it.

    Returns:
        A row of text for each task and network.
    """
    table = []
    for task, network in summary[["task", "network"]].drop_duplicates().itertuples(index=False):
        series = {"task": task, "network": network}
        cells = {"task": task, "network": network}
        cells["final metric"] = shown(*single(summary, "final_metric", **series), digits=4)
        cells["chance"] = shown(*single(summary, "chance_level", **series), digits=4)
        cells["solved in the end"] = f"{100 * single(summary, 'solved', **series)[0]:.0f} %"
        cells["first solved at update"] = shown(*single(summary, "first_solved_update", **series), digits=0)
        cells["seeds that broke"] = f"{100 * single(summary, 'broken', **series)[0]:.0f} %"
        table.append(cells)
    return pd.DataFrame(table)
