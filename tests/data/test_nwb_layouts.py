"""NWB files as other labs write them: odd layouts are read right or refused with the field."""

import os

import h5py
import numpy as np
import pytest
from nwb_files import COUNTS, electrodes, make, opened, text, trains

from nblib.core.errors import BadInput
from nblib.core.params import BinSettings, Recipe
from nblib.data import nwb, opening
from nblib.data.checks import session_report
from nblib.data.checks.clock import Clock, check_time_unit
from nblib.data.nwb import tables
from nblib.prepare import binning

# --- spikes ----------------------------------------------------------------------------------------


def rewrite(**how):
    def change(file):
        values = file["units/spike_times"][()].astype(how.get("dtype", np.float64))
        del file["units/spike_times"]
        file["units"].create_dataset(
            "spike_times", data=values, **{k: v for k, v in how.items() if k != "dtype"}
        )

    return change


@pytest.mark.parametrize(
    ("how", "mapped"),
    [
        ({}, True),
        ({"dtype": "<f4"}, False),
        ({"dtype": ">f8"}, False),
        ({"chunks": (64,), "compression": "gzip", "fletcher32": True}, False),
        ({"chunks": (64,)}, False),
    ],
)
def test_spike_times_in_every_storage(layout, how, mapped):
    recording = opened(layout(rewrite(**how)))
    assert (isinstance(recording.spikes.mapped, np.memmap)) == mapped
    tolerance = 1e-5 if how.get("dtype") == "<f4" else 0
    for i, train in enumerate(trains()):
        read = recording.spike_times(i)
        assert read.dtype == np.float64 and read.dtype.isnative
        np.testing.assert_allclose(read, train, rtol=0, atol=tolerance)
    assert len(recording.spikes[5:5]) == 0 and len(recording.spikes[:]) == recording.n_spikes


def test_spikes_behind_a_user_block_and_a_link(tmp_path, layout):
    """The bytes lie elsewhere than their offset alone says; both ways of reading agree."""
    plain = layout()
    blocked = tmp_path / "blocked.nwb"
    with h5py.File(plain) as old, h5py.File(blocked, "w", userblock_size=512) as new:
        for name in old:
            old.copy(name, new)
    linked = tmp_path / "linked.nwb"
    with h5py.File(plain) as old, h5py.File(linked, "w") as new:
        old.copy("intervals", new)
        new["units"] = h5py.ExternalLink("x.nwb", "/units")
    for path in (blocked, linked):
        recording = opened(path)
        assert recording.n_spikes == sum(COUNTS)
        np.testing.assert_array_equal(recording.spike_times(2), trains()[2])
        np.testing.assert_array_equal(
            np.concatenate([*recording.trains()]), np.concatenate(trains())
        )


def test_bytes_that_vanish_after_opening_are_an_error(layout):
    path = layout(rewrite(chunks=(64,), compression="gzip", fletcher32=True))
    with h5py.File(path) as file:
        at = file["units/spike_times"].id.get_chunk_info(2).byte_offset
    raw = bytearray(path.read_bytes())
    raw[at + 20] ^= 0xFF
    path.write_bytes(raw)
    with pytest.raises(BadInput, match=r"x\.nwb: units/spike_times.*damaged"):
        opened(path).spikes[0 : sum(COUNTS)]
    whole = opened(layout(name="y.nwb"))
    with h5py.File(whole.path) as file:
        cut = file["units/spike_times"].id.get_offset() + 800
    os.truncate(whole.path, cut)
    with pytest.raises(BadInput, match="damaged"):
        whole.spikes[0 : sum(COUNTS)]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda u: u["spike_times_index"].__setitem__(-1, 399), "ends at 399, but there are 400"),
        (lambda u: u["spike_times_index"].__setitem__(1, 90), "falls at row 1"),
        (lambda u: u.__delitem__("spike_times_index"), "no spike_times_index"),
        (
            lambda u: (u.pop("spike_times"), u.create_group("spike_times")),
            "spike_times is a group, not data",
        ),
        (
            lambda u: (u.pop("spike_times_index"), u.create_group("spike_times_index")),
            "spike_times_index is a group",
        ),
        (
            lambda u: (
                u.pop("spike_times"),
                u.create_dataset("spike_times", data=h5py.Empty("f8")),
            ),
            "spike_times holds no value",
        ),
        (lambda u: u["id"].__setitem__(1, 10), "the units table names several units alike: 10"),
        (
            lambda u: (
                u.pop("id"),
                u.create_dataset(
                    "id", data=[0.0, np.nan, 2.0, np.nan][: len(u["spike_times_index"])]
                ),
            ),
            "the units table has no name for units in row 1",
        ),
        (lambda u: u["spike_times"].attrs.__setitem__("unit", "ms"), "time_unit: ms"),
        (
            lambda u: (u.__setitem__("snr", np.zeros(3)), u.attrs.__setitem__("colnames", ["snr"])),
            "'snr' of units has 3 entries",
        ),
    ],
)
def test_a_units_table_that_does_not_fit(layout, change, says):
    with pytest.raises(BadInput, match=says):
        opened(layout(lambda file: change(file["units"])))


