"""Sweep files: strict, complete with what their runs rest on, run once and no more."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import tiny_project
from tiny_project import wait_until

from nblib.cli import main
from nblib.core.errors import BadParameter
from nblib.road.stage_registry import STAGES
from nblib.run import cluster, plan, sweep, sweep_recordings

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("preloaded")


@pytest.fixture
def project(project):
    project.recipe("cohort", ["a", "b"])
    return project


def write(project, text):
    path = project.root / "s.yml"
    path.write_text(text)
    return path


BOTH = """\
sweep: s
steps:
  - notebook: 03_clean
    params: {recipe: cohort}
    each: {recording: [a, b]}
"""


def test_what_runs_rest_on_is_found_and_made_once(project, capsys):
    path = write(project, BOTH)
    assert main(["sweep", str(path), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "all                            6     0      6" in said and not project.committed()
    assert said.count("never made") == 6 and "4 of these are not asked for" in said
    assert main(["sweep", str(path)]) == 0
    assert "6 of 6 runs done, 0 failed" in capsys.readouterr().out
    made = {p: p.stat().st_mtime_ns for p in project.committed()}
    assert len(made) == 6
    assert main(["sweep", str(path)]) == 0  # the store says that all is there
    assert {p: p.stat().st_mtime_ns for p in project.committed()} == made


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOTH.replace("each", "eahc"), "eahc"),
        (BOTH.replace("[a, b]", "[]"), "each.recording is empty"),
        (BOTH.replace("[a, b]", "[a, a]"), r"recording='a'\) stands twice"),
        (BOTH.replace("[a, b]", "[a, c]"), "'c' is not in recipe"),
        (BOTH.replace("[a, b]", "[a, 21]"), "recording = 21"),
        (BOTH.replace("03_clean", "03_claen"), "no notebook '03_claen'; did you mean"),
        (BOTH + "    show_me: 1", "show_me"),
        ("sweep: s\nsteps: []", "no steps and no search, so nothing would run"),
        (BOTH + "resources: {trian: {runtime: 5}}", r"resources.trian: there are stages, train"),
        (BOTH.replace("each: {recording: [a, b]}", "recordings: []"), "recordings is empty"),
        (BOTH + "    recordings: [a]", "recording is given twice"),
        (BOTH + "    models: []", "models is empty"),
        (BOTH.replace("sweep: s", "sweep: t"), "calls itself 't'; name and file must agree"),
        (
            BOTH.replace("[a, b]", "[a], seed: [1]") + "    models: [{lstm: {seed: 2}}]",
            "seed is given twice",
        ),
        (BOTH + "    models: [{lstm: 5, gru: 6}]", "expected a name, or one name"),
        (
            BOTH + "    models: [{lstm: papers}]",
            "lstm: 'papers': expected settings, or defaults or lab",
        ),
        (BOTH + "    models: [{lstm: {model: gru}}]", "names another model, 'gru'"),
        (BOTH + "    models: [lstm]", "unknown parameter 'model'"),
        ("steps: []", "'sweep' is missing"),
        ("- 1", "name: value"),
    ],
)
def test_a_faulty_sweep_is_refused_before_anything_runs(project, capsys, text, said):
    path = write(project, text)
    with pytest.raises(BadParameter, match=said):
        sweep.run(path, n_jobs=2, dry=True)
    assert main(["sweep", str(path)]) == 2 and str(path) in capsys.readouterr().err
    with pytest.raises(BadParameter, match="cannot be read"):
        sweep.read(path.with_name("none.yml"))


@pytest.mark.parametrize("path", sorted((ROOT / "params" / "sweeps").glob("*.yml")), ids=lambda p: p.stem)  # fmt: skip
def test_the_shipped_sweeps_can_be_planned(path, home, capsys):
    """Without data and without the network."""
    assert main(["sweep", str(path), "--dry-run"]) == 0
    (line,) = [row for row in capsys.readouterr().out.splitlines() if row.startswith("all ")]
    plan = sweep.read(path)
    assert int(line.split()[3]) >= len(plan.runs()) and (plan.runs() or plan.studies())


def test_a_killed_sweep_leaves_no_kernel_and_goes_on_with_the_next_call(project, capsys):
    """SIGKILL while recording b sleeps in 03, and c has failed in 02; the second call repeats b's last
    step, and of a's none. `nblib status` says at each moment how it stands."""
    project.recipe("cohort", ["a", "b", "c"])
    project.notebook("02_bin", f"assert stage.recording != 'c', 'no spikes'\n---\n{tiny_project.COMMIT}")  # fmt: skip
    work = (
        "import os, pathlib, time\n"
        "here = pathlib.Path(os.environ['NBLIB_HOME'])\n"
        "(here / f'begun-{stage.recording}-{os.getpid()}').touch()\n"
        "if stage.recording == 'b' and not (here / 'go').exists(): time.sleep(120)"
    )
    project.notebook("03_clean", f"{work}\n---\n{tiny_project.COMMIT}")
    path = write(project, BOTH.replace("[a, b]", "[c, a, b]"))
    process = subprocess.Popen([sys.executable, "-m", "nblib", "sweep", str(path)])
    begun = lambda recording: list(project.home.glob(f"begun-{recording}-*"))  # noqa: E731
    wait_until(lambda: begun("b") and len(project.committed()) == 6 and project.failed())

    def rows():
        assert main(["status", str(path)]) == 0
        said = capsys.readouterr().out
        return said, {r.split()[0]: r.split()[1:] for r in said.splitlines() if r[:2] in ("01", "02", "03")}  # fmt: skip

    wait_until(lambda: rows()[1]["02_bin"] == ["2", "0", "0", "1"])
    said, count = rows()
    assert count["01_ingest"] == ["3", "0", "0", "0"] and count["03_clean"] == ["1", "1", "1", "0"]
    assert "failed: 02_bin c" in said and "AssertionError: no spikes" in said
    assert "running: 03_clean b" in said
    kernel = int(begun("b")[0].name.rpartition("-")[2])
    process.kill()
    process.wait()
    wait_until(lambda: not psutil.pid_exists(kernel))
    wait_until(lambda: project.sockets() == [])
    wait_until(lambda: rows()[1]["03_clean"] == ["1", "0", "1", "1"])
    assert "SIGTERM" in rows()[0]
    (project.home / "go").touch()
    assert main(["sweep", str(path)]) == 3
    assert rows()[1]["03_clean"] == ["2", "0", "1", "0"]
    assert len(project.committed()) == 7 and (len(begun("a")), len(begun("b"))) == (1, 2)


