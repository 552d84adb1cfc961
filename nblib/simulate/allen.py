"""The simulated Allen recording: a real NWB file whose truth is known.

`simulate` writes the file and, beside it, `<stem>_truth.h5`; `nblib.simulate.scene_oracle` answers from
the truth what the best possible decoder would. What units do is in `units`, what happens when in
`session`.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from nblib.core import store
from nblib.core.errors import BadParameter
from nblib.data.files import hdf5
from nblib.data.images import Images, reduced
from nblib.data.nwb import open_recording as open_recording
from nblib.simulate import session
from nblib.simulate import units as population
from nblib.simulate.scene_oracle import Truth, oracle_log_posterior, read_truth, write_truth
from nblib.simulate.stored import Simulator, truth_path

if TYPE_CHECKING:
    from nblib.core.params import Recipe

USES = ()
VERSION = 3  # raise it whenever the same settings would give other numbers
N_CHANNELS = 96  # of each probe, 40 um apart
DEPTHS = {"thalamus": (0, 30), "CA1": (30, 60), "cortex": (60, 91)}  # channels; above: outside
CORTEX = {"probeC": "VISp", "probeD": "VISl", "probeE": "VISal"}
THALAMUS = {"probeC": "LGd", "probeD": "LP", "probeE": "LP"}
Columns = dict[str, np.ndarray]


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

    The same arguments give the same numbers. Images follow from `seed` alone, all else from `seed`
    and `recording`, so that recordings of one cohort share their images and nothing more. Memory:
    one unit's spikes at a time.

    Parameters
    ----------
    n_units, n_scenes, n_repeats : counts; each repeat shows all images and the blank once.
    duration_s : length [s]; 0 = as long as needed.
    signal : strength of image tuning; 0 = none.
    rate_hz : mean rate over units during natural scenes [Hz].

    Returns
    -------
    The path of the NWB file.

    Raises
    ------
    BadParameter : when there is nothing to simulate, or `duration_s` is too short.
    """
    path = Path(path)
    if min(n_units, n_repeats) < 1 or n_scenes < 2:
        raise BadParameter(
            "a recording needs at least 1 unit, 2 scenes and 1 repeat, not "
            f"{n_units}, {n_scenes} and {n_repeats}."
        )
    params = {
        "n_units": n_units, "n_scenes": n_scenes, "n_repeats": n_repeats, "duration_s": duration_s,
        "seed": seed, "signal": signal, "rate_hz": rate_hz, "recording": recording, "version": VERSION,
    }  # fmt: skip
    who = zlib.crc32(recording.encode())

    def rng(stream: int, *more: int) -> np.random.Generator:
        return np.random.default_rng([seed, who, stream, *more])

    templates = population.natural_images(n_scenes, np.random.default_rng([seed, 0]))
    shown = session.schedule(n_scenes, n_repeats, duration_s, rng(1))
    timestamps, speed = session.running_speed(shown.duration_s, rng(2))
    units = population.draw_units(n_units, rate_hz, signal, rng(3))
    electrodes = electrode_table()
    units |= place_units(units, electrodes, rng(4))
    grid = session.Grid(shown, timestamps, speed, rng(5))
    truth = _truth(params, templates, shown, units, grid)

    draws = [rng(6, u) for u in range(n_units)]
    expected = [grid.expected(truth, u) for u in range(n_units)]
    n_spikes = np.array([d.poisson(e) for d, e in zip(draws, expected, strict=True)], np.int64)
    columns = quality(units, n_spikes / shown.duration_s, rng(7))
    session_id = 700_000_000 + zlib.crc32(f"{seed}/{recording}".encode()) % 100_000_000
    _write(path, session_id, recording, shown, electrodes, columns, n_spikes, (timestamps, speed))

    blocks = np.linspace(0, shown.duration_s, int(np.clip(shown.duration_s // 15, 1, 100)) + 1)
    with h5py.File(path, "r+", **hdf5.UNLOCKED) as file:
        first = 0
        for u in range(n_units):
            times = grid.spike_times(truth, u, int(n_spikes[u]), draws[u])
            file["units/spike_times"][first : first + len(times)] = times
            first += len(times)
            presence = np.mean(np.diff(np.searchsorted(times, blocks)) > 0)
            file["units/presence_ratio"][u] = presence
    write_truth(truth, truth_path(path))
    return path


def electrode_table() -> Columns:
    """Three probes through cortex, CA1 and thalamus, 96 channels each, the top five outside."""
    probe, channel = np.divmod(np.arange(len(CORTEX) * N_CHANNELS), N_CHANNELS)
    location = np.full((len(CORTEX), N_CHANNELS), "None", dtype="<U8")
    for p, name in enumerate(CORTEX):
        areas = {"thalamus": THALAMUS[name], "CA1": "CA1", "cortex": CORTEX[name]}
        for part, (lo, hi) in DEPTHS.items():
            location[p, lo:hi] = areas[part]
    return {
        "id": 850_000_000 + 1000 * probe + channel,
        "group": np.array(list(CORTEX))[probe],
        "location": location.ravel(),
        "x": 7800.0 + 300.0 * probe,
        "y": 4600.0 - 38.0 * channel,
        "z": 7400.0 + 450.0 * probe + 4.0 * channel,
    }


def place_units(units: Columns, electrodes: Columns, rng: np.random.Generator) -> Columns:
    """The units from the tip of each probe upwards, as in the original files, with `id` and
    `peak_channel_id`: any channel of the unit's area on its probe."""
    n = len(units["area"])
    channel = np.empty(n, np.int64)
    for i in range(n):
        on_probe = electrodes["group"] == units["probe"][i]
        in_area = electrodes["location"] == units["area"][i]
        channel[i] = rng.choice(electrodes["id"][on_probe & in_area])
    order = np.argsort(channel, kind="stable")
    ids = 950_000_000 + np.cumsum(rng.integers(1, 9, n))
    placed = {name: values[order] for name, values in units.items()}
    return placed | {"id": ids, "peak_channel_id": channel[order]}


def quality(units: Columns, firing_rate: np.ndarray, rng: np.random.Generator) -> Columns:
    """Columns of the units table; some units fail a limit of quality, as the truth says."""
    n, failing = len(firing_rate), units["failing"]
    halfwidth = np.round(rng.uniform(0.1, 0.3, n), 3)
    duration = np.round(rng.uniform(0.2, 0.8, n), 3)
    amplitude = np.round(rng.uniform(60, 300, n), 2)
    isi = np.where(failing == "isi", rng.uniform(0.6, 3.0, n), 0.45 * rng.beta(1, 8, n))
    cutoff = np.where(failing == "cutoff", rng.uniform(0.12, 0.5, n), 0.09 * rng.beta(1, 5, n))
    return {
        "id": units["id"],
        "peak_channel_id": units["peak_channel_id"],
        "firing_rate": firing_rate,
        "isi_violations": np.round(isi, 4),
        "amplitude_cutoff": np.round(cutoff, 4),
        "amplitude": amplitude,
        "waveform_duration": duration,
        "waveform_halfwidth": halfwidth,
    }


def _write(path, session_id, recording, shown, electrodes, units, n_spikes, running) -> None:
    """Write the file in the Allen layout; spike times and presence ratios are left to be filled."""
    from pynwb import TimeSeries  # takes a second to import

    from nblib.simulate import nwb_file

    description = "Simulated visual coding session in the Allen ecephys layout"
    file = nwb_file.new_file(description, str(session_id), f"simulated-{recording}")
    nwb_file.add_electrodes(file, "Neuropixels 1.0 probes", electrodes)
    for name, columns in shown.tables().items():
        file.add_time_intervals(nwb_file.intervals(name, columns))
    start, stop = shown.invalid.T
    invalid = {"start_time": start, "stop_time": stop}
    file.invalid_times = nwb_file.intervals("invalid_times", invalid)
    timestamps, speed = running
    module = file.create_processing_module("running", "running speed data")
    module.add(TimeSeries(name="running_speed", timestamps=timestamps, data=speed, unit="cm/s"))
    file.units = nwb_file.units(units, n_spikes)
    nwb_file.write(file, path)


def _truth(
    params: dict[str, Any],
    templates: np.ndarray,
    shown: session.Schedule,
    units: Columns,
    grid: session.Grid,
) -> Truth:
    slow, running = units["coupling"].T[:, :, None]
    log_gain = slow * grid.latent[:, 0] + running * grid.latent[:, 1]
    return Truth(
        classes=np.arange(population.BLANK, len(templates)),
        templates=templates,
        rates=population.true_rates(units, templates),
        step_s=population.STEP_S,
        units={name: values for name, values in units.items() if name != "presence"}
        | {
            "presence_s": np.round(units["presence"] * (shown.duration_s + 1), 3),
            "gain_offset": np.round(np.log(np.exp(log_gain).mean(axis=1)), 6),
        },
        start_s=shown.start_s,
        stop_s=shown.stop_s,
        label=shown.label,
        block=shown.block,
        latent=grid.latent,
        params=params,
    )


SIMULATOR = Simulator(
    "00_simulate",
    VERSION,
    "simulated.nwb",
    lambda path, settings, recording: simulate(path, recording=recording, **settings.model_dump()),
)
key, make = SIMULATOR.key, SIMULATOR.make


def ideal_observer(
    recipe: Recipe, recording_id: str, trials: np.ndarray, unit_ids: np.ndarray, **seen: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Log posterior of some presentations under the truth, and its classes (see `oracle_log_posterior`)."""
    path = make(recipe.simulate, recording_id)
    store.open_artifact(path.parent)
    opened = open_recording(path, recipe, recording_id, recipe.simulate)
    labelled = replace(opened, rules=recipe.label_rules)
    return oracle_log_posterior(truth_path(path), labelled, trials, unit_ids, **seen)


def images(recipe: Recipe, recording_id: str, labels: np.ndarray) -> Images:
    """The images that were shown, all of them."""
    path = make(recipe.simulate, recording_id)
    store.open_artifact(path.parent)
    templates = read_truth(truth_path(path)).templates
    return Images(reduced(templates), np.arange(len(templates)), "the simulation")