# --- tables ----------------------------------------------------------------------------------------


def test_columns_of_every_kind(layout):
    def change(file):
        table = file["intervals/trials"]
        text(table, "name", ["a", "b", "ü", "d", "e", "f"])
        table["bytes"] = np.array([b"x", b"y", b"z", b"x", b"y", b"z"])
        table["flag"] = np.array([True, False] * 3)
        text(table, "tags", list("pqrstu"))
        table["tags_index"] = np.arange(1, 7)
        text(table, "many", list("abcdefgh"))
        table["many_index"] = np.array([1, 2, 3, 4, 5, 8])
        table["wave"] = np.zeros((6, 3))
        pair = table.create_dataset("timeseries", (6,), [("at", "i4"), ("what", h5py.ref_dtype)])
        pair.attrs["neurodata_type"] = "VectorData"
        kinds = text(table, "choice_elements", ["left", "right"])
        choice = table.create_dataset("choice", data=np.array([0, 1, 1, 0, 0, 1], np.uint8))
        choice.attrs["neurodata_type"], choice.attrs["elements"] = "EnumData", kinds.ref
        table["trial"], table["trial_index"] = np.arange(6), np.arange(6) * 3
        # The others are not listed; `choice_elements` is no column.
        table.attrs["colnames"] = ["start_time", "stop_time", "name", "trial", "trial_index"]

    table = opened(layout(change)).intervals["trials"]
    assert table.columns.tolist()[:3] == ["start_time", "stop_time", "name"]
    assert table["name"].tolist() == ["a", "b", "ü", "d", "e", "f"]
    assert table["bytes"].tolist() == list("xyzxyz")
    assert table["flag"].dtype == bool and table["flag"].tolist() == [True, False] * 3
    assert table["tags"].tolist() == list("pqrstu")
    assert table["many"].tolist()[-2:] == [["e"], ["f", "g", "h"]]
    assert table["choice"].tolist() == ["left", "right", "right", "left", "left", "right"]
    assert table["trial_index"].tolist() == [0, 3, 6, 9, 12, 15]
    assert not {"wave", "timeseries", "choice_elements"} & set(table)


def test_one_value_per_spike_is_not_read_to_be_left_out(layout, monkeypatch):
    def change(file):
        file["units/spike_amplitudes"] = np.zeros(sum(COUNTS))
        file["units/spike_amplitudes_index"] = file["units/spike_times_index"][()]

    read = []
    values = tables._values
    monkeypatch.setattr(
        tables, "_values", lambda data, *where: read.append(data.name) or values(data, *where)
    )
    recording = opened(layout(change))
    assert recording.meta["left_out"] == {"spike_amplitudes": "is there, but each row is a list"}
    assert "/units/spike_amplitudes" not in read


