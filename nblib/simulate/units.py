"""The model behind the simulated recording: images, units, filters, true rates.

It is simple enough to know the truth. Within a presentation each unit fires as a Poisson process
whose rate is its true response to the image (constant on steps of 10 ms) times a gain that is
constant within the presentation. Nothing carries over from one presentation to the next.

Everything drawn is rounded before it is used, so that the last bit of a BLAS or `exp` result,
which may differ between processors, does not reach the spikes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

IMAGE_SHAPE = (64, 80)
STEP_S = 0.01
N_STEPS = 25  # the last step lasts until the presentation ends
BLANK = -1
DRIVE = (-2.0, 2.5)  # weakest and strongest drive of a filter, in standard deviations
FILTER_FIELDS = ("x_px", "y_px", "theta", "wavelength_px", "sigma_px", "phase", "kind")
SIMPLE, COMPLEX, SPOT = 0.0, 1.0, 2.0
FAILING = {"isi": 0.06, "cutoff": 0.06, "presence": 0.04}  # share of units that fail each limit
MAX_RATE_HZ = 120.0  # no response saturates far above it


class Area(NamedTuple):
    """What units of one area have in common."""

    share: float  # of all units
    latency_s: float  # median response latency
    baseline: float  # share of spikes that no image drives
    transient: float  # share of the driven spikes in the first, transient response
    tuning: float  # spread of log response over images at signal 1
    wavelength_px: float  # of the preferred grating
    running: float  # how strongly running changes the gain
    probes: tuple[str, ...]


AREAS = {
    "VISp": Area(0.26, 0.052, 0.25, 0.50, 1.90, 9.0, 0.20, ("probeC",)),
    "VISl": Area(0.16, 0.060, 0.30, 0.45, 1.70, 12.0, 0.15, ("probeD",)),
    "VISal": Area(0.16, 0.063, 0.30, 0.45, 1.50, 14.0, 0.20, ("probeE",)),
    "LGd": Area(0.12, 0.040, 0.30, 0.60, 1.80, 8.0, 0.10, ("probeC",)),
    "LP": Area(0.14, 0.068, 0.45, 0.40, 1.10, 18.0, 0.20, ("probeD", "probeE")),
    "CA1": Area(0.16, 0.100, 0.85, 0.30, 0.20, 20.0, 0.10, ("probeC", "probeD", "probeE")),
}


def natural_images(n: int, rng: np.random.Generator) -> np.ndarray:
    """Grey images with a 1/f amplitude spectrum and a few discs and bars.

    Returns uint8 (n, 64, 80). The spectrum is that of natural scenes
    (Field 1987, J Opt Soc Am A 4).
    """
    height, width = IMAGE_SHAPE
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = np.inf  # no mean
    y, x = np.mgrid[:height, :width]
    images = np.empty((n, height, width), np.uint8)
    for i in range(n):
        noise = np.fft.rfft2(rng.standard_normal(IMAGE_SHAPE))
        image = np.fft.irfft2(noise / frequency, s=IMAGE_SHAPE)
        image /= image.std()
        for _ in range(rng.integers(3, 8)):
            dx, dy = x - rng.uniform(0, width), y - rng.uniform(0, height)
            angle, grey, size = rng.uniform(0, np.pi), rng.normal(0, 1.5), rng.uniform(4, 14)
            if rng.random() < 0.5:
                inside = dx**2 + dy**2 < size**2
            else:
                along = dx * np.cos(angle) + dy * np.sin(angle)
                across = dy * np.cos(angle) - dx * np.sin(angle)
                inside = (np.abs(along) < 2 * size) & (np.abs(across) < size / 3)
            image[inside] = 0.3 * image[inside] + grey
        contrast = rng.uniform(0.12, 0.22)
        images[i] = np.clip(np.round(255 * (0.5 + contrast * image)), 0, 255)
    return images


def draw_units(
    n: int, rate_hz: float, signal: float, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Parameters of `n` units: area, mean rate, latency, tuning, filters, gain coupling, presence.

    Mean rates are quantiles of a log-normal law in random order, cut at 80 Hz and scaled to a mean
    of exactly `rate_hz`, so that small recordings are not ruled by one unit. Returns arrays whose
    first axis is the unit, sorted by probe as in the original files.
    """
    from scipy import special  # takes a while to import

    shares = np.array([a.share for a in AREAS.values()])
    counts = np.floor(shares * n).astype(int)
    order = np.argsort(-(shares * n - counts), kind="stable")
    counts[order[: n - counts.sum()]] += 1
    area = np.repeat(list(AREAS), counts)
    probe = np.array([AREAS[a].probes[rng.integers(len(AREAS[a].probes))] for a in area])
    by_probe = np.lexsort((np.arange(n), probe))
    area, probe = area[by_probe], probe[by_probe]

    def of(field: str) -> np.ndarray:
        return np.array([getattr(AREAS[a], field) for a in area])

    quantiles = (rng.permutation(n) + 0.5) / n
    rate = np.minimum(np.exp(1.1 * special.ndtri(quantiles)), 80 / 3.0)
    rate *= rate_hz / rate.mean()
    filters = np.empty((n, 2, len(FILTER_FIELDS)))  # early, late
    centre = np.array([IMAGE_SHAPE[1] / 2, IMAGE_SHAPE[0] / 2])
    place = centre + rng.normal(0, [14.0, 11.0], (n, 2))
    theta, phase = rng.uniform(0, np.pi, n), rng.uniform(0, 2 * np.pi, n)
    kind = np.where(area == "LGd", SPOT, np.where(rng.random(n) < 0.4, SIMPLE, COMPLEX))
    wavelength = of("wavelength_px") * np.exp(rng.normal(0, 0.25, n))
    for late in (0, 1):  # coarse first, then fine, at the same place
        scale = wavelength * (0.6 if late else 1.2)
        turned = theta + late * rng.normal(0, 0.5, n)
        filters[:, late] = np.stack([*place.T, turned, scale, 0.45 * scale, phase, kind], axis=1)
    failing = np.full(n, "", dtype="U8")
    chosen = rng.permutation(n)
    for name, share in FAILING.items():
        count = max(round(share * n), 1 if n >= 4 else 0)
        failing[chosen[:count]], chosen = name, chosen[count:]
    presence = np.tile([0.0, 1.0], (n, 1))  # from, to, as fractions of the session
    lost = np.flatnonzero(failing == "presence")  # in turn: comes late, leaves early
    presence[lost[::2], 0] = rng.uniform(0.3, 0.5, len(lost[::2]))
    presence[lost[1::2], 1] = rng.uniform(0.5, 0.7, len(lost[1::2]))
    units = {
        "area": area,
        "probe": probe,
        "mean_rate_hz": rate,
        "latency_s": of("latency_s") + np.clip(rng.normal(0, 0.006, n), -0.012, 0.012),
        "baseline": np.clip(of("baseline") + rng.normal(0, 0.08, n), 0.05, 0.95),
        "transient": np.clip(of("transient") + rng.normal(0, 0.12, n), 0.05, 0.95),
        "tuning": signal * of("tuning") * np.exp(rng.normal(0, 0.3, n)) * (rate / 3.0) ** -0.15,
        "filters": filters,
        "coupling": np.stack(
            [rng.normal(0.25, 0.1, n), of("running") + rng.normal(0, 0.08, n)], axis=1
        ),
        "presence": presence,
    }
    units = {k: v if v.dtype.kind == "U" else np.round(v, 6) for k, v in units.items()}
    return units | {"failing": failing}


