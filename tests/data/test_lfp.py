"""Field potentials from NWB and from the lab's MATLAB files."""

from dataclasses import replace

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy.io import savemat

from nblib.core.errors import BadInput, BadParameter, MissingInput
from nblib.core.params import BinSettings, Recipe, SimulateLfpSettings
from nblib.data import lfp, opening, sources
from nblib.data.checks import session_report
from nblib.data.lfp import mat
from nblib.prepare.potentials import lfp_windows
from nblib.simulate import lfp as simulate_lfp

SHORT = SimulateLfpSettings(state_s=10.0, rate_hz=125.0)
RECORD = "MouseA_030515_HCOFTS"


def recipe(source="lfp_nwb", **given):
    return Recipe(recipe="r", recordings=["a"], source=source, **{"intervals": "states", "label": "state", **given})  # fmt: skip


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    return simulate_lfp.simulate(tmp_path_factory.mktemp("lfp") / "a.nwb", SHORT, "a")


def test_the_simulation_is_the_same_numbers_and_real_nwb(simulated, tmp_path):
    again = simulate_lfp.simulate(tmp_path / "b.nwb", SHORT, "a")
    with h5py.File(again) as one, h5py.File(simulated) as other:
        for name in ("processing/ecephys/LFP/LFP/data", "intervals/states/start_time"):
            assert np.array_equal(one[name], other[name])
    from pynwb import NWBHDF5IO, validate

    assert validate(path=str(simulated)) == []

    with NWBHDF5IO(simulated, "r") as io:
        nwb = io.read()
        series = nwb.processing["ecephys"]["LFP"]["LFP"]
        assert series.data.shape == (50 * 125, 22) and series.rate == 125
        assert nwb.intervals["states"]["state"][:].tolist() == list(simulate_lfp.STATES)
    other, _ = simulate_lfp.potentials(SHORT, "b")
    assert not np.allclose(other, simulate_lfp.potentials(SHORT, "a")[0])


def test_electrodes_of_a_region_are_averaged(simulated):
    session = opening.open_recording(recipe(path=str(simulated)), "a")
    assert session.meta["channels"] == list(simulate_lfp.REGIONS)
    assert set(session.meta["electrodes"].values()) == {2} and session.subject == "a"
    x = session.series["lfp"].read(100, 200)
    raw = np.clip(np.round(simulate_lfp.potentials(SHORT, "a")[0] * 10), -32768, 32767)[100:200]
    np.testing.assert_allclose(x, raw.reshape(100, 11, 2).mean(2) * 1e-7, rtol=1e-9)
    assert session.trial_table["label"].tolist() == list(simulate_lfp.STATES)


def test_electrodes_that_stand_still_are_told_by_number(simulated, tmp_path):
    path = tmp_path / "still.nwb"
    path.write_bytes(simulated.read_bytes())
    assert not any("stay at one" in o for o in session_report(opening.open_recording(recipe(path=str(path)), "a")).odd)  # fmt: skip
    with h5py.File(path, "r+") as file:
        data = file["processing/ecephys/LFP/LFP/data"]
        for channel, value in ((3, 7), (8, 0), (9, 31)):  # both of one region
            data[:, channel] = value
        data[-1, 8] = value
        data[100, 8] = 0
    odd = session_report(opening.open_recording(recipe(path=str(path)), "a")).odd
    assert any(
        o.startswith("2 electrodes stay at one value throughout (electrode 3, 9)") for o in odd
    )
    with h5py.File(path, "r+") as file:
        file["processing/ecephys/LFP/LFP/data"][:, 8] = 31
    odd = session_report(opening.open_recording(recipe(path=str(path)), "a")).odd
    assert any(o.startswith("3 electrodes stay at one value") for o in odd)
    assert any("without any signal" in o for o in odd)


def test_intervals_may_lie_in_another_file(simulated, tmp_path):
    signal, times = tmp_path / "signal.nwb", tmp_path / "times.nwb"
    signal.write_bytes(simulated.read_bytes())
    times.write_bytes(simulated.read_bytes())
    with h5py.File(signal, "a") as file:
        del file["intervals/states"]
    with pytest.raises(BadInput, match="no interval table 'states'"):
        opening.open_recording(recipe(path=str(signal)), "a")
    both = recipe(path=str(signal), times=str(times))
    assert len(opening.open_recording(both, "a").trial_table) == 3
    key = sources.identity(both, "a")
    with h5py.File(times, "a") as file:
        file["intervals/states/stop_time"][0] = 9.0
    assert sources.identity(both, "a") != key  # the intervals are part of the recording
    with pytest.raises(MissingInput, match=r"none.nwb: no such file; it should hold the intervals"):
        opening.open_recording(recipe(path=str(signal), times=str(tmp_path / "none.nwb")), "a")


