"""Parameters are refused, one clear sentence at a time, or taken exactly."""

import math

import pytest

from nblib.core import params as P
from nblib.core import recipes
from nblib.core.errors import BadParameter
from nblib.core.recipes import load_recipe
from nblib.core.text_to_values import read_settings, read_yaml
from nblib.experiments.decode import Params as TrainParams


def recipe_text(**changes):
    values = {"recipe": "x", "recordings": '["715093703"]', **changes}
    return "\n".join(f"{k}: {v}" for k, v in values.items())


def load(tmp_path, text, name="x"):
    path = tmp_path / f"{name}.yml"
    path.write_text(text)
    return load_recipe(path)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"recording": 715093703}, "recording = 715093703: input should be a valid string"),
        ({"recording": "../x"}, "recording = '../x'"),
        ({"modle": "lstm"}, "unknown parameter 'modle'; did you mean model"),
        ({"fold": -1}, "fold = -1"),
        ({"seed": "1"}, "seed = '1'"),
        ({"seed": True}, "seed = True"),
        ({"seed": 2**32}, "seed = 4294967296"),
        ({"shuffle_labels": 1}, "shuffle_labels = 1"),
        ({"precision": "64"}, "precision = '64'"),
        ({"learning_rate": 0.0}, "learning_rate = 0.0"),
    ],
)
def test_wrong_parameters_are_named(values, says):
    with pytest.raises(BadParameter) as error:
        P.checked(TrainParams, values, "05_train_lstm")
    assert str(error.value).startswith("05_train_lstm: ")
    assert says in str(error.value)


def test_every_fault_is_told_at_once():
    with pytest.raises(BadParameter) as error:
        P.checked(TrainParams, {"fold": -1, "seed": "a", "nope": 1}, "n")
    assert all(word in str(error.value) for word in ("fold", "seed", "nope"))


def test_yaml_keeps_ids_and_reads_numbers():
    values = read_yaml(
        "id: 000021\nplain: 715093703\nlr: 1e-3\nno_limit: .inf\nday: 2020-01-01\n", "here"
    )
    assert values == {
        "id": "000021",
        "plain": 715093703,
        "lr": 0.001,
        "no_limit": math.inf,
        "day": "2020-01-01",
    }
    with pytest.raises(BadParameter, match="'a' stands twice"):
        read_yaml("a: 1\na: 2", "here")
    with pytest.raises(BadParameter, match="here: not readable"):
        read_yaml("a: [1", "here")
    with pytest.raises(BadParameter):  # no objects from text
        read_yaml("a: !!python/object/apply:os.system ['true']", "here")


BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nrecordings: *b\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "line 2, column 8: an alias (*name) is not taken"),
        ("a: &a 1\n<<: {b: 2}\nc: *a", "an alias"),
        ("recordings: " + "[" * 3000 + "]" * 3000, "nested more than 50 deep"),
        ("a: " + "{a: " * 400 + "}" * 400, "nested more than 50 deep"),
        ("a: !!python/name:os.system", "a tag (tag:yaml.org,2002:python/name:os.system)"),
        ("a: !!int x", "a tag"),
        ("? [a, b]\n: 1", "a list or a mapping cannot be a name"),
        ("a: b\x00", "unacceptable character"),
        ("a: 1\n---\na: 2", "another document"),
        ("- a", "expected 'name: value' lines"),
        ("", "expected 'name: value' lines"),
        ("hello", "expected 'name: value' lines"),
    ],
)
def test_yaml_that_is_no_settings_is_refused_in_one_line(text, said):
    with pytest.raises(BadParameter) as error:
        read_settings(text, "here")
    assert said in str(error.value) and "\n" not in str(error.value)
    assert str(error.value).startswith("here: ") and len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"n_bins": "7" * 5000}, "n_bins = '777"),
        ({"label": ["x" * 5000]}, "... (5004 characters)"),
        ({"recordings": list(range(1500))}, "and 1495 more faults"),
        ({"recordings": [715093703]}, "put it into quotes, just as it is written: '715093703'"),
        ({"isi_violations_max": math.nan}, "isi_violations_max = nan: nan is not a value"),
        ({"gap_s": math.inf}, "gap_s = inf: input should be a finite number"),
        ({"edges_s": [0.0, math.nan]}, "edges_s.1 = nan: input should be a finite number"),
        ({"edges_s": "[0, 1]"}, "write it without quotes (papermill: -y 'edges_s: [0, 1]')"),
        ({1: "a"}, "unknown parameter '1'"),
        ({"recipe": "r" * 300}, "string should match pattern"),
    ],
)
def test_a_fault_is_told_briefly(changes, said):
    values = {"recipe": "r", "recordings": ["a"], **changes}
    with pytest.raises(BadParameter) as error:
        P.checked(P.Recipe, values, "here")
    assert said in str(error.value) and len(str(error.value)) < 800


