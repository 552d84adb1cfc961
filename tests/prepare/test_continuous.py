"""Time without trials: exact bins, a stimulus that tells nothing early, roles, and windows by index."""

import dataclasses
import math

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pynwb import TimeSeries

from nblib.core import recipes
from nblib.core.errors import BadInput, BadParameter
from nblib.core.params import BinSettings, CleanSettings, SplitSettings
from nblib.data import checks as checks_of_01
from nblib.data import counts_dataset, opening, sources
from nblib.data.recording import Recording, Series
from nblib.prepare import (
    binning,
    cleaning,
    continuous,
    decoder_inputs,
    split_roles,
    stored_splits,
    train_statistics,
)
from nblib.prepare.continuous import stream
from nblib.report.audit import checks
from nblib.simulate import nwb_file

RNG = np.random.default_rng(3)
BINS = {"binning": "continuous", "bin_s": 0.007}
ROW_S = 0.007 * 144  # the multiple of 8 nearest to a second


def recording(times=None, values=None, observed=None, n_s=30.0, bad=None):
    """Three units for n_s seconds, and a stimulus of two channels."""
    times = np.arange(0, n_s + 0.02, 0.02) if times is None else np.asarray(times, float)
    values = RNG.normal(size=(len(times), 2)) if values is None else np.asarray(values, float)
    spikes = [np.sort(np.random.default_rng(u).uniform(0, n_s, 400)) for u in range(3)]
    series = Series("noise", "", lambda lo, hi: values[lo:hi], len(times), timestamps=lambda: times)
    intervals = {} if bad is None else {"invalid_times": pd.DataFrame([bad], columns=["start_time", "stop_time"])}  # fmt: skip
    return Recording(
        "r", "s", None, pd.DataFrame(index=pd.Index([5, 6, 7], name="unit_id")),
        np.arange(4) * 400, np.concatenate(spikes), intervals, series={"noise": series},
        observed=observed, stimulus="noise",
    )  # fmt: skip


def test_counts_are_those_of_whole_nanoseconds():
    made = recording()
    binned = binning.bin_recording(made, BinSettings(**BINS))
    rows, n = binned.trial.values, binned.sizes["time"]
    assert n == continuous.row_bins(0.007) == 144 and rows.tolist() == list(range(29))
    edges = np.rint(np.arange(29 * n + 1) * 0.007 * 1e9)
    for unit in range(3):
        expected = np.histogram(np.rint(made.spike_times(unit) * 1e9), edges)[0]
        expected[-1] -= np.isin(edges[-1], np.rint(made.spike_times(unit) * 1e9))
        np.testing.assert_array_equal(binned.counts.values[:, :, unit].ravel(), expected)
    np.testing.assert_array_equal(counts_dataset.edges_of(binned)[:, 0], edges[:-1:n])


@pytest.mark.parametrize("bin_s", [0.001, 0.00100825, 0.008, 0.03, 0.4, 2.0])
def test_a_row_is_about_a_second(bin_s):
    n = continuous.row_bins(bin_s)
    assert n * bin_s == pytest.approx(1, abs=max(4.1 * bin_s, 0.01)) or n == 1
    assert n < 8 or n % 8 == 0


@pytest.mark.parametrize("value", ["held", "mean"])
def test_a_bin_knows_no_stimulus_later_than_its_start(value):
    made = recording()
    asked = BinSettings(**BINS, stimulus_value=value)
    before = binning.bin_recording(made, asked)
    series, at = made.series["noise"], 731  # change the stimulus from this sample on
    other = series.read(0, series.n_samples).copy()
    other[at:] += 100
    changed = dataclasses.replace(series, read=lambda lo, hi: other[lo:hi])
    after = binning.bin_recording(dataclasses.replace(made, series={"noise": changed}), asked)
    start = counts_dataset.edges_of(before)[:, :-1] / 1e9
    same = (before.stimulus.values == after.stimulus.values).all(axis=2)
    time = series.timestamps()[at]
    assert same[start < time].all() and not same[start >= time + 0.01].any()
    if value == "held":
        assert not same[start >= time].any()


def test_the_mean_is_that_of_the_bin_before():
    made = recording(np.arange(0, 31, 0.5), np.arange(62.0)[:, None])
    binned = binning.bin_recording(made, BinSettings(**BINS, stimulus_value="mean"))
    shown = binned.stimulus.values.ravel()
    # 0.5 s is 71.43 bins: bin 72 looks back at 0.497 to 0.504 s, of which 0.003 s show 0.
    np.testing.assert_allclose(shown[70:75], [0, 0, 4 / 7, 1, 1], atol=1e-5)


