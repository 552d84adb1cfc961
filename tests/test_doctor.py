"""The doctor's judgements, on machines that are made up; and once on this one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from nblib import doctor
from nblib.doctor import FAIL, OK, WARN, gpu, machine, software

H100 = gpu.Card("NVIDIA H100", "560.35", (9, 0), 81559)
ARCHS = ["sm_75", "sm_80", "sm_86", "sm_90", "compute_120"]
CUDA = gpu.Torch("2.13.0+cu130", "13.0", ARCHS, ["NVIDIA H100"])
CPU = gpu.Torch("2.13.0+cpu")


# --- GPU -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cards", "trouble", "torch", "status", "said", "fix"),
    [
        ([H100], "", CUDA, OK, "H100 (80 GB, compute capability 9.0)", ""),
        ([], "", CPU, OK, "uses the CPU", ""),
        ([], "", CUDA, WARN, "none visible", "--gres=gpu:1"),
        ([H100], "", CPU, FAIL, "CPU build and cannot use it", "make setup TORCH=cuda"),
        (
            [gpu.Card("Tesla V100", "560.35", (7, 0), 16384)],
            "",
            gpu.Torch("2.13.0+cu130", "13.0", ARCHS, ["Tesla V100"]),
            FAIL,
            "was built for sm_75 sm_80",
            "-p device cpu on purpose",
        ),
        (
            [H100],
            "",
            gpu.Torch("2.13.0+cu130", "13.0", ARCHS, [], "RuntimeError: driver too old"),
            FAIL,
            "driver too old",
            "560.35",
        ),
        ([], "Driver/library version mismatch", CUDA, FAIL, "version mismatch", "driver"),
        ([H100], "", gpu.Torch(error="no module named torch"), FAIL, "no module", "make setup"),
        (
            [H100, H100],
            "",
            gpu.Torch("2.13.0+cu130", "13.0", ARCHS, ["NVIDIA H100"], "RuntimeError: ECC"),
            FAIL,
            "one card cannot be used",
            "CUDA_VISIBLE_DEVICES",
        ),
    ],
)
def test_a_card_that_cannot_be_used_is_loud(cards, trouble, torch, status, said, fix, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    check = gpu.judge((cards, trouble), torch)
    assert check.status == status and said in check.found and fix in check.fix
    assert bool(check.fix) == (status != OK)


def test_a_hidden_card_is_told_as_hidden(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    torch = gpu.Torch("2.13.0+cu130", "13.0", ARCHS, [], "no device")
    assert "unset CUDA_VISIBLE_DEVICES" in gpu.judge(([H100], ""), torch).fix


@pytest.mark.parametrize(
    ("capability", "archs", "runs"),
    [
        ((9, 0), ["sm_90"], True),
        ((8, 9), ["sm_80"], True),  # machine code runs on later minor numbers
        ((8, 0), ["sm_86"], False),
        ((9, 0), ["sm_80", "sm_86"], False),
        ((12, 0), ["compute_90"], True),  # the driver compiles intermediate code
        ((7, 0), ["compute_90"], False),
        ((10, 0), ["sm_100"], True),
        ((9, 0), ["sm_90a"], True),
        ((9, 0), [], False),
    ],
)
def test_which_builds_run_on_which_cards(capability, archs, runs):
    assert gpu.runs_on(capability, archs) is runs


def test_the_table_of_nvidia_smi_is_read():
    text = "NVIDIA A100-SXM4-40GB, 535.104.05, 8.0, 40960\nOdd, Name, 1.0, [N/A], [N/A]\n"
    first, second = gpu.read_cards(text)
    assert first == gpu.Card("NVIDIA A100-SXM4-40GB", "535.104.05", (8, 0), 40960)
    assert second.name == "Odd, Name" and second.capability is None


# --- packages ------------------------------------------------------------------------------------

WANTED = {"": ["numpy>=2.1,<3", "h5py>=3"], "train": ["torch==2.13.0"], "lab": ["jupyterlab>=4"]}
HAVE = {"numpy": "2.4.6", "h5py": "3.16.0", "torch": "2.13.0+cpu", "jupyterlab": "4.6.6"}
TESTED = {"numpy": "2.4.6", "h5py": "3.16.0", "torch": "2.13.0", "jupyterlab": "4.6.6"}


def by_name(checks):
    return {check.name: check for check in checks}


def test_all_packages_are_there():
    assert {c.status for c in software.packages(HAVE, WANTED, TESTED)} == {OK}


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
    check = by_name(software.packages(have, WANTED, TESTED))[name]
    assert check.status == status and f"missing: {gone}" in check.found and fix in check.fix


def test_an_unfit_version_fails_and_an_untested_one_warns():
    found = by_name(software.packages({**HAVE, "numpy": "1.26.4"}, WANTED, TESTED))
    assert found["packages"].status == FAIL and "numpy 1.26.4 (needs " in found["packages"].found
    found = by_name(software.packages({**HAVE, "numpy": "2.2.0"}, WANTED, TESTED))
    assert found["packages"].status == OK
    assert found["tested versions"].status == WARN
    assert "numpy 2.2.0 (tested: 2.4.6)" in found["tested versions"].found


def test_the_requirements_of_this_package_are_found():
    wanted = software.requirements()
    assert any(line.startswith("pydantic") for line in wanted[""])
    assert any(line.startswith("torch==") for line in wanted["train"])
    assert "numpy" in software.constraints()


@pytest.mark.parametrize(
    ("version", "status"),
    [((3, 11, 7), OK), ((3, 11, 2), FAIL), ((3, 13, 0), OK), ((3, 9, 7), FAIL), ((3, 14, 0), FAIL)],
)
def test_python_must_be_one_that_was_tested(version, status):
    assert software.python(version).status == status


def test_the_kernel_must_start_this_python():
    own = "/env/bin/python"
    assert software.kernel({"nblib": own}, own).status == OK
    assert software.kernel({"nblib": "python"}, own).status == OK
    other = software.kernel({"nblib": "/old/bin/python"}, own)
    assert other.status == WARN and "/old/bin/python" in other.found
    missing = software.kernel({"python3": own}, own)
    assert missing.status == FAIL and "ipykernel install" in missing.fix


@pytest.mark.parametrize(
    ("change", "extension", "status", "said"),
    [
        ({}, "5.0.16", OK, "8.1.9"),
        ({"ipywidgets": None}, "5.0.16", FAIL, "not installed"),
        ({"ipywidgets": "7.7.1"}, "5.0.16", FAIL, "needs 8"),
        ({"jupyterlab-widgets": "1.1.0"}, "5.0.16", FAIL, "goes with jupyterlab_widgets 3"),
        ({"widgetsnbextension": None}, "5.0.16", FAIL, "widgetsnbextension is missing"),
        ({}, "", FAIL, "no widget manager"),
        ({"jupyterlab": None}, "5.0.16", WARN, "not in this environment"),
    ],
)
def test_whether_widgets_can_be_drawn(change, extension, status, said):
    have = {
        "ipywidgets": "8.1.9", "comm": "0.2.3", "jupyterlab-widgets": "3.0.17",
        "widgetsnbextension": "4.0.16", "jupyterlab": "4.6.6",
    } | change  # fmt: skip
    check = software.widgets({k: v for k, v in have.items() if v}, extension)
    assert check.status == status and said in check.found


def test_missing_notebooks_are_named(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01_ingest.ipynb").touch()
    monkeypatch.setenv("NBLIB_PROJECT", str(tmp_path))
    check = software.notebooks()
    assert check.status == FAIL and "02_bin" in check.found and "01_ingest" not in check.found


# --- machine -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("free", "status"), [(500e9, OK), (5e9, WARN), (0.2e9, FAIL)], ids=["roomy", "nearly", "full"]
)
def test_a_disk_that_is_nearly_full(free, status):
    check = machine.disk(Path("/data"), free, 1e12)
    assert check.status == status
    assert ("nearly full" in check.found and "NBLIB_HOME" in check.fix) == (status != OK)


LUSTRE = "/pine/scr 47185920* 47185920 52428800 - 12 0 0 -\n"
LINUX = """Disk quotas for user ann (uid 1001):
     Filesystem  blocks   quota   limit   grace   files   quota   limit   grace
 nfs1:/home 20971520 0 52428800 0 1000 0 0 0
