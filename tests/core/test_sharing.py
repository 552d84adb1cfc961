"""A data root that a group shares: whoever made a thing, the others can read it and go on from it."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import tempfile
import time
from pathlib import Path

import pytest
from forks import Fork
from tiny_project import wait_until

from nblib.core import provenance, store
from nblib.run import clean_up, execute

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


def test_whole_runs_leave_nothing_that_is_ones_own(project, forked_kernels, strict):
    """A run, what it rests on, one that fails, a derived recipe, notes of hashes."""
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
def as_person(monkeypatch):
    """`as_person(user, work)`: work in a process of theirs, umask 077, in an empty data root of GROUP.

    Everybody may pass there: pytest's own folders are private.
    """
    if os.getuid() != 0:
        pytest.skip("only root can become two other people")
    folder = Path(tempfile.mkdtemp(prefix="nblib-group-", dir="/tmp"))
    folder.chmod(0o755)
    root = folder / "home"
    root.mkdir()
    os.chown(root, 0, GROUP)
    root.chmod(0o2775)
    monkeypatch.setenv("NBLIB_HOME", str(root))
    provenance.environment()  # reads the installed packages, which may be another's

    def body(user, work):
        os.chdir("/")
        os.umask(0o077)
        os.setgroups([]), os.setgid(GROUP), os.setuid(user)
        work()

    yield lambda user, work: Fork(body, user, work)
    shutil.rmtree(folder)


def share(key, text, wait=lambda: None):
    def write(folder):
        (folder / "a.txt").write_text(text)
        wait()

    return store.commit("02_bin", "r", key, write, params={}, upstream=[])


def of_bin(pattern="*"):
    return list((store.home() / "02_bin" / "r").glob(pattern))


def test_two_people_work_in_one_folder(as_person):
    note = store.home() / "recipes" / "x.yml"

    def anna():
        share("aaaa", "of Anna")
        store.write_text(note, "of Anna")

    def ben():
        folder = store.open_artifact(store.folder("02_bin", "r", "aaaa"))
        assert share("aaaa", "of Ben") == folder
        assert (folder / "a.txt").read_text() == "of Anna"
        store.write_text(folder / "executed.ipynb", "attached by Ben")
        share("bbbb", "beside it")
        store.write_text(note, "of Ben")
        print(clean_up.gc(delete=True))

    as_person(ANNA, anna).done()
    assert "Freed" in as_person(BEN, ben).done()
    assert of_bin() == []
    as_person(ANNA, lambda: share("aaaa", "again")).done()
    (again,) = of_bin()
    assert (again.stat().st_uid, again.stat().st_gid, mode(again)) == (ANNA, GROUP, 0o2770)


def test_two_people_commit_one_key_at_once(as_person):
    def meet():
        (store.home() / f"met-{os.getuid()}").touch()
        wait_until(lambda: len(list(store.home().glob("met-*"))) == 2)

    def both():
        print(share("cccc", str(os.getuid()), meet))

    places = {person.done() for person in [as_person(user, both) for user in (ANNA, BEN)]}
    assert places == {f"{store.folder('02_bin', 'r', 'cccc')}\n"}
    assert [p.name for p in of_bin()] == ["cccc"]


def test_what_a_colleague_is_writing_is_no_leftover(as_person):
    slow = as_person(ANNA, lambda: share("dddd", "half", lambda: time.sleep(60)))
    wait_until(lambda: of_bin(".dddd.*/a.txt"))
    as_person(BEN, lambda: share("eeee", "x")).done()
    assert len(of_bin(".dddd.*")) == 1
    slow.kill()
    slow.done(-signal.SIGKILL)
    as_person(BEN, lambda: share("ffff", "x")).done()
    assert of_bin(".dddd.*") == []
