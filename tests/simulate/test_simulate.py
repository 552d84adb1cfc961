"""The simulated recording: a valid NWB file, the same numbers each time, and spikes that fit it."""

import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

from nblib.core import store
from nblib.core.errors import BadParameter
from nblib.core.params import SimulateSettings
from nblib.data.nwb import open_nwb
from nblib.simulate import units as model
from nblib.simulate.allen import VERSION, make, read_truth, simulate, truth_path

TINY = {"n_units": 8, "n_scenes": 6, "n_repeats": 4}
SCENES = "intervals/natural_scenes_presentations"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("tiny") / "tiny.nwb", **TINY)


@pytest.fixture(scope="module")
def middle(tmp_path_factory):
    path = tmp_path_factory.mktemp("middle") / "middle.nwb"
    return simulate(path, n_units=40, n_scenes=10, n_repeats=60, seed=3)


def contents(path):
    """The data sets of the file, but for the schemas, and the truth beside it, as bytes."""
    found = {"truth": truth_path(path).read_bytes()}

    def keep(name, item):
        schema = name.startswith("specifications/")
        if isinstance(item, h5py.Dataset) and not schema and not h5py.check_ref_dtype(item.dtype):
            values = np.asarray(item.asstr()[()], str) if item.dtype.hasobject else item[()]
            found[name] = np.asarray(values).tobytes()

    with h5py.File(path) as file:
        file.visititems(keep)
    return found


