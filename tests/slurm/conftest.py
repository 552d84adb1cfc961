"""One private Slurm for the tests of this folder; without it they skip and say why."""

import os
from pathlib import Path

import private_slurm
import pytest
from conduct import lacking

IMPATIENT = Path(__file__).with_name("impatient")


@pytest.fixture(scope="session")
def private(tmp_path_factory):
    private_slurm.clear()
    reason = private_slurm.why_not()
    if reason:
        lacking(reason)
    with private_slurm.running(tmp_path_factory.getbasetemp() / "slurm"):
        yield


@pytest.fixture
def slurm(private, monkeypatch):
    """That Slurm, and a Snakemake that asks often how its jobs are."""
    path = [str(IMPATIENT), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
