"""Two processes of one machine do the work of one: what they write, and how they end."""

import itertools
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from eight_devices import ensemble
from line_experiment import command, contents
from networks import noise

from experiments import processes, runner
from rnn_dynamics import results
from rnn_dynamics.dynamics import Chunked, lyapunov_spectrum

ROOT = Path(__file__).resolve().parents[1]
COMMAND = """
import sys
from experiments import runner
from experiments.__main__ import main
from rnn_dynamics.results import CodeVersion
runner.code_version = lambda: CodeVersion("test")
sys.exit(main(sys.argv[1:], package="questions"))
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def started(words, source, count=2, devices=1, **environment):
    """Start Python processes as SLURM does: by these variables jax finds the others."""
    port = free_port()
    running = []
    for process in range(count):
        variables = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, (source, ROOT))),
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}",
            **environment,
        }
        if count > 1:
            variables |= {
                "SLURM_JOB_ID": "1",
                "SLURM_STEP_NODELIST": "localhost",
                "SLURM_STEP_NUM_NODES": "1",
                "SLURM_NTASKS": str(count),
                "SLURM_PROCID": str(process),
                "SLURM_LOCALID": str(process),
                "JAX_COORDINATOR_PORT": str(port),
            }
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        running.append(subprocess.Popen([sys.executable, *map(str, words)], env=variables, text=True, **streams))
    return running


def ended(running):
    """Wait for the processes: exit code, standard output and standard error of each."""
    try:
        said = [process.communicate(timeout=200) for process in running]
    finally:
        for process in running:
            process.kill()
    return [(process.returncode, *words) for process, words in zip(running, said, strict=True)]


def line_command(folder, *words):
    return ["-c", COMMAND, "line", "--results", folder, *words]


@pytest.fixture
def source(line, tmp_path):
    return tmp_path / "source"


@pytest.mark.slow
def test_two_processes_leave_the_bytes_of_one(source, folder, undisturbed):
    first, second = ended(started(line_command(folder, "--distributed"), source))
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    assert contents(folder) == undisturbed
    assert "3 computed, 0 reused, 0 recomputed" in first[1]
    assert second[1] == ""  # one speaks
    again, _ = ended(started(line_command(folder, "--distributed"), source))
    assert "0 computed, 3 reused, 0 recomputed" in again[1]


@pytest.mark.slow
@pytest.mark.parametrize("failing", [0, 1])
def test_failure_of_one_process_ends_all_and_keeps_finished_points(source, folder, failing):
    slopes = [3, 4, 5]
    slopes.insert(2 + failing, -1)  # the second point of that process
    everyone = ended(started(line_command(folder, "--distributed", "--slopes", *slopes), source))
    assert [code for code, _, _ in everyone] == [2, 2]
    reason = "slope must be positive, not -1.0 (at the point slope-1.0-"
    assert reason in everyone[failing][2]
    others = f"error: process {failing} failed and ended the run, whose finished points are kept: {reason}"
    assert others in everyone[1 - failing][2]
    kept = list(folder.glob("line/*.nc"))
    assert slopes[failing] in {results.read_provenance(results.load(path)).config["slope"] for path in kept}
    assert not list(folder.glob("line/runs/*"))


@pytest.mark.slow
def test_devices_of_one_process_share_the_points(source, folder, undisturbed):
    """Three devices of which two are used, each in a thread; the bytes are those of one."""
    [(code, said, complaint)] = ended(started(line_command(folder, "--devices", 2), source, count=1, devices=3))
    assert code == 0, complaint
    assert "3 computed" in said
    assert contents(folder) == undisturbed


@pytest.mark.slow
def test_distributed_without_a_cluster_is_one_sentence(source, folder):
    [(code, _, complaint)] = ended(started(line_command(folder, "--distributed"), source, count=1))
    assert code == 2
    assert complaint.splitlines()[-1].startswith("error: --distributed needs processes started by SLURM, Open MPI")


@pytest.mark.slow
def test_an_ensemble_and_chunks_over_two_processes(tmp_path):
    """Four devices, two of each process, and the numbers of one."""
    written = tmp_path / "growth.npz"
    script = Path(__file__).with_name("spread_over_processes.py")
    for code, _, complaint in ended(started([script, written], ROOT, devices=2)):
        assert code == 0, complaint
    systems, inputs = ensemble(), noise(40)
    expected = jax.vmap(lambda system: lyapunov_spectrum(system, inputs, k=2).growth)(systems)
    alone = jax.tree.map(lambda leaf: leaf[-1], systems)
    chunked = lyapunov_spectrum(alone, inputs, k=2, method=Chunked(5)).growth
    with np.load(written) as growth:
        np.testing.assert_allclose(growth["ensemble"], expected, rtol=0, atol=1e-11)
        np.testing.assert_allclose(growth["chunked"], chunked, rtol=0, atol=1e-11)


class Store(dict):
    """What jax's coordinator keeps, for processes that take turns; waiting for what nobody has said fails."""

    def key_value_set(self, key, value, allow_overwrite):
        assert allow_overwrite or key not in self
        self[key] = value

    def blocking_key_value_get(self, key, milliseconds):
        return self[key]

    def key_value_dir_get(self, start):
        return [item for item in self.items() if item[0].startswith(start)]


@pytest.fixture
def become(monkeypatch):
    """Play one of two processes."""
    store = Store()
    monkeypatch.setattr(processes, "_store", lambda: store)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(processes, "_runs", itertools.repeat(0))

    def play(process):
        monkeypatch.setattr(jax, "process_index", lambda: process)
        return store

    return play


@pytest.mark.parametrize(
    ("error", "reason"), [(OSError("cannot write"), "cannot write"), (MemoryError(), "MemoryError")]
)
def test_nobody_waits_for_a_first_process_that_failed_before_it_decided(become, error, reason):
    become(0)["rnn_dynamics/0/ended/1"] = ""
    with pytest.raises(type(error)), processes.together():
        raise error
    del become(1)["rnn_dynamics/0/ended/1"]
    with (
        pytest.raises(processes.ProcessFailed, match=f"^process 0 failed .*: {reason}$"),
        processes.together() as peers,
    ):
        peers.agree(lambda: pytest.fail("only the first decides"))
    with pytest.raises(processes.ProcessFailed, match="process 0 failed"):
        peers.check()


def test_what_the_first_decides_is_heard_by_the_others(become):
    become(0)["rnn_dynamics/0/ended/1"] = ""
    with processes.together() as peers:
        assert peers.agree(lambda: {"pending": ["a.nc"]}) == {"pending": ["a.nc"]}
    del become(1)["rnn_dynamics/0/ended/1"]
    with processes.together() as peers:
        assert peers.agree(lambda: pytest.fail("only the first decides")) == {"pending": ["a.nc"]}


def test_a_run_whose_points_are_elsewhere_is_not_recorded(line, folder, capsys, monkeypatch):
    monkeypatch.setattr(runner, "compute", lambda *_, **__: None)
    assert command("line", "--results", folder) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        "error: results must be a folder that all processes see: 3 points are not there, e.g. slope2.0"
    )
    assert len(said.splitlines()) == 1
    assert not list(folder.glob("line/runs/*"))


@pytest.mark.parametrize("number", [0, 2])
def test_number_of_devices_is_checked(line, folder, capsys, number):
    assert command("line", "--results", folder, "--devices", str(number)) == 2
    said = capsys.readouterr().err
    assert said == f"error: devices must be between 1 and the 1 devices that jax sees, got {number}\n"
    assert not folder.exists()
