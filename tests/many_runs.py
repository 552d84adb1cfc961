"""A data root of many runs in no time: one run as notebook 05 makes it, then folders beside it.

Each further run has a seed, a key and scores of its own; its weights and tables are hard links.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from laboratory import Laboratory, reseal, vouch

from nblib import metrics, params, stages, store


def make(laboratory: Laboratory, n: int, recording: str = "000021") -> list[Path]:
    """Commit n runs of 05 that differ in their seed; their folders."""
    first = laboratory.run(recording=recording)
    manifest = store.read_manifest(first)
    told = json.loads((first / metrics.METRICS).read_text())
    folders = [first]
    for seed in range(1, n):
        asked = params.TrainParams(**manifest["parameters"] | {"seed": seed})
        made = stages.made_of("05_train_lstm", laboratory.recipe, recording, asked, "shipped")
        key = stages.key_for("05_train_lstm", laboratory.recipe, recording, asked, "shipped")
        folder = first.with_name(key)
        if folder.is_dir():
            continue
        folder.mkdir()
        for name in set(manifest["outputs"]) - {metrics.METRICS}:
            os.link(first / name, folder / name)
        (folder / metrics.METRICS).write_text(json.dumps(told | {"seed": seed}))
        given = {"key": key, "seed": seed, "parameters": asked.model_dump(), "in_key": made.values}
        reseal(folder, store.plain(manifest | given))
        vouch(folder, metrics.METRICS)
        folders.append(folder)
    return folders