@pytest.mark.parametrize("elsewhere", [False, True])
def test_bad_times_of_the_signal_are_told_and_used_when_named(simulated, tmp_path, elsewhere):
    path = tmp_path / "a.nwb"
    path.write_bytes(simulated.read_bytes())
    with h5py.File(path, "a") as file:
        for column, values in (("start_time", [2.0]), ("stop_time", [4.0]), ("id", [0])):
            file[f"scratch/artifact_times/{column}"] = values
    asked = {"path": str(path), "times": str(simulated) if elsewhere else ""}
    session = opening.open_recording(recipe(**asked), "a")
    (odd,) = session_report(session).odd
    assert "invalid_times: [invalid_times, scratch/artifact_times]" in odd
    session = opening.open_recording(recipe(**asked, invalid_times=["scratch/artifact_times"]), "a")
    assert session.invalid_times.tolist() == [[2.0, 4.0]]
    (odd,) = session_report(session).odd
    assert odd.startswith("1 invalid interval of 2 s in all touches 1 of 3 intervals")


def test_bad_times_of_the_other_file_are_not_passed_over(simulated, tmp_path):
    """Where both files have such a table the signal's counts; a place names a table as its name does."""
    signal, times = tmp_path / "signal.nwb", tmp_path / "times.nwb"
    for path in (signal, times):
        path.write_bytes(simulated.read_bytes())
        with h5py.File(path, "a") as file:
            for name in ("invalid_times", "moved") if path == signal else ("invalid_times",):
                for column, values in (("start_time", [2.0]), ("stop_time", [4.0]), ("id", [0])):
                    file[f"intervals/{name}/{column}"] = values
    both = {"path": str(signal), "times": str(times)}
    odd = session_report(opening.open_recording(recipe(**both), "a")).odd
    assert any("invalid_times is not used, as signal.nwb has" in words for words in odd)
    session = opening.open_recording(recipe(**both, invalid_times=["/intervals/moved"] * 2), "a")
    assert session.invalid_times.tolist() == [[2.0, 4.0]]


def test_lost_samples_filled_with_one_value_are_told(simulated, tmp_path):
    path = tmp_path / "a.nwb"
    path.write_bytes(simulated.read_bytes())
    with h5py.File(path, "a") as file:
        file["processing/ecephys/LFP/LFP/data"][1000:1250] = 0
    (odd,) = session_report(opening.open_recording(recipe(path=str(path)), "a")).odd
    assert odd.startswith("All channels stay at one value for 1.992 s in all")


def test_intervals_in_minutes_or_of_a_clock_that_begins_anew(simulated):
    session = opening.open_recording(recipe(path=str(simulated)), "a")

    def with_starts(start, lasts):
        table = pd.DataFrame({"start_time": start, "stop_time": start + lasts})
        table["state"] = np.arange(len(start)) % 2
        return session_report(replace(session, intervals={"states": table})).odd

    start = 1 + np.arange(20) * 2.0
    assert with_starts(start, 1.0) == []
    assert "if its times are minutes" in with_starts(start / 60, 1 / 60)[0]
    with pytest.raises(BadInput, match=r"states begins anew in row 20: from 39 s to 1\.1 s"):
        with_starts(np.r_[start, start + 0.1], 1.0)


@pytest.mark.parametrize(
    ("given", "says"),
    [({"label": "mood"}, "no column 'mood'"), ({"series": "ECoG"}, "0 electrical series fit")],
)
def test_what_is_not_in_the_file_is_named(simulated, given, says):
    with pytest.raises(BadInput, match=says):
        opening.open_recording(recipe(path=str(simulated), **given), "a")


@pytest.fixture
def stamped(simulated, tmp_path):
    """The recording with timestamps in place of a rate: `stamped(change)` -> its path."""

    def make(change=lambda times: times):
        path = tmp_path / "stamped.nwb"
        path.write_bytes(simulated.read_bytes())
        with h5py.File(path, "a") as file:
            series = file["processing/ecephys/LFP/LFP"]
            del series["starting_time"]
            series["timestamps"] = change(np.arange(50 * 125) / 125.0)
        return path

    return make


