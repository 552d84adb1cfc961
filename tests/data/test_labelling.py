"""Which trials count and what their labels are: nothing merged, nothing missing that counts."""

import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml
from handmade import recording

from nblib.core import params
from nblib.core.errors import BadInput, BadParameter
from nblib.core.params import BinSettings, LabelRules, SplitSettings
from nblib.data import sources
from nblib.data.checks import session_report
from nblib.data.checks.intervals import odd_trials
from nblib.data.trials import labelling
from nblib.prepare import binning, split_roles
from nblib.prepare.potentials import lfp_windows

NAN = float("nan")


def labels_of(values, label="x", dtype=None, **rules):
    column = pd.Series(values, dtype=dtype)
    table = pd.DataFrame({"start_time": np.arange(len(column)) * 1.0, "x": column})
    table["stop_time"] = table["start_time"] + 0.5
    return labelling.select(table, label, LabelRules(**rules), "f.nwb: trials")


def given(values, **more):
    return labels_of(values, **more).table["label"].tolist()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["01", "1", "10", "010"], ["01", "1", "10", "010"]),  # nothing merged
        (["1.0", "1", "2"], ["1.0", "1", "2"]),
        ([" 1", "1"], [" 1", "1"]),
        (["1e3", "1000"], ["1e3", "1000"]),
        (["0x10", "16"], ["0x10", "16"]),
        (["1_0", "10"], ["1_0", "10"]),
        (["٣", "3"], ["٣", "3"]),
        (["9007199254740992", "9007199254740993"], [2**53, 2**53 + 1]),
        (["9" * 30, "1"], ["9" * 30, "1"]),
        (["inf", "1"], ["inf", "1"]),
        (["3", "1", "-1"], [3, 1, -1]),  # numbers where that is all they are
        (["-1.0", "2.0"], [-1, 2]),
        (["0.5", "2.25"], [0.5, 2.25]),
        (["0.10", "0.25"], ["0.10", "0.25"]),
        (["go ", "go"], ["go ", "go"]),
        ([1.0, 2.0], [1, 2]),
        ([1.5, 2.0], [1.5, 2.0]),
        ([1.0, float("inf")], [1.0, float("inf")]),
        ([1.0, 1e300], [1.0, 1e300]),
        (np.array([2**53, 2**53 + 1]), [2**53, 2**53 + 1]),
        (np.array([2**64 - 1, 1], np.uint64), [2**64 - 1, 1]),
        (np.array([0.1, 0.2], np.float32), [0.1, 0.2]),
        (np.array([True, False]), ["True", "False"]),
        ([True, None, False], ["True", "False"]),
        (
            np.array([2**53 + 1, 0.5, float(2**53)], object),
            [str(2**53 + 1), "0.5", str(float(2**53))],
        ),
    ],
)
def test_labels_stay_what_they_are(values, expected):
    got = given(values)
    assert got == expected and [type(v) for v in got] == [type(v) for v in expected]


def test_labels_that_even_text_would_merge_are_refused():
    with pytest.raises(BadInput, match="such as 1 and '1'"):
        given([1, "1", 2])
    with pytest.raises(BadInput, match=r"holds lists, in row 1 \['a', 'b'\]"):
        given(["c", ["a", "b"]])


def test_missing_is_what_pandas_reads_as_missing():
    written = ["", " ", *params.MISSING, " n/a ", "a"]
    held = pd.read_csv(
        io.StringIO("x\n" + "\n".join(f'"{w}"' for w in written)), skip_blank_lines=False
    )["x"]
    stripped = [bool(pd.isna(v)) or not v.strip() or v.strip() in params.MISSING for v in held]
    assert sum(stripped) == len(written) - 1
    found = labels_of(written)
    assert found.table["label"].tolist() == ["a"] and found.left_out == {
        "no label": len(written) - 1
    }
    assert given(["NONE", "Null", "na", "Nan"]) == ["NONE", "Null", "na", "Nan"]  # case as pandas


@pytest.mark.parametrize(
    ("values", "rules", "expected"),
    [
        ([-1.0, NAN, 0.0, 1.0], {}, [-1, 0, 1]),  # a class -1 stays, and NaN is none
        ([None, "n/a", "", "go"], {"missing": []}, ["n/a", "go"]),
        (["?", "go", "None"], {"missing": ["?"]}, ["go", "None"]),
        (["\u200b", "\xa0", "\ufeffNaN", "go"], {}, ["go"]),  # what no one sees is no class
        ([99, 1, 2], {"missing": [99]}, [1, 2]),  # as YAML gives it
        ([99.0, 1.5], {"missing": ["99"]}, [1.5]),
        (["99", "99.0", "a"], {"missing": ["99"]}, ["99.0", "a"]),
        (["-1", "0", "1"], {"missing": [-1.0]}, [0, 1]),  # text that becomes numbers is one
        (["-1.0", "0.0", "2.5"], {"missing": [-1]}, [0.0, 2.5]),
        (["01", "1", "2"], {"missing": ["1"]}, ["01", "2"]),
    ],
)
def test_the_recipe_may_say_what_is_missing(values, rules, expected):
    assert given(values, **rules) == expected


