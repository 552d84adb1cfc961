"""Sessions in ALF files: read as they lie, the newest revision first, and refused with the file and why."""

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from nblib.core import errors, params
from nblib.data import ibl, opening, sources
from nblib.data.checks import session_report
from nblib.prepare import binning

ROOT = Path(__file__).resolve().parents[2]
N = 20


@pytest.fixture
def session(tmp_path):
    """A session of 20 trials, two probes of three units, a wheel and a camera."""
    rng, folder = (
        np.random.default_rng(0),
        tmp_path / "lab" / "Subjects" / "mouse" / "2024-03-05" / "001",
    )
    alf = folder / "alf"
    for probe in ("probe00", "probe01"):
        place = alf / probe / "pykilosort"
        place.mkdir(parents=True)
        np.save(place / "spikes.times.npy", np.sort(rng.uniform(0, 60, 900)))
        np.save(
            place / "spikes.clusters.0b5e2a2e-6e3b-4b1c-9d7e-3f3f6d1d8a11.npy",
            rng.integers(0, 3, 900),
        )
        np.save(place / "clusters.channels.npy", np.array([2, 0, 1]))
        np.save(place / "channels.brainLocationIds_ccf_2017.npy", np.array([385, -382, 99]))
        metrics = {"cluster_id": [0, 2], "label": [1.0, 1 / 3], "firing_rate": [5.0, 5.0]}
        pd.DataFrame(metrics).to_parquet(place / "clusters.metrics.pqt")
    at = 2.0 + 2.5 * np.arange(N)
    table = {
        "intervals_0": at - 0.5, "intervals_1": at + 1.5, "stimOn_times": at, "choice": np.tile([-1.0, 1.0], N // 2),
        "probabilityLeft": np.tile(np.array([0.2, 0.8], np.float32), N // 2),
    }  # fmt: skip
    pd.DataFrame(table).to_parquet(alf / "_ibl_trials.table.pqt")
    np.save(alf / "_ibl_wheel.timestamps.npy", np.arange(0, 60, 0.01))
    np.save(alf / "_ibl_wheel.position.npy", 2 * np.arange(0, 60, 0.01))
    np.save(alf / "_ibl_leftCamera.times.npy", np.arange(0, 60, 1 / 60))
    np.save(alf / "leftCamera.ROIMotionEnergy.npy", np.arange(3.0, 3600))  # the first 3 are gone
    return folder


def recipe_of(folder, **more):
    given = {
        "source": "ibl", "path": str(folder), "intervals": "trials", "label": "choice", "binning": "event_window",
        "event": "stimOn_times", "bin_s": 0.1, "window_start_s": 0.0, "window_stop_s": 0.5,
        "variables": ["probabilityLeft"],
        "signals": {"wheel": {"series": "wheel", "kind": "speed"}, "whisker": {"series": "left_motion_energy"}},
    }  # fmt: skip
    return params.Recipe(recipe="r", recordings=["m"], **(given | more))


def opened(folder, **more):
    return opening.open_recording(recipe_of(folder, **more), "m")


def test_counts_signals_and_variables_are_those_of_the_files(session):
    recipe = recipe_of(session)
    recording = opening.open_recording(recipe, "m")
    assert recording.subject == "mouse" and recording.units.index[0] == "probe00/0"
    assert recording.units["area"].tolist() == ["99", "VISp", "CA1"] * 2
    binned = binning.bin_recording(recording, recipe.settings(params.BinSettings))
    times = np.load(session / "alf/probe01/pykilosort/spikes.times.npy")
    (owner,) = (session / "alf/probe01/pykilosort").glob("spikes.clusters*")
    mine = times[np.load(owner) == 1]
    first = 2.0 + 2.5 * 4
    expected, _ = np.histogram(mine, first + 0.1 * np.arange(6))
    np.testing.assert_array_equal(binned.counts.sel(unit="probe01/1")[4], expected)
    np.testing.assert_allclose(binned.wheel, 2.0, rtol=1e-5)
    assert float(binned.whisker[0, 0]) == pytest.approx(2.5 + 60 * 2.0)
    assert set(np.unique(binned.probabilityLeft)) == {0.2, 0.8}, "0.2 stays 0.2 in 32 bits"


def test_a_causal_recipe_knows_no_sample_behind_a_bin(session):
    turned = {"wheel": {"series": "wheel", "kind": "speed", "max_gap_s": np.inf}}
    recipe = recipe_of(session, causal=True, signals=turned)
    sources.check(recipe)
    np.save(session / "alf/_ibl_wheel.timestamps.npy", np.arange(0, 60, 0.5))
    np.save(session / "alf/_ibl_wheel.position.npy", np.arange(120.0))
    at = recipe.settings(params.BinSettings)
    binned = binning.bin_recording(opening.open_recording(recipe, "m"), at)
    assert {*np.unique(binned.wheel.round())} == {0, 10}, "it turns where a sample says so"
    with pytest.raises(errors.BadParameter, match="causal = True, but source 'ibl' does not use"):
        sources.check(recipe_of(session, causal=True, signals={}))


def test_the_newest_revision_wins_and_is_named(session):
    place = session / "alf/probe00/pykilosort"
    for revision, n in (("2023-01-01", 5), ("2024-05-06", 7)):
        (place / f"#{revision}#").mkdir()
        np.save(place / f"#{revision}#" / "spikes.times.npy", np.arange(n) + 0.5)
        np.save(place / f"#{revision}#" / "spikes.clusters.npy", np.zeros(n, int))
    recording = opened(session)
    assert len(recording.spike_times(0)) == 7
    assert "spikes.times.npy of revision 2024-05-06" in " ".join(recording.meta["notes"])


def test_what_a_unit_must_reach_is_counted(session):
    recording = opened(session, source_params={"quality_min": 0.5})
    assert recording.units.index.tolist() == ["probe00/0", "probe01/0"]
    assert "probe00: 1 of 3 units (quality_min = 0.5)." in recording.meta["notes"]


def test_a_probe_without_units_is_told_and_the_others_are_read(session):
    alf = session / "alf"
    (alf / "probe01").rename(alf / "imec1")  # whatever it is called: there are spikes in it
    (alf / "imec1" / "pykilosort").rename(alf / "imec1" / "iblsorter")
    (alf / "task_00").mkdir()
    metrics = {"cluster_id": [0, 1, 2], "label": [1 / 3] * 3}
    pd.DataFrame(metrics).to_parquet(alf / "probe00" / "pykilosort" / "clusters.metrics.pqt")
    (alf / "#2024-05-06#").mkdir()
    table = pd.read_parquet(alf / "_ibl_trials.table.pqt").iloc[:12]
    table.to_parquet(alf / "#2024-05-06#" / "_ibl_trials.table.pqt")
    recording = opened(session, source_params={"quality_min": 0.5})
    assert recording.units.index.tolist() == ["imec1/0"] and len(recording.trial_table) == 12
    assert recording.meta["notes"] == [
        "imec1: 1 of 3 units (quality_min = 0.5), sorted by iblsorter.",
        "probe00: 0 of 3 units (quality_min = 0.5).",
        "Read _ibl_trials.table.pqt of revision 2024-05-06.",
    ]
    pd.DataFrame(metrics).to_parquet(alf / "imec1" / "iblsorter" / "clusters.metrics.pqt")
    with pytest.raises(errors.BadInput, match="no unit is left; imec1: 0 of 3 units"):
        opened(session, source_params={"quality_min": 0.5})


def test_a_copy_of_a_probe_is_refused_and_a_hidden_folder_is_none(session):
    alf = session / "alf"
    shutil.copytree(alf / "probe00", alf / ".snapshot")
    assert len(opened(session).units) == 6
    (alf / ".snapshot").rename(alf / "backup")
    with pytest.raises(errors.BadInput, match=r"probe00.*: the same spikes as .*backup"):
        opened(session)


def test_another_file_is_another_recording(session):
    recipe = recipe_of(session)
    before = sources.identity(recipe, "m")
    np.save(session / "alf/licks.times.npy", np.arange(3.0))
    assert sources.identity(recipe, "m") != before and "licks" in opened(session).series
    before = sources.identity(recipe, "m")
    place = session / "alf/probe01"
    place.rename(session / "elsewhere").joinpath("pykilosort").rename(session / "spikes")
    place.symlink_to(session / "elsewhere")
    (place / "pykilosort").symlink_to(session / "spikes")
    assert sources.identity(recipe, "m") == before, "a link to the same files"
    file = session / "spikes/spikes.times.npy"
    np.save(file, np.load(file) + 0.001)
    assert sources.identity(recipe, "m") != before


def test_whatever_has_times_is_a_signal_by_a_line_of_the_recipe(session):
    """The lines of the page: licks, a paw of a pose, an embedding of the film, a band of the LFP; and a pupil."""
    alf, rng = session / "alf", np.random.default_rng(1)
    frames = np.load(alf / "_ibl_leftCamera.times.npy")
    pose = pd.DataFrame({"paw_r_x": 3 * frames[2:], "part": "paw"})
    pose.to_parquet(alf / "_ibl_leftCamera.lightningPose.pqt")
    pose.rename(columns={"paw_r_x": "pupilDiameter_smooth"}).to_parquet(
        alf / "_ibl_leftCamera.features.pqt"
    )
    np.save(alf / "leftCamera.embedding.npy", rng.normal(size=(len(frames), 4)) + np.arange(4))
    np.save(alf / "licks.times.npy", np.arange(0, 60, 0.05) + 0.01)
    np.save(alf / "lfp.times.npy", np.arange(0, 60, 0.002))
    np.save(alf / "lfp.signal.npy", 4 * np.sin(2 * np.pi * 40 * np.arange(0, 60, 0.002))[:, None])
    page = (ROOT / "book/methods/multimodal.md").read_text(encoding="utf-8")
    printed = yaml.safe_load(re.search(r"```yaml\n(signals:.*?)```", page, re.S)[1])
    signals = printed["signals"] | {"pupil": {"series": "left_pupil"}}
    assert {"paw", "film", "licks", "gamma"} <= set(signals)
    recipe = recipe_of(session, signals=signals, variables=printed["variables"])
    recording = opening.open_recording(recipe, "m")
    assert {"wheel", "left_motion_energy"} <= set(recording.series)
    assert not {"licks.times", "wheel.position", "leftCamera.times"} & set(recording.series)
    binned = binning.bin_recording(recording, recipe.settings(params.BinSettings))
    middle = 2.0 + 2.5 * np.arange(N)[:, None] + 0.1 * np.arange(5) + 0.05
    np.testing.assert_allclose(binned.paw, 3 * middle, atol=0.05)
    np.testing.assert_allclose(binned.pupil, 3 * middle, atol=0.05)
    assert float(binned.film.mean()) == pytest.approx(3, abs=0.2)
    np.testing.assert_allclose(binned.licks, 20, atol=1e-4)
    np.testing.assert_allclose(binned.gamma, 8, rtol=0.1)
    pd.DataFrame({"tongue": 2 * frames}).to_csv(alf / "leftCamera.sketch.csv", index=False)
    np.save(alf / "_ibl_wheel.velocity.npy", np.full(6000, 7.0))
    (alf / "_ibl_bodyCamera.times.npy").symlink_to(".git/annex/a.npy")  # of no use here
    (alf / "bodyCamera.ROIMotionEnergy.npy").symlink_to(".git/annex/b.npy")
    more = {"tongue": {"series": "leftCamera.sketch.tongue"}, "turn": {"series": "wheel.velocity"}}
    more = recipe_of(session, signals=more)
    recording = opening.open_recording(more, "m")
    assert "bodyCamera.times.npy: its content was not" in " ".join(recording.meta["notes"])
    binned = binning.bin_recording(recording, more.settings(params.BinSettings))
    np.testing.assert_allclose(binned.tongue, 2 * middle, atol=0.05)
    assert (binned.turn == 7).all()
    np.save(alf / "leftCamera.embedding.npy", np.float64(3))
    with pytest.raises(
        errors.BadInput, match=r"embedding.npy is float64 of shape \(\); expected a"
    ):
        bins = recipe.settings(params.BinSettings)
        binning.bin_recording(opening.open_recording(recipe, "m"), bins)
    np.save(alf / "leftCamera.embedding.npy", np.zeros((3000, 4)))
    with pytest.raises(errors.BadInput, match=r"embedding.npy: 3000 samples, but _ibl_leftCamera"):
        bins = recipe.settings(params.BinSettings)
        binning.bin_recording(opening.open_recording(recipe, "m"), bins)


def test_a_series_has_a_sample_for_each_time_however_its_file_lies(session):
    alf = session / "alf"
    np.save(alf / "licks.times.npy", np.zeros(0))
    np.save(alf / "_ibl_wheel.position.npy", np.load(alf / "_ibl_wheel.position.npy")[None])
    series = opened(session).series
    assert series["licks"].read(0, 9).shape == (0, 1)
    assert series["wheel"].read(0, 9999).shape == (6000, 1)
    energy = series["left_motion_energy"].read(0, 9999)[:, 0]
    assert np.flatnonzero(np.isnan(energy)).tolist() == [0, 1, 2]
    for shape, asked in (((), "a row of numbers for each"), ((6000, 2), "one number a sample")):
        np.save(alf / "_ibl_wheel.position.npy", np.zeros(shape))
        (told,) = [words for words in opened(session).meta["notes"] if "wheel" in words]
        assert f"expected {asked}" in told


def broken(session, what):
    alf, place = session / "alf", session / "alf/probe00/pykilosort"
    table = pd.read_parquet(alf / "_ibl_trials.table.pqt")
    match what:
        case "no table":
            (alf / "_ibl_trials.table.pqt").rename(alf / "_ibl_trials.intervals.npy")
        case "table of a task":
            (alf / "task_00").mkdir()
            (alf / "_ibl_trials.table.pqt").rename(alf / "task_00" / "_ibl_trials.table.pqt")
        case "nan":
            table.loc[3, "stimOn_times"] = np.nan
            table.to_parquet(alf / "_ibl_trials.table.pqt")
        case "camera":
            np.save(alf / "leftCamera.ROIMotionEnergy.npy", np.zeros(3000))
        case "wheel":
            np.save(alf / "_ibl_wheel.position.npy", 2 * np.arange(0, 60, 0.01)[1:])
        case "licks as means":
            np.save(alf / "_ibl_leftCamera.times.npy", np.arange(1.0, 60))
            np.save(alf / "leftCamera.ROIMotionEnergy.npy", np.arange(1.0, 60))
        case "half precision" | "whole seconds":
            times = np.load(place / "spikes.times.npy")
            np.save(
                place / "spikes.times.npy",
                times.astype(np.float16 if what == "half precision" else int),
            )
        case "metrics of another sorting":
            metrics = {"cluster_id": [0, 1, 2, 3], "label": [1.0, 0.5, 1.0, 1.0]}
            pd.DataFrame(metrics).to_parquet(place / "clusters.metrics.pqt")
        case "no camera":
            (alf / "leftCamera.ROIMotionEnergy.npy").unlink()
        case "sorters":
            for name in ("a", "b"):
                place.parent.joinpath(name).mkdir()
                np.save(place.parent / name / "spikes.times.npy", np.zeros(1))
            place.rename(place.parent / "c")
        case "channels":
            np.save(place / "channels.brainLocationIds_ccf_2017.npy", np.array([385]))
        case "channel below 0":
            np.save(place / "clusters.channels.npy", np.array([2, -1, 1]))
        case "annex" | "LFS":
            (place / "spikes.times.npy").unlink()
            if what == "annex":
                (place / "spikes.times.npy").symlink_to(".git/annex/objects/XX/MD5E-s1--a.npy")
            else:
                (place / "spikes.times.npy").write_text(
                    "version https://git-lfs.github.com/spec/v1"
                )
        case "lists":
            table["choice"] = [[1, 2]] * N
            table.to_parquet(alf / "_ibl_trials.table.pqt")
        case "two files":
            np.save(place / "_x_spikes.times.npy", np.zeros(3))
        case "no probe":
            (alf / "probe00").rename(session / "p0")
            (alf / "probe01").rename(session / "p1")
        case "no clusters":
            (place / "clusters.channels.npy").unlink()
        case "fewer owners":
            np.save(place / "spikes.times.npy", np.arange(5.0))
        case "nan spikes":
            np.save(place / "spikes.times.npy", np.append(np.arange(899.0), np.nan))
        case "stray spikes" | "half a cluster":
            (owner,) = place.glob("spikes.clusters*")
            np.save(owner, np.full(900, 7 if what == "stray spikes" else 0.5))
        case "metrics twice" | "metrics in words":
            metrics = {"cluster_id": [0, 0], "label": [1.0, 0.5]}
            if what == "metrics in words":
                metrics = {"cluster_id": [0, 1], "label": ["good", "mua"]}
            pd.DataFrame(metrics).to_parquet(place / "clusters.metrics.pqt")
        case "areas in words":
            np.save(
                place / "channels.brainLocationIds_ccf_2017.npy", np.array(["VISp", "CA1", "x"])
            )
        case "flat positions":
            np.save(place / "channels.mlapdv.npy", np.zeros((3, 2)))
        case "empty probe":
            (alf / "probe02").mkdir()
        case "camera runs back":
            times = np.arange(0, 60, 1 / 60)
            times[[100, 101]] = times[[101, 100]]
            np.save(alf / "_ibl_leftCamera.times.npy", times)
        case "camera nan":
            np.save(
                alf / "_ibl_leftCamera.times.npy", np.append(np.arange(0, 59.9, 1 / 60), np.nan)
            )
        case "one probe in samples":
            np.save(place / "spikes.times.npy", np.rint(3e4 * np.load(place / "spikes.times.npy")))
        case "clock begins anew":
            times = np.load(place / "spikes.times.npy")
            times[450:] -= times[450]
            np.save(place / "spikes.times.npy", times)
        case "no times of frames":
            (alf / "_ibl_leftCamera.times.npy").unlink()
        case "words":
            table.assign(choice=np.where(table["choice"] > 0, "left", "right")).to_parquet(
                alf / "_ibl_trials.table.pqt"
            )
        case "choice" | "share" | "no rows":
            column, value = {
                "choice": ("choice", 2.0),
                "share": ("probabilityLeft", 80),
                "no rows": ("choice", 1.0),
            }[what]
            table.loc[3, column] = value
            table = table.iloc[:0] if what == "no rows" else table
            table.to_parquet(alf / "_ibl_trials.table.pqt")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no table", "no trials.table; its trials are one file a column"),
        ("table of a task", "no trials.table; .*alf/task_00/_ibl_trials.table.pqt is one: link"),
        ("nan", r"no finite stimOn_times \(NaN or infinite\) in row 3"),
        (
            "camera",
            "ROIMotionEnergy.npy: 3000 samples, but _ibl_leftCamera.times.npy has 3600 times",
        ),
        ("wheel", "wheel.position.npy: 5999 samples, but _ibl_wheel.timestamps.npy has 6000 times"),
        (
            "licks as means",
            "holds times of events and no values: kind must be 'events', not 'mean'",
        ),
        (
            "half precision",
            r"spikes.times.npy is float16 of shape .*; expected seconds, as float64",
        ),
        (
            "whole seconds",
            r"spikes.times.npy is int64 of shape .*; expected seconds, as float64 or",
        ),
        (
            "metrics of another sorting",
            "clusters.metrics.pqt: names cluster 3, but clusters.channels has 3 clusters, from 0",
        ),
        (
            "no camera",
            "'left_motion_energy'; there is wheel. .*whisker out of `signals`, or m out of",
        ),
        ("sorters", r"spikes of several sorters \(a, b, c\); name one"),
        ("channels", "of 1 channels, but a unit is on 1, 2"),
        ("channel below 0", "of 3 channels, but a unit is on -1"),
        ("annex", "spikes.times.npy: its content was not fetched, git-annex keeps it elsewhere"),
        ("LFS", "spikes.times.npy: its content was not fetched, Git LFS keeps it elsewhere"),
        ("lists", r"trials.table.pqt: column 'choice' holds lists, in row 0 \[1, 2\]"),
        ("two files", "two files for spikes.times: .*; take one away"),
        (
            "one probe in samples",
            r"probe01/.*spikes.times.npy: spikes of probe00 from .* two units",
        ),
        (
            "clock begins anew",
            r"probe00/0.* rise again over the same stretch: their clock begins anew",
        ),
        ("no times of frames", "MotionEnergy.npy: no file leftCamera.times beside it"),
        ("words", "trials.table.pqt: column 'choice' holds .right. in row 0, 1"),
        ("no probe", "no folder of a probe"),
        ("no clusters", "probe00/pykilosort: no file clusters.channels"),
        ("fewer owners", "spikes.times.npy has 5 entries for 900 spikes that have a unit"),
        ("nan spikes", r"spikes.times.npy is NaN or infinite in spike 899"),
        (
            "stray spikes",
            r"spikes.clusters.*: cluster 7, but clusters.channels has 3 clusters, from 0",
        ),
        ("half a cluster", "spikes.clusters.*: cluster 0.5, but clusters.channels has 3 clusters"),
        ("metrics twice", "metrics.pqt: cluster_id names several clusters alike: 0"),
        ("metrics in words", r"metrics.pqt: column 'label' holds 'good' in row 0, 1; a number is"),
        (
            "areas in words",
            "ccf_2017.npy is <U4 of shape .*expected a row of 1 numbers for each",
        ),
        ("flat positions", r"mlapdv.npy is float64 of shape \(3, 2\); expected a row of 3"),
        ("empty probe", "probe02: no spikes sorted by anything; there is none. .* take its folder"),
        (
            "camera runs back",
            "_ibl_leftCamera.times.npy falls after sample 100",
        ),
        ("camera nan", "_ibl_leftCamera.times.npy is NaN or infinite in sample 3594"),
        ("choice", r"trials.table.pqt: choice = 2 in row 3; expected one of -1, 0, 1"),
        ("share", r"trials.table.pqt: probabilityLeft = 80 in row 3; expected 0 to 1"),
        ("no rows", "trials.table.pqt: no row in it"),
    ],
)
def test_bad_sessions_are_refused_by_file_and_field(session, what, message):
    broken(session, what)
    with pytest.raises(errors.NblibError, match=message):
        recipe = recipe_of(session)
        recording = opening.open_recording(recipe, "m")
        session_report(recording)
        binning.bin_recording(recording, recipe.settings(params.BinSettings))


