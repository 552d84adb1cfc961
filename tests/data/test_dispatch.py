"""One way in: a recipe and a recording id give the recording, or say why not."""

import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace

import h5py
import handmade
import numpy as np
import pandas as pd
import pytest
from pydantic import Field

from nblib.core import integrity, params, recipes, store
from nblib.core.errors import BadInput, BadParameter, MissingInput
from nblib.core.params import Params, Recipe, SimulateSettings
from nblib.core.source_registry import SOURCES, Source
from nblib.data import checks, opening, sources
from nblib.data.trials.time_intervals import says_of_validity
from nblib.road import stages
from nblib.simulate import allen

SMALL = SimulateSettings(n_units=3, n_scenes=2, n_repeats=2)


def recipe(recordings=("715",), **settings):
    return Recipe(recipe="r", recordings=list(recordings), **settings)


def test_a_simulated_recording_is_made_once(home):
    asked = recipe(["demo"], source="simulate", simulate=SMALL)
    recording = opening.open_recording(asked, "demo")
    made = recording.path.stat().st_mtime_ns
    assert (recording.id, recording.n_units, recording.meta["source"]) == ("demo", 3, "simulate")
    assert opening.open_recording(asked, "demo").path.stat().st_mtime_ns == made
    other = recipe(["demo"], source="simulate", simulate=SMALL.model_copy(update={"seed": 1}))
    assert sources.identity(asked, "demo") != sources.identity(other, "demo")


def test_a_file_of_ones_own(home, tmp_path, monkeypatch):
    path = allen.simulate(tmp_path / "mouse_715.nwb", n_units=3, n_scenes=2, n_repeats=2)
    monkeypatch.setenv("SCANS", str(tmp_path))
    asked = recipe(source="nwb", path="${SCANS}/mouse_{recording}.nwb")
    assert opening.open_recording(asked, "715").path == path
    assert sources.identity(asked, "715") == integrity.sha256(path)
    with pytest.raises(MissingInput, match=r"mouse_716\.nwb: no such file"):
        opening.open_recording(asked, "716")
    with pytest.raises(BadParameter, match="needs a path"):
        opening.open_recording(recipe(source="nwb"), "715")


def pickled(folder, name="spike_trains_with_stimulus_session_715_5.pkl"):
    table = pd.DataFrame(np.arange(60).reshape(20, 3) % 4, columns=[7, 8, 9])
    table["frame"] = np.repeat([0, -1, 1, -1], 5)
    table.to_pickle(folder / name)
    return str(folder / "spike_trains_with_stimulus_session_{recording}_5.pkl")


def test_a_lab_pickle_enters_as_counts(tmp_path):
    asked = recipe(source="lab_pickle", path=pickled(tmp_path))
    binned = opening.open_binned(asked, "715")
    assert binned.label.values.tolist() == [0, -1, 1, -1]
    np.testing.assert_allclose(binned.start_s, np.arange(4) * 0.25)
    np.testing.assert_allclose(binned.exposure_s, 0.05)
    kept = opening.open_binned(asked.model_copy(update={"keep_blank": False}), "715")
    assert kept.label.values.tolist() == [0, 1] and kept.trial.values.tolist() == [0, 2]
    np.testing.assert_allclose(kept.start_s, [0, 0.5])  # they keep their place in time


def test_a_lab_pickle_is_not_what_it_is_not(tmp_path):
    path = pickled(tmp_path)
    with pytest.raises(BadParameter, match="no spike times; it enters at 02"):
        opening.open_recording(recipe(source="lab_pickle", path=path), "715")
    with pytest.raises(BadParameter, match="binned already"):
        opening.open_binned(recipe(source="lab_pickle", path=path, binning="fixed_width"), "715")
    with pytest.raises(BadInput, match="Set n_bins: 5"):
        opening.open_binned(recipe(source="lab_pickle", path=path, n_bins=10), "715")
    with pytest.raises(BadParameter, match="holds spike times"):
        opening.open_binned(recipe(["demo"], source="simulate"), "demo")


class Settings(Params):
    gain: float = Field(1.0, gt=0)