def test_recordings_that_are_not_fetched_yet_can_be_planned(project, monkeypatch):
    """Two sessions of the Allen Institute, no file and no network: keys are not known, order is."""
    recipe = (ROOT / "params" / "recipes" / "allen_natural_scenes.yml").read_text()
    (project.root / "params" / "recipes" / "allen_natural_scenes.yml").write_text(recipe)
    for name in ("04_split", "05_train_lstm"):
        project.notebook(name)
    path = write(
        project,
        "sweep: s\nparams: {recipe: allen_natural_scenes}\nsteps:\n  - notebook: 05_train_lstm\n"
        '    each: {recording: ["715093703", "719161530"], model: [lstm, gru]}\n',
    )
    runs = sweep.with_roads(sweep.check(sweep.read(path), path))
    assert [name for name, _ in runs] == [
        "01_ingest", "02_bin", "03_clean", "04_split", "05_train_lstm", "05_train_lstm",
    ] * 2  # fmt: skip
    needs = plan.needs(runs)
    assert needs[5] == {0, 1, 2, 3} and needs[10] == {6, 7, 8, 9} and needs[0] == set()
    jobs = cluster.make_jobs(runs)
    assert [j["kind"] for j in jobs] == ["stages", "train", "train"] * 2
    assert jobs[2]["needs"] == [jobs[0]["id"]]


# --- what a sweep may name -----------------------------------------------------------------------


def test_models_bring_their_own_settings(project):
    step = sweep.Step(
        notebook="05_train_lstm",
        params={},
        models=["gru", {"lstm": "lab"}, {"lstm": {"max_epochs": 3, "model_params": {"hidden": 5}}}],
        each={"seed": [0, 1]},
    )
    folder = project.root / "params" / "models"
    folder.mkdir()
    (folder / "lstm.yml").write_text((ROOT / "params" / "models" / "lstm.yml").read_text())
    given = [values for _, values in step.runs({})]
    assert [(g["model"], g["seed"]) for g in given] == [(m, s) for m in ("gru", "lstm", "lstm") for s in (0, 1)]  # fmt: skip
    assert given[2]["model_params"]["hidden"] == 1000 and given[2]["max_epochs"] == 15
    assert given[4]["model_params"] == {"hidden": 5} and set(given[0]) == {"model", "seed"}
    # A model of which nothing was published has no file.
    plain = sweep.Step(notebook="05_train_lstm", models=[{"gru": "defaults"}])
    assert [values for _, values in plain.runs({})] == [{"model": "gru"}]
    with pytest.raises(BadParameter, match=r"gru.yml: cannot be read"):
        sweep.Step(notebook="05_train_lstm", models=[{"gru": "lab"}]).runs({})