def test_odd_but_plausible_files_are_read_right(session):
    """Clusters as floats, a uuid in one name alone, a cluster without spikes, a block and an
    end of a trial that are not known."""
    alf, place = session / "alf", session / "alf/probe00/pykilosort"
    before = opened(session)
    (owner,) = place.glob("spikes.clusters*")
    np.save(place / "spikes.clusters.npy", np.load(owner).astype(float))
    owner.unlink()
    np.save(place / "clusters.channels.npy", np.array([2, 0, 1, 1]))
    table = pd.read_parquet(alf / "_ibl_trials.table.pqt")
    table.loc[4, ["probabilityLeft", "intervals_1"]] = np.nan  # trials are cut around the stimulus
    table.to_parquet(alf / "_ibl_trials.table.pqt")
    for name in ("times", "clusters"):  # two spikes out of order, as sorters may leave them
        values = np.load(place / f"spikes.{name}.npy")
        values[[400, 401]] = values[[401, 400]]
        np.save(place / f"spikes.{name}.npy", values)
    recording = opened(session)
    np.testing.assert_array_equal(recording.spike_times(1), before.spike_times(1))
    assert recording.units.index[3] == "probe00/3" and len(recording.spike_times(3)) == 0
    recipe = recipe_of(session)
    binned = binning.bin_recording(recording, recipe.settings(params.BinSettings))
    assert np.flatnonzero(np.isnan(binned.probabilityLeft)).tolist() == [4]
    np.save(place / "channels.brainLocationIds_ccf_2017.npy", np.array([385, np.nan, 382]))
    assert opened(session).units["area"].tolist()[:3] == ["CA1", "VISp", "void"]