def test_nothing_but_missing_labels():
    with pytest.raises(BadInput, match="label 'x' is missing in all 2 trials"):
        given([NAN, NAN])


def test_labels_by_expression_and_chosen_trials():
    table = pd.DataFrame({
        "start_time": np.arange(5.0), "stop_time": np.arange(5.0) + 0.5,
        "left": [0.0, 0.5, NAN, 1.0, 0.5], "right": [1.0, 0.0, 0.5, 1.0, 0.25],
        "side": ["a", "b", "n/a", "b", "a"], "my col": [1, 1, 2, 2, 3], "left > right": list("vwxyz"),
    })  # fmt: skip

    def chosen(label, **rules):
        found = labelling.select(table, label, LabelRules(**rules), "t")
        return found.table["label"].tolist(), found.table.index.tolist(), found.left_out

    exact = chosen("left > right")  # a column of that very name wins
    assert exact[0] == list("vwxyz")
    table = table.drop(columns="left > right")
    assert chosen("left > right", where="left != right") == (
        ["False", "True", "True"],
        [0, 1, 4],
        {"not where left != right": 1, "a value missing in where left != right": 1},
    )
    assert chosen("left > right")[2] == {"no label": 1}  # a missing operand: no label, not False
    assert chosen("left.fillna(0) > right")[0] == ["False", "True", "False", "False", "True"]
    assert chosen("side == 'b'")[1:] == ([0, 1, 3, 4], {"no label": 1})
    assert chosen("`my col` % 2")[0] == [1, 1, 0, 0, 1]
    assert chosen("side + '_' + side")[0] == ["a_a", "b_b", "b_b", "a_a"]
    assert chosen("left - right")[0] == [-1.0, 0.5, 0.0, 0.25]
    assert chosen("side", where="`my col` in [1, 3] and right < 1")[1] == [1, 4]
    assert chosen("side", where="~(`my col` == 1) & ~side.isna()")[1] == [3, 4]
    table["\u00b5V"] = [
        1.0,
        2.0,
        0.0,
        float("inf"),
        3.0,
    ]  # the micro sign, which Python reads as mu
    assert chosen("\u00b5V > 1.5")[0] == ["False", "True", "False", "True", "True"]
    assert chosen("\u00b5V * 0") == ([0, 0, 0, 0], [0, 1, 2, 4], {"no label": 1})  # inf * 0 is none
    table.index = pd.Index([10, 11, 12, 13, 14], name="id")
    assert chosen("side", where="id > 11") == (
        ["b", "a"],
        [3, 4],
        {"not where id > 11": 2, "no label": 1},
    )
    assert (
        chosen("id")[0] == [10, 11, 12, 13, 14]
        and "id" not in labelling.select(table, "side", LabelRules(), "t").table
    )
    for label, rules, says in [
        ("side", {"where": "nope > 1"}, "no column 'nope'"),
        ("side", {"where": "left"}, "gives 0.0, neither true nor false"),
        ("side", {"where": "left > 7"}, "holds for none of 5 trials"),
        ("side == 1", {}, "text 'a' is compared with 1"),
        ("side = 'a'", {}, "not readable as an expression"),
        ("left > right &  right > 0", {}, "in parentheses"),
        ("left / (right - right)", {}, "division by zero"),
        ("__import__('os').system('x')", {}, "is not allowed"),
        ("left.__class__", {}, "is not allowed"),
        ("@left > 1", {}, "not readable"),
        ("left is right", {}, "Is is not allowed"),
        ("left ** 9 > 1", {}, "Pow is not allowed"),
        ("(lambda: 1)() == left", {}, "is not allowed"),
        (
            "right == '1'",
            {},
            "text '1' is compared with 1.0; text stands in quotes, a number does not",
        ),
        ("side == '`x`'", {}, "a backtick cannot stand inside text"),
        ("3 > 2", {}, "names no column"),
        ("left" + " + 0" * 2500, {}, "its parts stand too deeply in one another to be read"),
        ("+" * 2500 + "left", {}, "too deeply"),
        ("side", {"where": "not " * 3000 + "left"}, "too deeply"),
        ("1" + " + 1" * 9000 + " + left", {}, "it has 36,008 letters; at most 20,000 are read"),
        ("side == 'a' * 1000000000", {}, "text 'a' is calculated with"),
        ("side == ('a' + 'b') * 1000000000", {}, "text 'ab' is calculated with"),
        ("side == 1000000000 * 'a'", {}, "text 'a' is calculated with"),
        ("side == '%1000000000d' % 1", {}, "text '%1000000000d' is calculated with"),
        ("10000000 * [1, 2] == left", {}, "a list stands after `in` alone"),
    ]:
        with pytest.raises(BadParameter) as told:
            chosen(label, **rules)
        assert says in str(told.value) and len(str(told.value)) < 600, told.value
    with pytest.raises(BadInput, match="has no column 'lefft'; its columns are id, start_time"):
        chosen("lefft")


