"""Power of windows by frequency: to look at, and as the features that an embedder has to beat."""

from __future__ import annotations

import numpy as np
import pandas as pd

from nblib.core.errors import BadInput
from nblib.prepare.potentials.stored_windows import Windows

BANDS = {
    "delta": (1, 4),
    "theta": (4, 8),
    "alpha": (8, 13),
    "beta": (13, 30),
    "gamma": (30, 50),
}  # Hz


def spectra(windows: Windows) -> pd.DataFrame:
    """Power of z-scored windows by state and channel, Welch's estimate averaged over windows.

    Returns label, channel, frequency_hz, power (share of the variance per Hz).
    """
    from scipy import signal

    rows = []
    size = windows.x.shape[1]
    segment = min(size, max(8, round(windows.rate_hz)))
    for label in sorted(set(windows.label[windows.labelled])):
        of_label = windows.x[windows.labelled & (windows.label == label)]
        frequency, power = signal.welch(of_label, windows.rate_hz, nperseg=segment, axis=1)
        mean = power.mean(axis=0)  # (F, C)
        for c, channel in enumerate(windows.channels):
            columns = {"label": label, "channel": channel, "frequency_hz": frequency}
            rows.append(pd.DataFrame(columns | {"power": mean[:, c]}))
    if not rows:
        raise BadInput(f"recording {windows.recording!r}: no window lies inside a state.")
    return pd.concat(rows, ignore_index=True)


def log_band_power(x: np.ndarray, rate_hz: float) -> np.ndarray:
    """Logarithm of the power of each channel in each of `BANDS`: (W, T, C) -> (W, C x bands).

    By Welch's estimate. A band of which a window at this rate holds no frequency is left out;
    BadInput when that leaves none.
    """
    from scipy import signal

    segment = min(x.shape[1], round(2 * rate_hz))
    frequency, power = signal.welch(x, rate_hz, nperseg=segment, axis=1)  # (W, F, C)
    inside = [(frequency >= low) & (frequency < high) for low, high in BANDS.values()]
    if not any(band.any() for band in inside):
        raise BadInput(
            f"windows of {x.shape[1]} samples at {rate_hz:g} Hz hold none of the bands {', '.join(BANDS)}."
        )
    means = [power[:, band].mean(axis=1) for band in inside if band.any()]
    return np.log(np.concatenate(means, axis=1) + 1e-12)