def test_numbers_as_text_and_numbers_with_gaps_are_numbers(session):
    alf = session / "alf"
    table = pd.read_parquet(alf / "_ibl_trials.table.pqt")
    written = table.assign(probabilityLeft=table["probabilityLeft"].astype(str)).astype(
        {"choice": "Int8", "intervals_0": str}
    )
    written.loc[3, "choice"] = pd.NA
    written.to_parquet(alf / "_ibl_trials.table.pqt")
    metrics = {"cluster_id": ["0", "1", "2"], "label": [1.0, 0.0, 1.0]}
    file = alf / "probe00/pykilosort/clusters.metrics.pqt"
    pd.DataFrame(metrics).to_parquet(file)
    recording = opened(session, source_params={"quality_min": 0.5})
    assert recording.units.index.tolist() == ["probe00/0", "probe00/2", "probe01/0"]
    assert set(recording.trial_table["label"]) == {-1, 1} and len(recording.trial_table) == N - 1
    read = recording.intervals["trials"]
    assert set(read["probabilityLeft"]) == {0.2, 0.8} and read["start_time"].dtype == float
    pd.DataFrame(metrics | {"label": [100.0, 0.0, 100.0]}).to_parquet(file)
    with pytest.raises(errors.BadInput, match="label = 100 of unit probe00/0, probe00/2; expected"):
        opened(session, source_params={"quality_min": 0.5})