@pytest.mark.parametrize("label", ["size <5 mm>", "go = 1", "rate >= 2 Hz?"])
def test_a_column_s_name_need_not_be_readable_as_an_expression(label):
    sources.check(params.Recipe(recipe="r", recordings=["a"], source="nwb", label=label))
    table = pd.DataFrame({"start_time": [0.0, 1.0], "stop_time": [0.5, 1.5], label: ["a", "b"]})
    chosen = labelling.select(table, label, LabelRules(), "t")
    assert chosen.table["label"].tolist() == ["a", "b"]
    with pytest.raises(BadParameter, match="no such column, and not readable as an expression"):
        labelling.select(table.drop(columns=label), label, LabelRules(), "t")


@pytest.mark.parametrize(
    ("values", "named", "joined"),
    [
        (["go ", "go", "go", "no"], "'go' (2) and 'go ' (1)", ["go", "go", "go", "no"]),
        (["Go", "go", "go", "no"], "'go' (2) and 'Go' (1)", ["go", "go", "go", "no"]),
        (["0.080", "0.08", "0.08", "x"], "'0.08' (2) and '0.080' (1)", ["0.08", "0.08", "0.08", "x"]),
        (["1.0", "1", "1", "2"], "'1' (2) and '1.0' (1)", [1, 1, 1, 2]),
        (["go\u200b", "\ufeffgo", "go\u200b", "no"], "'go\\u200b' (2)", ["go\u200b"] * 3 + ["no"]),
        (["e\u0301", "é", "é", "x"], "'é' (2)", ["é", "é", "é", "x"]),
        ([0.1 + 0.2, 0.3, 0.3, 1.0], "0.3 (2) and 0.30000000000000004 (1)", [0.3, 0.3, 0.3, 1.0]),
    ],
)  # fmt: skip
def test_labels_that_are_probably_one(values, named, joined):
    made = recording([[1.0]], values, np.arange(4.0))
    (odd,) = odd_trials(made)
    assert named in odd and "join_labels: true makes each group one class" in odd
    assert len(made.labelled.classes) == 3
    again = replace(made, rules=LabelRules(join_labels=True))
    assert again.trial_table["label"].tolist() == joined and len(again.labelled.classes) == 2
    assert "were joined" in odd_trials(again)[0]


@pytest.mark.parametrize("value", [-999, float(np.float32(9.96921e36)), -(2**63), -99.0])
def test_labels_that_often_stand_for_a_missing_value(value):
    made = recording([[1.0]], [1, 2, value, 1], np.arange(4.0))
    (odd,) = odd_trials(made)
    advice = yaml.safe_load(odd.partition("in the recipe  ")[2])
    assert "(1 trials) often stands for a missing value" in odd
    again = replace(made, rules=LabelRules(**advice))
    assert again.labelled.classes == ["1", "2"] and again.labelled.left_out == {"no label": 1}
    assert odd_trials(recording([[1.0]], [1, -1, 99, 1], np.arange(4.0))) == []
    made = replace(made, rules=LabelRules(blank=str(value)))
    assert odd_trials(made) == [], "a grey screen may have any label"


def test_numbers_that_only_look_alike_are_let_be():
    assert labels_of(["9007199254740992", "9007199254740993"]).alike == []
    assert labels_of([1.7e9, 1.7e9 + 0.01]).alike == []
    assert labels_of([1.7e14, 1.7e14 + 1]).alike == []  # ids kept as float64


def some_trials(**columns):
    rng = np.random.default_rng(0)
    made = recording([np.sort(rng.uniform(0, 10, 80))], [0, 1, -1, 0], [1.0, 2.0, 3.0, 4.0])
    table = made.intervals[made.trials]
    for name, values in columns.items():
        table[name] = values
    return made


def test_a_grey_screen_is_what_blank_says():
    made = some_trials()
    with pytest.raises(BadParameter, match="say so with `blank`"):
        binning.bin_recording(made, BinSettings(keep_blank=False))
    grey = pd.Series(["a", "grey", "a", "b"])
    for column, blank, left in [(None, "-1", [0, 1, 3]), (grey, "grey", [0, 2, 3])]:
        made = some_trials(**({} if column is None else {"frame": column}))
        object.__setattr__(made, "rules", LabelRules(blank=blank))
        kept = binning.bin_recording(made, BinSettings())
        assert kept.sizes["trial"] == 4
        binned = binning.bin_recording(made, BinSettings(keep_blank=False))
        assert binned.trial.values.tolist() == left
        assert binned.attrs["left_out"] == '{"grey screen": 1}'


