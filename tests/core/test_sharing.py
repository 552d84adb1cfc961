"""A data root that a group shares: whoever made a thing, the others can read it and go on from it."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest
import tiny_project

from nblib.core import store
from nblib.run import execute

KEY = "0123456789abcdef"
GROUP, ANNA, BEN = 54321, 54322, 54323  # a group and two people who are in it


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def modes(root: Path) -> dict[str, set[int]]:
    """The modes of all files and of all folders under a data root."""
    inside = list(root.rglob("*"))
    return {
        "files": {mode(p) for p in inside if p.is_file()},
        "folders": {mode(p) for p in inside if p.is_dir()},
    }


@pytest.fixture
def strict():
    """A person whose files are nobody else's business."""
    before = os.umask(0o077)
    yield
    os.umask(before)


def put(key: str = KEY) -> Path:
    def write(folder: Path) -> None:
        (folder / "plain.txt").write_text("x")
        inner = Path(tempfile.mkdtemp(dir=folder))  # 0700, whatever the umask
        (inner / "secret").touch(mode=0o600)

    return store.commit("02_bin", "r", key, write, params={}, upstream=[])


def test_a_groups_root_stays_the_groups(home, strict):
    home.chmod(0o2775)
    put()
    store.write_text(store.derived_recipes_dir() / "a.yml", "recipe: a")
    found = modes(home)
    assert found == {"files": {0o660}, "folders": {0o2770}}
    with store.shared(), store.shared():
        pass
    assert os.umask(0o077) == 0o077, "the person's own umask is back"


def test_a_person_who_lets_others_read_still_does(home):
    home.chmod(0o2775)
    put()
    assert modes(home) == {"files": {0o664}, "folders": {0o2775}}


@pytest.mark.parametrize("root", [0o700, 0o755])
def test_a_root_that_is_not_the_groups_is_left_to_the_umask(home, strict, root):
    home.chmod(root)
    put()
    assert modes(home) == {"files": {0o600}, "folders": {0o700}}


def test_a_root_that_is_not_there_yet_is_made_as_the_umask_says(home, strict):
    home.rmdir()
    put()
    assert mode(home) == 0o700 and modes(home)["files"] == {0o600}


def test_whole_runs_leave_nothing_that_is_ones_own(tmp_path, monkeypatch, strict):
    """A run, what it rests on, one that fails, a derived recipe, notes of hashes."""
    project = tiny_project.make(tmp_path)
    for name, value in tiny_project.environment(project).items():
        monkeypatch.setenv(name, value)
    project.home.chmod(0o2770)
    given = {"recipe": "tiny", "n_bins": 10}
    assert execute.run("02_bin", given, with_upstream=True, progress=False) == 0
    project.notebook("03_clean", "raise ValueError('no')")
    assert execute.run("03_clean", given, progress=False) == 3
    assert project.failed() and list((project.home / "recipes").iterdir())
    assert modes(project.home) == {"files": {0o660}, "folders": {0o2770}}


def test_a_colleague_can_go_on_from_a_checkpoint(home, strict):
    from models.easy_task import easy, fit

    from nblib import models

    home.chmod(0o2770)
    folder = store.log_dir("05_train_lstm", "r", KEY)
    decoder = models.make("mlp")
    fit(decoder, easy(40, 1), easy(20, 2), folder=folder)
    assert {p.suffix for p in folder.iterdir()} >= {".ckpt", ".csv"}
    assert modes(home) == {"files": {0o660}, "folders": {0o2770}}


# --- two people ----------------------------------------------------------------------------------


@pytest.fixture
def project_folder():
    """An empty data root of GROUP, where everybody may pass: pytest's own folders are private."""
    if os.getuid() != 0:
        pytest.skip("only root can become two other people")
    folder = Path(tempfile.mkdtemp(prefix="nblib-group-", dir="/tmp"))
    folder.chmod(0o755)
    root = folder / "home"
    root.mkdir()
    os.chown(root, 0, GROUP)
    root.chmod(0o2775)
    yield root
    shutil.rmtree(folder)


def as_person(user: int, root: Path, body: str) -> subprocess.Popen:
    """`body` in a process of `user`, umask 077, in GROUP; what it imports was imported before."""
    code = """
        import os, sys, tempfile, time
        from pathlib import Path
        from nblib.core import provenance, store
        from nblib.run import clean_up, execute
        provenance.environment()  # reads the installed packages, which may be another's
        os.setgroups([]); os.setgid({group}); os.setuid({user}); os.umask(0o077)
        os.chdir("/")
        def put(key, text, wait=lambda: None):
            def write(folder):
                (folder / "a.txt").write_text(text)
                wait()
            return store.commit("02_bin", "r", key, write, params={{}}, upstream=[])
    """
    text = textwrap.dedent(code).format(group=GROUP, user=user) + textwrap.dedent(body)
    return subprocess.Popen(
        [sys.executable, "-c", text], env={**os.environ, "NBLIB_HOME": str(root)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def done(process: subprocess.Popen) -> str:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out.strip()


def test_two_people_work_in_one_folder(project_folder):
    anna = """
        put("aaaa", "of Anna")
        store.write_text(store.home() / "recipes" / "x.yml", "of Anna")
    """
    done(as_person(ANNA, project_folder, anna))
    ben = """
        folder = store.open_artifact(store.folder("02_bin", "r", "aaaa"))
        assert put("aaaa", "of Ben") == folder and (folder / "a.txt").read_text() == "of Anna"
        store.write_text(folder / "executed.ipynb", "attached by Ben")
        put("bbbb", "beside it")
        store.write_text(store.home() / "recipes" / "x.yml", "of Ben")
        print(clean_up.gc(delete=True))
    """
    assert "Freed" in done(as_person(BEN, project_folder, ben))
    assert list(project_folder.glob("02_bin/r/*")) == []
    done(as_person(ANNA, project_folder, 'put("aaaa", "again")'))
    (again,) = project_folder.glob("02_bin/r/*")
    assert (again.stat().st_uid, again.stat().st_gid, mode(again)) == (ANNA, GROUP, 0o2770)


def test_two_people_commit_one_key_at_once(project_folder):
    both = """
        def wait():
            (store.home() / f"met-{os.getuid()}").touch()
            while len(list(store.home().glob("met-*"))) < 2: time.sleep(0.01)
        print(put("cccc", str(os.getuid()), wait))
    """
    people = [as_person(user, project_folder, both) for user in (ANNA, BEN)]
    places = {done(process) for process in people}
    assert places == {str(project_folder / "02_bin" / "r" / "cccc")}
    assert [p.name for p in (project_folder / "02_bin" / "r").iterdir()] == ["cccc"]


def test_what_a_colleague_is_writing_is_no_leftover(project_folder):
    writing = """
        def wait():
            print("writing", flush=True)
            time.sleep(60)
        put("dddd", "half", wait)
    """
    slow = as_person(ANNA, project_folder, writing)
    try:
        assert slow.stdout.readline() == "writing\n"
        done(as_person(BEN, project_folder, 'put("eeee", "x")'))
        assert len(list(project_folder.glob("02_bin/r/.dddd.*"))) == 1
    finally:
        slow.kill()
        slow.communicate()
    done(as_person(BEN, project_folder, 'put("ffff", "x")'))
    assert len(list(project_folder.glob("02_bin/r/.dddd.*"))) == 0
