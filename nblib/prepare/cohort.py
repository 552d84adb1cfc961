"""Windows of several recordings as one, held in memory once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nblib.core.errors import BadInput, some
from nblib.prepare import windows
from nblib.prepare.windows import Windows


@dataclass(frozen=True)
class Cohort:
    """Windows of several recordings as one: flat arrays over all windows.

    x (W, T, C); record (W,) number of the recording; subject (W,) text; start_s (W,); label (W,);
    labelled (W,) bool. Windows of a recording lie together, in time order. `whole`: x, where the
    parts are views of it.
    """

    parts: list[Windows]
    whole: np.ndarray | None = None

    def __post_init__(self):
        first = self.parts[0]
        for other in self.parts[1:]:
            for name in ("channels", "rate_hz", "window_s"):
                if getattr(other, name) != getattr(first, name):
                    raise BadInput(
                        f"recordings {first.recording!r} and {other.recording!r} differ in {name}: "
                        f"{some(_several(getattr(first, name)), 20)} and {some(_several(getattr(other, name)), 20)}."
                    )

    @cached_property
    def x(self) -> np.ndarray:
        return np.concatenate([p.x for p in self.parts]) if self.whole is None else self.whole

    @cached_property
    def record(self) -> np.ndarray:
        return np.repeat(np.arange(len(self.parts)), [len(p) for p in self.parts])

    @cached_property
    def subject(self) -> np.ndarray:
        return np.repeat([p.subject for p in self.parts], [len(p) for p in self.parts])

    @cached_property
    def start_s(self) -> np.ndarray:
        return np.concatenate([p.start_s for p in self.parts])

    @cached_property
    def label(self) -> np.ndarray:
        return np.concatenate([p.label for p in self.parts])

    @cached_property
    def labelled(self) -> np.ndarray:
        return np.concatenate([p.labelled for p in self.parts])

    @property
    def window_s(self) -> float:
        return self.parts[0].window_s

    @property
    def rate_hz(self) -> float:
        return self.parts[0].rate_hz

    @property
    def channels(self) -> list[str]:
        return self.parts[0].channels

    def __len__(self) -> int:
        return len(self.record)

    def table(self) -> pd.DataFrame:
        """One row a recording: subject, windows, and those inside each state."""
        rows = []
        for p in self.parts:
            counts = pd.Series(p.label[p.labelled]).value_counts().sort_index()
            rows.append(
                {"recording": p.recording, "subject": p.subject, "windows": len(p), **counts}
            )
        return pd.DataFrame(rows).fillna(0)


def load(folders: list[Path]) -> Cohort:
    """The cohort of some artifacts of 02; each file is read straight into its place.

    Raises BadInput for recordings that do not fit together, or a damaged file.
    """
    sizes = [windows.shape(folder) for folder in folders]
    if len({size[1:] for size in sizes}) > 1:  # says in which of them, and in what
        return Cohort([windows.load(folder) for folder in folders])
    whole = np.empty((sum(size[0] for size in sizes), *sizes[0][1:]), np.float32)
    parts, first = [], 0
    for folder, size in zip(folders, sizes, strict=True):
        parts.append(windows.load(folder, whole[first : first + size[0]]))
        first += size[0]
    return Cohort(parts, whole)


def _several(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
