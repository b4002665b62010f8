"""`python -m experiments`: one line of summary, one sentence where it refuses, help, and nothing heavy for a list."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from line_experiment import command

from experiments import runner


def test_summary_is_one_line(line, folder, capsys):
    assert command("line", "--preset", "smoke", "--results", folder) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("line: 2 computed, 0 reused, 0 recomputed in ")
    assert out.endswith(f" s, in {folder / 'line'}, run smoke\n")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["lime"], "unknown experiment 'lime': did you mean line? known are line"),
        (["line", "--preset", "smok"], "unknown preset 'smok': did you mean smoke? known are smoke, laptop, paper"),
        (["line", "--preset"], "argument --preset: expected one argument"),
        (
            ["line", "--step", "3"],
            "unknown option '--step': did you mean --steps or --slopes? known are --slopes, --steps",
        ),
        (["line", "uphill"], "unknown word 'uphill': known are --slopes, --steps"),
        (["line", "--steps", "many"], "--steps takes one whole number, got 'many'"),
        (["line", "--steps=1.5"], "--steps takes one whole number, got '1.5'"),
        (["line", "--steps", "--slopes", "1"], "--steps takes one whole number, got nothing"),
        (["line", "--slopes", "1", "steep"], "--slopes takes numbers, got '1' 'steep'"),
        (["line", "--slopes", "1", "nan"], "slopes must not hold nan, got (1.0, nan)"),
        (["line", "--slopes"], "the grid of line is empty: slopes must hold at least one value, got none"),
        (["line", "--slopes", "-1.0"], "slope must be positive, not -1.0 (at the point slope-1.0-steps3-straight-"),
        (["--steps", "3"], "unknown experiment '3': known are line"),
        (["--fresher"], "--fresher needs an experiment's name before it: known are line"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(line, folder, capsys, words, sentence):
    assert command(*words, "--results", folder) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {sentence}")
    assert len(err.splitlines()) == 1
    assert not list(folder.glob("line/*.nc"))


def test_unlabelled_result_is_refused(line, folder, capsys, monkeypatch):
    monkeypatch.setattr(line, "run", lambda point, run=line.run: run(point).assign(extra=1.0))
    assert command("line", "--results", folder) == 2
    assert "variable 'extra' has no units" in capsys.readouterr().err


def test_unwritable_folder_is_noticed_before_computing(line, tmp_path, capsys):
    (tmp_path / "file").touch()
    for results in (tmp_path / "file", tmp_path / "file" / "below"):
        assert command("line", "--results", results) == 2
        assert capsys.readouterr().err == f"error: --results must be a folder, got the file {tmp_path}/file\n"
    (tmp_path / "line").touch()
    assert command("line", "--results", tmp_path) == 2
    assert capsys.readouterr().err == f"error: cannot write in {tmp_path}/line: Not a directory\n"
    assert line.POINTS_RUN == []


@pytest.mark.parametrize("seeds", [(-1,), (0, 2**63)])
def test_seeds_out_of_range_are_refused_before_computing(line, folder, seeds):
    @dataclass(frozen=True)
    class Seeded:
        seeds: tuple[int, ...]

    with pytest.raises(ValueError, match=r"^seeds must lie in 0 \.\.\. 2\*\*63 - 1, got " + str(seeds[-1])):
        runner.fill(line, Seeded(seeds), results=folder)
    assert not folder.exists()


def test_numbers_that_overflow_are_one_sentence_too(line, folder, capsys, monkeypatch):
    def overflow(point):
        raise FloatingPointError("the loss became nan at training step 3")

    monkeypatch.setattr(line, "run", overflow)
    assert command("line", "--results", folder) == 2
    assert capsys.readouterr().err.startswith("error: the loss became nan at training step 3 (at the point slope2.0-")


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_usage_without_an_experiment(line, capsys, words):
    assert command(*words) == 0
    assert capsys.readouterr().out.startswith("usage: python -m experiments --list | NAME [--preset PRESET]")


def test_help_of_an_experiment_shows_its_docstring_and_fields(line, folder, capsys):
    with pytest.raises(SystemExit) as exit_request:
        command("line", "--preset", "paper", "--help")
    out = capsys.readouterr().out
    assert exit_request.value.code == 0
    for part in ("How far does a straight line go?", "Expect 3.", "--slopes", "How steep", "1.0 2.0 3.0 4.0"):
        assert part in out
    for shared in ("--preset PRESET", "(default: laptop)", "--results FOLDER", "(default: results)", "--fresh"):
        assert shared in out


def test_list_and_unknown_names_import_nothing_heavy(line):
    code = (
        "import sys\n"
        "from experiments.__main__ import main\n"
        "main(['--list'], 'questions')\n"
        "main(['lime'], 'questions')\n"
        "print({'jax', 'numpy', 'xarray', 'tyro', 'rich', 'rnn_dynamics', 'questions.line'} & set(sys.modules))"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=Path(runner.__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert finished.stdout == "line  How far does a straight line go?\nset()\n"
    assert finished.stderr == "error: unknown experiment 'lime': did you mean line? known are line\n"
