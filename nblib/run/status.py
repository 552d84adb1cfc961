"""What the data root holds, what a sweep would do, and how far it is (`nblib status`, `nblib sweep`)."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from nblib.core import store
from nblib.core.errors import MissingInput, NblibError, RunFailed
from nblib.road import stages
from nblib.road.stage_registry import STAGES
from nblib.run import cluster, plan
from nblib.run.execute import RUNNING, at_work, size
from nblib.run.plan import Job, Task
from nblib.run.search import trials
from nblib.run.search.definition import Study

STATES = ("done", "running", "queued", "failed")
MOST_LINES = 40


def manifest_of(folder: Path) -> dict[str, Any]:
    """The manifest of an artifact; {} where it cannot be read."""
    try:
        return store.read_manifest(folder)
    except NblibError:
        return {}


def manifests() -> list[dict[str, Any]]:
    """Those of the data root that can be read."""
    return [manifest for manifest in map(manifest_of, store.artifacts()) if manifest]


def failed() -> list[tuple[Path, str]]:
    """Notebooks kept because they failed, newest last, each with the last line of its error."""
    paths = sorted(store.failed_dir().glob("*/*.ipynb"), key=lambda path: path.stat().st_mtime)
    return [(path, ending(path)) for path in paths]


def ending(path: Path) -> str:
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
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    for output in reversed(outputs):
        if output["output_type"] == "error":
            return f"{output['ename']}: {(str(output['evalue']).strip().splitlines() or [''])[-1]}"
    return "no error in it"


def report() -> str:
    """`nblib status` as text: every artifact, and the notebooks that failed."""
    lines, total = [f"data root: {store.home()}", ""], 0
    line = "{:14}  {:18}  {:16}  {:24}  {:20}  {:>9}  {}"
    folders = list(store.artifacts())
    if folders:
        names = ("stage", "recording", "key", "recipe", "created", "size", "notebook")
        lines.append(line.format(*names))
    for folder in folders:
        manifest = manifest_of(folder)
        n_bytes = sum(output["bytes"] for output in manifest.get("outputs", {}).values())
        recipe = (manifest.get("recipe") or {}).get("recipe", "")
        executed = "attached" if (folder / store.EXECUTED).is_file() else "-"
        about = (recipe, manifest["created"]) if manifest else ("unreadable manifest", "")
        lines.append(line.format(*folder.parts[-3:], *about, size(n_bytes), executed))
        total += n_bytes
    lines.append(f"{len(folders)} artifacts, {size(total)}" if folders else "no artifacts yet")
    kept = failed()
    lines += ["", f"{len(kept)} failed notebooks" if kept else "no failed notebooks"]
    for path, reason in kept:
        lines += [f"  {path}", f"      {reason}"]
    return "\n".join(lines)


# --- a sweep before its work ---------------------------------------------------------------------


def outlook(tasks: list[Task], wanted: list[Task], studies: list[Study], *, reasons: bool) -> str:
    """What a sweep would do: runs and how many are done, notebook by notebook, and what the rest costs.

    tasks: all, with what they rest on; wanted: those that the file names; reasons: whether to say of
    each run that is to do why it is.
    """
    made = manifests()
    jobs = [plan.job_of(*task) for task in tasks]
    todo = [i for i, job in enumerate(jobs) if job.done() is None]
    costs = {i: _cost(jobs[i], made) for i in todo}
    lines = [f"{'notebook':26}{'runs':>6}{'done':>6}{'to do':>7}{'work':>12}"]
    for stage in [*sorted({job.name for job in jobs}), "all"]:
        part = [i for i, job in enumerate(jobs) if stage in (job.name, "all")]
        left = [costs[i] for i in part if i in costs]
        lines.append(
            f"{stage:26}{len(part):6}{len(part) - len(left):6}{len(left):7}{_work(left):>12}"
        )
    before = len(jobs) - len({plan.place_of(plan.job_of(*task)) for task in wanted})
    if before > 0:
        lines.append(
            f"{before} of these are not asked for, but what the others rest on: each is made once for all."
        )
    if unknown := sum(cost is None for cost in costs.values()):
        lines.append(
            f"Of {unknown} runs the work is not known: no run of that notebook (and model) is here to go by."
        )
    lines += [of_study(study, made) for study in studies]
    if reasons:
        lines.append("to do, and why:" if todo else "Nothing to do.")
        lines += [f"{_label(tasks[i]):56}  {reason(jobs[i], made)}" for i in todo[:MOST_LINES]]
        if len(todo) > MOST_LINES:
            lines.append(f"... and {len(todo) - MOST_LINES} more")
    return "\n".join(lines)


def _label(task: Task) -> str:
    """A task by what was given for it."""
    notebook, values = task
    return f"{notebook} {', '.join(f'{k} {v}' for k, v in values.items())}"


def _cost(job: Job, made: list[dict[str, Any]]) -> float | None:
    """Seconds this run may take: the median of the same notebook and model; None without one."""
    model = getattr(job.params, "model", "")
    seconds = [
        manifest["wall_s"]
        for manifest in made
        if manifest["stage"] == job.name
        and manifest["parameters"].get("model", "") == model
        and manifest["wall_s"] is not None
    ]
    return float(np.median(seconds)) if seconds else None


def _work(costs: list[float | None]) -> str:
    """The work of several runs, of which some may not be known."""
    known = [cost for cost in costs if cost is not None]
    if not known:
        return "?" if costs else ""
    return _time(sum(known)) + (" + ?" if len(known) < len(costs) else "")


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def reason(job: Job, made: list[dict[str, Any]]) -> str:
    """Why a run is to do: it was never made, it failed, or something it came from changed."""
    if job.recipe is None:
        return "a report, of the runs there will be"
    if job.key is None:
        return "its recording is not fetched yet"
    if (kept := failed_notebook(job)).is_file():
        return f"failed before: {kept}"
    settings = job.recipe.settings(STAGES[job.name].settings).model_dump()
    values = json.loads(json.dumps(store.plain(settings | job.params.model_dump())))
    differing = [
        [k for k, v in stages.in_key(values).items() if v != there["parameters"].get(k)]
        for there in made
        if (there["stage"], there["recording"]) == (job.name, job.recording)
    ]
    if not differing:
        return "never made"
    least = min(differing, key=len)
    if not least:
        return "made before, from another input or by another version"
    return f"made before with another {', '.join(least[:3])}{', ...' if len(least) > 3 else ''}"


def failed_notebook(job: Job) -> Path:
    """Where the notebook of this run is kept if it fails."""
    return store.failed_dir() / job.recording / f"{job.name}-{job.key}.ipynb"


def of_study(study: Study, made: list[dict[str, Any]]) -> str:
    """One line on a study: how many of its trials are done."""
    try:
        n = len(trials.ended(study))
    except MissingInput:
        n = 0  # its recording is not fetched yet
    search = study.search
    line = (
        f"search of {', '.join(search.space)} ({study.title()}): {n} of {search.trials} "
        f"trials done; what {search.objective} chooses is then tested once"
    )
    if n == search.trials:
        return line
    cost = _cost(plan.job_of(*study.task({})), made)
    if not cost:
        return f"{line}; the work of a trial is not known"
    return f"{line}; about {_time((search.trials - n + 2) * cost)} of work"


# --- a sweep at work -----------------------------------------------------------------------------


def state(job: Job, *, elsewhere: bool = False) -> tuple[str, str]:
    """The state of a run and, where there is one, the reason and the notebook.

    "queued" is what nobody has begun; elsewhere: whether notebooks on other hosts may be at work
    (jobs of the sweep are in the queue).
    """
    if job.done() is not None:
        return "done", ""
    if job.recipe is None:
        return "queued", "a report, made last"
    kept = failed_notebook(job)
    begun = [(path, at_work(path)) for path in kept.parent.glob(f"{kept.stem}.*{RUNNING}")]
    for path, who in begun:
        if who.alive or (who.alive is None and elsewhere):
            return "running", f"on {who.host}: {path}"
    if kept.is_file():
        return "failed", f"{ending(kept)}  ({kept})"
    return "queued", f"its last try was killed: {begun[0][0]}" if begun else ""


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
        for (held, why), n in sorted(Counter((s, r) for _, s, r in waiting).items()):
            lines.append(f"Slurm: {n} jobs {held}{f' ({why})' if why != 'None' else ''}")
    jobs = [plan.job_of(*task) for task in tasks]
    rows = [(job, *state(job, elsewhere=bool(waiting))) for job in jobs]
    lines.append(f"{'notebook':26}" + "".join(f"{name:>9}" for name in STATES))
    for stage in [*sorted({job.name for job in jobs}), "all"]:
        count = Counter(now for job, now, _ in rows if stage in (job.name, "all"))
        lines.append(f"{stage:26}" + "".join(f"{count[name]:9}" for name in STATES))
    made = manifests()
    lines += [of_study(study, made) for study in studies]
    for job, now, why in rows:
        if now in ("running", "failed"):
            lines += [f"{now}: {job.label}", f"    {why}"]
    return "\n".join(lines)
