"""Labelled arrays to disk and back, with what made them.

A result is two files side by side:

    NAME.nc     netCDF4: the arrays, and in the attribute `provenance` all that the numbers depend on (`Provenance`)
    NAME.json   the sidecar: the checksum and size of NAME.nc, and what differs from run to run (clock, host, Python)

Equal numbers with equal provenance are equal bytes: nothing that varies between two runs enters NAME.nc. Each file
takes its name in one step, data first and sidecar last, so a data file that its sidecar does not vouch for is one
whose writing was cut short, or that was changed since; `load` refuses it.

A run over a grid leaves one such pair per point, and a manifest (`save_manifest`) that says which points, in which
order, belong to it.
"""

import errno
import hashlib
import importlib.metadata
import io
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import xarray as xr

ROOT = Path(__file__).resolve().parents[1]
PARTIAL_SUFFIX = ".partial"
PROVENANCE = "provenance"
RECORDED_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "scipy", "xarray", "h5netcdf", "h5py")


class CorruptResult(ValueError):
    """A file on disk is not what was written; the message names the file and says what is wrong with it."""


class UnwritableFolder(OSError):
    """Results cannot be written where they should go; the message names the place and the reason."""


@dataclass(frozen=True)
class CodeVersion:
    """The source that made a result.

    Attributes:
        package: version of the installed rnn_dynamics, "unknown" where it is imported without being installed.
        commit: full git commit of the checkout that holds the package, "unknown" outside one.
        clean: whether every Python file of the checkout was as in that commit; None outside one.
    """

    package: str
    commit: str = "unknown"
    clean: bool | None = None


@cache
def code_version() -> CodeVersion:
    """Look up, once per process, the version of the code that is running."""
    package = package_versions("rnn_dynamics").get("rnn_dynamics", "unknown")
    try:
        top, commit = _git("rev-parse", "--show-toplevel", "HEAD").splitlines()
        if Path(top).resolve() != ROOT:  # installed into somebody else's checkout, whose commit says nothing of us
            return CodeVersion(package)
        # Only Python files count: results written inside the checkout must not make the next point's code look edited.
        edits = _git("status", "--porcelain", "--untracked-files=all", "--", "*.py")
    except (OSError, subprocess.SubprocessError):
        return CodeVersion(package)
    return CodeVersion(package, commit, clean=not edits)


@cache
def package_versions(*names: str) -> dict[str, str]:
    """Read the versions of those of the named packages that are installed, without importing them."""
    versions = {}
    for name in names:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


@dataclass(frozen=True)
class Provenance:
    """What a result's numbers depend on, and nothing that differs between two runs of the same thing.

    Attributes:
        experiment: name of the experiment.
        config: setting -> number, string, bool or None.
        device: kind of device that computed, as jax names it.
        code: source that computed.
        packages: package -> version.
    """

    experiment: str
    config: Mapping[str, Any]
    device: str
    code: CodeVersion = field(default_factory=code_version)
    packages: Mapping[str, str] = field(default_factory=lambda: package_versions(*RECORDED_PACKAGES))

    @property
    def seeds(self) -> dict[str, Any]:
        """The settings that are seeds: those with "seed" in their name."""
        return {name: value for name, value in self.config.items() if "seed" in name}

    def to_json(self) -> str:
        """Write all fields, the seeds and the hash of the settings as one line of JSON."""
        return canonical_json({**asdict(self), "seeds": self.seeds, "config_hash": config_hash(self.config)})

    @classmethod
    def from_json(cls, text: str) -> "Provenance":
        """Read what `to_json` wrote."""
        record = json.loads(text)
        code = CodeVersion(**record["code"])
        return cls(record["experiment"], record["config"], record["device"], code, record["packages"])


def canonical_json(content: Any) -> str:
    """Write JSON in the one form that equal content always has: sorted keys, no spaces."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def config_hash(config: Mapping[str, Any]) -> str:
    """Hash settings: sha256, in hexadecimal, of their canonical JSON."""
    return hashlib.sha256(canonical_json(config).encode()).hexdigest()


def labelled(dims: str | tuple[str, ...], values: Any, units: str, long_name: str) -> xr.Variable:
    """Make a variable as results have to hold it.

    Args:
        dims: names of its axes; () for a number.
        values: array-like.
        units: as on an axis label; "1" for pure numbers.
        long_name: what it is, as on an axis label.

    Returns:
        The variable.
    """
    return xr.Variable(dims, np.asarray(values), {"units": units, "long_name": long_name})


def save(path: Path, dataset: xr.Dataset, provenance: Provenance, *, seconds: float | None = None) -> None:
    """Write a result and then its sidecar, each in one step.

    Args:
        path: where the data goes, ending in ".nc"; its folder is made if it is missing.
        dataset: every variable and coordinate has the attributes `units` ("1" for pure numbers and names) and
            `long_name`.
        provenance: what made it.
        seconds: how long the computation took.

    Raises:
        ValueError: if a variable lacks its unit or its name, or `path` has another ending.
        UnwritableFolder: if the files cannot be written.
    """
    if path.suffix != ".nc":
        raise ValueError(f"a result's file name ends in .nc, which {path.name!r} does not")
    for name, variable in dataset.variables.items():
        for attribute in ("units", "long_name"):
            if not variable.attrs.get(attribute):
                raise ValueError(f"variable {name!r} has no {attribute}: set .attrs[{attribute!r}] before saving")
    with _taking_name(path) as partial:
        # Encodings are left over from the file that a dataset was loaded from, and would change the bytes.
        labelled = dataset.drop_encoding().assign_attrs({PROVENANCE: provenance.to_json()})
        labelled.to_netcdf(partial, engine="h5netcdf")
        content = partial.read_bytes()
    sidecar = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "seconds": seconds,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    _write_json(path.with_suffix(".json"), sidecar)


def load(path: Path) -> xr.Dataset:
    """Read a result that is exactly what was written.

    Args:
        path: the data file.

    Returns:
        The dataset, in memory. Units stay attributes: nothing is turned into dates or durations.

    Raises:
        FileNotFoundError: if there is no such file.
        CorruptResult: if the file is cut short or edited, or its sidecar is missing or unreadable.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no result {path}")
    content = path.read_bytes()
    sidecar = path.with_suffix(".json")
    try:
        written = json.loads(sidecar.read_text())
        size, checksum = written["bytes"], written["sha256"]
    except FileNotFoundError:
        raise CorruptResult(f"{path} has no sidecar {sidecar.name}: its writing was cut short") from None
    except (ValueError, KeyError, TypeError):
        raise CorruptResult(f"{path} cannot be checked: its sidecar {sidecar.name} is not readable") from None
    if len(content) < size:
        raise CorruptResult(f"{path} is truncated: {len(content)} of {size} bytes")
    if hashlib.sha256(content).hexdigest() != checksum:
        raise CorruptResult(f"{path} is not what was written: its sha256 differs from the one in {sidecar.name}")
    dataset = xr.load_dataset(io.BytesIO(content), engine="h5netcdf", decode_times=False)
    dataset.encoding["source"] = str(path)
    return dataset


