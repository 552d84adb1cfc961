"""What every test shares: one thread, a data root of its own, and the real recordings if any."""

from __future__ import annotations

import os

# Before numpy or torch is imported anywhere: the suite runs two workers on two cores.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["WANDB_MODE"] = "offline"

import nblib.run.kernel  # noqa: E402, F401 - before nbformat: without the grammar of web addresses

# isort: split
import subprocess  # noqa: E402
from pathlib import Path  # noqa: E402
from types import SimpleNamespace  # noqa: E402

import pytest  # noqa: E402
import tiny_project  # noqa: E402
from conduct import in_order, lacking, scope  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
NO_DATA = "needs real data: "  # how the skips of the terminal summary are recognised


@pytest.hookimpl(optionalhook=True)  # without xdist there are no workers
def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return scope(nodeid)

    config.option.loadscopereorder = False  # as collected, see below
    return Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {nodeid: i for i, nodeid in enumerate(in_order([item.nodeid for item in items]))}
    items.sort(key=lambda item: place[item.nodeid])


@pytest.fixture(scope="session", autouse=True)
def _own_home(tmp_path_factory) -> None:
    """No test, and no process that a test starts, ever touches the user's data root."""
    before = os.environ.get("NBLIB_HOME")
    os.environ["NBLIB_HOME"] = str(tmp_path_factory.mktemp("nblib_home"))
    yield
    if before is None:
        del os.environ["NBLIB_HOME"]
    else:
        os.environ["NBLIB_HOME"] = before


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """An empty data root for one test."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("NBLIB_HOME", str(folder))
    return folder


@pytest.fixture
def project(tmp_path, monkeypatch) -> tiny_project.Project:
    """A project of one-cell notebooks, with an empty data root."""
    return tiny_project.enter(tmp_path, monkeypatch)


@pytest.fixture
def preloaded(monkeypatch) -> None:
    """Jobs, and single runs, begin with their imports done."""
    from preloaded import Forked, run

    from nblib.run import execute, many

    monkeypatch.setattr(execute, "run", run)
    monkeypatch.setattr(many, "subprocess", SimpleNamespace(Popen=Forked, PIPE=subprocess.PIPE))


@pytest.fixture
def forked_kernels(monkeypatch) -> None:
    """Kernels are forks of the tests' own process, as those of a job are forks of the job."""
    from nblib.run import kernel

    parent = SimpleNamespace(parent_process=os.getppid)
    monkeypatch.setattr(kernel, "multiprocessing", parent)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def real_data():
    """`real_data(name)` -> path of a real recording; skips the test where there is none."""

    def find(name: str) -> Path:
        folder = os.environ.get("NBLIB_TEST_DATA", "")
        if not folder:
            lacking(f"{NO_DATA}NBLIB_TEST_DATA is not set ({name})")
        path = Path(folder) / name
        if not path.is_file():
            lacking(f"{NO_DATA}{path} does not exist")
        return path

    return find


def pytest_terminal_summary(terminalreporter) -> None:
    """Say how many tests did not run for want of the real recordings."""
    reports = terminalreporter.stats.get("skipped", [])
    reasons = [str(r.longrepr[2]) if isinstance(r.longrepr, tuple) else "" for r in reports]
    missing = sum("NBLIB_TEST_DATA" in reason or NO_DATA in reason for reason in reasons)
    where = os.environ.get("NBLIB_TEST_DATA") or "not set"
    terminalreporter.write_line(
        f"real recordings: {missing} tests skipped without them (NBLIB_TEST_DATA: {where})"
    )
