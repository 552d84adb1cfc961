"""Keys, recipes and the notebook's handle."""

import json
import os

import pytest
import yaml
from forks import Fork
from IPython.core.interactiveshell import InteractiveShell

from nblib.core import recipes, store
from nblib.core.errors import BadParameter, CorruptArtifact, MissingInput
from nblib.report import all_runs
from nblib.road import stages

TRAIN = {
    "model": "lstm", "fold": 0, "seed": 0, "model_params": {}, "max_epochs": None, "batch_size": None,
    "learning_rate": None, "weight_decay": None, "patience": None, "device": "auto", "precision": "32",
    "threads": 0, "logger": "csv", "shuffle_labels": False, "n_permutations": 1000, "n_bootstrap": 1000,
    "importance": 300, "areas": False, "refit": False,
}  # fmt: skip


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with one recipe, one raw file and the shell of one training notebook."""
    for folder in ("notebooks", "params/recipes", "home"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.setenv("NBLIB_PROJECT", str(tmp_path))
    monkeypatch.setenv("NBLIB_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    (tmp_path / "raw.nwb").write_bytes(b"raw")
    write_recipe(tmp_path, "cohort")
    notebook(tmp_path / "notebooks" / "05_train_lstm.ipynb", ["work()"])
    return tmp_path


def write_recipe(project, name, **more):
    values = {
        "recipe": name,
        "recordings": ["a", "000021"],
        "source": "nwb",
        "path": str(project / "raw.nwb"),
        **more,
    }
    (project / "params/recipes" / f"{name}.yml").write_text(yaml.safe_dump(values))


def notebook(path, code):
    tagged = {"cell_type": "code", "source": "model = 'lstm'", "metadata": {"tags": ["parameters"]}}
    cells = [tagged] + [{"cell_type": "code", "source": c, "metadata": {}} for c in code]
    path.write_text(
        json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    )


def names(stage, **values):
    info = stages.STAGES[stage]
    start = {"recipe": "cohort", "recording": "a"} | dict.fromkeys(info.settings.model_fields)
    return start | (TRAIN if stage.startswith("05") else {}) | values


def key(stage, **values):
    return stages.begin(stage, names(stage, **values)).key


def test_recordings_of_a_recipe_may_be_named_where_all_are_taken_together(project):
    values = {"recipe": "cohort", "recordings": ["a"]}
    _, recipe = stages.settle_recipe("12_multimodal", values)
    assert recipe.recordings == ["a"] and recipe.recipe.startswith("cohort-")
    with pytest.raises(BadParameter, match="recording '000021' is not in recipe 'cohort-"):
        stages.settle_recipe("02_bin", values | {"recording": "000021"})


def test_a_key_follows_what_the_stage_depends_on_and_nothing_else(project):
    base = {s: key(s) for s in ("01_ingest", "02_bin", "03_clean", "04_split", "05_train_lstm")}
    assert base == {s: key(s) for s in base}
    assert len(set(base.values())) == 5
    # a recipe of another name with the same content is the same work
    write_recipe(project, "other")
    assert key("04_split", recipe="other") == base["04_split"]
    # the same bytes elsewhere are the same recording
    moved = project / "moved.nwb"
    moved.write_bytes(b"raw")
    write_recipe(project, "moved", path=str(moved))
    assert key("04_split", recipe="moved") == base["04_split"]
    moved.write_bytes(b"RAW")
    assert key("04_split", recipe="moved") != base["04_split"]


def test_a_setting_that_came_later_is_in_no_key_at_its_default():
    recipe = recipes.find_recipe("demo")
    for stage, name, other in (("02_bin", "frames_per_bin", 5), ("04_split", "n_parts", 4)):
        made = stages.made_of(stage, recipe, "demo")
        changed = stages.made_of(stage, recipe.model_copy(update={name: other}), "demo")
        assert name not in made.values and changed.values[name] == other


def test_an_override_makes_a_derived_recipe_that_downstream_finds(project, capsys):
    stage = stages.begin("02_bin", names("02_bin", n_bins=10))
    assert stage.settings.n_bins == 10
    assert stage.recipe.recipe.startswith("cohort-")
    assert f"recipe={stage.recipe.recipe!r}" in capsys.readouterr().out
    downstream = stages.begin("03_clean", names("03_clean", recipe=stage.recipe.recipe))
    assert downstream.recipe == stage.recipe
    assert downstream.made_of.upstream == [stage.key]
    # setting it back leads home, and repeating the recipe's own value derives nothing
    assert recipes.derive(stage.recipe, {"n_bins": 10}) == stage.recipe
    assert stages.begin("02_bin", names("02_bin", n_bins=5)).recipe.recipe == "cohort"
    assert (
        recipes.derive(stage.recipe, {"n_bins": 2}).recipe
        != recipes.derive(stage.recipe, {"n_bins": 3}).recipe
    )


@pytest.mark.parametrize(
    ("stage", "values", "says"),
    [
        ("05_train_lstm", {"recording": 715093703}, "valid string"),
        ("05_train_lstm", {"recording": "b"}, "not in recipe 'cohort', which holds a, 000021"),
        ("05_train_lstm", {"recipe": "nope"}, "no recipe 'nope'"),
        ("05_train_lstm", {"seed": 1.5}, "seed = 1.5"),
        ("02_bin", {"n_bins": 4}, "n_bins must be one of"),
        ("02_bin", {"n_bins": "5"}, "n_bins = '5'"),
        ("04_split", {"test_fraction": 1.0}, "test_fraction"),
        (
            "02_bin",
            {"recording": "../../etc"},
            "a recording id may hold letters, digits, '.', '_'",
        ),
        ("01_ingest", {"where": "frame >"}, "where = 'frame >': not readable as an expression"),
    ],
)
def test_bad_parameters_are_refused(project, stage, values, says):
    with pytest.raises(BadParameter) as error:
        stages.begin(stage, names(stage, **values))
    assert says in str(error.value)
    assert not list(store.derived_recipes_dir().glob("*.yml"))


@pytest.mark.parametrize(
    ("stage", "values", "says"),
    [
        ("05_train_lstm", {"model": "lsmt"}, "did you mean lstm"),
        ("05_train_lstm", {"model": "ridge", "model_params": {"hidden": 1}}, "model_params of ridge: unknown hidden"),
        ("05_train_lstm", {"model": "ensemble", "refit": True}, "validation rows weigh an ensemble"),
        ("06_train_st_gat", {"model": "gat", "graph": "full", "model_params": {"graph": "learned"}}, "give it once"),
        ("07_few_shot", {"models": ["nearest_men"]}, "did you mean nearest_mean"),
        ("07_few_shot", {"shots": [1, 1]}, "expected different numbers"),
        ("10_image_latents", {"spaces": ["gabro"]}, "no 'gabro'"),
        ("10_image_latents", {"regressor": "rigde"}, "regressor = 'rigde'; there are ridge"),
        ("10_image_latents", {"spaces": ["lab"]}, "go together"),
    ],
)  # fmt: skip
def test_names_that_only_the_work_knows_are_checked_before_it(project, stage, values, says):
    info = stages.STAGES[stage]
    defaults = {name: field.default for name, field in info.params.model_fields.items()}
    notebook(project / "notebooks" / f"{stage}.ipynb", ["work()"])
    with pytest.raises(BadParameter, match=says):
        stages.begin(stage, defaults | {"recipe": "cohort", "recording": "a"} | values)


def test_an_id_given_as_a_number_comes_with_its_remedy(project):
    with pytest.raises(BadParameter) as error:
        stages.begin("02_bin", names("02_bin", recording=715093703))
    assert "into quotes, just as it is written: '715093703'" in str(error.value)
    assert "papermill: -r recording 715093703" in str(error.value)


def test_an_error_in_jupyter_is_a_sentence(project):
    shell = InteractiveShell()
    shell.user_ns["values"] = names("02_bin", recording=21)
    shown = []
    shell._showtraceback = lambda kind, error, lines: shown.append((kind.__name__, lines))
    result = shell.run_cell("from nblib.road import stages\nstages.begin('02_bin', values)")
    assert not result.success  # papermill sees it fail
    ((kind, lines),) = shown
    assert kind == "BadParameter" and len(lines) == 1
    assert lines[0].startswith("BadParameter: 02_bin: recording = 21: ") and "\n" not in lines[0]


def test_a_recipe_given_by_path_is_no_change_and_its_derived_ones_know_it(project, capsys):
    write_recipe(project, "own")
    path = project / "own.yml"
    (project / "params/recipes/own.yml").rename(path)
    stage = stages.begin("02_bin", names("02_bin", recipe=str(path)))
    stages.begin("02_bin", names("02_bin", recipe=str(path), n_bins=5))
    assert stage.recipe_name == str(path) and capsys.readouterr().out == ""
    stage = stages.begin("02_bin", names("02_bin", recipe=str(path), n_bins=10))
    derived = stage.recipe.recipe
    assert f"downstream notebooks take recipe='{derived}'" in capsys.readouterr().out
    again = stages.begin(
        "02_bin", names("02_bin", recipe=derived, unusable_trials="leave_out")
    ).recipe.recipe
    assert [recipes.base_of(n) for n in (derived, again, "own")] == [str(path), str(path), "own"]
    now = {"own": recipes.find_recipe(str(path))}
    told = all_runs.derivation(store.plain(recipes.find_recipe(again).model_dump()), now)
    assert told["base"] == "own" and told["changed"] == 'n_bins=10, unusable_trials="leave_out"'


def test_a_parameters_cell_that_was_not_run_is_told(project):
    with pytest.raises(BadParameter, match="'recording' is not set"):
        stages.begin("02_bin", {"recipe": "cohort"})
    with pytest.raises(BadParameter, match="no notebook '2_bin'"):
        stages.begin("2_bin", {})


def test_missing_input_prints_the_command_and_a_flipped_byte_is_caught(project):
    stage = stages.begin("03_clean", names("03_clean"))
    with pytest.raises(
        MissingInput, match="nblib run 02_bin --with-upstream -p recipe cohort -p recording a"
    ):
        stage.input("02_bin")
    made = stages.begin("02_bin", names("02_bin")).commit(
        lambda folder: (folder / "x").write_text("counts")
    )
    assert stage.input("02_bin") == made
    (made / "x").write_text("Counts")
    with pytest.raises(CorruptArtifact):
        stage.input("02_bin")


def test_the_manifest_of_a_stage(project, monkeypatch, tmp_path):
    monkeypatch.setenv("NBLIB_RESULT", str(tmp_path / "result"))
    stage = stages.begin("02_bin", names("02_bin"))
    folder = stage.commit(lambda f: (f / "x").write_text("1"))
    assert (tmp_path / "result").read_text() == str(folder)
    manifest = store.read_manifest(folder)
    assert manifest["upstream"] == [stages.key_for("01_ingest", stage.recipe, "a")]
    assert manifest["parameters"]["n_bins"] == 5 and manifest["recipe"]["recipe"] == "cohort"
    assert "presentation" in stage._repr_html_()


def test_missing_raw_file(project):
    write_recipe(project, "gone", path=str(project / "none.nwb"))
    with pytest.raises(MissingInput, match=r"none\.nwb"):
        key("01_ingest", recipe="gone")
    write_recipe(project, "fetch", path="", source="allen", recordings=["715093703"])
    with pytest.raises(MissingInput, match="nblib allen get 715093703"):
        key("02_bin", recipe="fetch", recording="715093703")


def test_an_edited_notebook_has_another_key(project, monkeypatch):
    shipped = stages.begin("05_train_lstm", names("05_train_lstm"))
    assert shipped.code["edited"] is False
    copy = project / "copy.ipynb"
    notebook(copy, ["work(more=True)"])
    monkeypatch.setenv("NBLIB_NOTEBOOK", str(copy))
    edited = stages.begin("05_train_lstm", names("05_train_lstm"))
    assert edited.code["edited"] is True and edited.key != shipped.key
    notebook(copy, ["work()"])
    assert stages.begin("05_train_lstm", names("05_train_lstm")).key == shipped.key


PARAMETERS = "\n".join(
    f"{k}: object = {v!r}  # x" for k, v in ({"recipe": "cohort", "recording": "a"} | TRAIN).items()
)
COMMIT = "import pathlib; place = stage.commit(lambda f: (f / 'x').write_text('1')); print('PLACE', place)"
BEGIN = "import nblib\nstage = nblib.begin('05_train_lstm', globals())"


def in_ipython(project, *cells):
    """What cells print that a person runs one after the other, as far as they go well."""

    def run():
        os.environ["IPYTHONDIR"] = str(project / "ipython")
        shell = InteractiveShell.instance()
        for cell in cells:
            result = shell.run_cell(cell, store_history=True)
            if error := result.error_in_exec or result.error_before_exec:
                print("FAILED", type(error).__name__, error)
                break

    return Fork(run).done()


def test_a_name_papermill_injects_in_vain_is_refused(project):
    said = in_ipython(project, PARAMETERS, "# Parameters\nmodle = 'gru'", BEGIN)
    assert "FAILED BadParameter" in said and "did you mean model" in said
    given = (
        "# Parameters\nn_bins = 10\nmodel = 'gru'"  # any notebook may be given a recipe's setting
    )
    said = in_ipython(project, PARAMETERS, given, BEGIN, "print(stage.recipe.n_bins)")
    assert "\n10\n" in said and "FAILED" not in said


def test_a_name_misspelt_in_the_parameters_cell_is_refused_until_it_is_mended(project):
    wrong = PARAMETERS.replace("model:", "modle:") + "\nmodel = 'gru'"
    said = in_ipython(project, wrong, BEGIN)
    assert "FAILED BadParameter" in said and "did you mean model" in said
    look = "print(stage.params.model)"
    said = in_ipython(project, wrong, PARAMETERS, "other = 3", BEGIN, look)
    assert "FAILED" not in said and "lstm" in said


def test_a_run_with_cells_the_notebook_does_not_hold_is_another_run(project):
    """Typed by hand or edited and unsaved: the key says that it is not the shipped notebook."""
    notebook(project / "notebooks" / "05_train_lstm.ipynb", [BEGIN, COMMIT])
    plain = in_ipython(project, PARAMETERS, BEGIN, COMMIT)
    shipped = store.read_manifest(next(iter(store.artifacts())))
    assert shipped["notebook"]["edited"] is False and shipped["key"] in plain
    changed = in_ipython(project, PARAMETERS, BEGIN, "score = 1.0", COMMIT)
    assert "FAILED" not in changed
    other = [m for m in map(store.read_manifest, store.artifacts()) if m["key"] != shipped["key"]]
    assert len(other) == 1 and other[0]["notebook"]["edited"] is True


def test_chain_and_names():
    assert stages.chain("04_split", "nwb") == ["01_ingest", "02_bin", "03_clean", "04_split"]
    assert stages.chain("03_clean", "lab_pickle") == ["02_bin", "03_clean"]
    assert {"n_bins", "model", "recording"} <= set(stages.accepted_names("05_train_lstm"))
    assert "n_bins" not in stages.accepted_names("90_results")
