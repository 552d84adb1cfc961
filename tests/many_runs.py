"""A data root of many runs in little time: one run as notebook 05 makes it, then folders beside it.

Each further run has a seed, a key and a metrics.json of its own; other files are hard links.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from laboratory import Laboratory, reseal

from nblib.core import integrity, store
from nblib.evaluate import scores


def make(laboratory: Laboratory, n: int) -> None:
    """Commit n runs of 05 that differ in their seed; those that are there already stay."""
    first = laboratory.run()
    manifest = store.read_manifest(first)
    told = json.loads((first / scores.METRICS).read_text())
    for seed in range(1, n):
        in_key = manifest["in_key"] | {"seed": seed}
        version = manifest["stage_version"]
        key = store.make_key("05_train_lstm", version, in_key, manifest["upstream"])
        folder = first.with_name(key)
        if not folder.is_dir():
            folder.mkdir()
            _link(first, folder, manifest, told, in_key)


def _link(first: Path, folder: Path, manifest: dict, told: dict, in_key: dict) -> None:
    seed, path = in_key["seed"], folder / scores.METRICS
    for name in set(manifest["outputs"]) - {scores.METRICS}:
        os.link(first / name, folder / name)
    path.write_text(json.dumps(told | {"seed": seed}))
    written = {"sha256": integrity.sha256(path), "bytes": path.stat().st_size}
    changed = {
        "key": folder.name,
        "seed": seed,
        "in_key": in_key,
        "parameters": manifest["parameters"] | {"seed": seed},
        "outputs": manifest["outputs"] | {scores.METRICS: written},
    }
    reseal(folder, manifest | changed)
