"""Run a notebook safely and judge it by what it committed, not by how it looks.

Names and types are checked before a kernel starts. papermill executes the notebook with a kernel
on a private Unix socket; signals are passed on to that kernel; the executed notebook is attached
to the artifact, a failed one is kept where the message says.

Exit codes: 0 committed, 2 bad parameters, 3 notebook error, 4 kernel died, 128 + n stopped by
signal n.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import signal
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from nblib import errors, stages, store
from nblib.errors import BadParameter, MissingInput, NblibError, RunFailed, StorageError

OK, BAD_PARAMETERS, NOTEBOOK_ERROR, KERNEL_DIED = 0, 2, 3, 4
THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS",
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One notebook to run: its file, its stage, the checked values and its place in the store."""

    stage: str
    notebook: Path
    values: dict[str, Any]  # what is injected
    params: Any
    recipe: Any  # the settled Recipe, or None
    recipe_name: str  # a name or path by which an upstream notebook finds that recipe
    key: str | None  # None where it is not known before the run

    @property
    def recording(self) -> str:
        return self.params.recording if self.recipe is not None else "all"

    @property
    def label(self) -> str:
        return f"{self.stage} {self.recording}"

    @property
    def folder(self) -> Path | None:
        return store.folder(self.stage, self.recording, self.key) if self.key else None

    @property
    def committed(self) -> bool:
        return bool(self.key) and store.is_committed(self.stage, self.recording, self.key)


@dataclass(frozen=True)
class Outcome:
    """How a run ended: exit code, one message, the artifact, the executed or failed notebook."""

    code: int
    message: str
    folder: Path | None = None
    notebook: Path | None = None
    seconds: float = 0.0
    peak_rss_bytes: int = 0


# --- before the kernel ---------------------------------------------------------------------------


def find_notebook(name: str | Path) -> tuple[Path, str]:
    """Notebook file and stage of '05', '05_train_lstm' or a path; BadParameter otherwise."""
    text = str(name)
    if text.endswith(".ipynb"):
        path = Path(text).expanduser().resolve()
        if not path.is_file():
            raise BadParameter(f"{path}: no such notebook.")
        return path, stage_of(path)
    found = [s for s in stages.STAGES if text in (s, s.split("_")[0])]
    if not found:
        close = difflib.get_close_matches(text, stages.STAGES, n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(close)}?" if close else "."
        raise BadParameter(f"no notebook {text!r}{hint} There are {', '.join(stages.STAGES)}.")
    path = store.notebooks_dir() / f"{found[0]}.ipynb"
    if not path.is_file():
        raise BadParameter(f"{path}: the notebook of stage {found[0]} is not there.")
    return path, found[0]


def stage_of(path: Path) -> str:
    """The stage that a notebook opens with `nblib.begin("...", globals())`."""
    try:
        cells = stages.code_cells(path)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise BadParameter(f"{path}: not a readable notebook ({error}).") from None
    opened = re.findall(r"^[^#\n]*\bbegin\(\s*[\"']([^\"']+)[\"']", "\n".join(cells), re.M)
    if len(set(opened)) != 1 or opened[0] not in stages.STAGES:
        raise BadParameter(
            f"{path}: expected one call nblib.begin(\"<stage>\", globals()) with a stage out of "
            f"{', '.join(stages.STAGES)}; found {', '.join(opened) or 'none'}."
        )
    return opened[0]


def check_names(stage: str, values: dict[str, Any]) -> None:
    """BadParameter with a did-you-mean list for names that the notebook does not take."""
    accepted = stages.accepted_names(stage)
    faults = []
    for name in sorted(set(values) - set(accepted)):
        close = difflib.get_close_matches(name, accepted, n=3)
        hint = f"; did you mean {' or '.join(close)}?" if close else f"; it takes {', '.join(accepted)}"
        faults.append(f"unknown parameter {name!r}{hint}")
    if faults:
        raise BadParameter(f"{stage}: {'. '.join(faults)}")