@pytest.mark.parametrize(
    ("kind", "labels", "missing", "classes"),
    [
        ("csv", ["01", "1", "2"], [], ["01", "1", "2"]),
        ("csv", ["9007199254740992", "9007199254740993", ""], [], [2**53, 2**53 + 1]),
        ("csv", ["NA", "a", "b"], [], ["NA", "a", "b"]),
        ("csv", ["NA", "a", "b"], ["NA"], ["a", "b"]),
        ("csv", ["-1.0", "0.5", "2"], [], [-1.0, 0.5, 2.0]),
        ("pqt", [b"a", b"\xc3\xa9", None], [], ["a", "é"]),
        ("pqt", [-1.0, 0.5, np.nan], [], [-1.0, 0.5]),
    ],
)
def test_labels_are_as_written(session, kind, labels, missing, classes):
    file = session / "alf/_ibl_trials.table.pqt"
    table = pd.read_parquet(file).assign(block=(labels * N)[:N])
    if kind == "csv":
        file.unlink()
        table.to_csv(file.with_suffix(".csv"), index=False)
    else:
        table.to_parquet(file)
    recipe = recipe_of(session, label="block", missing=missing)
    found = opening.open_recording(recipe, "m").labelled.table["label"]
    assert sorted(set(found)) == classes
    binned = binning.bin_recording(
        opening.open_recording(recipe, "m"), recipe.settings(params.BinSettings)
    )
    assert set(np.unique(binned.probabilityLeft)) == {0.2, 0.8}


