"""The runner: what is computed, what is reused, and what is noticed to be damaged."""

import io
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from line_experiment import LAPTOP_SLOPES, command, contents, run

from experiments import runner
from rnn_dynamics import results
from rnn_dynamics.results import CodeVersion


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


def test_what_a_point_keeps_while_it_is_computed_is_there_again_and_gone_in_the_end(line, folder, monkeypatch):
    found = []

    def keeps(point, unfinished, run=line.run):
        found.append(sorted(path.name for path in unfinished.glob("*")))
        unfinished.mkdir(parents=True, exist_ok=True)
        (unfinished / "half").write_text(str(point))
        if len(found) == 1:
            raise KeyboardInterrupt
        return run(point)

    monkeypatch.setattr(line, "run", keeps)
    with pytest.raises(KeyboardInterrupt):
        run(line, folder, "smoke")
    run(line, folder, "smoke")
    assert found == [[], ["half"], []]
    assert not list((folder / "line" / "unfinished").glob("*"))


def test_progress_shows_on_a_terminal_and_nowhere_else(line, folder, monkeypatch, capsys):
    run(line, folder, "smoke")
    assert capsys.readouterr() == ("", "")
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal)
    run(line, folder, "laptop")
    assert "time left" in terminal.getvalue()
