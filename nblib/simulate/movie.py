"""The simulated film: patients who watch one film with pauses, in the layout of SUMMER, truth known.

A chain draws scenes, shots and who is on screen, the same for every patient of a seed; units follow
at a latency of whole steps, under gains that drift. `film_oracle` answers from the truth what the
best possible decoder would.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field
from scipy.signal import lfilter

from nblib.core.params import Params, Recipe, Seed
from nblib.data import movie
from nblib.data.files.arrays import load_arrays, save_arrays
from nblib.data.recording import Recording
from nblib.simulate import film_oracle as exact
from nblib.simulate.film_oracle import GAIN_STEPS, KERNEL, P_CUT, P_SCENE, STEP_S, Arrays
from nblib.simulate.stored import Simulator, truth_path

USES = ()
VERSION = 2  # raise it whenever the same settings would give other numbers
RATE_HZ = 25.0
FRAME_MS = 41.0  # a frame of 40 ms lasts this long in a recording
LEAD, TAIL = 918, 6664  # frames before and after the window of analysis
BIN_FRAMES = (1, 2, 5, 12, 25)
CARRIED = (0.06, 0.06, 0.035)  # of hero, rival, indoor by a unit at signal 1 [Hz]
AREAS = ("A", "EC", "AH", "PH", "PHC", "MH")
EVENTS = {"camera-cuts": "cut", "scenes": "scene_cut"}
pool = movie.pool


class Settings(Params):
    """What is simulated."""

    n_frames: int = Field(118_161, ge=500, description="frames in the window of analysis [count]")
    n_units: int = Field(60, ge=2, le=5000, description="units of a patient [count]")
    signal: float = Field(0.5, ge=0, description="strength of tuning; 0 = none [factor]")
    drift: float = Field(1.0, ge=0, description="strength of drifting gains; 0 = none [factor]")
    n_pauses: int = Field(4, ge=0, le=40, description="pauses of a patient [count]")
    seed: Seed = Field(0, description="seed of the film and of the patients")
    pool: dict[str, list[str]] = Field(  # not part of a patient's key
        {}, exclude=True, description="name -> recordings laid together under it"
    )


def draw_film(n_steps: int, rng: np.random.Generator) -> Arrays:
    """The film: scene type, hero, rival, cut, scene_cut (n_steps,), and the chances behind them.

    A new scene draws one of 12 types, the odd ones indoors; every cut draws anew who is on screen,
    with the chances of the type.
    """
    chance = {
        "type": rng.dirichlet(np.full(12, 3.0)),
        "hero": rng.permutation(np.r_[np.zeros(4), np.linspace(0.35, 0.95, 8)]),
        "rival": rng.permutation(np.r_[np.zeros(8), np.linspace(0.2, 0.6, 4)]),
        "indoor": np.arange(12) % 2,
    }
    u, at = rng.random((n_steps, 3)), np.arange(n_steps)
    scene_cut, cut = u[:, 0] < P_SCENE, u[:, 0] < P_SCENE + P_CUT
    scene_cut[0] = cut[0] = True
    scene_since, cut_since = (np.maximum.accumulate(np.where(c, at, 0)) for c in (scene_cut, cut))
    scene = rng.choice(12, n_steps, p=chance["type"])[scene_since]
    film = {"scene": scene, "cut": cut, "scene_cut": scene_cut}
    film |= {
        who: (u[:, k] < chance[who][scene])[cut_since] for k, who in ((1, "hero"), (2, "rival"))
    }
    film["age"] = np.minimum(at - cut_since, len(KERNEL) - 1)  # steps since the cut
    return film | {f"chance_{name}": values for name, values in chance.items()}


def draw_units(n_units: int, signal: float, rng: np.random.Generator) -> Arrays:
    """Units: rate_hz, weights (unit, 3) on hero, rival, indoor; weight of cuts; latency [steps].

    Half of them carry each label weakly, one in 30 follows the hero, a fifth answers cuts alone. Weights
    are scaled so that the units of every patient carry as much of a label (rate x weight squared).
    """
    weights = rng.normal(0, (0.22, 0.30, 0.20), (n_units, 3))
    weights *= rng.random((n_units, 3)) < (0.5, 0.4, 0.5)
    weights[rng.choice(n_units, max(1, n_units // 30), replace=False), 0] += 0.6
    cut = np.where(rng.random(n_units) < 0.2, rng.uniform(0.3, 1.0, n_units), 0)
    weights[cut > 0] = 0
    rate_hz = np.exp(rng.normal(np.log(1.6), 0.9, n_units)).clip(0.1, 15)
    latency = rng.integers(2, 6, n_units)
    carried = (rate_hz[:, None] * weights**2).mean(axis=0)
    weights *= np.sqrt(CARRIED / np.maximum(carried, 1e-3))
    return {
        "rate_hz": rate_hz,
        "weights": weights * signal,
        "cut": cut * signal,
        "latency": latency,
    }


def draw_gains(n_steps: int, n_units: int, drift: float, rng: np.random.Generator) -> np.ndarray:
    """Factors on the rates (n_steps / 10, unit): slow shared ones, faster private ones, and a drift."""

    def slow(tau_s: float, columns: int) -> np.ndarray:
        keep = np.exp(-GAIN_STEPS * STEP_S / tau_s)
        noise = rng.standard_normal((-(-n_steps // GAIN_STEPS), columns))
        noise[1:] *= np.sqrt(1 - keep**2)
        return lfilter([1], [1, -keep], noise, axis=0)

    shared = slow(25.0, 6) @ rng.normal(0, 1 / np.sqrt(6), (6, n_units))
    log = 0.15 * shared + 0.10 * slow(8.0, n_units) + 0.15 * slow(600.0, n_units)
    return np.exp(drift * log)


def rates(film: Arrays, units: Arrays, gains: np.ndarray) -> np.ndarray:
    """Rate of every unit in every step (n_steps, unit) [Hz]."""
    indoor = film["chance_indoor"][film["scene"]]
    drive = np.column_stack([film["hero"], film["rival"], indoor]) @ units["weights"].T
    for unit, latency in enumerate(units["latency"]):
        drive[:, unit] = np.r_[np.zeros(latency), drive[:-latency, unit]]
    drive += KERNEL[film["age"]][:, None] * units["cut"]
    return units["rate_hz"] * np.repeat(gains, GAIN_STEPS, axis=0)[: len(drive)] * np.exp(drive)


def annotations(film: Arrays, n_frames: int, rng: np.random.Generator) -> Arrays:
    """Annotations of the whole film, int8 a frame: states of whole steps, events on one frame of
    theirs, and `indoor-setting`, which is undefined (99) around the window and in some scenes."""
    indoor = film["chance_indoor"][film["scene"]]
    number = np.cumsum(film["scene_cut"])
    indoor = np.where(number % 40 == 2, movie.NO_LABEL, indoor)
    which = np.arange(2) == rng.integers(0, 2, (len(number), 1))  # frame of a step
    steps = {"hero": film["hero"], "rival": film["rival"], "indoor-setting": indoor}
    frames = {name: np.repeat(values, 2) for name, values in steps.items()}
    frames |= {name: (film[key][:, None] & which).ravel() for name, key in EVENTS.items()}
    for name, values in frames.items():
        outside = movie.NO_LABEL if name == "indoor-setting" else 0
        values = np.pad(values[:n_frames].astype(np.int8), (LEAD, TAIL), constant_values=outside)
        frames[name] = values
    return frames


def watch_log(
    n_frames: int, n_pauses: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a watch log: frame of each, and recording time [ms]; a pause repeats its frame."""
    paused = LEAD + rng.choice(np.arange(1, n_frames), n_pauses, replace=False)
    frame = np.sort(np.r_[np.arange(LEAD + n_frames + TAIL + 1), paused])
    lasts = np.full(len(frame), FRAME_MS)
    lasts[np.diff(frame, prepend=-1) == 0] = np.round(rng.uniform(2e3, 9e4, n_pauses))
    return frame, np.cumsum(lasts) - FRAME_MS


