"""Allen Institute Visual Coding Neuropixels: local NWB files, and those that the warehouse holds.

allensdk lists and downloads, through `warehouse`. Its session reader is never used: it
deletes the local file when reading raises.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nblib.core import store
from nblib.core.errors import BadInput, BadParameter, MissingInput
from nblib.core.params import Recipe
from nblib.data import nwb
from nblib.data.allen import tables, warehouse
from nblib.data.files import hdf5
from nblib.data.images import Images, read_picture, reduced
from nblib.data.recording import Recording

if TYPE_CHECKING:
    import pandas as pd

USES = ("path", "time_unit")
NATURAL_SCENES = "brain_observatory_1.1"  # the session type in which natural scenes were shown
LISTED = ("session_type", "specimen_id", "sex", "age_in_days", "genotype", "has_nwb")


def open_recording(
    path: Path, recipe: Recipe, recording_id: str, settings: Any = None
) -> Recording:
    """Open a local NWB file in the AllenSDK ecephys layout; the CSV tables beside it are joined.

    Raises what `nwb.open_nwb` raises, and BadInput for a table that cannot be read.
    """
    recording = nwb.open_recording(path, recipe, recording_id)
    session = recording.meta["session_id"] or recording.meta["identifier"]
    if recording_id.isdigit() and session.isdigit() and session != recording_id:
        recording.meta["notes"].append(
            f"The file is of session {session}, the recipe calls it {recording_id}."
        )
    return tables.join(recording)


def beside(path: Path, recipe: Recipe, recording_id: str) -> dict[str, Path]:
    """The tables beside the file: they are joined, so they are part of the recording."""
    return tables.beside(path)


def local_path(session_id: str) -> Path:
    """Where a fetched session lies: the layout of the Institute's own cache, under the data root."""
    if not session_id.isdigit():
        raise BadParameter(
            f"{session_id!r} is not an Allen session id (digits only); set `path` for a file of your own."
        )
    return store.raw_dir() / "allen" / f"session_{session_id}" / f"session_{session_id}.nwb"


def fetched(session_id: str) -> Path:
    """A fetched session's file; MissingInput when it is not here yet."""
    path = local_path(session_id)
    if not path.is_file():
        raise MissingInput(
            f"Allen session {session_id} is not here yet; fetch it with:  nblib allen get {session_id}"
        )
    return path


def list_sessions(session_type: str = NATURAL_SCENES) -> pd.DataFrame:
    """Sessions of the warehouse.

    Parameters
    ----------
    session_type : only sessions of this type, "" for all.

    Returns
    -------
    DataFrame : one row a session, index `session_id` (str); `downloaded` tells which are here.

    Raises
    ------
    MissingInput : the warehouse cannot be reached, or allensdk is not installed.
    """
    warehouse.check_reachable()
    table = warehouse.persist(lambda: warehouse.api().get_sessions(), "the list of sessions")
    if session_type:
        table = table[table["session_type"] == session_type]
    table = table[[c for c in LISTED if c in table]].sort_index()
    table.index = table.index.astype(str).rename("session_id")
    return table.assign(downloaded=[local_path(i).is_file() for i in table.index])


def listing(csv: str | None) -> str:
    """`nblib allen list`: the sessions with natural scenes as text, written to the file `csv` as well."""
    table = list_sessions()
    if csv:
        table.to_csv(csv)
    return table.to_string()


def download(session_id: str, *, again: bool = False) -> Path:
    """Fetch one session's NWB file (2-3 GB) and return its path; at once when it is here.

    A file that is here and opens is left alone; with `again`, or when it does not open, a newly
    fetched and verified one takes its place. After a failure nothing new is left and nothing is gone.

    Raises
    ------
    MissingInput : the warehouse fails.
    BadParameter : an unknown session.
    BadInput : what came is not that session.
    StorageError : the disk is full.
    """
    place = local_path(session_id)
    if place.is_file() and not again:
        try:
            return check_session(place, session_id)
        except BadInput as error:
            print(
                f"{error} Fetching it again; the file there is replaced by a verified one only.",
                file=sys.stderr,
            )
    return _fetch(
        place,
        f"session {session_id}",
        "get_session_data",
        int(session_id),
        f"one NWB file for session {session_id}; `nblib allen list` shows the sessions.",
        lambda path: check_session(path, session_id),
    )


fetch = download


def images(recipe: Recipe, recording_id: str, labels: np.ndarray) -> Images | None:
    """The templates of the natural scenes, fetched once; None where other stimuli were shown."""
    if recipe.intervals != "natural_scenes_presentations":
        return None
    paths = download_scenes([int(x) for x in labels])
    pixels = np.concatenate([reduced(read_picture(path)[None]) for path in paths])
    return Images(pixels, np.array(labels, int), "the Allen Institute")


def scene_place(number: int) -> Path:
    """Where a fetched template lies, as in the Institute's own cache."""
    return store.raw_dir() / "allen" / "natural_scene_templates" / f"natural_scene_{number}.tiff"


def download_scenes(numbers: list[int]) -> list[Path]:
    """Fetch the templates of natural scenes that are not here yet; paths of all that are asked for.

    Every file is verified as an image before it takes its place. Raises what `download` raises.
    """
    for number in numbers:
        place = scene_place(number)
        if not place.is_file():
            what = f"template of natural scene {number}"
            _fetch(
                place, f"the {what}", "get_natural_scene_template", number, f"one {what}.", read_picture
            )  # fmt: skip
    return [scene_place(number) for number in numbers]


def check_session(path: Path, session_id: str) -> Path:
    """The path of a whole NWB file of this session; BadInput for any other file."""
    with hdf5.opened(path) as file:
        lacking = [n for n in ("units/spike_times", "intervals") if n not in file]
        if lacking:
            raise BadInput(f"{path}: no {lacking[0]}; this is not a session's NWB file.")
        sessions = {hdf5.scalar_text(file, n) for n in ("identifier", "general/session_id")}
    if any(t.isdigit() for t in sessions) and session_id not in sessions:
        raise BadInput(
            f"{path}: expected session {session_id}, the file is of session {min(sessions)}."
        )
    return path


def _fetch(
    place: Path, what: str, ask: str, number: int, file: str, verify: Callable[[Path], Any]
) -> Path:
    """Download what allensdk's API has by the name `ask`; BadParameter where that is not one file."""

    def link(api: Any) -> str:
        try:
            return getattr(api, ask)(number)
        except ValueError as error:
            if not str(error).startswith("expected exactly"):
                raise
            raise BadParameter(f"the warehouse does not hold {file}") from None

    return warehouse.fetch(place, what, link, verify)
