"""Published numbers: units judged, contradictions told, and never beside another recording."""

import pandas as pd
import pytest

from nblib.core.errors import BadInput, MissingInput
from nblib.report import published, summary

SVC = "session_number,test_acc,bins,kernel,model\n754312389,0.924,1,linear,SVC\n742951821,45.71,1,linear,SVC\n"
MVLR = "session_number,test_acc,bins,model\n744228101,0.335,1,SVC\n797828357,0.379,1,SVC\n"
LSTM = (
    "mouse_number,bins,model,test_acc,train_acc,epochs,hidden_dim\n"
    "715093703,5,LSTM,97.48,100,15,1000\n715093703,5,LSTM,96.81,100.0,15,500\n"
)
DETAILS = (
    "session_id,epochs,train_acc,test_acc\n715093703,15,92.69,90.1\n719161530,15,1.12,85.8\n"
    "721123822,15,1.37,82.6\n"
)
TIDY = "recording,model,metric,value,unit,selected,source\na,X,accuracy,50,percent,once,a paper\n"


def file(folder, name, text):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


# --- units ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], ["fraction"] * 3),
        ([90.0, 100.0, 2.5], ["percent"] * 3),
        ([92.69, 1.12, 1.37], ["percent", "unknown", "unknown"]),
        ([45.7, 0.92], ["percent", "unknown"]),  # 0.92: a fraction, or a percentage at chance
        ([1.12, 0.5], ["unknown", "unknown"]),
    ],
)
def test_the_unit_of_a_value_is_judged_by_its_column(values, expected):
    assert published.units(values) == expected


def test_a_value_whose_unit_cannot_be_told_is_kept_flagged_and_not_drawn(tmp_path):
    table = published.read(file(tmp_path, "session_details.csv", DETAILS))
    train = table[table["metric"] == "train_accuracy"].set_index("recording")
    assert train["value"].to_dict() == {"715093703": 0.9269, "719161530": 1.12, "721123822": 1.37}
    assert train["flag"].tolist() == ["", "unit unknown", "unit unknown"]
    assert train["unit"].tolist() == ["fraction", "unknown", "unknown"]
    sure = published.sure(table)
    assert sure["metric"].unique().tolist() == ["accuracy"] and len(sure) == 3
    assert table["variant"].unique().tolist() == ["epochs=15"]


def test_percentages_and_fractions_mixed_in_one_column(tmp_path):
    table = published.read(file(tmp_path, "3_shot_SVC_per_mouse.csv", SVC)).set_index("recording")
    assert table["value"].to_dict() == pytest.approx({"754312389": 0.924, "742951821": 0.4571})
    assert table["flag"].to_dict() == {"754312389": "unit unknown", "742951821": ""}
    assert published.sure(table)["value"].tolist() == pytest.approx([0.4571])


# --- where a number comes from -------------------------------------------------------------------


def test_the_name_of_the_file_names_the_model_and_a_contradiction_is_told(tmp_path):
    table = published.read(file(tmp_path, "3_shot_MVLR_per_mouse.csv", MVLR))
    assert set(table["model"]) == {"MVLR"} and table["value"].tolist() == [0.335, 0.379]
    assert set(table["note"]) == {"its model column says 'SVC'; the file's name is taken"}
    assert table["provenance"].tolist() == [f"3_shot_MVLR_per_mouse.csv, row {n}" for n in (2, 3)]
    agreeing = published.read(file(tmp_path, "3_shot_PC-MVLR_per_mouse.csv", MVLR.replace("SVC", "PCMVLR")))  # fmt: skip
    assert set(agreeing["note"]) == {""}


def test_how_a_number_was_selected_is_told(tmp_path):
    lstm = published.read(file(tmp_path, "3_shot_LSTM_per_mouse.csv", LSTM))
    assert set(lstm["selected"]) == {"best epoch on the test rows"}
    assert lstm["variant"].tolist()[0] == "bins=5, epochs=15, hidden_dim=1000"
    mvlr = published.read(file(tmp_path, "3_shot_MVLR_per_mouse.csv", MVLR))
    assert set(mvlr["selected"]) == {"as reported, no validation"}


def test_an_empty_cell_is_no_value_and_is_told(tmp_path):
    table = published.read(file(tmp_path, "session_details.csv", DETAILS.replace("1.12", "")))
    row = table[table["flag"] == "no value"].iloc[0]
    assert row["recording"] == "719161530" and pd.isna(row["value"]) and row["unit"] == ""
    assert "no value: 719161530 train_accuracy" in published.describe("x", table)
    assert len(published.sure(table)) == 3


