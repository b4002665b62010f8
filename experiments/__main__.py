"""The command: `python -m experiments NAME --preset smoke|laptop|paper [--field value ...]`.

Exit codes: 0 done, 2 refused with one sentence on stderr, 130 interrupted. Nothing heavier than the standard library
is imported until there is something to run, so that `--list` and mistyped names answer at once.
"""

import argparse
import ast
import contextlib
import importlib
import io
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import fields
from difflib import get_close_matches
from itertools import groupby, takewhile
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_origin, get_type_hints

PROGRAM = "python -m experiments"
PRESET_NAMES = ("smoke", "laptop", "paper")
SHARED_OPTIONS = "options of every experiment"
KINDS = {int: "whole number", float: "number", str: "name"}
"""What the fields of a `Config` hold, in words."""


class Refusal(ValueError):
    """What was asked for cannot be done; the message is the sentence to print."""


def main(arguments: Sequence[str] | None = None, package: str = "experiments") -> int:
    """Run the command.

    Args:
        arguments: words of the command line; those of this process by default.
        package: dotted name of the package that holds the experiments.

    Returns:
        The exit code.
    """
    try:
        answer(arguments, package)
    except KeyboardInterrupt:
        print("interrupted: finished points are kept, and the same command goes on from there", file=sys.stderr)
        return 130
    except (ValueError, ArithmeticError, OSError, argparse.ArgumentError) as error:
        notes = "".join(f" ({note})" for note in getattr(error, "__notes__", []))
        print(f"error: {error}{notes}", file=sys.stderr)
        return 2
    return 0


def answer(arguments: Sequence[str] | None, package: str) -> None:
    """Do what the command line asks for.

    Args:
        arguments: words of the command line.
        package: dotted name of the package that holds the experiments.

    Raises:
        Refusal: if it asks for what is not there.
    """
    parser = _parser()
    options, words = parser.parse_known_args(arguments)
    questions = find_questions(package)
    if options.list:
        print_questions(questions)
    elif options.name in questions:
        run_command(f"{package}.{options.name}", options, words)
    elif options.name is not None:
        raise Refusal(_unknown("experiment", options.name, questions))
    elif set(words) <= {"-h", "--help"}:
        parser.print_help()
    else:
        raise Refusal(f"{words[0]} needs an experiment's name before it: known are {_listed(questions)}")