def read_provenance(dataset: xr.Dataset) -> Provenance:
    """Read what made a loaded result; its `config` holds the settings of the point.

    Args:
        dataset: what `load` returned.

    Returns:
        The provenance that `save` was given.

    Raises:
        CorruptResult: if the dataset carries none, or an unreadable one.
    """
    try:
        return Provenance.from_json(dataset.attrs[PROVENANCE])
    except (ValueError, KeyError, TypeError) as error:
        source = dataset.encoding.get("source", "the dataset")
        raise CorruptResult(f"{source} carries no readable attribute {PROVENANCE!r}") from error


def load_all(folder: Path) -> list[xr.Dataset]:
    """Read every result of a folder, whichever runs they came from.

    Args:
        folder: the folder of one experiment.

    Returns:
        The datasets in the order of their file names; `read_provenance(dataset).config` tells them apart.

    Raises:
        FileNotFoundError: if there is none.
        CorruptResult: if one of them is not whole; none is left out silently.
    """
    paths = sorted(folder.glob("*.nc"))
    if not paths:
        raise FileNotFoundError(f"there are no results in {folder}")
    return [load(path) for path in paths]


def save_manifest(path: Path, experiment: str, config: Mapping[str, Any], points: Iterable[Path]) -> None:
    """Record which results make up one finished run over a grid; holds no clock, so equal runs write equal bytes.

    Args:
        path: where the manifest goes: RESULTS/EXPERIMENT/runs/RUN.json.
        experiment: name of the experiment.
        config: the settings that span the grid.
        points: the data files of RESULTS/EXPERIMENT, in the order of the grid.

    Raises:
        UnwritableFolder: if it cannot be written.
    """
    manifest = {"experiment": experiment, "config": config, "config_hash": config_hash(config)}
    _write_json(path, {**manifest, "points": [point.name for point in points]})


def load_run(path: Path) -> list[xr.Dataset]:
    """Read the results of one finished run.

    Args:
        path: the run's manifest: RESULTS/EXPERIMENT/runs/RUN.json.

    Returns:
        One dataset per point, in the order of the grid.

    Raises:
        FileNotFoundError: if the manifest or one of its results is missing.
        CorruptResult: if the manifest is unreadable or a result is not whole.
    """
    if not path.is_file():
        there = ", ".join(sorted(run.stem for run in path.parent.glob("*.json"))) or "none"
        raise FileNotFoundError(f"there is no finished run {path}; finished there: {there}")
    try:
        points = json.loads(path.read_text())["points"]
    except (ValueError, KeyError, TypeError):
        raise CorruptResult(f"{path} is not a readable manifest") from None
    return [load(path.parents[1] / name) for name in points]


def prepare_folder(folder: Path) -> None:
    """Make a folder, and try whether files can be written in it: now rather than after an hour's computation.

    Args:
        folder: where results will go.

    Raises:
        UnwritableFolder: if they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UnwritableFolder(f"cannot write in {folder}: {_reason(error)}") from error


def write_whole(path: Path, text: str) -> None:
    """Write a text file that is either there in full or not at all.

    Args:
        path: the file; its folder is made if missing.
        text: what goes into it, as UTF-8.

    Raises:
        UnwritableFolder: if it cannot be written.
    """
    with _taking_name(path) as partial:
        partial.write_text(text, encoding="utf-8")


def remove_partials(folder: Path) -> None:
    """Remove what killed runs left half written; only for whoever holds the folder's lock."""
    for partial in folder.rglob(f".*{PARTIAL_SUFFIX}"):
        partial.unlink(missing_ok=True)


@contextmanager
def _taking_name(path: Path) -> Iterator[Path]:
    """Yield a temporary neighbour of `path`, which takes its name if the block ends well and is removed if not.

    Raises:
        UnwritableFolder: if the block, or taking the name, fails with an OSError.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL_SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise UnwritableFolder(f"cannot write {path.name} in {path.parent}: {_reason(error)}") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _reason(error: OSError) -> str:
    # HDF5 packs flags, modes and addresses into its message; the error number says it in words, but for a file in the
    # folder's place, of which mkdir says that it exists.
    number = errno.ENOTDIR if isinstance(error, FileExistsError) else error.errno
    return os.strerror(number) if number else str(error)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_whole(path, json.dumps(content, indent=2) + "\n")


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, check=True, text=True, timeout=10).stdout