def test_a_row_that_stands_twice_is_flagged(tmp_path):
    again = LSTM + "715093703,5,LSTM,50.0,100,15,500\n"
    table = published.read(file(tmp_path, "3_shot_LSTM_per_mouse.csv", again))
    flagged = table[table["flag"] != ""]
    assert set(flagged["flag"]) == {"repeats row 3"} and len(flagged) == 2
    assert len(published.sure(table)) == 2


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("3_shot_SVC_per_mouse.csv", SVC.replace("45.71", "45,71"), "row 3: 6 cells, the header has 5"),
        ("3_shot_SVC_per_mouse.csv", SVC.replace("45.71", "high"), "row 3, column 'test_acc': 'high' is no number"),
        ("3_shot_SVC_per_mouse.csv", SVC.replace("45.71", "145.7"), "row 3, column 'test_acc': '145.7' is neither"),
        ("3_shot_SVC_per_mouse.csv", SVC.replace("45.71", "nan"), "'nan' is neither"),
        ("3_shot_SVC_per_mouse.csv", SVC.replace("742951821", "a b"), "row 3, column 'session_number': 'a b'"),
        ("3_shot_SVC_per_mouse.csv", SVC.replace("session_number", "who"), "no column of sessions"),
        ("3_shot_SVC_per_mouse.csv", SVC.replace("test_acc", "score"), "no column of scores"),
        ("3_shot_SVC_per_mouse.csv", SVC.replace("kernel", "bins"), "column 'bins' stands twice"),
        ("3_shot_SVC_per_mouse.csv", "session_number,test_acc\n", "at least one row"),
        ("mine.csv", TIDY.replace("selected", "chosen"), "column 'selected' is missing"),
        ("mine.csv", TIDY.replace("percent", "%"), "row 2, column 'unit': '%'"),
        ("mine.csv", TIDY.replace("percent", "fraction"), "'50' is no fraction"),
        ("mine.csv", TIDY.replace("a paper", ""), "row 2, column 'source': empty"),
    ],
)  # fmt: skip
def test_a_faulty_file_is_refused_by_row_column_and_value(tmp_path, name, text, said):
    path = file(tmp_path, name, text)
    with pytest.raises(BadInput, match=f"{name}.*") as error:
        published.read(path)
    assert said in str(error.value)


def test_no_file_and_no_text(tmp_path):
    with pytest.raises(MissingInput, match="no such file"):
        published.read(tmp_path / "3_shot_SVC_per_mouse.csv")
    (tmp_path / "session_details.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="not readable as a table"):
        published.read(tmp_path / "session_details.csv")


# --- the data root -------------------------------------------------------------------------------


def test_files_are_taken_in_whole_or_not_at_all(home, tmp_path):
    good = file(tmp_path, "3_shot_SVC_per_mouse.csv", SVC)
    bad = file(tmp_path, "session_details.csv", DETAILS.replace("1.12", "none"))
    with pytest.raises(BadInput, match=r"session_details\.csv, row 3"):
        published.take_in([good, bad])
    assert not published.folder().exists()
    told = published.take_in([good])
    assert "2 numbers of 2 recordings (SVC)" in told
    assert "unit unknown: 754312389 accuracy 0.924. Kept as read" in told
    assert published.take_in([good]) == told  # the same again changes nothing
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(BadInput, match="holds other numbers under that name"):
        published.take_in([file(other, good.name, SVC.replace("45.71", "46"))])


def test_published_numbers_stand_beside_their_own_recording_alone(home, tmp_path):
    published.take_in([file(tmp_path, "3_shot_SVC_per_mouse.csv", SVC)])
    assert published.beside(["demo"]).empty
    found = published.beside(["742951821"])
    assert set(found["recording"]) == {"742951821"} and set(found["model"]) == {"SVC", "LSTM"}


def test_a_report_rests_on_the_published_numbers_beside_its_runs(home, tmp_path):
    runs = pd.DataFrame({"key": ["b", "a"], "recording": ["x", "y"]})
    assert summary.inputs(runs) == ["a", "b"]  # the project's own are of other recordings
    published.take_in([file(tmp_path, "mine.csv", TIDY.replace("\na,", "\nx,"))])
    (one,) = summary.inputs(runs)[2:]
    published_file = published.folder() / "mine.csv"
    published_file.write_text(published_file.read_text().replace(",50,", ",51,"))
    (other,) = summary.inputs(runs)[2:]
    assert one != other and len(one) == 16


def test_the_numbers_of_the_project_are_sound():
    table = published.table()
    lstm = published.sure(table)
    assert len(lstm) == 32 and lstm["recording"].is_unique and (table["flag"] == "").all()
    assert lstm["value"].mean() == pytest.approx(0.8159, abs=5e-5)
    assert lstm.set_index("recording")["value"]["754312389"] == pytest.approx(0.0118)
    assert lstm["selected"].str.contains("on the test rows").all()
    assert isinstance(table, pd.DataFrame) and list(table.columns) == list(published.COLUMNS)
