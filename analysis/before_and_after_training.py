"""Before and after training: Jacobian growth, spectra, gradient norms and accuracies, as means over seeds."""

import numpy as np
import pandas as pd
import xarray as xr

from analysis.seeds import by_series, rows, shown, single

STAGES = ("before", "after")


def summarise(datasets: list[xr.Dataset]) -> pd.DataFrame:
    """Reduce a run to the curves and numbers of its figure.

    Args:
        datasets: the points of a run.

    Returns:
        Rows with the series columns network and stage.
    """
    table = []
    for (network,), points in by_series(datasets, "network").items():
        for stage in STAGES:
            table += _stage({"network": network, "stage": stage}, [point.sel(stage=stage) for point in points])
        training = {"network": network, "stage": "training"}
        table += rows(training, "clip_share", "1", [point["clip_share"] for point in points])
        table += rows(training, "clip_factor", "1", [point["clip_factor"] for point in points])
        table += rows(training, "chance_level", "1", [point["chance_level"] for point in points])
    return pd.DataFrame(table)


def _stage(series: dict[str, str], points: list[xr.Dataset]) -> list[dict]:
    norms = [point["log_singular_values"].isel(index=0).mean("start") for point in points]
    fractions = [point["exponent"].assign_coords(index=_fraction(point["index"])) for point in points]
    at_steps = [_log10(point["loss_gradient_norm"]) for point in points]
    return [
        *rows(series, "log_norm", "nats", norms, x="horizon"),
        *rows(series, "exponent", "nats per step", fractions, within=_all(points, "exponent_error"), x="index"),
        *rows(series, "log_gradient_norm", "nats", _all(points, "log_gradient_norm"), x="lag"),
        *rows(series, "log10_loss_gradient", "decades", at_steps, x="time"),
        *rows(
            series,
            "largest_exponent",
            "nats per step",
            [point["exponent"].isel(index=0) for point in points],
            within=[point["exponent_error"].isel(index=0) for point in points],
        ),
        *rows(series, "reach", "steps", _all(points, "reach"), within=_all(points, "reach_error")),
        *rows(series, "accuracy", "1", _all(points, "accuracy")),
        *rows(series, "log_det_residual", "nats per step", _all(points, "log_det_residual")),
    ]


def _all(points: list[xr.Dataset], name: str) -> list[xr.DataArray]:
    return [point[name] for point in points]


def _log10(norm: xr.DataArray) -> xr.DataArray:
    """Logarithm of a norm; NaN where it is 0, as behind units that are all at rest."""
    positive = norm.where(norm > 0)
    return positive.copy(data=np.log10(positive.values))


def _fraction(index: xr.DataArray) -> np.ndarray:
    """Index i/N of the exponents, so that states of different size share an axis."""
    return (index.values + 0.5) / index.size


def report(summary: pd.DataFrame) -> pd.DataFrame:
    """Lay out what a person wants to read first.

    Args:
        summary: as `summarise` makes it.

    Returns:
        A row of text for each network.
    """
    table = []
    longest = summary.loc[summary["quantity"] == "log_gradient_norm", "x"].max()
    for network in summary["network"].unique():
        cells = {"network": network}
        cells["test accuracy"] = shown(*single(summary, "accuracy", network=network, stage="after"), digits=3)
        for stage in STAGES:
            exponent = single(summary, "largest_exponent", network=network, stage=stage)
            cells[f"λ₁ {stage} [nats/step]"] = shown(*exponent, digits=3)
        for stage in STAGES:
            reach, error = single(summary, "reach", network=network, stage=stage)
            # Of one network at least the norm has not fallen so far.
            cells[f"reach {stage} [steps]"] = f"> {longest:.0f}" if np.isinf(reach) else shown(reach, error, digits=1)
        share, _ = single(summary, "clip_share", network=network)
        cells["updates clipped"] = f"{100 * share:.0f} %"
        table.append(cells)
    return pd.DataFrame(table)
