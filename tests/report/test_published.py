"""Published numbers: read with unit and source, refused by row, never beside another recording."""

import pandas as pd
import pytest

from nblib.core.errors import BadInput, MissingInput
from nblib.report import published, score_file, summary
from nblib.report.plots import films

HEADER = "recording,model,metric,value,unit,selected,source"
TIDY = f"{HEADER}\na,X,accuracy,50,percent,once,a paper\n"
MIXED = (
    f"{HEADER},bins,note\n"
    "742951821,SVC,accuracy,45.71,percent,best epoch,their table,1,\n"
    "754312389,SVC,accuracy,0.924,unknown,best epoch,their table,1,no unit beside it\n"
    "744228101,SVC,accuracy,0.335,fraction,best epoch,their table,,\n"
)


def file(folder, name, text):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_percentages_become_fractions_and_what_has_no_unit_is_kept_flagged_and_not_drawn(tmp_path):
    table = published.read(file(tmp_path, "svc.csv", MIXED)).set_index("recording")
    assert table["value"].to_dict() == {"742951821": 45.71 / 100, "754312389": 0.924, "744228101": 0.335}  # fmt: skip
    assert table["flag"].tolist() == ["", "unit unknown", ""]
    assert table["unit"].tolist() == ["fraction", "unknown", "fraction"]
    assert published.sure(table).index.tolist() == ["742951821", "744228101"]
    assert published.sure(table, "top5").empty
    assert table["variant"].tolist() == ["bins=1", "bins=1", ""]
    assert set(table["selected"]) == {"best epoch"}
    assert table["provenance"].tolist() == [f"their table; svc.csv, row {n}" for n in (2, 3, 4)]
    assert table["note"].tolist() == ["", "no unit beside it", ""]


def test_a_row_that_stands_twice_is_flagged(tmp_path):
    again = "\n\n742951821,SVC,accuracy,50,percent,last epoch,their table,1,\n"
    table = published.read(file(tmp_path, "svc.csv", MIXED + again))
    assert table["flag"].tolist()[3] == "repeats an earlier row" and len(table) == 4
    assert table["provenance"].iloc[3].endswith("row 7")  # lines that hold nothing count
    assert len(published.sure(table)) == 2


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("50", "4,5,6", "not readable as a table"),
        ("50", "high", "row 2, column 'value': 'high' is no number"),
        ("50", "150", "row 2, column 'value': '150' is no value of that unit"),
        ("50", "nan", "'nan' is no number"),
        ("a,X", "a b,X", "row 2, column 'recording': 'a b' is no recording id"),
        ("model", "metric", "column 'metric' stands twice"),
        ("selected", "chosen", "column 'selected' is missing"),
        ("percent", "%", "row 2, column 'unit': '%' is no unit"),
        ("percent", "fraction", "'50' is no value of that unit"),
        (",a paper", ",", "row 2, column 'source': '' is empty"),
        (",once,a paper", "", "row 2, column 'selected': '' is empty"),
        ("a,X,accuracy,50,percent,once,a paper\n", "", "at least one row"),
    ],
)
def test_a_faulty_file_is_refused_by_row_column_and_value(tmp_path, right, wrong, said):
    path = file(tmp_path, "mine.csv", TIDY.replace(right, wrong))
    with pytest.raises(BadInput, match=r"mine\.csv") as error:
        published.read(path)
    assert said in str(error.value)


def test_no_file_and_no_text(tmp_path):
    with pytest.raises(MissingInput, match="no such file"):
        published.read(tmp_path / "mine.csv")
    (tmp_path / "mine.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="not readable as a table"):
        published.read(tmp_path / "mine.csv")


# --- the data root -------------------------------------------------------------------------------


def test_files_are_taken_in_whole_or_not_at_all(home, tmp_path):
    good = file(tmp_path, "svc.csv", MIXED)
    bad = file(tmp_path, "mine.csv", TIDY.replace("50", "none"))
    with pytest.raises(BadInput, match=r"mine\.csv, row 2"):
        published.take_in([good, bad])
    assert not published.folder().exists()
    told = published.take_in([good])
    assert "3 numbers of 3 recordings (SVC)" in told
    assert "unit unknown: 754312389 accuracy 0.924. Kept as read" in told
    assert published.take_in([good]) == told  # the same again changes nothing
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(BadInput, match="holds other numbers under that name"):
        published.take_in([file(other, good.name, MIXED.replace("45.71", "46"))])


def test_published_numbers_stand_beside_their_own_recording_alone(home, tmp_path):
    published.take_in([file(tmp_path, "svc.csv", MIXED)])
    assert published.beside(["demo"]).empty
    found = published.beside(["742951821"])
    assert set(found["recording"]) == {"742951821"} and set(found["model"]) == {"SVC", "LSTM"}


CURVE = {0: 0.987, 4: 0.584, 8: 0.539, 12: 0.457, 16: 0.429, 20: 0.378, 24: 0.349, 28: 0.340, 32: 0.309, 36: 0.249, 40: 0.331, 44: 0.259}  # fmt: skip


def test_the_published_film_stands_beside_ours_and_is_never_mixed_with_it():
    """In the file of scores as rows of their own; in the picture as crosses, our curve as it is."""
    ours = pd.DataFrame({
        "folder": "run", "source": "run", "recording": "SUMMER", "model": ["lstm_20", "clock"],
        "metric": "kappa", "value": [0.2, 0.1], "selected": "on validation rows",
    })  # fmt: skip
    both = score_file.with_settings(ours, [])
    mine, others = (both[both["source"] == source] for source in ("run", "published"))
    assert len(mine) + len(others) == len(both) and mine["value"].tolist() == [0.2, 0.1]
    summer = others[
        (others["metric"] == "kappa") & others["variant"].str.startswith("label=Summer,")
    ]
    told = dict(
        zip(summer["variant"].str.rpartition("=")[2].astype(int), summer["value"], strict=True)
    )
    assert told == CURVE and others["provenance"].str.startswith("eLife RP 106758").all()
    table = others[others["variant"].str.endswith("buffer_s=32")]
    assert (table.groupby("metric").size() == 8).all() and set(table["metric"]) == {"kappa", "f1", "pr_auc", "auroc"}  # fmt: skip
    leak = pd.DataFrame({"buffer_s": [0, 32], "model": "lstm_20", "value": [0.9, 0.1], "ci_low": 0.0, "ci_high": 1.0})  # fmt: skip
    lines = {line.get_label(): line for line in films.leak_curve(leak).axes[0].lines}
    assert list(lines) == ["_nolegend_", "chance", "published: LSTM, Summer"]
    of_ours, _, crosses = lines.values()
    assert list(of_ours.get_xdata()) == [0, 32] and list(of_ours.get_ydata()) == [0.9, 0.1]
    assert crosses.get_marker() == "x" and crosses.get_linestyle() == "None"
    assert dict(zip(crosses.get_xdata(), crosses.get_ydata(), strict=True)) == CURVE


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
