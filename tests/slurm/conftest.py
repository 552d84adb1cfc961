"""One private Slurm for the tests of this folder; without it they skip and say why."""

import private_slurm
import pytest


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    reason = private_slurm.why_not()
    if reason:
        pytest.skip(reason)
    with private_slurm.running(tmp_path_factory.getbasetemp() / "slurm"):
        yield
