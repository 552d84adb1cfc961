"""Plain files of sorters and labs: what is wrong with one is said with its name and field."""

import numpy as np
import pytest

from nblib.errors import BadInput
from nblib.sources import plainfiles

HEAD = "start_time,stop_time,go_time,side\n"


def test_arrays_are_rows_of_numbers(tmp_path):
    path = tmp_path / "x.npy"
    for values in (np.arange(5), np.arange(5)[:, None], np.arange(5.0), np.empty(0)):
        np.save(path, values)
        assert plainfiles.read_array(path).tolist() == values.ravel().tolist()
    for values, says in [
        (np.ones((3, 2)), r"float64 of shape \(3, 2\)"),
        (np.array(["a"]), "expected a row of numbers"),
        (np.array([{}], object), "not readable as an array"),  # would need a pickle
    ]:
        np.save(path, values, allow_pickle=True)
        with pytest.raises(BadInput, match=says) as error:
            plainfiles.read_array(path)
        assert str(path) in str(error.value)
    path.write_bytes(b"")
    with pytest.raises(BadInput, match=r"x\.npy: not readable"):
        plainfiles.read_array(path)


def test_trials_come_in_seconds(tmp_path):
    path = tmp_path / "trials.csv"
    path.write_text(HEAD + "1000,2000,1500,left\n3000,4000,3500,right\n")
    table = plainfiles.read_trials(path, "side", "ms")
    assert table["start_time"].tolist() == [1.0, 3.0] and table["go_time"].tolist() == [1.5, 3.5]
    assert plainfiles.read_trials(path, "side", "s")["stop_time"].tolist() == [2000, 4000]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("start_time,stop_time\n1,2\n", "no column 'side'; its columns are start_time, stop_time"),
        ("start_time,stop_time,side\nsoon,2,left\n", "column 'start_time' holds text"),
        (HEAD, "no rows"),
        (HEAD + "2,1,1,left\n", "negative length in row 0"),
        (HEAD + "2,,1,left\n", "no finite stop_time"),
        ("", "not readable as a table"),
        ('a,b\n1,"2\n', "not readable as a table|no column"),
    ],
)
def test_what_is_wrong_with_trials_is_named(tmp_path, text, says):
    path = tmp_path / "trials.csv"
    path.write_text(text)
    with pytest.raises(BadInput, match=says) as error:
        plainfiles.read_trials(path, "side", "s")
    assert str(path) in str(error.value)


def test_spikes_in_order_of_time_become_unit_after_unit():
    times = np.array([0.5, 0.1, 0.2, 0.3, 0.4])
    owner = np.array([9, 4, 9, 7, 4])
    spikes, index = plainfiles.by_unit(times, owner, np.array([9, 5, 4]), "x")
    assert index.tolist() == [0, 2, 2, 4]
    assert spikes.read(0, 4).tolist() == [0.2, 0.5, 0.1, 0.4]  # 7 is no unit that was asked for
    for told in [(times[:4], owner, [9]), (times, owner, []), (times, owner, [9, 9])]:
        with pytest.raises(BadInput, match=r"^x: "):
            plainfiles.by_unit(*told, "x")
