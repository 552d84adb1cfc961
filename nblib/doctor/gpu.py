"""The graphics card against the build of torch: loud when a card is there and cannot be used."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

from nblib.doctor.check import FAIL, OK, WARN, Check, ask, last_line

NAME = "GPU"
CUDA_BUILD = "make setup TORCH=cuda"
QUERY = ["nvidia-smi", "--query-gpu=name,driver_version,compute_cap,memory.total"]
# Imports torch and computes on each card, in a process of its own: a broken driver may crash it.
PROBE = """
import json, torch
told = {"version": torch.__version__, "cuda": torch.version.cuda,
        "archs": torch.cuda.get_arch_list() if torch.version.cuda else [], "usable": [], "error": ""}
try:
    if torch.version.cuda:
        torch.cuda.init()
    for i in range(torch.cuda.device_count() if torch.version.cuda else 0):
        x = torch.ones(64, 64, device=f"cuda:{i}")
        assert float((x @ x).sum()) == 64.0 ** 3
        told["usable"].append(torch.cuda.get_device_name(i))
except Exception as error:
    told["error"] = f"{type(error).__name__}: {error}".splitlines()[0]
print(json.dumps(told))
"""


@dataclass(frozen=True)
class Card:
    """One graphics card, as the driver tells it; `capability` is (major, minor)."""

    name: str
    driver: str
    capability: tuple[int, int] | None
    memory_mb: int = 0

    def __str__(self) -> str:
        known = "unknown" if self.capability is None else "{}.{}".format(*self.capability)
        return f"{self.name} ({self.memory_mb / 1024:.0f} GB, compute capability {known})"


@dataclass(frozen=True)
class Torch:
    """What torch says of itself; `version` is empty when it cannot be imported."""

    version: str = ""
    cuda: str | None = None
    archs: list[str] = field(default_factory=list)
    usable: list[str] = field(default_factory=list)
    error: str = ""


def cards() -> tuple[list[Card], str]:
    """Cards of this machine, and what is wrong with asking for them ("" = nothing)."""
    status, out, err = ask([*QUERY, "--format=csv,noheader,nounits"])
    if status == 0:
        return read_cards(out), ""
    devices = sorted(p.name for p in Path("/dev").glob("nvidia[0-9]*"))
    if devices:
        return [Card(d, "unknown", None) for d in devices], last_line(err) or last_line(out)
    return [], "" if status is None else last_line(out) or last_line(err)


def read_cards(text: str) -> list[Card]:
    """Parse nvidia-smi's table: name, driver, compute capability, memory [MiB]."""
    found = []
    for line in text.splitlines():
        name, driver, capability, memory = (part.strip() for part in line.rsplit(",", 3))
        number = re.fullmatch(r"(\d+)\.(\d+)", capability)
        pair = (int(number[1]), int(number[2])) if number else None
        found.append(Card(name, driver, pair, int(memory) if memory.isdigit() else 0))
    return found


def torch_told() -> Torch:
    """Ask torch in a process of its own."""
    status, out, err = ask([sys.executable, "-c", PROBE], timeout_s=180)
    if status != 0:
        return Torch(error=last_line(err) or f"the process ended with status {status}")
    return Torch(**json.loads(out.splitlines()[-1]))


def runs_on(capability: tuple[int, int], archs: list[str]) -> bool:
    """Whether a build with these architectures runs on a card.

    `sm_XY` is machine code for cards of the same major number and a minor number of Y or more;
    `compute_XY` is intermediate code that the driver compiles for any card from X.Y on.
    """
    for arch in archs:
        kind, _, digits = arch.partition("_")
        number = re.match(r"\d+", digits)
        if not number:
            continue
        major, minor = int(number[0][:-1]), int(number[0][-1])
        if kind == "sm" and capability[0] == major and capability[1] >= minor:
            return True
        if kind == "compute" and capability >= (major, minor):
            return True
    return False


def judge(told: tuple[list[Card], str], torch: Torch) -> Check:
    """FAIL whenever a card is there and torch cannot use it; never a silent fall back to the CPU."""
    found, trouble = told
    names = ", ".join(str(card) for card in found)
    if not torch.version:
        return Check(
            NAME, FAIL, f"{names or 'none'}; torch cannot be imported ({torch.error})", "make setup"
        )
    build = f"torch {torch.version}"
    if not found:
        if trouble:
            return Check(
                NAME, FAIL, f"nvidia-smi is there but fails: {trouble}",
                "mend the NVIDIA driver, or ask for a GPU node that works",
            )  # fmt: skip
        if torch.cuda:
            return Check(
                NAME, WARN, f"none visible; {build} is a CUDA build and will use the CPU here",
                "on Slurm, ask for one: --partition=a100-gpu --qos=gpu_access --gres=gpu:1",
            )  # fmt: skip
        return Check(NAME, OK, f"none; {build} uses the CPU")
    if torch.cuda is None:
        return Check(
            NAME, FAIL, f"{names}; but {build} is a CPU build and cannot use it", CUDA_BUILD
        )
    old = [c for c in found if c.capability and not runs_on(c.capability, torch.archs)]
    if old:
        return Check(
            NAME, FAIL,
            f"{old[0]}; but {build} was built for {' '.join(torch.archs)} only",
            "use a card it was built for, or a build of torch for this card; until then pass "
            "-p device cpu on purpose",
        )  # fmt: skip
    if not torch.usable:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        if hidden is not None and hidden.strip() in ("", "-1"):
            fix = f"CUDA_VISIBLE_DEVICES={hidden!r} hides it: unset CUDA_VISIBLE_DEVICES"
        else:
            fix = f"the driver ({found[0].driver}) must be new enough for CUDA {torch.cuda}: update it"
        return Check(NAME, FAIL, f"{names}; but {build} cannot use it ({torch.error})", fix)
    if torch.error:
        return Check(
            NAME, FAIL, f"{names}; one card cannot be used ({torch.error})",
            "choose a working one with CUDA_VISIBLE_DEVICES",
        )  # fmt: skip
    return Check(NAME, OK, f"{names}, driver {found[0].driver}; {build} computes on it")