@pytest.mark.parametrize(
    ("scale", "kind", "odd"),
    [
        (1000.0, "milliseconds", "set time_unit: ms."),
        (
            125.0,
            "sample numbers",
            "if they are sample numbers, write the file anew with times in s",
        ),
    ],
)
def test_timestamps_that_are_no_seconds_are_told_at_01_and_02(stamped, scale, kind, odd):
    path = str(stamped(lambda t: t * scale))
    made = opening.open_recording(recipe(path=path, intervals=""), "a")
    assert any(odd in told for told in session_report(made).odd)
    made = opening.open_recording(recipe(path=path), "a")
    with pytest.raises(BadParameter, match="set time_unit: ms"):
        lfp_windows.cut(made, BinSettings())
    for unit in ("s", "ms"):  # intervals are seconds: what is odd above would not mend this
        made = opening.open_recording(recipe(path=path, time_unit=unit), "a")
        with pytest.raises(BadInput, match=f"two units .* Hz as it is read, looks like {kind}, st"):
            session_report(made)


def test_a_clock_with_gaps_is_read_in_stretches(stamped):
    series = opening.open_recording(recipe(path=str(stamped())), "a").series["lfp"]
    assert series.rate_hz == pytest.approx(125) and len(series.even) == 1

    def late(times):
        times[3000:] += 2.0
        return times + 1.5e9

    series = opening.open_recording(recipe(path=str(stamped(late))), "a").series["lfp"]
    assert series.rate_hz == pytest.approx(125)
    assert [piece[:2] for piece in series.even] == [(0, 3000), (3000, 6250)]
    assert series.stop_s == pytest.approx(1.5e9 + 52)


@pytest.mark.parametrize(
    ("at", "value", "says"),
    [
        (4000, np.nan, "is NaN or infinite in sample 4000"),
        (4000, 31.992, "stands still at sample 4000, 31.992 s after the first .1 times in all"),
        (4000, 31.0, "falls at sample 4000, 31.992 s after the first .*begins anew"),
        (4000, 32.005, "a step is too short at sample 4001"),
        (slice(3000, None), np.arange(3250) / 125, "falls at sample 3000, 23.992 s after"),
    ],
)
def test_timestamps_that_are_no_clock_are_named_by_sample(stamped, at, value, says):
    def spoil(times):
        times[at] = value
        return times + 1.5e9 * (not np.isnan(value).any())

    with pytest.raises(BadInput, match=says) as error:
        opening.open_recording(recipe(path=str(stamped(spoil))), "a")
    assert "e+09" not in str(error.value)


def test_milliseconds_reach_every_time(stamped, tmp_path):
    """Timestamps, a starting time, intervals here and in another file."""
    plain = opening.open_recording(recipe(path=str(stamped(lambda t: t + 3.0))), "a")
    stop = plain.trial_table["stop_time"]
    path = stamped(lambda t: (t + 3.0) * 1000)
    with h5py.File(path, "a") as file:
        for name in ("start_time", "stop_time"):
            file["intervals/states"][name][...] = file["intervals/states"][name][()] * 1000
    times = tmp_path / "times.nwb"
    times.write_bytes(path.read_bytes())
    for given in ({}, {"times": str(times)}):
        found = opening.open_recording(recipe(path=str(path), time_unit="ms", **given), "a")
        one, two = found.series["lfp"], plain.series["lfp"]
        assert (one.rate_hz, one.start_s, one.stop_s) == pytest.approx((two.rate_hz, two.start_s, two.stop_s))  # fmt: skip
        np.testing.assert_allclose(found.trial_table["stop_time"], stop)
    with h5py.File(path, "a") as file:
        series = file["processing/ecephys/LFP/LFP"]
        del series["timestamps"]
        series["starting_time"] = 3000.0
        series["starting_time"].attrs["rate"] = 125.0
    found = opening.open_recording(recipe(path=str(path), time_unit="ms"), "a").series["lfp"]
    assert (found.rate_hz, found.start_s) == (125.0, 3.0)