@pytest.mark.parametrize(
    ("times", "values", "words"),
    [
        (np.arange(0, 20, 0.02), None, r"series 'noise' is shorter than the spikes: timestamps go from 0 to 20 s, units/spike_times from 0\.\d+ to (29|30)"),
        (np.r_[0:10:0.02, 12:30.1:0.02], None, r"timestamps has 1 gap\(s\), the first from 9\.98 to 12 s"),
        (np.arange(0, 30.1, 0.02), "nan", "data is NaN or infinite in row 500"),
    ],
)  # fmt: skip
def test_time_without_a_stimulus_is_refused_or_left_out(times, values, words):
    if values:
        values = np.zeros((len(times), 1))
        values[500] = np.nan
    made = recording(times, values)
    with pytest.raises(BadInput, match=words + r".*gaps: cut leaves such time out"):
        binning.bin_recording(made, BinSettings(**BINS))
    binned = binning.bin_recording(made, BinSettings(**BINS, gaps="cut"))
    rows, known = binned.trial.values, np.isfinite(binned.stimulus.values)
    assert known.all()
    if times[-1] < 20.1:
        assert rows.tolist() == list(range(19))
    elif values is not None:
        assert 9 not in rows and len(rows) == 28 and '"stimulus not known": 1' in binned.attrs["left_out"]  # fmt: skip
    else:
        assert rows.tolist() == [*range(9), *range(12, 29)]


def test_a_stimulus_without_spikes_or_of_nan_alone_is_refused():
    silent = dataclasses.replace(recording(), spike_index=np.zeros(4, np.int64))
    with pytest.raises(BadInput, match="no unit has a spike"):
        binning.bin_recording(silent, BinSettings(**BINS))
    nothing = recording(values=np.full((1501, 1), np.nan), times=np.arange(1501) * 0.02)
    with pytest.raises(BadInput, match="for no whole row"):
        binning.bin_recording(nothing, BinSettings(**BINS, gaps="cut"))


def test_unobserved_and_invalid_time_is_no_data():
    observed = [np.array([[0.0, 30.0]]), np.array([[4.5, 30.0]]), None]
    made = recording(observed=observed, bad=(20.2, 20.3))
    binned = binning.bin_recording(made, BinSettings(**BINS))
    cleaned, removals = cleaning.clean(binned, made, CleanSettings())
    assert cleaned.trial.values.tolist() == [*range(5, 20), *range(21, 29)]
    assert removals["what"].tolist() == ["spikes", "rows of time", "rows of time"]
    assert removals["removed"].tolist()[1:] == [1, 5]
    assert "23 of 29 rows of time are left" in cleaning.sentence(binned, cleaned)


CYCLES = {"split": "cycles", "cycle_s": [7.0, 2.0, 3.0], "gap_s": 0.0, "context_s": [0.7, 0.3]}


def test_time_is_dealt_in_cycles_with_gaps():
    role = continuous.cycle_roles(np.arange(100, 134), 1.0, SplitSettings(**CYCLES))
    cycle = ["train"] * 7 + ["gap"] + ["val"] * 2 + ["gap"] + ["test"] * 3 + ["gap"]
    assert role.tolist() == (3 * cycle)[:34]
    wider = continuous.cycle_roles(np.arange(20), 0.5, SplitSettings(**CYCLES | {"gap_s": 0.1}))
    assert wider.tolist() == ["train"] * 14 + ["gap"] * 3 + ["val"] * 3
    # A row left out leaves its place in the cycle empty: roles do not slide.
    some = np.array([0, 1, 2, 6, 7, 8])
    left = continuous.cycle_roles(some, 1.0, SplitSettings(**CYCLES))
    assert left.tolist() == ["train"] * 4 + ["gap", "val"]


def split_of(binned, **given):
    asked = SplitSettings(**CYCLES | {"highest_value": math.inf} | given)
    return split_roles.make_split(binned, asked), asked


