"""Sweep files: strict, complete with what their runs rest on, run once and no more."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
import tiny_project
from tiny_project import wait_until

from nblib import cluster, runner, sweep
from nblib.cli import main
from nblib.errors import BadParameter

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def project(tmp_path, monkeypatch):
    made = tiny_project.make(tmp_path)
    for name, value in tiny_project.environment(made).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tempfile, "tempdir", None)
    made.recipe("cohort", ["a", "b"])
    return made


def write(project, text):
    path = project.root / "s.yml"
    path.write_text(text)
    return path


BOTH = """\
sweep: both
steps:
  - notebook: 03_clean
    params: {recipe: cohort}
    each: {recording: [a, b]}
"""


def test_what_runs_rest_on_is_found_and_made_once(project, capsys):
    path = write(project, BOTH)
    assert main(["sweep", str(path), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[-1].split() == ["all", "6", "0", "6"] and not project.committed()
    assert main(["sweep", str(path)]) == 0
    assert "6 of 6 runs done, 0 failed" in capsys.readouterr().out
    made = {p: p.stat().st_mtime_ns for p in project.committed()}
    assert len(made) == 6
    assert main(["sweep", str(path)]) == 0  # the store says that all is there
    assert {p: p.stat().st_mtime_ns for p in project.committed()} == made


def test_a_failure_takes_its_own_road_only(project, capsys):
    project.notebook("02_bin", f"assert stage.recording != 'a'\n---\n{tiny_project.COMMIT}")
    assert main(["sweep", str(write(project, BOTH))]) == 3
    assert sorted(p.parts[-2] for p in project.committed()) == ["a", "b", "b", "b"]
    assert "4 of 6 runs done, 2 failed" in capsys.readouterr().out


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
        ("sweep: s\nsteps: []", "no steps, so nothing would run"),
        ("- 1", "name: value"),
    ],
)
def test_a_faulty_sweep_is_refused_before_anything_runs(project, capsys, text, said):
    path = write(project, text)
    with pytest.raises(BadParameter, match=said):
        sweep.run(path, n_jobs=2, dry=True)
    assert main(["sweep", str(path)]) == 2 and str(path) in capsys.readouterr().err
    with pytest.raises(BadParameter, match="no such file"):
        sweep.read(path.with_name("none.yml"))


@pytest.mark.parametrize("path", sorted((ROOT / "params" / "sweeps").glob("*.yml")), ids=lambda p: p.stem)  # fmt: skip
def test_the_shipped_sweeps_can_be_planned(path, home, capsys):
    """Without data and without the network."""
    assert main(["sweep", str(path), "--dry-run"]) == 0
    assert int(capsys.readouterr().out.split()[-1]) >= len(sweep.read(path).runs()) > 0


def test_a_killed_sweep_leaves_no_kernel_and_goes_on_with_the_next_call(project):
    """SIGKILL while recording b sleeps; the second call repeats b's last step and no other."""
    work = (
        "import os, pathlib, time\n"
        "here = pathlib.Path(os.environ['NBLIB_HOME'])\n"
        "(here / f'begun-{stage.recording}-{os.getpid()}').touch()\n"
        "if stage.recording == 'b' and not (here / 'go').exists(): time.sleep(120)"
    )
    project.notebook("03_clean", f"{work}\n---\n{tiny_project.COMMIT}")
    path = write(project, BOTH)
    process = subprocess.Popen([sys.executable, "-m", "nblib", "sweep", str(path)])
    begun = lambda recording: list(project.home.glob(f"begun-{recording}-*"))  # noqa: E731
    wait_until(lambda: begun("b") and len(project.committed()) == 5)
    kernel = int(begun("b")[0].name.rpartition("-")[2])
    process.kill()
    process.wait()
    wait_until(lambda: not psutil.pid_exists(kernel))
    wait_until(lambda: project.sockets() == [])
    (project.home / "go").touch()
    assert main(["sweep", str(path)]) == 0
    assert len(project.committed()) == 6 and (len(begun("a")), len(begun("b"))) == (1, 2)


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
    needs = runner.needs(runs)
    assert needs[5] == {0, 1, 2, 3} and needs[10] == {6, 7, 8, 9} and needs[0] == set()
    jobs = cluster.make_jobs(runs)
    assert [j["kind"] for j in jobs] == ["stages", "train", "train"] * 2
    assert jobs[2]["needs"] == [jobs[0]["id"]]
