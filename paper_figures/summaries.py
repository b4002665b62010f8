"""Reading summaries, and picking rows from them."""

from pathlib import Path
from typing import Any, cast

import pandas as pd

FOLDER = Path(__file__).parents[1] / "analysis" / "summaries"
"""The committed summaries."""

COLUMNS = ("quantity", "units", "x", "mean", "error")
"""What every summary has, besides those that say which curve a row belongs to."""


def read(name: str, folder: Path = FOLDER) -> pd.DataFrame:
    """Read the summary of an experiment.

    Args:
        name: of the experiment.
        folder: that holds NAME.csv.

    Returns:
        Its rows.

    Raises:
        FileNotFoundError: if there is no summary.
        ValueError: if it is none.
    """
    path, how = folder / f"{name}.csv", f"python -m analysis {name} --summaries {folder}"
    if not path.is_file():
        raise FileNotFoundError(f"there is no summary {path}: make it with {how}")
    try:
        summary = pd.read_csv(path)
    except ValueError as error:
        raise ValueError(f"{path} is no summary ({error}): make it again with {how}") from error
    missing = [column for column in COLUMNS if column not in summary.columns]
    if missing:
        raise ValueError(f"{path} is no summary (it has no column {', '.join(missing)}): make it again with {how}")
    return summary


def select(summary: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """Return the rows whose columns have these values, in their order."""
    chosen = pd.Series(True, index=summary.index)
    for column, value in values.items():
        chosen &= summary[column] == value
    return cast(pd.DataFrame, summary[chosen])
