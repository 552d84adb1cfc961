"""One way in: a recipe and a recording id give the recording, or say why not."""

import numpy as np
import pandas as pd
import pytest

from nblib import sources, store
from nblib.errors import BadInput, BadParameter, MissingInput
from nblib.params import Recipe, SimulateSettings
from nblib.sources import simulate

SMALL = SimulateSettings(n_units=3, n_scenes=2, n_repeats=2)


def recipe(recordings=("715",), **settings):
    return Recipe(recipe="r", recordings=list(recordings), **settings)


def test_a_simulated_recording_is_made_once(home):
    asked = recipe(["demo"], source="simulate", simulate=SMALL)
    recording = sources.open_recording(asked, "demo")
    made = recording.path.stat().st_mtime_ns
    assert (recording.id, recording.n_units, recording.meta["source"]) == ("demo", 3, "simulate")
    assert sources.open_recording(asked, "demo").path.stat().st_mtime_ns == made
    other = recipe(["demo"], source="simulate", simulate=SMALL.model_copy(update={"seed": 1}))
    assert sources.identity(asked, "demo") != sources.identity(other, "demo")


def test_a_file_of_ones_own(home, tmp_path, monkeypatch):
    path = simulate.simulate(tmp_path / "mouse_715.nwb", n_units=3, n_scenes=2, n_repeats=2)
    monkeypatch.setenv("SCANS", str(tmp_path))
    asked = recipe(source="nwb", path="${SCANS}/mouse_{recording}.nwb")
    assert sources.open_recording(asked, "715").path == path
    assert sources.identity(asked, "715") == store.sha256(path)
    with pytest.raises(MissingInput, match=r"mouse_716\.nwb: no such file"):
        sources.open_recording(asked, "716")
    with pytest.raises(BadParameter, match="needs a path"):
        sources.open_recording(recipe(source="nwb"), "715")


def pickled(folder, name="spike_trains_with_stimulus_session_715_5.pkl"):
    table = pd.DataFrame(np.arange(60).reshape(20, 3) % 4, columns=[7, 8, 9])
    table["frame"] = np.repeat([0, -1, 1, -1], 5)
    table.to_pickle(folder / name)
    return str(folder / "spike_trains_with_stimulus_session_{recording}_5.pkl")


def test_a_lab_pickle_enters_as_counts(tmp_path):
    asked = recipe(source="lab_pickle", path=pickled(tmp_path))
    binned = sources.open_binned(asked, "715")
    assert binned.label.values.tolist() == [0, -1, 1, -1]
    np.testing.assert_allclose(binned.start_s, np.arange(4) * 0.25)
    np.testing.assert_allclose(binned.exposure_s, 0.05)
    kept = sources.open_binned(asked.model_copy(update={"keep_blank": False}), "715")
    assert kept.label.values.tolist() == [0, 1] and kept.trial.values.tolist() == [0, 2]
    np.testing.assert_allclose(kept.start_s, [0, 0.5])  # they keep their place in time


def test_a_lab_pickle_is_not_what_it_is_not(tmp_path):
    path = pickled(tmp_path)
    with pytest.raises(BadParameter, match="no spike times; it enters at 02_bin"):
        sources.open_recording(recipe(source="lab_pickle", path=path), "715")
    with pytest.raises(BadParameter, match="binned already"):
        sources.open_binned(recipe(source="lab_pickle", path=path, binning="fixed_width"), "715")
    with pytest.raises(BadInput, match="Set n_bins: 5"):
        sources.open_binned(recipe(source="lab_pickle", path=path, n_bins=10), "715")
    with pytest.raises(BadParameter, match="holds spike times"):
        sources.open_binned(recipe(["demo"], source="simulate"), "demo")
