"""A sweep on a real Slurm: the same artifacts as at home, and what goes wrong there."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_project
from private_slurm import PATIENCE_S, end_its_time, end_with_the_tests, preempt, wait_until

from nblib.core import store
from nblib.core.errors import MissingInput
from nblib.run import cluster, plan, sweep

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
def project(project, slurm):
    project.recipe("cohort", ["a", "b"])
    shutil.copytree(ROOT / "workflow", project.root / "workflow")
    (project.root / "workflow" / "profiles" / "private").mkdir()
    (project.root / "workflow" / "profiles" / "private" / "config.yaml").write_text(PROFILE)
    (project.root / "s.yml").write_text(SWEEP)
    return project


def drive(project, **options):
    """`nblib sweep` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "nblib", "sweep", str(project.root / "s.yml"), "--profile", "private"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=end_with_the_tests, **options,
    )  # fmt: skip


SLEEP = """\
import os, pathlib, time
begun = pathlib.Path(os.environ['NBLIB_HOME'], f'begun-{stage.recording}-{os.getpid()}')
begun.touch()
if stage.recording in 'bd' and not pathlib.Path(os.environ['NBLIB_HOME'], 'go').exists(): time.sleep(300)"""


def begun(project, recording):
    return list(project.home.glob(f"begun-{recording}-*"))


def ended(process, code=0):
    """What a driver said that ended with this code."""
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == code, said
    return said


def test_drivers_that_are_refused_killed_or_cancelled_leave_nothing_twice(project):
    """The sweep that is called once more then ends with the artifacts that it makes at home."""
    project.notebook("03_clean", f"{SLEEP}\n---\n{tiny_project.COMMIT}")
    path = project.root / "s.yml"
    process = drive(project)
    wait_until(lambda: begun(project, "b") and len(project.committed()) == 5)
    assert f"a driver is at work already (pid {process.pid}" in ended(drive(project), 1)
    os.kill(process.pid, signal.SIGKILL)
    assert "2 jobs; logs in" in process.communicate()[0]  # 01-03 share a job
    made = {p: (p / store.MANIFEST).stat().st_mtime_ns for p in project.committed()}
    process = drive(project)
    wait_until(lambda: len(begun(project, "b")) == 2)
    assert "jobs cancelled, driver ended" in cluster.stop(path)
    assert "1 jobs; logs in" in ended(process, 143)  # what was in flight, no more
    assert cluster.queue(path) == [] and cluster.driver(cluster.folder_of(path)) is None

    (project.home / "go").touch()
    assert "1 of 1 jobs done, 0 failed" in ended(drive(project))
    now = {p: (p / store.MANIFEST).stat().st_mtime_ns for p in project.committed()}
    assert made.items() <= now.items()
    assert len(begun(project, "a")) == 1 and len(begun(project, "b")) == 3
    there = sorted(p.parts[-3:] for p in project.committed())
    runs = sweep.with_roads(sweep.check(sweep.read(path), path))
    assert sorted((j.name, j.recording, j.key) for j in (plan.job_of(*r) for r in runs)) == there
    assert len(there) == 6 and all((p / "executed.ipynb").is_file() for p in project.committed())
    assert cluster.queue(path) == []
    assert "jobs; logs in" not in ended(drive(project))  # nothing to do: nothing submitted


@pytest.mark.slow
def test_what_befalls_one_job_befalls_its_own_road_only(project):
    """The first try of a loses its kernel, that of b meets its time limit, d is preempted: each is
    tried once more and ends well; the notebook of c is broken, and is not."""
    project.recipe("cohort", list("abcd"))
    (project.root / "s.yml").write_text(SWEEP.replace("[a, b]", "[a, b, c, d]"))
    project.notebook("02_bin", f"assert stage.recording != 'c', 'broken on purpose'\n---\n{tiny_project.COMMIT}")  # fmt: skip
    kill = "if stage.recording == 'a' and len(list(begun.parent.glob('begun-a-*'))) == 1: os.kill(os.getpid(), 9)"
    project.notebook("03_clean", f"{SLEEP}\n{kill}\n---\n{tiny_project.COMMIT}")
    process = drive(project)
    wait_until(lambda: begun(project, "b") and begun(project, "d"))
    (project.home / "go").touch()  # for the second tries; the first sleep already
    end_its_time(project.root / "s.yml", "recording", "b")
    preempt(project.root / "s.yml", "recording", "d")
    said = ended(process, 3)
    assert "broken on purpose" in said and "3 of 4 jobs done, 1 failed" in said
    assert said.count("The notebook is kept") == 1
    assert sorted(p.parts[-2] for p in project.committed()) == [*"aaabbbcddd"]
    assert {who: len(begun(project, who)) for who in "abcd"} == {"a": 2, "b": 2, "c": 0, "d": 2}
    assert len([p for p in project.failed() if p.parent.name == "c"]) == 1  # not tried twice


def test_what_a_cluster_needs_is_named(project, monkeypatch):
    path = project.root / "s.yml"
    said, _ = subprocess.Popen(
        [sys.executable, "-m", "nblib", "sweep", str(path), "--profile", "nowhere"],
        stderr=subprocess.PIPE,
        text=True,
    ).communicate()[::-1]
    assert "--profile nowhere: there are longleaf, private." in said
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    with pytest.raises(MissingInput, match=r"no Slurm .* on this machine"):
        sweep.run(path, n_jobs=1, dry=False, profile="private")


def test_jobs_hold_the_stages_of_a_recording_together(project):
    path = project.root / "s.yml"
    jobs = cluster.make_jobs(sweep.with_roads(sweep.check(sweep.read(path), path)))
    assert [(j["kind"], len(j["runs"]), j["needs"]) for j in jobs] == [("stages", 3, []), ("stages", 3, [])]  # fmt: skip
    assert json.loads(json.dumps(jobs)) == jobs