def test_alf_names():
    name = ibl.alf.NAME
    assert name.fullmatch("_ibl_leftCamera.times.npy")["object"] == "leftCamera"
    assert (
        name.fullmatch("channels.brainLocationIds_ccf_2017.npy")["attribute"]
        == "brainLocationIds_ccf_2017"
    )
    assert name.fullmatch("_iblrig_leftCamera.raw.mp4") is None


def test_a_pupil_in_words_is_refused_only_where_it_is_asked_for(session):
    file = session / "alf" / "_ibl_leftCamera.features.pqt"
    pd.DataFrame({"pupilDiameter_smooth": ["wide"] * 3600}).to_parquet(file)
    assert set(opened(session).series) == {"wheel", "left_motion_energy"}
    recipe = recipe_of(session, signals={"pupil": {"series": "left_pupil"}})
    with pytest.raises(errors.BadParameter, match=r"features.pqt: column 'pupil.*holds 'wide'"):
        binning.bin_recording(
            opening.open_recording(recipe, "m"), recipe.settings(params.BinSettings)
        )


@pytest.mark.parametrize("spoil", ["camera", "cut short"])
def test_a_broken_series_is_refused_only_where_it_is_asked_for(session, spoil):
    file = session / "alf/leftCamera.ROIMotionEnergy.npy"
    if spoil == "camera":
        broken(session, spoil)
    else:
        file.write_bytes(file.read_bytes()[:-100])
    recording = opened(session)
    assert list(recording.series) == ["wheel"]
    (told,) = [words for words in session_report(recording).odd if "Left out" in words]
    assert "ROIMotionEnergy.npy: " in told
    recipe = recipe_of(session)
    with pytest.raises(
        errors.BadParameter, match=r"no series 'left_motion_energy'; left out: .*ROIMotion"
    ):
        binning.bin_recording(recording, recipe.settings(params.BinSettings))
    recipe = recipe_of(session, signals={"wheel": {"series": "wheel", "kind": "speed"}})
    binning.bin_recording(recording, recipe.settings(params.BinSettings))
