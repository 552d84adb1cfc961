"""The command line: values by declared type, one-line errors, a quick start."""

from __future__ import annotations

import errno
import json
import math
import os
import platform
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import tiny_project

from nblib import cli
from nblib.core import params, store
from nblib.core.errors import BadParameter
from nblib.core.text_to_values import from_text
from nblib.road import stages
from nblib.run import cluster, execute, kernel, many, plan


@pytest.fixture
def asked(monkeypatch):
    """What `nblib run` asks the runner for; nothing is run."""
    calls = []

    def run(notebook, values, **options):
        calls.append((notebook, values, options))
        return 0

    monkeypatch.setattr(execute, "run", run)
    return calls


# --- values from text ----------------------------------------------------------------------------

FIELDS = {
    name: field
    for stage in ("05_train_lstm", "06_train_st_gat", "09_downstream_one_vs_all")
    for name, field in stages.accepted_names(stage).items()
}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("recording", "000021", "000021"),
        ("recording", "715093703", "715093703"),
        ("recording", "1e3", "1e3"),
        ("recording", "null", "null"),
        ("recording", "true", "true"),
        ("learning_rate", "1e-3", 1e-3),
        ("learning_rate", "5", 5.0),
        ("learning_rate", "none", None),
        ("isi_violations_max", "inf", math.inf),
        ("presence_ratio_min", "-.inf", -math.inf),
        ("max_epochs", "3", 3),
        ("max_epochs", "null", None),
        ("n_bins", "10", 10),
        ("n_bins", "5.0", 5),
        ("folds", "[0]", [0]),
        ("budgets", "[1, 10, 0]", [1, 10, 0]),
        ("tasks", "[one_vs_all]", ["one_vs_all"]),
        ("graph", "none", None),
        ("keep_blank", "false", False),
        ("keep_blank", "True", True),
        ("precision", "32", "32"),
        ("model_params", "{hidden: 100, dropout: 1e-1, name: 007}", {"hidden": 100, "dropout": 0.1, "name": "007"}),
        ("model_params", "{}", {}),
        ("regions", "[VISp, VISl]", ["VISp", "VISl"]),
        ("regions", "[1, on, 000021]", ["1", "on", "000021"]),
        ("regions", "[]", []),
        ("edges_s", "[0, 1e-2, .5]", [0.0, 0.01, 0.5]),
        ("simulate", "{n_units: 10, signal: 0}", {"n_units": 10, "signal": 0.0}),
    ],
)  # fmt: skip
def test_a_value_is_converted_by_its_declared_type(name, text, value):
    found = from_text(name, text, FIELDS[name].annotation)
    assert found == value and type(found) is type(value)
    if name != "name" and name in params.Recipe.model_fields:
        stages_own = {k: v for k, v in {"recipe": "r", "recordings": ["a"]}.items() if k != name}
        assert params.checked(params.Recipe, {**stages_own, name: found}, "test")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("n_bins", "five", "should be a valid integer"),
        ("n_bins", "5.5", "should be a valid integer"),
        ("n_bins", "", "n_bins = None: input should be a valid integer"),
        ("max_epochs", "1e3", "should be a valid integer"),
        ("learning_rate", "fast", "should be a valid number"),
        ("keep_blank", "maybe", "should be a valid boolean"),
        ("device", "gpu", "should be 'auto', 'cpu' or 'cuda'"),
        ("regions", "VISp", "should be a valid list, such as [VISp]"),
        ("regions", "[[VISp]]", "regions.0 = ['VISp']: input should be a valid string"),
        ("regions", "[VISp", "not readable as YAML in line 1, column 6"),
        ("edges_s", "[0, x]", "edges_s.1 = 'x': input should be a valid number"),
        ("folds", "[0, -1]", "folds.1 = '-1': input should be greater than or equal to 0"),
        ("tasks", "[some]", "tasks.0 = 'some': input should be 'one_vs_all' or 'multiclass'"),
        ("model_params", "hidden", "should be a valid dictionary"),
        ("model_params", "{a: 1, a: 2}", "key 'a' stands twice"),
        ("simulate", "{n_units: 1, n_units: 2}", "key 'n_units' stands twice"),
        ("simulate", "10", "should be a valid dictionary"),
        ("simulate", "{n_units: ten}", "simulate.n_units = 'ten': input should be a valid integer"),
        ("simulate", "{n_unit: 10}", "unknown parameter 'simulate.n_unit'"),
    ],
)
def test_a_value_of_another_type_is_refused_with_what_was_expected(name, text, said):
    with pytest.raises(BadParameter) as error:
        from_text(name, text, FIELDS[name].annotation)
    assert said in str(error.value) and name in str(error.value)


