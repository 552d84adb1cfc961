"""The doctor's judgements, on machines that are made up; and once on this one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from nblib.run import doctor
from nblib.run.doctor import FAIL, OK, WARN

H100 = "NVIDIA H100, 81559 MiB, 560.35"


def torch_says(cuda="13.0", usable=1, error="", version="2.13.0+cu130"):
    return {"version": version, "cuda": cuda, "usable": usable, "error": error}


CPU = torch_says(cuda=None, usable=0, version="2.13.0+cpu")


@pytest.mark.parametrize(
    ("cards", "trouble", "torch", "status", "said", "fix"),
    [
        ([H100], "", torch_says(), OK, "H100", ""),
        ([], "", CPU, OK, "uses the CPU", ""),
        ([], "", torch_says(usable=0), WARN, "none visible", "--gres=gpu:1"),
        ([H100], "", CPU, FAIL, "CPU build and cannot use it", "make setup TORCH=cuda"),
        (
            ["Tesla V100"], "", torch_says(usable=0, error="RuntimeError: no kernel image"),
            FAIL, "no kernel image", "-p device cpu on purpose",
        ),
        (
            [H100], "", torch_says(usable=0, error="RuntimeError: driver too old"),
            FAIL, "driver too old", "new enough for CUDA 13.0",
        ),
        ([], "Driver/library version mismatch", torch_says(usable=0), FAIL, "version mismatch", "driver"),
        ([H100], "", torch_says(version="", error="no module named torch"), FAIL, "no module", "make setup"),
        (
            [H100, H100], "", torch_says(error="RuntimeError: ECC"),
            FAIL, "1 of 2", "CUDA_VISIBLE_DEVICES",
        ),
    ],
)  # fmt: skip
def test_a_card_that_cannot_be_used_is_loud(cards, trouble, torch, status, said, fix, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    check = doctor.gpu(cards, trouble, torch)
    assert check.status == status and said in check.found and fix in check.fix
    assert bool(check.fix) == (status != OK)


def test_a_hidden_card_is_told_as_hidden(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    check = doctor.gpu([H100], "", torch_says(usable=0, error="no device"))
    assert check.status == FAIL and "unset CUDA_VISIBLE_DEVICES" in check.fix


# --- packages ------------------------------------------------------------------------------------

WANTED = {
    "": [Requirement("numpy>=2.1,<3"), Requirement("h5py>=3")],
    "train": [Requirement("torch==2.13.0")],
    "lab": [Requirement("jupyterlab>=4")],
}
HAVE = {"numpy": "2.4.6", "h5py": "3.16.0", "torch": "2.13.0+cpu", "jupyterlab": "4.6.6"}
TESTED = {"numpy": "2.4.6", "h5py": "3.16.0", "torch": "2.13.0", "jupyterlab": "4.6.6"}


def by_name(checks):
    return {check.name: check for check in checks}


def test_all_packages_are_there():
    assert {c.status for c in doctor.packages(HAVE, WANTED, TESTED)} == {OK}


@pytest.mark.parametrize(
    ("gone", "name", "status", "fix"),
    [
        ("h5py", "packages", FAIL, "pip install -c constraints.txt -e '.'"),
        ("torch", "packages [train]", FAIL, "pip install -c constraints.txt -e '.[train]'"),
        ("jupyterlab", "packages [lab]", WARN, "-e '.[lab]'"),
    ],
)
def test_a_missing_package_comes_with_the_command(gone, name, status, fix):
    have = {k: v for k, v in HAVE.items() if k != gone}
    check = by_name(doctor.packages(have, WANTED, TESTED))[name]
    assert check.status == status and f"missing: {gone}" in check.found and fix in check.fix


def test_an_unfit_version_fails_and_an_untested_one_warns():
    checks = by_name(doctor.packages({**HAVE, "numpy": "1.26.4"}, WANTED, TESTED))
    assert checks["packages"].status == FAIL and "numpy 1.26.4 (needs " in checks["packages"].found
    checks = by_name(doctor.packages({**HAVE, "numpy": "2.2.0"}, WANTED, TESTED))
    assert checks["packages"].status == OK
    assert checks["tested versions"].status == WARN
    assert "numpy 2.2.0 (tested: 2.4.6)" in checks["tested versions"].found


def test_the_requirements_of_this_package_are_found():
    wanted = {extra: {r.name for r in needs} for extra, needs in doctor.requirements().items()}
    assert "pydantic" in wanted[""] and "torch" in wanted["train"] and "torch" not in wanted[""]
    assert "numpy" in doctor.tested_versions()


@pytest.mark.parametrize(
    ("version", "status"),
    [((3, 11, 7), OK), ((3, 11, 2), FAIL), ((3, 13, 0), OK), ((3, 9, 7), FAIL), ((3, 14, 0), FAIL)],
)
def test_python_must_be_one_that_was_tested(version, status):
    assert doctor.python(version).status == status


def test_the_kernel_must_start_this_python():
    python = "/env/bin/python"
    assert doctor.kernel({"nblib": python}, python).status == OK
    assert doctor.kernel({"nblib": "python"}, python).status == OK
    other = doctor.kernel({"nblib": "/old/bin/python"}, python)
    assert other.status == WARN and "/old/bin/python" in other.found
    missing = doctor.kernel({"python3": python}, python)
    assert missing.status == FAIL and "ipykernel install" in missing.fix


def test_missing_notebooks_are_named(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01_ingest.ipynb").touch()
    monkeypatch.setenv("NBLIB_PROJECT", str(tmp_path))
    check = doctor.notebooks()
    assert check.status == FAIL and "02_bin" in check.found and "01_ingest" not in check.found


# --- machine -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("free", "status"), [(500e9, OK), (5e9, WARN), (0.2e9, FAIL)], ids=["roomy", "nearly", "full"]
)
def test_a_disk_that_is_nearly_full(free, status):
    check = doctor.disk(Path("/data"), free, 1e12)
    assert check.status == status
    assert ("nearly full" in check.found and "NBLIB_HOME" in check.fix) == (status != OK)


def test_the_tightest_memory_limit_counts():
    assert doctor.memory({"machine": 64e9}).status == OK
    tight = doctor.memory({"machine": 512e9, "Slurm job": 4e9})
    assert tight.status == WARN and "4.0 GB may be used" in tight.found and "--mem" in tight.fix
    assert doctor.memory({"machine": 512e9, "Slurm job": 1e9}).status == FAIL


@pytest.mark.parametrize(
    ("environment", "limit"),
    [
        ({"SLURM_MEM_PER_NODE": "65536"}, 65536 * 2**20),
        ({"SLURM_MEM_PER_CPU": "2048", "SLURM_CPUS_ON_NODE": "4"}, 2**33),
        ({"SLURM_MEM_PER_NODE": "0"}, None),
        ({}, None),
    ],
)
def test_slurm_tells_the_memory_of_a_job(environment, limit, monkeypatch):
    for name in ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    limits = doctor.memory_limits()
    assert limits["machine"] > 0 and limits.get("Slurm job") == limit


def test_a_data_root_that_cannot_be_written(tmp_path):
    assert [c.status for c in doctor.writing(tmp_path)] == [OK, OK]
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    (check,) = doctor.writing(tmp_path / "file")
    assert check.status == FAIL and "NBLIB_HOME" in check.fix


# --- all of it -----------------------------------------------------------------------------------


def test_every_check_of_this_machine(home, monkeypatch):
    # torch and allensdk take seconds to import, and are asked by other tests.
    monkeypatch.setattr(doctor, "probe_torch", lambda: CPU)
    monkeypatch.setattr(doctor, "cards", lambda: ([], ""))
    monkeypatch.setattr(doctor, "allensdk", lambda: doctor.Check("allensdk", OK, "here"))
    checks = by_name(doctor.checks())
    expected = {
        "Python", "packages", "tested versions", "GPU", "memory", "data root", "disk",
        "writing", "file locking", "notebooks", "Jupyter kernel", "allensdk",
    }  # fmt: skip
    assert expected <= set(checks)
    assert all(check.found for check in checks.values())
    assert all(check.fix for check in checks.values() if check.status != OK)


def test_the_exit_code_and_a_root_that_cannot_be(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "checks", lambda: [doctor.Check("disk", WARN, "low", "mend")])
    assert doctor.main() == 0
    assert "warn  disk: low\n      -> mend" in capsys.readouterr().out
    monkeypatch.setenv("NBLIB_HOME", "relative/place")
    (check,) = doctor.data_root()
    assert check.status == FAIL and "relative" in check.found
    monkeypatch.setattr(doctor, "checks", lambda: [check])
    assert doctor.main() == 1


def test_a_program_that_is_not_there_or_hangs():
    assert doctor.ask(["no-such-program-here"])[0] is None
    status, _, said = doctor.ask([sys.executable, "-c", "import time; time.sleep(9)"], 0.2)
    assert status is None and "no answer" in said
