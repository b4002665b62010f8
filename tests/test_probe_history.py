"""What probes told so far: stacked, labelled, and there and back as plain arrays."""

import jax.numpy as jnp
import numpy as np
import pytest
from largest_so_far import FEATURES, classifier

from rnn_dynamics import results
from rnn_dynamics.training import ProbeHistory
from rnn_dynamics.training.probes import Exponents, RecurrentMatrix

MODEL = classifier("LSTMCell")
PROBES = (Exponents(np.ones((1, 6, FEATURES)), k=2), RecurrentMatrix(name="weights"))


def exponents(number, members=()):
    return {
        "mean": jnp.full((*members, 2), float(number)),
        "standard_error": jnp.full((*members, 2), 0.1 * number),
    }


def weights(number, members=()):
    return {"norm": jnp.full((*members, 4), 2.0 * number), "spectral_radius": jnp.full((*members, 4), 1.0 * number)}


def filled(members=()):
    """Exponents after 0, 10 and 20 updates, weights after 0 and 20."""
    history = ProbeHistory(PROBES, MODEL)
    history.append(0, {"exponents": exponents(1, members), "weights": weights(1, members)})
    history.append(10, {"exponents": exponents(2, members)})
    history.append(20, {"exponents": exponents(3, members), "weights": weights(3, members)})
    return history


def test_arrays_are_stacked_by_probe():
    arrays = filled().to_arrays()
    np.testing.assert_array_equal(arrays["exponents/step"], [0, 10, 20])
    np.testing.assert_array_equal(arrays["weights/step"], [0, 20])
    np.testing.assert_array_equal(arrays["exponents/mean"], [[1, 1], [2, 2], [3, 3]])
    np.testing.assert_array_equal(arrays["weights/norm"], [[2] * 4, [6] * 4])
    assert all(type(array) is np.ndarray for array in arrays.values())
    assert ProbeHistory(PROBES, MODEL).to_arrays() == {}


@pytest.mark.parametrize("members", [(), (3,)], ids=["alone", "ensemble"])
def test_a_restored_history_goes_on_as_if_nothing_had_happened(members):
    through, again = filled(members), ProbeHistory(PROBES, MODEL)
    again.append(5, {"weights": weights(9)})  # is forgotten
    again.restore(filled(members).to_arrays())
    for history in (through, again):
        history.append(30, {"weights": weights(4, members)})
    ours, theirs = again.to_arrays(), through.to_arrays()
    assert list(ours) == list(theirs)
    for key, array in ours.items():
        np.testing.assert_array_equal(array, theirs[key])
    again.restore({})
    assert again.to_arrays() == {}


def test_a_dataset_is_labelled_and_can_be_saved(tmp_path):
    dataset = filled().to_dataset()
    assert dataset["exponents_mean"].dims == ("exponents_step", "exponents_exponent")
    assert dataset["weights_norm"].dims == ("weights_step", "weights_block")
    assert float(dataset["exponents_mean"].sel(exponents_step=10, exponents_exponent=2)) == 2.0
    assert float(dataset["weights_norm"].sel(weights_step=20, weights_block="forget")) == 6.0
    assert dataset["exponents_mean"].attrs["units"] == "nats per step"
    provenance = results.Provenance("training", {"seed": 0}, "cpu")
    results.save(tmp_path / "a.nc", dataset, provenance)
    loaded = results.load(tmp_path / "a.nc")
    assert loaded.drop_attrs().identical(dataset.drop_attrs())


def test_an_ensemble_has_one_axis_more():
    dataset = filled((3,)).to_dataset()
    assert dataset["exponents_mean"].dims == ("exponents_step", "member", "exponents_exponent")
    assert dataset.sizes == {
        "exponents_step": 3,
        "member": 3,
        "exponents_exponent": 2,
        "weights_step": 2,
        "weights_block": 4,
    }


def test_what_is_appended_is_a_copy():
    history, array = ProbeHistory(PROBES, MODEL), np.ones(4)
    history.append(0, {"weights": {"norm": array, "spectral_radius": array}})
    array[:] = 2
    np.testing.assert_array_equal(history.to_arrays()["weights/norm"], [[1, 1, 1, 1]])


@pytest.mark.parametrize(
    ("step", "measured", "sentence"),
    [
        (30, {"gates": {}}, "measured must be of the probes exponents, weights, got 'gates'"),
        (20, {"weights": weights(1)}, "step must be after 20, the last of probe 'exponents', got 20"),
        (30, {"weights": {"norm": jnp.ones(4)}}, "probe 'weights' must measure spectral_radius, norm, got norm"),
        (30, {"weights": weights(1, (2, 2))}, "'weights' must measure arrays of its labels' ranks, or one more"),
        (30, {"weights": weights(1, (2,))}, "'weights' must measure arrays of one shape, .*, got "),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(step, measured, sentence):
    history = filled()
    with pytest.raises(ValueError, match=sentence):
        history.append(step, {"exponents": exponents(4)} | measured)
    assert len(history.to_arrays()["exponents/step"]) == 3


def test_bad_histories_get_one_sentence():
    with pytest.raises(ValueError, match="probes must have names of their own, got weights, weights"):
        ProbeHistory([RecurrentMatrix(name="weights")] * 2, MODEL)
    with pytest.raises(ValueError, match=r"k must lie in 1 \.\.\. 8"):
        ProbeHistory([Exponents(np.ones((1, 6, FEATURES)), k=9)], MODEL)
    with pytest.raises(ValueError, match="arrays must be of the probes exponents, weights, got reach"):
        filled().restore({"reach/step": np.arange(2)})