def test_a_split_of_time_without_labels():
    binned = binning.bin_recording(recording(), BinSettings(**BINS))
    split, asked = split_of(binned)
    (fitted,) = train_statistics.fit_folds(binned, split, asked)
    assert split["role"].value_counts().to_dict() == {"train": 14, "test": 6, "gap": 5, "val": 4}
    words = split_roles.sentence(binned, split, [fitted], "cycles")
    assert "14 rows of time teach, 4 choose and 6 judge; 5 lie in gaps. 3 units go on" in words
    rates = stored_splits.rates_by_role(binned, split)
    rows = split.loc[split["role"] == "test", "trial"].to_numpy()
    expected = binned.counts.values[rows].sum(axis=(0, 1)) / (len(rows) * ROW_S)
    np.testing.assert_allclose(rates["test"], expected)
    with pytest.raises(BadInput, match="no label"):
        decoder_inputs.role_samples(binned, split, fitted, 0)


def test_blocked_folds_keep_context_and_horizon_free():
    binned = binning.bin_recording(recording(n_s=60.0), BinSettings(**BINS))
    split, _ = split_of(binned, split="blocked", n_folds=5, context_s=[1.5, 0.5], gap_s=0.1)
    for _, fold in split.groupby("fold"):
        starts, stops, role = (fold[c].to_numpy() for c in ("start_s", "stop_s", "role"))
        for judged in ("test", "val"):
            mine, others = role == judged, ~np.isin(role, [judged, "gap"])
            apart = np.maximum(
                starts[others][:, None] - stops[mine], starts[mine] - stops[others][:, None]
            )
            assert apart.min() >= 2.1 - 1e-9


def test_the_audit_finds_a_role_too_near_another():
    binned = binning.bin_recording(recording(n_s=60.0), BinSettings(**BINS))
    for asked in ({}, {"split": "blocked", "n_folds": 4, "context_s": [1.5, 0.5], "gap_s": 0.1}):
        split, settled = split_of(binned, **asked)
        assert list(checks.role_faults(split, continuous.gap_s(settled))) == []
        planted = split.copy()
        after = np.flatnonzero((split["role"] == "gap") & (split["role"].shift() == "test"))[0]
        planted.loc[after, "role"] = "train"
        assert "1 of train and val in fold" in next(checks.role_faults(planted, continuous.gap_s(settled)))  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"split": "random"}, "share their stimulus and history"),
        ({"split": "segments"}, "split: cycles, or blocked"),
        ({"n_folds": 2}, "split: cycles has one"),
    ],
)
def test_splits_that_leak_are_refused(asked, words):
    binned = binning.bin_recording(recording(), BinSettings(**BINS))
    with pytest.raises(BadParameter, match=words):
        split_of(binned, **asked)


def test_bins_too_narrow_for_the_memory_are_refused():
    with pytest.raises(BadParameter, match="bin_s = 1e-06: that makes 1,000,000 bins a second"):
        binning.bin_recording(recording(), BinSettings(binning="continuous", bin_s=1e-6))


def test_a_recording_shorter_than_a_cycle_is_told_so():
    binned = binning.bin_recording(recording(n_s=10.0), BinSettings(**BINS))
    words = r"left for val .* 9 rows of time are less than a cycle of cycle_s = \[8.0, 2.0, 3.0\] with 1 s"
    with pytest.raises(BadInput, match=words):
        split_of(binned, cycle_s=[8.0, 2.0, 3.0])


def test_rows_that_were_cut_are_not_taken_for_a_short_recording():
    binned = binning.bin_recording(recording(n_s=40.0), BinSettings(**BINS))
    split, _ = split_of(binned, cycle_s=[8.0, 2.0, 3.0])
    binned = binned.isel(trial=(split["role"] != "val").to_numpy())
    words = r"no rows of time are left for val .* none of \d+ lies in its part of a cycle"
    with pytest.raises(BadInput, match=words):
        split_of(binned, cycle_s=[8.0, 2.0, 3.0])


def test_cycles_are_not_for_trials():
    binned = binning.bin_recording(recording(), BinSettings(**BINS)).drop_vars("stimulus")
    with pytest.raises(BadParameter, match="binning is not 'continuous'"):
        split_of(binned)


