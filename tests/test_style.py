"""How curves are drawn: what is marked, and that a curve that stops being finite says so."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from paper_figures.style import END, NETWORKS, draw_curve


def drawn_ends(mean):
    """Return x where a curve over x = 0, 1, ... is marked as ended."""
    axes = Figure().subplots()
    draw_curve(axes, "gru", pd.DataFrame({"x": np.arange(len(mean)), "mean": mean, "error": 0.1}))
    _, ends = axes.get_lines()
    assert ends.get_marker() == END["marker"]
    return np.asarray(ends.get_xdata()).tolist()


@pytest.mark.parametrize(
    ("mean", "ends"),
    [
        ([1.0, 2.0, 3.0], []),
        ([1.0, 2.0, -np.inf, -np.inf], [1]),
        ([np.nan, 2.0, 3.0], [1]),
        ([1.0, np.nan, 3.0, 4.0], [0, 2]),
        ([np.nan, 2.0, np.nan], [1]),
        ([np.nan, np.nan], []),
    ],
)
def test_a_curve_is_marked_beside_every_gap(mean, ends):
    assert drawn_ends(mean) == ends


def test_no_two_networks_share_a_dash_or_a_marker():
    for attribute in ("color", "dash", "marker"):
        assert len({getattr(how, attribute) for how in NETWORKS.values()}) == len(NETWORKS)
