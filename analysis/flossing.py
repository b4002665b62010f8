"""Flossing: accuracy and success by delay and condition, spectra by stage, and the leading exponent while learning.

Errors of shares are half of Wilson's 68 % interval, all others standard errors over seeds. A training that broke has no
accuracy, and has not solved its task.
"""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from analysis.seeds import by_series, rows, share_row, shown, single

SERIES = ("condition", "delay")


def summarise(datasets: list[xr.Dataset]) -> pd.DataFrame:
    """Reduce a run to the curves and numbers of its figure.

    Args:
        datasets: the points of a run.

    Returns:
        Rows with the series columns condition, delay and, of spectra, stage. The x of accuracy_during and of
        leading_exponent is updates by the loss, negative in flossing before the first.
    """
    table = []
    for values, (point,) in by_series(datasets, *SERIES).items():
        series: dict[str, Any] = dict(zip(SERIES, values, strict=True))
        seeds = [point.isel(seed=number) for number in range(point.sizes["seed"])]
        table += _outcome(series, point, seeds)
        leading = [_along(seed["leading_exponent"], seed["measured_at"]) for seed in seeds]
        table += rows(series, "leading_exponent", "nats per step", leading, x="measurement")
        for stage in point["stage"].values:
            spectra = [seed["exponent"].sel(stage=stage) for seed in seeds]
            table += rows({**series, "stage": stage}, "exponent", "nats per step", spectra, x="index")
        residuals = [seed["log_det_residual"].max() for seed in seeds]
        table += rows(series, "log_det_residual", "nats per step", residuals)
    return pd.DataFrame(table)


def _outcome(series: dict[str, Any], point: xr.Dataset, seeds: list[xr.Dataset]) -> list[dict[str, Any]]:
    solved = point["solved_update"] >= 0
    updates = list(point["solved_update"][solved.values])
    return [
        *rows(series, "accuracy", "1", [seed["accuracy"].isel(update=-1) for seed in seeds]),
        *rows(series, "accuracy_during", "1", [seed["accuracy"] for seed in seeds], x="update"),
        *(rows(series, "updates", "updates", updates) if updates else []),
        share_row(series, "success", solved.values),
        share_row(series, "broken", point["broken"].values),
        *rows(series, "chance_level", "1", [seed["chance_level"] for seed in seeds]),
    ]


def _along(values: xr.DataArray, places: xr.DataArray) -> xr.DataArray:
    """Give the measurements their places on the axis of updates."""
    return values.assign_coords(measurement=np.asarray(places))


def report(summary: pd.DataFrame) -> pd.DataFrame:
    """Lay out what a person wants to read first.

    Args:
        summary: as `summarise` makes it.

    Returns:
        A row of text for each delay and condition.
    """
    table = []
    for condition, delay in summary[list(SERIES)].drop_duplicates().itertuples(index=False):
        series = {"condition": condition, "delay": delay}
        cells = {"delay": f"{delay}", "flossing": condition}
        cells["accuracy"] = shown(*single(summary, "accuracy", **series), digits=3)
        cells["solved"] = shown(*single(summary, "success", **series), digits=2)
        solved = single(summary, "success", **series)[0] > 0
        cells["updates"] = shown(*single(summary, "updates", **series), digits=0) if solved else "—"
        for stage in summary["stage"].dropna().unique():
            exponent = single(summary, "exponent", stage=stage, x=0, **series)
            cells[f"λ₁ {stage} [nats/step]"] = shown(*exponent, digits=3)
        table.append(cells)
    return pd.DataFrame(table)
