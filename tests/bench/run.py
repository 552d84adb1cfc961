"""`make bench`: measure, print a table, and keep it where the book finds it.

The full-size simulated recording is made once, under `NBLIB_HOME/bench`, and kept. Results go to
`NBLIB_HOME/bench/bench.json` and `bench.md`; a full-size bench also to `book/bench.json`, where groups that
were not measured now stay as they are.
bench.json: `machine` (what it ran on), `rows` (the table in words), `measured` (its numbers, see
`measure.Row`), `seconds` (how long it took).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

from measure import ROOT, Row

FULL = {"n_units": 2_000, "n_scenes": 118, "n_repeats": 50, "duration_s": 9_000.0}
SMALL = {"n_units": 40, "n_scenes": 8, "n_repeats": 4}
GROUPS = (
    "binning",
    "training",
    "graph",
    "few-shot",
    "decoders",
    "potentials",
    "film",
    "spikes",
    "tools",
    "overhead",
    "results",
)


def recording(name: str, sizes: dict[str, Any]) -> Path:
    """A simulated NWB file under the data root, made when it is not there."""
    from nblib.core import store
    from nblib.simulate.allen import simulate

    folder = store.home() / "bench"
    path = folder / f"{name}.nwb"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        print(f"simulating {path} ...", flush=True)
        making = folder / f"making-{os.getpid()}"
        making.mkdir()
        simulate(making / path.name, **sizes, seed=0)
        for file in sorted(making.iterdir(), key=lambda p: p.suffix == ".nwb"):
            file.replace(folder / file.name)  # the recording itself last: it says all is there
        making.rmdir()
    return path


def machine() -> dict[str, str]:
    import torch

    model = platform.processor()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    return {
        "processor": model,
        "cores": str(len(os.sched_getaffinity(0))),
        "gpu": gpu,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def measure(groups: tuple[str, ...], *, small: bool) -> list[Row]:
    """All rows of the groups asked for; `small` takes seconds and proves only that it runs."""
    import binning_rows
    import decoder_rows
    import few_shot_rows
    import film_rows
    import graph_rows
    import overhead_rows
    import potentials_rows
    import results_rows
    import spike_rows
    import tools_rows
    import torch
    import training_rows

    found: list[Row] = []
    tiny = recording("small", SMALL) if small or "tools" in groups else None
    if "binning" in groups:
        if small:
            found += binning_rows.rows(tiny, repeats=1, part=5, torch_part=1)
        else:
            found += binning_rows.rows(recording("full", FULL))
    if "training" in groups:
        sizes = dict(hidden=8, batch=4, units=10, steps=2, epochs=1, repeats=1) if small else {}
        masked = dict(units=6, bins=4, batch=4, width=8, steps=2, repeats=1) if small else {}
        for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
            more = {} if small or device == "cpu" else {"steps": 200}
            found += training_rows.rows(device, **sizes, **more)
            found += training_rows.masked_rows(device, **masked)
            if device == "cuda":
                few = dict(units=6, bins=4, steps=2, on_two_cores=2) if small else {}
                found += training_rows.size_rows(device, **few)
    if "graph" in groups:
        sizes = {"units": (20, 40), "full": (20,), "steps": 1, "classes": 4} if small else {}
        found += graph_rows.rows(**sizes)
    if "few-shot" in groups:
        sizes = {"units": 6, "bins": 2, "classes": 4, "repeats": 8, "shots": (1, 5, 0)} if small else {}  # fmt: skip
        found += few_shot_rows.rows(**sizes)
    if "decoders" in groups:
        sizes = {"seeds": 1, "sizes": SMALL, "plenty": SMALL, "draws": 1, "big": {"n": 60, "bins": 2, "units": 5, "classes": 3}} if small else {}  # fmt: skip
        found += decoder_rows.rows(**sizes)
    if "potentials" in groups:
        sizes = {"recordings": 3, "windows": 60, "subjects": 5, "steps": 2, "repeats": 1, "draws": 1, "embedders": 1} if small else {}  # fmt: skip
        for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
            found += potentials_rows.rows(**sizes, device=device)
    if "film" in groups:
        sizes = {"sizes": {"n_frames": 9_001, "n_units": 8}, "gap_s": 4.0, "patients": 2, "units": 8, "leak": [0.0, 4.0], "folds": [0], "max_epochs": 1} if small else {}  # fmt: skip
        found += film_rows.rows(**sizes)
    if "spikes" in groups:
        found += spike_rows.rows(windows=40, seconds=(2, 4)) if small else spike_rows.rows()
    if "tools" in groups:
        found += tools_rows.rows(tiny, repeats=1 if small else 3)
    if "overhead" in groups:
        found += overhead_rows.rows(("01_ingest",)) if small else overhead_rows.rows()
    if "results" in groups:
        found += results_rows.rows(runs=20) if small else results_rows.rows()
    return found


def shown(row: Row) -> dict[str, str]:
    """A row in words, column by column."""
    return {
        "what": f"{row.group}: {row.what}",
        "measured": f"{row.value:.3g} {row.unit}",
        "ratio": "" if row.ratio is None else f"{row.ratio:,.2f}",
        "promised": row.limit,
        "kept": {None: "", True: "yes", False: "no"}[row.holds],
        "how": row.note,
    }


def table(rows: list[Row], on: dict[str, str]) -> str:
    """The rows as Markdown."""
    cells = [shown(row) for row in rows]
    lines = ["| " + " | ".join(line) + " |" for line in [list(cells[0]), *map(dict.values, cells)]]
    lines.insert(1, "| --- | ---: | ---: | --- | --- | --- |")
    return "\n".join([*lines, "", "; ".join(f"{k}: {v}" for k, v in on.items())]) + "\n"


def renewed(before: dict[str, Any], now: dict[str, Any], groups: list[str]) -> dict[str, Any]:
    """The bench of before with the groups measured now in the place of theirs; both of one machine."""
    if set(groups) == set(GROUPS):
        return now
    if before["machine"] != now["machine"]:
        raise SystemExit(f"book/bench.json is of {before['machine']}: measure all groups here.")
    pairs = list(zip(now["rows"], now["measured"], strict=True))
    for pair in zip(before["rows"], before["measured"], strict=True):
        if _group(pair[1]) not in groups:
            pairs.append(pair)
    pairs.sort(key=lambda pair: GROUPS.index(_group(pair[1])))
    rows, measured = zip(*pairs, strict=True)
    return {**now, "rows": list(rows), "measured": list(measured), "seconds": before["seconds"]}


def _group(row: dict[str, Any]) -> str:
    """The group of a measured row; some are measured on several devices."""
    return row["group"].split(" on ")[0]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure speed.")
    parser.add_argument("--small", action="store_true", help="seconds; proves only that it runs")
    parser.add_argument("--only", choices=GROUPS, nargs="+", default=list(GROUPS))
    args = parser.parse_args(argv)
    from nblib.core import store

    began = time.perf_counter()
    rows = measure(tuple(args.only), small=args.small)
    on = machine()
    result = {
        "machine": on,
        "rows": [shown(row) for row in rows],
        "measured": [row.plain() for row in rows],
        "seconds": round(time.perf_counter() - began, 1),
    }
    folder = store.home() / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.md").write_text(table(rows, on), encoding="utf-8")
    _write(folder / "bench.json", result)
    if not args.small:
        shown_in_book = ROOT / "book" / "bench.json"
        before = json.loads(shown_in_book.read_text(encoding="utf-8"))
        _write(shown_in_book, renewed(before, result, args.only))
    print(table(rows, on))
    broken = [row.what for row in rows if row.holds is False]
    if broken:
        print(f"not kept: {', '.join(broken)}")
    return 0


def _write(path: Path, result: dict[str, Any]) -> None:
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
