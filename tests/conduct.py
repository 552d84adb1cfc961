"""How the tests are run: what may be missing on a machine, and which tests share a worker."""

from __future__ import annotations

import os

import pytest

# Tests that share something of which a machine has one, or that is dear to make: one worker runs
# them. xdist's own mark for this does nothing beside a pytest that keeps its node ids elsewhere.
TOGETHER = ("/slurm/", "/test_search.py", "/test_bench.py", "/test_film_over_seeds.py")


def lacking(reason: str) -> None:
    """Skip this test, or fail it where NBLIB_NO_SKIP=1 says that nothing may be missing here."""
    if os.environ.get("NBLIB_NO_SKIP") == "1":
        pytest.fail(f"NBLIB_NO_SKIP=1, and this test would be skipped: {reason}", pytrace=False)
    pytest.skip(reason)


def scope(nodeid: str) -> str:
    """What a test must share a worker with: others of the same scope."""
    return next((part for part in TOGETHER if part in f"/{nodeid}"), nodeid)