def a_stream(trial, role, n=8, gap_s=1.0):
    trial, role = np.asarray(trial), np.asarray(role)
    at = (trial[:, None] * n + np.arange(n)).ravel()
    spans = stream.spans_of(trial, role, n)
    empty = np.zeros((len(at), 1))
    return stream.Stream(empty, empty, at, spans, pd.DataFrame(), 1 / n, n, gap_s, "")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["train", "train", "gap", "val", "test"]), min_size=3, max_size=30),
    st.sets(st.integers(0, 29), max_size=6),
    st.integers(0, 6),
    st.integers(0, 5),
    st.integers(1, 3),
)
def test_no_window_reaches_into_another_role_or_over_a_seam(roles, gone, context, horizon, stride):
    trial = [i for i in range(len(roles)) if i not in gone]
    if not trial:
        return
    role = [roles[i] for i in trial]
    made = a_stream(trial, role, gap_s=2.0)
    of_bin = np.repeat(role, 8)
    for name in ("train", "val", "test"):
        found = made.windows(name, context / 8, horizon / 8, stride)
        possible = []
        for t0 in range(len(made.number)):
            lo, hi = t0 - context, t0 + max(1, horizon)
            if lo < 0 or hi > len(made.number):
                continue
            past, ahead = of_bin[lo:t0], of_bin[t0:hi]
            # The context: own role up to the span's begin, before that one gap alone.
            own = np.flatnonzero(past != name)
            mixed = len(own) and (past[: own[-1] + 1] != "gap").any()
            if (np.diff(made.number[lo:hi]) == 1).all() and (ahead == name).all() and not mixed:
                possible.append(t0)
        assert set(found) <= set(possible)
        if stride == 1:
            assert found.tolist() == possible


def test_windows_longer_than_the_gap_are_refused():
    made = a_stream(range(6), ["train"] * 3 + ["gap", "test", "test"])
    assert made.windows("test", 0.5, 0.5).tolist() == list(range(32, 45))
    assert made.windows("test", 0.0, 0.25, stride=5).tolist() == [32, 37, 42]
    assert made.windows("val").tolist() == []
    with pytest.raises(BadParameter, match=r"context of 0\.9 s and horizon of 0\.2 s: the split keeps 1 s free"):  # fmt: skip
        made.windows("test", 0.9, 0.2)


def test_a_spike_triggered_average_is_the_mean_before_each_spike():
    binned = binning.bin_recording(recording(), BinSettings(binning="continuous", bin_s=0.02))
    binned = binned.isel(trial=[0, 1, 2, 3, 6, 7, 8])  # a seam
    found = continuous.spike_triggered(binned)
    n = binned.sizes["time"]
    shown = binned.stimulus.values.reshape(-1, 2)
    shown = (shown - shown.mean(axis=0)) / shown.std(axis=0)
    counts = binned.counts.values.reshape(-1, 3).astype(float)
    counts[:n] = counts[4 * n : 5 * n] = 0  # nothing known of the half second before these
    for k, lag_s in enumerate(found.lag_s.values):
        lag = round(lag_s / 0.02)
        expected = counts[lag:].T @ shown[:-lag] / np.sqrt(counts.sum(axis=0))[:, None]
        np.testing.assert_allclose(found.values[:, :, k], expected, atol=1e-4)
    assert found.shape == (3, 2, 25)


RECIPE = """\
recipe: mine
recordings: [session1]
source: nwb
path: PATH
intervals: ""
series: running
binning: continuous
bin_s: 0.05
split: cycles
cycle_s: [8, 3, 3]
"""


def test_any_file_with_units_and_a_series_goes_by_ten_lines(tmp_path):
    """A file by pynwb, a behaviour with a rate in place of timestamps, from the recipe to windows."""
    speed = np.random.default_rng(1).normal(size=6000).astype(np.float32)
    file = nwb_file.new_file("made", "session1", "mouse")
    rng = np.random.default_rng(2)
    for _ in range(3):
        file.add_unit(spike_times=np.sort(rng.uniform(0.5, 60, 900)), obs_intervals=[[0.0, 60.0]])
    file.add_acquisition(TimeSeries(name="running", data=speed, unit="m/s", rate=100.0))
    nwb_file.write(file, tmp_path / "session1.nwb")
    assert len(RECIPE.splitlines()) <= 10
    (tmp_path / "mine.yml").write_text(RECIPE.replace("PATH", f"{tmp_path}/{{recording}}.nwb"))
    recipe = recipes.find_recipe(str(tmp_path / "mine.yml"))
    sources.check(recipe)
    made = opening.open_recording(recipe, "session1")
    binned = binning.bin_recording(made, recipe.settings(BinSettings))
    np.testing.assert_array_equal(binned.stimulus.values.ravel(), speed[: binned.stimulus.size * 5 : 5])  # fmt: skip
    laid = laid_out(binned, made, recipe, tmp_path)
    assert laid.gap_s == 5.0 and laid.row_bins == 16 and set(laid.spans["role"]) == {"train", "val", "test"}  # fmt: skip
    assert len(laid.windows("test", context_s=3.0, horizon_s=1.0)) > 0


