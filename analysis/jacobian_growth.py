"""Jacobian growth of untrained networks: finite-time rates, leading exponents and reach by gain and input."""

from typing import Any

import pandas as pd
import xarray as xr

from analysis.seeds import by_series, rows, shown, single

SERIES = ("inputs", "network", "gain")


def summarise(datasets: list[xr.Dataset]) -> pd.DataFrame:
    """Reduce a run to the curves and numbers of its figure.

    Args:
        datasets: the points of a run.

    Returns:
        Rows with the series columns inputs, network and gain.
    """
    table = []
    for values, points in by_series(datasets, *SERIES).items():
        series: dict[str, Any] = dict(zip(SERIES, values, strict=True))
        rates = [point["log_singular_values"].isel(index=0) / point["horizon"] for point in points]
        largest = [point["exponent"].isel(exponent_index=0) for point in points]
        errors = [point["exponent_error"].isel(exponent_index=0) for point in points]
        reaches, reach_errors = [point["reach"] for point in points], [point["reach_error"] for point in points]
        table += rows(series, "growth_rate", "nats per step", rates, x="horizon")
        table += rows(series, "largest_exponent", "nats per step", largest, within=errors)
        table += rows(series, "reach", "steps", reaches, within=reach_errors)
    return pd.DataFrame(table)


def report(summary: pd.DataFrame) -> pd.DataFrame:
    """Lay out lambda_1 by network and gain, one column for each input.

    Args:
        summary: as `summarise` makes it.

    Returns:
        A row of text for each network and gain.
    """
    table = []
    for network, gain in summary[["network", "gain"]].drop_duplicates().itertuples(index=False):
        cells = {"network": network, "gain": f"{gain:g}"}
        for inputs in summary["inputs"].unique():
            exponent = single(summary, "largest_exponent", network=network, gain=gain, inputs=inputs)
            cells[f"λ₁, {inputs} [nats/step]"] = shown(*exponent, digits=3)
        table.append(cells)
    return pd.DataFrame(table)
