"""A lab folder: what belongs together, and what does not line up."""

import pytest

from nblib.core.errors import MissingInput
from nblib.data import inventory
from nblib.simulate import allen


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_files_are_matched_by_session(tmp_path):
    touch(
        tmp_path,
        "session_1/session_1.nwb",
        "session_2/session_2.nwb",
        "spike_trains_with_stimulus_session_1_5.pkl",
        "spike_trains_with_stimulus_session_3_10.pkl",
    )
    found = inventory.inventory(tmp_path)
    assert found.table.index.tolist() == ["1", "2", "3"]
    assert found.table.loc["1", "nwb"] == 1 and found.table.loc["3", "pickles"] == "10"
    told = "\n".join(found.problems)
    for words in (("2", "no pickle"), ("3", "no NWB")):
        assert any(all(w in p for w in words) for p in found.problems), f"{words} not in\n{told}"


def test_a_folder_where_everything_lines_up(tmp_path):
    allen.simulate(tmp_path / "session_719865191.nwb", n_units=3, n_scenes=2, n_repeats=2)
    touch(tmp_path, "spike_trains_with_stimulus_session_719865191_5.pkl")
    (tmp_path / "session_719865191_truth.h5").unlink()
    assert inventory.inventory(tmp_path).problems == []
    with pytest.raises(MissingInput):
        inventory.inventory(tmp_path / "none")


def told(folder):
    return "\n".join(inventory.inventory(folder).problems)


def test_the_same_file_in_two_places_and_strangers(tmp_path):
    name = "spike_trains_with_stimulus_session_7_5.pkl"
    touch(tmp_path, f"output/{name}", f"old/{name}", "filtered_normalized_pickle_7_5.pkl")
    touch(tmp_path, "spike_trains_with_stimulus_session_7.pkl")
    problems = told(tmp_path)
    assert f"{name} lies in 2 places: old/{name}, output/{name}" in problems
    assert "filtered_normalized_pickle_7_5.pkl" in problems
    assert "session_7.pkl: the name does not tell the bins" in problems
    assert inventory.inventory(tmp_path).table.loc["7", "pickles"] == "5, ?"


def test_files_that_do_not_open_or_are_of_another_session(tmp_path):
    touch(tmp_path, "session_5.nwb")
    path = allen.simulate(tmp_path / "session_6.nwb", n_units=3, n_scenes=2, n_repeats=2)
    problems = told(tmp_path)
    assert "session_5.nwb: this is not an HDF5 file" in problems
    assert f"{path.name}: expected session 6, the file is of session 7" in problems


def test_no_pickle_is_opened(tmp_path, monkeypatch):
    import pickle

    name = tmp_path / "spike_trains_with_stimulus_session_7_5.pkl"
    name.write_bytes(pickle.dumps(print))
    name.chmod(0o000)
    monkeypatch.setattr(pickle, "load", None)
    assert "no NWB" in str(inventory.inventory(tmp_path))
