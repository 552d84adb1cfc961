"""The list of data sources: a line a source, with the module that reads it. A new source is one file and a line.

The module is imported when a recording is asked for; `nblib.data.sources` says what is in it.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType


@dataclass(frozen=True)
class Source:
    """What is known of a source before its module is imported."""

    place: str  # its module, below nblib
    holds: str  # "spikes", "lfp" or "counts"; counts are binned already, so their road begins at 02
    blank: str = ""  # the label of a grey screen where the source's own layout says it

    @property
    def module(self) -> ModuleType:
        return importlib.import_module(f"nblib.{self.place}")


SOURCES = {
    "allen": Source("data.allen", "spikes", blank="-1"),
    "nwb": Source("data.nwb", "spikes"),
    "simulate": Source("simulate.allen", "spikes", blank="-1"),
    "lab_pickle": Source("data.lab_pickle", "counts", blank="-1"),
    "counts": Source("data.binned_files", "counts"),
    "simulate_lfp": Source("simulate.lfp", "lfp"),
    "lfp_nwb": Source("data.lfp.nwb", "lfp"),
    "lfp_mat": Source("data.lfp.mat", "lfp"),
    "movie": Source("data.movie", "spikes"),
    "simulate_movie": Source("simulate.movie", "spikes"),
    "ibl": Source("data.ibl", "spikes"),
    "simulate_task": Source("simulate.task", "spikes"),
    "reach": Source("data.reach", "spikes"),
    "simulate_retina": Source("simulate.retina", "spikes"),
}
