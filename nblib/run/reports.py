"""Reports (90, 91) rest on the runs there are now: whether one of just these is there already."""

from __future__ import annotations

from pathlib import Path

from nblib.core import store
from nblib.core.errors import NblibError
from nblib.road import notebooks
from nblib.road.registry import STAGES, by_name
from nblib.run.plan import Job


def inputs(job: Job) -> list[str]:
    """Keys of what a report would rest on if it were made now. MissingInput without any search."""
    return by_name(STAGES[job.stage].reads)(job.params)


def there(job: Job) -> Path | None:
    """Folder of the report of just these inputs, with its executed notebook; None where it is not."""
    try:
        upstream = inputs(job)
    except NblibError:
        return None  # making it says what is wrong
    code = notebooks.code_hash(notebooks.code_cells(job.notebook))
    values = job.params.model_dump() | {"code": code}
    key = store.make_key(job.stage, STAGES[job.stage].version, values, upstream)
    folder = store.folder(job.stage, job.recording, key)
    return folder if (folder / store.ATTACHED[0]).is_file() else None
