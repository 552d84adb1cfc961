"""Spike trains from distances: windows beside the published inference, streams of growing length."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from measure import Row, memory, process

GROUP = "spikes"
BIN_S = 18 / 17852.767845719834
TURNS = 4
STRIDE, K = 80, 200  # bins: of windows, and the longest distance


def rows(*, windows: int = 2000, seconds: tuple[int, ...] = (10, 100, 1000)) -> list[Row]:
    """Windows of 128 bins at a stride of 80, and streams of so many seconds; all in CPU time."""
    from nblib.models.encoders import references

    seen, since = distances_seen((windows, 128)), np.full(windows, 300)
    few = max(1, windows // 20)
    references.least_energy(seen[:2], since[:2]), references.greedy(seen[:2], since[:2])  # compiles
    exact = cpu_s(lambda: references.least_energy(seen, since)) / (windows * STRIDE * BIN_S)
    greedy = cpu_s(lambda: references.greedy(seen[:few], since[:few])) / (few * STRIDE * BIN_S)
    # By turns, as a machine is now faster, now slower: each length has its best turn.
    turns = [
        [json.loads(process(sys.executable, __file__, str(n))) for n in seconds]
        for _ in range(TURNS)
    ]
    streams = turns[-1]
    least = [min(turn[of]["least"] for turn in turns) for of in range(len(seconds))]
    growth, peak = max(least) / min(least), streams[-1]["peak"]
    longest = f"{seconds[-1]:,} s"
    return [
        Row(GROUP, "exact trains of windows", 1e3 * exact, "ms", exact / greedy, "greedy, published",
            "at most 1 ms", exact <= 1e-3, "CPU time a second of data and cell; 128 bins, stride 80"),
        Row(GROUP, "greedy, published", 1e3 * greedy, "ms", note="the same windows"),
        Row(GROUP, f"exact train of a stream, {longest}", 1e3 * max(least), "ms",
            limit="at most 4 ms", holds=max(least) <= 4e-3, note="CPU time a second, the slowest length"),
        Row(GROUP, "growth of it with its length", growth, "times", limit="at most 1.2 times",
            holds=growth <= 1.2, note=f"a second of {', '.join(map(str, seconds))} s beside each other"),
        Row(GROUP, f"probabilities of a stream, {seconds[0]:,} s", 1e3 * streams[0]["all"], "ms",
            note="CPU time a second"),
        Row(GROUP, "memory of a stream", peak / 1e9, "GB", limit="at most 0.3 GB", holds=peak <= 0.3e9,
            note=f"{longest}, above the interpreter with its libraries and the distances"),
    ]  # fmt: skip


def distances_seen(shape: tuple[int, ...] | int) -> np.ndarray:
    """Distances of random spikes, 5 Hz, with a log-normal error of .6 [bins]."""
    from nblib.prepare.encoding.distance import SPIKE_BIN, distances

    rng = np.random.default_rng(5)
    away = distances(rng.random(shape) < 5 * BIN_S, K)
    return np.maximum(away, SPIKE_BIN) * np.exp(rng.normal(0, 0.6, shape))


def cpu_s(work: Callable[[], Any], repeats: int = 3) -> float:
    """CPU seconds of some work, the least of several."""
    spent = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        spent.append(time.process_time() - began)
    return min(spent)


def main(seconds: int) -> None:
    """Print CPU time a second of data of one stream, and its highest memory [bytes], in this process."""
    from nblib.models.encoders.inference import Trains, squared_error

    n = round(seconds / BIN_S)
    short, seen = (Trains(squared_error(distances_seen(m), K), m, refractory=2) for m in (2000, n))
    short.least(), short.probabilities()  # compiles
    before = memory("VmRSS")
    # As many seconds for a short stream as for a long one: 10 s alone take 2 ms, which tells nothing.
    times = max(1, 1000 // seconds)
    least = cpu_s(lambda: [seen.least() for _ in range(times)]) / (times * seconds)
    told = {"least": least, "peak": memory("VmHWM") - before}
    if seconds <= 10:
        told["all"] = cpu_s(seen.probabilities, repeats=1) / seconds
    print(json.dumps(told))


if __name__ == "__main__":
    main(int(sys.argv[1]))
