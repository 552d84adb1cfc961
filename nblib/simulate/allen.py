"""The simulated Allen recording: a real NWB file whose truth is known.

`simulate` writes the file and, beside it, `<stem>_truth.h5`; `nblib.simulate.oracle` answers from
the truth what the best possible decoder would. The model is in `simulate_model`.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from nblib.core import store
from nblib.core.errors import BadParameter
from nblib.data import nwb
from nblib.data.images import Images, reduced
from nblib.data.nwb import hdf5
from nblib.simulate import session, tables
from nblib.simulate import units as model
from nblib.simulate.oracle import (
    Truth,
    oracle_log_posterior,
    read_truth,
    unit_information,
    write_truth,
)

if TYPE_CHECKING:
    from nblib.core.params import Recipe, SimulateSettings
    from nblib.data.recording import Recording

__all__ = ["VERSION", "make", "oracle_log_posterior", "read_truth", "simulate", "truth_path"]

USES = ()
VERSION = 2  # raise it whenever the same settings would give another file
STAGE = "00_simulate"
FILE_NAME = "simulated.nwb"


def simulate(
    path: Path | str,
    *,
    n_units: int = 100,
    n_scenes: int = 118,
    n_repeats: int = 50,
    duration_s: float = 0.0,
    seed: int = 0,
    signal: float = 1.0,
    rate_hz: float = 5.5,
    recording: str = "demo",
) -> Path:
    """Write a simulated natural-scene session as NWB, and its truth beside it.

    n_units, n_scenes, n_repeats: counts; each repeat shows all images and the blank once.
    duration_s: length [s]; 0 = as long as needed. signal: strength of image tuning; 0 = none.
    rate_hz: mean rate over units during natural scenes [Hz]. Images follow from `seed` alone, all
    else from `seed` and `recording`, so that recordings of one cohort share their images and
    nothing more. The same arguments give the same numbers. Memory: one unit's spikes at a time.

    Returns the path of the NWB file. Raises BadParameter when `duration_s` is too short.
    """
    path = Path(path)
    if min(n_units, n_repeats) < 1 or n_scenes < 2:
        raise BadParameter(
            "a recording needs at least 1 unit, 2 scenes and 1 repeat, not "
            f"{n_units}, {n_scenes} and {n_repeats}."
        )
    params = {
        "n_units": n_units,
        "n_scenes": n_scenes,
        "n_repeats": n_repeats,
        "duration_s": duration_s,
        "seed": seed,
        "signal": signal,
        "rate_hz": rate_hz,
        "recording": recording,
        "version": VERSION,
    }
    who = zlib.crc32(recording.encode())

    def rng(stream: int, *more: int) -> np.random.Generator:
        return np.random.default_rng([seed, who, stream, *more])

    templates = model.natural_images(n_scenes, np.random.default_rng([seed, 0]))
    shown = session.schedule(n_scenes, n_repeats, duration_s, rng(1))
    timestamps, speed = session.running_speed(shown.duration_s, rng(2))
    units = model.draw_units(n_units, rate_hz, signal, rng(3))
    electrodes = tables.electrode_table()
    anatomy = tables.anatomy(units, electrodes, rng(4))
    grid = session.Grid(shown, timestamps, speed, rng(5))
    truth = _truth(params, templates, shown, units, anatomy, grid)

    draws = [rng(6, u) for u in range(n_units)]
    expected = np.array([grid.expected(truth, u) for u in range(n_units)])
    n_spikes = np.array([d.poisson(e) for d, e in zip(draws, expected, strict=True)], np.int64)
    columns = anatomy | tables.quality(truth, n_spikes, shown.duration_s, rng(7))
    from nblib.simulate.nwb_file import write_layout  # pynwb takes a second to import

    write_layout(
        path,
        session_id=700_000_000 + zlib.crc32(f"{seed}/{recording}".encode()) % 100_000_000,
        subject_id=f"simulated-{recording}",
        n_spikes=n_spikes,
        units={k: v for k, v in columns.items() if k not in ("area", "probe")},
        electrodes=electrodes,
        presentations=tables.stimulus_tables(shown),
        invalid=shown.invalid,
        running=(timestamps, speed),
    )
    blocks = np.linspace(0, shown.duration_s, int(np.clip(shown.duration_s // 15, 1, 100)) + 1)
    presence = np.zeros(n_units)
    with h5py.File(path, "r+", **hdf5.UNLOCKED) as file:
        stored, first = file["units/spike_times"], 0
        for u in range(n_units):
            times = grid.spike_times(truth, u, int(n_spikes[u]), draws[u])
            stored[first : first + len(times)] = times
            first += len(times)
            presence[u] = np.mean(np.diff(np.searchsorted(times, blocks)) > 0)
        file["units/presence_ratio"][:] = presence
    write_truth(truth, truth_path(path))
    return path


def truth_path(path: Path | str) -> Path:
    """Where the truth of a simulated NWB file lies: `<stem>_truth.h5` beside it."""
    path = Path(path)
    return path.with_name(f"{path.stem}_truth.h5")


def in_key(settings: SimulateSettings, recording: str) -> dict[str, Any]:
    """What a simulated recording follows from: its settings, and who it is."""
    return settings.model_dump() | {"recording": recording}


def key(settings: SimulateSettings, recording: str) -> str:
    """Key of a simulated recording in the store."""
    return store.make_key(STAGE, VERSION, in_key(settings, recording), [])


def make(settings: SimulateSettings, recording_id: str) -> Path:
    """The NWB file of a simulated recording, made and stored when it does not exist yet.

    Raises BadParameter for settings that cannot be met, StorageError when the disk is full.
    """
    params = settings.model_dump()
    folder = store.commit(
        STAGE,
        recording_id,
        key(settings, recording_id),
        lambda folder: simulate(folder / FILE_NAME, recording=recording_id, **params),
        params=params,
        upstream=[],
        seed=settings.seed,
        extra={"stage_version": VERSION, "in_key": in_key(settings, recording_id)},
    )
    return folder / FILE_NAME


def open_recording(
    path: Path, recipe: Recipe, recording_id: str, settings: Any = None
) -> Recording:
    """Open a simulated file as any other."""
    return nwb.open_recording(path, recipe, recording_id)


def images(recipe: Recipe, recording_id: str, labels: np.ndarray) -> Images:
    """The images that were shown, all of them."""
    path = make(recipe.simulate, recording_id)
    store.open_artifact(path.parent)
    templates = read_truth(truth_path(path)).templates
    return Images(reduced(templates), np.arange(len(templates)), "the simulation")


def _truth(params, templates, shown, units, anatomy, grid) -> Truth:
    rates = model.true_rates(units, templates)
    bits, bound = unit_information(rates, model.STEP_S)
    slow, running = units["coupling"].T[:, :, None]
    log_gain = slow * grid.latent[:, 0] + running * grid.latent[:, 1]
    return Truth(
        classes=np.arange(model.BLANK, len(templates)),
        templates=templates,
        rates=rates,
        step_s=model.STEP_S,
        units={k: anatomy[k] for k in ("id", "area", "probe", "peak_channel_id")}
        | {k: v for k, v in units.items() if k not in ("area", "probe", "presence")}
        | {
            "presence_s": np.round(units["presence"] * (shown.duration_s + 1), 3),
            "gain_offset": np.round(np.log(np.exp(log_gain).mean(axis=1)), 6),
            "information_bits": bits,
            "information_bound_bits": bound,
        },
        start_s=shown.start_s,
        stop_s=shown.stop_s,
        label=shown.label,
        block=shown.block,
        latent=grid.latent,
        params=params,
    )
