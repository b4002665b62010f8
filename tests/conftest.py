"""How every test runs: double precision, on the CPU, deterministic, with no silent broadcasting."""

import itertools
import os

# Before numpy and jax are imported. Two BLAS threads are slower than one on the small matrices of these tests, and
# subprocesses that a test starts inherit all of it.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the time goes into compiling small programs that run once, which LLVM does in half the time if it does not
# optimise. With XLA_FLAGS set, even to nothing, the tests run what users run.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import hypothesis
import jax
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
# "strict" would be better, but optax (the bias correction of Adam: float ** int32) and flax (LayerNorm in float64)
# break under it. Tests that use neither ask for the fixture `strict_dtypes`.
jax.config.update("jax_numpy_dtype_promotion", "standard")

hypothesis.settings.register_profile("deterministic", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("deterministic")


MODULES_PER_CLEARING = 5
_modules = itertools.count(1)


@pytest.fixture(scope="module", autouse=True)
def not_all_that_was_compiled_is_kept():
    """Forget programs now and then: those of all modules together take gigabytes, and in the end XLA crashes."""
    yield
    if next(_modules) % MODULES_PER_CLEARING == 0:
        jax.clear_caches()


@pytest.fixture
def strict_dtypes():
    """Refuse every implicit dtype promotion; for a whole module, `pytestmark = pytest.mark.usefixtures(...)`."""
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture
def allow_rank_promotion():
    """Allow broadcasting over new leading axes, for code of others that relies on it."""
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """The folder in which tiny `mnist` and `imdb_reviews` are prepared."""
    from prepared_data import prepare_all

    return prepare_all(tmp_path_factory.mktemp("tensorflow_datasets"))


@pytest.fixture
def line(tmp_path, monkeypatch):
    """A package `questions` with one experiment, `line`, freshly imported."""
    from line_experiment import imported

    yield from imported(tmp_path / "source", monkeypatch)


@pytest.fixture
def folder(tmp_path):
    """Where results go."""
    return tmp_path / "results"


@pytest.fixture
def undisturbed(line, tmp_path):
    """What a run that nothing happens to leaves, by file name."""
    from line_experiment import contents, run

    run(line, tmp_path / "undisturbed")
    return contents(tmp_path / "undisturbed")