def test_same_numbers_in_another_process(tiny, tmp_path):
    # Another hash seed, more threads, another name.
    code = f"""
from nblib.simulate.allen import simulate
simulate({str(tmp_path / "again.nwb")!r}, **{TINY!r})
"""
    env = os.environ | {"PYTHONHASHSEED": "17", "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, env=env, timeout=120)
    assert contents(tmp_path / "again.nwb") == contents(tiny)


def test_seed_and_recording_decide_what_differs(tiny, tmp_path):
    mine = read_truth(truth_path(tiny))
    mouse = read_truth(truth_path(simulate(tmp_path / "mouse.nwb", recording="mouse-2", **TINY)))
    seed = read_truth(truth_path(simulate(tmp_path / "seed.nwb", seed=1, **TINY)))
    assert np.array_equal(mine.templates, mouse.templates)
    assert not np.array_equal(mine.templates, seed.templates)
    for other in (mouse, seed):
        assert not np.array_equal(mine.rates, other.rates)
        assert not np.array_equal(mine.label, other.label)


def test_file_is_valid_nwb_in_the_allen_layout(tiny):
    pynwb = pytest.importorskip("pynwb")
    assert pynwb.validate(path=str(tiny)) == []
    with pynwb.NWBHDF5IO(str(tiny), "r") as io:
        nwb = io.read()
        assert list(nwb.electrode_groups) == ["probeC", "probeD", "probeE"]
        assert nwb.units.to_dataframe().shape[0] == 8
        scenes = nwb.intervals["natural_scenes_presentations"].to_dataframe()
        gratings = nwb.intervals["drifting_gratings_presentations"].to_dataframe()
        electrodes = nwb.electrodes.to_dataframe()
        channels = nwb.units["peak_channel_id"][:]
        assert len(nwb.invalid_times) == 1
        assert nwb.processing["running"]["running_speed"].unit == "cm/s"
    assert {"start_time", "stop_time", "stimulus_name", "stimulus_block", "frame"} <= set(scenes)
    assert set(electrodes.loc[channels].location) <= set(model.AREAS)
    assert electrodes.location.isin(["None"]).sum() == 15
    blocks = scenes.stimulus_block.unique()
    assert list(blocks) == [0.0, 2.0, 4.0]
    for between in (1.0, 3.0):  # other activity stands between the blocks
        own = gratings[gratings.stimulus_block == between]
        assert own.start_time.min() > scenes[scenes.stimulus_block < between].stop_time.max()
        assert own.stop_time.max() < scenes[scenes.stimulus_block > between].start_time.min()


def test_each_repeat_shows_every_image_and_the_blank_once(tiny):
    with h5py.File(tiny) as file:
        frame = file[f"{SCENES}/frame"][()]
        start, stop = file[f"{SCENES}/start_time"][()], file[f"{SCENES}/stop_time"][()]
        block = file[f"{SCENES}/stimulus_block"][()]
    orders = frame.reshape(4, 7)
    assert np.array_equal(np.sort(orders, axis=1), np.tile(np.arange(-1.0, 6.0), (4, 1)))
    assert len(np.unique(orders, axis=0)) == 4
    length = stop - start
    assert np.all(np.abs(length - 0.25021) < 1e-4)
    assert len(np.unique(length)) > 10
    within = np.diff(block) == 0
    assert np.array_equal(stop[:-1][within], start[1:][within])  # no gap and no overlap


def test_invalid_interval_cuts_few_presentations_of_the_middle_block(middle):
    recording = open_nwb(middle, intervals="natural_scenes_presentations", label="frame")
    (lo, hi), table = recording.invalid_times[0], recording.trial_table
    touched = table[(table.start_time < hi) & (table.stop_time > lo)]
    assert set(touched.stimulus_block) == {2.0}
    assert 2 <= len(touched) <= 11
    assert touched.start_time.iloc[0] < lo
    assert hi < touched.stop_time.iloc[-1]


def test_spike_times_can_be_mapped_and_ascend(middle):
    with h5py.File(middle) as file:
        stored = file["units/spike_times"]
        assert stored.chunks is None
        assert stored.compression is None
        assert stored.dtype == np.dtype("<f8")
        mapped = np.memmap(middle, "<f8", "r", stored.id.get_offset(), stored.shape)
        times, last = stored[()], file["units/spike_times_index"][()]
        assert np.array_equal(mapped, times)
        rate, end = file["units/firing_rate"][()], read_truth(truth_path(middle)).stop_s[-1]
    assert last[-1] == len(times)
    for own, hz in zip(np.split(times, last[:-1]), rate, strict=True):
        assert np.all(np.diff(own) > 0)
        assert own[0] >= 0
        assert own[-1] > 0.5 * end
        assert len(own) / hz == pytest.approx(len(times) / rate.sum())  # the session's length


def test_recording_opens_with_areas_and_quality(middle):
    recording = open_nwb(middle, intervals="natural_scenes_presentations", label="frame")
    truth = read_truth(truth_path(middle))
    units = recording.units
    assert np.array_equal(units.index, truth.units["id"])
    assert list(units["area"]) == list(truth.units["area"])
    assert set(units["area"]) == set(model.AREAS)
    failing = truth.units["failing"]
    assert np.array_equal(units.isi_violations > 0.5, failing == "isi")
    assert np.array_equal(units.amplitude_cutoff > 0.1, failing == "cutoff")
    assert (units.presence_ratio[failing == "presence"] < 0.95).all()
    assert (units.presence_ratio[failing == ""] > 0.95).mean() > 0.9
    assert 0.05 < np.mean(failing != "") < 0.3


def test_spikes_follow_the_true_rates(middle):
    truth = read_truth(truth_path(middle))
    recording = open_nwb(middle, intervals="natural_scenes_presentations", label="frame")
    edges = truth.start_s[:, None] + np.arange(25) * truth.step_s
    edges = np.concatenate([edges, truth.stop_s[:, None]], axis=1)
    seen, expected = [], []
    for i in range(recording.n_units):
        before = np.searchsorted(recording.spike_times(i), edges.ravel()).reshape(edges.shape)
        seen.append(np.diff(before, axis=1))
        rate = truth.rates[i, truth.label + 1] * truth.presentation_gain(i)[:, None]
        expected.append(rate * np.diff(edges, axis=1))
    seen, expected = np.array(seen), np.array(expected)  # (unit, presentation, step)
    for axes in ((1, 2), (0, 2), (0, 1)):  # by unit, presentation, step: z is standard normal
        z = (seen.sum(axes) - expected.sum(axes)) / np.sqrt(expected.sum(axes))
        assert np.abs(z).max() < 5
        assert 0.4 < (z**2).mean() < 1.8
    fano = ((seen - expected) ** 2).sum() / expected.sum()
    assert fano == pytest.approx(1, abs=0.03)
    duration_s = recording.intervals["spontaneous_presentations"].stop_time.max()
    # The mean rate is what was asked for, up to units that left, in and between natural scenes.
    assert expected.sum() / 40 / np.diff(edges, axis=1).sum() == pytest.approx(5.5, rel=0.1)
    assert recording.n_spikes / 40 / duration_s == pytest.approx(5.5, rel=0.15)


def test_duration_is_kept_and_must_suffice(tmp_path):
    path = simulate(tmp_path / "long.nwb", duration_s=60.0, **TINY)
    with h5py.File(path) as file:
        assert file["intervals/spontaneous_presentations/stop_time"][-1] == 60.0
        assert file["units/spike_times"][()].max() < 60.0
    with pytest.raises(BadParameter, match=r"duration_s=20 is too short.*27\.0 s"):
        simulate(tmp_path / "short.nwb", duration_s=20.0, **TINY)
    assert not (tmp_path / "short.nwb").exists()


@pytest.mark.parametrize("bad", [{"n_units": 0}, {"n_scenes": 1}, {"n_repeats": 0}])
def test_empty_recordings_are_refused(bad, tmp_path):
    with pytest.raises(BadParameter, match="at least 1 unit, 2 scenes and 1 repeat"):
        simulate(tmp_path / "x.nwb", **(TINY | bad))


@pytest.mark.parametrize("n_repeats", [1, 2])
def test_smallest_recordings_work(n_repeats, tmp_path):
    path = simulate(tmp_path / "x.nwb", n_units=1, n_scenes=2, n_repeats=n_repeats)
    recording = open_nwb(path, intervals="natural_scenes_presentations", label="frame")
    assert recording.trial_table["stimulus_block"].nunique() == n_repeats


def test_made_once_and_stored_as_an_artifact(tiny, home):
    settings = SimulateSettings(**TINY)
    path = make(settings, "demo")
    assert contents(path) == contents(tiny)
    written = path.stat().st_mtime_ns
    assert make(settings, "demo") == path
    assert path.stat().st_mtime_ns == written
    artifact = store.open_artifact(path.parent)
    assert store.read_manifest(artifact)["parameters"]["n_scenes"] == 6
    who = settings.model_dump() | {"recording": "demo"}
    assert artifact.name == store.make_key("00_simulate", VERSION, who, [])


def test_images_have_a_natural_spectrum():
    images = model.natural_images(30, np.random.default_rng(0)).astype(float)
    power = np.abs(np.fft.fft2(images - images.mean(axis=(1, 2), keepdims=True))) ** 2
    f = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(80)[None])
    band = (f > 0.03) & (f < 0.4)
    slope = np.polyfit(np.log(f[band]), np.log(power.mean(axis=0)[band]), 1)[0]
    assert -3.2 < slope < -1.6  # 1/f amplitude is 1/f^2 power; edges of objects steepen it
    assert images.std(axis=(1, 2)).min() > 15


