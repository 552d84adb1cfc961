"""The course of the simulated session: what is shown when, what moves the gain, which spikes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nblib.core.errors import BadParameter
from nblib.simulate.scene_oracle import Truth
from nblib.simulate.units import BLANK, N_STEPS, STEP_S

PRESENTATION_S = 0.25021  # 15 frames of a 59.95 Hz screen
ORIENTATIONS = np.arange(0.0, 360.0, 45.0)
AT_REST, DURING_GRATINGS = 0.85, 1.3  # mean rate there, of the mean rate during natural scenes


@dataclass(frozen=True)
class Schedule:
    """What was shown when [s]; natural scenes in blocks with other activity between them."""

    start_s: np.ndarray  # (presentation,)
    stop_s: np.ndarray  # (presentation,)
    label: np.ndarray  # (presentation,) image number, -1 = blank
    block: np.ndarray  # (presentation,) 0, 1, 2
    gratings: np.ndarray  # (grating, 3): start, stop, orientation [degrees]
    spontaneous: np.ndarray  # (interval, 2): start, stop
    invalid: np.ndarray  # (1, 2): start, stop
    duration_s: float

    def tables(self) -> dict[str, dict[str, np.ndarray]]:
        """Presentation tables in the Allen layout, `stimulus_block` numbered in order of time."""

        def table(name: str, start: np.ndarray, stop: np.ndarray, **columns) -> dict:
            times = {"start_time": start, "stop_time": stop}
            return times | {"stimulus_name": np.full(len(start), name)} | columns

        block, frame = 2.0 * self.block, self.label.astype(float)
        tables = {
            "spontaneous_presentations": table("spontaneous", *self.spontaneous.T),
            "natural_scenes_presentations": table(
                "natural_scenes", self.start_s, self.stop_s, stimulus_block=block, frame=frame
            ),
        }
        if len(self.gratings):
            start, stop, orientation = self.gratings.T
            after = block[np.searchsorted(self.start_s, start) - 1]  # of the scene shown last
            tables["drifting_gratings_presentations"] = table(
                "drifting_gratings", start, stop, stimulus_block=after + 1, orientation=orientation
            )
        return tables


def schedule(
    n_scenes: int, n_repeats: int, duration_s: float, rng: np.random.Generator
) -> Schedule:
    """When each image is shown: every repeat is a new random order of all images and the blank.

    Three blocks of natural scenes (fewer when there are fewer repeats) stand between spontaneous
    activity and drifting gratings, which fill the rest of `duration_s` (0: a tenth of the
    natural-scene time, at least 5 s each). Raises BadParameter when `duration_s` is too short.
    """
    classes = np.arange(BLANK, n_scenes)
    label = np.concatenate([rng.permutation(classes) for _ in range(n_repeats)])
    n_blocks = min(3, n_repeats)
    repeat_block = np.repeat(
        np.arange(n_blocks), [len(a) for a in np.array_split(np.arange(n_repeats), n_blocks)]
    )
    block = np.repeat(repeat_block, len(classes))
    lengths = np.round(PRESENTATION_S + rng.normal(0, 1e-5, len(label)), 6)
    natural_s = float(lengths.sum())
    n_fillers = n_blocks + 1
    shortest = natural_s + 5.0 * n_fillers
    if duration_s == 0:
        duration_s = float(np.ceil(max(1.1 * natural_s, shortest)))
    if duration_s < shortest:
        raise BadParameter(
            f"duration_s={duration_s:g} is too short: {len(label)} presentations and the activity "
            f"around them take {shortest:.1f} s; give at least that, or 0 for as long as needed."
        )
    filler_s = (duration_s - natural_s) / n_fillers
    start = np.cumsum(lengths) - lengths + filler_s * (block + 1)
    # A block is gapless: each presentation stops exactly where the next one starts.
    stop = start + lengths
    same = block[1:] == block[:-1]
    stop[:-1][same] = start[1:][same]
    bounds = [0.0]
    for b in range(n_blocks):
        bounds += [start[block == b][0], stop[block == b][-1]]
    bounds = np.array([*bounds, duration_s]).reshape(-1, 2)  # (filler, 2)
    gratings, spontaneous = [np.empty((0, 3))], [bounds[0], bounds[-1]]
    for lo, hi in bounds[1:-1]:  # 2 s of grating every 3 s between the blocks
        onsets = lo + 1.5 + 3.0 * np.arange(int((hi - lo - 2.0) // 3.0))
        orientation = rng.choice(ORIENTATIONS, len(onsets))
        gratings.append(np.stack([onsets, onsets + 2.0, orientation], axis=1))
        spontaneous.append(np.array([lo, lo + 1.0]))
    # The invalid interval starts and stops inside presentations of the middle block and is
    # shorter than one repeat, so that no image loses more than two presentations.
    middle = np.flatnonzero(block == n_blocks // 2)
    first = middle[len(middle) // 2]
    last = min(first + max(1, min(len(classes) // 6, 40)), middle[-1])
    invalid = np.array([[start[first] + 0.1, start[last] + 0.1]])
    return Schedule(
        start, stop, label, block,
        gratings=np.concatenate(gratings),
        spontaneous=np.array(sorted(map(tuple, spontaneous))),
        invalid=np.round(invalid, 6), duration_s=float(duration_s),
    )  # fmt: skip


def running_speed(duration_s: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Speed on a wheel at 60 Hz, bouts of running and rest: (timestamps [s], speed [cm/s])."""
    n_seconds = int(np.ceil(duration_s)) + 2
    bouts, total = [], 0
    while total < n_seconds:
        bouts.append(1 + int(rng.exponential(20.0 if len(bouts) % 2 else 14.0)))
        total += bouts[-1]
    level = rng.uniform(10, 40, len(bouts)) * (np.arange(len(bouts)) % 2 == 0)
    target = np.repeat(level, bouts)[:n_seconds]
    kernel = np.array([1, 2, 3, 2, 1]) / 9
    smooth = np.convolve(np.pad(target, 2, mode="edge"), kernel, mode="valid")
    timestamps = np.arange(int(duration_s * 60)) / 60.0
    speed = np.interp(timestamps, np.arange(n_seconds), smooth)
    return timestamps, np.round(speed + rng.normal(0, 0.5, len(timestamps)), 4)


