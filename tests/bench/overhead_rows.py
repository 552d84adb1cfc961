"""What running notebooks costs beside their work: `nblib sweep`, and papermill in a shell loop.

The overhead of a notebook in a sweep is the time from the end of the run before it to its own end,
less the time of its cells below the one that imports and checks. So planning, process, kernel,
imports, papermill, attaching and the driver count as overhead; what a library costs the first
cell that uses it counts as work.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
import yaml
from measure import ROOT, Row, process

BIN = Path(sys.executable).parent
STAGES = ("01_ingest", "02_bin", "03_clean", "04_split", "05_train_lstm")
ROAD_S, TRAINING_S = 1.5, 4.0  # what was promised of 01-04, and of the notebooks that train
TRAIN = {"model": "lstm", "max_epochs": 3}
SIZES = {"n_units": 24, "n_scenes": 6, "n_repeats": 20, "signal": 1.5}
Run = tuple[str, dict[str, Any]]


def rows(stages: tuple[str, ...] = STAGES) -> list[Row]:
    """Overhead of each notebook, and the whole sweep beside papermill: same runs, same order."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs = _runs(folder, stages)
        took, sweep = _sweep(folder, runs)
        work = [_work(folder / "sweep", *run) for run in runs]
        loop = _loop(folder, runs)
    group = "overhead"
    found = []
    for (stage, _), whole, own in list(zip(runs, took, work, strict=True))[1:]:
        most = ROAD_S if stage < "05" else TRAINING_S
        found.append(
            Row(
                group, f"nblib sweep, beside the cells of {stage}", whole - own,
                limit=f"at most {most:g} s", holds=whole - own <= most, note=f"of {whole:.2f} s",
            )
        )  # fmt: skip
    against = f"papermill in a shell loop, {len(runs)} notebooks"
    start = f"one at a time; {took[0] - took[1]:.1f} s are the driver's own start"
    return [
        *found,
        Row(group, against, loop, ratio=1.0, note="one at a time, tiny simulated recordings"),
        Row(group, f"nblib sweep, {len(runs)} notebooks", sweep, ratio=sweep / loop, against=against, note=start),
    ]  # fmt: skip


def _runs(folder: Path, stages: tuple[str, ...]) -> list[Run]:
    """The runs in order; the first is one more 01, whose time holds the driver's start."""
    recipe = folder / "overhead.yml"
    values = {"recipe": "overhead", "recordings": ["first", "other"], "source": "simulate"}
    recipe.write_text(yaml.safe_dump(values | {"simulate": SIZES, "gap_s": 0.5}))
    common = {"recipe": str(recipe), "recording": "other"}
    more = [(stage, common | (TRAIN if stage >= "05" else {})) for stage in stages]
    return [("01_ingest", common | {"recording": "first"}), *more]


def _sweep(folder: Path, runs: list[Run]) -> tuple[list[float], float]:
    """Seconds of each run, from the end of the one before, and of the whole command."""
    file = folder / "sweep.yml"
    steps = [{"notebook": stage, "params": given} for stage, given in runs]
    file.write_text(yaml.safe_dump({"sweep": "sweep", "steps": steps}))
    command = [str(BIN / "nblib"), "sweep", str(file), "--jobs", "1"]
    env = {**os.environ, "NBLIB_HOME": str(folder / "sweep")}
    began = time.perf_counter()
    ends, said = [began], []
    with subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as driver:
        for line in driver.stdout:
            said.append(line)
            if re.match(r"\d\d_\w+ .*committed ", line):
                ends.append(time.perf_counter())
    whole = time.perf_counter() - began
    if driver.returncode or len(ends) != len(runs) + 1:
        raise RuntimeError(f"{' '.join(command)}\n{''.join(said)[-3000:]}")
    return [after - before for before, after in itertools.pairwise(ends)], whole


def _work(home: Path, stage: str, given: dict[str, Any]) -> float:
    """Seconds of the cells below the one that imports and checks, as papermill noted them."""
    (executed,) = home.glob(f"{stage}/{given['recording']}/*/executed.ipynb")
    cells = [c for c in nbformat.read(executed, as_version=4).cells if c.cell_type == "code"]
    (check,) = (i for i, c in enumerate(cells) if "nblib.begin(" in c.source)
    return sum(c.metadata.papermill.duration for c in cells[check + 1 :])


def _loop(folder: Path, runs: list[Run]) -> float:
    """Seconds of the same notebooks by papermill, one after the other."""
    lines = []
    for stage, given in runs:
        pairs = " ".join(f"-p {name} {value}" for name, value in given.items())
        notebook = ROOT / "notebooks" / f"{stage}.ipynb"
        lines.append(f"{BIN / 'papermill'} {notebook} {folder / 'out.ipynb'} {pairs}")
    began = time.perf_counter()
    process("bash", "-ec", "\n".join(lines), env={"NBLIB_HOME": str(folder / "loop")})
    return time.perf_counter() - began
