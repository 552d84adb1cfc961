"""A lab folder: what belongs together, and what does not line up."""

import pandas as pd
import pytest

from nblib import inventory
from nblib.errors import MissingInput
from nblib.sources import simulate


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
    pd.DataFrame({"session_id": [1, 9], "train_acc": [0.93, 1.12]}).to_csv(
        tmp_path / "session_details.csv"
    )
    pd.DataFrame({"id": [1, 2]}).to_csv(tmp_path / "sessions.csv", index=False)
    found = inventory.inventory(tmp_path)
    assert found.table.index.tolist() == ["1", "2", "3", "9"]
    assert found.table.loc["1", "nwb"] == 1 and found.table.loc["3", "pickles"] == "10"
    told = "\n".join(found.problems)
    for words in (("2", "no pickle"), ("3", "no NWB"), ("9",), ("1.12",)):
        assert any(all(w in p for w in words) for p in found.problems), f"{words} not in\n{told}"


def test_a_folder_where_everything_lines_up(tmp_path):
    simulate.simulate(tmp_path / "session_719865191.nwb", n_units=3, n_scenes=2, n_repeats=2)
    touch(tmp_path, "spike_trains_with_stimulus_session_719865191_5.pkl")
    (tmp_path / "session_719865191_truth.h5").unlink()
    assert inventory.inventory(tmp_path).problems == []
    with pytest.raises(MissingInput):
        inventory.inventory(tmp_path / "none")
