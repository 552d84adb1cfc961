"""Where the notebooks' roads part: recordings with spike times, and counts that come without."""

import json

import numpy as np
import pandas as pd
import pytest
from handmade import recording, to_lab_dataframe

from nblib.core import store
from nblib.core.errors import MissingInput
from nblib.core.params import BinSettings, CleanSettings, SplitSettings
from nblib.data.inspection import session_report
from nblib.prepare import binning, steps
from nblib.prepare.cleaning import clean
from nblib.report import plots, widgets
from nblib.road import stages
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


def begin(name, **given):
    """A stage as a notebook's validate cell makes it, with the parameters cell's defaults."""
    info = stages.STAGES[name]
    values = {k: f.default for k, f in info.params.model_fields.items()}
    return stages.begin(name, {**values, **dict.fromkeys(info.settings.model_fields), **given})


def test_a_lab_pickle_begins_at_02(lab_pickle, session):
    stage = begin("02_bin", **lab_pickle)
    assert steps.open_session(stage) is None
    binned = steps.bin_session(None, stage)
    expected = binning.bin_recording(session, BinSettings())
    np.testing.assert_array_equal(binned.counts, expected.counts)
    psth = steps.psth(None, binned)
    assert len(psth) == 5 and psth["area"].unique().tolist() == [""]
    assert plots.png_bytes(widgets.explore_responses(None)).startswith(b"\x89PNG")


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
    opened = steps.open_session(first)
    assert opened.n_units == 24
    with pytest.raises(MissingInput, match="nblib run 01_ingest"):
        steps.open_session(begin("02_bin", **given))
    report = session_report(opened)
    first.commit(lambda folder: steps.save_report(report, folder))
    second = begin("02_bin", **given)
    assert steps.bin_session(steps.open_session(second), second).sizes["unit"] == 24


def test_a_report_is_stored_whole(session, tmp_path):
    report = session_report(session)
    steps.save_report(report, tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["odd"] == report.odd
    for name, table in report.tables.items():
        assert len(pd.read_parquet(tmp_path / f"{name}.parquet")) == len(table), name


def test_cleaned_counts_come_back(session, tmp_path):
    counts = binning.bin_recording(session, BinSettings())
    cleaned, removals = clean(counts, session, CleanSettings())
    steps.save_cleaned(cleaned, removals, tmp_path)
    np.testing.assert_array_equal(steps.load_counts(tmp_path).counts, cleaned.counts)
    assert (
        pd.read_parquet(tmp_path / "removals.parquet")["removed"].tolist()
        == removals["removed"].tolist()
    )


def test_every_fold_is_fitted(session):
    from nblib.prepare.splits import make_split

    settings = SplitSettings(n_folds=3, gap_s=0.0)
    counts = binning.bin_recording(session, BinSettings())
    fitted = steps.fit_folds(counts, make_split(counts, settings), settings)
    assert [s.fold for s in fitted] == [0, 1, 2]


def test_nobody_is_there_in_a_test():
    assert steps.someone_is_there() is False


def test_a_kernel_knows_a_person_from_a_batch(home):
    """Jupyter's front ends allow input with a cell, papermill does not: asked of a real kernel."""
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python3")
    try:
        told = {}
        for allow in (True, False):
            code = "from nblib.prepare import steps; print(steps.someone_is_there())"
            said = []
            client.allow_stdin = allow
            client.execute_interactive(
                code, allow_stdin=allow, timeout=60,
                output_hook=lambda m, said=said: said.append(m["content"].get("text", "")),
            )  # fmt: skip
            told[allow] = "".join(said).strip()
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert told == {True: "True", False: "False"}