def of_ten_lines(folder, change):
    """The recording of `RECIPE` and what 01 to 03 make of it; `change(file)` spoils the file first."""
    rng, speed = np.random.default_rng(3), np.random.default_rng(4).normal(size=6001)
    file = nwb_file.new_file("made", "session1", "mouse")
    for _ in range(3):
        file.add_unit(spike_times=np.sort(rng.uniform(0.5, 60, 900)), obs_intervals=[[0.0, 60.0]])
    times = np.arange(6001) * 0.01
    file.add_acquisition(TimeSeries(name="running", data=speed, unit="m/s", timestamps=times))
    path = folder / "session1.nwb"
    nwb_file.write(file, path)
    with h5py.File(path, "r+") as opened:
        change(opened)
    (folder / "mine.yml").write_text(RECIPE.replace("PATH", f"{folder}/{{recording}}.nwb"))
    recipe = recipes.find_recipe(str(folder / "mine.yml"))
    made = opening.open_recording(recipe, "session1")
    checks_of_01.session_report(made)
    binned = binning.bin_recording(made, recipe.settings(BinSettings))
    return speed, binned, cleaning.clean(binned, made, recipe.settings(CleanSettings))[0]


def put(place, values, **attributes):
    """A change of a file: other values at a place, None for what stood there, and attributes."""

    def change(file):
        kept, before = dict(file[place].attrs), file[place][()]
        del file[place]
        file[place] = before if values is None else np.asarray(values)
        file[place].attrs.update(kept | attributes)

    return change


def with_rate(rate):
    def change(file):
        del file["acquisition/running/timestamps"]
        file["acquisition/running/starting_time"] = 0.0
        if rate is not None:
            file["acquisition/running/starting_time"].attrs["rate"] = rate

    return change


def both(*changes):
    return lambda file: [change(file) for change in changes]