def test_who_has_a_grey_screen():
    def recipe(**settings):
        return params.checked(
            params.Recipe, {"recipe": "r", "recordings": ["a"], **settings}, "r.yml"
        )

    assert recipe(source="allen", keep_blank=False).label_rules.blank == "-1"
    assert recipe(source="nwb").label_rules.blank == ""
    assert recipe(source="nwb", keep_blank=False, blank=-1).label_rules.blank == "-1"
    for source in ("nwb", "lfp_nwb", "counts"):
        with pytest.raises(BadParameter, match="keep_blank = false, but source"):
            recipe(source=source, keep_blank=False)
    with pytest.raises(BadParameter, match="blank = 'null' counts as missing too"):
        recipe(source="allen", blank="null")


UNUSABLE = [
    ({"stop_time": [1.2, 2.2, 3.2, NAN]}, "no finite stop_time", 3, True),
    ({"stop_time": [1.2, np.inf, 3.2, 4.2]}, "no finite stop_time", 1, True),
    ({"stop_time": [1.2, 1.0, 3.2, 4.2]}, "a negative length", 1, True),
    ({"stop_time": [1.2, 2.0, 3.2, 4.2]}, "no length", 1, True),
    ({"start_time": [1.0, 2.0, 3e12, 4.0]}, "a start_time that is no time in seconds", 2, False),
    ({"start_time": [NAN, 2.0, 3.0, 4.0]}, "no finite start_time", 0, False),
]


@pytest.mark.parametrize(("columns", "says", "row", "event_goes"), UNUSABLE)
def test_one_row_does_not_stop_a_session(columns, says, row, event_goes):
    made = some_trials(**columns)
    with pytest.raises(
        BadInput,
        match=rf"{says}.* in row {row}\. Mend them in the file, or set unusable_trials: leave_out",
    ):
        binning.bin_recording(made, BinSettings())
    binned = binning.bin_recording(made, BinSettings(unusable_trials="leave_out"))
    assert binned.trial.values.tolist() == [i for i in range(4) if i != row]
    assert says in binned.attrs["left_out"]
    window = {"binning": "event_window", "bin_s": 0.05}
    if event_goes:  # a window needs no stop
        assert binning.bin_recording(made, BinSettings(**window)).sizes["trial"] == 4
    else:
        with pytest.raises(BadInput, match=f"{says}.* in row {row}"):
            binning.bin_recording(made, BinSettings(**window))


def test_an_event_that_is_missing():
    made = some_trials(cue=[1.1, NAN, 3.1, 4.1], word=list("abcd"), stop_time=NAN)
    window = {"binning": "event_window", "bin_s": 0.05, "event": "cue"}
    with pytest.raises(BadInput, match=r"no finite cue \(NaN or infinite\) in row 1"):
        binning.bin_recording(made, BinSettings(**window))
    binned = binning.bin_recording(made, BinSettings(**window, unusable_trials="leave_out"))
    assert binned.trial.values.tolist() == [0, 2, 3]
    with pytest.raises(BadInput, match="column 'word' holds 'a' in row 0"):
        binning.bin_recording(made, BinSettings(**(window | {"event": "word"})))
    with pytest.raises(BadInput, match=r"no trial that can be used \(4 with no finite stop_time"):
        binning.bin_recording(made, BinSettings(unusable_trials="leave_out"))


def test_all_stages_see_the_same_classes():
    made = some_trials(frame=["01", "1", "n/a", "x"])
    report = session_report(made)
    binned = binning.bin_recording(made, BinSettings())
    assert report.tables["classes"]["class"].tolist() == labelling.as_text(binned.label.values)
    assert any("1 of 4 trials are left out: no label" in o for o in report.odd)
    strange = binned.assign_coords(label=("trial", ["01", "1", "y"]))
    with pytest.raises(BadInput, match="class 'y' was not there before"):
        split_roles.make_split(strange, SplitSettings())


def test_states_of_windows_are_labels_too():
    table = pd.DataFrame({"start_time": [0.0, 10.0, 20.0], "stop_time": [9.0, 19.0, 29.0]})
    table["state"] = [1.0, NAN, 0.5]
    found = labelling.select(table, "state", LabelRules(), "t")
    label, _ = lfp_windows.label_windows(found.table, np.array([1.0, 11.0, 21.0]), 2.0, "f")
    assert label.tolist() == ["1", "", "0.5"] and found.classes == ["0.5", "1"]
