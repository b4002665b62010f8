"""Results on disk: what is read is what was written, or it is refused."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from rnn_dynamics import results
from rnn_dynamics.results import CodeVersion, CorruptResult, Provenance, UnwritableFolder, load, save

PROVENANCE = Provenance(
    experiment="spectrum",
    config={"cell": "gru", "gain": 1.5, "seed": 3, "data_seed": 4, "clip": None},
    device="cpu",
    code=CodeVersion("0.1.0", "0123abcd", clean=True),
    packages={"numpy": "2.0"},
)


def spectrum() -> xr.Dataset:
    def attributes(units: str, long_name: str) -> dict[str, str]:
        return {"units": units, "long_name": long_name}

    exponents = np.array([[0.1, -0.2, np.nan], [0.3, -np.inf, -1e-300]])
    return xr.Dataset(
        {
            "exponent": (("ensemble", "k"), exponents, attributes("nats per step", "Lyapunov exponent")),
            "duration": ("ensemble", [1.5, 2.5], attributes("seconds", "duration")),
            "start": ((), 3, attributes("hours since 2000-01-01", "start")),
            "converged": ("ensemble", [True, False], attributes("1", "converged")),
            "count": ((), 7, attributes("1", "count")),
        },
        coords={
            "k": ("k", np.arange(3), attributes("1", "index of the exponent")),
            "cell": ("ensemble", ["gru", "βRNN"], attributes("1", "cell")),
        },
        attrs={"question": "why?"},
    )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "gru-gain1.5-0a1b2c3d.nc"
    save(path, spectrum(), PROVENANCE, seconds=1.25)
    return path


def test_round_trip_keeps_values_types_and_labels(saved):
    loaded = load(saved)
    assert results.read_provenance(loaded) == PROVENANCE
    del loaded.attrs["provenance"]
    xr.testing.assert_identical(loaded, spectrum())
    assert {name: v.dtype for name, v in loaded.variables.items()} == {
        name: v.dtype for name, v in spectrum().variables.items()
    }


def test_provenance_names_its_seeds_and_hash(saved):
    record = json.loads(load(saved).attrs["provenance"])
    assert record["seeds"] == {"seed": 3, "data_seed": 4}
    assert record["config_hash"] == results.config_hash(PROVENANCE.config)


def test_hash_sees_every_value_and_no_order():
    config = dict(PROVENANCE.config)
    assert results.config_hash(dict(reversed(config.items()))) == results.config_hash(config)
    assert len({results.config_hash({**config, name: "other"}) for name in config}) == len(config)


def test_equal_content_is_equal_bytes(saved, tmp_path):
    time.sleep(1.1)  # HDF5's own time stamps, were there any, count in seconds
    save(tmp_path / "later.nc", spectrum(), PROVENANCE, seconds=99.0)
    assert (tmp_path / "later.nc").read_bytes() == saved.read_bytes()


def test_saving_what_was_loaded_gives_the_same_bytes(saved, tmp_path):
    save(tmp_path / "again.nc", load(saved), PROVENANCE)
    assert (tmp_path / "again.nc").read_bytes() == saved.read_bytes()


def test_encodings_of_a_dataset_do_not_reach_the_file(saved, tmp_path):
    dataset = spectrum()
    dataset["exponent"].encoding = {"dtype": "float32", "zlib": True}
    save(tmp_path / "again.nc", dataset, PROVENANCE)
    assert (tmp_path / "again.nc").read_bytes() == saved.read_bytes()


def test_bytes_do_not_depend_on_the_process(saved, tmp_path):
    code = (
        "import sys; from pathlib import Path; import test_results as t;"
        "t.save(Path(sys.argv[1]), t.spectrum(), t.PROVENANCE)"
    )
    root = Path(results.__file__).parents[1]
    environment = {"PYTHONPATH": ":".join([str(root), str(Path(__file__).parent), *sys.path]), "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", code, tmp_path / "other.nc"], check=True, env=environment)
    assert (tmp_path / "other.nc").read_bytes() == saved.read_bytes()


def test_sidecar_holds_what_differs_between_runs(saved):
    sidecar = json.loads(saved.with_suffix(".json").read_text())
    assert set(sidecar) == {"sha256", "bytes", "seconds", "created", "python", "platform"}
    assert sidecar["seconds"] == 1.25
    assert sidecar["bytes"] == saved.stat().st_size


@pytest.mark.parametrize("size", [0, 1, -1])
def test_truncated_file_is_refused(saved, size):
    content = saved.read_bytes()
    saved.write_bytes(content[:size])
    with pytest.raises(
        CorruptResult, match=rf"{saved.name} is truncated: {len(content[:size])} of {len(content)} bytes"
    ):
        load(saved)


@pytest.mark.parametrize("place", [0, 0.5, 1])
def test_one_edited_byte_is_refused(saved, place):
    content = bytearray(saved.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    saved.write_bytes(content)
    with pytest.raises(CorruptResult, match=rf"{saved.name} is not what was written"):
        load(saved)


def test_appended_bytes_are_refused(saved):
    saved.write_bytes(saved.read_bytes() + b"\0")
    with pytest.raises(CorruptResult, match="is not what was written"):
        load(saved)


def test_missing_sidecar_is_refused(saved):
    saved.with_suffix(".json").unlink()
    with pytest.raises(CorruptResult, match=rf"{saved.name} has no sidecar {saved.stem}.json"):
        load(saved)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"sha256": 1}'])
def test_unreadable_sidecar_is_refused(saved, text):
    saved.with_suffix(".json").write_text(text)
    with pytest.raises(CorruptResult, match=rf"{saved.stem}.json is not readable"):
        load(saved)


def test_missing_file_is_not_called_corrupt(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no result .*absent\.nc"):
        load(tmp_path / "absent.nc")


@pytest.mark.parametrize("attribute", ["units", "long_name"])
@pytest.mark.parametrize("name", ["exponent", "k"])
def test_unlabelled_variable_is_refused_by_name(tmp_path, name, attribute):
    dataset = spectrum()
    del dataset[name].attrs[attribute]
    with pytest.raises(ValueError, match=rf"variable '{name}' has no {attribute}"):
        save(tmp_path / "result.nc", dataset, PROVENANCE)
    assert list(tmp_path.iterdir()) == []


def test_other_endings_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"ends in \.nc"):
        save(tmp_path / "result.json", spectrum(), PROVENANCE)


def test_saving_leaves_the_dataset_as_it_was(tmp_path):
    dataset = spectrum()
    save(tmp_path / "result.nc", dataset, PROVENANCE)
    xr.testing.assert_identical(dataset, spectrum())


def test_failed_save_leaves_the_old_result_whole(saved, monkeypatch):
    before = saved.read_bytes()

    def full_disk(*_):
        raise OSError(28, "")

    monkeypatch.setattr(results.os, "fsync", full_disk)
    with pytest.raises(UnwritableFolder, match=rf"cannot write {saved.name} in .*: No space left on device"):
        save(saved, spectrum().isel(k=slice(2)), PROVENANCE)
    assert sorted(p.name for p in saved.parent.iterdir()) == sorted([saved.name, f"{saved.stem}.json"])
    assert saved.read_bytes() == before
    load(saved)


@pytest.mark.parametrize("write", [results.prepare_folder, lambda f: save(f / "x.nc", spectrum(), PROVENANCE)])
def test_unwritable_folder_is_named(tmp_path, write):
    (tmp_path / "file").touch()
    with pytest.raises(UnwritableFolder, match=rf"cannot write .*{tmp_path}/file/folder: Not a directory"):
        write(tmp_path / "file" / "folder")


def test_prepared_folder_is_there_and_empty(tmp_path):
    results.prepare_folder(tmp_path / "deep" / "folder")
    assert list((tmp_path / "deep" / "folder").iterdir()) == []


def test_load_all_reads_every_result_by_name(tmp_path):
    for gain in (2.0, 1.0):
        save(tmp_path / f"gain{gain}.nc", spectrum(), Provenance("spectrum", {"gain": gain}, "cpu"))
    gains = [results.read_provenance(dataset).config["gain"] for dataset in results.load_all(tmp_path)]
    assert gains == [1.0, 2.0]
    (tmp_path / "gain1.0.json").unlink()
    with pytest.raises(CorruptResult, match=r"gain1\.0\.nc has no sidecar"):
        results.load_all(tmp_path)


def test_load_all_refuses_an_empty_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="there are no results in"):
        results.load_all(tmp_path)


def test_load_run_reads_its_own_points_in_order(tmp_path):
    paths = [tmp_path / f"{name}.nc" for name in ("b", "a", "stranger")]
    for path in paths:
        save(path, spectrum(), Provenance("spectrum", {"name": path.stem}, "cpu"))
    manifest = tmp_path / "runs" / "laptop.json"
    results.save_manifest(manifest, "spectrum", {"names": ("b", "a")}, paths[:2])
    names = [results.read_provenance(dataset).config["name"] for dataset in results.load_run(manifest)]
    assert names == ["b", "a"]
    paths[1].unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.nc"):
        results.load_run(manifest)


def test_load_run_says_what_is_wrong_with_a_manifest(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no finished run .*laptop\.json"):
        results.load_run(tmp_path / "runs" / "laptop.json")
    (tmp_path / "laptop.json").write_text("{}")
    with pytest.raises(CorruptResult, match=r"laptop\.json is not a readable manifest"):
        results.load_run(tmp_path / "laptop.json")


def test_dataset_without_provenance_is_refused():
    with pytest.raises(CorruptResult, match="the dataset carries no readable attribute 'provenance'"):
        results.read_provenance(spectrum())


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", folder, *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "ROOT", tmp_path.resolve())
    monkeypatch.setattr(results, "code_version", results.code_version.__wrapped__)
    git(tmp_path, "init", "--quiet")
    (tmp_path / "cell.py").write_text("gain = 1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    return tmp_path


def test_code_version_is_the_commit_and_whether_python_files_differ(checkout):
    commit = git(checkout, "rev-parse", "HEAD").strip()
    (checkout / "results").mkdir()
    (checkout / "results" / "point.nc").touch()
    assert results.code_version() == CodeVersion(results.code_version().package, commit, clean=True)
    (checkout / "experiments").mkdir()
    (checkout / "experiments" / "new.py").touch()
    assert results.code_version().clean is False
    (checkout / "experiments" / "new.py").unlink()
    (checkout / "cell.py").write_text("gain = 2\n")
    assert results.code_version().clean is False


def test_code_version_ignores_a_checkout_around_the_installation(checkout, monkeypatch):
    (checkout / "site-packages").mkdir()
    monkeypatch.setattr(results, "ROOT", checkout.resolve() / "site-packages")
    assert results.code_version().commit == "unknown"
    assert results.code_version().clean is None


def test_code_version_is_unknown_without_git(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert results.code_version() == CodeVersion(results.code_version().package)


def test_packages_are_those_installed():
    assert results.package_versions("numpy", "no-such-package") == {"numpy": np.__version__}


def test_module_does_not_import_jax():
    source = Path(results.__file__).read_text()
    assert "import jax" not in source
    assert "from jax" not in source