def test_filters_have_zero_mean_and_see_their_own_orientation():
    filters = np.zeros((2, 7))
    filters[:] = [40, 32, 0.0, 10, 5, 0.3, model.COMPLEX]
    filters[1, 2] = np.pi / 2
    bank = model.filter_bank(filters)
    assert np.abs(bank.sum(axis=(2, 3))).max() < 1e-9
    assert np.allclose((bank**2).sum(axis=(2, 3)), 1)
    x = np.arange(80)
    upright = np.tile(127.5 + 100 * np.cos(2 * np.pi * x / 10), (64, 1)).astype(np.uint8)
    drive = model.image_drive(np.stack([upright, np.full_like(upright, 127)]), filters)
    assert drive[0, 1] > drive[0, 2]
    assert np.ptp(drive[0, 1:]) == 2  # in standard deviations of the two images
    assert drive[0, 0] == pytest.approx(drive[0, 2], abs=0.02)  # the blank drives nothing


def test_without_signal_all_images_are_alike():
    rng = np.random.default_rng(0)
    units = model.draw_units(30, 5.5, 0.0, rng)
    rates = model.true_rates(units, model.natural_images(4, rng))
    assert np.ptp(rates, axis=1).max() < 2e-4
    assert rates.mean() == pytest.approx(5.5, rel=1e-3)
