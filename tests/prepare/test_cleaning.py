"""What cleaning removes, and that it says so."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from nblib.core.errors import BadInput, BadParameter
from nblib.core.params import BinSettings, CleanSettings, Recipe
from nblib.data.counts_dataset import bin_stops
from nblib.data.counts_dataset import load as load_counts
from nblib.data.recording import Recording
from nblib.data.trials import time_intervals
from nblib.prepare import binning, cleaning


@pytest.fixture
def road():
    """A recording of four units and forty trials, 1 s apart, with two invalid intervals."""
    rng = np.random.default_rng(0)
    trains = [np.sort(rng.uniform(0, 40, 800)) for _ in range(4)]
    start = np.arange(40.0)
    table = pd.DataFrame(
        {"start_time": start, "stop_time": start + 0.5, "frame": np.arange(40) % 4}
    )
    units = pd.DataFrame(
        {
            "area": ["VISp", "VISp", "CA1", "LGd"],
            "isi_violations": [0.1, 0.6, 0.7, 0.2],
            "amplitude_cutoff": [0.01, 0.3, 0.02, np.nan],
        },
        index=pd.Index([7, 8, 9, 10], name="unit_id"),
    )
    invalid = pd.DataFrame({"start_time": [10.2, 10.3], "stop_time": [10.6, 12.3]})
    index = np.concatenate([[0], np.cumsum([len(t) for t in trains])])
    recording = Recording(
        "r", "s", None, units, index, np.concatenate(trains),
        {"t": table, "invalid_times": invalid}, "t", "frame",
    )  # fmt: skip
    return recording, binning.bin_recording(recording, BinSettings())


def removed(removals, reason):
    row = removals[removals.reason.str.contains(reason)]
    assert len(row) == 1
    return int(row.removed.iloc[0])


@pytest.mark.parametrize(
    ("limit", "column", "value"),
    [
        ({"isi_violations_max": 0.5}, "isi_violations", -1.0),
        ({"amplitude_cutoff_max": 0.1}, "amplitude_cutoff", 5.0),
    ],
)
def test_a_quality_that_cannot_be_passes_no_limit(road, limit, column, value):
    """-1 for a missing value, and percent, would pass or fail units unseen."""
    recording, binned = road
    wrong = binned.assign_coords(
        {column: ("unit", np.where(binned.unit == 8, value, binned[column]))}
    )
    with pytest.raises(BadInput, match=f"{column!r} holds {value:g} in row 1 of the units"):
        cleaning.clean(wrong, recording, CleanSettings(**limit))
    cleaning.clean(wrong, recording, CleanSettings())


def test_invalid_times_are_dropped_and_counted(road):
    recording, binned = road
    cleaned, removals = cleaning.clean(binned, recording, CleanSettings())
    assert set(binned.trial.values) - set(cleaned.trial.values) == {10, 11, 12}
    spikes = recording.spikes[0 : recording.n_spikes]
    inside = ((spikes >= 10.2) & (spikes < 12.3)).sum()
    assert inside > 0
    assert removals.removed.tolist() == [inside, 3]
    assert removals.kept.tolist() == [3200 - inside, 37]


def test_kept_presentations_lose_only_the_invalid_spikes(road):
    recording, binned = road
    cleaned, _ = cleaning.clean(binned, recording, CleanSettings(invalid_presentations="keep"))
    spikes = recording.spikes[0 : recording.n_spikes]
    valid = [s[(s < 10.2) | (s >= 12.3)] for s in np.split(spikes, recording.spike_index[1:-1])]
    again = Recording(
        "r", "s", None, recording.units, np.concatenate([[0], np.cumsum([len(v) for v in valid])]),
        np.concatenate(valid), recording.intervals, "t", "frame",
    )  # fmt: skip
    np.testing.assert_array_equal(
        cleaned.counts, binning.bin_recording(again, BinSettings()).counts
    )
    np.testing.assert_allclose(cleaned.exposure_s.sel(trial=10), [0.1, 0.1, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(cleaned.exposure_s.sel(trial=12), [0, 0, 0, 0.1, 0.1], atol=1e-12)
    recipe = Recipe(recipe="r", recordings=["r"])  # bins end where they did
    np.testing.assert_allclose(bin_stops(cleaned, recipe), bin_stops(binned, recipe), atol=1e-9)
    as_is, _ = cleaning.clean(
        binned, recording, CleanSettings(invalid_presentations="keep", invalid_spikes="keep")
    )
    assert as_is.identical(binned)


def test_quality_limits_count_each_unit_once(road):
    recording, binned = road
    cleaned, removals = cleaning.clean(
        binned, recording, CleanSettings(isi_violations_max=0.5, amplitude_cutoff_max=0.1)
    )
    np.testing.assert_array_equal(cleaned.unit, [7])
    assert removed(removals, "isi_violations above") == 2
    assert (
        removed(removals, "amplitude_cutoff above") == 0
    )  # unit 8 fails both, counted at the first
    assert removed(removals, "amplitude_cutoff not recorded") == 1
    everything, _ = cleaning.clean(binned, recording, CleanSettings())
    assert everything.sizes["unit"] == 4  # the default sets no limit


def test_a_limit_without_its_column_is_refused(road):
    recording, binned = road
    with pytest.raises(BadParameter, match="presence_ratio"):
        cleaning.clean(binned, recording, CleanSettings(presence_ratio_min=0.95))


def test_a_limit_reads_numbers_kept_as_text_and_refuses_words(road):
    recording, binned = road
    limit = CleanSettings(isi_violations_max=0.5)
    told = np.array([f"{value:g}" for value in binned.isi_violations.values])
    as_text, removals = cleaning.clean(
        binned.assign_coords(isi_violations=("unit", told)), recording, limit
    )
    np.testing.assert_array_equal(as_text.unit, cleaning.clean(binned, recording, limit)[0].unit)
    assert removed(removals, "isi_violations above") == 2
    told = np.array(["low", *told[1:]], object)
    with pytest.raises(BadInput, match=r"'isi_violations' holds 'low' in row 0"):
        cleaning.clean(binned.assign_coords(isi_violations=("unit", told)), recording, limit)


def test_regions_and_subsets(road):
    recording, binned = road
    cleaned, removals = cleaning.clean(binned, recording, CleanSettings(regions=["VISp", "LGd"]))
    np.testing.assert_array_equal(cleaned.unit, [7, 8, 10])
    assert removed(removals, "area not in") == 1
    with pytest.raises(BadParameter, match=r"'V1'.*CA1, LGd, VISp"):
        cleaning.clean(binned, recording, CleanSettings(regions=["V1"]))
    unread = dataclasses.replace(recording, meta={"left_out": {"area": "its shape is (4, 2)"}})
    with pytest.raises(BadParameter, match=r"its areas: none \(its shape is \(4, 2\)\)"):
        cleaning.clean(binned.drop_vars("area"), unread, CleanSettings(regions=["V1"]))
    first, _ = cleaning.clean(binned, recording, CleanSettings(n_units=2, units_seed=3))
    second, _ = cleaning.clean(binned, recording, CleanSettings(n_units=2, units_seed=3))
    np.testing.assert_array_equal(first.unit, second.unit)
    with pytest.raises(BadParameter, match="only 4 units"):
        cleaning.clean(binned, recording, CleanSettings(n_units=9))


def test_limits_on_any_number_of_units_and_on_how_many_units_and_trials_are_counted(road):
    recording, binned = road
    depth = binned.assign_coords(z=("unit", [100.0, np.nan, 900.0, 300.0]))
    limit = CleanSettings(unit_limits={"z": [200, np.inf], "isi_violations": [0.15, 0.65]})
    cleaned, removals = cleaning.clean(depth, recording, limit)
    np.testing.assert_array_equal(cleaned.unit, [10])
    told = removals[removals["what"] == "units"].set_index("reason")[["removed", "kept"]]
    assert told.to_dict("index") == {
        "z below 200": {"removed": 1, "kept": 3},
        "z not recorded": {"removed": 1, "kept": 2},
        "isi_violations below 0.15": {"removed": 0, "kept": 2},
        "isi_violations not recorded": {"removed": 0, "kept": 2},
        "isi_violations above 0.65": {"removed": 1, "kept": 1},
    }
    for name, limits in (("depth", [0, 1]), ("depth", [-np.inf, np.inf]), ("start_s", [0, 1])):
        with pytest.raises(BadParameter, match=f"has no recorded {name}.* there is .*isi_viol"):
            cleaning.clean(binned, recording, CleanSettings(unit_limits={name: limits}))
    near = {"isi_violations_max": 0.5999999, "unit_limits": {"isi_violations": [0, 0.60000001]}}
    np.testing.assert_array_equal(
        cleaning.clean(binned, recording, CleanSettings(**near))[0].unit, [7, 10]
    )
    for wrong in ([1], [1, 2, 3], ["a", 1], [np.nan, 1], [2, 1], [np.inf, np.inf]):
        with pytest.raises(ValueError, match="unit_limits"):
            CleanSettings(unit_limits={"z": wrong})
    for most, kept in ((3, 3), (4, 4), (9, 4)):  # of fewer all, where n_units refuses
        cleaned, removals = cleaning.clean(binned, recording, CleanSettings(most_units=most))
        assert cleaned.sizes["unit"] == kept and removed(removals, "random subset") == 4 - kept
    late = binned.isel(trial=slice(None, None, -1))  # in whatever order they stand
    for most, kept in ((12, 12), (99, 37)):  # three touch an invalid interval
        cleaned, removals = cleaning.clean(late, recording, CleanSettings(most_trials=most))
        assert sorted(cleaned.trial.values) == [*range(10), *range(13, 40)][:kept]
        assert removed(removals, f"after the first {most}") == 37 - kept
    assert cleaning.sentence(binned, cleaned).startswith("**Result.** 4 of 4 units and 37 of 40")


def test_nothing_left_is_an_error(road):
    recording, binned = road
    with pytest.raises(BadInput, match="no unit is left"):
        cleaning.clean(binned, recording, CleanSettings(isi_violations_max=0.0))


def test_interval_algebra():
    union = time_intervals.merged(np.array([[5, 7], [1, 2], [6, 9], [11, 11], [2, 3]]))
    np.testing.assert_array_equal(union, [[1, 3], [5, 9]])
    start, stop = np.array([0, 3, 4, 8, 9]), np.array([1, 5, 6, 12, 10])
    np.testing.assert_array_equal(
        time_intervals.touches(start, stop, union), [False, False, True, True, False]
    )
    assert not time_intervals.touches(start, stop, np.empty((0, 2))).any()


@pytest.mark.parametrize("stop", [np.nan, np.inf])
@pytest.mark.parametrize("presentations", ["drop", "keep"])
def test_invalid_times_without_an_end(road, stop, presentations):
    recording, binned = road
    table = recording.intervals["invalid_times"]
    table.loc[1] = [25.25, stop]
    settings = CleanSettings(invalid_presentations=presentations)
    cleaned, removals = cleaning.clean(binned, recording, settings)
    spikes = recording.spikes[0 : recording.n_spikes]
    inside = ((spikes >= 10.2) & (spikes < 10.6)).sum() + (spikes >= 25.25).sum()
    assert removals.removed.tolist()[0] == inside and (removals[["removed", "kept"]] >= 0).all(
        axis=None
    )
    if presentations == "drop":
        assert cleaned.trial.values.tolist() == [*range(10), *range(11, 25)]
    else:
        assert int(cleaned.counts[26:].sum()) == 0 and float(cleaned.exposure_s[26:].sum()) == 0
        assert float(cleaned.exposure_s[25].sum()) == pytest.approx(0.25)


def observed(road, *rows):
    """The road with the observed times of its four units, and no invalid ones."""
    recording, binned = road
    times = [None if r is None else np.array(r, float) for r in rows]
    tables = {"t": recording.intervals["t"]}
    return dataclasses.replace(recording, observed=times, intervals=tables), binned


ALWAYS = [[0.0, 40.5]]


@pytest.mark.parametrize(
    ("how", "trials", "units"),
    [("presentations", 20, 4), ("units", 40, 3), ("largest", 40, 3), ("keep", 40, 4)],
)
def test_what_was_not_observed_goes(road, how, trials, units):
    """One of four units was observed in the first half; edges are off by half a millisecond."""
    recording, binned = observed(road, ALWAYS, None, [[0.0005, 19.4995]], [[0, 20], [20.0005, 50]])
    cleaned, removals = cleaning.clean(binned, recording, CleanSettings(unobserved=how))
    assert cleaned.sizes["trial"] == trials and cleaned.sizes["unit"] == units
    rows = removals[removals.reason == "not observed throughout"]
    gone = {"presentations": 40 - trials, "units": 4 - units}
    wanted = {
        "presentations": ["presentations"],
        "units": ["units"],
        "largest": list(gone),
        "keep": [],
    }[how]
    assert dict(zip(rows.what, rows.removed, strict=True)) == {what: gone[what] for what in wanted}


def test_units_that_other_limits_drop_do_not_cost_presentations(road):
    recording, binned = observed(road, ALWAYS, [[0, 5]], [[0, 5]], ALWAYS)
    cleaned, _ = cleaning.clean(binned, recording, CleanSettings(isi_violations_max=0.5))
    assert cleaned.sizes["trial"] == 40 and cleaned.unit.values.tolist() == [7, 10]


def test_units_that_were_never_observed_together_are_refused_with_what_helps(road):
    """Blocks of one kind of label each: what would be decoded is who was observed."""
    recording, binned = observed(road, [[0, 15]], [[0, 15]], [[15, 41]], [[15, 41]])
    for how in ("presentations", "units"):
        with pytest.raises(BadInput, match="unobserved: largest leaves 2 of 4 units and 25 of 40"):
            cleaning.clean(binned, recording, CleanSettings(unobserved=how))
    cleaned, _ = cleaning.clean(binned, recording, CleanSettings(unobserved="largest"))
    assert cleaned.trial.values.tolist() == list(
        range(15, 40)
    ) and cleaned.unit.values.tolist() == [9, 10]
    never, binned = observed(road, *[[[0.1, 0.2]]] * 4)
    with pytest.raises(BadInput, match="No unit was observed throughout any presentation"):
        cleaning.clean(binned, never, CleanSettings())


def test_time_around_an_event_must_be_observed_too(road):
    """Bins reach beyond the presentation: what counts is the time that is counted."""
    recording, _ = observed(road, *[[[0, 20.7], [20.9, 50]]] * 4)
    window = BinSettings(binning="event_window", bin_s=0.25, window_start_s=0.0, window_stop_s=0.75)
    for settings, kept in ((BinSettings(), 40), (window, 39)):
        binned = binning.bin_recording(recording, settings)
        assert cleaning.clean(binned, recording, CleanSettings())[0].sizes["trial"] == kept


def test_cleaned_counts_come_back(road, tmp_path):
    recording, counts = road
    cleaned, removals = cleaning.clean(counts, recording, CleanSettings())
    cleaning.save(cleaned, removals, tmp_path)
    np.testing.assert_array_equal(load_counts(tmp_path).counts, cleaned.counts)
    assert (
        pd.read_parquet(tmp_path / "removals.parquet")["removed"].tolist()
        == removals["removed"].tolist()
    )
