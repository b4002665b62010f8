"""The runner: killed at any moment, interrupted, run twice at once or over damaged files, it ends with equal bytes."""

import importlib
import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from experiments import runner
from experiments.__main__ import main
from rnn_dynamics import results
from rnn_dynamics.results import CodeVersion, CorruptResult

EXPERIMENT = '''"""How far does a straight line go?

    python -m experiments line --preset laptop

Takes no time on two cores. Expect 3.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr


@dataclass(frozen=True)
class Config:
    slopes: tuple[float, ...] = (1.0, 2.0)
    """How steep the lines are."""
    steps: int = 3


PRESETS = {
    "smoke": Config(),
    "laptop": Config(slopes=(2, 1, 3)),
    "paper": Config(slopes=(1.0, 2.0, 3.0, 4.0)),
}
POINTS_RUN = []


@dataclass(frozen=True)
class Point:
    slope: float
    steps: int
    shape: str = "straight"


def grid(config):
    return [Point(slope, config.steps) for slope in config.slopes]


def run(point):
    POINTS_RUN.append(point)
    if point.slope <= 0:
        raise ValueError(f"slope must be positive, not {point.slope}")
    height = ("step", point.slope * np.arange(point.steps), {"units": "1", "long_name": "height"})
    return xr.Dataset({"height": height})
'''
LAPTOP_SLOPES = [2.0, 1.0, 3.0]