def test_electrodes_by_region_of_rows(layout):
    def plain(file):
        electrodes(file)
        file["units/electrodes"] = np.array([3, 2, 0, 1])

    units = opened(layout(plain)).units
    assert units.area.tolist() == ["CA3", "", "CA1", "VISp"]
    assert units.probe.tolist() == ["shank1", "shank1", "shank0", "shank0"]
    assert units.channel.tolist() == [503, 502, 500, 501] and units.y.tolist() == [31, 21, 1, 11]

    def ragged(file):
        electrodes(file)
        file["units/electrodes"] = np.array([0, 1, 3, 0, 3])
        file["units/electrodes_index"] = np.array([2, 2, 3, 5])

    units = opened(layout(ragged)).units
    assert units.area.tolist() == ["CA1/VISp", "", "CA3", "CA1/CA3"]
    assert units.x.tolist()[0] == 5 and np.isnan(units.x.tolist()[1])

    def beyond(file):
        electrodes(file)
        file["units/electrodes"] = np.array([0, 1, 2, 4])

    with pytest.raises(BadInput, match="row 4 of an electrodes table of 4 rows"):
        opened(layout(beyond))


@pytest.mark.parametrize(
    ("areas", "read", "odd"),
    [
        (["nan", "None", "", "CA1"], ["", "", "", "CA1"], ""),
        (["V1", "v1 ", "V1", "CA"], ["V1", "v1 ", "V1", "CA"], "'V1' (2) and 'v1 ' (1); they are"),
        (["V1", "CA1", "NA", "n/a"], ["V1", "CA1", "NA", "n/a"], "of their own: 'NA' (1) and 'n/a' (1)"),
        (None, None, "Areas of units are unknown: column 'area' is there, but its shape is (4, 2)"),
    ],
)  # fmt: skip
def test_areas_are_as_written_and_what_is_odd_in_them_is_told(layout, areas, read, odd):
    def change(file):
        file["units/area"] = np.zeros((4, 2)) if areas is None else np.array(areas, "S")

    recording = opened(layout(change))
    assert (recording.units.area.tolist() if read else None) == read
    told = [words for words in session_report(recording).odd if "reas" in words]
    assert len(told) == bool(odd) and odd in " ".join(told)


def test_a_table_without_rows_may_hold_nothing_at_all(layout):
    def change(file):
        table = file.create_group("intervals/invalid_times")
        for name in ("id", "start_time", "stop_time", "tags"):
            table[name] = h5py.Empty("f8")

    recording = opened(layout(change))
    assert recording.intervals["invalid_times"].empty and recording.invalid_times.shape == (0, 2)


@pytest.mark.parametrize(("there", "missing"), [("start", "stop"), ("stop", "start")])
def test_invalid_times_without_a_column_are_refused(layout, there, missing):
    path = layout(lambda f: f.__setitem__(f"intervals/invalid_times/{there}_time", [1.0]))
    with h5py.File(path, "a") as file:
        file["intervals/invalid_times/id"] = [0]
    with pytest.raises(BadInput, match=rf"x\.nwb: invalid_times has no column '{missing}_time'"):
        session_report(opened(path))


def test_an_area_of_the_units_table_itself(layout):
    units = opened(layout(lambda f: text(f["units"], "brain_region", list("abcd")))).units
    assert units.area.tolist() == list("abcd")


def test_tables_of_processing_and_no_trials_at_all(layout):
    def change(file):
        file.copy("intervals/trials", file.create_group("processing/behavior"), "licks")
        del file["intervals"]

    path = layout(change)
    with pytest.raises(
        BadInput, match="no interval table 'trials'; there is processing/behavior/licks"
    ):
        opened(path)
    assert len(opened(path, intervals="processing/behavior/licks").trial_table) == 6
    recording = opened(path, intervals="", label="")
    assert "trials" not in recording.intervals and recording.n_spikes == sum(COUNTS)
    assert (
        session_report(recording).tables["summary"].set_index("item").value["trial table"] == "none"
    )


