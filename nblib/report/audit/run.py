"""What the audit reads of a run: its files, compared with their manifest before use."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from nblib.core import store
from nblib.data import sources
from nblib.prepare import blocks, splits, windows
from nblib.report import runs
from nblib.report.audit.again import Memory
from nblib.road import stages


class Shared:
    """What many runs rest on, read once: splits, their rows by role, manifests, and model answers."""

    def __init__(self):
        self.splits: dict[Path, tuple[pd.DataFrame, str]] = {}
        self.blocks: dict[Path, int] = {}
        self.roles: dict[tuple[Path, int], dict[str, frozenset]] = {}
        self.manifests: dict[Path, dict[str, Any]] = {}
        self.contents: dict[tuple[str, str], str] = {}
        self.answers = Memory()

    def split(self, folder: Path) -> tuple[pd.DataFrame, str]:
        """Rows of a stored split, and their hash."""
        if folder not in self.splits:
            outputs = self.manifest(folder)["outputs"]
            rows = pd.DataFrame(runs.stored_table(folder, splits.SPLIT_FILE, outputs))
            self.splits[folder] = rows, splits.split_hash(rows)
        return self.splits[folder]

    def block(self, folder: Path) -> int:
        """How many presentations of a stored split hang together in time (`blocks.time_blocks`)."""
        if folder not in self.blocks:
            self.blocks[folder] = blocks.time_blocks(self.split(folder)[0])[0]
        return self.blocks[folder]

    def rows(self, folder: Path, fold: int) -> dict[str, frozenset]:
        """Trials of each role in a fold of a stored split."""
        if (folder, fold) not in self.roles:
            split = self.split(folder)[0]
            part = split[split["fold"] == fold].groupby("role")["trial"]
            self.roles[folder, fold] = {role: frozenset(trials) for role, trials in part}
        return self.roles[folder, fold]

    def manifest(self, folder: Path) -> dict[str, Any]:
        """Manifest of an artifact that runs rest on."""
        if folder not in self.manifests:
            self.manifests[folder] = runs.Fields(
                folder / store.MANIFEST, store.read_manifest(folder)
            )
        return self.manifests[folder]


@dataclass(frozen=True)
class Run(runs.Run):
    """A run under audit, with what it shares with others."""

    shared: Shared = field(default_factory=Shared, repr=False)

    @classmethod
    def of(cls, run: runs.Run, shared: Shared) -> Run:
        return cls(run.folder, run.manifest, run.metrics, shared)

    @property
    def stage(self) -> str:
        return self.folder.parts[-3]

    @cached_property
    def split_folder(self) -> Path | None:
        """Where the run's split lies; None for a cohort, whose folds are of subjects."""
        if stages.STAGES[self.stage].upstream != "04_split":
            return None
        return store.folder("04_split", self.manifest["recording"], self.manifest["upstream"][0])

    @property
    def split(self) -> pd.DataFrame:
        """Rows of the stored split; MissingInput when it is gone, CorruptArtifact when changed."""
        return self.shared.split(self.split_folder)[0]

    @property
    def split_hash(self) -> str:
        """Hash of the stored split's rows."""
        return self.shared.split(self.split_folder)[1]

    def rows(self, role: str) -> frozenset:
        """Trials of one role in the run's fold."""
        return self.shared.rows(self.split_folder, self.metrics["fold"]).get(role, frozenset())

    def text(self, name: str) -> dict[str, Any]:
        """Fields of a JSON file of the run, compared with its manifest."""
        data = runs.stored_bytes(self.folder, name, self.manifest["outputs"])
        return runs.Fields(self.folder / name, json.loads(data))


def embedders(run: Run) -> list[Run]:
    """The runs of 08 that a run of 09 rests on."""
    keys = run.manifest["upstream"][len(run.manifest["recipe"]["recordings"]) :]
    folders = [store.folder("08_ssl_pretext", stages.COHORT, key) for key in keys]
    return [Run.of(runs.read_run(folder), run.shared) for folder in folders]


def subjects_of(run: Run) -> dict[str, str]:
    """Recording -> subject of a cohort, from its stored windows."""
    keys = zip(run.manifest["recipe"]["recordings"], run.manifest["upstream"], strict=False)
    return {r: windows.subject(store.folder("02_bin", r, key)) for r, key in keys}


def own_recordings(run: Run) -> list[str]:
    cohort = stages.STAGES[run.stage].cohort
    return run.manifest["recipe"]["recordings"] if cohort else [run.manifest["recording"]]


def content_of(run: Run, recording: str) -> str:
    """What a run's recording holds: the hash of its raw file, from the manifest of 01 (or 02).

    A simulated recording is known by its settings and its name. MissingInput when a step is gone.
    """
    source = run.manifest["recipe"]["source"]
    first = key = run.manifest["upstream"][own_recordings(run).index(recording)]
    known = run.shared.contents
    if (recording, first) not in known:
        for stage in reversed(stages.chain(run.stage, source)[:-1]):
            manifest = store.read_manifest(store.folder(stage, recording, key))
            key = runs.Fields(run.folder, manifest)["upstream"][0]
        known[recording, first] = f"{key} {recording}" if sources.is_simulated(source) else key
    return known[recording, first]
