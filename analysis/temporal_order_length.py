"""Temporal order by length: how many networks succeed, and how far the others come."""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from analysis.seeds import by_series, rows, wilson_interval

SERIES = ("initialiser", "method", "learning_rate")


def summarise(datasets: list[xr.Dataset]) -> pd.DataFrame:
    """Reduce a run to the curves of its figure, against the length of the sequences.

    Args:
        datasets: the points of a run.

    Returns:
        Rows with the series columns initialiser, method and learning_rate. Of a success rate, low and high are the ends
        of Wilson's 68 % interval and error is half its width; of the means over seeds error is the standard error.
    """
    table = []
    for (*values, length), points in by_series(datasets, *SERIES, "length").items():
        series: dict[str, Any] = dict(zip(SERIES, values, strict=True))
        seeds = [point.isel(seed=number) for point in points for number in range(point.sizes["seed"])]
        table.append({**series, **_success(seeds), "x": length})
        for quantity, units, measured in (
            ("last_accuracy", "1", [seed["last_accuracy"] for seed in seeds]),
            ("log10_largest_gradient_norm", "decades", [_log10_largest(seed) for seed in seeds]),
            ("clip_share", "1", [seed["clip_share"] for seed in seeds]),
            ("chance_level", "1", [seed["chance_level"] for seed in seeds]),
        ):
            table += [{**row, "x": length} for row in rows(series, quantity, units, measured)]
    return pd.DataFrame(table)


def _success(seeds: list[xr.Dataset]) -> dict[str, Any]:
    succeeded = sum(bool(seed["succeeded"]) for seed in seeds)
    low, high = wilson_interval(succeeded, len(seeds))
    return {
        "quantity": "success_rate",
        "units": "1",
        "mean": succeeded / len(seeds),
        "error": (high - low) / 2,
        "low": low,
        "high": high,
        "count": len(seeds),
        "finite": sum(int(seed["first_nonfinite_step"]) < 0 for seed in seeds),
    }


def _log10_largest(seed: xr.Dataset) -> xr.DataArray:
    largest = seed["largest_gradient_norm"].max()
    return largest.copy(data=np.log10(largest.values))


def report(summary: pd.DataFrame) -> pd.DataFrame:
    """Lay out the number of networks that succeed, by length.

    Args:
        summary: as `summarise` makes it.

    Returns:
        A row of text for each initialiser, method and rate.
    """
    rates = summary.query("quantity == 'success_rate'")
    table = []
    for initialiser, method, rate in rates[list(SERIES)].drop_duplicates().itertuples(index=False):
        curve = rates.merge(pd.DataFrame([{"initialiser": initialiser, "method": method, "learning_rate": rate}]))
        cells = {"initialiser": initialiser, "method": method, "rate": f"{rate:g}"}
        for length, share, count in curve[["x", "mean", "count"]].itertuples(index=False):
            cells[f"T = {length:g}"] = f"{round(share * count)} of {count}"
        table.append(cells)
    return pd.DataFrame(table)
