"""How the tests are run: what may be missing on a machine, which tests share a worker, in which order."""

from __future__ import annotations

import os
from collections import Counter

import pytest

# Begun first, the tests of each line by one worker: they share something of which a machine has one,
# or that is dear to make, such as a process to fork from that has imported torch (see `preloaded`).
CHAINS = (
    ("/notebooks/test_notebooks_run.py",),
    ("/run/", "/faults/", "/test_commands.py"),
    ("/slurm/",),
)
# Long files come next, so that no worker is left alone with one; then those of many tests.
LONG = (
    "/test_guides.py", "/test_multimodal.py", "/test_spikes.py", "/test_decoders.py", "/test_label_budget.py",
    "/test_masked_network.py", "/test_film_decoding.py", "/test_reach.py", "/test_setup.py", "/test_plots.py",
)  # fmt: skip


def lacking(reason: str) -> None:
    """Skip this test, or fail it where NBLIB_NO_SKIP=1 says that nothing may be missing here."""
    if os.environ.get("NBLIB_NO_SKIP") == "1":
        pytest.fail(f"NBLIB_NO_SKIP=1, and this test would be skipped: {reason}", pytrace=False)
    pytest.skip(reason)


def scope(nodeid: str) -> str:
    """What a test must share a worker with, others of the same scope: its chain, or its file."""
    for chain in CHAINS:
        if any(part in f"/{nodeid}" for part in chain):
            return chain[0]
    return nodeid.partition("::")[0]


def in_order(nodeids: list[str]) -> list[str]:
    """The tests as they are begun: chains, long files, and the others, those of most tests first."""
    first = [chain[0] for chain in CHAINS]
    n_tests = Counter(map(scope, nodeids))

    def place(nodeid: str) -> tuple[int, int]:
        name = scope(nodeid)
        known = [i for i, part in enumerate((*first, *LONG)) if part in f"/{name}"]
        return (known or [len(first) + len(LONG)])[0], -n_tests[name]

    return sorted(nodeids, key=place)
