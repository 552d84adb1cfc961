"""A simulated cohort of field potentials: real NWB files of mice in three states.

Each region's potential is a sum of oscillations (delta, theta, beta, low gamma) and a 1/f
background. What tells the states apart is how strong each band is in each region, and how much
regions share it (coherence); band power also drifts slowly within a recording and differs between
animals. Animals differ in the gain of each region, so in how far it stands above the noise of its
wires, and in how their states look; windows are z-scored later, so a gain alone says nothing.
"""

from __future__ import annotations

import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nblib.data.lfp import REGIONS, STATES
from nblib.data.lfp.nwb import open_recording as open_recording
from nblib.simulate.stored import Simulator

if TYPE_CHECKING:
    from nblib.core.params import SimulateLfpSettings

USES = ()
VERSION = 4  # raise it whenever the same settings would give other numbers
BANDS = ((1.5, 4.0), (6.0, 10.0), (14.0, 24.0), (30.0, 48.0))  # Hz
BAND_SHARE = (1.0, 0.8, 0.45, 0.3)  # standard deviation beside the background's 1
MOVED_S = 10.0  # between two states the mouse is carried over
MICROVOLT = 1e-6


def states_of(settings: SimulateLfpSettings, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """What the states do, the same for the whole cohort of a seed.

    log_power (state, band, region): change of a band; coherence (state, band): share in common;
    sign (band, region): -1 where a region sees what is shared upside down.
    """
    shape = (len(STATES), len(BANDS), len(REGIONS))
    log_power = settings.contrast * rng.normal(0, 0.85, shape)
    log_power -= log_power.mean(axis=0)
    coherence = 0.35 + settings.contrast * rng.uniform(-0.4, 0.4, shape[:2])
    sign = np.where(rng.random(shape[1:]) < 0.25, -1.0, 1.0)
    return {"log_power": log_power, "coherence": np.clip(coherence, 0.05, 0.9), "sign": sign}


def potentials(
    settings: SimulateLfpSettings, recording: str
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """One recording: potentials (time, electrode) [uV] and its intervals (start_time, stop_time, state).

    Two electrodes a region see the same potential with noise of their own.
    """
    who = zlib.crc32(recording.encode())
    cohort = states_of(settings, np.random.default_rng([settings.seed, 0]))
    rng = np.random.default_rng([settings.seed, who, 1])
    rate, n_regions = settings.rate_hz, len(REGIONS)
    starts = np.arange(len(STATES)) * (settings.state_s + MOVED_S)
    duration = float(starts[-1] + settings.state_s)
    n = round(duration * rate)
    time = np.arange(n) / rate
    # The states as this animal shows them, and where each moment stands between two of them.
    log_power = cohort["log_power"] + settings.between * rng.normal(
        0, 0.15, cohort["log_power"].shape
    )
    state = np.searchsorted(starts + settings.state_s + MOVED_S / 2, time)
    state = np.minimum(state, len(STATES) - 1)
    signal = _pink(n, n_regions, rate, rng)
    for b, (low, high) in enumerate(BANDS):
        drift = _slow(n, rate, settings.drift_s, rng)[:, None] * settings.drift
        drift = drift + _slow(n, rate, settings.drift_s, rng, n_regions) * 0.6 * settings.drift
        amplitude = BAND_SHARE[b] * np.exp(log_power[state, b] + drift)  # (time, region)
        shared = _band(n, 1, rate, low, high, rng)
        private = _band(n, n_regions, rate, low, high, rng)
        together = cohort["coherence"][state, b][:, None]
        shared = cohort["sign"][b] * shared
        signal += amplitude * (np.sqrt(together) * shared + np.sqrt(1 - together) * private)
    signal *= 60.0 * np.exp(rng.normal(0, 0.4, n_regions))  # gain of each electrode site [uV]
    electrodes = np.repeat(signal, 2, axis=1)
    electrodes += rng.normal(0, 8.0, electrodes.shape)
    for _ in range(rng.integers(1, 4)):  # movement: a large deflection of all electrodes
        at = rng.uniform(0, duration)
        electrodes += 600.0 * np.exp(-(((time - at) / 0.15) ** 2))[:, None]
    intervals = {
        "start_time": starts,
        "stop_time": starts + settings.state_s,
        "state": np.array(STATES),
    }
    return electrodes, intervals


def _pink(n: int, columns: int, rate: float, rng: np.random.Generator) -> np.ndarray:
    """Noise (n, columns) with a 1/f power spectrum above 0.5 Hz, standard deviation 1."""
    frequency = np.fft.rfftfreq(n, 1 / rate)
    return _shaped(1 / np.sqrt(np.maximum(frequency, 0.5)), n, columns, rng)


def _band(
    n: int, columns: int, rate: float, low: float, high: float, rng: np.random.Generator
) -> np.ndarray:
    """Noise (n, columns) of a band, standard deviation 1."""
    frequency = np.fft.rfftfreq(n, 1 / rate)
    centre, width = (low + high) / 2, (high - low) / 2
    return _shaped(np.exp(-(((frequency - centre) / width) ** 4)), n, columns, rng)


def _slow(
    n: int, rate: float, time_s: float, rng: np.random.Generator, columns: int = 0
) -> np.ndarray:
    """A slow drift (n,) or (n, columns), standard deviation 1, on the time scale given."""
    points = max(4, int(n / rate / (time_s / 4)) + 3)
    knots = rng.standard_normal((points, max(columns, 1)))
    smooth = np.array([1, 2, 3, 2, 1]) / 9
    knots = np.apply_along_axis(lambda k: np.convolve(k, smooth, "same"), 0, knots)
    knots /= knots.std(axis=0) + 1e-9
    at = np.linspace(0, points - 1, n)
    drift = np.stack([np.interp(at, np.arange(points), k) for k in knots.T], axis=1)
    return drift if columns else drift[:, 0]


def _shaped(shape: np.ndarray, n: int, columns: int, rng: np.random.Generator) -> np.ndarray:
    spectrum = rng.standard_normal((columns, len(shape))) + 1j * rng.standard_normal(
        (columns, len(shape))
    )
    signal = np.fft.irfft(spectrum * shape, n=n, axis=1).T
    return signal / signal.std(axis=0)


def simulate(path: Path, settings: SimulateLfpSettings, recording: str) -> Path:
    """Write one recording as NWB: an LFP module with an ElectricalSeries, and the table `states`."""
    from hdmf.backends.hdf5 import H5DataIO
    from pynwb.ecephys import LFP, ElectricalSeries

    from nblib.simulate import nwb_file

    signal, intervals = potentials(settings, recording)
    file = nwb_file.new_file(
        "Simulated field potentials of a mouse in three states", recording, recording
    )
    regions = np.repeat(REGIONS, 2)
    nwb_file.add_electrodes(file, "drive", {"group": regions, "location": regions})
    rows = file.create_electrode_table_region(list(range(len(regions))), "all electrodes")
    # Tenths of a microvolt in 16 bits: +-3.2 mV.
    data = np.clip(np.round(signal * 10), -32768, 32767).astype(np.int16)
    pieces = {"chunks": (min(len(data), 4096), data.shape[1]), "fletcher32": True}
    series = ElectricalSeries(
        name="LFP", electrodes=rows, rate=settings.rate_hz, starting_time=0.0, conversion=MICROVOLT / 10,
        data=H5DataIO(data, compression="gzip", compression_opts=1, shuffle=True, **pieces),
    )  # fmt: skip
    module = file.create_processing_module("ecephys", "extracellular potentials")
    with warnings.catch_warnings():
        # Said of every series before it has its place in the file; it gets one in this very line.
        warnings.filterwarnings("ignore", "The linked table for DynamicTableRegion")
        module.add(LFP(electrical_series=series, name="LFP"))
    file.add_time_intervals(nwb_file.intervals("states", intervals))
    nwb_file.write(file, path)
    return path


SIMULATOR = Simulator("00_simulate_lfp", VERSION, "simulated_lfp.nwb", simulate)
key, make = SIMULATOR.key, SIMULATOR.make
