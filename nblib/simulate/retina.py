"""The simulated retina: cells of known kinds under full-field noise, truth known to the bin.

The log of the hazard of a cell is the stimulus behind its filter, plus what its own spikes leave: no
spike for two bins, then a burst, then a slow fatigue. A bin holds a spike with 1 - exp(-hazard).
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field
from scipy.signal import lfilter

from nblib.core.params import Params, Recipe, Seed
from nblib.data import nwb
from nblib.data.files.arrays import load_arrays, save_arrays
from nblib.data.recording import Recording
from nblib.simulate.stored import Simulator, truth_path

USES = ()
VERSION = 2  # raise it whenever the same settings would give other numbers
SERIES = "full_field_noise"
BIN_S = 0.001  # the truth is told in bins of this width from zero
ROW_BINS = 48  # a row of the stimulus is shown so long
STEP_BINS, LAGS, CHANNELS = 8, 60, 4  # filters: steps of 8 bins, 480 ms, four colours
AFTER = 40  # bins after a spike with a term of their own
REFRACTORY, NEVER = 2, -30.0  # bins without a spike, and their log hazard
MEMORY = np.exp(-1 / 150)  # of the fatigue, from bin to bin
LOG_GAIN = (-6.0, 3.2)  # bounds of the drive
AT_ONCE = 512  # bins looked at in one go


class Settings(Params):
    """What is simulated."""

    n_cells: int = Field(60, ge=1, le=2000, description="cells [count]")
    duration_s: float = Field(900.0, ge=10, description="length [s]")
    n_types: int = Field(8, ge=1, le=16, description="kinds of cells [count]")
    spread: float = Field(
        1.0, ge=0, description="how much cells of a kind differ; 0 = not [factor]"
    )
    history: float = Field(
        1.0, ge=0, description="strength of bursts and fatigue; 0 = none [factor]"
    )
    seed: Seed = Field(0, description="seed of kinds, stimulus, cells and spikes")


def draw_kinds(n_types: int, rng: np.random.Generator) -> np.ndarray:
    """A filter a kind, (kind, channel, lag): a difference of two gammas, on or off, fast or slow, in
    colours of its own."""
    time_s = np.arange(LAGS) * STEP_BINS * BIN_S
    speeds = np.geomspace(0.02, 0.07, max(2, (n_types + 1) // 2))
    kinds = []
    for kind in range(n_types):
        rise, slow = (
            (time_s / tau) ** 3 * np.exp(3 - 3 * time_s / tau)
            for tau in (speeds[kind // 2], 2.2 * speeds[kind // 2])
        )
        course = (1 if kind % 2 else -1) * (rise - 0.8 * slow)
        colours = rng.dirichlet(np.full(CHANNELS, 1.5)) * np.sign(rng.normal(1.0, 0.7, CHANNELS))
        kinds.append(np.outer(colours, course / np.linalg.norm(course)))
    return np.array(kinds)


def draw_cells(
    kinds: np.ndarray, steps: np.ndarray, settings: Settings, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Cells: kind (cell,), filters (cell, channel, lag), log_rate (cell,), after (cell, AFTER) and fatigue
    (cell,), terms of the log hazard."""
    n = settings.n_cells
    kind = rng.permutation(np.arange(n) % len(kinds))
    near = np.exp(-np.arange(LAGS) / 20) * rng.standard_normal((n, CHANNELS, LAGS))
    strongest = np.abs(kinds).max(axis=(1, 2))[kind]
    filters = kinds[kind] + settings.spread * strongest[:, None, None] * near
    bins = np.arange(1, AFTER + 1) - REFRACTORY - 1.0
    burst = rng.uniform(2.5, 4.5, n)[:, None] * np.exp(-bins / 3) - 1.2 * np.exp(-bins / 25)
    gain = rng.uniform(1.1, 1.6, n)
    log_rate = np.log(np.exp(rng.uniform(np.log(0.8), np.log(9.0), n)) * BIN_S) - 0.3
    for cell in range(n):
        raw = filtered(filters[cell], steps)
        scale = gain[cell] / raw.std()
        filters[cell] *= scale
        log_rate[cell] -= np.log(np.exp(np.clip(scale * raw, *LOG_GAIN)).mean())
    return {
        "kind": kind,
        "filters": filters,
        "log_rate": log_rate,
        "after": np.where(bins < 0, NEVER, settings.history * burst),
        "fatigue": -settings.history * rng.uniform(0.1, 0.3, n),
    }


