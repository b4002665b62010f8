"""The cliff in a loss: the surface and some paths on it, how paths end, and how the wall grows with the horizon."""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from analysis.seeds import by_series, rows, single, wilson_interval

SHOWN_RATE = 0.1
SHOWN_SEEDS = 3
"""Paths that are kept, those of the first seeds."""

REACHED = 1e-3
"""Loss below which a path has come to the bottom; on the ground beyond the wall it is 0.09."""

UPDATES_SHOWN = 50


def summarise(datasets: list[xr.Dataset]) -> pd.DataFrame:
    """Reduce a run to the curves of its figure.

    Args:
        datasets: the points of a run.

    Returns:
        Rows with the series columns horizon, method, learning_rate and seed, and y beside x for the surface. Of the
        share of paths that reach the bottom, low and high are the ends of Wilson's 68 % interval and error is half its
        width; of the mean loss error is the standard error over starts.
    """
    runs = {key: points[0] for key, points in by_series(datasets, "horizon", "learning_rate").items()}
    longest = max(horizon for horizon, _ in runs)
    table: list[dict[str, Any]] = []
    shown = longest, min((rate for _, rate in runs), key=lambda rate: abs(rate - SHOWN_RATE))
    for (horizon, rate), dataset in runs.items():
        for method in dataset["method"].values:
            series = {"horizon": horizon, "learning_rate": rate, "method": str(method)}
            of_method = dataset.sel({"method": method})  # as a keyword it would be a way of interpolating
            table += _ends(series, of_method)
            if horizon == longest:
                table += _losses(series, of_method)
            if (horizon, rate) == shown:
                table += [row for seed in range(SHOWN_SEEDS) for row in _path(series, of_method.sel(seed=seed))]
    table += _surface(longest, runs[shown])
    for horizon, dataset in {horizon: dataset for (horizon, _), dataset in runs.items()}.items():
        table += _wall(horizon, dataset)
    return pd.DataFrame(table)


def _ends(series: dict[str, Any], dataset: xr.Dataset) -> list[dict[str, Any]]:
    """Tell how the paths of one method end, and how long their longest step was."""
    at_bottom = dataset["loss"].isel(update=-1).values < REACHED
    low, high = wilson_interval(int(at_bottom.sum()), at_bottom.size)
    share = {
        **series,
        "quantity": "share_at_bottom",
        "units": "1",
        "mean": at_bottom.mean(),
        "error": (high - low) / 2,
        "low": low,
        "high": high,
        "count": at_bottom.size,
        "finite": int(np.sum(dataset["first_nonfinite_step"].values < 0)),
    }
    steps = np.hypot(*dataset["path"].diff("update").values).max(axis=-1)
    longest = [xr.DataArray(np.log10(step)) for step in steps]
    return [share, *rows(series, "log10_longest_step", "decades", longest)]


def _losses(series: dict[str, Any], dataset: xr.Dataset) -> list[dict[str, Any]]:
    shown = dataset["loss"].sel(update=_shown(dataset.sizes["update"]))
    return list(
        rows(series, "loss", "1", [shown.isel(seed=number) for number in range(shown.sizes["seed"])], x="update")
    )


def _shown(updates: int) -> np.ndarray:
    """Choose updates, of which the first lie as dense as they are."""
    return np.unique(np.geomspace(1, updates, UPDATES_SHOWN).astype(int)) - 1


def _surface(horizon: int, dataset: xr.Dataset) -> list[dict[str, Any]]:
    loss = dataset["loss_surface"]
    places = zip(*(x.values.ravel() for x in xr.broadcast(dataset["w"], dataset["bias"], loss)), strict=True)
    return [
        {"horizon": horizon, "quantity": "loss_surface", "units": "1", "x": weight, "y": bias, "mean": value}
        for weight, bias, value in places
    ]


def _path(series: dict[str, Any], dataset: xr.Dataset) -> list[dict[str, Any]]:
    """Keep where one path was at some updates, both ends of its longest step among them; x and y are w and b."""
    path = dataset["path"]
    longest = int(np.hypot(*path.diff("update").values).argmax())
    kept = np.unique([*_shown(path.sizes["update"]), longest, longest + 1])
    places = zip(*path.sel(update=kept).values, dataset["loss"].sel(update=kept).values, strict=True)
    own = {**series, "seed": int(dataset["seed"]), "quantity": "path", "units": "1"}
    return [{**own, "x": weight, "y": bias, "mean": loss} for weight, bias, loss in places]


def _wall(horizon: int, dataset: xr.Dataset) -> list[dict[str, Any]]:
    numbers = {
        "log10_wall_gradient": ("decades", np.log10(dataset["gradient_norm"].max())),
        "log10_wall_curvature": ("decades", np.log10(dataset["curvature"].max())),
        "log10_multiplier": ("decades per step", np.log10(dataset["multiplier"])),
    }
    return [
        {"quantity": quantity, "units": units, "x": horizon, "mean": float(value)}
        for quantity, (units, value) in numbers.items()
    ]


def report(summary: pd.DataFrame) -> pd.DataFrame:
    """Lay out how many paths reach the bottom, by horizon and rate.

    Args:
        summary: as `summarise` makes it.

    Returns:
        A row of text for each horizon and rate.
    """
    shares = summary.query("quantity == 'share_at_bottom'")
    table = []
    for horizon, rate in shares[["horizon", "learning_rate"]].drop_duplicates().itertuples(index=False):
        cells = {"horizon": f"{horizon:g}", "rate": f"{rate:g}"}
        for method in shares["method"].unique():
            which = {"horizon": horizon, "learning_rate": rate, "method": method}
            share, _ = single(shares, "share_at_bottom", **which)
            longest, _ = single(summary, "log10_longest_step", **which)
            cells[f"{method}: at the bottom"] = f"{100 * share:.0f} %"
            cells[f"{method}: longest step"] = f"{10**longest:.2g}"
        table.append(cells)
    return pd.DataFrame(table)
