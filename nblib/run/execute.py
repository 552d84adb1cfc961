"""Run a notebook safely and judge it by what it committed, not by how it looks.

Names and types are checked before a kernel starts. papermill executes the notebook with a kernel
on a private Unix socket; signals are passed on to that kernel; the executed notebook is attached
to the artifact, a failed one is kept where the message says.

Exit codes: 0 committed, 2 bad parameters, 3 notebook error, 4 kernel died, 128 + n stopped by
signal n.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import signal
import sys
import time
from dataclasses import dataclass
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

from nblib.core import errors, integrity, store
from nblib.core.errors import BadParameter, CorruptArtifact, NblibError, StorageError
from nblib.run.plan import Job, job_of, key_of, road

OK, BAD_PARAMETERS, NOTEBOOK_ERROR, KERNEL_DIED = 0, 2, 3, 4
RUNNING = ".running.ipynb"  # <stage>-<key>.<pid>@<host>.running.ipynb: a notebook at work


@dataclass(frozen=True)
class Exit:
    """How a run ended: exit code, one message, the artifact, the executed or failed notebook."""

    code: int
    message: str
    folder: Path | None = None
    notebook: Path | None = None
    seconds: float = 0.0
    peak_rss_bytes: int = 0


@dataclass(frozen=True)
class AtWork:
    """Whose a notebook at work is. alive: None where only its own host could tell."""

    host: str
    alive: bool | None


def at_work(path: Path) -> AtWork | None:
    """What the name of a notebook at work says; None for any other file."""
    if not path.name.endswith(RUNNING):
        return None
    pid, _, host = path.name.removesuffix(RUNNING).partition(".")[2].partition("@")
    return AtWork(host, integrity.alive(int(pid)) if host == platform.node() else None)


def size(n_bytes: float) -> str:
    """Bytes for people: '3.2 GB', '12 MB', '7 kB'."""
    if n_bytes >= 1e9:
        return f"{n_bytes / 1e9:.1f} GB"
    return f"{n_bytes / 1e6:.0f} MB" if n_bytes >= 1e6 else f"{n_bytes / 1e3:.0f} kB"


def run(
    notebook: str | Path,
    params: dict[str, Any] | None = None,
    *,
    progress: bool = True,
    **options: bool,
) -> int:
    """`attempt` to run one notebook; return the exit code and say on the terminal what happened."""
    outcome = attempt(notebook, params, progress=progress, **options)
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
) -> Exit:
    """Run one notebook, and what is missing before it if asked; never raises an NblibError.

    A committed key is not run again unless `force`; the old artifact then stands until the new
    one replaces it.
    """
    try:
        job = job_of(notebook, params)
        if job.committed and not force:
            _verify(job)
            done = f"{job.label}: already committed, nothing to do: {job.folder}"
            return Exit(OK, done, job.folder)
        if not with_upstream:
            job.require_inputs()
        if with_upstream and (failed := _make_upstream(job, progress)):
            return changed(failed, message=f"{job.label} was not run. {failed.message}")
        job = changed(job, key=key_of(job))
        return execute(job, progress=progress, replace=force)
    except NblibError as error:
        code = BAD_PARAMETERS if isinstance(error, BadParameter) else NOTEBOOK_ERROR
        return Exit(code, str(error))
    except OSError as error:  # a disk that is full, or may not be written
        place = Path(error.filename or store.home())
        return Exit(NOTEBOOK_ERROR, str(store.storage_error(error, place)))


def _make_upstream(job: Job, progress: bool) -> Exit | None:
    """Make what a job rests on and is not there; the outcome of the first that failed, if any."""
    from nblib.run import many

    undone = []
    for step in road(job):
        needed = job_of(*step)
        if needed.committed:
            _verify(needed)
        else:
            undone.append(step)
    # One process imports for all of them; a job of `run_many` was forked from such a one itself.
    if len(undone) > 1 and multiprocessing.parent_process() is None:
        ends = many.run_many(undone, 1, progress=progress, explain=False)
        return next((end for end in ends if end.code), None)
    for step in undone:
        end = attempt(*step, progress=progress)
        if end.code:
            return end
        if progress:
            print(end.message, flush=True)
    return None


def _verify(job: Job) -> None:
    """Raise CorruptArtifact, with the command that mends it, when stored bytes have changed."""
    try:
        store.open_artifact(job.folder)
    except CorruptArtifact as error:
        recipe = f" -p recipe {job.recipe_name} -p recording {job.recording}" if job.recipe else ""
        raise CorruptArtifact(
            f"{job.label}: {error} The command that does so:  "
            f"nblib run {job.name} --force{recipe}, with its other parameters."
        ) from None


@store.shared()
def execute(job: Job, *, progress: bool = True, replace: bool = False) -> Exit:
    """Execute a planned job in a kernel of its own and judge it by its manifest.

    replace: its artifact takes the place of the one there, when it is complete.
    """
    from nblib.run import kernel

    began = time.monotonic()
    name = f"{job.name}-{job.key or time.strftime('%Y%m%dT%H%M%S')}"
    kept = store.failed_dir() / job.recording / f"{name}.ipynb"
    running = kept.with_name(f"{name}.{os.getpid()}@{platform.node()}{RUNNING}")
    stood = _stands(job)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        end = kernel.execute(
            job.notebook, running, job.values, label=job.label, progress=progress, replace=replace
        )
    except (OSError, NblibError) as error:  # no notebook was run
        running.unlink(missing_ok=True)
        raise store.storage_error(error, kept.parent) from error
    spent = {"seconds": time.monotonic() - began, "peak_rss_bytes": end.peak_rss_bytes}
    folder, fault = None, "the notebook ran to its end but committed nothing (no stage.commit)"
    if end.result is None and _stands(job) not in (None, stood):
        end.result = job.folder  # the kernel ended before it could say so
    if end.result is not None:
        try:
            folder = store.open_artifact(end.result)
        except NblibError as error:
            fault = str(error)
    if end.error or folder is None:
        code, reason = _judge(end, job) if end.error else (NOTEBOOK_ERROR, fault)
        notebook = running.replace(kept) if running.exists() else None
        return Exit(
            code, _failure_message(job, reason, folder, notebook), folder, notebook, **spent
        )
    gpu = store.read_manifest(folder).get("peak_gpu_bytes")
    cost = f"{spent['seconds']:.1f} s, peak {size(end.peak_rss_bytes)}"
    cost += f", GPU {size(gpu)}" if gpu else ""
    message = f"{job.label}: {_score(folder)}committed {folder} ({cost})"
    try:
        notebook = _attach(end.notebook, folder)
    except StorageError as error:  # the result stands; only its notebook is elsewhere
        running.replace(kept)
        message += f". The executed notebook could not be attached ({error}) and is kept: {kept}"
        return Exit(OK, message, folder, kept, **spent)
    running.unlink(missing_ok=True)
    kept.unlink(missing_ok=True)  # an earlier failure of this very key is repaired
    return Exit(OK, message, folder, notebook, **spent)


def _stands(job: Job) -> tuple[int, int] | None:
    """Which result of a job's key is in the store; another one takes its place with other numbers."""
    if not job.committed:
        return None
    manifest = (job.folder / store.MANIFEST).stat()
    return manifest.st_ino, manifest.st_mtime_ns