def test_parameters_of_a_file_and_of_the_command_together(project, tmp_path):
    file = tmp_path / "some.yml"
    file.write_text("recording: '000021'\nn_bins: 3\nisi_violations_max: 5e-1\n")
    found = cli.gather("02_bin", [["n_bins", "10"], ["recipe", "tiny"]], str(file))
    assert found == {
        "recording": "000021", "n_bins": 10, "recipe": "tiny", "isi_violations_max": 0.5,
    }  # fmt: skip


def test_a_file_that_is_a_recipe_itself(project, tmp_path):
    file = tmp_path / "mine.yml"
    text = (project.root / "params" / "recipes" / "tiny.yml").read_text()
    file.write_text(text.replace("tiny", "mine") + "n_bins: 3\n")
    found = cli.gather("02_bin", [], str(file))
    assert found == {"recipe": str(file)}
    job = plan.job_of("02_bin", found)
    assert job.recipe.n_bins == 3 and job.recording == "000021" and job.recipe_name == str(file)


@pytest.mark.parametrize(
    ("pairs", "text", "said"),
    [
        ([["n_bin", "3"]], "", "did you mean n_bins"),
        ([], "n_bin: 3", "did you mean n_bins"),
        ([["n_bins", "3"], ["n_bins", "5"]], "", "-p n_bins stands twice"),
        ([], "- a list", "expected 'name: value' lines"),
        ([], "a: [", "not readable as YAML"),
    ],
)
def test_a_bad_file_or_name_is_refused(project, tmp_path, pairs, text, said):
    file = tmp_path / "some.yml"
    file.write_text(text)
    with pytest.raises(BadParameter) as error:
        cli.gather("02_bin", pairs, str(file) if text else None)
    assert said in str(error.value)
    with pytest.raises(BadParameter, match="cannot be read"):
        cli.gather("02_bin", [], str(tmp_path / "absent.yml"))


# --- run -----------------------------------------------------------------------------------------


def test_run_hands_typed_values_to_the_runner(project, asked):
    command = [
        "run",
        "02",
        "-p",
        "recipe",
        "tiny",
        "-p",
        "recording",
        "000021",
        "-p",
        "n_bins",
        "3",
    ]
    assert cli.main([*command, "--with-upstream", "--force", "--quiet"]) == 0
    ((notebook, values, options),) = asked
    assert notebook == "02"
    assert values == {"recipe": "tiny", "recording": "000021", "n_bins": 3}
    assert options == {"with_upstream": True, "force": True, "progress": False}


def test_a_cohort_is_run_recording_by_recording(project, asked, monkeypatch, capsys):
    project.recipe("cohort", ["a", "b", "c"])
    assert cli.main(["run", "01_ingest", "-p", "recipe", "cohort"]) == 0
    assert [values["recording"] for _, values, _ in asked] == ["a", "b", "c"]

    together = []

    def run_many(jobs, n_jobs, **options):
        together.append((jobs, n_jobs))
        return [SimpleNamespace(code=code) for code in (0, 3, 0)]

    monkeypatch.setattr(many, "run_many", run_many)
    assert cli.main(["run", "01_ingest", "-p", "recipe", "cohort", "--jobs", "2"]) == 3
    ((jobs, n_jobs),) = together
    assert n_jobs == 2 and [job[1]["recording"] for job in jobs] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "07_dreams"], "no notebook '07_dreams'"),
        (["run", "01_ingest", "-p", "sessoin", "1"], "unknown parameter 'sessoin'"),
        (["run", "02_bin", "-p", "n_bins", "4"], "n_bins must be one of"),
        (["run", "02_bin", "-p", "recipe", "tiny", "-p", "n_bins", "x"], "n_bins = 'x'"),
        (["run", "90_results", "-p", "n_bins", "3"], "unknown parameter 'n_bins'"),
    ],
)
def test_bad_parameters_end_with_2_and_one_line(project, monkeypatch, capsys, arguments, said):
    monkeypatch.setattr(kernel, "execute", None)
    project.recipe("demo", ["demo"])
    project.notebook("90_results")
    assert cli.main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("nblib: ") and said in err and err.count("\n") == 1


NO_COMMANDS = """

fly
run
allen
allen get
run 01 --jobs x
run 01 --jobs 0
run 01 -p n_bins
status --all
sweep
sweep s.yml --jobs -1
cancel
job plan
inventory
cohort
audit x
du x
gc x
verify x
doctor x
version x
book --nonsense
results --csv
""".splitlines()[1:]


