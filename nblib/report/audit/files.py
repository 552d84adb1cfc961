"""What the audit reads beside a run: the files that it rests on, compared with their manifest."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from nblib.core import store
from nblib.data import sources
from nblib.prepare import label_runs, lfp_windows, splits
from nblib.report import runs
from nblib.report.audit.answers import Memory
from nblib.report.runs import Run
from nblib.road import stages
from nblib.road.stage_registry import BIN, SPLIT


class Files:
    """What many runs rest on, each read once in an audit.

    What is gone raises MissingInput, what changed since it was written CorruptArtifact.
    """

    def __init__(self):
        self.manifest = cache(read_manifest)
        self._split = cache(self._read_split)
        self._block = cache(lambda folder: label_runs.time_blocks(self._split(folder)[0])[0])
        self._roles = cache(self._read_roles)
        self._content = cache(self._read_content)
        self.answers = Memory(self)

    @staticmethod
    def split_folder(run: Run) -> Path | None:
        """Where the run's split lies; None for a cohort, whose folds are of subjects."""
        if stages.STAGES[run.stage].upstream != SPLIT:
            return None
        return store.folder(SPLIT, run.manifest["recording"], run.manifest["upstream"][0])

    def split(self, run: Run) -> tuple[pd.DataFrame, str]:
        """Rows of the run's stored split, and their hash."""
        return self._split(self.split_folder(run))

    def block(self, run: Run) -> int:
        """How many presentations of its split hang together in time (`label_runs.time_blocks`)."""
        return self._block(self.split_folder(run))

    def rows(self, run: Run, role: str) -> frozenset:
        """Trials of one role in the run's fold."""
        return self._roles(self.split_folder(run), run.metrics["fold"]).get(role, frozenset())

    def content(self, run: Run, recording: str) -> str:
        """What a recording of the run holds: the hash of its raw file, from the manifest of 01 (or 02).

        A simulated recording is known by its settings and its name.
        """
        key = run.manifest["upstream"][recordings_of(run).index(recording)]
        return self._content(run.stage, run.manifest["recipe"]["source"], recording, key)

    def _read_split(self, folder: Path) -> tuple[pd.DataFrame, str]:
        outputs = self.manifest(folder)["outputs"]
        rows = pd.DataFrame(runs.stored_table(folder, splits.SPLIT_FILE, outputs))
        return rows, splits.split_hash(rows)

    def _read_roles(self, folder: Path, fold: int) -> dict[str, frozenset]:
        split = self._split(folder)[0]
        by_role = split[split["fold"] == fold].groupby("role")["trial"]
        return {role: frozenset(trials) for role, trials in by_role}

    def _read_content(self, stage: str, source: str, recording: str, key: str) -> str:
        for step in reversed(stages.chain(stage, source)[:-1]):
            key = self.manifest(store.folder(step, recording, key))["upstream"][0]
        return f"{key} {recording}" if sources.is_simulated(source) else key


def read_manifest(folder: Path) -> dict[str, Any]:
    """Manifest of an artifact that runs rest on."""
    return runs.Fields(folder / store.MANIFEST, store.read_manifest(folder))


def embedders(run: Run) -> list[Run]:
    """The runs of 08 that a run of 09 rests on."""
    keys = run.manifest["upstream"][len(run.manifest["recipe"]["recordings"]) :]
    return [
        runs.read_run(store.folder(stages.STAGES[run.stage].needs, stages.COHORT, key))
        for key in keys
    ]


def subjects_of(run: Run) -> dict[str, str]:
    """Recording -> subject of a cohort, from its stored windows."""
    keys = zip(run.manifest["recipe"]["recordings"], run.manifest["upstream"], strict=False)
    return {r: lfp_windows.subject(store.folder(BIN, r, key)) for r, key in keys}


def recordings_of(run: Run) -> list[str]:
    """The recordings of a run: those of its cohort, or its own."""
    cohort = stages.STAGES[run.stage].cohort
    return run.manifest["recipe"]["recordings"] if cohort else [run.manifest["recording"]]
