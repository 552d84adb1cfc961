"""A sweep on a real Slurm: the same artifacts as at home, and what goes wrong there."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import tiny_project
from private_slurm import PATIENCE_S, end_its_time, end_with_the_tests, preempt, wait_until

from nblib.core import store
from nblib.core.errors import MissingInput
from nblib.run import cluster, sweep

ROOT = Path(__file__).resolve().parents[2]
PROFILE = (ROOT / "tests" / "slurm" / "private.yaml").read_text()
SWEEP = """\
sweep: s
steps:
  - notebook: 03_clean
    params: {recipe: cohort}
    each: {recording: [a, b]}
"""


@pytest.fixture
def project(tmp_path, monkeypatch, slurm):
    made = tiny_project.make(tmp_path)
    for name, value in tiny_project.environment(made).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tempfile, "tempdir", None)
    made.recipe("cohort", ["a", "b"])
    shutil.copytree(ROOT / "workflow", made.root / "workflow")
    (made.root / "workflow" / "profiles" / "private").mkdir()
    (made.root / "workflow" / "profiles" / "private" / "config.yaml").write_text(PROFILE)
    (made.root / "s.yml").write_text(SWEEP)
    return made


def drive(project, **options):
    """`nblib sweep` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "nblib", "sweep", str(project.root / "s.yml"), "--profile", "private"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=end_with_the_tests, **options,
    )  # fmt: skip


def test_the_same_artifacts_as_at_home(project):
    process = drive(project)
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said
    assert "2 jobs; logs in" in said and "2 of 2 jobs done, 0 failed" in said  # 01-03 share a job
    there = sorted(p.parts[-3:] for p in project.committed())
    assert len(there) == 6
    assert all((p / "executed.ipynb").is_file() for p in project.committed())
    path = project.root / "s.yml"
    assert cluster.queue(path) == []
    runs = sweep.with_roads(sweep.check(sweep.read(path), path))
    from nblib.run import plan

    assert sorted((j.name, j.recording, j.key) for j in (plan.job_of(*r) for r in runs)) == there
    again = drive(project)
    said, _ = again.communicate(timeout=PATIENCE_S)
    assert again.returncode == 0 and "jobs; logs in" not in said  # nothing to do: nothing submitted


SLEEP = """\
import os, pathlib, time
begun = pathlib.Path(os.environ['NBLIB_HOME'], f'begun-{stage.recording}-{os.getpid()}')
begun.touch()
if stage.recording == 'b' and not pathlib.Path(os.environ['NBLIB_HOME'], 'go').exists(): time.sleep(300)"""


def begun(project, recording):
    return list(project.home.glob(f"begun-{recording}-*"))


def finish(project):
    """Let what slept go on, call the sweep again and see it end well."""
    (project.home / "go").touch()
    process = drive(project)
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said
    assert len(project.committed()) == 6
    return said


def test_a_killed_driver_leaves_nothing_to_clear_and_nothing_twice(project):
    project.notebook("03_clean", f"{SLEEP}\n---\n{tiny_project.COMMIT}")
    process = drive(project)
    wait_until(lambda: begun(project, "b") and len(project.committed()) == 5)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    made = {p: (p / store.MANIFEST).stat().st_mtime_ns for p in project.committed()}
    said = finish(project)
    assert "1 jobs; logs in" in said  # what was in flight, no more
    now = {p: (p / store.MANIFEST).stat().st_mtime_ns for p in project.committed()}
    assert made.items() <= now.items()
    assert len(begun(project, "a")) == 1 and len(begun(project, "b")) == 2
    assert cluster.queue(project.root / "s.yml") == []


@pytest.mark.slow
def test_a_second_driver_is_refused_and_cancel_ends_the_first(project, capsys):
    project.notebook("03_clean", f"{SLEEP}\n---\n{tiny_project.COMMIT}")
    process = drive(project)
    wait_until(lambda: begun(project, "b"))
    other = drive(project)
    said, _ = other.communicate(timeout=PATIENCE_S)
    assert other.returncode == 1 and f"a driver is at work already (pid {process.pid}" in said
    path = project.root / "s.yml"
    assert "jobs cancelled, driver ended" in cluster.stop(path)
    assert process.wait(timeout=PATIENCE_S) == 143
    assert cluster.queue(path) == [] and cluster.driver(cluster.folder_of(path)) is None
    finish(project)


@pytest.mark.slow
def test_a_broken_notebook_takes_only_its_own_road(project):
    project.notebook("02_bin", f"assert stage.recording != 'a', 'broken on purpose'\n---\n{tiny_project.COMMIT}")  # fmt: skip
    process = drive(project)
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 3, said
    assert "broken on purpose" in said and "1 of 2 jobs done, 1 failed" in said
    assert sorted(p.parts[-2] for p in project.committed()) == ["a", "b", "b", "b"]
    assert len(project.failed()) == 1  # not tried twice
    assert said.count("The notebook is kept") == 1


@pytest.mark.slow
def test_a_job_out_of_time_and_a_dead_kernel_are_tried_once_more(project):
    """The first try of b sleeps past its time; that of a loses its kernel."""
    project.notebook(
        "03_clean",
        f"{SLEEP}\n"
        "if stage.recording == 'b': (begun.parent / 'go').touch()\n"
        "if len(list(begun.parent.glob('begun-a-*'))) == 1 and stage.recording == 'a': os.kill(os.getpid(), 9)\n"
        f"---\n{tiny_project.COMMIT}",
    )
    process = drive(project)
    wait_until(lambda: begun(project, "b"))
    end_its_time(project.root / "s.yml", "recording", "b")
    (project.home / "go").touch()  # for the second try; the first sleeps already
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said
    assert len(begun(project, "a")) == 2 == len(begun(project, "b"))
    assert len(project.committed()) == 6


@pytest.mark.slow
def test_a_preempted_job_comes_back(project):
    """Slurm puts a preempted job into the queue again: the sweep ends well all the same."""
    (project.root / "workflow" / "profiles" / "private" / "config.yaml").write_text(
        PROFILE.replace("general", "scavenge")
    )
    project.notebook("03_clean", f"{SLEEP}\n---\n{tiny_project.COMMIT}")
    process = drive(project)
    wait_until(lambda: begun(project, "b") and len(project.committed()) == 5)
    (project.home / "go").touch()
    preempt(project.root / "s.yml", "recording", "b")
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said
    assert len(project.committed()) == 6
    assert len(begun(project, "b")) == 2 and len(begun(project, "a")) == 1


def test_what_a_cluster_needs_is_named(project, monkeypatch):
    path = project.root / "s.yml"
    said, _ = subprocess.Popen(
        [sys.executable, "-m", "nblib", "sweep", str(path), "--profile", "nowhere"],
        stderr=subprocess.PIPE, text=True,
    ).communicate()[::-1]  # fmt: skip
    assert "--profile nowhere: there are longleaf, private." in said
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    with pytest.raises(MissingInput, match=r"no Slurm .* on this machine"):
        sweep.run(path, n_jobs=1, dry=False, profile="private")


def test_jobs_hold_the_stages_of_a_recording_together(project):
    path = project.root / "s.yml"
    jobs = cluster.make_jobs(sweep.with_roads(sweep.check(sweep.read(path), path)))
    assert [(j["kind"], len(j["runs"]), j["needs"]) for j in jobs] == [("stages", 3, []), ("stages", 3, [])]  # fmt: skip
    assert json.loads(json.dumps(jobs)) == jobs