def test_tables_are_read_when_asked_for_only(layout, monkeypatch):
    def change(file):
        file.copy("intervals/trials", file["intervals"], "other")

    read = []
    table = tables.read_table
    monkeypatch.setattr(
        tables, "read_table", lambda g, *a, **k: read.append(g.name) or table(g, *a, **k)
    )
    recording = opened(layout(change))
    assert read.count("/intervals/other") == 0
    recording.intervals["other"], recording.intervals["other"]
    assert read.count("/intervals/other") == 1


def test_series_are_scaled_and_timed(layout):
    def change(file):
        one = file.create_group("processing/running/speed")
        one["data"], one["timestamps"] = np.arange(10, dtype=np.int16), np.arange(10) * 0.1
        one["data"].attrs.update({"unit": "m/s", "conversion": 0.5, "offset": 1.0})
        two = file.create_group("acquisition/lfp")
        two["data"] = np.zeros((8, 2))
        two["starting_time"] = 3.0
        two["starting_time"].attrs["rate"] = 1250.0
        three = file.create_group("processing/running/turns")
        three["data"] = np.zeros(10)
        three["timestamps"] = h5py.SoftLink("/processing/running/speed/timestamps")
        same = file.create_group("acquisition/speed")
        same["data"], same["timestamps"] = np.zeros(1), np.zeros(1)

    series = opened(layout(change)).series
    assert set(series) == {"processing/running/speed", "acquisition/speed", "lfp", "turns"}
    speed = series["processing/running/speed"]
    assert speed.unit == "m/s" and speed.read(1, 3).tolist() == [1.5, 2.0]
    assert series["turns"].timestamps().tolist() == pytest.approx(np.arange(10) * 0.1)
    assert (series["lfp"].rate_hz, series["lfp"].start_s) == (1250.0, 3.0)
    assert series["lfp"].read(0, 99).shape == (8, 2)


def observed_as(values, index=None):
    def change(file):
        file["units/obs_intervals"] = np.asarray(values)
        if index is not None:
            file["units/obs_intervals_index"] = np.asarray(index)

    return change


def test_when_units_were_observed(layout):
    assert opened(layout()).observed is None
    assert opened(layout(observed_as(np.empty((0, 2)), [0, 0, 0, 0]))).observed is None
    rows = [[0.0, 5.0], [6.0, np.nan], [0.0, 9.0], [1.0, 2.0]]
    ragged = opened(layout(observed_as(rows, [2, 2, 3, 4])))
    assert ragged.observed[0].tolist() == [[0, 5], [6, np.inf]] and ragged.observed[1] is None
    assert [len(times) for times in ragged.observed[2:]] == [1, 1]
    flat = opened(layout(observed_as([[0.0, 9000.0]] * 4, [1, 2, 3, 4])), time_unit="ms")
    assert [times.tolist() for times in flat.observed] == [[[0, 9]]] * 4
    assert (
        "obs_intervals"
        not in opened(layout(observed_as([[0.0, 9.0]] * 4, [1, 2, 3, 4]))).meta["left_out"]
    )


@pytest.mark.parametrize(
    ("values", "index", "says"),
    [
        (np.zeros((4, 2)), [1, 2, 3, 5], "obs_intervals_index"),
        (np.zeros((4, 2)), [1, 2, 4], "obs_intervals_index has 3 entries for 4 units"),
        (np.zeros((4, 2)), None, "obs_intervals has no index"),
        (np.zeros(8), None, r"obs_intervals is float64 of shape \(8,\)"),
        (3.0, None, r"obs_intervals is float64 of shape \(\)"),
    ],
)
def test_observed_times_that_do_not_fit_are_refused(layout, values, index, says):
    with pytest.raises(BadInput, match=rf"x\.nwb: units/{says}"):
        opened(layout(observed_as(values, index)))


# --- seconds and milliseconds ----------------------------------------------------------------------


