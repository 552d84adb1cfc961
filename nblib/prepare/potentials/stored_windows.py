"""Windows of potentials as they are kept: one HDF5 file a recording; several are a `Cohort`.

Shapes: W windows, T samples, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from nblib.core.errors import BadInput, some
from nblib.data.files import hdf5
from nblib.data.files.arrays import described, load_arrays, save_arrays

FILE = "windows.h5"
WHOLE = 1 - 1e-9  # purity of a window that lies inside its state
# Fields of `Windows` as the file has them: arrays, and attributes with their type.
ARRAYS = ("x", "start_s", "label", "purity")
ATTRIBUTES = {
    "recording": str, "subject": str, "rate_hz": float, "window_s": float, "hop_s": float, "dropped": int,
    "how": str, "classes": str, "left_out": str,
}  # fmt: skip


@dataclass(frozen=True)
class Windows:
    """Windows of one recording.

    x (W, T, C) float32, z-scored by window and channel; start_s (W,); label (W,) text of the state
    that fills most of the window, "" for none; purity (W,): the share it fills.
    """

    x: np.ndarray
    start_s: np.ndarray
    label: np.ndarray
    purity: np.ndarray
    recording: str
    subject: str
    rate_hz: float
    window_s: float
    hop_s: float
    channels: list[str]
    dropped: int  # windows left out because they touch NaN
    how: str  # filter and resampling in words
    classes: str = "[]"  # every state of the recording, and
    left_out: str = "{}"  # reason -> intervals that count for none, as JSON

    def __len__(self) -> int:
        return len(self.start_s)

    @property
    def labelled(self) -> np.ndarray:
        """(W,) True for windows that lie inside one state; those that straddle two have no label."""
        return (self.label != "") & (self.purity >= WHOLE)

    def _repr_html_(self) -> str:
        inside = pd.Series(self.label[self.labelled]).value_counts().sort_index()
        rows = {
            "recording": self.recording, "subject": self.subject, "windows": len(self),
            "samples x channels": f"{self.x.shape[1]} x {self.x.shape[2]}", "rate [Hz]": f"{self.rate_hz:g}",
            "inside a state": ", ".join(f"{k} {v}" for k, v in inside.items()) or "none",
            "touch NaN, left out": self.dropped, "how": self.how,
        }  # fmt: skip
        return pd.Series(rows, name="value").to_frame().to_html(header=False)


def save(windows: Windows, folder: Path) -> None:
    """Write windows.h5 (see `save_arrays`)."""
    arrays = {name: getattr(windows, name) for name in ARRAYS}
    attributes = {name: getattr(windows, name) for name in ATTRIBUTES}
    save_arrays(
        folder / FILE, arrays, kind="nblib windows", channels=windows.channels, **attributes
    )


def load(folder: Path, x: np.ndarray | None = None) -> Windows:
    """Read what `save` wrote, `x` into the array (W, T, C) given; BadInput when it is damaged."""
    path = folder / FILE
    arrays = load_arrays(path, {} if x is None else {"x": x})
    channels = [hdf5.text(name) for name in arrays.attributes["channels"]]
    values = {name: kind(arrays.attributes[name]) for name, kind in ATTRIBUTES.items()}
    return Windows(**{name: arrays[name] for name in ARRAYS}, channels=channels, **values)


def subject(folder: Path) -> str:
    """Whose windows are stored; BadInput when the file is damaged."""
    return str(described(folder / FILE).attributes["subject"])


class Cohort:
    """Windows of several recordings as one: flat arrays over all windows.

    x (W, T, C); record (W,) number of the recording; subject (W,) text; start_s (W,); label (W,);
    labelled (W,) bool. Windows of a recording lie together, in time order. Raises BadInput for
    recordings that do not fit together.
    """

    def __init__(self, parts: list[Windows], x: np.ndarray | None = None):
        """x: the array that the windows of all parts lie in, if there is one already."""
        first, sizes = parts[0], [len(part) for part in parts]
        for other in parts[1:]:
            for name in ("channels", "rate_hz", "window_s"):
                one, two = getattr(first, name), getattr(other, name)
                if one != two:
                    raise BadInput(
                        f"recordings {first.recording!r} and {other.recording!r} differ in {name}: "
                        f"{some(np.atleast_1d(one), 20)} and {some(np.atleast_1d(two), 20)}."
                    )
        self.parts = parts
        self.channels, self.rate_hz, self.window_s = first.channels, first.rate_hz, first.window_s
        self.x = np.concatenate([part.x for part in parts]) if x is None else x
        self.record = np.repeat(np.arange(len(parts)), sizes)
        self.subject = np.repeat([part.subject for part in parts], sizes)
        self.start_s = np.concatenate([part.start_s for part in parts])
        self.label = np.concatenate([part.label for part in parts])
        self.labelled = np.concatenate([part.labelled for part in parts])

    @classmethod
    def load(cls, folders: list[Path]) -> Cohort:
        """The cohort of some artifacts of 02; each file is read straight into its place."""
        sizes = [described(folder / FILE)["x"] for folder in folders]
        if len({size[1:] for size in sizes}) > 1:  # says in which of them, and in what
            return cls([load(folder) for folder in folders])
        x = np.empty((sum(size[0] for size in sizes), *sizes[0][1:]), np.float32)
        places = np.split(x, np.cumsum([size[0] for size in sizes])[:-1])
        parts = [load(folder, place) for folder, place in zip(folders, places, strict=True)]
        return cls(parts, x)

    def __len__(self) -> int:
        return len(self.record)

    def table(self) -> pd.DataFrame:
        """One row a recording: subject, windows, and those inside each state."""
        rows = []
        for part in self.parts:
            counts = pd.Series(part.label[part.labelled]).value_counts().sort_index()
            of_part = {"recording": part.recording, "subject": part.subject, "windows": len(part)}
            rows.append({**of_part, **counts})
        return pd.DataFrame(rows).fillna(0)