def filter_bank(filters: np.ndarray, shape: tuple[int, int] = IMAGE_SHAPE) -> np.ndarray:
    """Image filters from their parameters, the even and the odd one of each pair.

    filters: (n, 7), the columns of FILTER_FIELDS. Returns float64 (n, 2, height, width) with zero
    mean and unit norm: Gabor pairs, or for kind 2 a difference of Gaussians and its negative.
    """
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    x0, y0, theta, wavelength, sigma, phase, kind = (c[:, None, None] for c in filters.T)
    dx, dy = x - x0, y - y0
    squared = dx**2 + dy**2
    window = np.exp(-squared / (2 * sigma**2))
    turn = 2 * np.pi / wavelength * (dx * np.cos(theta) + dy * np.sin(theta)) + phase
    spot = window - np.exp(-squared / (8 * sigma**2)) / 4
    sign = np.where(np.cos(phase) < 0, -1.0, 1.0)  # OFF or ON centre
    even = np.where(kind == SPOT, sign * spot, window * np.cos(turn))
    odd = np.where(kind == SPOT, -sign * spot, window * np.sin(turn))
    bank = np.stack([even, odd], axis=1)
    bank -= bank.mean(axis=(2, 3), keepdims=True)
    norm = np.sqrt((bank**2).sum(axis=(2, 3), keepdims=True))
    return bank / np.maximum(norm, 1e-9)


