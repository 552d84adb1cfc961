"""The easy task, and each decoder fitted on it once."""

from __future__ import annotations

import pytest
from easy_task import N_CLASSES, QUICK, easy, fit, small

from nblib.prepare.decoder_inputs import Samples


@pytest.fixture(scope="session")
def task() -> dict[str, Samples]:
    return {"train": easy(160, 1), "val": easy(40, 2), "test": easy(200, 3)}


@pytest.fixture(scope="session")
def fitted(task):
    """`fitted(name)` -> (decoder, history) of the easy task, fitted once a session."""
    known = {}

    def get(name: str):
        if name not in known:
            decoder = small(name)
            history = fit(decoder, task["train"], task["val"], n_classes=N_CLASSES, settings=QUICK)
            known[name] = decoder, history
        return known[name]

    return get
