"""Simulated sessions of one decision task, written as ALF files, with the best possible answers.

Behind a trial stands one of a finite number of causes: block, contrast, choice, when the wheel begins to
move, how fast, and how excitable the neurons are; and a chain of whisker levels that moves more while the
wheel does. Units fire as independent Poisson, with a log rate that is linear in these. `task_oracle` answers
from that what could be known. Sessions of a seed share the task and have units of their own.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import Field

from nblib.core.params import Params, Recipe, Seed
from nblib.data import ibl
from nblib.data.files.arrays import load_arrays, save_arrays
from nblib.data.recording import Recording
from nblib.simulate import task_oracle
from nblib.simulate.stored import Simulator

USES = ()
VERSION = 1  # raise it whenever the same settings would give other numbers
BIN_S, N_BINS, TRIAL_S = 0.04, 25, 1.5
STIMULUS_BIN = 6  # the window begins 6 bins before the stimulus
FRAMES = 2  # of the camera in a bin
CONTRASTS = (-1.0, -0.25, 0.0, 0.25, 1.0)
INPUTS = ("stimulus", "choice", "wheel", "whisker", "block", "gain")
# How strongly units of an area follow each input; areas by their id in the Allen CCF.
AREAS = {
    385: (1.1, 0.3, 0.3, 0.3, 0.15, 0.5),
    993: (0.3, 0.9, 0.6, 0.3, 0.35, 0.5),
    1020: (0.2, 0.2, 0.6, 1.0, 0.1, 0.5),
    382: (0.1, 0.2, 0.3, 0.2, 0.25, 0.5),
}


class Settings(Params):
    """What is simulated."""

    n_units: int = Field(30, ge=4, le=1000, description="units of a session [count]")
    n_trials: int = Field(200, ge=10, le=5000, description="trials of a session [count]")
    rate_hz: float = Field(6.0, gt=0, le=50, description="mean firing rate over units [Hz]")
    tuning: float = Field(0.85, ge=0, description="strength of tuning; 0 = none [factor]")
    block_trials: list[int] = Field(
        [6, 14], min_length=2, max_length=2, description="fewest and most trials of a block [count]"
    )
    seed: Seed = Field(0, description="seed of the sessions")


@dataclass(frozen=True)
class Causes:
    """All causes of a trial (H,), and what they do in its bins.

    block -1, 0, 1; choice -1, 1; onset [bin]; prior (H,); drive (H, T, input), the whisker's left at 0;
    moving (H, T); first (V,), steps (still or moving, V, V): the chain of whisker levels.
    """

    block: np.ndarray
    choice: np.ndarray
    onset: np.ndarray
    speed: np.ndarray
    prior: np.ndarray
    drive: np.ndarray
    moving: np.ndarray
    first: np.ndarray
    steps: np.ndarray

    @property
    def levels(self) -> np.ndarray:
        """Whisker levels (V,), 0 to 1."""
        return np.linspace(0, 1, len(self.first))

    @property
    def wheel(self) -> np.ndarray:
        """Speed of the wheel in each bin (H, T)."""
        return self.drive[..., INPUTS.index("wheel")]


def make_task(
    n_bins: int = N_BINS,
    onsets: tuple[int, ...] = (8, 10, 12, 14, 17, 20),
    n_levels: int = 4,
    stimulus_bin: int = STIMULUS_BIN,
) -> Causes:
    """The task: every combination of its causes with its probability."""
    speeds, gains = {0.6: 0.5, 1.2: 0.5}, {-0.5: 0.25, 0.0: 0.5, 0.5: 0.25}
    rows, prior = [], []
    for block, contrast, choice, place, speed, gain in product(
        (-1, 0, 1), CONTRASTS, (-1, 1), range(len(onsets)), speeds, gains
    ):
        p_side = 0.15 if contrast == 0 else 0.2125 * (1 + 0.6 * block * np.sign(contrast))
        p_choice = 1 / (1 + np.exp(-choice * (3.5 * contrast + 0.9 * block)))
        p_onset = np.exp(-0.3 * (np.arange(len(onsets)) - 1 - 2.5 * (1 - abs(contrast))) ** 2)
        rows.append((block, contrast, choice, onsets[place], speed, gain))
        p = p_side * p_choice * p_onset[place] / p_onset.sum() * speeds[speed] * gains[gain] / 3
        prior.append(p)
    block, contrast, choice, onset, speed, gain = np.array(rows).T
    t = np.arange(n_bins)
    since = t - onset[:, None]  # (H, T)
    rise = (since + 1) / 2
    wheel = speed[:, None] * np.where(since >= 0, rise * np.exp(1 - rise), 0)
    seen = np.where(t >= stimulus_bin, np.exp(-(t - stimulus_bin) / 4), 0)
    ramp = np.clip((t - stimulus_bin + 1) / 8, 0, 1) * (since < 3)
    shape = wheel.shape
    drive = np.stack(
        [
            contrast[:, None] * seen,
            choice[:, None] * ramp,
            wheel,
            np.zeros(shape),
            np.broadcast_to(block[:, None], shape),
            np.broadcast_to(gain[:, None], shape),
        ],
        axis=-1,
    )
    steps = np.zeros((2, n_levels, n_levels))
    for moves, (stay, up, down) in enumerate(((0.86, 0.05, 0.09), (0.5, 0.44, 0.06))):
        for level in range(n_levels):
            for to, p in ((level, stay), (level + 1, up), (level - 1, down)):
                steps[moves, level, np.clip(to, 0, n_levels - 1)] += p
    first = np.linalg.matrix_power(steps[0], 500)[0]
    moving = (since >= 0) & (since < 7)
    return Causes(block, choice, onset, speed, np.array(prior), drive, moving, first, steps)


@dataclass(frozen=True)
class Units:
    """area (N,): id of the area of each unit; base (N,): log spikes a bin without any input; weights (N, input)."""

    area: np.ndarray
    base: np.ndarray
    weights: np.ndarray


def draw_units(settings: Settings, rng: np.random.Generator) -> Units:
    """Units of four areas, each with weights of its own; movement mostly excites."""
    area = np.sort(rng.choice(list(AREAS), settings.n_units))
    scale = np.array([AREAS[i] for i in area.tolist()])
    weights = scale * rng.normal(0, 0.7, scale.shape)
    weights[:, 2:4] += 0.35 * scale[:, 2:4]
    weights[:, 5] = np.abs(weights[:, 5])
    rate = settings.rate_hz * rng.lognormal(-0.3, 0.7, settings.n_units)
    return Units(area, np.log(rate * BIN_S), weights * settings.tuning)


def draw_trials(
    task: Causes, settings: Settings, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Cause (trial,) and whisker level (trial, bin) of every trial, as indices; blocks come in runs."""
    block: list[int] = []
    while len(block) < settings.n_trials:
        others = [b for b in (-1, 0, 1) if not block or b != block[-1]]
        low, high = settings.block_trials
        block += [int(rng.choice(others))] * int(rng.integers(low, high + 1))
    causes = {b: np.flatnonzero(task.block == b) for b in (-1, 0, 1)}
    chances = {b: task.prior[at] / task.prior[at].sum() for b, at in causes.items()}
    cause = np.array([rng.choice(causes[b], p=chances[b]) for b in block[: settings.n_trials]])
    level = np.empty((len(cause), task.moving.shape[1]), int)
    level[:, 0] = rng.choice(len(task.first), len(cause), p=task.first)
    for t in range(1, level.shape[1]):
        chance = task.steps[task.moving[cause, t].astype(int), level[:, t - 1]]  # (trial, V)
        level[:, t] = (chance.cumsum(axis=1) < rng.random((len(cause), 1))).sum(axis=1)
    return cause, np.minimum(level, len(task.first) - 1)