@pytest.fixture
def registered(monkeypatch):
    """A source of one's own: a module, and its line in the table."""

    def open_recording(path, recipe, recording_id, settings):
        made = handmade.recording([[1.0]], [settings.gain], [0.5])
        return replace(made, path=path, id=recording_id)

    def files(folder):
        return [folder / "a", *sorted(folder.glob("b*"))]

    module = SimpleNamespace(files=files, Settings=Settings, open_recording=open_recording)
    monkeypatch.setitem(sys.modules, "nblib.data.mine", module)
    monkeypatch.setitem(SOURCES, "mine", Source("data.mine", "spikes"))
    return module


def test_a_source_is_a_line_and_a_module(home, tmp_path, registered):
    folder = tmp_path / "715"
    asked = recipe(source="mine", path=str(tmp_path / "{recording}"), source_params={"gain": 2.0})
    with pytest.raises(MissingInput, match="715: no such folder"):
        sources.identity(asked, "715")
    folder.mkdir()
    (folder / "b").write_text("2")
    with pytest.raises(MissingInput, match="715/a: no such file"):
        sources.identity(asked, "715")
    (folder / "a").write_text("1")
    opened = opening.open_recording(asked, "715")
    assert (opened.path, opened.id, opened.trial_table["label"].tolist()) == (folder, "715", [2])
    before = sources.identity(asked, "715")
    (folder / "unread").write_text("3")
    assert sources.identity(asked, "715") == before
    (folder / "b").write_text("22")
    assert sources.identity(asked, "715") != before

    (folder / "b2").write_text("22")
    assert len(sources.raw_files(asked, "715")) == 3

    del registered.files
    one = recipe(source="mine", path=str(folder / "{recording}"), recordings=["a"])
    assert opening.open_recording(one, "a").path == folder / "a"
    assert sources.identity(one, "a") == integrity.sha256(folder / "a")


def test_settings_of_a_source_are_checked_and_decide_the_key(home, tmp_path, registered):
    del registered.files
    (tmp_path / "715").write_text("1")
    given = {"source": "mine", "path": str(tmp_path / "{recording}")}
    keys = {
        stages.key_for("01_ingest", recipe(**given, source_params=own), "715")
        for own in ({}, {"gain": 1.0}, {"gain": 2.0})
    }
    assert len(keys) == 2  # a default that is written out changes nothing
    for own, says in [
        ({"gian": 2.0}, "source_params of recipe 'r': unknown parameter 'gian'; did you mean gain"),
        ({"gain": "2"}, "gain = '2'"),
        ({"gain": 0.0}, "gain = 0.0"),
    ]:
        with pytest.raises(BadParameter, match=says):
            sources.own_settings(recipe(**given, source_params=own))
    with pytest.raises(BadParameter, match="source 'nwb' takes none; found gain"):
        sources.own_settings(recipe(source="nwb", source_params={"gain": 2.0}))


@pytest.mark.parametrize(
    ("source", "given"),
    [
        ("simulate", {"time_unit": "ms"}),
        ("simulate", {"path": "/x.nwb"}),
        ("simulate_lfp", {"series": "lfp"}),
        ("lab_pickle", {"time_unit": "ms"}),
        ("lfp_mat", {"time_unit": "ms"}),
        ("nwb", {"times": "/x.nwb"}),
        ("mine", {"series": "lfp"}),
        ("nwb", {"hop_s": 1.0}),
        ("lfp_nwb", {"n_bins": 2}),
        ("counts", {"n_bins": 2}),
        ("counts", {"invalid_times": ["bad_times"]}),
    ],
)
def test_a_setting_that_a_source_does_not_use_is_refused(registered, source, given):
    registered.USES = ("path", "time_unit")
    (name,) = given
    asked = {"recipe": "r", "recordings": ["715"], "source": source, "path": "", **given}
    says = f"{name} = .* but source '{source}' does not use {name}"
    with pytest.raises(BadParameter, match=says):
        sources.check_used(Recipe(**asked))
    sources.check_used(Recipe(**asked | {name: Recipe.model_fields[name].default}))
    with pytest.raises(BadParameter, match=says):
        opening.open_recording(Recipe(**asked), "715")


BAD_TIMES = {"start_time": [5.0, 30.0], "stop_time": [8.0, 31.0], "id": [0, 1]}


