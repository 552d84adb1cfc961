"""Plain files of sorters and labs: what is wrong with one is said with its name and field."""

import io
import zipfile

import numpy as np
import pytest

from nblib.core.errors import BadInput
from nblib.data.files import plain

HEAD = "start_time,stop_time,go_time,side\n"


def test_arrays_are_rows_of_numbers(tmp_path):
    path = tmp_path / "x.npy"
    for values in (np.arange(5), np.arange(5)[:, None], np.arange(5.0), np.empty(0)):
        np.save(path, values)
        assert plain.read_array(path).tolist() == values.ravel().tolist()
    for values, says in [
        (np.ones((3, 2)), r"float64 of shape \(3, 2\)"),
        (np.array(["a"]), "expected a row of numbers"),
        (np.array([{}], object), "not readable as an array"),  # would need a pickle
    ]:
        np.save(path, values, allow_pickle=True)  # as a stranger may; reading refuses it
        with pytest.raises(BadInput, match=says) as error:
            plain.read_array(path)
        assert str(path) in str(error.value)
    path.write_bytes(b"")
    with pytest.raises(BadInput, match=r"x\.npy: not readable"):
        plain.read_array(path)


def test_trials_come_in_seconds(tmp_path):
    path = tmp_path / "trials.csv"
    path.write_text(HEAD + "1000,2000,1500,left\n3000,4000,3500,right\n")
    table = plain.read_trials(path, "ms")
    assert table["start_time"].tolist() == [1.0, 3.0] and table["go_time"].tolist() == [1.5, 3.5]
    assert plain.read_trials(path, "s")["stop_time"].tolist() == [2000, 4000]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("start_time,side\n1,2\n", "no column 'stop_time'; its columns are start_time, side"),
        ("start_time,stop_time\n1,2\nsoon,2\n", "column 'start_time' holds 'soon' in row 1"),
        ("", "not readable as a table"),
        ('a,b\n1,"2\n', "not readable as a table|no column"),
    ],
)
def test_what_is_wrong_with_trials_is_named(tmp_path, text, says):
    path = tmp_path / "trials.csv"
    path.write_text(text)
    with pytest.raises(BadInput, match=says) as error:
        plain.read_trials(path, "s")
    assert str(path) in str(error.value)


def test_cells_stay_as_they_are_written(tmp_path):
    path = tmp_path / "trials.csv"
    path.write_text("start_time,stop_time,code\n1,,01\n2,3,1\n3,4,NA\n")
    table = plain.read_trials(path, "s")
    assert table["code"].tolist() == ["01", "1", "NA"]
    np.testing.assert_array_equal(table["stop_time"], [np.nan, 3, 4])


def header(shape, descr="<f8"):
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        out, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    return out.getvalue()


@pytest.mark.parametrize("shape", [(10**12,), (2**62, 4)])
@pytest.mark.parametrize("packed", [False, True])
def test_an_array_that_claims_more_than_there_is(tmp_path, shape, packed):
    path = tmp_path / ("a.npz" if packed else "a.npy")
    if packed:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("a.npy", header(shape) + bytes(64))
    else:
        path.write_bytes(header(shape) + bytes(64))
    with pytest.raises(BadInput, match=r"a.np[yz]: .*it says it holds \d+ bytes, but 64 are there"):
        (plain.read_arrays if packed else plain.read_array)(path)


def test_arrays_that_are_damaged_or_could_run(tmp_path):
    sound = tmp_path / "sound.npz"
    np.savez_compressed(sound, a=np.zeros((100, 1000)), b=np.array(["x", "é"]))
    held = plain.read_arrays(sound)
    assert held["a"].shape == (100, 1000) and held["b"].tolist() == ["x", "é"]
    objects, cut = tmp_path / "objects.npz", tmp_path / "cut.npz"
    np.savez(objects, a=np.array([{}], object))
    cut.write_bytes(sound.read_bytes()[:-40])
    flipped = bytearray(sound.read_bytes())
    flipped[60] ^= 255
    (tmp_path / "flipped.npz").write_bytes(flipped)
    for name in ("objects", "cut", "flipped"):
        with pytest.raises(BadInput, match=f"{name}.npz: not readable as an array"):
            plain.read_arrays(tmp_path / f"{name}.npz")


def test_spikes_become_unit_after_unit_in_the_order_of_the_file():
    times = np.array([0.5, 0.1, 0.2, 0.3, 0.4])
    owner = np.array([9, 4, 9, 7, 4])
    spikes, index = plain.by_unit(times, owner, np.array([9, 5, 4]), "x")
    assert index.tolist() == [0, 2, 2, 4]
    assert spikes.tolist() == [0.5, 0.2, 0.1, 0.4]  # 7 is no unit; 01 refuses times that fall
    for told in [(times[:4], owner, [9]), (times, owner, []), (times, owner, [9, 9])]:
        with pytest.raises(BadInput, match=r"^x[: ]"):
            plain.by_unit(*told, "x")


@pytest.mark.parametrize(
    "text",
    [
        "start_time,stop_time,label\n1,5,2,0,a\n3,5,4,0,b\n",
        "start_time,stop_time,label\n1.5,2.0,3,\n3.5,4.0,5,\n",
        "start_time;stop_time;label\n1,0;2,0;a\n",
        "# exported\nstart_time,stop_time,label\n1.0,2.0,a\n",
    ],
)
def test_rows_longer_than_the_line_of_names_are_refused(tmp_path, text):
    """They would be read shifted: a time from the column beside it, labels gone."""
    path = tmp_path / "trials.csv"
    path.write_text(text)
    with pytest.raises(
        BadInput, match=r"trials\.csv: rows hold \d more fields than the first line"
    ):
        plain.read_trials(path, "s")


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    path = tmp_path / "trials.csv"
    path.write_text("\ufeffstart_time,stop_time,label\n1.0,2.0,01\n", encoding="utf-8")
    expected = {"start_time": [1.0], "stop_time": [2.0], "label": ["01"]}
    assert plain.read_trials(path, "s").to_dict("list") == expected
