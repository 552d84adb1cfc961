"""The fast count against plain definitions, where rounding and crowding bite."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nblib.core.errors import BadInput
from nblib.data.recording import Recording
from nblib.prepare import bin_of_spike


def recording(trains):
    table = pd.DataFrame({"start_time": [0.0], "stop_time": [1.0], "label": [0]})
    return Recording(
        id="r", subject="s", path=None,
        units=pd.DataFrame(index=pd.Index(range(len(trains)), name="unit_id")),
        spike_index=np.concatenate([[0], np.cumsum([len(t) for t in trains])]),
        spikes=np.concatenate([np.asarray(t, float) for t in trains]),
        intervals={"trials": table}, trials="trials", label="label",
    )  # fmt: skip


def plain(trains, edges):
    return np.array([[[((t >= a) & (t < b)).sum() for a, b in itertools.pairwise(row)]
                      for row in edges] for t in map(np.asarray, trains)])  # fmt: skip


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.integers(0, 400), min_size=2, max_size=60),
    st.sampled_from([0.0, 1e3, 1e6]),
    st.sampled_from([1e-9, 1e-3, 0.25]),
    st.integers(0, 2**32 - 1),
)
def test_places_are_those_of_a_binary_search(steps, offset, width, seed):
    edges = offset + np.cumsum(steps) * width
    inside = np.random.default_rng(seed).uniform(edges[0], edges[-1], 50)
    near = np.concatenate([edges, np.nextafter(edges, -np.inf), np.nextafter(edges, np.inf)])
    times = np.concatenate([inside, near])
    times = times[(times >= edges[0]) & (times < edges[-1])]
    expected = np.searchsorted(edges, times, side="right")
    np.testing.assert_array_equal(bin_of_spike.Places(edges)(times), expected)


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6])
@pytest.mark.parametrize("gap", [0.0, 1e-9, 0.1, 5.0])  # beyond 2 s a new span begins
@pytest.mark.parametrize("piece", [1, 1_000_000])
def test_counts_of_trials_near_and_far(offset, gap, piece, monkeypatch):
    monkeypatch.setattr(bin_of_spike, "PIECE_SPIKES", piece)
    rng = np.random.default_rng(1)
    edges = offset + np.arange(7)[:, None] * (0.3 + gap) + np.linspace(0, 0.3, 4)
    trains = [np.sort(rng.uniform(edges[0, 0] - 1, edges[-1, -1] + 1, n)) for n in (0, 300, 0, 7)]
    trains.append(np.sort(edges.ravel()))
    out, wide = bin_of_spike.count_flat(recording(trains), edges, threads=2)
    np.testing.assert_array_equal(out[:, :, :-1], plain(trains, edges))
    assert not wide


def test_crowded_edges_and_trials_that_overlap():
    edges = np.array([[0.0, 1e-9, 2e-9, 3e-9, 1000.0], [500.0, 600.0, 601.0, 602.0, 1400.0]])
    trains = [np.linspace(0, 1500, 200), np.array([0.0, 1e-9, 2.5e-9, 999.9, 1000.0])]
    for rows in (edges[:1], edges[1:], edges):
        out, _ = bin_of_spike.count_flat(recording(trains), rows, threads=1)
        np.testing.assert_array_equal(out[:, :, :-1], plain(trains, rows))


def test_unsorted_spikes_are_refused_by_unit():
    edges = np.array([[0.0, 0.4, 0.8, 1.0]])
    with pytest.raises(BadInput, match="unit 1 are not sorted"):
        bin_of_spike.count_flat(recording([[0.1, 0.9], [0.1, 0.9, 0.5, 0.7]]), edges, threads=1)


def test_no_spikes_at_all():
    out, wide = bin_of_spike.count_flat(recording([[], []]), np.array([[0.0, 1.0]]), threads=2)
    assert out.shape == (2, 1, 2) and out.sum() == 0 and not wide
