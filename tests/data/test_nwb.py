"""Broken NWB files get one clear error each; sound ones are read as they are."""

import shutil

import h5py
import numpy as np
import pytest

from nblib.core import params
from nblib.core.errors import BadInput, MissingInput
from nblib.data import nwb, opening
from nblib.data.checks import session_report
from nblib.simulate import allen

TRIALS = {"intervals": "natural_scenes_presentations", "label": "frame"}
TABLE = "intervals/natural_scenes_presentations"


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    path = tmp_path_factory.mktemp("nwb") / "sound.nwb"
    return allen.simulate(path, n_units=6, n_scenes=4, n_repeats=6, seed=1)


@pytest.fixture
def copy(sound, tmp_path):
    """A copy to break: `copy(change)` applies `change(file)` and returns the path."""

    def make(change=None):
        path = tmp_path / "broken.nwb"
        shutil.copy(sound, path)
        if change:
            with h5py.File(path, "r+") as file:
                change(file)
        return path

    return make


def refused(path, *words, error=BadInput, read=False, **settings):
    with pytest.raises(error) as told:
        recording = nwb.open_nwb(path, **{**TRIALS, **settings})
        assert len(recording.trial_table)
        if read:
            session_report(recording)
    for word in (path.name, *words):
        assert str(word) in str(told.value), f"{word!r} is not in: {told.value}"


def test_a_sound_file(sound):
    recording = nwb.open_nwb(sound, **TRIALS)
    assert recording.n_units == 6 and len(recording.trial_table) == 30
    assert {"area", "probe", "channel", "x", "y", "z"} <= set(recording.units)
    spikes = recording.spikes.mapped
    assert len(spikes) == recording.n_spikes and spikes.dtype == np.float64
    np.testing.assert_array_equal(
        np.concatenate([recording.spike_times(i) for i in range(6)]), np.asarray(spikes)
    )
    speed = recording.series["running_speed"]
    assert speed.unit == "cm/s" and len(speed.read(0, 10)) == 10
    assert len(recording.invalid_times) == 1


def test_truncated_and_foreign_files(copy, tmp_path):
    path = copy()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(path, "truncated")
    path.write_bytes(b"not HDF5 at all" * 100)
    refused(path, "not an HDF5 file")
    refused(tmp_path / "none.nwb", "no such file", error=MissingInput)


def test_missing_tables_and_columns_are_named_with_what_there_is(copy, sound):
    refused(copy(lambda f: f.__delitem__("units")), "no units table")
    refused(copy(lambda f: f["units"].__delitem__("spike_times")), "no spike_times")
    refused(sound, "'nope'", "natural_scenes_presentations", intervals="nope")
    refused(sound, "'nope'", "frame", label="nope")


def test_broken_presentations_are_named_by_row(copy):
    def nan(file):
        file[TABLE]["start_time"][3] = np.nan

    def negative(file):
        file[TABLE]["stop_time"][5] = file[TABLE]["start_time"][5] - 1

    for change, says in ((nan, "no finite start_time"), (negative, "a negative length")):
        path = copy(change)
        asked = {"source": "nwb", "path": str(path), **TRIALS}
        recipe = params.Recipe(recipe="r", recordings=["a"], **asked)
        with pytest.raises(
            BadInput,
            match=rf"{says}.* in row \d\. Mend them in the file, or set unusable_trials: leave_out",
        ):
            opening.open_recording(recipe, "a")
        going = recipe.model_copy(update={"unusable_trials": "leave_out"})
        assert len(opening.open_recording(going, "a").timed_trials) == 29


def test_a_file_in_milliseconds_is_read_when_the_recipe_says_so(copy, sound):
    def to_ms(file):
        file["units/spike_times"][...] = file["units/spike_times"][()] * 1000
        for table in file["intervals"].values():
            for name in ("start_time", "stop_time"):
                table[name][...] = table[name][()] * 1000

    path = copy(to_ms)
    refused(path, "time_unit: ms", read=True)
    recording = nwb.open_nwb(path, **TRIALS, time_unit="ms")
    session_report(recording)
    original = nwb.open_nwb(sound, **TRIALS)
    np.testing.assert_allclose(recording.spike_times(2), original.spike_times(2))
    np.testing.assert_allclose(recording.trial_table.start_time, original.trial_table.start_time)