def simulate(path: Path, settings: Settings, recording: str) -> None:
    """Write one session as ALF files below `path`, and what is true of it beside."""
    rng = np.random.default_rng([settings.seed, zlib.crc32(recording.encode())])
    task, units = make_task(), draw_units(settings, rng)
    cause, level = draw_trials(task, settings, rng)
    rates = task_oracle.rates_of(task, units, cause)  # (trial, bin, V, unit)
    expected = np.take_along_axis(rates, level[:, :, None, None], axis=2)[:, :, 0]
    counts = rng.poisson(expected)
    at = 2.0 + TRIAL_S * np.arange(len(cause))  # of the stimulus
    begin = at[:, None] + (np.arange(N_BINS) - STIMULUS_BIN) * BIN_S  # (trial, bin)
    folder, probe_of = path / "alf", np.arange(settings.n_units) % 2
    for probe in (0, 1):
        mine = probe_of == probe
        place = folder / f"probe0{probe}" / ibl.SORTER
        _write_probe(place, counts[..., mine], begin, units.area[mine], rng)
    _write_behaviour(folder, begin, task.wheel[cause], task.levels[level])
    _trial_table(task, cause, at).to_parquet(folder / "_ibl_trials.table.pqt")
    order = np.argsort(probe_of, kind="stable")
    of_units = {name: values[order] for name, values in vars(units).items()}
    save_arrays(path.parent / "truth.h5", {"cause": cause, "level": level, **of_units})