def simulate(path: Path, settings: Settings, recording: str) -> None:
    """Write a patient's file, and its truth beside it."""
    of_film = np.random.default_rng([settings.seed, 0])
    rng = np.random.default_rng([settings.seed, zlib.crc32(recording.encode()), 1])
    n_steps, n_frames = -(-settings.n_frames // 2), settings.n_frames
    film = draw_film(n_steps, of_film)
    marks = annotations(film, n_frames, of_film)
    units = draw_units(settings.n_units, settings.signal, rng)
    gains = draw_gains(n_steps, settings.n_units, settings.drift, rng)
    frame, clock_ms = watch_log(n_frames, settings.n_pauses, rng)
    row_ms, of_window = np.diff(clock_ms), frame[:-1] - LEAD  # rows: frames, and pauses before them
    driven = (of_window >= 0) & (of_window < n_frames) & (row_ms == FRAME_MS)
    rate = np.tile(units["rate_hz"], (len(row_ms), 1))
    rate[driven] = rates(film, units, gains)[of_window[driven] // 2]
    spikes_ms = []
    for counts in rng.poisson(rate.T * row_ms / 1e3):
        row = np.repeat(np.arange(len(row_ms)), counts)
        spikes_ms.append(np.sort(clock_ms[row] + rng.random(len(row)) * row_ms[row]))
    areas = np.array(AREAS)[rng.integers(0, len(AREAS), settings.n_units)]
    log = {"pts": frame / RATE_HZ, "neural_recording_time": clock_ms}
    write(path, recording, spikes_ms, areas, log, marks)
    arrays = {f"film/{name}": values for name, values in film.items()}
    arrays |= {f"units/{name}": values for name, values in units.items()}
    save_arrays(truth_path(path), arrays | {"gains": gains})


def write(
    path: Path, recording: str, spikes_ms: list[np.ndarray], areas: np.ndarray, log: Arrays, marks: Arrays
) -> None:  # fmt: skip
    """Write the published layout: spikes and watch log in milliseconds, ragged tables of the film."""
    from nblib.simulate import nwb_file

    file = nwb_file.new_file("Simulated film", recording, recording, species="Homo sapiens")
    file.add_stimulus(nwb_file.table(movie.WATCH_LOG, log))
    module = file.create_processing_module("machine_learning", "bins and annotations")
    stop = len(marks["hero"]) - TAIL
    edges = [np.arange(LEAD, stop + 1, k) / RATE_HZ for k in BIN_FRAMES]
    columns = {"bin_length": np.array(BIN_FRAMES) * 40, "edges": edges}
    module.add(nwb_file.table(movie.BINS, columns))
    columns = {"label_name": np.array([*marks]), "indicator_function": [*marks.values()]}
    module.add(nwb_file.table(movie.ANNOTATIONS, columns))
    nwb_file.write(file, path, spikes_ms, brain_region=areas)


SIMULATOR = Simulator("00_simulate_movie", VERSION, "simulated_movie.nwb", simulate)
key, make = SIMULATOR.key, SIMULATOR.make


def open_recording(path: Path, recipe: Recipe, recording_id: str, settings: Any) -> Recording:
    """Open a simulated patient as any other."""
    in_ms = recipe.model_copy(update={"time_unit": "ms"})
    return movie.open_recording(path, in_ms, recording_id, movie.Settings())


def film_oracle(
    settings: Settings, recording: str, unit_ids: np.ndarray, counts: np.ndarray, exposure_s: np.ndarray
) -> Arrays:  # fmt: skip
    """What the best decoder of these units would say: label -> posterior (step,) that it is on.

    unit_ids (U,), counts (step, U), exposure_s (step,): of bins of two frames, none left out.
    """
    patients = settings.pool.get(recording, [recording])
    known, units, gains = set(unit_ids.astype(str)), [], []
    for patient in patients:
        truth = load_arrays(truth_path(make(settings, patient)))
        prefix = f"{patient}-" if recording in settings.pool else ""
        kept = [f"{prefix}{unit}" in known for unit in range(settings.n_units)]
        units.append({n[6:]: v[kept] for n, v in truth.items() if n.startswith("units/")})
        gains.append(truth["gains"][:, kept])
        film = {n[5:]: v for n, v in truth.items() if n.startswith("film/")}
    together = {name: np.concatenate([part[name] for part in units]) for name in units[0]}
    return exact.film_posterior(film, together, np.hstack(gains), counts, exposure_s)