def test_a_second_clock_in_one_file_is_refused_both_ways(layout):
    long = [t * 20 for t in trains(rate=20.0)]
    spikes_ms = layout(spikes=[t * 1000 for t in long], name="spikes.nwb")
    with pytest.raises(BadInput, match="Spike times look like milliseconds, interval tables like"):
        session_report(opened(spikes_ms))

    def change(file):
        for name in ("start_time", "stop_time"):
            file["intervals/trials"][name][...] = file["intervals/trials"][name][()] * 1000

    with pytest.raises(BadInput, match="Interval tables look like milliseconds"):
        session_report(opened(layout(change, name="tables.nwb")))


def test_seconds_read_as_milliseconds_are_refused(layout):
    with pytest.raises(BadInput, match="Set time_unit: s"):
        session_report(opened(layout(), time_unit="ms"))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rate", [0.3, 3.0, 15.0])
def test_trains_of_any_rate_tell_their_unit(rate, seed):
    """Poisson trains of an hour, log-normal rates over units, with and without intervals."""
    rng = np.random.default_rng(seed)
    rates = rate * rng.lognormal(-0.5, 1.0, 30)
    spikes = [np.sort(rng.uniform(0, 3600, rng.poisson(r * 3600))) for r in rates]

    def clock(scale, intervals):
        steps = np.concatenate([np.diff(t) * scale for t in spikes])
        firing = [t for t in spikes if len(t)]
        return Clock(
            len(firing), sum(map(len, firing)), min(t[0] for t in firing) * scale,
            max(t[-1] for t in firing) * scale, len(steps), int((steps < 0.1).sum()), *intervals,
        )  # fmt: skip

    for intervals in ((np.nan, np.nan), (3000.0, 0.25)):
        check_time_unit("x", clock(1.0, intervals), "s")
    for intervals in ((np.nan, np.nan), (3_000_000.0, 250.0), (3000.0, 0.25)):
        with pytest.raises(BadInput, match="milliseconds"):
            check_time_unit("x", clock(1000.0, intervals), "s")


def test_sparse_spikes_beside_short_presentations_are_seconds():
    sparse = Clock(10, 300, 0.0, 3000.0, 290, 1, 2900.0, 0.25)  # one spike in 100 s
    check_time_unit("x", sparse, "s")
    with pytest.raises(BadInput, match="time_unit: ms"):
        check_time_unit("x", Clock(10, 300, 0.0, 3000.0, 290, 1, 2900.0, 250.0), "s")
    check_time_unit("x", Clock(10, 50, 0.0, 3000.0, 40, 0, np.nan, np.nan), "s")  # too few to tell


# --- real recordings -------------------------------------------------------------------------------


def test_real_allen_spikes(real_data):
    recording = nwb.open_nwb(
        real_data("allen_gratings.nwb"),
        intervals="drifting_gratings_presentations",
        label="orientation",
    )
    report = session_report(recording)
    assert (recording.n_units, recording.n_spikes) == (1000, 153_635)
    assert report.tables["presentations"].set_index("label")["n"].to_dict() == dict.fromkeys(
        (0, 45, 90, 135), 50
    )
    assert "area" not in recording.units
    assert len(report.odd) == 1 and "10 of 1,000 units have no spikes" in report.odd[0]
    with pytest.raises(BadInput, match="no interval table 'natural_scenes_presentations'"):
        nwb.open_nwb(recording.path, intervals="natural_scenes_presentations", label="frame")


def test_real_human_units(real_data):
    recording = nwb.open_nwb(
        real_data("human_mtl_movie_clips.nwb"), intervals="encoding_table", label="stimCategory"
    )
    report = session_report(recording)
    assert report.tables["units"].set_index("area")["units"].to_dict() == {
        "hippocampus_right": 25,
        "amygdala_right": 10,
    }
    assert report.tables["presentations"]["n"].tolist() == [30, 30, 30]
    assert recording.trial_table["Clip_name"].iloc[0] == "NB_24.mp4"
    assert any("recognition_table: 3 of 180 intervals begin before" in o for o in report.odd)
    np.testing.assert_array_equal(
        np.concatenate([*recording.trains()]), recording.spikes[0 : recording.n_spikes]
    )


