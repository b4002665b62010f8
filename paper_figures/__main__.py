"""Draw figures: `python -m paper_figures [NAME ...] [--summaries FOLDER] [--output figures]`, PNG and PDF."""

import argparse
import pkgutil
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import paper_figures
from paper_figures.style import paper_style
from paper_figures.summaries import FOLDER, read
from rnn_dynamics.discovery import unknown_name


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: words of the command line; those of this process by default.

    Returns:
        The exit code: 2 with one sentence where something is not there.
    """
    options = _parser().parse_args(arguments)
    try:
        _refuse_files(summaries=options.summaries, output=options.output)
        for name in options.names or figures():
            png, pdf = save(name, options.summaries, options.output)
            print(f"figure: {png} and {pdf}")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def figures() -> list[str]:
    """List the modules that draw a figure: those that have a `draw`."""
    modules = [module.name for module in pkgutil.iter_modules(paper_figures.__path__) if module.name[0] != "_"]
    return [name for name in modules if hasattr(import_module(f"paper_figures.{name}"), "draw")]


def save(name: str, summaries: Path, output: Path) -> tuple[Path, Path]:
    """Draw one figure from its summary.

    Args:
        name: of the figure.
        summaries: folder that holds NAME.csv.
        output: folder for NAME.png and NAME.pdf, made if missing.

    Returns:
        The two files.

    Raises:
        ValueError: if there is no figure of that name.
        FileNotFoundError: if there is no summary of that name.
    """
    known = figures()
    if name not in known:
        raise ValueError(unknown_name("figure", name, known))
    summary = read(name, summaries)
    output.mkdir(parents=True, exist_ok=True)
    png, pdf = output / f"{name}.png", output / f"{name}.pdf"
    with paper_style():
        figure = import_module(f"paper_figures.{name}").draw(summary)
        figure.savefig(png)
        figure.savefig(pdf, metadata={"CreationDate": None})  # equal numbers, equal bytes
    return png, pdf


def _refuse_files(**folders: Path) -> None:
    for option, folder in folders.items():
        for place in (folder, *folder.parents):
            if place.is_file():
                raise ValueError(f"--{option} must be a folder, got the file {place}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m paper_figures", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="figures to draw (all)")
    parser.add_argument("--summaries", type=Path, default=FOLDER, help="folder of summaries (the committed ones)")
    parser.add_argument("--output", type=Path, default=Path("figures"), help="folder to write to (figures)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