def test_channels_have_their_own_conversion(simulated, tmp_path):
    path = tmp_path / "gains.nwb"
    path.write_bytes(simulated.read_bytes())
    plain = opening.open_recording(recipe(path=str(simulated)), "a").series["lfp"].read(10, 20)
    gain = np.repeat([1.0, 10.0, 0.5], [2, 2, 18])
    with h5py.File(path, "a") as file:
        series = file["processing/ecephys/LFP/LFP"]
        series["channel_conversion"] = gain
        series["data"].attrs["offset"] = 0.25
        raw = series["data"][10:20] * series["data"].attrs["conversion"]
    found = opening.open_recording(recipe(path=str(path)), "a").series["lfp"].read(10, 20)
    expected = plain * gain[::2] + 0.25  # two electrodes a region, of one gain each
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    with h5py.File(path, "a") as file:  # unlike gains: before the mean is taken
        gain[1] = 7.0
        file["processing/ecephys/LFP/LFP/channel_conversion"][...] = gain
    found = opening.open_recording(recipe(path=str(path)), "a").series["lfp"].read(10, 20)
    np.testing.assert_allclose(found[:, 0], (raw[:, :2] * [1.0, 7.0]).mean(axis=1) + 0.25)
    for values, says in (
        (gain[:-1], "has 21 entries for 22 channels"),
        (np.r_[np.nan, gain[1:]], "expected a finite number a channel"),
    ):
        with h5py.File(path, "a") as file:
            del file["processing/ecephys/LFP/LFP/channel_conversion"]
            file["processing/ecephys/LFP/LFP/channel_conversion"] = values
        with pytest.raises(BadInput, match=f"LFP/LFP/channel_conversion .*{says}"):
            opening.open_recording(recipe(path=str(path)), "a")


def test_without_intervals_there_is_a_report_and_no_window(simulated):
    from nblib.core.params import BinSettings
    from nblib.prepare.potentials import lfp_windows
    from nblib.report.plots import recordings as plots

    session = opening.open_recording(recipe(path=str(simulated), intervals=""), "a")
    report = session_report(session)
    plots.recording_overview(session, report)
    plots.recording_close_up(session)
    assert report.odd == [] and "11 channels" in report.sentence()
    with pytest.raises(BadInput, match=r"names no trials .intervals is empty.*there is states"):
        lfp_windows.cut(session, BinSettings())


def test_notebooks_of_spikes_do_not_take_them():
    from nblib.road import stages

    with pytest.raises(BadParameter, match="04_split works on spikes; recipe 'lfp_tiny'"):
        stages.settle_recipe("04_split", {"recipe": "lfp_tiny", "recording": "m1"})
    with pytest.raises(BadParameter, match="08_ssl_pretext works on field potentials"):
        stages.settle_recipe("08_ssl_pretext", {"recipe": "tiny"})


# --- the lab's files -----------------------------------------------------------------------------