@pytest.mark.parametrize(
    "place",
    [
        "intervals/bad_times", "processing/ecephys/invalid_times", "scratch/artifacts", "acquisition/BadEpochs",
        "analysis/excluded", "stimulus/presentation/invalid_epochs",
    ],
)  # fmt: skip
def test_invalid_times_elsewhere_are_told_and_used_when_named(tmp_path, simulated, place):
    path, name = tmp_path / "715.nwb", place.removeprefix("intervals/")
    path.write_bytes(simulated.read_bytes())
    with h5py.File(path, "a") as file:
        for column, values in BAD_TIMES.items():
            file[f"{place}/{column}"] = values
    asked = {"source": "nwb", "path": str(path)}
    found = opening.open_recording(recipe(**asked), "715")
    odd = " ".join(checks.session_report(found).odd)
    setting = f"invalid_times: [invalid_times, {name}]"
    assert f"{name}: by its name, its 2 rows are times to leave out" in odd and setting in odd
    before = len(found.invalid_times)
    for written in (name, f"/{place}"):
        used = recipe(**asked, invalid_times=["invalid_times", written])
        found = opening.open_recording(used, "715")
        assert len(found.invalid_times) == before + 2 and [5.0, 8.0] in found.invalid_times.tolist()
        assert "by its name" not in " ".join(checks.session_report(found).odd)
    none = opening.open_recording(recipe(**asked, invalid_times=[]), "715")
    assert len(none.invalid_times) == 0
    with pytest.raises(
        BadParameter, match=r"715\.nwb: invalid_times of .* 'bad'; there is .*natural"
    ):
        opening.open_recording(recipe(**asked, invalid_times=["bad"]), "715")


@pytest.mark.parametrize(
    "place", ["intervals/bad_times", "processing/x/bad_times", "intervals/invalid_times"]
)
def test_invalid_times_without_an_end_column_are_there_and_refused(tmp_path, simulated, place):
    path, name = tmp_path / "715.nwb", place.removeprefix("intervals/")
    path.write_bytes(simulated.read_bytes())
    with h5py.File(path, "a") as file:
        file.pop(place, None)
        file[f"{place}/start_time"], file[f"{place}/id"] = [5.0, 30.0], [0, 1]
    asked = {"source": "nwb", "path": str(path)}
    if name != "invalid_times":
        found = opening.open_recording(recipe(**asked), "715")
        assert f"{name}: by its name, its 2 rows" in " ".join(checks.session_report(found).odd)
    found = opening.open_recording(recipe(**asked, invalid_times=[name]), "715")
    with pytest.raises(BadInput, match=f"{name} has no column 'stop_time', so how long"):
        checks.session_report(found)


def test_trials_without_an_end_column_are_cut_around_an_event(tmp_path, simulated):
    path = tmp_path / "715.nwb"
    path.write_bytes(simulated.read_bytes())
    with h5py.File(path, "a") as file:
        trials = file["intervals/natural_scenes_presentations"]
        del trials["stop_time"]
        trials.attrs["colnames"] = [c for c in trials.attrs["colnames"] if c != "stop_time"]
    asked = {"source": "nwb", "path": str(path)}
    with pytest.raises(BadInput, match=r"no finite stop_time .*which needs no stop_time"):
        opening.open_recording(recipe(**asked), "715")
    event = {"binning": "event_window", "event": "start_time", "bin_s": 0.05}
    found = opening.open_recording(recipe(**asked, **event), "715")
    assert (
        len(found.trial_table) and checks.session_report(found).tables["presentations"]["n"].all()
    )


def test_the_key_follows_the_tables_of_invalid_times(tmp_path):
    path = tmp_path / "715"
    path.write_bytes(b"raw")
    first, second = (
        recipe(source="nwb", path=str(path), **given) for given in ({}, {"invalid_times": ["bad"]})
    )
    assert stages.key_for("01_ingest", first, "715") != stages.key_for("01_ingest", second, "715")


@pytest.mark.parametrize("name", ["validation_trials", "cue_validity", "badge_epochs", "trials"])
def test_a_name_that_says_nothing_of_validity(name):
    assert not says_of_validity(name)


def test_recipes_that_ship_use_what_they_set():
    for path in sorted((store.recipes_dir()).glob("*.yml")):
        sources.check_used(recipes.load_recipe(path))


def test_an_unknown_source_is_refused():
    with pytest.raises(BadParameter, match="source = 'nwbb': no such source; choose one of allen"):
        params.checked(Recipe, {"recipe": "r", "recordings": ["a"], "source": "nwbb"}, "x.yml")