def test_a_wrong_setting_of_a_model_is_found_before_anything_runs(project):
    for name in ("04_split", "05_train_lstm"):
        project.notebook(name)
    text = BOTH.replace("03_clean", "05_train_lstm").replace("[a, b]}", "[a]}")
    path = write(project, text + "    models: [{lstm: {model_params: {hiden: 5}}}]\n")
    with pytest.raises(
        BadParameter, match=r"s.yml: 05_train_lstm .*unknown hiden; valid names: hidden"
    ):
        sweep.check(sweep.read(path), path)


def test_files_by_a_pattern(project, tmp_path):
    folder = tmp_path / "nwb"
    folder.mkdir()
    for name in ("m2", "m1"):
        (folder / f"{name}.nwb").write_bytes(name.encode())
    text = "sweep: s\nparams: {recipe: tiny}\nsteps:\n  - notebook: 02_bin\n    recordings: {files: PATTERN}\n"
    path = write(project, text.replace("PATTERN", f"{folder}/*.nwb"))
    runs = sweep.check(sweep.read(path), path)
    assert [r[1]["recording"] for r in runs] == ["m1", "m2"]
    recipe = plan.job_of(*runs[0]).recipe
    assert recipe.recordings == ["m1", "m2"] and recipe.file("m2") == folder / "m2.nwb"
    # The key is that of the file's content, whatever recipe named it.
    keys = {plan.job_of("01_ingest", r[1]).key for r in runs}
    assert len(keys) == 2
    for pattern, said in [
        (f"{folder}/*.mat", "no file matches"),
        ("nwb/*.nwb", "give an absolute path"),
        (f"{folder.parent}/**/*.nwb", "matches .* and .*write a step for each"),
        (f"{folder}/*", "cannot be a recording id"),
    ]:
        if "**" in pattern:
            (folder / "more").mkdir()
            (folder / "more" / "m3.nwb").touch()
        if pattern.endswith("/*"):
            for name in ("m1", "m2"):
                (folder / f"{name}.nwb").unlink()
            (folder / "a b.nwb").touch()
        bad = write(project, text.replace("PATTERN", pattern))
        with pytest.raises(BadParameter, match=f"(?s)s.yml: .*{said}"):
            sweep.check(sweep.read(bad), bad)


SESSIONS = """\
session_id,session_type,unit_count,sex,ecephys_structure_acronyms
715093703,brain_observatory_1.1,884,M,"['CA1', 'VISp', nan]"
719161530,brain_observatory_1.1,755,M,"['CA1', 'VISam']"
721123822,brain_observatory_1.1,444,F,"['VISp']"
766640955,functional_connectivity,842,F,"['VISp']"
"""


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        ({"session_type": "brain_observatory_1.1"}, ["715093703", "719161530", "721123822"]),
        ({"unit_count": {"min": 755}, "sex": "M"}, ["715093703", "719161530"]),
        ({"unit_count": {"max": 444}}, ["721123822"]),
        ({"ecephys_structure_acronyms": "VISp", "unit_count": {"min": 500, "max": 883}}, ["766640955"]),
        ({"ecephys_structure_acronyms": ["VISam", "VISl"]}, ["719161530"]),
        ({"unit_count": 884.0, "session_id": "715093703"}, ["715093703"]),
    ],
)  # fmt: skip
def test_sessions_by_a_query(tmp_path, home, wanted, ids):
    table = tmp_path / "sessions.csv"
    table.write_text(SESSIONS)
    chosen = sweep_recordings.Recordings(query=wanted, table=str(table))
    by_source = {"allen": wanted, "table": str(table)}  # a query may go by the name of its source
    assert sweep_recordings.Recordings.model_validate(by_source) == chosen
    recipe, found = sweep_recordings.settle(chosen, "allen_natural_scenes")
    assert found == ids
    assert plan.recordings_of(recipe) == ids


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"unit_cout": 5}, "no column 'unit_cout'; there are session_type"),
        ({"unit_count": {"at least": 5}}, "expected min, max or both"),
        ({"sex": {"min": 5}}, "'M' is not a number"),
        ({"sex": "X"}, "none of 4 sessions"),
        ({"unit_count": {"min": "a"}}, "'a' is not a number"),
    ],
)
def test_a_faulty_query_is_refused(tmp_path, home, wanted, said):
    table = tmp_path / "sessions.csv"
    table.write_text(SESSIONS)
    with pytest.raises(BadParameter, match=said):
        sweep_recordings.settle(
            sweep_recordings.Recordings(query=wanted, table=str(table)), "allen_natural_scenes"
        )