def test_real_retina_without_intervals(real_data):
    recording = nwb.open_nwb(real_data("chicken_retina.nwb"), intervals="", label="")
    noise = recording.series["full_field_noise"]
    assert recording.n_units == 60 and noise.read(0, 5).shape == (5, 4)
    assert len(noise.timestamps()) == noise.n_samples == 14_399
    assert session_report(recording).odd == []


@pytest.mark.filterwarnings("ignore:OpticalSeries")
def test_it_reads_what_pynwb_reads(real_data):
    pynwb = pytest.importorskip("pynwb")
    path = real_data("human_mtl_movie_clips.nwb")
    recording = nwb.open_nwb(path, intervals="encoding_table", label="stimCategory")
    with pynwb.NWBHDF5IO(str(path), "r") as io:
        file = io.read()
        for i in range(len(file.units)):
            np.testing.assert_array_equal(file.units["spike_times"][i], recording.spike_times(i))
        for name in ("encoding_table", "recognition_table", "timediscrimination_table"):
            theirs = file.intervals[name].to_dataframe()
            ours = recording.intervals[name]
            for column in theirs:
                values = theirs[column]
                if values.dtype == object:  # pynwb leaves this file's text as bytes
                    values = values.str.decode("utf-8")
                np.testing.assert_array_equal(values.to_numpy(), ours[column].to_numpy())


def timed(file, place, data, timestamps=None, rate=None):
    """A TimeSeries with timestamps, or from time 0 with a rate."""
    group = file.create_group(place)
    group.attrs["neurodata_type"] = "TimeSeries"
    group["data"] = data
    if timestamps is not None:
        group["timestamps"] = timestamps
    else:
        group.create_dataset("starting_time", data=0.0).attrs["rate"] = rate


def test_series_of_a_session_become_signals_by_channel_and_clock_and_one_may_be_called_lfp(
    tmp_path,
):
    """A session as DANDI has them: trials, series with timestamps or a rate, of several channels."""
    t, waves = np.arange(0, 12, 0.01), np.sin(2 * np.pi * 40 * np.arange(0, 12, 0.001))

    def change(file):
        trials = file["intervals/trials"]
        trials["stim_on_time"] = np.arange(6) * 2.0 + 0.1
        text(trials, "block", ["left", "right", "left"] * 2)
        timed(file, "processing/behavior/wheel", np.column_stack([np.cos(t), 2 * t]), t)
        timed(file, "processing/camera/energy", (np.arange(1200) % 250).astype(np.uint8), rate=100)
        timed(file, "processing/ecephys/lfp", waves[:, None] * [1.0, 2.0], rate=1000)

    wanted = {
        "wheel": {"series": "wheel", "channel": 1, "kind": "speed"},
        "whisker": {"series": "energy"},
        "gamma": {"series": "lfp", "channel": 1, "kind": "power", "band_hz": [30, 50]},
    }
    recipe = Recipe(
        recipe="r", recordings=["m"], source="nwb", path=str(make(tmp_path / "s.nwb", change)), intervals="trials",
        label="stim", binning="event_window", event="stim_on_time", bin_s=0.1, window_start_s=0.0,
        window_stop_s=0.3, signals=wanted, variables=["block"],
    )  # fmt: skip
    recording = opening.open_recording(recipe, "m")
    session_report(
        recording
    )  # nor does 01 take the series of that name for a recording of potentials
    binned = binning.bin_recording(recording, recipe.settings(BinSettings))
    np.testing.assert_allclose(binned.wheel, 2, rtol=1e-5)
    np.testing.assert_allclose(binned.gamma[1:], 2, rtol=0.1)
    middle = 100 * (np.arange(6) * 2.0 + 0.1)[:, None] + [4.5, 14.5, 24.5]
    np.testing.assert_allclose(binned.whisker[:2], middle[:2] % 250)
    assert binned.block.values.tolist() == ["left", "right", "left"] * 2
