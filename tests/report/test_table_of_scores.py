"""The long table: a row a run and score, joined with parameters and manifests."""

import pandas as pd
import pytest
import tiny_project
from laboratory import Laboratory

from nblib.core import store
from nblib.core.errors import StorageError
from nblib.report import all_runs, published, score_file
from nblib.report.one_run import read_all

SVC = (
    "recording,model,metric,value,unit,selected,source\n"
    "000021,SVC,accuracy,45.7,percent,on test,their table\n"
    "000022,SVC,accuracy,50.0,percent,on test,their table\n"
)


@pytest.fixture
def laboratory(tmp_path, monkeypatch):
    return Laboratory(tiny_project.enter(tmp_path, monkeypatch))


def every():
    runs = read_all()
    return score_file.with_settings(all_runs.scores(runs), runs)


def test_no_run_is_an_empty_table(laboratory):
    table = every()
    assert table.empty and list(table.columns) == list(score_file.FILE)


def test_a_row_a_run_and_score_with_parameters_and_manifest(laboratory):
    folder = laboratory.run(max_epochs=3, accuracy=0.8)
    laboratory.run(seed=1, model_params={"c_values": [1.0]})
    table = every()
    assert len(table) == 4 and set(table["metric"]) == {"accuracy", "top5"}
    row = table[(table["key"] == folder.name) & (table["metric"] == "accuracy")].iloc[0]
    assert (row["source"], row["value"], row["n"], row["unit"]) == ("run", 0.8, 24, "fraction")
    assert (row["param_max_epochs"], row["param_model"], row["setting_gap_s"]) == (
        3,
        "logistic",
        1.0,
    )
    assert row["setting_isi_violations_max"] == float("inf")
    manifest = store.read_manifest(folder)
    for name in score_file.MANIFEST_OF_FILE:
        assert row[name] == manifest[name] or manifest[name] is None, name
    assert row["selected"] == "on validation rows" and row["provenance"] == str(folder)
    other = table[table["seed"] == 1].iloc[0]
    assert other["param_model_params"] == '{"c_values": [1.0]}' and pd.isna(
        other["param_max_epochs"]
    )


def test_files_hold_the_same_table_with_types(laboratory, tmp_path):
    laboratory.run(max_epochs=3)
    laboratory.run(seed=1)
    table = every()
    score_file.write(table, str(tmp_path / "a.csv"), str(tmp_path / "a.parquet"))
    back = pd.read_parquet(tmp_path / "a.parquet")
    assert list(back.columns) == list(table.columns) and back["param_max_epochs"].dtype == "Int64"
    assert back["param_shuffle_labels"].dtype == "boolean" and back["value"].dtype == float
    text = pd.read_csv(tmp_path / "a.csv", dtype={"recording": str})
    assert text["recording"].tolist() == ["000021"] * 4
    with pytest.raises(StorageError, match="cannot be written"):
        score_file.write(table, str(tmp_path / "nowhere" / "a.csv"))


def test_flags_stand_in_every_row_and_a_corrupt_run_has_no_score(laboratory):
    old, new = laboratory.run(), laboratory.run(code="newer")
    (new / "metrics.json").write_text("{}")
    table = every()
    assert table[table["key"] == new.name][["flag", "value"]].isna().sum().tolist() == [0, 1]
    assert table[table["key"] == new.name]["flag"].tolist() == ["corrupt"]
    assert table[table["key"] == old.name]["flag"].tolist() == ["", ""]


def test_published_numbers_stand_beside_the_same_recording_and_are_never_compared(laboratory, tmp_path):  # fmt: skip
    path = tmp_path / "svc.csv"
    path.write_text(SVC)
    published.take_in([path])
    assert every().empty  # no run of ours: nothing stands alone
    laboratory.run()
    table = every()
    (row,) = table[table["source"] == "published"].to_dict("records")
    assert (row["recording"], row["model"], row["value"]) == ("000021", "SVC", 0.457)
    assert row["provenance"] == "their table; svc.csv, row 2"
    assert set(all_runs.scan()["model"]) == set(all_runs.comparable(all_runs.scan())["model"]) == {"logistic"}  # fmt: skip
    score_file.write(table, None, str(tmp_path / "t.parquet"))