@pytest.fixture
def line(tmp_path, monkeypatch):
    """A package `questions` with one experiment, `line`, freshly imported."""
    package = tmp_path / "source" / "questions"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "runner.py").write_text("def run(): ...")
    (package / "line.py").write_text(EXPERIMENT)
    monkeypatch.syspath_prepend(package.parent)
    for name in ("questions", "questions.line"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    # The checkout may be edited while the tests run, and every byte of provenance is compared.
    monkeypatch.setattr(runner, "code_version", lambda: CodeVersion("test"))
    yield importlib.import_module("questions.line")
    for name in ("questions", "questions.line"):
        sys.modules.pop(name, None)


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "results"


def command(*words: str | Path) -> int:
    return main([str(word) for word in words], package="questions")


def run(line, folder: Path, preset: str = "laptop") -> list[Path]:
    line.POINTS_RUN.clear()
    return runner.run(line, line.PRESETS[preset], results=folder)


def contents(folder: Path) -> dict[str, bytes]:
    """Everything that has to be bit for bit the same: the data and the manifests."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.glob("line/**/*") if is_settled(p)}


def is_settled(path: Path) -> bool:
    return path.suffix == ".nc" or path.parent.name == "runs"


@pytest.fixture
def undisturbed(line, tmp_path) -> dict[str, bytes]:
    run(line, tmp_path / "undisturbed")
    return contents(tmp_path / "undisturbed")


# -- the cache ---------------------------------------------------------------------------------------------------------


def test_points_come_in_grid_order_and_can_be_loaded(line, folder):
    paths = run(line, folder)
    datasets = [results.load(path) for path in paths]
    assert [results.read_provenance(dataset).config["slope"] for dataset in datasets] == LAPTOP_SLOPES
    assert [float(dataset.height[-1]) for dataset in datasets] == [4.0, 2.0, 6.0]
    made = results.read_provenance(datasets[0])
    assert (made.experiment, made.device) == ("line", jax.devices()[0].device_kind)
    assert paths[0].name.startswith("slope2.0-steps3-straight-")


def test_manifest_says_which_points_belong_to_a_preset(line, folder):
    run(line, folder, "paper")
    paths = run(line, folder, "laptop")
    manifest = folder / "line" / "runs" / "laptop.json"
    loaded = results.load_run(manifest)
    assert [results.read_provenance(dataset).config["slope"] for dataset in loaded] == LAPTOP_SLOPES
    record = json.loads(manifest.read_text())
    assert record["points"] == [path.name for path in paths]
    assert record["config"] == {"slopes": LAPTOP_SLOPES, "steps": 3}


def test_own_settings_get_a_manifest_of_their_own(line, folder):
    assert command("line", "--results", folder, "--slopes", "7") == 0
    assert command("line", "--results", folder, "--slopes", "1", "2") == 0
    names = sorted(path.name for path in (folder / "line" / "runs").iterdir())
    assert len(names) == 2
    assert names[0].startswith("custom-")
    assert names[1] == "smoke.json"


def test_repeated_run_only_verifies(line, folder):
    run(line, folder)
    before = {path: path.stat().st_mtime_ns for path in folder.glob("line/[!.]*.*")}  # all but the lock
    assert len(before) == 2 * len(LAPTOP_SLOPES)
    run(line, folder)
    assert line.POINTS_RUN == []
    assert {path: path.stat().st_mtime_ns for path in folder.glob("line/[!.]*.*")} == before


def test_wider_grid_reuses_what_is_there(line, folder):
    run(line, folder, "smoke")
    run(line, folder, "laptop")
    assert [point.slope for point in line.POINTS_RUN] == [3.0]
    run(line, folder, "paper")
    assert [point.slope for point in line.POINTS_RUN] == [4.0]


def test_every_field_of_a_point_counts(line):
    point = line.Point(1.0, 3)
    others = [replace(point, slope=1.5), replace(point, steps=4), replace(point, shape="round")]
    assert len({runner.point_name(other) for other in [point, *others]}) == 4


def test_fresh_computes_again(line, folder, capsys):
    run(line, folder)
    before = contents(folder)
    line.POINTS_RUN.clear()
    assert command("line", "--fresh", "--results", folder) == 0
    assert [point.slope for point in line.POINTS_RUN] == LAPTOP_SLOPES
    assert "0 computed, 0 reused, 3 recomputed" in capsys.readouterr().out
    assert contents(folder) == before


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def edit(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def lose_sidecar(path: Path) -> None:
    path.with_suffix(".json").unlink()


def swap(path: Path) -> None:
    other = next(other for other in path.parent.glob("*.nc") if other != path)
    for suffix in (".nc", ".json"):
        path.with_suffix(suffix).write_bytes(other.with_suffix(suffix).read_bytes())


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (truncate, "is truncated"),
        (edit, "is not what was written"),
        (lose_sidecar, "has no sidecar"),
        (swap, "holds another point than its name says"),
    ],
)
def test_corrupt_file_is_named_and_computed_again(line, folder, capsys, undisturbed, damage, complaint):
    path = run(line, folder)[1]
    damage(path)
    line.POINTS_RUN.clear()
    assert command("line", "--results", folder) == 0
    said = capsys.readouterr()
    assert [point.slope for point in line.POINTS_RUN] == [1.0]
    assert len(said.err.splitlines()) == 1
    assert path.name in said.err
    assert complaint in said.err
    assert "0 computed, 2 reused, 1 recomputed" in said.out
    assert contents(folder) == undisturbed


def test_summary_counts_what_another_version_of_the_code_made(line, folder, capsys, monkeypatch):
    run(line, folder, "smoke")
    monkeypatch.setattr(runner, "code_version", lambda: CodeVersion("newer"))
    assert command("line", "--results", folder) == 0
    assert "1 computed, 2 reused (2 by another version of the code), 0 recomputed" in capsys.readouterr().out


def test_equal_points_are_computed_once(line, folder):
    paths = runner.run(line, line.Config(slopes=(1.0, 1, 1.0)), results=folder)
    assert len(paths) == len(line.POINTS_RUN) == 1
    assert type(line.POINTS_RUN[0].slope) is float


def test_points_of_anything_but_scalars_are_refused(line):
    with pytest.raises(ValueError, match="field 'steps' of Point is a list"):
        runner.point_name(line.Point(1.0, [1]))


def test_file_names_are_safe_and_short():
    @dataclass(frozen=True)
    class Point:
        task: str
        clip: float | None = None

    name = runner.point_name(Point("../a b/β" + "x" * 300))
    assert set("/ β").isdisjoint(name)
    assert not name.startswith(".")
    assert len(name.encode()) < 200
    assert runner.point_name(Point("copy")).startswith("copy-clipNone-")


def test_experiments_run_in_double_precision_and_the_caller_is_left_alone(line, folder, monkeypatch):
    before = (jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision)
    seen = []

    def look(point, run=line.run):
        seen.append((jnp.ones(()).dtype.name, jax.config.jax_default_matmul_precision))
        return run(point)

    monkeypatch.setattr(line, "run", look)
    with jax.enable_x64(False):
        run(line, folder, "smoke")
    assert seen == [("float64", "highest")] * 2
    assert (jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision) == before


def test_progress_shows_on_a_terminal_and_nowhere_else(line, folder, monkeypatch, capsys):
    run(line, folder, "smoke")
    assert capsys.readouterr() == ("", "")
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal)
    run(line, folder, "laptop")
    assert "time left" in terminal.getvalue()


# -- the command -------------------------------------------------------------------------------------------------------


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


# -- kills, interrupts and company -------------------------------------------------------------------------------------
#
# Each runs the command in a process of its own, forked from a server that has imported jax and xarray once.

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["experiments.runner", "tyro"])


def in_process(trouble: Callable[[], None], folder: Path, spoken: Path) -> None:
    """Run the command with `trouble` prepared; its output goes to a file."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdout = sys.stderr = spoken.open("w", buffering=1)
    runner.code_version = lambda: CodeVersion("test")
    trouble()
    sys.exit(command("line", "--results", folder))


@contextmanager
def started(trouble: Callable[[], None], folder: Path, spoken: Path):
    process = PROCESSES.Process(target=in_process, args=(trouble, folder, spoken))
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def finish(trouble: Callable[[], None], folder: Path) -> tuple[int | None, str]:
    spoken = folder.with_suffix(".txt")
    with started(trouble, folder, spoken) as process:
        process.join(60)
        return process.exitcode, spoken.read_text()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def signal_at_replacement(number: int, signal_number: int, *, after: bool) -> None:
    """Send this process a signal just before or after it gives the `number`-th file its name.

    The names are taken in this order: data and sidecar of each point in turn, then the manifest.
    """
    replace, calls = os.replace, []

    def deadly(source, target):
        calls.append(target)
        if len(calls) == number and not after:
            os.kill(os.getpid(), signal_number)
        replace(source, target)
        if len(calls) == number and after:
            os.kill(os.getpid(), signal_number)

    os.replace = deadly


def signal_in_run(number: int, signal_number: int) -> None:
    """Send this process a signal while it computes its `number`-th point."""
    line = importlib.import_module("questions.line")
    run, calls = line.run, []

    def deadly(point):
        calls.append(point)
        if len(calls) == number:
            os.kill(os.getpid(), signal_number)
        return run(point)

    line.run = deadly


KILLS = {
    "before the first data file": partial(signal_at_replacement, 1, signal.SIGKILL, after=False),
    "between data and sidecar": partial(signal_at_replacement, 1, signal.SIGKILL, after=True),
    "after the first point": partial(signal_at_replacement, 2, signal.SIGKILL, after=True),
    "in the second point": partial(signal_in_run, 2, signal.SIGKILL),
    "before the last sidecar": partial(signal_at_replacement, 6, signal.SIGKILL, after=False),
    "before the manifest": partial(signal_at_replacement, 7, signal.SIGKILL, after=False),
}


@pytest.mark.parametrize("moment", KILLS)
def test_killed_run_goes_on_to_the_same_bytes(line, folder, undisturbed, moment):
    assert finish(KILLS[moment], folder) == (-signal.SIGKILL, "")
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("line/*.nc") if is_whole(path)}
    run(line, folder)
    assert contents(folder) == undisturbed
    assert len(line.POINTS_RUN) == len(LAPTOP_SLOPES) - len(kept)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert not list(folder.rglob("*.partial"))


