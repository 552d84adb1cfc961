"""The lab's pickled spike tables: one row per bin, a column per unit, and `frame`.

`spike_trains_with_stimulus_session_<id>_<bins>.pkl` enters the road as counts, at stage 02. The
pickle is read by `guarded_pickle`, which runs nothing of it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nblib.core.errors import BadInput, some
from nblib.core.findings import check_once, refuse
from nblib.data.binned_files import first_no_count
from nblib.data.counts_dataset import build
from nblib.data.files.guarded_pickle import Blocks, read_table

if TYPE_CHECKING:
    import xarray as xr

    from nblib.core.params import Recipe

USES = ("path", "n_bins")  # the bins are checked against the file
NAME = re.compile(r"spike_trains_with_stimulus_session_(\d+)(?:_(\d+))?\.pkl")
LABEL = "frame"
PRESENTATION_NS = 250_000_000  # the file has no clock: scenes were shown 0.25 s each, on end
ROWS_AT_ONCE = 512  # a block may lie in memory either way round


def read_counts(path: Path, recipe: Recipe, recording_id: str, settings: Any = None) -> xr.Dataset:
    """The table as Binned counts, its bins and session as the recipe says (see `read_lab_pickle`)."""
    return read_lab_pickle(path, n_bins=recipe.n_bins, session=recording_id)


def read_lab_pickle(
    path: Path | str, *, n_bins: int | None = None, session: str | None = None
) -> xr.Dataset:
    """Read one pickled table as Binned counts (trial, time, unit), presentations in file order.

    `n_bins` and `session` are checked against the file's name, which gives them when they are
    not given. The file has no clock: `start_s` is 0.25 s times the presentation's number and
    `attrs["clock"]` says "nominal". Raises BadInput for a table without one `frame` column, for
    runs of `frame` that do not fit the bins (with the row) and for values that are not counts.
    """
    path = Path(path)
    match = NAME.fullmatch(path.name)
    named_session, named_bins = match.groups() if match else (None, None)
    if named_session and session and session.isdigit() and session != named_session:
        raise BadInput(f"{path}: the name says session {named_session}, asked for was {session}.")
    if named_bins and n_bins and int(named_bins) != n_bins:
        raise BadInput(
            f"{path}: the name says {named_bins} bins per presentation, asked for were {n_bins}. Set n_bins: {named_bins}."
        )
    n_bins = n_bins or (int(named_bins) if named_bins else None)
    if not n_bins:
        raise BadInput(f"{path}: the name does not tell the bins per presentation; set n_bins.")
    columns, blocks = read_table(path)
    frames = [i for i, c in enumerate(columns) if c == LABEL]
    if len(frames) != 1:
        raise BadInput(
            f"{path}: {len(frames)} columns called {LABEL!r} among {len(columns)} (the last are "
            f"{some(columns[-3:])}); expected one, first or last."
        )
    frame, n_nan = _frame_column(path, blocks, frames[0])
    check_runs(path, frame, n_bins)
    units = _unit_ids(path, [c for i, c in enumerate(columns) if i != frames[0]])
    counts = _counts(path, blocks, frames[0], columns)
    binned = _dataset(path, counts, frame, units, n_bins, session or named_session or path.stem)
    odd = f"{LABEL} is NaN in {n_nan} of {len(frame)} rows, taken for the grey screen, -1."
    return binned.assign_attrs(odd=odd) if n_nan else binned


def _frame_column(path: Path, blocks: Blocks, position: int) -> tuple[np.ndarray, int]:
    """Scene of each row, int64, -1 for the grey screen; and how many rows are NaN, which is taken for it."""
    values = next(v[place == position][0] for place, v in blocks if position in place)
    try:
        frame = values.astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        raise BadInput(f"{path}: column {LABEL!r} holds text; expected scene numbers.") from None
    frame = np.where(blank := np.isnan(frame), -1, frame)  # some files write the blank as NaN
    refuse(
        (frame != np.rint(frame)) | (np.abs(frame) > 1e9),
        f"{path}: {LABEL} is %value in row %row; expected whole scene numbers.",
        value=frame,
    )
    return frame.astype(np.int64), int(blank.sum())


def check_runs(path: Path, frame: np.ndarray, n_bins: int) -> None:
    """Refuse a table whose runs of equal `frame` are not whole presentations of `n_bins` rows.

    One scene shown twice in a row is a run of twice the length. Raises BadInput with the row.
    """
    starts = (
        np.flatnonzero(np.r_[True, frame[1:] != frame[:-1]]) if len(frame) else np.zeros(0, int)
    )
    lengths = np.diff(np.r_[starts, len(frame)])
    bad = np.flatnonzero(lengths % n_bins)
    if len(frame) == 0:
        raise BadInput(f"{path}: the table has no rows.")
    if len(bad):
        first = bad[0]
        row = starts[first] + lengths[first] // n_bins * n_bins
        raise BadInput(
            f"{path}: misaligned at row {row}: {LABEL} {frame[row]} begins there and holds for "
            f"{lengths[first] % n_bins} of {n_bins} bins ({len(bad)} such runs, {len(frame)} rows). Rows are "
            "missing or n_bins is wrong; make the table again from the NWB file."
        )


def _unit_ids(path: Path, names: list) -> np.ndarray:
    """Unit ids as integers where all are, else as text."""
    if not names:
        raise BadInput(f"{path}: no unit columns beside {LABEL!r}.")
    texts = [str(int(n)) if isinstance(n, float) and n.is_integer() else str(n) for n in names]
    check_once(f"{path}: the columns", texts)
    return np.array(texts, np.int64 if all(re.fullmatch(r"\d{1,18}", t) for t in texts) else str)


def _counts(path: Path, blocks: Blocks, frame: int, columns: list) -> np.ndarray:
    """Counts (row, unit), uint8 where they fit and uint16 otherwise; refuses what is no count.

    frame : position of the column that is no unit's.
    """
    n_rows = blocks[0][1].shape[1]
    counts = np.empty((n_rows, len(columns)), np.uint16)
    for place, values in blocks:
        of_units = place != frame
        place, names = place[of_units], [columns[i] for i in place[of_units]]
        for first in range(0, n_rows, ROWS_AT_ONCE) if names else ():
            part = values[of_units, first : first + ROWS_AT_ONCE]
            if part.dtype.kind not in "iuf":
                try:
                    part = part.astype(np.float64)
                except (TypeError, ValueError, OverflowError):
                    raise BadInput(
                        f"{path}: the columns of {some(names)} hold text; expected counts."
                    ) from None
            if (wrong := first_no_count(part)) is not None:
                raise BadInput(
                    f"{path}: column {names[wrong[0]]} holds {part[wrong]} in row {first + wrong[1]}; "
                    "expected spike counts (whole numbers from 0 to 65535). A table of z-scores cannot be "
                    "used: take the table from before normalising."
                )
            counts[first : first + ROWS_AT_ONCE, place] = part.T
    counts = np.delete(counts, frame, axis=1)
    return counts.astype(np.uint8) if not counts.size or counts.max() < 256 else counts


def _dataset(
    path: Path, counts: np.ndarray, frame: np.ndarray, units: np.ndarray, n_bins: int, session: str
) -> xr.Dataset:
    n = len(frame) // n_bins
    start = np.arange(n, dtype=np.int64) * PRESENTATION_NS
    edges = start[:, None] + np.arange(n_bins + 1) * PRESENTATION_NS // n_bins  # int64 ns
    counts, label = counts.reshape(n, n_bins, len(units)), frame[::n_bins]
    attrs = {
        "recording": session,
        "subject": "",
        "label_name": LABEL,
        "source": str(path),
        "binning": json.dumps({"binning": "per_presentation", "n_bins": n_bins}),
        "clock": "nominal",
    }
    binned = build(counts, np.arange(n), label, edges, pd.DataFrame(index=units), attrs=attrs)
    return binned.assign_coords({LABEL: ("trial", label)})