@pytest.mark.parametrize("arguments", NO_COMMANDS)
def test_a_command_that_is_not_one_ends_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as error:
        cli.main(arguments.split())
    assert error.value.code == 2
    assert "usage: nblib" in capsys.readouterr().err


LONG = "x" * 5000


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["run", LONG], 2, "no notebook 'xxx"),
        (["run", f"{LONG[:300]}.ipynb"], 1, "File name too long"),
        (["run", "01_ingest", "-p", "recipe", LONG], 2, "no recipe 'xxx"),
        (["run", "01_ingest", "-p", "recipe", f"{LONG}.yml"], 2, "File name too long"),
        (["run", "01_ingest", "-p", "recording", LONG], 2, "a recording id may hold letters"),
        (["run", "01_ingest", "-f", "/"], 2, "cannot be read (Is a directory)"),
        (["run", "none.ipynb"], 2, "no such notebook"),
        (["sweep", "none.yml"], 2, "cannot be read (No such file or directory)"),
        (["status", "none.yml"], 2, "cannot be read (No such file or directory)"),
        (["cancel", "none.yml"], 2, "no sweep of this file was begun"),
        (["job", "none.json", "a"], 1, "No such file or directory"),
        (["inventory", "/none"], 1, "no such folder"),
        (["cohort", "/none"], 1, "no LFP_Data"),
        (["published", "none.csv"], 1, "no such file"),
        (["results", "--csv", "/none/runs.csv"], 1, "cannot be written (Cannot save file into a non-existent directory"),
    ],
)  # fmt: skip
def test_nonsense_is_answered_in_one_line(project, capsys, arguments, code, said):
    assert cli.main(arguments) == code
    err = capsys.readouterr().err
    assert err.startswith("nblib: ") and said in err and err.count("\n") == 1 and len(err) < 1000


