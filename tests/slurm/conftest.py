"""One private Slurm for the tests of this folder; without it they skip and say why."""

import private_slurm
import pytest
from conduct import lacking


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    private_slurm.clear()
    reason = private_slurm.why_not()
    if reason:
        lacking(reason)
    with private_slurm.running(tmp_path_factory.getbasetemp() / "slurm"):
        yield