@pytest.fixture
def lab(tmp_path):
    """Mouse_Training_Data of two mice, one of them with two records."""
    rng = np.random.default_rng(0)
    for folder in ("LFP_Data", "INT_TIME"):
        (tmp_path / folder).mkdir()
    for record in (RECORD, "MouseA_040515_HCOFTS", "MouseB_030515_HCOFTS"):
        x = {n: rng.standard_normal(700_000 // 100) for n in ("BLA_01", "BLA_02", "L_VTA_01", "R_VTA_01", "R_VTA_02")}  # fmt: skip
        savemat(tmp_path / f"LFP_Data/{record}_LFP.mat", {**x, "notes": np.array(["x"])})
        savemat(tmp_path / f"INT_TIME/{record}_TIME.mat", {"INT_TIME": np.array([[310.0, 250, 600, 90]])})  # fmt: skip
    return tmp_path


def lab_recipe(lab):
    return recipe("lfp_mat", path=f"{lab}/LFP_Data/{{recording}}_LFP.mat")


def test_the_labs_files_are_read_region_by_region(lab):
    from scipy.io import loadmat

    session = opening.open_recording(lab_recipe(lab), RECORD)
    assert session.meta["electrodes"] == {"BLA": 2, "VTA": 3} and session.subject == "MouseA"
    raw = loadmat(lab / f"LFP_Data/{RECORD}_LFP.mat")
    x = session.series["lfp"].read(10, 20)
    np.testing.assert_allclose(x[:, 0], (raw["BLA_01"] + raw["BLA_02"])[0, 10:20] / 2)
    sides = [raw[n][0, 10:20] for n in ("L_VTA_01", "R_VTA_01", "R_VTA_02")]
    np.testing.assert_allclose(x[:, 1], np.mean(sides, axis=0))


def test_intervals_have_their_own_starts_and_ends(lab):
    """Not the original's reading, which takes the second number for start and length at once."""
    table = opening.open_recording(lab_recipe(lab), RECORD).trial_table
    assert table[["start_time", "stop_time"]].to_numpy().tolist() == [
        [0, 300],
        [310, 560],
        [600, 690],
    ]
    assert table["label"].tolist() == ["home_cage", "open_field", "tail_suspension"]


def test_matlab_7_3_is_hdf5(lab):
    path = lab / f"LFP_Data/{RECORD}_LFP.mat"
    before = opening.open_recording(lab_recipe(lab), RECORD).series["lfp"].read(0, 50)
    from scipy.io import loadmat

    names = ("BLA_01", "BLA_02", "L_VTA_01", "R_VTA_01", "R_VTA_02")
    raw = {name: loadmat(path)[name] for name in names}
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in raw.items():
            file[name] = values.T
    header = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
    with path.open("r+b") as file:
        file.write(header.ljust(128, b" ")[:128])
    np.testing.assert_allclose(opening.open_recording(lab_recipe(lab), RECORD).series["lfp"].read(0, 50), before)  # fmt: skip


def test_electrodes_of_the_lab_that_stand_still_are_told_by_name(lab):
    path = lab / f"LFP_Data/{RECORD}_LFP.mat"
    x = np.random.default_rng(0).standard_normal(700_000)
    savemat(path, {"BLA_01": x, "BLA_02": np.full(700_000, 0.3), "L_VTA_01": x})
    odd = session_report(opening.open_recording(lab_recipe(lab), RECORD)).odd
    assert any("1 electrodes stay at one value throughout (electrode BLA_02)" in o for o in odd)


def test_a_cohort_is_one_record_a_mouse(lab, tmp_path):
    assert mat.cohort(lab) == [RECORD, "MouseB_030515_HCOFTS"]
    assert mat.cohort(lab, skip=["MouseA"]) == ["MouseB_030515_HCOFTS"]
    assert len(mat.cohort(lab, all_records=True)) == 3
    (tmp_path / "two.txt").write_text(f"MouseB_030515_HCOFTS\n{RECORD}\n\n")
    told = mat.cohort(lab, names=tmp_path / "two.txt")
    assert told == ["MouseB_030515_HCOFTS", RECORD]
    with pytest.raises(BadInput, match=f"two.txt: '{RECORD}' is not among the 1 records"):
        mat.cohort(lab, skip=["MouseA"], names=tmp_path / "two.txt")
    (lab / f"INT_TIME/{RECORD}_TIME.mat").unlink()
    with pytest.raises(BadInput, match=f"no INT_TIME/{RECORD}_TIME.mat"):
        mat.cohort(lab)
    with pytest.raises(MissingInput, match="should hold the intervals"):
        opening.open_recording(lab_recipe(lab), RECORD)


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ([310.0, 250, 600], "expected .open-field start, duration"),
        ([310.0, -1, 600, 90], "expected .open-field start, duration"),
        ([310.0, 400, 600, 90], "overlap"),
    ],
)
def test_int_time_that_makes_no_sense(lab, told, says):
    path = lab / f"INT_TIME/{RECORD}_TIME.mat"
    savemat(path, {"INT_TIME": np.array([told])})
    with pytest.raises(BadInput, match=says):
        mat.int_time(path)


def test_broken_matlab_files(lab):
    path = lab / f"LFP_Data/{RECORD}_LFP.mat"
    savemat(path, {"BLA_01": np.zeros(100), "VTA_01": np.zeros(90)})
    with pytest.raises(BadInput, match="VTA_01 has 90 samples, BLA_01 has 100"):
        opening.open_recording(lab_recipe(lab), RECORD).series["lfp"].read(0, 10)
    savemat(path, {"notes": np.zeros(3)})
    with pytest.raises(BadInput, match="no electrode"):
        opening.open_recording(lab_recipe(lab), RECORD)
    path.write_bytes(b"not a file of numbers")
    with pytest.raises(BadInput, match="not readable as a MATLAB file"):
        opening.open_recording(lab_recipe(lab), RECORD)


def test_channels_lie_in_the_labs_order_whatever_the_files():
    """HDF5 lists names by the alphabet, older files as they were written."""
    shuffled = ["VTA", "BLA", "channel_10", "PrL_Cx", "channel_2", "Amygdala"]
    assert lfp.in_order(shuffled) == ["PrL_Cx", "BLA", "VTA", "Amygdala", "channel_2", "channel_10"]
    assert lfp.in_order(reversed(lfp.REGIONS)) == list(lfp.REGIONS)