def test_cancel_without_a_cluster_says_where_to_call_it(project, capsys, monkeypatch):
    path = project.root / "s.yml"
    cluster.folder_of(path).mkdir(parents=True)
    monkeypatch.setattr(cluster.shutil, "which", lambda name: None)
    assert cli.main(["cancel", str(path)]) == 1
    assert "no Slurm (sbatch, squeue, scancel) on this machine" in capsys.readouterr().err
    monkeypatch.undo()
    tiny_project.enter(project.root.parent / "again", monkeypatch)
    cluster.folder_of(path).mkdir(parents=True)
    refuse = SimpleNamespace(returncode=1, stdout="", stderr="squeue: error: a\nsqueue: fatal: b\n")
    monkeypatch.setattr(cluster, "is_here", lambda: True)
    monkeypatch.setattr(cluster.subprocess, "run", lambda *a, **k: refuse)
    assert cli.main(["cancel", str(path)]) == 1
    err = capsys.readouterr().err
    assert "squeue: fatal: b" in err and "login node" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EROFS, "may not be written (Read-only file system); point NBLIB_HOME at a folder of"),
        (errno.EACCES, "may not be written (Permission denied)"),
        (errno.ENOSPC, "no space left on the disk"),
        (errno.EIO, "Input/output error."),
    ],
)  # fmt: skip
def test_a_disk_that_refuses_is_told_in_one_line(project, capsys, monkeypatch, number, said):
    def refuse(*_given, **_more):
        raise OSError(number, os.strerror(number), str(project.home / "file"))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert cli.main(["run", "01_ingest", "-p", "recipe", "tiny", "--quiet"]) == 3
    monkeypatch.setattr(store, "artifacts", refuse)
    assert cli.main(["status"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(line.startswith("nblib: /") for line in lines), lines
    assert all(said in line for line in lines), lines


def test_a_recording_that_may_not_be_read_is_no_matter_of_the_data_root(
    project, capsys, monkeypatch
):
    def refuse(*_given, **_more):
        raise PermissionError(errno.EACCES, "Permission denied", "/there/raw.nwb")

    monkeypatch.setattr(store, "artifacts", refuse)
    assert cli.main(["status"]) == 1
    assert capsys.readouterr().err == "nblib: /there/raw.nwb: Permission denied.\n"


# --- the other commands --------------------------------------------------------------------------


def commit(name: str = "out.txt", recording: str = "000021"):
    def write(folder):
        (folder / name).write_text("data")

    key = store.make_key("01_ingest", 1, {"name": name}, [])
    extra = {"recipe": {"recipe": "tiny"}}
    return store.commit("01_ingest", recording, key, write, params={}, upstream=[], extra=extra)


def test_verify_names_what_changed(project, capsys):
    folder, _ = commit(), commit("other.txt")
    assert cli.main(["verify"]) == 0
    assert "2 artifacts hold the bytes they were written with; 0 faults" in capsys.readouterr().out
    (folder / "out.txt").write_text("Data")
    assert cli.main(["verify"]) == 1
    out = capsys.readouterr().out
    assert f"BROKEN  {folder / 'out.txt'}" in out and "1 artifacts hold" in out


def test_status_lists_artifacts_and_failures(project, capsys):
    assert cli.main(["status"]) == 0
    assert "no artifacts yet" in capsys.readouterr().out
    folder = commit()
    kept = project.home / "failed" / "000021" / "02_bin-0123.ipynb"
    kept.parent.mkdir(parents=True)
    error = {
        "output_type": "error",
        "ename": "ValueError",
        "evalue": "a\nno spikes",
        "traceback": [],
    }
    kept.write_text(json.dumps({"cells": [{"cell_type": "code", "outputs": [error]}]}))
    dead = kept.with_name("03_clean-0123.ipynb")
    note = {"cell_type": "markdown", "source": "**This run did not end well: killed.**"}
    dead.write_text(json.dumps({"cells": [note]}))
    kept.with_name(f"04_split-0123.99999999@{platform.node()}.running.ipynb").write_text("{")
    kept.with_name("05-0123.ipynb").write_text("{")
    assert cli.main(["status"]) == 0
    out = capsys.readouterr().out
    assert folder.name in out and "tiny" in out and "1 artifacts" in out
    assert "4 failed notebooks" in out and "ValueError: no spikes" in out
    assert "did not end well: killed" in out and "its runner was killed" in out
    assert "not readable" in out


def test_results_are_shown_and_written(project, capsys, tmp_path):
    assert cli.main(["results", "--csv", str(tmp_path / "runs.csv")]) == 0
    assert "no runs yet" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "runs.csv")
    assert {"source", "metric", "value", "code_version"} <= set(table.columns)
    assert cli.main(["results", "--parquet", str(tmp_path / "runs.parquet")]) == 0
    assert list(pd.read_parquet(tmp_path / "runs.parquet").columns) == list(table.columns)


def test_published_tables_are_taken_in_and_listed(project, capsys, tmp_path):
    table = tmp_path / "svc.csv"
    rows = "recording,model,metric,value,unit,selected,source\n"
    rows += "".join(
        f"{n},SVC,accuracy,0.92,unknown,on test,a paper\n" for n in (715093703, 754312389)
    )
    table.write_text(rows)
    assert cli.main(["published", str(table)]) == 0
    assert "unit unknown: 715093703 accuracy 0.92" in capsys.readouterr().out
    assert cli.main(["published"]) == 0
    assert "svc.csv: 2 numbers" in capsys.readouterr().out


def test_allen_hands_over(project, capsys, monkeypatch, tmp_path):
    from nblib.data import allen

    table = pd.DataFrame({"unit_count": [2]}, index=pd.Index(["715093703"], name="session_id"))
    monkeypatch.setattr(allen, "list_sessions", lambda: table)
    monkeypatch.setattr(allen, "download", lambda session: f"/there/{session}.nwb")
    assert cli.main(["allen", "list", "--csv", str(tmp_path / "allen.csv")]) == 0
    assert cli.main(["allen", "get", "715093703"]) == 0
    out = capsys.readouterr().out
    assert "715093703" in out and "/there/715093703.nwb" in out
    assert (tmp_path / "allen.csv").is_file()


def test_book_and_doctor_hand_over(monkeypatch):
    from nblib.book import build
    from nblib.run import doctor

    given = []
    monkeypatch.setattr(build, "build", lambda *options: given.append(options) or 0)
    monkeypatch.setattr(doctor, "main", lambda: 1)
    assert cli.main(["book", "--no-run", "--jobs", "1"]) == 0
    assert given == [(1, True, False, None)]
    assert cli.main(["doctor"]) == 1


def test_a_cohort_is_printed_as_a_recipe_takes_it(tmp_path, capsys):
    for folder, end in (("LFP_Data", "LFP"), ("INT_TIME", "TIME")):
        (tmp_path / folder).mkdir()
        for record in ("MouseA_1_X", "MouseA_2_X", "MouseB_1_X"):
            (tmp_path / folder / f"{record}_{end}.mat").touch()
    names = tmp_path / "training_names.txt"
    assert cli.main(["cohort", str(tmp_path), "--names", str(names)]) == 0
    assert capsys.readouterr().out == "recordings: [MouseA_1_X, MouseB_1_X]\n"
    assert names.read_text() == "MouseA_1_X\nMouseB_1_X\n"
    assert cli.main(["cohort", str(tmp_path), "--skip", "MouseA", "--all-records"]) == 0
    assert "[MouseB_1_X]" in capsys.readouterr().out
