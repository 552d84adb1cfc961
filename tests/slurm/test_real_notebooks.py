"""One sweep of real notebooks on a real Slurm: training that is broken off, a search, both engines' tables."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from private_slurm import PATIENCE_S, end_its_time, end_with_the_tests, preempt, wait_until

from nblib.core import store
from nblib.report import all_runs
from nblib.report.one_run import load_run
from nblib.run.search import tables

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow
PROFILE = (ROOT / "tests" / "slurm" / "private.yaml").read_text()
RECIPE = """\
recipe: NAME
recordings: [NAME]
source: simulate
simulate: {n_units: 24, n_scenes: 6, n_repeats: 20, seed: SEED, signal: 1.5}
n_bins: 5
gap_s: 0.5
"""


@pytest.fixture
def project(tmp_path, monkeypatch, slurm):
    """The shipped notebooks and settings, in a project whose notebooks a test may change."""
    root = tmp_path / "project"
    for name in ("notebooks", "params", "workflow"):
        shutil.copytree(ROOT / name, root / name)
    (root / "workflow" / "profiles" / "private").mkdir()
    (root / "workflow" / "profiles" / "private" / "config.yaml").write_text(PROFILE)
    for seed, name in ((1, "a"), (2, "b")):
        text = RECIPE.replace("NAME", name).replace("SEED", str(seed))
        (root / "params" / "recipes" / f"{name}.yml").write_text(text)
    monkeypatch.setenv("NBLIB_PROJECT", str(root))
    return root


def sweep(project, home, text, *options, wait=True):
    """`nblib sweep` in a process of its own, with a data root of its own."""
    path = project / "s.yml"
    path.write_text(text)
    process = subprocess.Popen(
        [sys.executable, "-m", "nblib", "sweep", str(path), *options],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=end_with_the_tests,
        env={**os.environ, "NBLIB_HOME": str(home), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    if not wait:
        return process
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said
    return said


def table(home, monkeypatch):
    """What the runs say, without what differs between places and moments."""
    monkeypatch.setenv("NBLIB_HOME", str(home))
    runs = all_runs.scan()
    return runs.drop(columns=["fit_s", "wall_s", "folder", "created", "host", "code_version"])


FEW = "n_permutations: 100, n_bootstrap: 100, importance: 0"
SLOW = """\
import os, pathlib, time
from nblib.models import training
home = pathlib.Path(os.environ["NBLIB_HOME"])
tries = len(list(home.glob(f"try-{stage.params.model}-*")))
mark = home / f"try-{stage.params.model}-{tries}"
mark.touch()
keep = training.Keeper.on_train_epoch_end
def kept(self, *given):
    keep(self, *given)
    with mark.open("a") as told:
        told.write(f"{self.history[-1]['epoch']}\\n")
    if tries == 0 and not (home / "unbroken").exists():
        time.sleep(0.3 if len(self.history) < 8 else 600)
training.Keeper.on_train_epoch_end = kept"""


def slow_down(project):
    """05 stops for ten minutes after its eighth epoch, on the first try."""
    path = project / "notebooks" / "05_train_lstm.ipynb"
    notebook = nbformat.read(path, as_version=4)
    at = next(i for i, c in enumerate(notebook.cells) if "decode.fit(" in c.source)
    notebook.cells.insert(at, nbformat.v4.new_code_cell(SLOW))
    nbformat.write(notebook, path)


def epochs(home, model, number):
    path = home / f"try-{model}-{number}"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


STEPS = f"""\
sweep: s
params: {{recipe: a, model: mlp, max_epochs: 3, {FEW}}}
resources: {{train: {{runtime: 20}}}}
steps:
  - notebook: 05_train_lstm
    params: {{recipe: a, max_epochs: 14, patience: 14, {FEW}, model_params: {{hidden: 8}}}}
    models: [lstm, gru]
  - notebook: 05_train_lstm
    params: {{{FEW}}}
    models: [logistic]
    each: {{recipe: [a, b]}}
"""
SEARCH = """\
search:
  trials: 6
  workers: 2
  space:
    model_params.hidden: {choices: [4, 8, 16]}
    learning_rate: {low: 0.001, high: 0.1, log: true}
"""


def test_a_sweep_that_is_broken_off_says_what_an_unbroken_one_at_home_says(
    project, tmp_path, monkeypatch
):
    """The lstm meets its time limit, the gru is preempted, both go on where they were. Then two workers
    share the trials of a search, whose winner is tested once and reported in 91."""
    slow_down(project)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for home in (whole, broken):
        home.mkdir()
    (whole / "unbroken").touch()
    assert "12 of 12 runs done, 0 failed" in sweep(project, whole, STEPS)  # 4, and 01-04 of a and b
    process = sweep(project, broken, STEPS + SEARCH, "--profile", "private", wait=False)
    wait_until(lambda: len(epochs(broken, "gru", 0)) == 8)
    monkeypatch.setenv("NBLIB_HOME", str(broken))
    preempt(project / "s.yml", "model", "gru")
    wait_until(lambda: len(epochs(broken, "lstm", 0)) == 8)
    end_its_time(project / "s.yml", "model", "lstm")
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said
    # 4 runs, and a job for the stages of each recording; workers; the tested; the report
    assert re.findall(r"(\d) of (\d) jobs done, 0 failed", said) == [(n, n) for n in "6221"]
    for model in ("lstm", "gru"):
        assert epochs(broken, model, 0) == list(range(8))
        second = epochs(broken, model, 1)
        assert 0 < second[0] <= 8 and second == list(range(second[0], 14))
        assert epochs(whole, model, 0) == list(range(14)) and not epochs(broken, model, 2)

    here, there = table(whole, monkeypatch), table(broken, monkeypatch)
    assert len(here) == 4 and (here["flag"] == "").all()
    assert here["value"].nunique() > 2 and set(here["recording"]) == {"a", "b"}
    same = there[there["key"].isin(here["key"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(here, same)
    for folder in [a for a in store.artifacts() if a.parts[-3] == "05_train_lstm"]:
        other = whole / folder.relative_to(broken)
        if load_run(folder).metrics["model"] not in ("lstm", "gru"):
            continue
        for name in ("history", "predictions"):
            one, two = (pd.read_parquet(f / f"{name}.parquet") for f in (folder, other))
            pd.testing.assert_frame_equal(one, two)
        assert (folder / "weights.safetensors").read_bytes() == (other / "weights.safetensors").read_bytes()  # fmt: skip
        assert load_run(folder).metrics["scores"] == load_run(other).metrics["scores"]

    studies = tables.current("s")
    assert sorted(tables.trials(studies)["trial"]) == list(range(6))
    assert len(there) == len(here) + 2 and len(tables.outcome(studies)) == 2
    assert [a.parts[-3] for a in store.artifacts()].count("91_search") == 1
