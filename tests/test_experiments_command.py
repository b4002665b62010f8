"""`python -m experiments`: one line of summary, one sentence where it refuses, help, and nothing heavy for a list."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from line_experiment import command

from experiments import runner


def test_summary_is_one_line(line, folder, capsys):
    assert command("line", "--preset", "smoke", "--results", folder) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("line: 2 computed, 0 reused, 0 recomputed in ")
    assert out.endswith(f" s, in {folder / 'line'}\n")


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
        (["line", "--steps", "many"], "Error parsing --steps: invalid literal for int() with base 10: 'many'"),
        (["line", "--steps", "1.5"], "Error parsing --steps: invalid literal for int() with base 10: '1.5'"),
        (["line", "--slopes", "steep"], "Error parsing --slopes: Could not find valid parse for arguments: ['steep']"),
        (["line", "--slopes"], "the grid of line is empty: Config(slopes=(), steps=3)"),
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
    assert command("line", "--results", tmp_path / "file") == 2
    assert capsys.readouterr().err == f"error: cannot write in {tmp_path}/file/line: Not a directory\n"
    assert line.POINTS_RUN == []


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