def test_keys_of_recordings_that_were_there_before_stay(home, tmp_path):
    path = tmp_path / "715"
    path.write_bytes(b"raw")
    asked = recipe(source="nwb", path=str(tmp_path / "{recording}"))
    own = {
        "source": "nwb", "intervals": "natural_scenes_presentations", "label": "frame",
        "time_unit": "s", "series": "", "times": "", "where": "", "missing": params.MISSING,
        "blank": "", "join_labels": False,
    }  # fmt: skip
    version = stages.STAGES["01_ingest"].version
    expected = store.make_key("01_ingest", version, own, [integrity.sha256(path)])
    assert stages.key_for("01_ingest", asked, "715") == expected


# --- events -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    return allen.simulate(
        tmp_path_factory.mktemp("e") / "e.nwb", n_units=3, n_scenes=4, n_repeats=6
    )


@pytest.fixture
def events(tmp_path, simulated):
    """A recording in seconds or milliseconds with a column of events: `events(unit, name, times)`."""

    def opened(unit, name, change, **given):
        path = shutil.copy(simulated, tmp_path / "e.nwb")
        scale = {"s": 1.0, "ms": 1000.0}[unit]
        with h5py.File(path, "a") as file:
            file["units/spike_times"][...] = file["units/spike_times"][()] * scale
            for table in file["intervals"].values():
                for column in ("start_time", "stop_time"):
                    table[column][...] = table[column][()] * scale
            trials = file["intervals/natural_scenes_presentations"]
            start = trials["start_time"][()] / scale
            trials[name] = change(start)
            trials.attrs["colnames"] = np.array([*trials.attrs["colnames"], name], object)
        asked = {"binning": "event_window", "event": name, "bin_s": 0.05, **given}
        asked = recipe(["e"], source="nwb", path=str(path), time_unit=unit, **asked)
        return opening.open_recording(asked, "e"), start

    return opened


@pytest.mark.parametrize(
    ("unit", "name", "change"),
    [
        ("s", "onset", lambda t: t + 0.05),
        ("ms", "onset", lambda t: (t + 0.05) * 1000),
        ("ms", "onset_time", lambda t: (t + 0.05) * 1000),
        ("ms", "onset", lambda t: np.round((t + 0.05) * 1000).astype(np.int64)),
        ("ms", "onset", lambda t: ((t + 0.05) * 1000).astype("S")),
        ("ms", "onset_time", lambda t: ((t + 0.05) * 1000).astype("S")),
        ("s", "onset", lambda t: np.where(np.arange(len(t)) == 3, b"", (t + 0.05).astype("S"))),
        ("s", "onset", lambda t: np.where(np.isin(np.argsort(t), np.arange(11)), t + 0.05, np.nan)),
        ("s", "onset", lambda t: np.where(np.arange(len(t)) % 2, np.nan, t + 0.05)),
    ],
)
def test_every_event_is_in_seconds(events, unit, name, change):
    recording, start = events(unit, name, change, unusable_trials="leave_out")
    found = recording.trial_table[name].to_numpy(float)
    known = np.isfinite(found)
    assert known.any()
    np.testing.assert_allclose(found[known], start[known] + 0.05, atol=6e-4)


@pytest.mark.parametrize(
    ("unit", "change"),
    [
        ("s", lambda t: t * 1000),
        ("ms", lambda t: t),
        ("s", lambda t: (t * 1000).astype("S")),
        ("s", lambda t: t - t),
        ("s", lambda t: np.random.default_rng(0).uniform(0, 0.2, len(t))),
        ("s", lambda t: t * 30_000),
        ("s", lambda t: t + 1.7e9),
    ],
)
def test_events_on_another_clock_are_refused_with_both_ranges(events, unit, change):
    with pytest.raises(BadInput, match=r"column 'onset' of natural_scenes_presentations lies from .* itself from .* one clock"):  # fmt: skip
        events(unit, "onset", change)
    events(unit, "onset", change, binning="per_presentation")  # not asked for: no matter


def test_events_outside_their_own_presentation_are_told(events):
    def told(change):
        recording, _ = events("s", "onset", change)
        return [odd for odd in checks.session_report(recording).odd if "onset" in odd]

    assert told(lambda t: t + 0.05) == []
    (odd,) = told(lambda t: np.where(t < np.median(t), t, t - np.median(t) + t.min()))
    assert "times of 'onset' lie outside their own presentation (row" in odd
