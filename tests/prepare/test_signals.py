"""Signals in bins: means, speeds and rates, nothing where nothing is known, statistics of train rows alone."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from nblib.core import errors, params
from nblib.data.counts_dataset import load, save
from nblib.data.recording import Recording, Series
from nblib.prepare import signals, train_statistics

EDGES = np.arange(11)[None] * 0.1  # ten bins of 0.1 s


def test_a_ramp_has_the_means_of_its_bins():
    time_s = np.arange(0.005, 1, 0.01)
    made = signals.in_bins(time_s, 3 * time_s, EDGES, "mean", 0.2)
    np.testing.assert_allclose(made[0], 3 * (np.arange(10) + 0.5) / 10, atol=1e-12)


def test_a_gap_is_not_filled_and_a_short_one_is():
    time_s = np.arange(0.005, 1, 0.01)
    kept = (time_s < 0.3) | (time_s > 0.6)
    made = signals.in_bins(time_s[kept], time_s[kept], EDGES, "mean", 0.2)[0]
    assert np.isnan(made[3:6]).all() and np.isfinite(np.delete(made, [3, 4, 5])).all()
    short = (time_s < 0.3) | (time_s > 0.4)
    made = signals.in_bins(time_s[short], time_s[short], EDGES, "mean", 0.2)[0]
    assert made[3] == pytest.approx(0.35)


def test_the_speed_of_a_constant_turn_is_that_speed_whatever_its_samples():
    time_s = np.sort(np.random.default_rng(0).uniform(-0.2, 1.2, 60))
    for sign in (1, -1):
        made = signals.in_bins(time_s, sign * 4 * time_s, EDGES, "speed", 1.0)
        np.testing.assert_allclose(made, 4, rtol=1e-9)
    assert np.isnan(signals.in_bins(time_s, time_s, EDGES + 5, "speed", 1.0)).all()
    jump = np.where(time_s < 0.5, time_s, time_s + 0.5)  # 0.5 s without a sample
    far = signals.in_bins(jump, jump, EDGES, "speed", 0.2)[0]
    assert np.isfinite(far[:4]).all() and np.isnan(far[5:]).all()


def test_a_bin_depends_on_no_sample_after_the_first_one_behind_it():
    time_s, rng = np.arange(0, 1.2, 0.013), np.random.default_rng(1)
    values = rng.normal(size=len(time_s))
    for kind in ("mean", "speed"):
        before = signals.in_bins(time_s, values, EDGES, kind, 0.2)
        other = np.where(time_s > 0.5 + 0.013, rng.normal(size=len(time_s)), values)
        np.testing.assert_array_equal(
            before[:, :5], signals.in_bins(time_s, other, EDGES, kind, 0.2)[:, :5]
        )


def test_causally_no_bin_depends_on_a_sample_behind_it_and_the_last_one_stays():
    rng, time_s = np.random.default_rng(1), np.sort(np.random.default_rng(0).uniform(0, 1.2, 25))
    values = rng.normal(size=len(time_s))
    other = np.where(time_s >= 0.5, rng.normal(size=len(time_s)), values)
    for kind in ("mean", "speed"):
        before, after = (
            signals.in_bins(time_s, v, EDGES, kind, 0.3, causal=True)[:, :5]
            for v in (values, other)
        )
        np.testing.assert_array_equal(before, after)
        assert np.isfinite(before[:, 2:]).all()
    late = time_s[time_s >= 0.5] + 0.02  # where samples lie behind a bin does not matter either
    moved = np.concatenate([time_s[time_s < 0.5], late])
    after = signals.in_bins(moved, values, EDGES, "speed", 0.3, causal=True)[:, :5]
    np.testing.assert_array_equal(before, after)
    two = np.array([0.05, 0.15]), np.array([1.0, 4.0])
    held = signals.in_bins(*two, EDGES, "mean", 0.21, causal=True)[0]
    np.testing.assert_array_equal(held[:5], [1, 4, 4, 4, np.nan])
    went = signals.in_bins(*two, EDGES, "speed", 0.2, causal=True)[0]
    np.testing.assert_allclose(went[:5], [np.nan, 30, 0, np.nan, np.nan])


def oscillating(rate_hz=500.0):
    """40 Hz of amplitude 2 up to 1 s, then of 6; 5 Hz of amplitude 9 throughout; a sample that is missing."""
    t = np.arange(0, 2, 1 / rate_hz)
    fast = np.where(t < 1, 2, 6) * np.sin(2 * np.pi * 40 * t)
    values = fast + 9 * np.sin(2 * np.pi * 5 * t)
    values[20] = np.nan
    return t, values


def test_power_is_that_of_its_band_and_of_nothing_behind():
    t, values = oscillating()
    at, made = signals.power(t, values, [30, 50], "x")
    for edges, amplitude in (([0.5, 1.0], 2), ([1.5, 2.0], 6)):
        (mean,) = signals.in_bins(at, made, np.array([edges]), "mean", 0.1)
        assert mean[0] == pytest.approx(amplitude**2 / 2, rel=0.1)
    other = np.where(t < 1, values, 0)
    np.testing.assert_array_equal(made[:499], signals.power(t, other, [30, 50], "x")[1][:499])
    late = np.where(t > 1.0, t + 5, t)  # after a gap in the clock it begins anew
    _, apart = signals.power(late, values, [30, 50], "x")
    begun = signals.power(t[t > 1.0], values[t > 1.0], [30, 50], "x")[1]
    np.testing.assert_allclose(apart[-len(begun) :], begun)
    with pytest.raises(errors.BadParameter, match="band_hz must end below 250, not at 250"):
        signals.power(t, values, [30, 250], "x")
    uneven = np.cumsum(np.random.default_rng(0).exponential(0.002, len(t)))
    with pytest.raises(errors.BadInput, match="x is not sampled evenly"):
        signals.power(uneven, values, [30, 50], "x")
    slower = (np.repeat([0.002, late], len(t) // 2) for late in (0.003, 0.0024))
    for steps in (np.tile([0.002, 0.0028], len(t) // 2), *slower):
        with pytest.raises(errors.BadInput, match="x is not sampled evenly"):  # some come late
            signals.power(np.cumsum(steps), values, [30, 50], "x")
    with pytest.raises(errors.BadInput, match="x has 0 samples that are numbers"):
        signals.power(t, np.nan * values, [30, 50], "x")
    with pytest.raises(errors.BadParameter, match=r"for 0\.1 s nowhere without a gap"):
        signals.power(t[:45], values[:45], [30, 50], "x")
    kept = np.random.default_rng(0).random(len(t)) > 0.1  # a clock with many gaps is an even one
    assert len(signals.power(t[kept], values[kept], [30, 50], "x")[0]) > 0.8 * len(t)
    for band in ([], [30], [50, 30], [0, 30]):
        with pytest.raises(ValueError, match=r"band_hz must be \[low, high\]"):
            params.SignalSettings(series="x", kind="power", band_hz=band)


def test_power_is_told_between_missing_samples_and_not_while_a_filter_settles():
    t, values = oscillating()
    edges, rng = 0.1 + 0.1 * np.arange(10)[None], np.random.default_rng(0)
    for kept in (rng.random(len(t)) > 0.05, t % 0.05 > 0.001):  # a twentieth at random, and in turn
        at, made = signals.power(t[kept], values[kept], [30, 50], "x")
        told = signals.in_bins(at, made, edges, "mean", 0.1)[0, 1:]
        np.testing.assert_allclose(told, 2, rtol=0.12)
    whole, apart = (
        signals.power(t[k], values[k], [30, 50], "x") for k in (t < 9, abs(t - 0.7) > 0.05)
    )
    for at, made in (whole, apart):  # it begins in the midst of a wave, and again after a gap
        begins = at[np.append(True, np.diff(at) > 0.05)]
        settling = [(at >= begin) & (at < begin + 0.0999) for begin in begins]
        np.testing.assert_array_equal(np.isnan(made), np.any(settling, axis=0))
    np.testing.assert_allclose(apart[1][-500:], whole[1][-500:], atol=0.01)


def test_events_a_second_in_half_open_bins():
    made = signals.in_bins(np.array([0.0, 0.05, 0.1, 0.95]), np.zeros(4), EDGES, "events", 0.2)
    np.testing.assert_allclose(made[0], [20, 10, 0, 0, 0, 0, 0, 0, 0, 10])


def recording(rate_hz=10.0, start_s=0.0, **series):
    """Series of one rate beside a unit that fires from 5 to 7 s."""
    made = {
        n: Series(n, "", lambda lo, hi, v=v: v[lo:hi], len(v), rate_hz, start_s)
        for n, v in series.items()
    }
    units = pd.DataFrame(index=pd.Index([0], name="unit_id"))
    return Recording("r", "r", None, units, np.array([0, 201]), np.linspace(5, 7, 201), series=made)


@pytest.mark.parametrize(
    ("signal", "message"),
    [
        ({"series": "lick"}, "no series 'lick'; there is wheel"),
        ({"series": "wheel", "channel": 2}, "channel = 2, but series 'wheel' of r has 1"),
        ({"series": "wheel", "max_gap_s": 0.01}, "no sample near any bin"),
    ],
)
def test_what_a_recording_does_not_have_is_named(signal, message):
    settings = {"x": params.SignalSettings(**signal)}
    with pytest.raises(errors.BadParameter, match=message):
        signals.bin_signals(
            recording(wheel=np.zeros(60)), settings, (EDGES * 1e9 + 8e9).astype(np.int64)
        )


@pytest.mark.parametrize(
    ("clock", "message"),
    [
        ({"rate_hz": 0.01}, "from 0 to 5,900 s, spikes from 5 to 7 s: they count in two units"),
        ({"rate_hz": 1.0}, "from 0 to 59 s, spikes from 5 to 7 s: .* These are sample numbers"),
        ({"start_s": 900.0}, "from 900 to 905.9 s, spikes from 5 to 7 s: they share no time"),
    ],
)
def test_a_signal_on_another_clock_than_the_spikes_is_refused(clock, message):
    settings = {"x": params.SignalSettings(series="wheel", max_gap_s=np.inf)}
    edges = (EDGES * 1e9 + 5e9).astype(np.int64)
    with pytest.raises(
        errors.BadInput, match=f"signals: x: series 'wheel' of r: samples {message}"
    ):
        signals.bin_signals(recording(wheel=np.zeros(60), **clock), settings, edges)
    assert signals.bin_signals(recording(wheel=np.zeros(60)), settings, edges)["x"].shape == (1, 10)


def test_times_that_fall_are_refused():
    series = Series(
        "w", "", lambda lo, hi: np.zeros(3)[lo:hi], 3, timestamps=lambda: np.array([0, 2, 1])
    )
    with pytest.raises(errors.BadInput, match="time falls after sample 1"):
        signals.samples(series, "r")


def binned(values):
    n = len(values)
    return xr.Dataset(
        {"counts": (("trial", "time", "unit"), np.ones((n, 2, 1), np.uint8)), "wheel": (("trial", "time"), values)},
        attrs={"recording": "r"},
    )  # fmt: skip


def test_statistics_of_signals_come_from_train_rows_alone():
    values = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    train = np.arange(12)
    one = train_statistics.signal_statistics(binned(values), train)
    changed = values.copy()
    changed[12:] = 1e6
    two = train_statistics.signal_statistics(binned(changed), train)
    assert one.equals(two) and one["name"].tolist() == ["wheel"]
    assert one["mean"][0] == pytest.approx(values[:12].astype(float).mean())
    assert one["scale"][0] == pytest.approx(values[:12].astype(float).std())
    changed[:12] = np.nan
    assert np.isnan(train_statistics.signal_statistics(binned(changed), train)["mean"][0])


def test_a_signal_survives_the_file(tmp_path):
    values = np.array([[0.25, np.nan], [1.0, 2.0]], np.float32)
    save(binned(values), tmp_path)
    np.testing.assert_array_equal(load(tmp_path)["wheel"].values, values)
