"""Ways of clipping: what they did to the updates, and who succeeded with them, over seeds.

Errors of success and of broken trainings are half of Wilson's 68 % interval, all others standard errors over seeds.
What was clipped is told of the updates until a network had solved its task. Where nothing is clipped but the learning
rate is lower, ln of the factor on it takes the place of that on the clipped updates.
"""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from analysis.seeds import by_series, rows, share_row, shown, single

SERIES = ("network", "method", "threshold")


def summarise(datasets: list[xr.Dataset]) -> pd.DataFrame:
    """Reduce a run to the numbers of each way of clipping at each threshold.

    Args:
        datasets: the points of a run.

    Returns:
        Rows with the series columns network, method and threshold. Updates until solved are the mean over the seeds
        that solved the task, the metric that over those that did not break; both are left out where there are none.
    """
    table = []
    for values, (point,) in by_series(datasets, *SERIES).items():
        series: dict[str, Any] = dict(zip(SERIES, values, strict=True))
        lower_rate, nothing = series["method"] == "none", xr.zeros_like(point["clip_log_factor"])
        solved, whole = point["solved_update"] >= 0, point["first_nonfinite_step"] < 0
        table.append(share_row(series, "success", solved.values))
        table.append(share_row(series, "broken", ~whole.values))
        for quantity, units, measured in (
            ("clip_share", "1", point["clip_share"]),
            ("log_factor", "nats", np.log(series["threshold"]) + nothing if lower_rate else point["clip_log_factor"]),
            ("clip_angle", "degrees", np.degrees(point["clip_angle"])),
            ("log10_largest_gradient_norm", "decades", np.log10(point["largest_gradient_norm"])),
            ("metric", "1", point["metric"][whole.values]),
            ("updates", "updates", point["solved_update"][solved.values]),
        ):
            table += rows(series, quantity, units, list(measured)) if measured.size else []
    return pd.DataFrame(table)


def report(summary: pd.DataFrame) -> pd.DataFrame:
    """Lay out every way of clipping at each threshold.

    Args:
        summary: as `summarise` makes it.

    Returns:
        A row of text for each.
    """
    table = []
    for values in summary[list(SERIES)].drop_duplicates().itertuples(index=False):
        series = dict(zip(SERIES, values, strict=True))
        cells = {name: f"{value:g}" if isinstance(value, float) else value for name, value in series.items()}
        cells |= {"threshold": f"rate x {cells['threshold']}" if series["method"] == "none" else cells["threshold"]}
        for title, quantity, digits in (
            ("solved", "success", 2),
            ("broken", "broken", 2),
            ("updates clipped", "clip_share", 2),
            ("ln factor", "log_factor", 2),
            ("angle [degrees]", "clip_angle", 0),
        ):
            cells[title] = shown(*single(summary, quantity, **series), digits=digits)
        solved = single(summary, "success", **series)[0] > 0
        cells["updates"] = shown(*single(summary, "updates", **series), digits=0) if solved else "—"
        table.append(cells)
    return pd.DataFrame(table)
