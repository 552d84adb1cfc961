"""The session report counts what is there and says what is odd."""

import numpy as np
import pandas as pd
import pytest
from handmade import recording

from nblib.errors import BadInput
from nblib.inspection import session_report


def trains(n_units=3, rate=8.0, seconds=60, seed=0):
    rng = np.random.default_rng(seed)
    return [np.sort(rng.uniform(0, seconds, int(rate * seconds))) for _ in range(n_units)]


def session(spikes=None, **more):
    start = np.arange(1, 56) * 1.0
    labels = np.arange(55) % 5
    spikes = trains() if spikes is None else spikes
    return recording(spikes, labels, start, areas=["VISp", "CA1", "VISp"][: len(spikes)], **more)


def test_the_tables_count():
    report = session_report(session(invalid=[(10.1, 12.05)]))
    units = report.tables["units"].set_index("area")
    assert units.loc["VISp", "units"] == 2 and units.loc["CA1", "units"] == 1
    assert units["spikes"].sum() == 1440
    assert report.tables["presentations"].n.tolist() == [11] * 5
    assert len(report.tables["overlaps"]) == 3  # those at 10, 11 and 12 s
    assert report.tables["rate"]["rate_hz"].mean() == pytest.approx(8, rel=0.1)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda t: np.r_[t[:5], np.nan, t[6:]], "NaN"),
        (lambda t: np.r_[t[5:], t[:5]], "sorted"),
        (lambda t: np.r_[t[:5], np.inf], "NaN|infinite"),
    ],
)
def test_broken_spikes_name_the_unit(spoil, says):
    spikes = trains()
    spikes[1] = spoil(spikes[1])
    with pytest.raises(BadInput, match=says) as error:
        session_report(session(spikes))
    assert "101" in str(error.value)  # the second unit's id


def test_milliseconds_are_refused():
    with pytest.raises(BadInput, match="milliseconds"):
        session_report(session([t * 1000 for t in trains()]))


def test_odd_things_are_told_and_sound_ones_are_not():
    assert session_report(session()).odd == []
    spikes = trains()
    spikes[2] = np.empty(0)
    spikes[0][7] = spikes[0][8]
    told = " ".join(session_report(session(spikes)).odd)
    assert "102" in told and "100" in told


def test_overlapping_and_long_presentations_are_odd():
    made = session()
    table = made.intervals["natural_scenes_presentations"]
    table.loc[4, "stop_time"] = table.loc[4, "start_time"] + 1.5
    odd = " ".join(session_report(made).odd)
    assert "5 %" in odd and "before an earlier one has ended" in odd


def test_nan_presentations_are_refused():
    made = session()
    made.intervals["natural_scenes_presentations"].loc[9, "start_time"] = np.nan
    with pytest.raises(BadInput, match="row 9"):
        session_report(made)


def test_the_report_reads_as_text():
    text = str(session_report(session()))
    assert "units" in text and "nothing odd" in text
    assert isinstance(session_report(session()).tables["summary"], pd.DataFrame)
