"""`nblib doctor`: is this machine ready? Each line says what was found and what mends it."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from nblib.core import store
from nblib.core.errors import NblibError
from nblib.road import stages

OK, WARN, FAIL = "ok", "warn", "FAIL"
GB = 1e9
ENOUGH_MEMORY, LEAST_MEMORY = 8 * GB, 2 * GB
ENOUGH_DISK, LEAST_DISK = 20 * GB, 1 * GB
# Without these extras a part of the road is closed; without the others, comfort is missing.
NEEDED_EXTRAS, OPTIONAL_EXTRAS = ("", "train"), ("lab", "book", "allen")
KERNEL = "nblib"
INSTALL_KERNEL = f'{sys.executable} -m ipykernel install --sys-prefix --name {KERNEL} --display-name "Python ({KERNEL})"'
# Imports torch and computes on each card, in a process of its own: a broken driver may crash it.
GPU_PROBE = """
import json, torch
answer = {"version": torch.__version__, "cuda": torch.version.cuda, "usable": 0, "error": ""}
try:
    for i in range(torch.cuda.device_count() if torch.version.cuda else 0):
        x = torch.ones(64, 64, device=f"cuda:{i}")
        assert float((x @ x).sum()) == 64.0 ** 3
        answer["usable"] += 1
except Exception as error:
    answer["error"] = f"{type(error).__name__}: {error}".splitlines()[0]
print(json.dumps(answer))
"""
SDK_PROBE = (
    "from nblib.data.allen.warehouse import import_sdk; import_sdk(); "
    "import allensdk; print(allensdk.__version__)"
)


@dataclass(frozen=True)
class Check:
    """One judgement: `fix` is the command or step that mends it, empty when nothing is wrong."""

    name: str
    status: str
    found: str
    fix: str = ""


def main() -> int:
    """Print every check; 1 when one of them fails."""
    counts = dict.fromkeys((OK, WARN, FAIL), 0)
    for check in checks():
        counts[check.status] += 1
        print(f"{check.status:>4}  {check.name}: {check.found}", flush=True)
        if check.fix:
            print(f"      -> {check.fix}", flush=True)
    print(f"\n{counts[OK]} ok, {counts[WARN]} to look at, {counts[FAIL]} failed")
    return 1 if counts[FAIL] else 0


def checks() -> Iterator[Check]:
    """One after the other, so that a terminal shows each as soon as it is known."""
    yield python()
    yield from packages(installed(), requirements(), tested_versions())
    yield git()
    yield gpu(*cards(), probe_torch())
    yield memory(memory_limits())
    yield from data_root()
    yield notebooks()
    yield kernel(kernels())
    yield allensdk()


def ask(command: list[str], timeout_s: float = 15) -> tuple[int | None, str, str]:
    """Exit status, stdout and stderr of a program; None when it is not there or takes too long."""
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return None, "", f"{command[0]}: no answer within {timeout_s:g} s"
    except OSError as error:
        return None, "", f"{command[0]}: {error.strerror}"
    return answer.returncode, answer.stdout, answer.stderr


def last_line(text: str) -> str:
    """The last line that says something: of a traceback, the error itself."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


# --- software ------------------------------------------------------------------------------------


def python(version: tuple[int, ...] = sys.version_info[:3]) -> Check:
    text = ".".join(map(str, version)) + f" ({sys.executable}, {platform.platform()})"
    if (3, 11, 5) <= tuple(version) < (3, 14):
        return Check("Python", OK, text)
    fix = "make setup PYTHON=/path/to/python3.11 VENV=.venv311"
    return Check("Python", FAIL, f"{text}; nblib needs 3.11.5 or later, up to 3.13", fix)


def installed() -> dict[str, str]:
    """Version of every package here, by canonical name."""
    names = ((d.metadata["Name"], d.version) for d in metadata.distributions())
    return {canonicalize_name(name): version for name, version in names if name}


def requirements() -> dict[str, list[Requirement]]:
    """Extra -> what nblib itself requires ("" = the core)."""
    wanted = [Requirement(line) for line in metadata.requires("nblib") or []]
    by_extra = {"": [r for r in wanted if r.marker is None]}
    for extra in (*NEEDED_EXTRAS[1:], *OPTIONAL_EXTRAS):
        by_extra[extra] = [r for r in wanted if r.marker and r.marker.evaluate({"extra": extra})]
    return by_extra


def tested_versions() -> dict[str, str]:
    """The versions that were tested together; empty without a checkout."""
    try:
        path = store.project_root() / "constraints.txt"
    except NblibError:
        return {}
    lines = path.read_text().splitlines() if path.is_file() else []
    pairs = [line.split("#")[0].strip().split("==") for line in lines]
    return {canonicalize_name(pair[0]): pair[1] for pair in pairs if len(pair) == 2}