def test_simulated_recordings_never_take_the_name_of_real_ones(tmp_path, home):
    """Otherwise their scores would stand beside published numbers of real sessions."""
    table = tmp_path / "sessions.csv"
    table.write_text(SESSIONS)
    with pytest.raises(BadParameter, match=r"recipe 'demo' is of source 'simulate'"):
        sweep_recordings.settle(
            sweep_recordings.Recordings(query={"sex": "F"}, table=str(table)), "demo"
        )
    (tmp_path / "m1.nwb").touch()
    with pytest.raises(BadParameter, match="simulates its recordings and reads no file"):
        sweep_recordings.settle(sweep_recordings.Recordings(files=f"{tmp_path}/*.nwb"), "tiny")


def test_a_failure_takes_its_own_road_only_and_is_a_reason(project, capsys):
    """Recording a loses its kernel once, and is tried once more; b's notebook is wrong, and is not."""
    work = (
        "import os, pathlib\n"
        "marks = pathlib.Path(os.environ['NBLIB_HOME'])\n"
        "mark = marks / f'{stage.recording}-{len(list(marks.glob(stage.recording + \"-*\")))}'\n"
        "mark.touch()\n"
        "if mark.name == 'a-0': os.kill(os.getpid(), 9)\n"
        "assert stage.recording != 'b'"
    )
    project.notebook("02_bin", f"{work}\n---\n{tiny_project.COMMIT}")
    path = write(project, BOTH)
    assert main(["sweep", str(path)]) == 3
    said = capsys.readouterr().out
    assert "Tried once more: 02_bin a" in said and "4 of 6 runs done, 2 failed" in said
    assert sorted(p.name for p in project.home.glob("?-?")) == ["a-0", "a-1", "b-0"]
    assert sorted(p.parts[-2] for p in project.committed()) == ["a", "a", "a", "b"]
    assert main(["sweep", str(path), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "failed before: " in said and "/failed/b/02_bin-" in said
    assert "never made" in said  # 03_clean of b
    (line,) = [row for row in said.splitlines() if row.startswith("03_clean  ")]
    assert line.split()[:4] == ["03_clean", "2", "1", "1"] and line.split()[-1] == "s"  # as a took
    path = write(project, BOTH.replace("cohort}", "cohort, n_bins: 10}"))
    assert main(["sweep", str(path), "--dry-run"]) == 0
    assert "made before with another n_bins" in capsys.readouterr().out
    (project.root / "raw.nwb").write_bytes(b"another file")
    path = write(project, BOTH)
    assert main(["sweep", str(path), "--dry-run"]) == 0
    assert "made before, from another input or by another version" in capsys.readouterr().out


def test_the_longleaf_profile_asks_for_a_gpu_where_networks_train(tmp_path):
    """Snakemake reads the shipped profile and plans a job of every kind, without a cluster."""
    profile = ROOT / "workflow" / "profiles" / "longleaf"
    kinds = [*dict.fromkeys(info.kind for info in STAGES.values()), cluster.SEARCH]
    jobs = [{"id": f"{kind}-{i}", "kind": kind, "runs": [], "needs": []} for i, kind in enumerate(kinds)]  # fmt: skip
    (tmp_path / "plan.json").write_text(json.dumps({"jobs": jobs}))
    done = subprocess.run(
        [
            Path(sys.executable).with_name("snakemake"), "--snakefile", ROOT / "workflow" / "Snakefile",
            "--workflow-profile", profile, "--directory", tmp_path,
            "--config", f"plan={tmp_path / 'plan.json'}", f"python={sys.executable}",
            *cluster.resource_arguments(profile, {"train": {"runtime": 7}}), "--dry-run", "--nocolor",
        ],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = dict(re.findall(r"rule (\w+):.*?resources: ([^\n]*)", done.stdout + done.stderr, re.S))
    assert set(kinds) <= set(told)
    on_gpu = {kind for kind in kinds if "gres=gpu:1" in told[kind] and "slurm_partition=a100-gpu" in told[kind]}  # fmt: skip
    assert on_gpu == {"train", "graph", "pretext", "search"}
    assert "runtime=7" in told["train"] and "mem_mb=16000" in told["stages"]
