"""Field potentials as windows: filtered, cut, labelled, stored; what is broken is told."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from nblib.core.errors import BadInput, BadParameter
from nblib.core.params import BinSettings, SimulateLfpSettings
from nblib.data.checks import potentials
from nblib.data.recording import Recording, Series
from nblib.prepare.potentials import lfp_windows, spectra, stored_windows
from nblib.prepare.potentials.stored_windows import Cohort
from nblib.simulate import lfp

RATE = 200.0


def session(x, table=None, start_s=0.0, name="m1", pieces=()):
    """A recording of field potentials (time, channel) in memory."""
    x = np.asarray(x, float).reshape(len(x), -1)
    if table is None:
        table = {"start_time": [0.0, 10.0], "stop_time": [10.0, 20.0], "state": ["a", "b"]}
    channels = [f"r{i}" for i in range(x.shape[1])]
    return Recording(
        name, name, None, pd.DataFrame(index=pd.Index([], name="unit_id")), np.zeros(1, np.int64),
        np.empty(0), {"states": pd.DataFrame(table)}, "states", "state",
        series={"lfp": Series("lfp", "V", lambda lo, hi: x[lo:hi], len(x), RATE, start_s, pieces=pieces)},
        meta={"channels": channels, "electrodes": dict.fromkeys(channels, 1), "notes": []},
    )  # fmt: skip


def settings(**given):
    return BinSettings(**{"window_s": 2.0, "hop_s": 1.0, "lowpass_hz": 40.0, **given})


@pytest.fixture
def noise():
    return np.random.default_rng(0).standard_normal((4000, 3))


def test_windows_lie_where_they_should_and_are_scaled(noise):
    found = lfp_windows.cut(session(noise, start_s=5.0), settings(lowpass_hz=0.0))
    assert found.x.shape == (19, 400, 3) and found.x.dtype == np.float32
    np.testing.assert_allclose(found.start_s, 5 + np.arange(19))
    part = noise[600:1000] - noise[600:1000].mean(axis=0)
    np.testing.assert_allclose(found.x[3], part / part.std(axis=0), atol=1e-5)
    np.testing.assert_allclose(found.x.std(axis=1), 1, atol=1e-4)


def test_no_window_touches_invalid_times(noise):
    made = session(noise, start_s=5.0)
    rows = {"start_time": [9.0, 9.5, 20.0], "stop_time": [9.8, 11.3, np.nan]}
    made.intervals["invalid_times"] = pd.DataFrame(rows)
    found = lfp_windows.cut(made, settings(lowpass_hz=0.0))
    # half-open: to 9 s and from 11.3 s on, each stretch from its own first sample
    np.testing.assert_allclose(found.start_s, [5, 6, 7, *(11.3 + np.arange(7))])
    part = noise[1260:1660] - noise[1260:1660].mean(axis=0)
    np.testing.assert_allclose(found.x[3], part / part.std(axis=0), atol=1e-5)
    assert "cut at 2 invalid intervals (0 stretches" in found.how
    odd = potentials.report(made).odd
    assert any("3 invalid intervals of 7.3 s in all" in told for told in odd)
    made.intervals["invalid_times"] = pd.DataFrame({"start_time": [9.0], "stop_time": [3.0]})
    for read in (potentials.report, lambda made: lfp_windows.cut(made, settings())):
        with pytest.raises(BadInput, match="invalid_times ends before it starts in row 0"):
            read(made)
    made.intervals["invalid_times"] = pd.DataFrame({"start_time": [9e3], "stop_time": [1e4]})
    with pytest.raises(
        BadInput,
        match="invalid_times from 9,000 to 10,000 s, the signal and states from 0 to 25 s: they c",
    ):
        potentials.report(made)
    made.intervals["invalid_times"] = pd.DataFrame({"start_time": [-np.inf], "stop_time": [np.nan]})
    assert any("1 invalid interval of 25 s in all" in told for told in potentials.report(made).odd)


def test_labels_by_hand():
    table = pd.DataFrame(
        {"start_time": [0.0, 5.0, 12.0], "stop_time": [5.0, 10.0, 14.0], "label": ["a", "b", "a"]}
    )
    label, purity = lfp_windows.label_windows(table, np.array([0.0, 3.0, 4.0, 4.5, 5.0, 9.0, 10.0, 12.0]), 2.0, "f")  # fmt: skip
    assert label.tolist() == ["a", "a", "a", "b", "b", "b", "", "a"]
    assert purity.tolist() == [1, 1, 0.5, 0.75, 1, 0.5, 0, 1]


def test_windows_that_straddle_keep_no_label_but_stay():
    found = lfp_windows.cut(
        session(np.random.default_rng(1).standard_normal((4000, 2))), settings()
    )
    assert len(found) == 19 and found.labelled.sum() == 18
    assert found.label[found.labelled].tolist() == ["a"] * 9 + ["b"] * 9


def power_at(x, hz, rate):
    spectrum = np.abs(np.fft.rfft(x, axis=0)) ** 2
    return spectrum[np.argmin(np.abs(np.fft.rfftfreq(len(x), 1 / rate) - hz))]


def test_the_low_pass_passes_and_stops():
    t = np.arange(8000) / RATE
    x = np.sin(2 * np.pi * 20 * t) + np.sin(2 * np.pi * 60 * t)
    for causal in (False, True):
        w = lfp_windows.cut(session(x), settings(causal=causal))
        ratio = power_at(w.x[10, :, 0], 60, RATE) / power_at(w.x[10, :, 0], 20, RATE)
        assert ratio < 1e-4
    plain = lfp_windows.cut(session(x), settings(lowpass_hz=0.0)).x[10, :, 0]
    assert power_at(plain, 60, RATE) == pytest.approx(power_at(plain, 20, RATE), rel=0.05)


def test_zero_phase_does_not_delay_and_causal_does():
    x = np.zeros(8000)
    x[4000] = 1.0
    at = {
        c: np.abs(lfp_windows._prepared(x, settings(causal=c), RATE, RATE)).argmax()
        for c in (False, True)
    }
    assert at[False] == 4000 and at[True] > 4000
    # The future has no part in a causal filter.
    later = x.copy()
    later[5000:] = 7.0
    one, two = (lfp_windows._prepared(v, settings(causal=True), RATE, RATE) for v in (x, later))
    np.testing.assert_array_equal(one[:5000], two[:5000])
    one, two = (lfp_windows._prepared(v, settings(), RATE, RATE) for v in (x, later))
    assert not np.array_equal(one[:5000], two[:5000])


@pytest.mark.parametrize("causal", [False, True])
def test_resampling_keeps_the_signal(causal):
    t = np.arange(8000) / RATE
    w = lfp_windows.cut(
        session(np.sin(2 * np.pi * 7 * t)),
        settings(resample_hz=100.0, lowpass_hz=25.0, causal=causal),
    )
    assert w.x.shape[1:] == (200, 1) and w.rate_hz == 100
    freq = np.fft.rfftfreq(200, 0.01)
    assert freq[np.abs(np.fft.rfft(w.x[5, :, 0])).argmax()] == 7


@pytest.mark.parametrize(("causal", "rate_hz"), [(False, 79.99), (True, 100.005)])
def test_windows_begin_when_they_say_where_the_new_rate_is_no_simple_share(causal, rate_hz):
    """A sine of 1 Hz for half an hour: its phase tells how late a window is."""
    t = np.arange(360_000) / RATE
    given = settings(hop_s=2.0, lowpass_hz=5.0, resample_hz=rate_hz, causal=causal)
    found = lfp_windows.cut(session(np.sin(2 * np.pi * t)), given)
    at = found.start_s[:, None] + np.arange(found.x.shape[1]) / rate_hz
    turn = np.angle((found.x[..., 0] * np.exp(-2j * np.pi * at)).sum(axis=1)) / (2 * np.pi)
    assert abs(turn - turn[10])[10:].max() < 2e-3  # s; what a filter delays is the same throughout


def test_windows_that_touch_nan_are_left_out_and_counted(noise):
    noise[1000:1010, 1] = np.nan
    found = lfp_windows.cut(session(noise), settings())
    assert found.dropped == 3 and np.isfinite(found.x).all()
    assert not {4.0, 5.0} & set(found.start_s)
    noise[200:3000] = np.nan
    with pytest.raises(BadInput, match=r"touch NaN \(the first stretch begins 1.000 s after"):
        lfp_windows.cut(session(noise), settings())


def test_gaps_are_refused_or_each_stretch_is_cut_by_itself(noise):
    """Three stretches, the middle one shorter than a window; the clock counts from 1970."""
    at = 1.7e9
    pieces = ((0, 1500, at), (1500, 1800, at + 8.0), (1800, 4000, at + 30.25))
    table = {"start_time": [at, at + 30.0], "stop_time": [at + 10, at + 41], "state": ["a", "b"]}
    gapped = session(noise, table, at, pieces=pieces)
    with pytest.raises(BadInput, match=r"2 gaps, the first before sample 1500, 8 s after the first; .* gaps: cut"):  # fmt: skip
        lfp_windows.cut(gapped, settings())
    found = lfp_windows.cut(gapped, settings(gaps="cut"))
    alone = [
        lfp_windows.cut(session(noise[lo:hi], table, start), settings())
        for lo, hi, start in (pieces[0], pieces[2])
    ]
    np.testing.assert_array_equal(found.x, np.concatenate([w.x for w in alone]))
    np.testing.assert_array_equal(found.start_s, np.concatenate([w.start_s for w in alone]))
    assert found.label.tolist() == ["a"] * 6 + ["b"] * 10
    assert "cut at 2 gaps (1 stretches shorter than a window left out)" in found.how
    (odd,) = potentials.report(gapped).odd
    assert (
        "2 gaps of 21.25 s in all; the longest, of 20.75 s, ends at sample 1800, 30.25 s after"
        in odd
    )
    short = session(noise, table, at, pieces=((0, 300, at), (300, 600, at + 9)))
    with pytest.raises(BadInput, match=r"1\.5 s of signal without a gap, less than one window"):
        lfp_windows.cut(short, settings(gaps="cut"))
    noise[:3000] = np.nan
    with pytest.raises(BadInput, match=r"begins 0\.000 s after the first sample"):
        lfp_windows.cut(gapped, settings(gaps="cut", window_s=7.0, hop_s=7.0))


def test_potentials_and_their_intervals_share_a_clock(noise):
    def report(scale=1.0, shift=0.0):
        table = {"start_time": [0.0, 10.0], "stop_time": [10.0, 20.0], "state": ["a", "b"]}
        table |= {c: np.array(table[c]) * scale + shift for c in ("start_time", "stop_time")}
        return potentials.report(session(noise, table))

    assert report().odd == [] and "outside" in report(shift=15.0).odd[0]
    for how, says in (
        ({"scale": 1000.0}, r"states from 0 to 20,000 s, the signal from 0 to 20 s: .*two units of time.*time_unit: ms"),
        ({"shift": 1.7e9}, r"from 0 to 20 s, states from 1,700,000,000 to .* counts from 1970"),
        ({"shift": 25.0}, r"from 0 to 20 s, states from 25 to 45 s: they share no time"),
    ):  # fmt: skip
        with pytest.raises(BadInput, match=says):
            report(**how)


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"resample_hz": 80.0, "lowpass_hz": 40.0}, BadParameter, "would fold back"),
        ({"resample_hz": 100.0, "lowpass_hz": 40.0, "causal": True}, BadParameter, "at most 30"),
        ({"resample_hz": 400.0}, BadParameter, "above the recording's own 200 Hz"),
        ({"lowpass_hz": 150.0}, BadParameter, "above half the rate"),
        (
            {"resample_hz": 90.0, "lowpass_hz": 20.0, "causal": True},
            BadParameter,
            "divide the rate",
        ),
        ({"hop_s": 3.0}, BadParameter, "longer than window_s"),
        ({"hop_s": 0.004}, BadParameter, "hop_s = 0.004 is less than a sample, 0.005 s"),
        ({"window_s": 60.0, "hop_s": 60.0}, BadInput, "less than one window"),
    ],
)
def test_settings_that_cannot_be_met(noise, given, error, says):
    with pytest.raises(error, match=says):
        lfp_windows.cut(session(noise), settings(**given))


def test_stored_windows_come_back_and_a_flipped_byte_is_seen(noise, tmp_path):
    found = lfp_windows.cut(session(noise), settings())
    stored_windows.save(found, tmp_path)
    again = stored_windows.load(tmp_path)
    for name in ("x", "start_s", "label", "purity"):
        np.testing.assert_array_equal(getattr(found, name), getattr(again, name))
    assert (again.channels, again.how, again.subject) == (found.channels, found.how, "m1")
    path = tmp_path / stored_windows.FILE
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    with pytest.raises(BadInput):
        stored_windows.load(tmp_path)


def test_a_cohort_is_flat_and_must_be_alike(noise):
    one, two = (lfp_windows.cut(session(noise, name=n), settings()) for n in ("m1", "m2"))
    both = Cohort([one, two])
    assert len(both) == 38 and both.subject[[0, 37]].tolist() == ["m1", "m2"]
    assert both.table()["a"].tolist() == [9, 9]
    other = lfp_windows.cut(session(noise[:, :2], name="m3"), settings())
    with pytest.raises(BadInput, match="'m1' and 'm3' differ in channels"):
        Cohort([one, two, other])


def test_a_stored_cohort_is_read_once_into_place(noise, tmp_path):
    found = [lfp_windows.cut(session(noise, name=n), settings()) for n in ("m1", "m2")]
    found.append(lfp_windows.cut(session(noise[:, :2], name="m3"), settings()))
    folders = [tmp_path / n for n in ("m1", "m2", "m3")]
    for one, folder in zip(found, folders, strict=True):
        folder.mkdir()
        stored_windows.save(one, folder)
    both = Cohort.load(folders[:2])
    np.testing.assert_array_equal(both.x, np.concatenate([w.x for w in found[:2]]))
    assert all(part.x.base is both.x for part in both.parts)
    assert both.table().equals(Cohort(found[:2]).table())
    with pytest.raises(BadInput, match="'m1' and 'm3' differ in channels"):
        Cohort.load(folders)


def test_the_report_tells_what_is_odd(noise):
    assert potentials.report(session(noise)).odd == []
    noise[:, 1] = 0.3  # whose spread is not quite 0 once it is rounded
    noise[:, 2] *= 100
    noise[5, 0] = np.nan
    late = {"start_time": [0.0, 15.0], "stop_time": [16.0, 30.0], "state": ["a", "b"]}
    odd = " ".join(potentials.report(session(noise, late)).odd)
    for told in ("without any signal: r1", "stronger or weaker", "NaN", "reach outside the signal", "begin before an earlier"):  # fmt: skip
        assert told in odd


def test_what_has_two_labels_or_none(noise):
    both = {"start_time": [0.0, 9.0], "stop_time": [10.0, 20.0], "state": ["a", "b"]}
    with pytest.raises(BadInput, match="'a' until 10 s, 'b' from 9 s"):
        lfp_windows.cut(session(noise, both), settings())
    none = {"start_time": [0.0, 10.0], "stop_time": [10.0, 20.0], "state": ["a", np.nan]}
    found = lfp_windows.cut(session(noise, none), settings())
    assert set(found.label) == {"a", ""} and set(found.label[found.labelled]) == {"a"}


@pytest.mark.parametrize("tone_hz", [52.0, 60.0, 90.0])
def test_causal_resampling_folds_little_back(tone_hz):
    """A tone above half the new rate leaves less than 2 % of its amplitude below it."""
    t = np.arange(40_000) / 1000.0
    given = settings(lowpass_hz=30.0, resample_hz=100.0, causal=True)
    x = lfp_windows._prepared(np.sin(2 * np.pi * tone_hz * t), given, 1000.0, 100.0)
    assert np.abs(x[500:]).max() < 0.02


def test_spectra_tell_the_states_apart():
    t = np.arange(4000) / RATE
    x = np.where(t < 10, np.sin(2 * np.pi * 8 * t), np.sin(2 * np.pi * 20 * t))
    x = x + 0.1 * np.random.default_rng(0).standard_normal(4000)
    table = spectra.spectra(lfp_windows.cut(session(x), settings()))
    peak = table.loc[table.groupby("label")["power"].idxmax()].set_index("label")["frequency_hz"]
    assert peak.to_dict() == {"a": 8.0, "b": 20.0}


@pytest.mark.slow
def test_a_long_recording_at_full_rate_needs_little_memory(tmp_path):
    """Twenty minutes at 1000 Hz from 11 regions, of which a cohort holds 29, one after the other."""
    code = f"""
from pathlib import Path
import numpy as np
from nblib.core.params import BinSettings, Recipe
from nblib.data import opening
from nblib.prepare.potentials import lfp_windows, stored_windows
path = Path({str(tmp_path / "a.nwb")!r})
recipe = Recipe(recipe="r", recordings=["a"], source="lfp_nwb", path=str(path), intervals="states", label="state")
made = lfp_windows.cut(opening.open_recording(recipe, "a"), BinSettings(window_s=3.0, hop_s=3.0, lowpass_hz=55.0))
assert made.x.shape == (399, 3000, 11), made.x.shape
stored_windows.save(made, Path({str(tmp_path)!r}))
status = Path("/proc/self/status").read_text()  # ru_maxrss would count the parent's memory too
print(int(status.split("VmHWM:")[1].split()[0]) / 1e6)
"""
    settings = SimulateLfpSettings(state_s=393.0, rate_hz=1000.0)
    lfp.simulate(tmp_path / "a.nwb", settings, "a")
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True
    )
    assert float(out.stdout) < 1.5  # GB
