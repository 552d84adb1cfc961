"""Counts against the integer definition, an independent library, and adversarial cases."""

import json

import h5py
import numpy as np
import pandas as pd
import pytest
from handmade import to_lab_dataframe
from hypothesis import given, settings
from hypothesis import strategies as st

from nblib.core.errors import BadInput, BadParameter
from nblib.core.params import BinSettings
from nblib.data import counts_dataset
from nblib.data.recording import Recording
from nblib.prepare import binning


def recording(trains, table, label="frame", **units):
    """A recording in memory from a list of spike trains and a trial table."""
    index = np.concatenate([[0], np.cumsum([len(t) for t in trains])]).astype(np.int64)
    flat = np.concatenate([np.asarray(t, float) for t in trains]) if trains else np.empty(0)
    frame = pd.DataFrame(units, index=pd.Index(np.arange(len(trains)) + 100, name="unit_id"))
    return Recording("r", "s", None, frame, index, flat, {"t": table}, "t", label)


def trials(start, stop, frame=None):
    start, stop = np.asarray(start, float), np.asarray(stop, float)
    return pd.DataFrame(
        {
            "start_time": start,
            "stop_time": stop,
            "frame": np.arange(len(start)) if frame is None else frame,
        }
    )


def by_definition(trains, edges_ns):
    """The definition, one spike at a time, in Python integers."""
    counts = np.zeros((edges_ns.shape[0], edges_ns.shape[1] - 1, len(trains)), int)
    for u, train in enumerate(trains):
        for t in train:
            ns = round(np.float64(t) * 1e9)  # both round halves to even
            for p, row in enumerate(edges_ns.tolist()):
                for b in range(len(row) - 1):
                    if row[b] <= ns < row[b + 1]:
                        counts[p, b, u] += 1
    return counts


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6])
def test_half_open_bins_by_hand(offset):
    table = trials(np.array([0.0, 0.25]) + offset, np.array([0.25, 0.5]) + offset)
    spikes = np.array([0.0, 0.05, 0.1, 0.2499, 0.25, 0.4999, 0.5]) + offset
    got = binning.bin_recording(recording([spikes], table), BinSettings()).counts.values[:, :, 0]
    np.testing.assert_array_equal(got, [[1, 1, 1, 0, 1], [1, 0, 0, 0, 1]])


seconds = st.floats(0, 20_000, allow_nan=False)
near_edges = st.builds(lambda k, d: k * 0.05 + d * 1e-9, st.integers(0, 200), st.integers(-2, 2))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.one_of(seconds, near_edges), max_size=30), min_size=1, max_size=4),
    st.lists(st.tuples(st.floats(0, 10), st.floats(1e-6, 3)), min_size=1, max_size=6),
    st.sampled_from([1, 2, 3, 5, 10]),
)
def test_counts_follow_the_integer_definition(trains, windows, n_bins):
    """Random and adversarial trains; windows overlap, touch and repeat as they like."""
    trains = [np.sort(np.asarray(t, float)) for t in trains]
    start = np.array([w[0] for w in windows])
    edges = binning.presentation_edges(start, start + [w[1] for w in windows], n_bins)
    got = binning.count_spikes(recording(trains, trials([0], [1])), edges)
    np.testing.assert_array_equal(got, by_definition(trains, edges))


@pytest.mark.slow
def test_counts_agree_with_pynapple():
    nap = pytest.importorskip("pynapple")
    rng = np.random.default_rng(0)
    trains = [np.sort(rng.uniform(0, 60, rng.integers(0, 400))) for _ in range(6)]
    start = np.arange(0.5, 50, 0.5)
    counts = binning.bin_recording(
        recording(trains, trials(start, start + 0.25)), BinSettings()
    ).counts.values
    group = nap.TsGroup({u: nap.Ts(t) for u, t in enumerate(trains)})
    theirs = (
        group.count(0.05, nap.IntervalSet(start, start + 0.25)).to_numpy().reshape(len(start), 5, 6)
    )
    # Theirs are float bins: a spike within a rounding error of an edge may differ; none does here.
    np.testing.assert_array_equal(counts, theirs)


def test_unsorted_trials_keep_their_rows():
    spikes = np.array([0.01, 0.3, 0.6])
    table = trials([0.5, 0.0, 0.2], [0.75, 0.25, 0.45])
    got = binning.bin_recording(
        recording([spikes], table), BinSettings(n_bins=1)
    ).counts.values.ravel()
    np.testing.assert_array_equal(got, [1, 1, 1])