def plan(notebook: str | Path, values: dict[str, Any] | None = None) -> Job:
    """Check everything that can be checked without a kernel; BadParameter otherwise.

    A whole recipe among the values (it names `recordings`) must come with its file as `recipe`.
    Without a recording, the only recording of the recipe is meant.
    """
    path, stage = find_notebook(notebook)
    values = dict(values or {})
    check_names(stage, values)
    if str(values.get("recipe", "")).endswith((".yml", ".yaml")):
        values["recipe"] = str(Path(values["recipe"]).expanduser().resolve())
    if "recipe" in values and "recording" not in values and "recording" in stages.accepted_names(stage):
        recordings = recordings_of(values["recipe"])
        if len(recordings) > 1:
            raise BadParameter(
                f"{stage}: recipe {values['recipe']!r} holds {len(recordings)} recordings; give "
                f"one of {', '.join(recordings)} as `recording`."
            )
        values["recording"] = recordings[0]
    params, recipe = stages.settle_recipe(stage, values)
    recipe_name = ""
    if recipe is not None:
        unchanged = stages.find_recipe(params.recipe).recipe == recipe.recipe
        recipe_name = params.recipe if unchanged else recipe.recipe
    job = Job(stage, path, values, params, recipe, recipe_name, None)
    return replace(job, key=_key(job))


def recordings_of(recipe: Any) -> list[str]:
    if not isinstance(recipe, str):
        raise BadParameter(f"recipe = {recipe!r}: expected the name of a recipe, a string.")
    return stages.find_recipe(recipe).recordings


def _key(job: Job) -> str | None:
    """The key, or None: a report's inputs, or a recording not fetched yet, are known only later."""
    if job.recipe is None:
        return None
    info = stages.STAGES[job.stage]
    code = stages.code_hash(stages.code_cells(job.notebook)) if info.is_run else ""
    try:
        return stages.key_for(job.stage, job.recipe, job.recording, job.params, code)
    except MissingInput:
        return None


# --- the whole road ------------------------------------------------------------------------------


def run(
    notebook: str | Path,
    params: dict[str, Any] | None = None,
    *,
    with_upstream: bool = False,
    progress: bool = True,
    force: bool = False,
) -> int:
    """Run one notebook; return the exit code and say on the terminal what happened."""
    outcome = attempt(notebook, params, with_upstream=with_upstream, progress=progress, force=force)
    if outcome.code:
        print(f"nblib: {outcome.message}", file=sys.stderr)
    elif progress:
        print(outcome.message)
    return outcome.code


def attempt(
    notebook: str | Path,
    params: dict[str, Any] | None = None,
    *,
    with_upstream: bool = False,
    progress: bool = True,
    force: bool = False,
) -> Outcome:
    """Run one notebook, and what is missing before it if asked; the outcome, never an NblibError."""
    try:
        job = plan(notebook, params)
        if job.committed and not force:
            return Outcome(OK, f"{job.label}: already committed, nothing to do: {job.folder}", job.folder)
        road = stages.chain(job.stage, job.recipe.source)[:-1] if job.recipe is not None else []
        if with_upstream:
            for stage in road:
                values = {"recipe": job.recipe_name, "recording": job.recording}
                step = attempt(stage, values, progress=progress)
                if step.code:
                    return replace(step, message=f"{job.label} was not run. {step.message}")
                if progress:
                    print(step.message, flush=True)
            job = replace(job, key=_key(job))
        elif road:
            upstream = stages.key_for(road[-1], job.recipe, job.recording)
            if not store.is_committed(road[-1], job.recording, upstream):
                stages.Stage(job.stage, job.params, job.recipe, "").input(road[-1])
        with _set_aside(job.folder if force and job.committed else None):
            return execute(job, progress=progress)
    except NblibError as error:
        code = BAD_PARAMETERS if isinstance(error, BadParameter) else NOTEBOOK_ERROR
        return Outcome(code, str(error))


class _set_aside:
    """Move a committed artifact away while it is made again; bring it back if that fails."""

    def __init__(self, folder: Path | None):
        self.folder = folder
        self.aside = folder and folder.with_name(f".{folder.name}.replaced.{os.getpid()}")

    def __enter__(self) -> None:
        if self.folder is not None:
            self.folder.rename(self.aside)

    def __exit__(self, *_: object) -> None:
        if self.folder is None:
            return
        if (self.folder / store.MANIFEST).is_file():
            import shutil

            shutil.rmtree(self.aside)
        else:
            self.aside.rename(self.folder)