def _write_probe(
    folder: Path, counts: np.ndarray, begin: np.ndarray, area: np.ndarray, rng: np.random.Generator
) -> None:
    """Spikes of counts (trial, bin, unit), each somewhere in its bin, and channels of their areas."""
    folder.mkdir(parents=True)
    trial, t, unit = np.nonzero(counts)
    many, n = counts[trial, t, unit], counts.shape[2]
    times = np.repeat(begin[trial, t], many) + BIN_S * rng.uniform(0.01, 0.99, many.sum())
    order = np.argsort(times)
    np.save(folder / "spikes.times.npy", times[order])
    np.save(folder / "spikes.clusters.npy", np.repeat(unit, many)[order].astype(np.int32))
    np.save(folder / "clusters.channels.npy", np.arange(n))
    np.save(folder / "channels.brainLocationIds_ccf_2017.npy", area)
    known = {"cluster_id": np.arange(n), "label": np.ones(n)}
    pd.DataFrame(known).to_parquet(folder / "clusters.metrics.pqt")


def _write_behaviour(
    folder: Path, begin: np.ndarray, speed: np.ndarray, whisker: np.ndarray
) -> None:
    """Wheel positions whose path is `speed` a second in each bin, and frames that are `whisker` in each."""
    edges = np.column_stack([begin, begin[:, -1] + BIN_S])
    turned = np.cumsum(np.pad(speed * BIN_S, ((0, 0), (1, 0))), axis=1)
    start = np.append(0, np.cumsum(turned[:, -1]))[:-1, None]
    np.save(folder / "_ibl_wheel.timestamps.npy", edges.ravel())
    np.save(folder / "_ibl_wheel.position.npy", (start + turned).ravel())
    frames = begin[..., None] + (np.arange(FRAMES) + 0.5) / FRAMES * BIN_S
    np.save(folder / "_ibl_leftCamera.times.npy", frames.ravel())
    np.save(folder / "leftCamera.ROIMotionEnergy.npy", np.repeat(whisker.ravel(), FRAMES))


def _trial_table(task: Causes, cause: np.ndarray, at: np.ndarray) -> pd.DataFrame:
    contrast = task.drive[cause, STIMULUS_BIN, INPUTS.index("stimulus")]
    choice, moved = task.choice[cause], at + (task.onset[cause] - STIMULUS_BIN) * BIN_S
    right = np.where(contrast == 0, choice, np.sign(contrast)) == choice
    return pd.DataFrame(
        {
            "intervals_0": at - 0.4,
            "intervals_1": at + 1.0,
            "stimOn_times": at,
            "goCue_times": at,
            "firstMovement_times": moved,
            "response_times": moved + 0.2,
            "feedback_times": moved + 0.2,
            "feedbackType": np.where(right, 1.0, -1.0),
            "choice": choice,
            "rewardVolume": np.where(right, 1.5, 0.0),
            "probabilityLeft": np.array([0.2, 0.5, 0.8])[task.block[cause].astype(int) + 1],
            "contrastLeft": np.where(contrast >= 0, contrast, np.nan),
            "contrastRight": np.where(contrast < 0, -contrast, np.nan),
        }
    )


SIMULATOR = Simulator("00_simulate_task", VERSION, "session", simulate)
key, make = SIMULATOR.key, SIMULATOR.make


def open_recording(path: Path, recipe: Recipe, recording_id: str, settings: Settings) -> Recording:
    """Open a simulated session as any other of its layout."""
    return ibl.open_recording(path, recipe, recording_id, ibl.Settings())


def ceiling(recipe: Recipe, recording: str, unit_ids: np.ndarray) -> task_oracle.Ceiling | None:
    """What could be known of a session from some of its units, by their ids; None in other bins than its own."""
    begin, length = recipe.window_start_s, recipe.window_stop_s - recipe.window_start_s
    made = (-STIMULUS_BIN * BIN_S, N_BINS * BIN_S, BIN_S)
    same = np.allclose((begin, length, recipe.bin_s), made)
    if not same or (recipe.binning, recipe.event) != ("event_window", "stimOn_times"):
        return None
    settings = Settings(**recipe.source_params)
    truth = load_arrays(make(settings, recording).parent / "truth.h5")
    names = [f"probe0{p}/{i}" for p in (0, 1) for i in range((settings.n_units + 1 - p) // 2)]
    place = pd.Index(names).get_indexer(unit_ids.astype(str))
    units = Units(*(truth[name][place] for name in ("area", "base", "weights")))
    return task_oracle.Ceiling(make_task(), units, truth["cause"], truth["level"])
