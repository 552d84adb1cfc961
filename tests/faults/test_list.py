"""The list of planted faults names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

FAULTS = Path(__file__).parent / "README.md"
TEST = r"`([\w/]+\.py)::(\w+)`"
NAMED = re.findall(TEST, FAULTS.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_the_test_behind_a_fault_is_there(file, test):
    text = (FAULTS.parents[1] / file).read_text(encoding="utf-8")
    assert re.search(rf"^def {test}\(", text, re.MULTILINE), f"{file} has no {test}"


def test_every_line_names_a_test():
    lines = [x for x in FAULTS.read_text(encoding="utf-8").splitlines() if x.startswith("| ")]
    faults = [x for x in lines if x != "| fault | caught by |"]
    assert len(faults) > 40
    assert [x for x in faults if not re.search(TEST, x)] == []