def test_wide_counts_and_overflow():
    dense = np.linspace(0, 0.2, 300)
    binned = binning.bin_recording(
        recording([dense, [0.1]], trials([0], [0.25])), BinSettings(n_bins=1)
    )
    assert binned.counts.dtype == np.uint16
    np.testing.assert_array_equal(binned.counts.values.ravel(), [300, 1])
    with pytest.raises(BadInput, match="unit 100 has 70000 spikes"):
        binning.bin_recording(
            recording([np.linspace(0, 0.2, 70_000)], trials([0], [0.25])), BinSettings(n_bins=1)
        )


def test_other_binnings():
    table = trials([1.0, 3.0], [2.0, 4.01]).assign(go=[1.5, 3.25])
    r = recording([[1.39, 1.55, 3.3]], table)
    fixed = binning.bin_recording(r, BinSettings(binning="fixed_width", bin_s=0.3))
    assert fixed.counts.shape == (2, 3, 1)
    window = binning.bin_recording(
        r,
        BinSettings(
            binning="event_window", event="go", window_start_s=-0.1, window_stop_s=0.1, bin_s=0.1
        ),
    )
    np.testing.assert_array_equal(window.counts.values[:, :, 0], [[0, 1], [0, 1]])
    edges = binning.bin_recording(
        r, BinSettings(binning="edges", event="go", edges_s=[-0.2, 0.0, 1.0])
    )
    np.testing.assert_array_equal(edges.counts.values[:, :, 0], [[1, 1], [0, 1]])
    with pytest.raises(BadInput, match=r"no column 'nope'.*Set .event. in the recipe"):
        binning.bin_recording(r, BinSettings(binning="edges", event="nope", edges_s=[0.0, 1.0]))
    with pytest.raises(BadParameter, match="does not divide"):
        binning.bin_recording(r, BinSettings(binning="event_window", bin_s=0.07))
    for kind in ("event_window", "fixed_width"):
        with pytest.raises(BadParameter, match=r"bin_s = 1e-09: that makes .* bins a trial"):
            binning.bin_recording(r, BinSettings(binning=kind, bin_s=1e-9))


def test_saved_counts_come_back_whole_and_a_flipped_byte_does_not(tmp_path):
    rng = np.random.default_rng(1)
    table = trials(np.arange(40), np.arange(40) + 0.25, rng.integers(0, 5, 40))
    r = recording(
        [np.sort(rng.uniform(0, 40, 500)) for _ in range(5)], table, area=["VISp"] * 4 + [None]
    )
    binned = binning.bin_recording(r, BinSettings())
    counts_dataset.save(binned, tmp_path)
    assert counts_dataset.load(tmp_path).identical(binned)
    np.testing.assert_array_equal(
        counts_dataset.edges_of(binned)[:, 0], counts_dataset.to_ns(table.start_time)
    )
    path = tmp_path / counts_dataset.FILE
    with h5py.File(path) as file:
        chunk = file["counts"].id.get_chunk_info(0)
    raw = bytearray(path.read_bytes())
    raw[chunk.byte_offset + chunk.size // 2] ^= 0x01
    path.write_bytes(raw)
    with pytest.raises(BadInput, match=r"binned\.nc"):
        counts_dataset.load(tmp_path)


def test_the_labs_layout():
    table = trials([1.0, 0.0], [1.25, 0.25], [7, 3])
    binned = binning.bin_recording(recording([[0.01, 1.2], [1.01]], table), BinSettings(n_bins=2))
    frame = to_lab_dataframe(binned)
    assert list(frame.columns) == [100, 101, "frame"]
    np.testing.assert_array_equal(frame.to_numpy(), [[1, 0, 3], [0, 0, 3], [0, 1, 7], [1, 0, 7]])


def test_no_trials_and_falling_edges():
    with pytest.raises(BadInput, match="t has no rows; nothing was presented"):
        binning.bin_recording(recording([[0.1]], trials([], [])), BinSettings())
    with pytest.raises(BadParameter, match="do not rise"):
        binning.count_spikes(recording([[0.1]], trials([0], [1])), np.array([[0, 5, 3]]))


def test_settings_travel_with_the_counts():
    binned = binning.bin_recording(recording([[0.1]], trials([0], [1])), BinSettings(n_bins=3))
    assert json.loads(binned.attrs["binning"])["n_bins"] == 3