def is_whole(path: Path) -> bool:
    try:
        results.load(path)
    except CorruptResult:
        return False
    return True


INTERRUPTS = {
    "in the second point": partial(signal_in_run, 2, signal.SIGINT),
    "before a data file": partial(signal_at_replacement, 1, signal.SIGINT, after=False),
    "between data and sidecar": partial(signal_at_replacement, 1, signal.SIGINT, after=True),
}


@pytest.mark.parametrize("moment", INTERRUPTS)
def test_interrupt_leaves_whole_files_only(line, folder, undisturbed, moment):
    code, said = finish(INTERRUPTS[moment], folder)
    assert code == 130
    assert said == "interrupted: finished points are kept, and the same command goes on from there\n"
    names = sorted(path.name for path in folder.glob("line/*") if path.name != ".lock")
    assert len(names) == 2
    assert all(is_whole(path) for path in folder.glob("line/*.nc"))
    run(line, folder)
    assert len(line.POINTS_RUN) == 2
    assert contents(folder) == undisturbed


def linger(folder: Path) -> None:
    """Note each point that is computed, and stay in it until the file `go` appears."""
    line = importlib.import_module("questions.line")
    run = line.run

    def slow(point):
        with (folder / "computed").open("a") as log:
            log.write(f"{point.slope}\n")
        wait_for((folder / "go").exists)
        return run(point)

    line.run = slow


@pytest.mark.parametrize("kill_first", [False, True])
def test_second_run_waits_for_the_first_and_both_are_right(line, folder, tmp_path, undisturbed, kill_first):
    first_said, second_said, computed = (tmp_path / name for name in ("first.txt", "second.txt", "computed"))
    with started(partial(linger, tmp_path), folder, first_said) as first:
        wait_for(computed.exists)
        with started(partial(linger, tmp_path), folder, second_said) as second:
            wait_for(lambda: second_said.exists() and "waiting for another run" in second_said.read_text())
            assert computed.read_text() == "2.0\n"
            if kill_first:
                first.kill()
            (tmp_path / "go").touch()
            for process in (first, second):
                process.join(60)
            assert (first.exitcode, second.exitcode) == (-signal.SIGKILL if kill_first else 0, 0)
    slopes = [float(slope) for slope in computed.read_text().split()]
    assert slopes == ([2.0] if kill_first else []) + LAPTOP_SLOPES
    assert second_said.read_text().count("waiting") == 1
    assert ("0 reused" if kill_first else "3 reused") in second_said.read_text()
    assert contents(folder) == undisturbed
