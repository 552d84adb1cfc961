"""Where the notebooks' roads part: recordings with spike times, and counts that come without."""

import json

import numpy as np
import pytest
from by_hand import begin
from handmade import recording, to_lab_dataframe

from nblib.core import store
from nblib.core.errors import BadInput, MissingInput
from nblib.core.params import BinSettings
from nblib.data.checks import session_report
from nblib.prepare import binning, binning_stage
from nblib.report import plots, response_explorer
from nblib.road.recordings import open_recording
from nblib.run import execute


@pytest.fixture
def session():
    start = 5 + 0.25 * np.arange(60)
    rng = np.random.default_rng(0)
    spikes = [np.sort(rng.uniform(0, 25, 300)) for _ in range(4)]
    return recording(
        spikes, np.tile([-1, 0, 1], 20), start, areas=["VISp", "VISp", "CA1", ""],
        invalid=[(6.0, 6.1)],
    )  # fmt: skip


@pytest.fixture
def lab_pickle(home, tmp_path, monkeypatch, session):
    """The recording's counts in the lab's own file, and where the recipe finds it."""
    table = to_lab_dataframe(binning.bin_recording(session, BinSettings()))
    table.to_pickle(tmp_path / "spike_trains_with_stimulus_session_715093703_5.pkl")
    monkeypatch.setenv("NBLIB_LAB_FILES", str(tmp_path))
    return {"recipe": "lab_pickle", "recording": "715093703"}


def test_a_lab_pickle_begins_at_02(lab_pickle, session):
    stage = begin("02_bin", **lab_pickle)
    assert open_recording(stage) is None
    binned = binning_stage.bin_session(None, stage)
    expected = binning.bin_recording(session, BinSettings())
    np.testing.assert_array_equal(binned.counts, expected.counts)
    psth = binning_stage.response(None, binned)
    assert len(psth) == 5 and psth["area"].unique().tolist() == [""]
    assert plots.png_bytes(response_explorer.explore_responses(None)).startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_lab_pickle_goes_the_whole_road(lab_pickle):
    given = {
        **lab_pickle,
        "model": "logistic",
        "n_permutations": 100,
        "n_bootstrap": 100,
        "gap_s": 0.0,
    }
    outcome = execute.attempt("05_train_lstm", given, with_upstream=True, progress=False)
    assert outcome.code == 0, outcome.message
    assert {f.parts[-3] for f in store.artifacts()} == {
        "02_bin",
        "03_clean",
        "04_split",
        "05_train_lstm",
    }


def test_a_recording_is_opened_once_01_has_looked_at_it(home):
    given = {"recipe": "tiny", "recording": "tiny"}
    first = begin("01_ingest", **given)
    opened = open_recording(first)
    assert opened.n_units == 24
    with pytest.raises(MissingInput, match="nblib run 01_ingest"):
        open_recording(begin("02_bin", **given))
    report = session_report(opened)
    first.commit(report.save)
    second = begin("02_bin", **given)
    assert binning_stage.bin_session(open_recording(second), second).sizes["unit"] == 24


def test_02_may_lose_a_class_that_01_saw_and_says_so(home):
    given = {"recipe": "tiny", "recording": "tiny"}
    first = begin("01_ingest", **given)
    first.commit(session_report(open_recording(first)).save)
    second = begin("02_bin", **given, keep_blank=False)
    session = open_recording(second)
    binned = binning_stage.bin_session(session, second)
    assert set(session.labelled.classes) - set(json.loads(binned.attrs["classes"])) == {"-1"}
    psth = binning_stage.response(session, binned)
    assert "(grey screen)" in binning_stage.sentence(binned, psth)
    session.labelled.table["label"] = -2  # what another file would say
    with pytest.raises(BadInput, match="class '-2' was not there before"):
        binning_stage.bin_session(session, second)