def packages(
    have: dict[str, str], wanted: dict[str, list[Requirement]], tested: dict[str, str]
) -> Iterator[Check]:
    """Missing or unfit packages of each extra, then those that differ from what was tested."""
    differing = set()
    for extra, needs in wanted.items():
        missing, unfit = [], []
        for need in needs:
            version = have.get(canonicalize_name(need.name))
            expected = tested.get(canonicalize_name(need.name))
            if version is None:
                missing.append(f"missing: {need.name}")
            elif not need.specifier.contains(version, prereleases=True):
                unfit.append(f"unfit: {need.name} {version} (needs {need.specifier})")
            elif expected and version.split("+")[0] != expected:
                differing.add(f"{need.name} {version} (tested: {expected})")
        name = f"packages [{extra}]" if extra else "packages"
        if not missing and not unfit:
            yield Check(name, OK, f"all {len(needs)} are here")
            continue
        status = FAIL if extra in NEEDED_EXTRAS or unfit else WARN
        place = f".[{extra}]" if extra else "."
        fix = f"make setup, or: pip install -c constraints.txt -e '{place}'"
        yield Check(name, status, "; ".join(missing + unfit), fix)
    if differing:
        versions = ", ".join(sorted(differing))
        yield Check("tested versions", WARN, f"other versions here: {versions}", "make setup")
    elif tested:
        yield Check("tested versions", OK, "as in constraints.txt")


def git() -> Check:
    if shutil.which("git"):
        return Check("git", OK, "here; manifests name the commit")
    return Check("git", WARN, "not found; manifests cannot name the commit", "install git")


def notebooks() -> Check:
    """Every stage's notebook in the checkout."""
    try:
        folder = store.notebooks_dir()
    except NblibError as error:
        return Check("notebooks", FAIL, str(error), "see the message")
    missing = [name for name in stages.STAGES if not (folder / f"{name}.ipynb").is_file()]
    if missing:
        fix = f"git -C {folder.parent} checkout -- notebooks"
        return Check("notebooks", FAIL, f"missing in {folder}: {', '.join(missing)}", fix)
    return Check("notebooks", OK, f"{len(stages.STAGES)} in {folder}")


def kernels() -> dict[str, str]:
    """Registered Jupyter kernels: name -> the program it starts."""
    from jupyter_client.kernelspec import KernelSpecManager

    specs = KernelSpecManager().get_all_specs()
    return {name: (spec["spec"]["argv"] or [""])[0] for name, spec in specs.items()}


def kernel(registered: dict[str, str], python: str = sys.executable) -> Check:
    """The kernel that people choose in Jupyter must start this Python."""
    name = "Jupyter kernel"
    if KERNEL not in registered:
        text = f"{KERNEL!r} is not registered (there are: {', '.join(registered) or 'none'})"
        return Check(name, FAIL, text, INSTALL_KERNEL)
    program = Path(registered[KERNEL])
    if program.is_absolute() and program.parent != Path(python).parent:
        return Check(name, WARN, f"{KERNEL!r} starts {program}, not {python}", INSTALL_KERNEL)
    return Check(name, OK, f"{KERNEL!r} starts {program}")


def allensdk(timeout_s: float = 120) -> Check:
    """Import the SDK in a process of its own: it is large, and patched before its import."""
    status, out, err = ask([sys.executable, "-W", "ignore", "-c", SDK_PROBE], timeout_s)
    if status == 0:
        return Check("allensdk", OK, f"{last_line(out)} can be imported")
    fix = "pip install -c constraints.txt -e '.[allen]' && pip install -c constraints.txt --no-deps allensdk"
    return Check("allensdk", WARN, f"cannot be imported ({last_line(err)}); no downloads then", fix)


# --- GPU -----------------------------------------------------------------------------------------