"""


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        ("", OK, "none told"),
        ("Disk quotas for user ann (uid 1001): none\n", OK, "none told"),
        (LINUX, OK, "21.5 GB of 53.7 GB used (40%)"),
        (LUSTRE, WARN, "48.3 GB of 53.7 GB used (90%)"),
        (LUSTRE.replace("47185920*", "52428800*"), FAIL, "100%"),
    ],
)
def test_quota_tables_are_read(text, status, said):
    check = machine.quota(Path("/data"), text)
    assert check.status == status and said in check.found


def test_the_tightest_memory_limit_counts():
    assert machine.memory({"machine": 64e9}).status == OK
    tight = machine.memory({"machine": 512e9, "Slurm job": 4e9})
    assert tight.status == WARN and "4.0 GB may be used" in tight.found and "--mem" in tight.fix
    assert machine.memory({"machine": 512e9, "cgroup": 1e9}).status == FAIL


def test_slurm_tells_the_memory_of_a_job():
    assert machine.slurm_limit({"SLURM_MEM_PER_NODE": "65536"}) == 65536 * 2**20
    assert machine.slurm_limit({"SLURM_MEM_PER_CPU": "2048", "SLURM_CPUS_ON_NODE": "4"}) == 2**33
    assert machine.slurm_limit({"SLURM_MEM_PER_NODE": "0"}) is None
    assert machine.slurm_limit({}) is None


def test_control_groups_of_both_versions_are_read(tmp_path):
    own = tmp_path / "own"
    two = tmp_path / "two"
    (two / "slurm" / "job").mkdir(parents=True)
    (two / "slurm" / "job" / "memory.max").write_text("max\n")
    (two / "slurm" / "memory.max").write_text("8000000000\n")
    own.write_text("0::/slurm/job\n")
    assert machine.cgroup_limit(two, own) == 8e9
    one = tmp_path / "one"
    (one / "memory" / "job").mkdir(parents=True)
    (one / "memory" / "job" / "memory.limit_in_bytes").write_text("4000000000\n")
    (one / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    own.write_text("11:cpu,cpuacct:/job\n9:memory:/job\n0::/\n")
    assert machine.cgroup_limit(one, own) == 4e9
    assert machine.cgroup_limit(tmp_path, tmp_path / "absent") is None


def test_a_data_root_that_cannot_be_written(tmp_path):
    assert machine.writing(tmp_path).status == OK
    assert machine.locking(tmp_path).status == OK
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    check = machine.writing(tmp_path / "file")
    assert check.status == FAIL and "NBLIB_HOME" in check.fix


# --- all of it -----------------------------------------------------------------------------------


def test_every_check_of_this_machine(home, monkeypatch):
    # torch and allensdk take seconds to import, and are asked by other tests.
    monkeypatch.setattr(gpu, "torch_told", lambda: CPU)
    monkeypatch.setattr(gpu, "cards", lambda: ([], ""))
    monkeypatch.setattr(software, "allensdk", lambda: doctor.Check("allensdk", OK, "here"))
    found = by_name(doctor.checks())
    expected = {
        "Python", "packages", "tested versions", "GPU", "memory", "data root", "disk", "quota",
        "writing", "file locking", "notebooks", "Jupyter kernel", "ipywidgets", "allensdk",
    }  # fmt: skip
    assert expected <= set(found)
    assert all(check.found for check in found.values())
    assert all(check.fix for check in found.values() if check.status != OK)


def test_the_exit_code_and_a_root_that_cannot_be(capsys, monkeypatch):
    monkeypatch.setattr(
        doctor, "_checks", lambda: iter([doctor.Check("disk", WARN, "low", "mend")])
    )
    assert doctor.main() == 0
    assert "warn  disk: low\n      -> mend" in capsys.readouterr().out
    monkeypatch.undo()
    monkeypatch.setenv("NBLIB_HOME", "relative/place")
    (check,) = doctor._guarded("data root", machine.root)
    assert check.status == FAIL and "relative" in check.found
    monkeypatch.setattr(doctor, "_checks", lambda: iter([check]))
    assert doctor.main() == 1


def test_a_program_that_is_not_there_or_hangs():
    assert doctor.check.ask(["no-such-program-here"])[0] is None
    status, _, said = doctor.check.ask([sys.executable, "-c", "import time; time.sleep(9)"], 0.2)
    assert status is None and "no answer" in said
