"""The session report counts what is there and says what is odd."""

import itertools

import numpy as np
import pandas as pd
import pytest
from handmade import recording

from nblib.errors import BadInput
from nblib.inspection import session_report
from nblib.inspection import spikes as spikes_of


def trains(n_units=3, rate=8.0, seconds=60, seed=0):
    rng = np.random.default_rng(seed)
    return [np.sort(rng.uniform(0, seconds, int(rate * seconds))) for _ in range(n_units)]


def session(spikes=None, **more):
    start = np.arange(1, 56) * 1.0
    labels = np.arange(55) % 5
    spikes = trains() if spikes is None else spikes
    return recording(
        spikes,
        labels,
        start,
        areas=[["VISp", "CA1", "VISp"][i % 3] for i in range(len(spikes))],
        **more,
    )


def test_the_tables_count():
    report = session_report(session(invalid=[(10.1, 12.05)]))
    units = report.tables["units"].set_index("area")
    assert units.loc["VISp", "units"] == 2 and units.loc["CA1", "units"] == 1
    assert units["spikes"].sum() == 1440
    assert report.tables["presentations"].n.tolist() == [11] * 5
    assert len(report.tables["overlaps"]) == 3  # those at 10, 11 and 12 s
    assert report.tables["rate"]["rate_hz"].mean() == pytest.approx(8, rel=0.1)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda t: np.r_[t[:5], np.nan, t[6:]], "NaN"),
        (lambda t: np.r_[t[5:], t[:5]], "sorted"),
        (lambda t: np.r_[t[:5], np.inf], "NaN|infinite"),
    ],
)
def test_broken_spikes_name_the_unit(spoil, says):
    spikes = trains()
    spikes[1] = spoil(spikes[1])
    with pytest.raises(BadInput, match=says) as error:
        session_report(session(spikes))
    assert "101" in str(error.value)  # the second unit's id


def test_milliseconds_are_refused():
    with pytest.raises(BadInput, match="milliseconds"):
        session_report(session([t * 1000 for t in trains()]))


def test_fast_units_in_milliseconds_are_odd_at_least():
    """Fast enough that slow units in seconds cannot be ruled out: told, not refused."""
    rng = np.random.default_rng(0)
    made = session([np.sort(rng.uniform(0, 60_000, 4800)) for _ in range(12)])
    table = made.intervals["natural_scenes_presentations"]
    table[["start_time", "stop_time"]] *= 1000
    assert "time_unit: ms" in " ".join(session_report(made).odd)


def test_spikes_before_zero_alone_are_no_reason_to_refuse():
    odd = " ".join(session_report(session([t - 30 for t in trains()])).odd)
    assert "before time zero" in odd


def test_odd_things_are_told_and_sound_ones_are_not():
    assert session_report(session()).odd == []
    spikes = trains()
    spikes[2] = np.empty(0)
    spikes[0][7] = spikes[0][8]
    told = " ".join(session_report(session(spikes)).odd)
    assert "102" in told and "100" in told


def test_overlapping_and_long_presentations_are_odd():
    made = session()
    table = made.intervals["natural_scenes_presentations"]
    table.loc[4, "stop_time"] = table.loc[4, "start_time"] + 1.5
    odd = " ".join(session_report(made).odd)
    assert "5 %" in odd and "before an earlier one has ended" in odd


def test_nan_presentations_are_refused():
    made = session()
    made.intervals["natural_scenes_presentations"].loc[9, "start_time"] = np.nan
    with pytest.raises(BadInput, match="row 9"):
        session_report(made)


def test_the_report_reads_as_text():
    text = str(session_report(session()))
    assert "units" in text and "nothing odd" in text
    assert isinstance(session_report(session()).tables["summary"], pd.DataFrame)


