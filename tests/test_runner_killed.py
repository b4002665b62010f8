"""The runner, killed at any moment, interrupted or run twice at once, ends with equal bytes.

Each runs the command in a process of its own, forked from a server that has imported jax and xarray once.
"""

import importlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from line_experiment import LAPTOP_SLOPES, command, contents, is_whole, run

from experiments import runner
from rnn_dynamics.results import CodeVersion

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