@pytest.mark.parametrize("content", [None, b"\x80\x00\xff", "recipe: r".encode("utf-16")])
def test_a_recipe_that_is_no_text_is_refused(tmp_path, content):
    path = tmp_path / "r.yml"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(BadParameter, match=r"recipe .*r.yml: cannot be read"):
        recipes.load_recipe(path)
    with pytest.raises(BadParameter, match=r"no recipe 'xxx.*\(5002 characters\)"):
        recipes.find_recipe("x" * 5000)


def test_a_recipe_with_signals_or_variables_needs_no_label():
    given = {"recipe": "r", "recordings": ["m"]}
    assert P.Recipe(**given).label == "frame"
    assert P.Recipe(**given, variables=["choice"]).label == ""
    assert P.Recipe(**given, signals={"w": {"series": "wheel"}}).label == ""
    assert P.Recipe(**given, variables=["choice"], label="frame").label == "frame"


def test_a_recipe_is_checked(tmp_path):
    recipe = load(tmp_path, recipe_text(n_bins=10, isi_violations_max=0.5))
    assert recipe.n_bins == 10
    assert recipe.settings(P.CleanSettings).isi_violations_max == 0.5
    assert recipe.settings(P.CleanSettings).presence_ratio_min == -math.inf
    for changes, says in [
        ({"n_bin": 5}, "unknown parameter 'n_bin'; did you mean n_bins"),
        ({"n_bins": 4}, "n_bins must be one of"),
        ({"recordings": "[715093703]"}, "valid string"),
        ({"recordings": "[a, a]"}, "one id twice"),
        ({"recordings": "[]"}, "recordings"),
        ({"simulate": "{n_unit: 3}"}, "n_unit"),
        ({"window_stop_s": -1.0}, "window_stop_s must be greater"),
        (
            {"signals": "{a/b: {series: x}}"},
            "'a/b' is no name that a file may hold; take one without '/'",
        ),
        ({"signals": "{a: {series: x}}", "variables": "[a]"}, "name 'a' twice; rename one"),
        ({"binning": "edges"}, "at least two rising times"),
    ]:
        with pytest.raises(BadParameter) as error:
            load(tmp_path, recipe_text(**changes))
        assert says in str(error.value), str(error.value)
        assert "x.yml" in str(error.value)
    with pytest.raises(BadParameter, match="name and file must agree"):
        load(tmp_path, recipe_text(), name="y")
    with pytest.raises(BadParameter, match="cannot be read"):
        load_recipe(tmp_path / "none.yml")


def test_paths_are_templates(tmp_path, monkeypatch):
    monkeypatch.setenv("SCANS", "/scans")
    recipe = load(tmp_path, recipe_text(source="allen", path='"${SCANS}/session_{recording}.nwb"'))
    assert str(recipe.file("7")) == "/scans/session_7.nwb"
    monkeypatch.delenv("SCANS")
    with pytest.raises(BadParameter, match="SCANS, which is not set"):
        recipe.file("7")
    with pytest.raises(BadParameter, match="relative"):
        load(tmp_path, recipe_text(path="a.nwb")).file("7")