def steps_of(rows: np.ndarray) -> np.ndarray:
    """The stimulus in steps of 8 bins, (step, channel), -0.5 or 0.5; rows (row, channel): 0 or 1."""
    return np.repeat(rows - 0.5, ROW_BINS // STEP_BINS, axis=0)


def filtered(weights: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Steps of stimulus behind a filter (channel, lag): (step,), of steps before each alone."""
    return sum(lfilter(np.r_[0.0, w], [1.0], steps[:, c]) for c, w in enumerate(weights))


def drive(cells: dict[str, np.ndarray], cell: int, steps: np.ndarray, n_bins: int) -> np.ndarray:
    """Log hazard of a cell without its history, (bins,)."""
    log_hazard = np.clip(filtered(cells["filters"][cell], steps), *LOG_GAIN)
    return np.repeat(log_hazard + cells["log_rate"][cell], STEP_BINS)[:n_bins]


def fire(
    hazard: np.ndarray, after: np.ndarray, fatigue: float, rng: np.random.Generator
) -> np.ndarray:
    """Bins in which a cell fires, rising: from spike to spike, until the hazard since the last one
    reaches an exponential draw.

    hazard (bins,): without history; after (AFTER,), fatigue: terms of its log.
    """
    ages = MEMORY ** np.arange(AT_ONCE)
    early = np.append(after, np.zeros(AT_ONCE - AFTER))
    spikes, start, worn, left = [], 0, 0.0, rng.standard_exponential()
    term = np.zeros(AT_ONCE)
    while start < len(hazard):
        ahead = hazard[start : start + AT_ONCE]
        summed = np.cumsum(ahead * np.exp(term + fatigue * worn * ages)[: len(ahead)])
        if summed[-1] < left:
            left -= summed[-1]
            start, worn, term = start + AT_ONCE, worn * MEMORY**AT_ONCE, np.zeros(AT_ONCE)
            continue
        place = int(np.searchsorted(summed, left))
        spikes.append(start + place)
        start, worn, term = start + place + 1, worn * MEMORY ** (place + 1) + 1, early
        left = rng.standard_exponential()
    return np.array(spikes, np.int64)


def simulate(path: Path, settings: Settings, recording: str) -> None:
    """Write a recording's file, and its truth beside it. Kinds and stimulus are those of the seed."""
    common = np.random.default_rng([settings.seed, 0])
    rng = np.random.default_rng([settings.seed, zlib.crc32(recording.encode()), 1])
    n_bins = round(settings.duration_s / BIN_S)
    kinds = draw_kinds(settings.n_types, common)
    rows = common.integers(0, 2, (-(-n_bins // ROW_BINS) + 1, CHANNELS), np.int8)
    steps = steps_of(rows)
    cells = draw_cells(kinds, steps, settings, rng)
    trains = [
        fire(np.exp(drive(cells, c, steps, n_bins)), cells["after"][c], cells["fatigue"][c], rng)
        for c in range(settings.n_cells)
    ]
    write(path, recording, [(train + 0.5) * BIN_S for train in trains], rows)
    save_arrays(truth_path(path), cells | {"kinds": kinds, "rows": rows})


def write(path: Path, recording: str, spike_s: list[np.ndarray], rows: np.ndarray) -> None:
    """Write units and the noise as published retina files hold them: a row of LEDs at its timestamp."""
    from pynwb import TimeSeries

    from nblib.simulate import nwb_file

    file = nwb_file.new_file("Simulated retina", recording, recording, species="Gallus gallus")
    shown = {"timestamps": np.arange(len(rows)) * ROW_BINS * BIN_S, "unit": "on/off"}
    file.add_stimulus(TimeSeries(name=SERIES, data=rows, description="four LEDs", **shown))
    nwb_file.write(file, path, spike_s)


SIMULATOR = Simulator("00_simulate_retina", VERSION, "simulated_retina.nwb", simulate)
key, make = SIMULATOR.key, SIMULATOR.make


def open_recording(path: Path, recipe: Recipe, recording_id: str, settings: Any) -> Recording:
    """Open a simulated retina as any other file."""
    return nwb.open_nwb(path, intervals=recipe.intervals, label="", recording_id=recording_id)


def unit_types(settings: Settings, recording: str, unit_ids: np.ndarray) -> np.ndarray:
    """Kind of each of some units (unit,), from 0."""
    return load_arrays(truth_path(make(settings, recording)))["kind"][unit_ids]


def log_intensity(
    settings: Settings, recording: str, unit_ids: np.ndarray, at: np.ndarray
) -> np.ndarray:
    """Log hazard of units in bins of `BIN_S`, given all that happened before each: float32 (at, unit).

    unit_ids (unit,); at (at,): numbers of the bins, from zero of the clock. What nobody can beat.
    """
    path = make(settings, recording)
    cells, whole = load_arrays(truth_path(path)), nwb.open_nwb(path, intervals="", label="")
    steps = steps_of(cells["rows"])
    n_bins, answer = int(at.max()) + 1, np.empty((len(at), len(unit_ids)), np.float32)
    for place, cell in enumerate(unit_ids.tolist()):
        spikes = np.zeros(n_bins)
        fired = np.rint(whole.spike_times(cell) / BIN_S - 0.5).astype(np.int64)
        spikes[fired[fired < n_bins]] = 1
        worn = lfilter([0.0, 1.0], [1.0, -MEMORY], spikes)
        log_hazard = drive(cells, cell, steps, n_bins) + cells["fatigue"][cell] * worn
        for lag, term in enumerate(cells["after"][cell], 1):
            hit = fired + lag
            hit = hit[(hit < n_bins) & (np.append(fired[1:], n_bins) >= hit)]
            log_hazard[hit] += term
        answer[:, place] = log_hazard[at]
    return answer
