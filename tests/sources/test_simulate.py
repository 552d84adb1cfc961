"""The simulated recording is real NWB, repeatable to the byte, and its oracle is exact."""

import hashlib
import subprocess
import sys

import h5py
import numpy as np
import pynwb
import pytest

from nblib import binning, inspection
from nblib.errors import BadInput, BadParameter
from nblib.params import BinSettings, SimulateSettings
from nblib.sources import nwb, oracle, simulate

SMALL = {"n_units": 8, "n_scenes": 4, "n_repeats": 12, "seed": 3, "signal": 1.0}
TRIALS = {"intervals": "natural_scenes_presentations", "label": "frame"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = simulate.simulate(tmp_path_factory.mktemp("sim") / "a.nwb", **SMALL)
    return path, nwb.open_nwb(path, **TRIALS)


def digests(path):
    return [hashlib.sha256(p.read_bytes()).hexdigest() for p in (path, simulate.truth_path(path))]


def test_the_same_seed_gives_the_same_bytes_in_another_process(made, tmp_path):
    again = tmp_path / "b.nwb"
    code = f"from nblib.sources.simulate import simulate; simulate({str(again)!r}, **{SMALL!r})"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    assert digests(again) == digests(made[0])
    other = simulate.simulate(tmp_path / "c.nwb", **{**SMALL, "seed": 4})
    assert digests(other)[0] != digests(made[0])[0]


def test_it_is_valid_nwb_in_the_allen_layout(made):
    path, _ = made
    with pynwb.NWBHDF5IO(str(path), "r") as io:
        session = io.read()
        scenes = session.intervals["natural_scenes_presentations"].to_dataframe()
        assert {"start_time", "stop_time", "stimulus_name", "stimulus_block", "frame"} <= set(
            scenes
        )
        assert sorted(scenes.frame.value_counts()) == [12] * 5
        assert scenes.stimulus_block.nunique() == 3
        assert len(session.invalid_times.to_dataframe()) == 1
        units = session.units.to_dataframe()
        assert {"isi_violations", "amplitude_cutoff", "presence_ratio", "peak_channel_id"} <= set(
            units
        )
        assert "running_speed" in session.processing["running"].data_interfaces
        problems = pynwb.validate(io=io)
    assert not problems, problems
    with h5py.File(path) as file:
        assert file["units/spike_times"].chunks is None  # can be mapped, as the original can


def test_the_session_report_finds_it_sound(made):
    report = inspection.session_report(made[1])
    assert report.tables["presentations"].n.sum() == 60
    assert set(report.tables["units"]["area"]) <= {"VISp", "VISl", "VISal", "LGd", "LP", "CA1"}


def by_hand(truth, recording, trials):
    """The posterior from its definition, one spike at a time."""
    out = np.zeros((len(trials), len(truth.classes)))
    for k, p in enumerate(trials):
        start, stop = truth.start_s[p], truth.stop_s[p]
        for u in range(len(truth.rates)):
            gain = truth.presentation_gain(u)[p]
            times = recording.spike_times(u)
            times = times[(times >= start) & (times < stop)]
            n_steps = truth.rates.shape[2]
            edges = np.append(np.arange(n_steps) * truth.step_s, stop - start)
            step = np.minimum(np.searchsorted(edges, times - start, side="right") - 1, n_steps - 1)
            for c in range(len(truth.classes)):
                rate = gain * truth.rates[u, c]
                out[k, c] += np.log(rate[step]).sum() - (rate * np.diff(edges)).sum()
    return out - np.logaddexp.reduce(out, axis=1)[:, None]


def test_the_oracle_is_the_exact_posterior(made):
    path, recording = made
    truth = oracle.read_truth(simulate.truth_path(path))
    trials = np.array([0, 7, 30, 59])
    got, classes = oracle.oracle_log_posterior(truth, recording, trials)
    np.testing.assert_allclose(got, by_hand(truth, recording, trials), atol=1e-8)
    np.testing.assert_array_equal(classes, [-1, 0, 1, 2, 3])
    np.testing.assert_allclose(np.exp(got).sum(1), 1)


def test_the_oracle_is_calibrated_and_the_truth_is_best(tmp_path):
    path = simulate.simulate(tmp_path / "d.nwb", n_units=10, n_scenes=5, n_repeats=80, seed=1)
    recording = nwb.open_nwb(path, **TRIALS)
    truth = oracle.read_truth(simulate.truth_path(path))
    trials = np.arange(len(truth.label))
    log_posterior, classes = oracle.oracle_log_posterior(truth, recording, trials)
    right = classes[log_posterior.argmax(1)] == truth.label
    claimed = np.exp(log_posterior.max(1))
    error = np.sqrt((claimed * (1 - claimed)).sum()) / len(trials)
    assert abs(right.mean() - claimed.mean()) < 4 * error
    assert right.mean() > 2 / 6
    row = np.searchsorted(classes, truth.label)

    def log_likelihood(rates):
        from dataclasses import replace

        told, _ = oracle.oracle_log_posterior(replace(truth, rates=rates), recording, trials)
        return told[trials, row].mean()

    noise = np.random.default_rng(0).normal(0, 0.4, truth.rates.shape)
    assert log_likelihood(truth.rates) > log_likelihood(truth.rates * np.exp(noise))
    shuffled = np.random.default_rng(1).permutation(truth.label)
    assert abs((classes[log_posterior.argmax(1)] == shuffled).mean() - 1 / 6) < 0.08


def test_fewer_units_tell_less_and_strangers_are_refused(made):
    path, recording = made
    truth = oracle.read_truth(simulate.truth_path(path))
    trials = np.arange(60)
    row = truth.label + 1
    ids = recording.units.index.to_numpy()
    full, _ = oracle.oracle_log_posterior(truth, recording, trials)
    part, _ = oracle.oracle_log_posterior(truth, recording, trials, ids[:2])
    assert full[trials, row].mean() > part[trials, row].mean()
    with pytest.raises(BadParameter, match="not in the simulated"):
        oracle.oracle_log_posterior(truth, recording, trials, [1])
    with pytest.raises(BadParameter, match="trials 0"):
        oracle.oracle_log_posterior(truth, recording, [60])


def test_a_truth_of_another_recording_is_refused(made, tmp_path):
    other = simulate.simulate(tmp_path / "e.nwb", **{**SMALL, "n_repeats": 3})
    with pytest.raises(BadInput, match="different recordings"):
        oracle.oracle_log_posterior(simulate.truth_path(other), made[1], [0])
    simulate.truth_path(other).write_bytes(b"x")
    with pytest.raises(BadInput, match="truth"):
        oracle.read_truth(simulate.truth_path(other))


def test_rates_and_failing_units_look_like_the_original():
    """Many units, few presentations: what the population is like."""
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = simulate.simulate(
            Path(folder) / "f.nwb", n_units=300, n_scenes=3, n_repeats=3, seed=0
        )
        recording = nwb.open_nwb(path, **TRIALS)
        rate = recording.units.firing_rate.to_numpy()
        assert 4 < rate.mean() < 7.5
        assert np.median(rate) < 0.75 * rate.mean()  # a long tail, as log-normal rates have
        fails = (recording.units.isi_violations > 0.5) | (recording.units.amplitude_cutoff > 0.1)
        assert 0.03 < fails.mean() < 0.5
        assert set(recording.units.area) == {"VISp", "VISl", "VISal", "LGd", "LP", "CA1"}


def test_counts_of_the_file_match_the_spikes(made):
    _, recording = made
    binned = binning.bin_recording(recording, BinSettings(n_bins=1))
    table = recording.trial_table
    spikes = recording.spike_times(0)
    inside = [
        ((spikes >= a) & (spikes < b)).sum()
        for a, b in zip(table.start_time, table.stop_time, strict=True)
    ]
    np.testing.assert_array_equal(binned.counts.values[:, 0, 0], inside)


def test_too_short_a_session_is_refused(tmp_path):
    with pytest.raises(BadParameter):
        simulate.simulate(tmp_path / "g.nwb", **SMALL, duration_s=1.0)


def test_make_is_an_artifact(home):
    settings = SimulateSettings(n_units=4, n_scenes=2, n_repeats=2)
    path = simulate.make(settings, "tiny")
    assert path.is_file() and simulate.truth_path(path).is_file()
    before = path.stat().st_mtime_ns
    assert simulate.make(settings, "tiny") == path and path.stat().st_mtime_ns == before