def find_questions(package: str) -> dict[str, str]:
    """Read the question of each experiment from its source, without importing it.

    Args:
        package: dotted name of the package that holds the experiments.

    Returns:
        Name -> first line of the docstring, in alphabetical order. A module without `PRESETS` is no experiment.
    """
    questions = {}
    folders = importlib.import_module(package).__path__
    for path in sorted(path for folder in folders for path in Path(folder).glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"), path)
        names = (node for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
        if any(name.id == "PRESETS" for name in names):
            questions[path.stem] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return questions


def print_questions(questions: dict[str, str]) -> None:
    """Print one line per experiment: its name and its question."""
    width = max(map(len, questions), default=0)
    for name, question in questions.items():
        print(f"{name:{width}}  {question}")


def run_command(name: str, options: argparse.Namespace, words: Sequence[str]) -> None:
    """Run one experiment as the command line asks, and print what was done.

    Args:
        name: dotted name of the experiment's module.
        options: what `_parser` understood: preset, results, fresh, devices, distributed.
        words: the rest of the command line, which sets fields of the experiment's `Config`.

    Raises:
        Refusal: if there is no such preset, results would go into a file, or the words do not parse.
    """
    if options.preset not in PRESET_NAMES:
        raise Refusal(_unknown("preset", options.preset, PRESET_NAMES))
    for place in (options.results, *options.results.parents):
        if place.is_file():
            raise Refusal(f"--results must be a folder, got the file {place}")
    # LAPACK's factorisations of matrices of a network's size are fastest on one thread. Read when numpy is imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from experiments import processes, runner

    if options.distributed:
        processes.join()  # before the experiment's module, whose import may compute
    experiment = runner.load_experiment(name)
    config = parse_fields(experiment, options.preset, words)
    outcome = runner.fill(experiment, config, results=options.results, fresh=options.fresh, devices=options.devices)
    if processes.is_first():
        print(outcome)


def parse_fields(experiment: ModuleType, preset: str, words: Sequence[str]) -> Any:
    """Set fields of a preset from the command line.

    Args:
        experiment: the module.
        preset: name of the preset, which supplies the fields that `words` leaves out.
        words: options named after the fields, with their values.

    Returns:
        The experiment's `Config`.

    Raises:
        Refusal: if there is no such field, or a value does not fit it.
        SystemExit: if the words ask for help, which is then printed: the docstring, the fields, the shared options.
    """
    import tyro

    config = experiment.PRESETS[preset]
    program = f"{PROGRAM} {experiment.__name__.rpartition('.')[2]}"
    description = f"{experiment.__doc__}\nDefaults are those of --preset {preset}; there are {_listed(PRESET_NAMES)}."
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            config, rest = tyro.cli(
                type(config),
                default=config,
                args=words,
                prog=program,
                description=description,
                return_unknown_args=True,
            )
    except SystemExit as exit_request:
        if exit_request.code == 0:
            whole = _parser().format_help()
            print(whole[whole.index(SHARED_OPTIONS) :])
            raise
        raise Refusal(_misfit(config, words, box.getvalue())) from None
    if rest:
        kind = "option" if rest[0].startswith("-") else "word"
        raise Refusal(_unknown(kind, rest[0], [f"--{field.name.replace('_', '-')}" for field in fields(config)]))
    return config


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        usage=f"{PROGRAM} --list | NAME [--preset PRESET] [--results FOLDER] [--fresh] [--devices NUMBER] "
        "[--distributed] [--FIELD VALUE ...]",
        description="Run one experiment; `NAME --help` shows what it asks, how long it takes, and its fields.",
        add_help=False,  # NAME --help is the experiment's own
        allow_abbrev=False,
        exit_on_error=False,
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="an experiment")
    parser.add_argument("--list", action="store_true", help="list the experiments and their questions")
    shared = parser.add_argument_group(SHARED_OPTIONS)
    presets = "smoke (seconds), laptop (minutes) or paper (accelerator) (default: %(default)s)"
    shared.add_argument("--preset", default="laptop", help=presets)
    where = "where all results are kept (default: %(default)s)"
    shared.add_argument("--results", default="results", type=Path, metavar="FOLDER", help=where)
    shared.add_argument("--fresh", action="store_true", help="compute also the points that are there")
    number = "how many devices share the points (default: all, of all processes)"
    shared.add_argument("--devices", type=int, metavar="NUMBER", help=number)
    joins = "be one of the processes that SLURM, Open MPI or a TPU pod has started; see docs/devices.md"
    shared.add_argument("--distributed", action="store_true", help=joins)
    return parser


def _misfit(config: Any, words: Sequence[str], box: str) -> str:
    """Say what a field takes and what came, or what tyro says if the field is of a kind that we have no word for."""
    sentence = _sentence(box)
    option = (re.findall(r"--[\w-]+", sentence) or [""])[0]
    field_type = get_type_hints(type(config)).get(option[2:].replace("-", "_"))
    several = get_origin(field_type) is tuple
    kind = KINDS.get(get_args(field_type)[0] if several else field_type)
    if kind is None:
        return sentence
    return f"{option} takes {f'{kind}s' if several else f'one {kind}'}, got {_given(words, option) or 'nothing'}"


def _given(words: Sequence[str], option: str) -> str:
    """Quote what the command line gives an option, in either of its forms: `--option VALUE ...`, `--option=VALUE`."""
    heads = [word.partition("=")[0].replace("_", "-") for word in words]
    last = max(place for place, head in enumerate(heads) if head == option)
    _, equals, value = words[last].partition("=")
    values = [value] if equals else takewhile(lambda word: not word.startswith("--"), words[last + 1 :])
    return " ".join(map(repr, values))


def _sentence(box: str) -> str:
    """Take tyro's sentence out of the box that it draws: the first text below the title, up to a rule."""
    rows = [line.strip("│ ") for line in box.splitlines()[1:]]
    sections = groupby(rows, key=lambda row: bool(row.strip("─-╰╯")))
    return next((" ".join(section) for is_text, section in sections if is_text), box)


def _unknown(kind: str, name: str, known: Iterable[str]) -> str:
    # Worded as in rnn_dynamics.discovery, whose import would load jax.
    near = get_close_matches(name, list(known), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"unknown {kind} {name!r}: {hint}known are {_listed(known)}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


if __name__ == "__main__":
    sys.exit(main())
