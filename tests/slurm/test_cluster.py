"""A sweep on a real Slurm: the same artifacts as at home, and what goes wrong there."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import tiny_project

from nblib import cluster, store, sweep

ROOT = Path(__file__).resolve().parents[2]
PROFILE = """\
executor: slurm
jobs: 8
keep-going: true
retries: 1
latency-wait: 20
slurm-status-command: squeue
slurm-no-account: true
slurm-init-seconds-before-status-checks: 1
seconds-between-status-checks: 1
default-resources: {slurm_partition: general, runtime: 5, mem_mb: 600, cpus_per_task: 1}
"""
SWEEP = """\
sweep: both
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
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options,
    )  # fmt: skip


def test_the_same_artifacts_as_at_home(project):
    process = drive(project)
    said, _ = process.communicate(timeout=180)
    assert process.returncode == 0, said
    assert "2 jobs; logs in" in said and "2 of 2 jobs done, 0 failed" in said  # 01-03 share a job
    there = sorted(p.parts[-3:] for p in project.committed())
    assert len(there) == 6
    assert all((p / "executed.ipynb").is_file() for p in project.committed())
    path = project.root / "s.yml"
    assert cluster.queue(path) == []
    runs = sweep.with_roads(sweep.check(sweep.read(path), path))
    from nblib import runner

    assert sorted((j.stage, j.recording, j.key) for j in (runner.plan(*r) for r in runs)) == there
    again = drive(project)
    said, _ = again.communicate(timeout=60)
    assert again.returncode == 0 and "jobs; logs in" not in said  # nothing to do: nothing submitted
