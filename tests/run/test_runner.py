"""The runner: what it refuses before a kernel starts, what it makes, and what it leaves behind."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import nbformat
import pytest
import tiny_project

from nblib.core import store
from nblib.core.errors import BadParameter
from nblib.run import execute, kernel, many, plan


@pytest.fixture
def no_kernel(monkeypatch):
    """Any attempt to start a kernel fails the test."""

    def refuse(*_args, **_kwargs):
        raise AssertionError("a kernel was started")

    monkeypatch.setattr(kernel, "execute", refuse)


# --- before the kernel ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"n_bin": 5}, "unknown parameter 'n_bin'; did you mean n_bins"),
        ({"colour": 1}, "unknown parameter 'colour'; there is "),
        ({"n_bins": 4}, "n_bins must be one of"),
        ({"recipe": 3}, "recipe = 3: expected the name of a recipe"),
    ],
)
def test_bad_parameters_are_refused_before_a_kernel_starts(
    project, no_kernel, capsys, values, said
):
    assert execute.run("01_ingest", {"recipe": "tiny", **values}) == 2
    assert said in capsys.readouterr().err
    assert project.committed() == [] and project.failed() == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("01_ingst", "did you mean 01_ingest"),
        ("04_split", "the notebook of stage 04_split is not there"),
    ],
)
def test_an_unknown_notebook_is_refused(project, no_kernel, capsys, name, said):
    assert execute.run(name, {}) == 2
    assert said in capsys.readouterr().err


def test_a_notebook_is_found_by_stage_number_or_path(project):
    path = project.root / "notebooks" / "02_bin.ipynb"
    for name in ("02", "02_bin", path, str(path)):
        assert plan.find_notebook(name) == (path, "02_bin")
    copy = project.notebook("my copy", stage="02_bin")
    assert plan.find_notebook(copy) == (copy, "02_bin")


@pytest.mark.parametrize("text", ["not json", "{}", '{"cells": []}'])
def test_a_file_that_opens_no_stage_is_refused(project, text):
    path = project.root / "odd.ipynb"
    path.write_text(text)
    with pytest.raises(BadParameter, match=r"odd\.ipynb"):
        plan.find_notebook(path)


def test_the_only_recording_of_a_recipe_is_meant(project):
    assert plan.job_of("01", {"recipe": "tiny"}).recording == "000021"
    project.recipe("cohort", ["a", "b"])
    with pytest.raises(BadParameter, match="give one of a, b"):
        plan.job_of("01", {"recipe": "cohort"})


def test_a_recording_may_be_called_a_session(project):
    said = {"recipe": "tiny", "session": "000021"}
    assert plan.job_of("01", said).key == plan.job_of("01", {"recipe": "tiny"}).key
    with pytest.raises(BadParameter, match="unknown parameter 'session'"):
        plan.job_of("01", {**said, "recording": "000021"})


def test_an_unknown_model_is_refused_before_a_kernel_starts(project, no_kernel, capsys):
    project.notebook("05_train_lstm")
    assert execute.run("05", {"recipe": "tiny", "model": "lsmt"}) == 2
    said = capsys.readouterr().err
    assert "model = 'lsmt': no such decoder" in said and "did you mean lstm?" in said


def test_a_missing_input_is_told_before_a_kernel_starts(project, no_kernel, capsys):
    assert execute.run("02_bin", {"recipe": "tiny"}) == 3
    said = capsys.readouterr().err
    assert "nblib run 01_ingest --with-upstream -p recipe tiny -p recording 000021" in said


# --- with kernels --------------------------------------------------------------------------------


def test_the_missing_chain_is_made_and_then_nothing_is_run_again(project, capsys, monkeypatch):
    monkeypatch.chdir(project.root.parent)  # the working folder changes nothing
    given = {"recipe": "tiny", "n_bins": 10, "isi_violations_max": math.inf}
    assert execute.run("02_bin", given, with_upstream=True) == 0
    out = capsys.readouterr().out
    assert "02_bin 000021  cell  4/5" in out and "GB" in out
    assert [folder.parts[-3] for folder in project.committed()] == ["01_ingest", "02_bin"]

    folder = plan.job_of("02_bin", given).folder
    executed = nbformat.read(folder / "executed.ipynb", as_version=4)
    nbformat.validate(executed)
    injected = [c for c in executed.cells if "injected-parameters" in c.metadata.get("tags", [])]
    assert "n_bins = 10" in injected[0].source and 'recording = "000021"' in injected[0].source
    assert executed.metadata.papermill.output_path == "executed.ipynb"
    assert store.open_artifact(folder)  # the attached notebook is none of the manifest's business
    assert project.failed() == [] and project.sockets() == []

    monkeypatch.setattr(kernel, "execute", None)
    began = time.monotonic()
    assert execute.run("02_bin", given, with_upstream=True) == 0
    assert time.monotonic() - began < 5
    assert "already committed" in capsys.readouterr().out


def test_a_stored_result_whose_bytes_changed_is_not_called_done(project, forked_kernels, capsys):
    assert execute.run("01_ingest", {"recipe": "tiny"}, progress=False) == 0
    folder = plan.job_of("01_ingest", {"recipe": "tiny"}).folder
    file = next(p for p in folder.iterdir() if p.name not in (store.MANIFEST, "executed.ipynb"))
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert execute.run("01_ingest", {"recipe": "tiny"}, progress=False) == 3
    assert "nblib run 01_ingest --force -p recipe tiny" in capsys.readouterr().err
    assert execute.run("01_ingest", {"recipe": "tiny"}, progress=False, force=True) == 0
    assert execute.run("01_ingest", {"recipe": "tiny"}, progress=False) == 0


def test_force_replaces_what_is_there_and_a_failure_brings_it_back(
    project, forked_kernels, monkeypatch
):
    assert execute.run("01_ingest", {"recipe": "tiny"}, progress=False) == 0
    folder = plan.job_of("01_ingest", {"recipe": "tiny"}).folder
    before = store.read_manifest(folder)["created"], folder.stat().st_ino
    assert execute.run("01_ingest", {"recipe": "tiny"}, progress=False, force=True) == 0
    after = store.read_manifest(folder)["created"], folder.stat().st_ino
    assert after[1] != before[1]

    def breaks(*_args, **_kwargs):
        return kernel.End(error="cell 4 raised OSError: gone", error_name="OSError")

    monkeypatch.setattr(kernel, "execute", breaks)
    monkeypatch.setattr(
        Path, "replace", lambda self, target: target
    )  # there is no notebook to keep
    assert execute.run("01_ingest", {"recipe": "tiny"}, progress=False, force=True) == 3
    assert folder.stat().st_ino == after[1] and len(list(folder.parent.iterdir())) == 1


def test_the_manifest_decides_not_the_look(project, forked_kernels, capsys):
    quiet = project.notebook("quiet", "'all is well'", stage="01_ingest")
    assert execute.run(quiet, {"recipe": "tiny"}, progress=False) == 3
    said = capsys.readouterr().err
    assert "committed nothing" in said and str(project.failed()[0]) in said

    late = project.notebook("late", f"{tiny_project.COMMIT}\n---\n1 / 0", stage="01_ingest")
    assert execute.run(late, {"recipe": "tiny"}, progress=False) == 3
    said = capsys.readouterr().err
    assert "ZeroDivisionError" in said and "committed before that and stands" in said
    assert len(project.committed()) == 1


def test_jobs_side_by_side_share_the_cores(project, preloaded, capsys):
    project.recipe("cohort", ["a", "b", "c"])
    threads = (
        "import os, pathlib\n"
        "said = pathlib.Path(os.environ['NBLIB_HOME'], stage.recording)\n"
        "said.write_text(os.environ['OMP_NUM_THREADS'])"
    )
    project.notebook("01_ingest", f"{threads}\n---\n{tiny_project.COMMIT}")
    jobs = [("01_ingest", {"recipe": "cohort", "recording": r}) for r in ("a", "b")]
    jobs.append(("01_ingest", {"recipe": "cohort", "recording": "nobody"}))
    outcomes = many.run_many(jobs, 2)
    assert [outcome.code for outcome in outcomes] == [0, 0, 2]
    assert [outcome.folder.parts[-2] for outcome in outcomes[:2]] == ["a", "b"]
    assert "'nobody' is not in recipe" in capsys.readouterr().err
    cores = len(os.sched_getaffinity(0))
    assert int((project.home / "a").read_text()) == min(
        max(1, cores // 2), int(os.environ["OMP_NUM_THREADS"])
    )
    with pytest.raises(BadParameter, match="at least 1"):
        many.run_many(jobs, 0)


def test_peaks_are_told_in_units_for_people():
    assert execute.size(12_300_000) == "12 MB" and execute.size(3.21e9) == "3.2 GB"
    assert execute.size(7_300) == "7 kB"


def test_jobs_wait_for_what_they_rest_on(project):
    """Given in the wrong order; what becomes of those whose input fails is asked of `run_calls`."""
    project.recipe("cohort", ["a", "b"])
    jobs = [
        (stage, {"recipe": "cohort", "recording": recording})
        for recording in ("b", "a")
        for stage in ("03_clean", "02_bin", "01_ingest")
    ]
    assert plan.needs(jobs) == [{1, 2}, {2}, set(), {4, 5}, {5}, set()]


def test_a_report_waits_for_all_and_an_impossible_job_for_nobody(project):
    project.notebook("90_results")
    jobs = [("90_results", {}), ("01_ingest", {"recipe": "tiny"}), ("02_bin", {"recipe": "none"})]
    assert plan.needs(jobs) == [{1}, set(), set()]
