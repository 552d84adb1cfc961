"""The session report counts what is there and says what is odd."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from handmade import recording

from nblib.core.errors import BadInput
from nblib.core.params import LabelRules
from nblib.data.checks import session_report
from nblib.data.checks import spikes as spikes_of


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


@pytest.mark.parametrize(("step_s", "told"), [(0.01, "multiples of 10 ms"), (0.001, "")])
def test_spike_times_that_are_rounded_far_are_told(step_s, told):
    """To 10 ms, which bins of 25 ms do not share out evenly; to 1 ms many are."""
    odd = session_report(session([np.round(t / step_s) * step_s for t in trains()])).odd
    odd = [words for words in odd if "multiples of" in words]
    assert len(odd) == bool(told) and all(told in words for words in odd)
    few = [np.round(t[:20] / step_s) * step_s for t in trains()]
    assert "multiples of" not in " ".join(session_report(session(few)).odd)


def test_overlapping_and_long_presentations_are_odd():
    made = session()
    table = made.intervals["natural_scenes_presentations"]
    table.loc[4, "stop_time"] = table.loc[4, "start_time"] + 1.5
    odd = " ".join(session_report(made).odd)
    assert "5 %" in odd and "before an earlier one has ended" in odd


def test_trials_without_a_time_are_reported_and_the_others_described():
    made = session()
    table = made.intervals["natural_scenes_presentations"]
    table.loc[9, "start_time"] = np.nan
    table.loc[11, "stop_time"] = table["start_time"][11] - 1
    table.loc[12, "stop_time"] = table["start_time"][12]
    report = session_report(made)
    odd = " ".join(report.odd)
    for says in (
        "no finite start_time (NaN or infinite) (row 9)",
        "a negative length (row 11)",
        "no length (row 12)",
    ):
        assert says in odd, odd
    assert report.tables["presentations"]["n"].sum() == len(table)
    assert report.tables["intervals"]["rows"][0] == len(table) - 2
    made = session()
    made.intervals["natural_scenes_presentations"]["stop_time"] = np.nan  # nothing but starts
    assert np.isnan(session_report(made).tables["presentations"]["median_s"]).all()


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
        (lambda t: np.r_[t[:3], np.inf], "NaN or infinite"),
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

        def __getitem__(self, part):
            return np.arange(part.start, part.stop) % 100_000 * 0.01

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


# --- one clock -------------------------------------------------------------------------------------

START = np.arange(1, 56) * 1.0  # of the presentations of `session`


def relative(train, before=0.3, after=0.6):
    """Spikes around each presentation, counted from its start."""
    return np.concatenate([train[(train >= a - before) & (train < a + after)] - a for a in START])


def restarted(train, *at):
    """The times of a clock that begins anew at each of `at`."""
    return np.concatenate([part[part >= 0] for part in pieces(train, *at)])


def pieces(train, *at):
    bounds = [0.0, *at, np.inf]
    return [train[(train >= a) & (train < b)] - a for a, b in itertools.pairwise(bounds)]


def swapped(train):
    """Neighbours that changed places here and there, and one spike that went to the end."""
    train = train.copy()
    for i in range(5, len(train), 40):
        train[[i, i + 1]] = train[[i + 1, i]]
    return np.r_[train[1:], train[0]]


SAMPLED = "These times look like sample numbers .*each number divided by the sampling rate"


@pytest.mark.parametrize(
    ("change", "times", "says"),
    [
        (lambda t: np.round(t * 30_000), 30_000, SAMPLED),
        (lambda t: np.round(t * 30_000), 1, rf"Interval tables end at 55\.25\. {SAMPLED}"),
        (lambda t: np.round(t * 20_000), 20_000, SAMPLED),
        (lambda t: np.round(t * 1000), 1000, r"whole numbers.*milliseconds \(units would fire 8 Hz\)\. Set time_unit: ms in the recipe\.$"),
        (lambda t: t * 30_000, 30_000, "Or like sample numbers"),
        (lambda t: t, 30_000, "Interval tables look like sample numbers, spike times like seconds"),
        (lambda t: t, 1000, "Interval tables look like milliseconds, spike times like seconds"),
        (lambda t: t + 1.7e9, 1, r"from 1,700,000,000\.\d+ to .* from 1 to 55\.25 s: they share no time; .*counts from 1970 \(it begins on 2023-11-14"),
        (lambda t: (t + 1.7e9) * 1000, 1, "no clock in seconds counts so far. Set time_unit: ms if they are milliseconds"),
        (lambda t: t + 600, 1, r"spikes from 600\.\d+ to 6\S+ s, natural_scenes_presentations from 1 to 55\.25 s: they share no time; these are two clocks"),
        (lambda t: t + 45, 1, "44 of 55 presentations lie where there is no spike"),
        (lambda t: t * 0, 1, "all 1,440 spike times are 0 s"),
        (lambda t: t * 0 + 7, 1, "all 1,440 spike times are 7 s"),
        (lambda t: t[:0], 1, "3 units and no spike at all"),
        (relative, 1, r"spikes from -0\.\d+ to 0\.\d+ s, .*count from the start of each presentation"),
        (lambda t: np.sort(relative(t)) + 0.3, 1, "count from the start of each presentation"),
        (lambda t: restarted(t, 30), 1, r"of unit 100, 101, 102 fall \(in unit 100 from 29\.\d+ s \(spike \d+\) to 0\.\d+ s, 1 time in all\) .* begins anew.*do not sort"),
        (lambda t: restarted(t, 20, 45), 1, "2 times in all.* begins anew"),
        (lambda t: restarted(t, 55), 1, "begins anew"),
        (swapped, 1, "unsorted spike times in unit 100, 101, 102;.*: sort them in the file"),
        (np.random.default_rng(0).permutation, 1, "sort them in the file"),
    ],
)  # fmt: skip
def test_what_is_not_one_clock_is_refused_by_name(change, times, says):
    made = session([change(t) for t in trains()])
    table = made.intervals["natural_scenes_presentations"]
    table[["start_time", "stop_time"]] *= times
    with pytest.raises(BadInput, match=says):
        session_report(made)


def test_one_spike_alone_is_far_from_any_clock_too():
    with pytest.raises(BadInput, match="no clock in seconds counts so far"):
        session_report(session([np.array([1e12]), np.empty(0)]))


def test_what_is_advised_helps():
    """A restart: the end of the earlier part added; counted from presentations: their start added;
    samples divided."""
    whole = session_report(session()).tables["unit_rates"]
    parts = [pieces(t, 30.0) for t in trains()]
    mended = session_report(session([np.r_[a, b + 30.0] for a, b in parts]))
    pd.testing.assert_frame_equal(mended.tables["unit_rates"], whole, rtol=1e-9)
    samples = [np.round(t * 30_000) for t in trains()]
    mended = session_report(session([s / 30_000 for s in samples]))
    assert mended.odd == [] and mended.tables["unit_rates"]["spikes"].equals(whole["spikes"])


def test_presentations_without_spikes_are_left_out_as_advised():
    made = session([t + 45 for t in trains()])
    with pytest.raises(BadInput) as refused:
        session_report(made)
    where = str(refused.value).partition("where: ")[2]
    report = session_report(replace(made, rules=LabelRules(where=where)))
    assert report.tables["presentations"]["n"].sum() == 10  # one straddles the first spike


def test_one_unit_alone_may_be_two_that_were_joined():
    spikes = trains()
    spikes[1] = np.r_[spikes[1], spikes[2]]
    with pytest.raises(BadInput, match=r"unit 101 fall .*two units joined into one: only then sort it"):  # fmt: skip
        session_report(session(spikes))


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t[t < 35],  # presentations outlast the spikes
        lambda t: t + 20,  # and begin before them
        lambda t: t[::60],  # next to silent
        lambda t: t[(t > 5) & (t < 6)][:2],  # a spike or two
        lambda t: t[100:101],
    ],
)
def test_few_or_late_spikes_are_one_clock_all_the_same(change):
    session_report(session([change(t) for t in trains()]))


def test_both_may_count_from_1970_and_in_milliseconds():
    made = session([(t + 1.7e9) for t in trains()])
    made.intervals["natural_scenes_presentations"][["start_time", "stop_time"]] += 1.7e9
    assert session_report(made).odd == []


def test_whole_numbers_in_milliseconds_are_told_where_they_may_be_samples():
    made = session([np.round(t * 30_000) / 1000 for t in trains(rate=8)])
    made.intervals["natural_scenes_presentations"][["start_time", "stop_time"]] *= 30
    made.meta["time_unit"] = "ms"
    assert "if these are sample numbers" in " ".join(session_report(made).odd)
    made = session([np.round(t * 1000) / 1000 for t in trains()])
    made.meta["time_unit"] = "ms"
    assert "sample numbers" not in " ".join(session_report(made).odd)


# --- invalid and observed times --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "lasts", "touched"),
    [
        ([(30.0, np.nan)], 30.0, 26),
        ([(30.0, np.inf)], 30.0, 26),
        ([(-np.inf, 30.1)], 30.1, 30),
        ([(30.0, 32.0), (31.0, 33.0)], 3.0, 3),
        ([(50.0, np.nan), (30.0, np.inf)], 30.0, 26),
    ],
)
def test_invalid_times_without_an_end_last_to_the_end(rows, lasts, touched):
    report = session_report(session(invalid=rows))
    assert len(report.tables["overlaps"]) == touched
    assert f" {touched} of 55" in report.odd[0]
    assert float(report.odd[0].split(" of ")[1].split(" s ")[0]) == pytest.approx(lasts, abs=0.1)
    assert any("no end in row 0" in o for o in report.odd) == (not np.isfinite(rows[0][1]))
    assert np.isfinite(report.tables["invalid"][["start_time", "stop_time"]]).all(axis=None)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([(np.nan, 30.0)], "invalid_times has no start in row 0"),
        ([(1.0, 2.0), (30.0, 20.0)], "invalid_times ends before it starts in row 1"),
        (
            [(30_000.0, 40_000.0)],
            r"invalid_times from 30,000 to 40,000 s, .* from 0\.\d+ to 59",
        ),
    ],
)
def test_invalid_times_that_are_no_times_are_refused(rows, says):
    with pytest.raises(BadInput, match=says):
        session_report(session(invalid=rows))


def test_an_invalid_interval_of_no_length_touches_nothing():
    report = session_report(session(invalid=[(10.1, 10.1)]))
    assert report.tables["invalid"]["presentations"].tolist() == [0]
    assert any("of 0 s in all touches 0 of 55 presentations" in odd for odd in report.odd)


def test_invalid_times_without_rows_are_none():
    report = session_report(session(invalid=np.empty((0, 2))))
    assert report.tables["invalid"].empty and not any("invalid" in told for told in report.odd)


def test_invalid_times_after_the_session_are_odd():
    assert any(
        "may be of another clock" in o for o in session_report(session(invalid=[(90.0, 95.0)])).odd
    )


def test_what_was_not_observed_is_told():
    halves = [np.array([[0.0, 30.0]]), None, np.array([[0.0, 20.0], [20.0005, 61.0]])]
    spikes = trains()
    spikes[0] = spikes[0][spikes[0] < 30]
    report = session_report(session(spikes, observed=halves))
    table = report.tables["observed"]
    assert table["presentations"].tolist() == [29, 55, 55]
    assert table["share"].tolist() == pytest.approx([0.5, 1, 1], abs=1e-3)
    told = " ".join(report.odd)
    assert "1 of 3 units were not observed all the time: 16.7% of" in told
    assert "26 of 55 presentations were not observed by every unit" in told
    assert "says nothing of 1 units" in told
    whole = [np.array([[-5.0, np.inf]])] * 3
    assert session_report(session(observed=whole)).odd == []


@pytest.mark.parametrize(
    ("times", "says"),
    [
        ([[30.0, 0.0]], "obs_intervals of unit 101 ends before it starts in row 0"),
        ([[0.0, 30.0], [np.nan, 60.0]], "obs_intervals of unit 101 has no start in row 1"),
        ([[0.0, 60_000.0]], r"obs_intervals from 0 to 60,000 s.* two units of time"),
    ],
)
def test_observed_times_that_are_no_times_are_refused(times, says):
    observed = [np.array([[0.0, 1.0]]), np.array(times), np.array([[0.0, 1.0]])]
    with pytest.raises(BadInput, match=says):
        session_report(session(observed=observed))


def test_observed_times_and_spikes_share_a_clock():
    with pytest.raises(BadInput, match=r"obs_intervals from 900 to 950 s, spikes from 0\.\d+ to 59.* share no time"):  # fmt: skip
        session_report(session(observed=[np.array([[900.0, 950.0]])] * 3))


def test_without_trials_there_are_report_figures_and_sentence():
    from nblib.core.params import BinSettings
    from nblib.prepare import binning
    from nblib.report.plots import recordings as plots

    made = session(invalid=[(30.0, np.nan)])
    object.__setattr__(made, "trials", "")
    for tables in (dict(made.intervals), {}):
        object.__setattr__(made, "intervals", tables)
        report = session_report(made)
        plots.recording_overview(made, report)
        plots.recording_close_up(made)
        assert "and no trials" in report.sentence()
        with pytest.raises(BadInput, match="names no trials"):
            binning.bin_recording(made, BinSettings())


def test_a_report_is_stored_whole(tmp_path):
    report = session_report(session())
    report.save(tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["odd"] == report.odd
    for name, table in report.tables.items():
        assert len(pd.read_parquet(tmp_path / f"{name}.parquet")) == len(table), name


@pytest.mark.parametrize(
    "other", [lambda t: t + 600, lambda t: t + 30, lambda t: t * 1000, lambda t: t + 1.7e9]
)
def test_units_with_a_clock_of_their_own_are_odd(other):
    """Another probe began later, counts milliseconds or from 1970: the units would be silent."""
    spikes = trains(4)
    spikes[1] = other(spikes[1])
    (odd,) = session_report(session(spikes)).odd
    assert (
        odd.startswith("1 of 4 units do not fire all the time of natural_scenes") and "101" in odd
    )
    spikes[1] = np.sort(np.random.default_rng(1).uniform(20, 21, 40))  # a burst tells nothing
    assert session_report(session(spikes)).odd == []


def test_minutes_and_days_are_told_by_rates_that_no_neuron_has():
    made = session([t / 60 for t in trains()])
    made.intervals["natural_scenes_presentations"][["start_time", "stop_time"]] /= 60
    assert "if these times are minutes" in " ".join(session_report(made).odd)
    made = session([t / 86400 for t in trains()])
    made.intervals["natural_scenes_presentations"][["start_time", "stop_time"]] /= 86400
    with pytest.raises(BadInput, match="look like minutes, hours or days"):
        session_report(made)


@pytest.mark.parametrize(("unit", "seconds"), [("minutes", 60), ("hours", 3600)])
def test_presentations_in_minutes_beside_spikes_in_seconds_are_told(unit, seconds):
    spikes, start = trains(seconds=20 * seconds, rate=2.0), START * seconds / 3
    told = session_report(recording(spikes, np.arange(55) % 5, start / seconds, 1 / seconds)).odd
    assert f"if its times are {unit}, which would fit" in told[0]
    assert told[0].endswith(f"each multiplied by {seconds}.")
    mended = session_report(recording(spikes, np.arange(55) % 5, start, 1.0))  # the advice
    assert not any("which would fit" in odd for odd in mended.odd)


@pytest.mark.parametrize("begin", [2.0, 300.0])
def test_presentations_of_a_short_part_of_a_session_are_sound(begin):
    start = begin + np.arange(200) * 0.5
    odd = session_report(recording(trains(seconds=3600, rate=2.0), np.arange(200) % 5, start)).odd
    assert odd == []


def test_a_table_of_trials_whose_clock_begins_anew_is_refused():
    made = recording(trains(seconds=120), np.arange(110) % 5, np.r_[START, START + 0.1])
    with pytest.raises(
        BadInput,
        match=r"presentations begins anew in row 55: from 55 s to 1\.1 s, and 55 of the trials after it overlap",
    ):
        session_report(made)
    made.intervals[made.trials].index.name = "id"
    with pytest.raises(BadInput) as refused:
        session_report(replace(made, rules=LabelRules(where="frame < 4")))
    where = str(refused.value).partition("where: ")[2]
    report = session_report(replace(made, rules=LabelRules(where=where)))
    assert report.tables["presentations"]["n"].tolist() == [11] * 4  # the first part alone
    twice = recording(trains(), np.arange(110) % 5, np.r_[START, START])
    with pytest.raises(BadInput, match="where trials stand twice"):
        session_report(twice)


@pytest.mark.parametrize(
    ("by", "length"), [("label", 0.4), ("half", 0.4), ("label", 3.0), ("random", 3.0)]
)
def test_trials_in_another_order_than_time_are_no_restart(by, length):
    label = np.random.default_rng(3).integers(0, 4, 200)
    keys = {"label": label, "half": np.arange(200) % 2, "random": np.random.default_rng(5).integers(0, 2, 200)}  # fmt: skip
    order = np.argsort(keys[by], kind="stable")
    start = 1 + np.arange(200) * 0.5
    odd = session_report(recording(trains(seconds=120), label[order], start[order], length)).odd
    assert any("not in time order" in told for told in odd)


FLAGGED = np.arange(55) % 11 == 0


@pytest.mark.parametrize(
    ("name", "values", "where"),
    [
        ("invalid", FLAGGED, "invalid == False"),
        ("is_good", ~FLAGGED, "is_good == True"),
        ("bad", FLAGGED.astype(float), "bad == 0"),
        ("exclude", np.where(FLAGGED, "yes", "no"), "exclude == 'no'"),
        ("my bad", np.where(FLAGGED, "True", "False"), "`my bad` == 'False'"),
        ("valid", np.where(FLAGGED, np.nan, 1.0), "valid == 1"),
        ("rejected", np.where(FLAGGED, 1.0, np.nan), "rejected.isna()"),
    ],
)
def test_a_column_of_bad_trials_that_nothing_uses_is_told(name, values, where):
    made = session()
    made.intervals[made.trials][name] = values
    (odd,) = session_report(made).odd
    assert f"column {name!r} says which trials are no good" in odd and "(5)" in odd
    assert odd.endswith(f"set in the recipe  where: {where}")
    used = session_report(replace(made, rules=LabelRules(where=where)))
    assert used.tables["presentations"]["n"].sum() == 50
    assert not any("no good" in told for told in used.odd)
    also = " ".join(session_report(replace(made, rules=LabelRules(where="frame > 1"))).odd)
    assert f"where: (frame > 1) and ({where})" in also


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("invalid", False), ("good", 1), ("artifact", np.where(FLAGGED, "blink", "none")),
        ("badge", FLAGGED), ("validation", FLAGGED), ("bad_count", np.arange(55) % 4), ("bad", [[1, 2]] * 55),
    ],
)  # fmt: skip
def test_a_column_that_marks_no_trial_is_not_told(name, values):
    made = session()
    made.intervals[made.trials][name] = values
    assert session_report(made).odd == []
    made = session()
    made.intervals[made.trials]["bad"] = True
    assert "(True (55)); nothing uses it. That would be all" in session_report(made).odd[0]


def test_times_to_keep_are_not_advised_to_be_left_out():
    made = session()
    kept = pd.DataFrame({"start_time": [0.0, 40.0], "stop_time": [30.0, np.nan]})
    made.intervals["valid_times"] = kept
    odd = session_report(made).odd[0]
    assert "valid_times: by its name, its 2 rows are times to keep; nothing uses them" in odd
    where = odd.partition("where: ")[2]
    report = session_report(replace(made, rules=LabelRules(where=where)))
    assert report.tables["presentations"]["n"].sum() == 29 + 16
    begin = np.arange(0, 50, 10.0)
    made.intervals["valid_times"] = pd.DataFrame({"start_time": begin, "stop_time": begin + 5})
    assert "write the times between them into a table" in session_report(made).odd[0]


def test_units_with_the_same_spikes_are_odd():
    spikes = trains(4)
    spikes[1], spikes[3] = spikes[2].copy(), np.empty(0)
    (odd,) = [o for o in session_report(session(spikes)).odd if "very spikes" in o]
    assert odd.startswith("1 units have the very spikes of a unit before them (unit 102)")
    spikes[1][5] += 1e-6
    assert "very spikes" not in " ".join(session_report(session(spikes)).odd)
