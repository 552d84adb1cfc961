"""What the audit reads of a run: its files, compared with their manifest before use."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from nblib import results, signals, splits, stages, store
from nblib.errors import CorruptArtifact, MissingInput


@dataclass(frozen=True)
class Run:
    """What the audit reads of a run; files are compared with their manifest before use."""

    folder: Path
    manifest: dict[str, Any]
    metrics: dict[str, Any]
    known: dict[Path, tuple[pd.DataFrame, str]] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, folder: Path, known: dict | None = None) -> Run:
        """A run by its folder; CorruptArtifact for changed bytes. `known`: splits read already."""
        manifest = store.read_manifest(folder)
        told = results.results_of(folder, manifest)[0]
        return cls(folder, manifest, told, {} if known is None else known)

    @property
    def stage(self) -> str:
        return self.manifest["stage"]

    @property
    def recipe(self) -> dict[str, Any]:
        return self.manifest["recipe"]

    @property
    def split_folder(self) -> Path | None:
        """Where the run's split lies; None for a cohort, whose folds are of subjects."""
        if stages.STAGES[self.stage].upstream != "04_split":
            return None
        return store.folder("04_split", self.manifest["recording"], self.manifest["upstream"][0])

    @property
    def split(self) -> pd.DataFrame:
        """Rows of the stored split; MissingInput when it is gone, CorruptArtifact when changed."""
        return self._known_split[0]

    @property
    def split_hash(self) -> str:
        """Hash of the stored split's rows."""
        return self._known_split[1]

    @property
    def _known_split(self) -> tuple[pd.DataFrame, str]:
        if self.split_folder not in self.known:
            rows = pd.read_parquet(sound(self.split_folder, splits.SPLIT_FILE))
            self.known[self.split_folder] = rows, splits.split_hash(rows)
        return self.known[self.split_folder]

    def table(self, name: str) -> pd.DataFrame | None:
        """A table of the run; None where a run of this kind holds none."""
        return pd.read_parquet(sound(self.folder, name)) if name in self.manifest["outputs"] else None  # fmt: skip

    def rows(self, role: str) -> set:
        """Trials of one role in the run's fold."""
        mine = self.split[(self.split["fold"] == self.metrics["fold"]) & (self.split["role"] == role)]  # fmt: skip
        return set(mine["trial"])


def sound(folder: Path, name: str) -> Path:
    outputs = store.read_manifest(folder)["outputs"]
    if name not in outputs or not (folder / name).is_file():
        raise MissingInput(f"{folder / name}: the file is gone.")
    if store.sha256(folder / name) != outputs[name]["sha256"]:
        raise CorruptArtifact(f"{folder / name}: its bytes changed since it was written.")
    return folder / name


def embedders(run: Run) -> list[Run]:
    """The runs of 08 that a run of 09 rests on."""
    keys = run.manifest["upstream"][len(run.recipe["recordings"]) :]
    return [Run.read(store.folder("08_ssl_pretext", stages.COHORT, key)) for key in keys]


def subjects_of(run: Run) -> dict[str, str]:
    """Recording -> subject of a cohort, from its stored windows."""
    keys = zip(run.recipe["recordings"], run.manifest["upstream"], strict=False)
    return {r: signals.subject(store.folder("02_bin", r, key)) for r, key in keys}


def own_recordings(run: Run) -> list[str]:
    cohort = stages.STAGES[run.stage].cohort
    return run.recipe["recordings"] if cohort else [run.manifest["recording"]]


def content_of(run: Run, recording: str) -> str:
    """What a run's recording holds: the hash of its raw file, from the manifest of 01 (or 02).

    A simulated recording is known by its settings and its name. MissingInput when a step is gone.
    """
    at = own_recordings(run).index(recording)
    key = run.manifest["upstream"][at]
    for stage in reversed(stages.chain(run.stage, run.recipe["source"])[:-1]):
        key = store.read_manifest(store.folder(stage, recording, key))["upstream"][0]
    return f"{key} {recording}" if run.recipe["source"].startswith("simulate") else key
