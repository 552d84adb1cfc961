"""What the audit reads beside a run: the files that it rests on, compared with their manifest."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from nblib.core import store
from nblib.core.errors import StorageError
from nblib.data import sources
from nblib.data.counts_dataset import load as load_counts
from nblib.prepare import stored_splits
from nblib.prepare.decoder_inputs import Samples, role_samples, shuffle_labels
from nblib.prepare.potentials import stored_windows
from nblib.report import one_run
from nblib.report.audit.predicted_again import Answers, predict_again
from nblib.report.one_run import Run
from nblib.road import stages
from nblib.road.stage_registry import BIN, CLEAN, STAGES

VERSION = 1


class Files:
    """What many runs rest on, each read once in an audit.

    Answers of models are kept in the data root by what they rest on (weights, settings of the
    model, rows): later audits read them, as long as all of it stays.
    What is gone raises MissingInput, what changed since it was written CorruptArtifact.
    """

    def __init__(self):
        self.manifest = cache(read_manifest)
        self.split = cache(self._split)
        self.block = cache(lambda folder: stored_splits.time_blocks(self.split(folder)[0])[0])
        self._roles = cache(self._read_roles)
        self._content = cache(self._read_content)
        self.samples_of: tuple[Any, Any] = (None, None)  # those used last, and what they are of
        self.path, self.answered = store.home() / "cache" / "answers.json", {}
        self.n_known = 0
        # Without it, or when it was cut short, models are asked again.
        with contextlib.suppress(FileNotFoundError, ValueError):
            self.answered = json.loads(self.path.read_text(encoding="utf-8"))
            self.n_known = len(self.answered)

    def _split(self, folder: Path) -> tuple[pd.DataFrame, str]:
        """Rows of a stored split, and their hash."""
        outputs = self.manifest(folder)["outputs"]
        rows = pd.DataFrame(one_run.stored_table(folder, stored_splits.SPLIT_FILE, outputs))
        return rows, stored_splits.split_hash(rows)

    def rows(self, run: Run, role: str) -> frozenset:
        """Trials of one role in the run's fold."""
        return self._roles(run.split, run.metrics["fold"]).get(role, frozenset())

    def _read_roles(self, folder: Path, fold: int) -> dict[str, frozenset]:
        split = self.split(folder)[0]
        by_role = split[split["fold"] == fold].groupby("role")["trial"]
        return {role: frozenset(trials) for role, trials in by_role}

    def content(self, run: Run, recording: str) -> str:
        """What a recording of the run holds: the hash of its raw file, from the manifest of 01 (or 02).

        A simulated recording is known by its settings and its name.
        """
        key = run.manifest["upstream"][run.recordings.index(recording)]
        return self._content(run.stage, run.manifest["recipe"]["source"], recording, key)

    def _read_content(self, stage: str, source: str, recording: str, key: str) -> str:
        for step in reversed(stages.chain(stage, source)[:-1]):
            key = self.manifest(store.folder(step, recording, key))["upstream"][0]
        return f"{key} {recording}" if sources.is_simulated(source) else key

    def answers(self, run: Run, role: str) -> Answers:
        """Of a run's model, asked again, on the rows of one role of its split and fold.

        Raises what opening the split, the counts or the model raises.
        """
        parameters, outputs = run.manifest["parameters"], run.manifest["outputs"]
        rests_on = (
            VERSION, run.stage, STAGES[run.stage].version, run.manifest["recording"],
            run.manifest["upstream"], self.split(run.split)[1], run.metrics["fold"], role,
            parameters["seed"] if parameters.get("shuffle_labels") else None,
            outputs["weights.safetensors"]["sha256"], outputs["config.json"]["sha256"],
        )  # fmt: skip
        key = hashlib.sha256(repr(rests_on).encode()).hexdigest()[:32]
        if key not in self.answered:
            self.answered[key] = asdict(predict_again(run, self._samples(run)[role]))
        return Answers(**self.answered[key])

    def _samples(self, run: Run) -> dict[str, Samples]:
        """Samples of each role of a run's split and fold, labels shuffled where the run did so."""
        parameters, fold = run.manifest["parameters"], run.metrics["fold"]
        seed = parameters["seed"] if parameters.get("shuffle_labels") else None
        wanted = (run.split, fold, seed)
        if self.samples_of[0] != wanted:
            self.samples_of = (None, None)  # first free the memory
            roles, fitted = stored_splits.load_fold(store.open_artifact(wanted[0]), fold)
            key = self.manifest(wanted[0])["upstream"][0]
            counts = store.folder(CLEAN, run.manifest["recording"], key)
            samples = role_samples(load_counts(store.open_artifact(counts)), roles, fitted, fold)
            self.samples_of = wanted, samples if seed is None else shuffle_labels(samples, seed)
        return self.samples_of[1]

    def keep_answers(self) -> None:
        """Write down what was asked anew; a data root that cannot be written forgets it."""
        if len(self.answered) > self.n_known:
            with contextlib.suppress(StorageError):  # costs the next audit time, nothing else
                store.write_text(self.path, json.dumps(self.answered))


def read_manifest(folder: Path) -> dict[str, Any]:
    """Manifest of an artifact that runs rest on."""
    return one_run.Fields(folder / store.MANIFEST, store.read_manifest(folder))


def embedders(run: Run) -> list[Run]:
    """The runs of 08 that a run of 09 rests on."""
    keys = run.manifest["upstream"][len(run.manifest["recipe"]["recordings"]) :]
    return [
        one_run.read_run(store.folder(STAGES[run.stage].needs, stages.COHORT, key)) for key in keys
    ]


def subjects_of(run: Run) -> dict[str, str]:
    """Recording -> subject of a cohort, from its stored windows."""
    keys = zip(run.manifest["recipe"]["recordings"], run.manifest["upstream"], strict=False)
    return {r: stored_windows.subject(store.folder(BIN, r, key)) for r, key in keys}