RUNNING, AT = "acquisition/running", np.arange(6001) * 0.01


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (both(put(f"{RUNNING}/data", np.zeros(4001)), put(f"{RUNNING}/timestamps", AT[:4001])), "'running' is shorter than the spikes: timestamps go from 0 to 40.01 s"),
        (put(f"{RUNNING}/timestamps", AT + np.where(AT > 20, 5, 0)), r"'running': timestamps has 1 gap\(s\), the first from 20 to 25.01 s"),
        (put(f"{RUNNING}/timestamps", np.where(AT == 30, np.nan, AT)), "'running': timestamps is NaN or infinite in row 3000"),
        (put(f"{RUNNING}/timestamps", np.where(AT == 30, 0, AT)), r"'running': timestamps falls after row 2999 \(29.99 to 0 s\)"),
        (put(f"{RUNNING}/timestamps", AT[:-1]), "running/timestamps has 6,000 entries for 6,001 samples"),
        (put(f"{RUNNING}/timestamps", AT + 7), "'running' is shorter than the spikes: timestamps go from 7 to 67.01 s"),
        (put(f"{RUNNING}/timestamps", AT * 1000), r"'running': samples from 0 to 60,000 s, spikes from 0\.\d+ to (59\.\d+|60) s: they count in two units"),
        (put(f"{RUNNING}/timestamps", np.arange(6001.0)), "'running': samples from 0 to 6,000 s, .* These are sample numbers"),
        (put(f"{RUNNING}/timestamps", AT + 5000), "'running': samples from 5,000 to 5,060 s, .* they share no time; these are two clocks"),
        (put(f"{RUNNING}/timestamps", AT + 1.7e9), "'running': samples from .* the later clock counts from 1970"),
        (put(f"{RUNNING}/timestamps", np.floor(AT * 20) / 20), r"'running': timestamps: 4,800 of 6,001 are that of the sample before \(row 1, 2"),
        (put(f"{RUNNING}/data", np.zeros((6001, 0))), r"'running': data of shape \(6001, 0\) holds no channel"),
        (put(f"{RUNNING}/data", np.zeros((6001, 4, 5))), r"running/data is float64 of shape \(6001, 4, 5\)"),
        (with_rate(0.0), "running/starting_time gives a rate of 0 Hz"),
        (with_rate(None), "running/starting_time: the attribute 'rate' is not there"),
        (lambda file: file.copy(RUNNING, "processing/other/running"), "no series 'running'; did you mean acquisition/running or processing/other/running"),
        (put("units/spike_times", np.random.default_rng(5).uniform(0.5, 60, 2700)), "unsorted spike times in unit 0"),
        (put("units/spike_times_index", [0, 0, 0]), "units/spike_times_index ends at 0, but there are 2700 values"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_whole_is_refused_by_its_field(tmp_path, change, words):
    with pytest.raises((BadInput, BadParameter), match=f"session1.nwb: .*{words}"):
        of_ten_lines(tmp_path, change)


def test_odd_files_that_say_what_they_mean_are_read_right(tmp_path):
    """A scale, a unit that is silent, half of the time unobserved, a flicker of one column."""
    speed, binned, _ = of_ten_lines(tmp_path, put(f"{RUNNING}/data", None, conversion=0.5))
    n = binned.stimulus.size
    np.testing.assert_allclose(binned.stimulus.values.ravel(), speed[: 5 * n : 5] / 2, rtol=1e-6)

    def silence(file):
        times = file["units/spike_times"][()]
        put("units/spike_times", np.r_[times[:900], times[1800:]])(file)
        put("units/spike_times_index", [900, 900, 1800])(file)

    _, binned, _ = of_ten_lines(tmp_path, silence)
    assert (binned.counts.values.sum(axis=(0, 1))[[0, 1]] > 0).tolist() == [True, False]
    half = put("units/obs_intervals", [[0.0, 30.0]] * 3)
    _, binned, cleaned = of_ten_lines(tmp_path, half)
    rows = binned.trial.values
    assert cleaned.trial.values.tolist() == rows[binned.stop_s.values <= 30].tolist()
    asked = recipes.find_recipe(str(tmp_path / "mine.yml"))
    odd = checks_of_01.session_report(opening.open_recording(asked, "session1")).odd
    assert "50.4% of the units' time is unobserved. What" in odd[0]  # and no word of presentations
    column = put(f"{RUNNING}/data", speed[:, None])
    assert of_ten_lines(tmp_path, column)[1].stimulus.shape[2] == 1


def laid_out(binned, made, recipe, folder):
    """What 03 and 04 make of the counts, as the notebooks behind them load it."""
    cleaned, _ = cleaning.clean(binned, made, recipe.settings(CleanSettings))
    asked = recipe.settings(SplitSettings)
    split = split_roles.make_split(cleaned, asked)
    counts_dataset.save(cleaned, folder)
    stored_splits.save(folder, split, train_statistics.fit_folds(cleaned, split, asked))
    return stream.load(folder, folder, recipe, recipe.recordings[0])


@pytest.fixture
def chicken(real_data, monkeypatch):
    real_data("chicken_retina.nwb")
    recipe = recipes.find_recipe("chicken_retina")
    return recipe, opening.open_recording(recipe, "chicken_retina")


def test_the_published_cells_in_whole_samples(chicken, tmp_path):
    """Bins are 18 samples of the array: a spike's is its sample // 18."""
    recipe, made = chicken
    binned = binning.bin_recording(made, recipe.settings(BinSettings))
    samples = np.rint(made.spikes[0 : made.n_spikes] * 17852.76785).astype(np.int64)
    unit = np.repeat(np.arange(60), np.diff(made.spike_index))
    n_bins = binned.sizes["trial"] * binned.sizes["time"]
    inside = samples // 18 < n_bins
    expected = np.zeros((n_bins, 60), np.uint8)
    np.add.at(expected, (samples[inside] // 18, unit[inside]), 1)
    np.testing.assert_array_equal(binned.counts.values.reshape(n_bins, 60), expected)
    laid = laid_out(binned, made, recipe, tmp_path)
    rows = (laid.spans["stop"] - laid.spans["first"]).groupby(laid.spans["role"]).sum() // 992
    assert rows.to_dict() == {"train": 504, "test": 120, "val": 72}
    assert laid.counts.shape == (714_240, 60) and laid.stimulus.shape == (714_240, 4)
    assert len(laid.windows("test")) == 120 * 992 and laid.log_intensity is None
    np.testing.assert_array_equal(laid.counts, expected)
    with pytest.raises(BadParameter, match="fold = 1"):
        stream.load(tmp_path, tmp_path, recipe, "chicken_retina", fold=1)
