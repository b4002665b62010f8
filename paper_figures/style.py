"""How every figure looks: sizes, fonts, and one colour, dash and name for each network."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

TEXT_WIDTH = 7.2
"""Inches: two columns of a journal page."""


@dataclass(frozen=True)
class Look:
    """How one network is drawn; lightness and dash tell networks apart in greyscale as well.

    Attributes:
        label: in legends.
        color: of its lines.
        dash: of its lines.
        marker: of its points.
    """

    label: str
    color: str
    dash: str | tuple[int, tuple[float, ...]]
    marker: str


NETWORKS = {
    "elman-tanh": Look("Elman, tanh", "#15335c", "-", "o"),
    "elman-relu": Look("Elman, relu", "#4a9fd8", (0, (5, 1.5)), "s"),
    "lstm": Look("LSTM", "#b8301c", (0, (5, 1.2, 1.2, 1.2)), "^"),
    "gru": Look("GRU", "#f0a11b", (0, (1.6, 1.0)), "D"),
}

SETTINGS: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "lines.linewidth": 1.5,
    "lines.markersize": 3.5,
    "mathtext.fontset": "dejavusans",
    "figure.dpi": 200,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,  # text stays text
    "svg.hashsalt": "rnn_dynamics",
}


@contextmanager
def paper_style() -> Iterator[None]:
    """Draw in the style of the paper, whatever the user's own is."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(SETTINGS)
        yield


def look(network: str) -> Look:
    """Return how a network is drawn; one without a look of its own is grey and called by its name."""
    return NETWORKS.get(network, Look(network, "#777777", "-", "x"))


def draw_curve(axes: Axes, network: str, curve: pd.DataFrame, *, markers: bool = False) -> None:
    """Draw a summary's rows as a line with a band of one standard error.

    Args:
        axes: where.
        network: gives colour, dash and name.
        curve: rows with x, mean and error.
        markers: mark each point.
    """
    how = look(network)
    x, mean, error = (curve[column].to_numpy(float) for column in ("x", "mean", "error"))
    mean = np.where(np.isfinite(mean), mean, np.nan)  # a gap in the line, where there is nothing to draw
    axes.plot(
        x,
        mean,
        color=how.color,
        linestyle=how.dash,
        marker=how.marker if markers else None,
        label=how.label,
    )
    axes.fill_between(x, mean - error, mean + error, color=how.color, alpha=0.2, linewidth=0)


def zero_line(axes: Axes) -> None:
    """Mark where gradients neither grow nor shrink."""
    axes.axhline(0, color="0.6", linewidth=0.7, zorder=0)


def letter(axes: Axes, text: str) -> None:
    """Name a panel above its upper left corner."""
    axes.text(-0.02, 1.06, text, transform=axes.transAxes, fontweight="bold", ha="right", va="bottom")