def cards() -> tuple[list[str], str]:
    """Graphics cards with their drivers, and what is wrong with asking for them ("" = nothing)."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    status, out, err = ask(query)
    if status == 0:
        return [line.strip() for line in out.splitlines()], ""
    devices = sorted(p.name for p in Path("/dev").glob("nvidia[0-9]*"))
    return devices, "" if status is None and not devices else last_line(out) or last_line(err)


def probe_torch() -> dict:
    """What torch says of itself, asked in a process of its own; `version` "" = not importable."""
    status, out, err = ask([sys.executable, "-c", GPU_PROBE], timeout_s=180)
    if status == 0:
        return json.loads(out.splitlines()[-1])
    error = last_line(err) or f"the process ended with status {status}"
    return {"version": "", "cuda": None, "usable": 0, "error": error}


def gpu(names: list[str], trouble: str, torch: dict) -> Check:
    """FAIL whenever a card is there and torch cannot use it; never a silent fall back to the CPU."""
    text, build, cuda = "; ".join(names), f"torch {torch['version']}", torch["cuda"]
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not torch["version"]:
        fault, fix = f"torch cannot be imported ({torch['error']})", "make setup"
    elif not names and trouble:
        fault = f"nvidia-smi is there but fails: {trouble}"
        fix = "mend the NVIDIA driver, or ask for a GPU node that works"
    elif not names and cuda:
        text = f"none visible; {build} is a CUDA build and will use the CPU here"
        fix = "on Slurm, ask for one: --partition=a100-gpu --qos=gpu_access --gres=gpu:1"
        return Check("GPU", WARN, text, fix)
    elif not names:
        return Check("GPU", OK, f"none; {build} uses the CPU")
    elif cuda is None:
        fault, fix = f"but {build} is a CPU build and cannot use it", "make setup TORCH=cuda"
    elif not torch["usable"] and hidden is not None and hidden.strip() in ("", "-1"):
        fault = f"but CUDA_VISIBLE_DEVICES={hidden!r} hides it"
        fix = "unset CUDA_VISIBLE_DEVICES"
    elif torch["usable"] < len(names) and (torch["error"] or not torch["usable"]):
        fault = f"but {build} can use {torch['usable']} of {len(names)} ({torch['error']})"
        fix = (
            f"the driver must be new enough for CUDA {cuda} and the card one that this build knows; "
            "choose a working card with CUDA_VISIBLE_DEVICES, or pass -p device cpu on purpose"
        )
    else:
        return Check("GPU", OK, f"{text}; {build} computes on it")
    return Check("GPU", FAIL, f"{text + '; ' if text else ''}{fault}", fix)


# --- memory and data root ------------------------------------------------------------------------


def memory_limits() -> dict[str, float]:
    """What bounds the memory of a process here, by name [bytes]: the machine, and a Slurm job."""
    import psutil

    limits = {"machine": float(psutil.virtual_memory().total)}
    megabytes = os.environ.get("SLURM_MEM_PER_NODE", "0")
    if megabytes == "0" and "SLURM_MEM_PER_CPU" in os.environ:
        per_cpu, cpus = os.environ["SLURM_MEM_PER_CPU"], os.environ.get("SLURM_CPUS_ON_NODE", "1")
        megabytes = str(int(per_cpu) * int(cpus))
    if megabytes != "0":  # Slurm writes 0 for no limit
        limits["Slurm job"] = int(megabytes) * 2.0**20
    return limits


def memory(limits: dict[str, float]) -> Check:
    least = min(limits.values())
    by_name = ", ".join(f"{name} {value / GB:.1f} GB" for name, value in limits.items())
    text = f"{least / GB:.1f} GB may be used ({by_name})"
    if least >= ENOUGH_MEMORY:
        return Check("memory", OK, text)
    status = WARN if least >= LEAST_MEMORY else FAIL
    text += f"; a full session wants {ENOUGH_MEMORY / GB:.0f} GB"
    return Check("memory", status, text, "on Slurm or Open OnDemand, ask for more: --mem=64G")


def data_root() -> Iterator[Check]:
    """Where artifacts go: its place, its space, and whether files can be written and locked."""
    try:
        home = store.home()
    except NblibError as error:
        yield Check("data root", FAIL, str(error), "see the message")
        return
    why = "NBLIB_HOME" if os.environ.get("NBLIB_HOME") else "the default; NBLIB_HOME is not set"
    yield Check("data root", OK, f"{home} ({why})")
    usage = shutil.disk_usage(next(p for p in (home, *home.parents) if p.exists()))
    yield disk(home, usage.free, usage.total)
    yield from writing(home)


def disk(home: Path, free: float, total: float) -> Check:
    text = f"{free / GB:.0f} GB free of {total / GB:.0f} GB ({home})"
    if free >= ENOUGH_DISK:
        return Check("disk", OK, text)
    fix = "free space there, or: export NBLIB_HOME=/a/larger/disk/nblib; a quota: `quota -s` tells"
    return Check("disk", WARN if free >= LEAST_DISK else FAIL, f"nearly full: {text}", fix)


def writing(home: Path) -> Iterator[Check]:
    """Write, flush, rename, lock and delete a small file there: what commits and readers need."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=home) as folder:
            trial = Path(folder) / "trial"
            with trial.open("wb") as file:
                file.write(bytes(65536))
                file.flush()
                os.fsync(file.fileno())
            trial.rename(trial.with_suffix(".renamed"))
            yield Check("writing", OK, "files are written, flushed and renamed")
            yield locking(trial.with_suffix(".renamed"))
    except OSError as error:
        fix = "export NBLIB_HOME=/a/folder/of/your/own"
        yield Check("writing", FAIL, f"{home}: {error.strerror}", fix)


def locking(trial: Path) -> Check:
    """Lock a file: other programs do whenever they open an HDF5 file; nblib does not."""
    try:
        with trial.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        found = f"{trial.parent.parent}: {error.strerror}; nblib does without, others may not open HDF5 files there"
        return Check("file locking", WARN, found, "export HDF5_USE_FILE_LOCKING=FALSE")
    return Check("file locking", OK, "files can be locked")