def _score(folder: Path) -> str:
    """The accuracy of a run with its interval and chance, for the terminal; "" without one."""
    path = folder / "metrics.json"
    scores = json.loads(path.read_text(encoding="utf-8"))["scores"] if path.is_file() else {}
    if "accuracy" not in scores:
        return ""
    s = scores["accuracy"]
    return (
        f"accuracy {s['value']:.1%} (95 % interval {s['ci_low']:.1%} to {s['ci_high']:.1%}, "
        f"chance {s['chance']:.1%}, n = {s['n']}); "
    )


def _goes_on(job: Job) -> str:
    """What the same command does after a run was stopped."""
    if job.key and any(job.log_dir.glob("*.ckpt")):
        return f"The training so far is kept in {job.log_dir}: the same command goes on from there"
    return "The same command begins it again"


def _judge(end: Any, job: Job) -> tuple[int, str]:
    """Exit code and sentence for a run that did not end well."""
    if end.signal:
        return 128 + end.signal, f"stopped by {signal.Signals(end.signal).name}. {_goes_on(job)}"
    if end.died:
        return KERNEL_DIED, end.error
    kind = getattr(errors, end.error_name, None)
    if isinstance(kind, type) and issubclass(kind, BadParameter):
        return BAD_PARAMETERS, end.error
    return NOTEBOOK_ERROR, end.error


def _failure_message(job: Job, reason: str, folder: Path | None, kept: Path | None) -> str:
    stands = "Nothing was committed."
    if folder is not None:
        stands = f"Its result was committed before that and stands: {folder}."
    reason = reason if reason.endswith(("?", "!")) else f"{reason.rstrip('.')}."
    notebook = f" The notebook is kept: {kept}" if kept else ""
    return f"{job.label}: {reason} {stands}{notebook}"


def _attach(notebook: Any, folder: Path) -> Path:
    """Put the executed notebook into the artifact, whole or not at all."""
    about = notebook.metadata.papermill
    about.output_path, about.input_path = store.EXECUTED, Path(about.input_path).name
    return store.attach(folder, notebook)