def execute(job: Job, *, progress: bool = True) -> Outcome:
    """Execute a planned job in a kernel of its own and judge it by its manifest."""
    from nblib.runner import kernel

    started = time.monotonic()
    stamp = job.key or time.strftime("%Y%m%dT%H%M%S")
    kept = store.failed_dir() / job.recording / f"{job.stage}-{stamp}.ipynb"
    running = kept.with_suffix(f".{os.getpid()}.running.ipynb")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        end = kernel.execute(job.notebook, running, job.values, label=job.label, progress=progress)
    except OSError as error:
        running.unlink(missing_ok=True)
        if error.errno in store.NO_SPACE:
            what = store.NO_SPACE[error.errno]
            raise StorageError(f"{kept.parent}: {what}; the notebook could not be kept.") from error
        raise
    spent = {"seconds": time.monotonic() - started, "peak_rss_bytes": end.peak_rss_bytes}
    folder, fault = None, ""
    if end.result is not None:
        try:
            folder = store.open_artifact(end.result)
        except NblibError as error:
            fault = str(error)
    if not end.error and folder is not None:
        notebook = _attach(end.notebook, folder)
        running.unlink(missing_ok=True)
        kept.unlink(missing_ok=True)  # an earlier failure of this very key is repaired
        gpu = store.read_manifest(folder).get("peak_gpu_bytes") or end.peak_gpu_bytes
        peaks = f"peak {size(end.peak_rss_bytes)}" + (f", GPU {size(gpu)}" if gpu else "")
        message = f"{job.label}: committed {folder} ({spent['seconds']:.1f} s, {peaks})"
        return Outcome(OK, message, folder, notebook, **spent)
    running.replace(kept)
    code, said = _judge(end)
    if not end.error:
        said = fault or "the notebook ran to its end but committed nothing (no stage.commit)"
    stands = f" Its result was committed before that and stands: {folder}." if folder else " Nothing was committed."
    message = f"{job.label}: {said.rstrip('.')}.{stands} The notebook is kept: {kept}"
    return Outcome(code, message, folder, kept, **spent)


def _judge(end: Any) -> tuple[int, str]:
    """Exit code and sentence for a run that did not end well."""
    if end.signal:
        return 128 + end.signal, f"stopped by {signal.Signals(end.signal).name}"
    if end.died:
        return KERNEL_DIED, end.error
    kind = getattr(errors, end.error_name, None)
    if isinstance(kind, type) and issubclass(kind, BadParameter):
        return BAD_PARAMETERS, end.error
    return NOTEBOOK_ERROR, end.error


def _attach(notebook: Any, folder: Path) -> Path:
    """Put the executed notebook into the artifact, whole or not at all."""
    notebook.metadata.papermill.output_path = store.ATTACHED[0]
    notebook.metadata.papermill.input_path = Path(notebook.metadata.papermill.input_path).name
    store.write_text(folder / store.ATTACHED[0], json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
    return folder / store.ATTACHED[0]


def size(n_bytes: float) -> str:
    """Bytes for people: '0.3 GB', '12 MB'."""
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"


# --- several at once -----------------------------------------------------------------------------


def run_many(jobs: list[tuple[str, dict[str, Any]]], n_jobs: int, *, progress: bool = True, **options: bool) -> list[Outcome]:
    """Run (notebook, params) pairs, `n_jobs` at a time, each in a process of its own.

    The cores at hand are shared out: each job gets cores // n_jobs threads. `options` are those of
    `attempt`. A signal to this process reaches every job; jobs not begun are then not begun.
    """
    from nblib.runner import pool

    if n_jobs < 1:
        raise BadParameter(f"jobs = {n_jobs}: expected at least 1.")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = max(1, cores // n_jobs)
    threads = {v: str(min(share, int(os.environ.get(v) or share))) for v in THREAD_VARIABLES}
    orders = [{"notebook": str(n), "params": p, **options} for n, p in jobs]

    def finished(order: dict[str, Any], outcome: Outcome) -> None:
        if progress or outcome.code:
            print(outcome.message, file=sys.stderr if outcome.code else sys.stdout, flush=True)

    return pool.run(orders, n_jobs, threads, Outcome, finished)


def child() -> int:
    """What a process of `run_many` does: one order on stdin, one outcome on stdout."""
    order = json.load(sys.stdin)
    outcome = attempt(order.pop("notebook"), order.pop("params"), progress=False, **order)
    print(json.dumps({k: str(v) if isinstance(v, Path) else v for k, v in asdict(outcome).items()}))
    return outcome.code


__all__ = ["Job", "Outcome", "RunFailed", "attempt", "execute", "plan", "run", "run_many"]
