"""A rule tells or refuses in one sentence, with its figures."""

import numpy as np
import pandas as pd
import pytest

from nblib.core.errors import BadInput
from nblib.core.findings import (
    Span,
    check_array,
    check_finite,
    check_length,
    check_once,
    check_rising,
    counted,
    refuse,
    tell,
    told,
)


def test_a_sentence_has_the_figures_of_what_is_wrong():
    flags = pd.Series([True, False, True], index=["a", "b", "c"])
    assert tell(flags, "%n of %all units (%rows; %row)") == ["2 of 3 units (a, c; a)"]
    assert tell(flags.astype(object), "%rows") == tell(flags.astype("boolean"), "%rows") == ["a, c"]
    assert tell(flags.to_numpy(), "row %rows holds %value", value=[0.5, 1, 2]) == [
        "row 0, 2 holds 0.5"
    ]
    assert tell(flags.to_numpy(), "%rows", of=pd.Index([7, 8, 9])) == ["7, 9"]
    assert tell(flags, "%value", value=lambda place: Span("spikes", 0.5, 3600.0)) == [
        "spikes from 0.5 to 3,600 s"
    ]
    assert tell(np.ones(1234, bool), "%n of %all: %rows")[0].startswith("1,234 of 1,234: 0, 1,")
    assert tell(np.zeros(3, bool), "%n") == tell(False, "no") == tell([], "%n") == []
    assert tell(["a", "b"], "%n: %rows, 5 % of {braces}, %nothing, %all and %value") == [
        "2: a, b, 5 % of {braces}, %nothing, %all and %value"
    ]
    assert [counted(n, "gap") for n in (1, 2000)] == ["1 gap", "2,000 gaps"]


def test_of_several_rules_those_that_hold_are_told():
    rules = {"%n odd (%rows)": pd.Series([False, True]), "sound": False, "broken": np.True_}
    assert told(rules) == ["1 odd (1)", "broken"]


def test_what_is_broken_is_refused():
    refuse(np.zeros(3, bool), "sound")
    with pytest.raises(BadInput, match=r"^f: frame is 0\.5 in row 1\.$"):
        refuse(np.array([False, True]), "f: frame is %value in row %row.", value=np.array([0, 0.5]))


@pytest.mark.parametrize(
    ("check", "says"),
    [
        (lambda: check_array("f: x", np.zeros((3, 2)), False, "a row"), r"f: x is float64 of shape \(3, 2\); expected a row\."),
        (lambda: check_length("f: x", 1200, 3, "units"), "f: x has 1,200 entries for 3 units"),
        (lambda: check_finite("f: x", np.array([1, np.inf, np.nan])), "f: x is NaN or infinite in row 1, 2;"),
        (lambda: check_rising("f: x", np.array([1, 2, 1.5]), "sample"), r"f: x falls after sample 1 \(2 to 1\.5 s\);"),
        (lambda: check_rising("f: x", np.array([1, np.nan])), "f: x is NaN or infinite in row 1"),
        (lambda: check_once("f: id", [3, 4, 3, 4, 5]), "f: id names several units alike: 3, 4;"),
    ],
)  # fmt: skip
def test_common_faults_are_refused_alike(check, says):
    with pytest.raises(BadInput, match=says):
        check()
