"""What the data root holds, which notebooks failed, and how far a sweep is (`nblib status`)."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from nblib.core import store
from nblib.core.errors import NblibError, RunFailed
from nblib.run import cluster, outlook, plan
from nblib.run.execute import RUNNING, at_work, size
from nblib.run.plan import Job, Task
from nblib.run.search.definition import Study

STATES = ("done", "running", "queued", "failed")


def artifacts() -> list[dict[str, Any]]:
    """One row a committed artifact: stage, recording, key, recipe, created, bytes, executed."""
    rows = []
    for folder in store.artifacts():
        stage, recording, key = folder.parts[-3:]
        row = {"stage": stage, "recording": recording, "key": key}
        try:
            manifest = store.read_manifest(folder)
        except NblibError:
            row |= {"recipe": "unreadable manifest", "created": "", "bytes": 0}
        else:
            n_bytes = sum(output["bytes"] for output in manifest["outputs"].values())
            recipe = (manifest.get("recipe") or {}).get("recipe", "")
            row |= {"recipe": recipe, "created": manifest["created"], "bytes": n_bytes}
        rows.append(row | {"executed": (folder / store.ATTACHED[0]).is_file()})
    return rows


def failed() -> list[tuple[Path, str]]:
    """Notebooks kept because they failed, newest last, each with the last line of its error."""
    paths = sorted(store.failed_dir().glob("*/*.ipynb"), key=lambda path: path.stat().st_mtime)
    return [(path, words(path)) for path in paths]


def words(path: Path) -> str:
    """What a kept notebook says of its end: its error's last line, or that it is at work."""
    if (who := at_work(path)) is not None:
        if who.alive is None:
            return f"at work on {who.host}, if that is still so"
        return "running now" if who.alive else "its runner was killed"
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError):
        return "not readable"
    note = "".join(cells[0]["source"]) if cells and cells[0]["cell_type"] == "markdown" else ""
    if note.startswith("**This run did not end well"):
        return note.strip("*")
    outputs = [o for cell in cells for o in cell.get("outputs", [])]
    for output in reversed(outputs):
        if output["output_type"] == "error":
            return f"{output['ename']}: {(str(output['evalue']).strip().splitlines() or [''])[-1]}"
    return "no error in it"


def report() -> str:
    """All of it as text for a terminal."""
    lines = [f"data root: {store.home()}", ""]
    rows = artifacts()
    widths = {"stage": 14, "recording": 18, "key": 16, "recipe": 24, "created": 20}
    if rows:
        lines.append(
            "  ".join(f"{name:{w}}" for name, w in widths.items()) + "       size  notebook"
        )
    for row in rows:
        text = "  ".join(f"{row[name]:{w}}" for name, w in widths.items())
        lines.append(f"{text}  {size(row['bytes']):>9}  {'attached' if row['executed'] else '-'}")
    total = sum(row["bytes"] for row in rows)
    lines.append(f"{len(rows)} artifacts, {size(total)}" if rows else "no artifacts yet")
    kept = failed()
    lines += ["", f"{len(kept)} failed notebooks" if kept else "no failed notebooks"]
    for path, words in kept:
        lines += [f"  {path}", f"      {words}"]
    return "\n".join(lines)


# --- a sweep at work -----------------------------------------------------------------------------


def states(tasks: list[Task], *, elsewhere: bool = False) -> list[tuple[Job, str, str]]:
    """For each task its state and, where there is one, the reason and the notebook.

    "queued" is what nobody has begun; elsewhere: whether notebooks on other hosts may be at work
    (jobs of the sweep are in the queue).
    """
    rows = []
    for job in (plan.job_of(*task) for task in tasks):
        kept = outlook.failed_notebook(job)
        begun = [(path, at_work(path)) for path in kept.parent.glob(f"{kept.stem}.*{RUNNING}")]
        running = [p for p, who in begun if who.alive or (who.alive is None and elsewhere)]
        if job.done() is not None:
            state, why = "done", ""
        elif job.recipe is None:
            state, why = "queued", "a report, made last"
        elif running:
            state, why = "running", f"on {at_work(running[0]).host}: {running[0]}"
        elif kept.is_file():
            state, why = "failed", f"{words(kept)}  ({kept})"
        elif begun:
            state, why = "queued", f"its last try was killed: {begun[0][0]}"
        else:
            state, why = "queued", ""
        rows.append((job, state, why))
    return rows


def progress(path: Path, tasks: list[Task], studies: list[Study]) -> str:
    """`nblib status FILE`: how far a sweep is, what runs now, what failed and why."""
    lines = [f"sweep {path}, data root {store.home()}"]
    waiting: list[tuple[str, str, str]] = []
    if (driver := cluster.driver(cluster.folder_of(path))) is not None:
        lines.append(f"driver: pid {driver['pid']} on {driver['host']}")
    if cluster.is_here():
        try:
            waiting = cluster.queue(path)
        except RunFailed as error:  # its programs are here, its controller does not answer
            lines.append(f"Slurm: {error}")
        for (state, why), n in sorted(Counter((s, r) for _, s, r in waiting).items()):
            lines.append(f"Slurm: {n} jobs {state}{f' ({why})' if why != 'None' else ''}")
    rows = states(tasks, elsewhere=bool(waiting))
    lines.append(f"{'notebook':26}" + "".join(f"{name:>9}" for name in STATES))
    for stage in [*sorted({job.stage for job, _, _ in rows}), "all"]:
        count = Counter(state for job, state, _ in rows if stage in (job.stage, "all"))
        lines.append(f"{stage:26}" + "".join(f"{count[name]:9}" for name in STATES))
    manifests = outlook.manifests()
    lines += [outlook.of_study(study, manifests) for study in studies]
    for job, state, why in rows:
        if state in ("running", "failed"):
            lines += [f"{state}: {job.label}", f"    {why}"]
    return "\n".join(lines)
