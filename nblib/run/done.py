"""What is done already: runs that are committed, and reports of the runs there are now."""

from __future__ import annotations

from pathlib import Path

from nblib.core import store
from nblib.core.errors import NblibError
from nblib.road import notebooks
from nblib.road.registry import STAGES, by_name
from nblib.run.plan import Job


def folder_of(job: Job) -> Path | None:
    """Where a job's result lies, None where it is to do. A report (90, 91) is done when it is of
    just the runs there are now and holds its executed notebook."""
    if job.recipe is not None:
        return job.folder if job.committed else None
    info = STAGES[job.stage]
    try:
        upstream = by_name(info.reads)(job.params)
    except NblibError:
        return None  # making it says what is wrong
    code = notebooks.code_hash(notebooks.code_cells(job.notebook))
    key = store.make_key(
        job.stage, info.version, job.params.model_dump() | {"code": code}, upstream
    )
    folder = store.folder(job.stage, job.recording, key)
    return folder if (folder / store.ATTACHED[0]).is_file() else None
