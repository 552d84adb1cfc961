"""Binning a whole recording against reading its spike times, and against other tools.

Every tool counts the same spikes in the same bins: natural-scene presentations, five bins each.
A slow tool gets some units or presentations only, stated in its row, and its time is scaled.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from measure import Row, best, memory, process

N_BINS = 5
MEMORY_LIMIT = 600e6


def rows(nwb: Path, *, repeats: int = 9, part: int = 40, torch_part: int = 3) -> list[Row]:
    """The binning rows for one recording; `part` units for other tools, fewer for the slowest."""
    import h5py

    def read() -> None:
        with h5py.File(nwb, "r") as file:
            file["units/spike_times"][()]

    def ours() -> None:
        keep["binned"] = _bin(nwb)

    keep: dict[str, Any] = {}
    read()  # warm the cache
    ours()
    took = best(repeats, h5py=read, nblib=ours)
    ratio = took["nblib"] / took["h5py"]
    n_spikes, shape = _size(nwb), keep["binned"].counts.shape
    group = "binning"
    against = "h5py reads units/spike_times"
    size = f"{shape[0]:,} presentations × {shape[1]} bins × {shape[2]:,} units, {n_spikes:,} spikes"
    out = [
        Row(group, against, took["h5py"], ratio=1.0, note=size),
        Row(
            group, "nblib bins the recording", took["nblib"], ratio=ratio, against=against,
            limit="at most 2 × h5py", holds=ratio <= 2.0, note="open, read and count; 2 threads",
        ),
        _write_row(group, keep["binned"]),
        _memory_row(group, nwb),
    ]  # fmt: skip
    for name, seconds, note in _others(nwb, part, torch_part):
        out.append(
            Row(group, name, seconds, ratio=seconds / took["h5py"], against=against, note=note)
        )
    return out


def _bin(nwb: Path) -> Any:
    from nblib.core.params import BinSettings
    from nblib.data.nwb import open_nwb
    from nblib.prepare.binning import bin_recording

    recording = open_nwb(nwb, intervals="natural_scenes_presentations", label="frame")
    return bin_recording(recording, BinSettings(n_bins=N_BINS), threads=2)


def _size(nwb: Path) -> int:
    import h5py

    with h5py.File(nwb, "r") as file:
        return int(file["units/spike_times"].shape[0])


def _write_row(group: str, binned: Any) -> Row:
    from nblib.data import counts_dataset

    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        counts_dataset.save(binned, Path(folder))
        took = time.perf_counter() - began
        size = sum(p.stat().st_size for p in Path(folder).iterdir())
    return Row(group, "nblib writes the artifact", took, note=f"{size / 1e6:.0f} MB, checksummed")


def _memory_row(group: str, nwb: Path) -> Row:
    """In a process of its own: the highest resident size less that of the bare interpreter."""
    peak = json.loads(process(sys.executable, __file__, str(nwb)))["above_interpreter"]
    return Row(
        group, "peak memory above the interpreter", peak / 1e6, "MB", limit="at most 600 MB",
        holds=peak <= MEMORY_LIMIT, note="imports and mapped file pages counted in",
    )  # fmt: skip


# --- other tools ---------------------------------------------------------------------------------


def _others(nwb: Path, part: int, torch_part: int):
    """(name, seconds scaled to the whole recording, what was measured) of each other tool."""
    import h5py
    import numpy as np

    with h5py.File(nwb, "r") as file:
        table = file["intervals/natural_scenes_presentations"]
        start, stop = table["start_time"][()], table["stop_time"][()]
        ends = file["units/spike_times_index"][()].astype(int)
        firsts = np.concatenate([[0], ends[:-1]])
        chosen = np.linspace(0, len(ends) - 1, min(part, len(ends))).astype(int)
        trains = {int(u): file["units/spike_times"][firsts[u] : ends[u]] for u in chosen}
    n_spikes = sum(len(t) for t in trains.values())
    share = int(ends[-1]) / max(1, n_spikes)  # time grows with the spikes that are looked at
    stated = f"spikes in memory, {len(trains)} of {len(ends):,} units, scaled by spikes"
    yield "pynapple, TsGroup.count", _pynapple(trains, start, stop) * share, stated
    seconds = _allensdk(trains, start, stop)
    yield "allensdk, presentationwise_spike_counts", seconds * share, stated
    some = dict(list(trains.items())[:torch_part])
    shown = min(len(start), 100)
    seconds = _histc(some, start[:shown], stop[:shown])
    few = sum(len(t) for t in some.values())
    scale = int(ends[-1]) / max(1, few) * len(start) / shown
    note = f"{len(some)} units × {shown} presentations, scaled by spikes and presentations"
    yield "the lab's loop, torch.linspace and histc", seconds * scale, note


def _pynapple(trains: dict, start: Any, stop: Any) -> float:
    import numpy as np
    import pynapple

    edges = start[:, None] + (stop - start)[:, None] * np.arange(N_BINS + 1) / N_BINS
    # Bins that touch would be merged into one interval: end each a nanosecond early.
    bins = pynapple.IntervalSet(edges[:, :-1].ravel(), edges[:, 1:].ravel() - 1e-9)
    group = pynapple.TsGroup({u: pynapple.Ts(t) for u, t in trains.items()})
    group.count(ep=bins)  # compiles
    return best(2, count=lambda: group.count(ep=bins))["count"]


def _give_back_names() -> None:
    """Give numpy and pynwb the names that allensdk 2.16 still uses and newer releases dropped."""
    import numpy as np
    import pynwb

    dropped = {
        "VisibleDeprecationWarning": np.exceptions.VisibleDeprecationWarning,
        "NaN": np.nan, "NAN": np.nan, "Inf": np.inf, "string_": np.bytes_, "unicode_": np.str_,
    }  # fmt: skip
    for name, value in dropped.items():
        if name not in vars(np):
            setattr(np, name, value)
    for verb in ("get", "add"):
        if not hasattr(pynwb.ProcessingModule, f"{verb}_data_interface"):
            setattr(
                pynwb.ProcessingModule,
                f"{verb}_data_interface",
                getattr(pynwb.ProcessingModule, verb),
            )
    if not hasattr(pynwb.NWBFile, "modules"):
        pynwb.NWBFile.modules = property(lambda self: self.processing)


def _allensdk(trains: dict, start: Any, stop: Any) -> float:
    """The SDK's own method on a stand-in for its session: its slow reader is not timed."""
    import numpy as np
    import pandas as pd

    _give_back_names()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from allensdk.brain_observatory.ecephys.ecephys_session import EcephysSession

    tables = {
        "stimulus_presentations": pd.DataFrame({"start_time": start, "stop_time": stop}),
        "units": pd.DataFrame(index=list(trains)),
    }
    session = SimpleNamespace(spike_times=trains, _filter_owned_df=lambda name, ids: tables[name])
    edges = np.linspace(0, float(np.median(stop - start)), N_BINS + 1)

    def count() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            EcephysSession.presentationwise_spike_counts(session, edges, None, list(trains))

    return best(2, count=count)["count"]


def _histc(trains: dict, start: Any, stop: Any) -> float:
    """One histogram per unit and presentation over all of a unit's spikes, edges in float32."""
    import torch

    spikes = [torch.as_tensor(t) for t in trains.values()]
    shown = list(zip(start.tolist(), stop.tolist(), strict=True))

    def loop() -> None:
        for times in spikes:
            for low, high in shown:
                edges = torch.linspace(low, high, N_BINS + 1)
                torch.histc(times, bins=N_BINS, min=edges[0].item(), max=edges[-1].item())

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # each call is too short to share: two threads only wait
    try:
        return best(3, loop=loop)["loop"]
    finally:
        torch.set_num_threads(threads)


if __name__ == "__main__":
    bare = memory("VmRSS")
    _bin(Path(sys.argv[1]))
    print(json.dumps({"above_interpreter": memory("VmHWM") - bare}))
