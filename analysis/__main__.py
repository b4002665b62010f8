"""Summarise finished runs: `python -m analysis NAME [--run laptop] [--results results] [--summaries FOLDER]`."""

import argparse
import json
import pkgutil
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import pandas as pd
import xarray as xr
from rich.console import Console
from rich.table import Table

import analysis
from rnn_dynamics.discovery import unknown_name
from rnn_dynamics.results import load_run, prepare_folder, read_provenance, write_whole

SUMMARIES = Path(__file__).parent / "summaries"
"""The committed summaries, which the figures show unless told otherwise."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: words of the command line; those of this process by default.

    Returns:
        The exit code: 2 with one sentence where something is not there.
    """
    options = _parser().parse_args(arguments)
    try:
        _refuse_files(results=options.results, summaries=options.summaries)
        summarise(options.name, options.results / options.name / "runs" / f"{options.run}.json", options.summaries)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def experiments_with_summaries() -> list[str]:
    """List the modules that can summarise an experiment: those that have a `summarise`."""
    modules = [module.name for module in pkgutil.iter_modules(analysis.__path__) if not module.name.startswith("_")]
    return [name for name in modules if hasattr(import_module(f"analysis.{name}"), "summarise")]


def summarise(name: str, manifest: Path, summaries: Path) -> None:
    """Write NAME.csv and NAME.json, and print the report.

    Args:
        name: the experiment.
        manifest: of the finished run.
        summaries: folder to write to.

    Raises:
        ValueError: if no module summarises that experiment, or its run is not whole.
        OSError: if there is no such run, or the summary cannot be written.
    """
    known = experiments_with_summaries()
    if name not in known:
        raise ValueError(unknown_name("summary", name, known))
    module = import_module(f"analysis.{name}")
    prepare_folder(summaries)
    datasets = load_run(manifest)
    summary = module.summarise(datasets)
    write_whole(summaries / f"{name}.csv", summary.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    provenance = {"experiment": name, "run": json.loads(manifest.read_text()), "made_by": _made_by(datasets)}
    write_whole(summaries / f"{name}.json", json.dumps(provenance, indent=2) + "\n")
    print_report(module.report(summary))
    print(f"summary: {summaries / name}.csv, and what made it: {name}.json")


def print_report(report: pd.DataFrame) -> None:
    """Print a table of text; as wide as the terminal, or as it needs where there is none."""
    table = Table(header_style="bold")
    for number, column in enumerate(report.columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    for row in report.itertuples(index=False):
        table.add_row(*row)
    console = Console()
    console = console if console.is_terminal else Console(width=160)
    console.print(table)


def _made_by(datasets: list[xr.Dataset]) -> list[dict]:
    """Code, device and packages of the points; one entry for each that differs, without their settings."""
    distinct: list[dict] = []
    for dataset in datasets:
        made = json.loads(read_provenance(dataset).to_json())
        made = {key: value for key, value in made.items() if key in {"code", "device", "packages"}}
        if made not in distinct:
            distinct.append(made)
    return distinct


def _refuse_files(**folders: Path) -> None:
    for option, folder in folders.items():
        for place in (folder, *folder.parents):
            if place.is_file():
                raise ValueError(f"--{option} must be a folder, got the file {place}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m analysis", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", help="experiment whose run to summarise")
    parser.add_argument("--run", default="laptop", help="preset, or custom-HASH as in results/NAME/runs (laptop)")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of results (results)")
    parser.add_argument("--summaries", type=Path, default=SUMMARIES, help="folder to write to (the committed ones)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
