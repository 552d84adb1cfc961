"""The tables of the simulated NWB file: stimuli, electrodes, units and their quality."""

from __future__ import annotations

import numpy as np

from nblib.simulate.oracle import Truth
from nblib.simulate.session import Schedule

N_CHANNELS = 96  # of each probe, 40 um apart
DEPTHS = {"thalamus": (0, 30), "CA1": (30, 60), "cortex": (60, 91)}  # channels; above: outside
CORTEX = {"probeC": "VISp", "probeD": "VISl", "probeE": "VISal"}
THALAMUS = {"probeC": "LGd", "probeD": "LP", "probeE": "LP"}


def stimulus_tables(shown: Schedule) -> dict[str, dict[str, np.ndarray]]:
    """Presentation tables in the Allen layout, `stimulus_block` numbered in order of time."""

    def table(name: str, start: np.ndarray, stop: np.ndarray, **columns) -> dict[str, np.ndarray]:
        name_column = np.full(len(start), name)
        return {"start_time": start, "stop_time": stop, "stimulus_name": name_column} | columns

    g = shown.gratings
    n = len(g)
    tables = {
        "spontaneous_presentations": table("spontaneous", *shown.spontaneous.T),
        "natural_scenes_presentations": table(
            "natural_scenes",
            shown.start_s,
            shown.stop_s,
            stimulus_block=2.0 * shown.block,
            stimulus_index=np.full(len(shown.label), 6.0),
            frame=shown.label.astype(float),
        ),
    }
    if n:
        after = np.searchsorted(shown.start_s, g[:, 0]) - 1  # the scene shown last
        tables["drifting_gratings_presentations"] = table(
            "drifting_gratings",
            g[:, 0],
            g[:, 1],
            stimulus_block=2.0 * shown.block[after] + 1.0,
            stimulus_index=np.full(n, 2.0),
            orientation=g[:, 2],
            temporal_frequency=np.full(n, 2.0),
            spatial_frequency=np.full(n, "0.04"),
            contrast=np.full(n, 0.8),
            phase=np.full(n, "[0.0, 0.0]"),
            size=np.full(n, "[250.0, 250.0]"),
        )
    return tables


def electrode_table() -> dict[str, np.ndarray]:
    """Three probes through cortex, CA1 and thalamus, 96 channels each, the top five outside."""
    columns: dict[str, list] = {}
    for p, probe in enumerate(CORTEX):
        names = {"thalamus": THALAMUS[probe], "CA1": "CA1", "cortex": CORTEX[probe]}
        areas = ["None"] * N_CHANNELS
        for part, (lo, hi) in DEPTHS.items():
            areas[lo:hi] = [names[part]] * (hi - lo)
        for c in range(N_CHANNELS):
            row = {
                "id": 850_000_000 + 1000 * p + c,
                "probe": probe,
                "probe_id": 760_000_000 + p,
                "location": areas[c],
                "local_index": c,
                "valid_data": True,
                "probe_vertical_position": 80 * (c // 2) + 20,
                "probe_horizontal_position": (43, 11)[c % 2],
                "x": 7800.0 + 300.0 * p,
                "y": 4600.0 - 38.0 * c,
                "z": 7400.0 + 450.0 * p + 4.0 * c,
            }
            for name, value in row.items():
                columns.setdefault(name, []).append(value)
    return {k: np.array(v) for k, v in columns.items()}


def anatomy(units: dict, electrodes: dict, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Unit ids and the channel of each unit: any channel of its area on its probe."""
    n = len(units["area"])
    channel = np.empty(n, np.int64)
    for i in range(n):
        on_probe = electrodes["probe"] == units["probe"][i]
        in_area = electrodes["location"] == units["area"][i]
        channel[i] = rng.choice(electrodes["id"][on_probe & in_area])
    order = np.argsort(channel, kind="stable")
    for name in units:  # from the tip of each probe upwards, as in the original files
        units[name] = units[name][order]
    return {
        "id": 950_000_000 + np.cumsum(rng.integers(1, 9, n)),
        "area": units["area"],
        "probe": units["probe"],
        "peak_channel_id": channel[order],
    }


def quality(
    truth: Truth, n_spikes: np.ndarray, duration_s: float, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Quality columns of the original files; some units fail a limit, as the truth says."""
    n, failing = len(n_spikes), truth.units["failing"]
    index = np.arange(n)
    time = np.arange(82) / 30.0 - 0.7  # ms
    halfwidth = np.round(rng.uniform(0.1, 0.3, n), 3)
    duration = np.round(rng.uniform(0.2, 0.8, n), 3)
    amplitude = np.round(rng.uniform(60, 300, n), 2)
    isi = np.where(failing == "isi", rng.uniform(0.6, 3.0, n), 0.45 * rng.beta(1, 8, n))
    cutoff = np.where(failing == "cutoff", rng.uniform(0.12, 0.5, n), 0.09 * rng.beta(1, 5, n))
    trough = np.exp(-((time / halfwidth[:, None]) ** 2))
    peak = np.exp(-(((time - duration[:, None]) / 0.3) ** 2))
    return {
        "local_index": index,
        "cluster_id": index,
        "quality": np.full(n, "good"),
        "firing_rate": n_spikes / duration_s,
        "isi_violations": np.round(isi, 4),
        "amplitude_cutoff": np.round(cutoff, 4),
        "waveform_duration": duration,
        "waveform_halfwidth": halfwidth,
        "amplitude": amplitude,
        "snr": np.round(rng.uniform(1.0, 6.0, n), 3),
        "waveform_mean": np.round(amplitude[:, None] * (0.35 * peak - trough), 2),
    }
