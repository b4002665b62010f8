"""Reading summaries, and picking rows from them."""

from pathlib import Path
from typing import Any, cast

import pandas as pd

FOLDER = Path(__file__).parents[1] / "analysis" / "summaries"
"""The committed summaries."""


def read(name: str, folder: Path = FOLDER) -> pd.DataFrame:
    """Read the summary of an experiment.

    Args:
        name: of the experiment.
        folder: that holds NAME.csv.

    Returns:
        Its rows.

    Raises:
        FileNotFoundError: if there is no summary.
    """
    path = folder / f"{name}.csv"
    if not path.is_file():
        raise FileNotFoundError(f"there is no summary {path}: make it with python -m analysis {name}")
    return pd.read_csv(path)


def select(summary: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """Return the rows whose columns have these values, in their order."""
    chosen = pd.Series(True, index=summary.index)
    for column, value in values.items():
        chosen &= summary[column] == value
    return cast(pd.DataFrame, summary[chosen])
