"""The reach of gradients before training tells the lag that is learnt; in chaos, where they grow, it is shorter again.

Claim: among networks with lambda_1 < 0 the longest lag learnt grows with the reach; among Elman networks with
lambda_1 > 0 it falls again.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from paper_figures.style import TEXT_WIDTH, letter, look
from paper_figures.summaries import select

CONTROLS = {"elman-tanh": "gain $g$", "gru": "update bias $b_z$"}
"""Network -> what is varied of it."""

REACHES = (1, 2, 5, 10, 20, 50)
"""Ticks, steps."""

RANGE = Normalize(0, 1)
SHARES = ScalarMappable(RANGE, "Greys")


def draw(summary: pd.DataFrame) -> Figure:
    """Draw shares of success by lag above, and the longest lag learnt against exponent and reach below.

    Args:
        summary: of the experiment of the same name.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(TEXT_WIDTH, 4.6), layout="constrained")
    halves: Any = figure.subfigures(2, 1)
    above, below = halves
    networks = [network for network in CONTROLS if network in set(summary["network"])]
    counts = [summary.loc[summary["network"] == network, "control"].nunique() for network in networks]
    maps = above.subplots(1, len(networks), sharey=True, width_ratios=counts, squeeze=False)[0]
    for axes, network, name in zip(maps, networks, "abc", strict=False):
        _shares(axes, select(summary, network=network, quantity="success"))
        axes.set_xlabel(f"{look(network).label}: {CONTROLS[network]}")
        letter(axes, name)
    maps[0].set_ylabel("lag to learn [steps]")
    above.colorbar(SHARES, ax=maps, label="share of seeds that learn")
    left, right = below.subplots(1, 2, sharey=True)
    for network in networks:
        learnt = _by_control(select(summary, network=network))
        _longest(left, network, learnt, "largest_exponent")
        _longest(right, network, select(learnt, fades=True), "reach")
        _power_law(right, network, select(summary, network=network), learnt)
    _label(left, right, sorted(summary.loc[summary["quantity"] == "success", "x"].unique()))
    letter(left, "abcd"[len(networks)])
    letter(right, "abcd"[len(networks) + 1])
    return figure


def _shares(axes: Axes, shares: pd.DataFrame) -> None:
    table = shares.pivot_table(index="x", columns="control", values="mean")
    axes.imshow(table, cmap=SHARES.cmap, norm=RANGE, aspect="auto", origin="lower")
    axes.set_xticks(range(len(table.columns)), [f"{control:g}" for control in table.columns])
    axes.set_yticks(range(len(table.index)), [f"{lag:g}" for lag in table.index])
    axes.spines[:].set_visible(True)


def _by_control(summary: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each control: every number, its error as NAME_error; is the lag a bound, do gradients fade."""
    numbers = summary[summary["x"].isna() & summary["control"].notna()].set_index(["control", "quantity"])
    means, errors = numbers["mean"].unstack(), numbers["error"].unstack().add_suffix("_error")
    return means.join(errors).assign(bound=means["solved_longest"] > 0, fades=means["largest_exponent"] < 0)


def _longest(axes: Axes, network: str, learnt: pd.DataFrame, quantity: str) -> None:
    how = look(network)
    finite = select(learnt.assign(finite=np.isfinite(learnt[quantity])), finite=True)
    columns = (quantity, f"{quantity}_error", "mean_longest_lag", "mean_longest_lag_error")
    x, x_error, lag, lag_error = (finite[name].to_numpy(float) for name in columns)
    axes.errorbar(x, lag, lag_error, x_error, color=how.color, linestyle="none", elinewidth=0.8)
    axes.plot(x, lag, how.marker, color=how.color, markersize=5)
    bound = finite["bound"].to_numpy(bool)
    axes.plot(x[bound], lag[bound], how.marker, color=how.color, markerfacecolor="white", markersize=5)


def _power_law(axes: Axes, network: str, summary: pd.DataFrame, learnt: pd.DataFrame) -> None:
    """Draw the line through the points that are no bounds, where there is one, and name the network."""
    how = look(network)
    fit = summary[summary["control"].isna()].set_index("quantity")
    reach, lag, label = np.array([]), np.array([]), how.label
    if not fit.empty:
        fitted = select(learnt, fades=True, bound=False)["reach"].to_numpy(float)
        power, error = fit.loc["fit_power", ["mean", "error"]]
        reach = np.array([fitted.min(), fitted[np.isfinite(fitted)].max()])
        lag = np.exp(fit.loc["fit_log_factor", "mean"]) * reach**power
        label += f": lag ∝ reach$^{{{power:.2f} ± {error:.2f}}}$"
    axes.plot(reach, lag, color=how.color, linestyle=how.dash, linewidth=1)
    axes.plot([], [], color=how.color, linestyle=how.dash, linewidth=1, marker=how.marker, markersize=5, label=label)


def _label(left: Axes, right: Axes, lags: list[float]) -> None:
    left.axvline(0, color="0.6", linewidth=0.7, zorder=0)
    left.set_xlabel(r"$λ_1$ before training [nats/step]")
    left.set_ylabel("longest lag learnt [steps]")
    left.set_yscale("log")
    left.set_yticks(lags, [f"{lag:g}" for lag in lags])
    right.set_xscale("log")
    right.set_xticks(REACHES, [f"{reach:g}" for reach in REACHES])
    right.set_xlabel(r"reach before training [steps], where $λ_1 < 0$")
    for axes in (left, right):
        axes.minorticks_off()
    bound = Line2D([], [], color="0.4", marker="o", markerfacecolor="white", linestyle="none", label="at least")
    handles, _ = right.get_legend_handles_labels()
    right.legend(handles=[*handles, bound], loc="lower right")