@pytest.mark.parametrize("piece", [1, 7, 50, 10**6])
@pytest.mark.parametrize("seed", range(4))
def test_pieces_of_any_size_find_the_same(monkeypatch, piece, seed):
    """Against counting unit by unit; silent units and units longer than a piece among them."""
    rng = np.random.default_rng(seed)
    spikes = [
        np.sort(rng.choice(np.arange(1, 600), n) / 10) for n in (0, 40, 3, 0, 0, 90, 1, 25, 0)
    ]
    made = recording(spikes, np.arange(10) % 2, np.arange(10) * 5.0)
    monkeypatch.setattr(spikes_of, "PIECE", piece)
    report = session_report(made)
    table = report.tables["unit_rates"]
    assert table["spikes"].tolist() == [len(t) for t in spikes]
    assert table["duplicates"].tolist() == [int((np.diff(t) == 0).sum()) for t in spikes]
    first = [t[0] if len(t) else np.nan for t in spikes]
    np.testing.assert_array_equal(table["first_s"], first)
    every = np.concatenate(spikes)
    rate = report.tables["rate"]
    width = rate["time_s"].diff().iloc[1]
    edges = np.r_[rate["time_s"] - width / 2, rate["time_s"].iloc[-1] + width / 2]
    expected = [np.sum((every >= a) & (every < b)) for a, b in itertools.pairwise(edges)]
    np.testing.assert_allclose(rate["rate_hz"] * width * len(spikes), expected, atol=1e-9)


@pytest.mark.parametrize("piece", [1, 7, 10**6])
@pytest.mark.parametrize("broken", [(0,), (2, 4), (1, 3, 4)])
def test_exactly_the_broken_units_are_named(monkeypatch, piece, broken):
    monkeypatch.setattr(spikes_of, "PIECE", piece)
    for spoil, says in (
        (lambda t: np.r_[t[1:], t[0]], "unsorted"),
        (lambda t: np.r_[t[:3], np.nan], "NaN"),
    ):
        spikes = [t[:20] for t in trains(5)]
        for unit in broken:
            spikes[unit] = spoil(spikes[unit])
        ids = ", ".join(str(100 + unit) for unit in broken)
        with pytest.raises(BadInput, match=rf"{says}.* spike times in unit {ids};"):
            session_report(recording(spikes, np.arange(10) % 2, np.arange(10) * 0.2))


def test_a_spike_index_that_falls_is_refused():
    made = session()
    made.spike_index[1], made.spike_index[2] = made.spike_index[2], made.spike_index[1] - 1
    with pytest.raises(BadInput, match="spike index falls at unit 101"):
        session_report(made)


def test_another_table_that_is_broken_is_odd_only():
    made = session()
    made.intervals["licks"] = pd.DataFrame({"start_time": [1.0, np.nan], "stop_time": [1.1, 2.0]})
    report = session_report(made)
    assert any(o.startswith("licks: 1 of 2 rows") and "row 1" in o for o in report.odd)
    assert "licks" not in report.tables["intervals"]["table"].tolist()


def test_blocks_and_trials_outside_the_spikes():
    start = np.r_[np.arange(10) * 0.5, 30 + np.arange(10) * 0.5, 500.0]
    report = session_report(recording(trains(), np.arange(21) % 3, start))
    assert report.tables["blocks"]["presentations"].tolist() == [10, 10, 1]
    assert report.tables["blocks"]["gap_before_s"].tolist()[1:] == pytest.approx([25.25, 465.25])
    assert any("1 of 21 presentations lie outside" in o and "row 20" in o for o in report.odd)
    one = session_report(recording(trains(), np.zeros(21), start - start[0]))
    assert any("only one label" in o for o in one.odd)


def test_quality_is_counted_by_area():
    made = session()
    made.units["isi_violations"] = [0.1, 0.6, 0.5]
    made.units["presence_ratio"] = [0.99, 0.99, 0.9]
    units = session_report(made).tables["units"].set_index("area")
    assert units["good"].to_dict() == {"VISp": 1, "CA1": 0}


def test_memory_does_not_grow_with_the_recording():
    """Ten times the spikes, handed out slice by slice: the same peak."""
    import tracemalloc

    class Made:
        """Spikes of units that all fire every 10 ms, made when they are read."""

        def read(self, lo, hi):
            return np.arange(lo, hi) % 100_000 * 0.01

        def contiguous(self):
            return None

    peaks = []
    for n_units in (20, 200):
        made = recording([np.empty(0)] * n_units, np.arange(10) % 2, np.arange(10.0))
        object.__setattr__(made, "spike_index", np.arange(n_units + 1) * 100_000)
        object.__setattr__(made, "spikes", Made())
        tracemalloc.start()
        session_report(made)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] < 60e6