def image_drive(templates: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """How strongly each image drives each filter, in standard deviations over the images.

    templates: uint8 (scene, height, width); filters: (n, 7). Returns (n, scene + 1) rounded to
    1e-3; the first column is the blank, a grey screen that drives no filter.
    """
    shape = templates.shape[1:]
    pixels = (templates.reshape(len(templates), -1) - 127.5) / 127.5
    pixels = np.concatenate([np.zeros((1, pixels.shape[1])), pixels])  # the blank first
    drive = np.empty((len(filters), len(pixels)))
    for lo in range(0, len(filters), 64):
        bank = filter_bank(filters[lo : lo + 64], shape)
        even, odd = np.moveaxis(bank.reshape(len(bank), 2, -1) @ pixels.T, 1, 0)
        complex_cell = filters[lo : lo + 64, 6:7] == COMPLEX
        drive[lo : lo + 64] = np.where(complex_cell, np.hypot(even, odd), np.maximum(even, 0))
    scenes = drive[:, 1:]
    spread = scenes.std(axis=1, keepdims=True)
    drive = (drive - scenes.mean(axis=1, keepdims=True)) / np.where(spread > 1e-9, spread, np.inf)
    return np.round(np.clip(drive, *DRIVE), 3)


def true_rates(units: dict[str, np.ndarray], templates: np.ndarray) -> np.ndarray:
    """True rate of each unit for each image and each step of a presentation, at gain 1 [Hz].

    A baseline plus a transient response to a coarse filter and a sustained one to a fine filter;
    strongly driven units also answer earlier. What drove the first response weakens the second
    (adaptation), and the whole response is divided by the root of its size (normalisation), so
    that the time course says more than the spike count alone. Without tuning every image gives
    the same rates. Returns float64 (unit, scene + 1, step), the blank first, rounded to 1e-4 Hz.
    """
    n = len(units["area"])
    time = (np.arange(N_STEPS) + 0.5) * STEP_S
    rates = np.empty((n, len(templates) + 1, N_STEPS))
    for lo in range(0, n, 64):
        u = {k: v[lo : lo + 64] for k, v in units.items()}
        early = image_drive(templates, u["filters"][:, 0])
        late = image_drive(templates, u["filters"][:, 1])
        tuning = u["tuning"][:, None]
        shift = np.clip(-0.006 * tuning * early, -0.012, 0.012)
        shift -= shift.mean(axis=1, keepdims=True)
        x = time - (u["latency_s"][:, None] + shift)[:, :, None]  # (U, C, step)
        after = np.maximum(x, 0)
        transient = after / 0.018 * np.exp(1 - after / 0.018)
        sustained = (1 - np.exp(-after / 0.03)) * np.exp(-after / 0.4)
        driven = 0.0
        for kernel, drive, weight in (
            (transient, early, u["transient"]),
            (sustained, np.clip((late - 0.5 * early) / 1.1, *DRIVE), 1 - u["transient"]),
        ):
            amplitude = np.exp(tuning * drive)
            amplitude /= amplitude.mean(axis=1, keepdims=True)
            kernel = kernel / kernel.mean(axis=(1, 2), keepdims=True)
            driven = driven + (weight[:, None] * amplitude)[:, :, None] * kernel
        driven /= np.sqrt(driven.mean(axis=2, keepdims=True))
        base, mean = u["baseline"][:, None, None], u["mean_rate_hz"][:, None, None]
        raw = mean * (base + (1 - base) * driven)
        raw = MAX_RATE_HZ * (1 - np.exp(-raw / MAX_RATE_HZ))
        rates[lo : lo + 64] = raw * (mean / raw.mean(axis=(1, 2), keepdims=True))
    return np.round(np.maximum(rates, 1e-3), 4)