def latents(
    at_s: np.ndarray,
    duration_s: float,
    timestamps: np.ndarray,
    speed: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """What moves the gain of all units together, at the times `at_s` [s].

    Returns (time, 2): a slow random walk pulled back to 0 (unit variance, 100 s memory) and the
    running speed, averaged over a second, in units of 20 cm/s.
    """
    grid = np.arange(0.0, duration_s + 2.0)
    keep = np.exp(-1 / 100.0)
    noise = rng.standard_normal(len(grid)) * np.sqrt(1 - keep**2)
    slow = np.empty(len(grid))
    value = rng.standard_normal()
    for i, step in enumerate(noise):
        value = keep * value + step
        slow[i] = value
    running = np.convolve(speed, np.ones(60) / 60, mode="same") / 20.0
    return np.round(
        np.stack([np.interp(at_s, grid, slow), np.interp(at_s, timestamps, running)], axis=1), 4
    )


class Grid:
    """Time cut into intervals of constant rate, from the session's start to its end.

    Natural scenes: 25 steps of each presentation. Between them: each grating, and what lies
    between gratings in pieces of at most a second.
    """

    def __init__(
        self, shown: Schedule, timestamps: np.ndarray, speed: np.ndarray, rng: np.random.Generator
    ):
        natural = shown.start_s[:, None] + np.arange(N_STEPS) * STEP_S  # (P, step)
        first = np.flatnonzero(np.diff(shown.block, prepend=-1))
        last = np.append(first[1:] - 1, len(shown.block) - 1)
        opens = np.append(0.0, shown.stop_s[last])
        closes = np.append(shown.start_s[first], shown.duration_s)
        pieces = [np.arange(lo, hi, 1.0) for lo, hi in zip(opens, closes, strict=True)]
        bounds = shown.gratings[:, :2].ravel()  # start, stop, start, stop, ...
        other = np.unique(np.concatenate([bounds, *pieces]))
        passed = np.searchsorted(bounds, other, side="right")  # odd: in a grating
        cuts = (passed % 2 == 0) | np.isin(other, bounds)
        other, passed = other[cuts], passed[cuts]
        self.orientation = np.full(len(other), np.nan)
        self.orientation[passed % 2 == 1] = shown.gratings[passed[passed % 2 == 1] // 2, 2]

        edges = np.concatenate([natural.ravel(), other])
        order = np.argsort(edges, kind="stable")
        self.edges = np.append(edges[order], shown.duration_s)
        self.width = np.diff(self.edges)
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        self.natural, self.other = place[: natural.size], place[natural.size :]
        self.column = shown.label - BLANK  # column of the image in the true rates
        self.other_s = other
        middle = np.concatenate([(shown.start_s + shown.stop_s) / 2, other])
        both = latents(middle, shown.duration_s, timestamps, speed, rng)
        self.latent, self.other_latent = both[: len(natural)], both[len(natural) :]

    def rate(self, truth: Truth, u: int) -> np.ndarray:
        """Rate of a unit in every interval [Hz]."""
        rate = np.empty(len(self.width))
        gain = truth.presentation_gain(u)
        rate[self.natural] = (truth.rates[u, self.column] * gain[:, None]).ravel()
        rate[self.other] = self._other_rate(truth, u)
        return rate

    def _other_rate(self, truth: Truth, u: int) -> np.ndarray:
        """Constant at rest, a bell over orientation during gratings [Hz]."""
        preferred, tuning = truth.units["filters"][u, 0, 2], min(truth.units["tuning"][u], 1.5)
        turn = 2 * (np.radians(self.orientation) - preferred)
        bell = np.exp(tuning * np.cos(turn)) / np.i0(tuning)  # mean 1 over orientations
        shape = np.where(np.isnan(self.orientation), AT_REST, DURING_GRATINGS * bell)
        gain = truth.gain(u, self.other_latent, self.other_s)
        return truth.units["mean_rate_hz"][u] * shape * gain

    def expected(self, truth: Truth, u: int) -> float:
        """Expected number of spikes of a unit in the session."""
        return float((self.rate(truth, u) * self.width).sum())

    def spike_times(self, truth: Truth, u: int, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` spike times [s], ascending.

        Given their number, the spikes of a Poisson process are uniform in cumulative rate. Sorted
        uniforms come from cumulated exponentials, so that nothing needs to be sorted.
        """
        cumulative = np.append(0.0, np.cumsum(self.rate(truth, u) * self.width))
        steps = np.cumsum(rng.standard_exponential(n + 1))
        return np.interp(steps[:-1] * (cumulative[-1] / steps[-1]), cumulative, self.edges)
