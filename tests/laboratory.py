"""A project with committed recordings, splits and runs, made as the notebooks make them, in no time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import tiny_project

from nblib import models
from nblib.core import integrity, params, recipes, store
from nblib.data import counts_dataset as stored_counts
from nblib.data.files import hashes
from nblib.evaluate import scores
from nblib.experiments import decode
from nblib.prepare import binning, split_roles, stored_splits, train_statistics
from nblib.prepare.decoder_inputs import role_samples, shuffle_labels
from nblib.report.one_run import HISTORY
from nblib.road import stages

N_TRIALS, N_UNITS = 120, 5


def binned_counts(recording: str = "000021"):
    """Three classes that a linear decoder tells apart; string unit ids."""
    rng = np.random.default_rng(0)
    label = np.arange(N_TRIALS) % 3
    rate = np.eye(3)[label] @ rng.uniform(0, 1.6, (3, N_UNITS))  # (trial, unit)
    counts = rng.poisson(rate[:, None, :], (N_TRIALS, 2, N_UNITS)).astype(np.uint8)
    start = np.arange(N_TRIALS) * 0.25
    units = pd.DataFrame(index=pd.Index([f"u{i}" for i in range(N_UNITS)], name="unit_id"))
    attrs = dict.fromkeys(("subject", "label_name", "source"), "a") | {"classes": '["0", "1", "2"]'}
    return stored_counts.build(
        counts, np.arange(N_TRIALS), label, binning.presentation_edges(start, start + 0.25, 2), units,
        attrs=attrs | {"binning": "{}", "recording": recording},
    )  # fmt: skip


class Laboratory:
    """Commits splits and runs as the notebooks do."""

    def __init__(self, project: tiny_project.Project, recipe: str = "tiny"):
        self.project = project
        self.recipe = recipes.find_recipe(recipe)
        self.binned = binned_counts()

    def split(self, recipe: params.Recipe, recording: str = "000021") -> str:
        """Commit 01 to 04 of a recording; the key of its split."""
        upstream = ""
        for stage in ("01_ingest", "02_bin", "03_clean", "04_split"):
            key = stages.key_for(stage, recipe, recording)
            parents = [upstream or hashes.file_hash(recipe.file(recording))]
            write = {"03_clean": self._write_counts(recording), "04_split": self._write_split(recipe, recording)}  # fmt: skip
            store.commit(stage, recording, key, write.get(stage, lambda f: None), params={}, upstream=parents)  # fmt: skip
            upstream = key
        return upstream

    def _write_counts(self, recording):
        return lambda folder: stored_counts.save(binned_counts(recording), folder)

    def _write_split(self, recipe, recording):
        def write(folder):
            binned, settings = binned_counts(recording), recipe.settings(params.SplitSettings)
            split = split_roles.make_split(binned, settings)
            folds = range(settings.n_folds)
            statistics = [
                train_statistics.fit_statistics(binned, split, fold, settings) for fold in folds
            ]
            stored_splits.save(folder, split, statistics)

        return write

    def run(
        self, *, recipe=None, recording="000021", code="shipped", edited=False, accuracy=0.9,
        val_accuracy=None, oracle=None, val="val", recipe_given="", **given,
    ) -> Path:  # fmt: skip
        """Commit a fitted run of 05 that says it scored `accuracy`; its folder.

        val: the role on which it chooses, and `val_accuracy` what it says that it scored there: for
        the faults that an audit must find. recipe_given: how the recipe was named, its name.
        """
        recipe = recipe or self.recipe
        given = {"model": "logistic"} | given
        asked = decode.Params(recipe=recipe_given or recipe.recipe, recording=recording, **given)
        split_key = self.split(recipe, recording)
        split, statistics = stored_splits.load(store.folder("04_split", recording, split_key))
        binned = binned_counts(recording)
        samples = role_samples(binned, split, statistics[asked.fold], asked.fold)
        if asked.shuffle_labels:
            samples = shuffle_labels(samples, asked.seed)
        model = models.make(asked.model, asked.model_params)
        train, judge = samples["train"], samples[val]
        model.set_params(settings=asked)
        model.fit(train.x, train.y, (judge.x, judge.y), n_classes=3, refit=asked.refit)
        history = model.history_
        score = scores.Score(accuracy, accuracy - 0.1, accuracy + 0.05, 1 / 3, 0.001, 24)
        right = (model.predict(samples["val"].x) == samples["val"].y).mean()
        if asked.refit:
            right = history["val_accuracy"][model.fitted["best_epoch"]]
        chosen = float(right) if val_accuracy is None else val_accuracy
        told = {
            "notebook": "05_train_lstm", "recipe": recipe.recipe, "recording": recording,
            "model": asked.model, "fold": asked.fold, "seed": asked.seed,
            "split_hash": stored_splits.split_hash(split), "val_accuracy": chosen,
            **{f"n_{role}": len(samples[role]) for role in ("train", "val", "test")},
            "n_classes": 3, "n_units": N_UNITS, "n_bins": 2, "fit_s": 0.5, "oracle": oracle,
            "scores": {"accuracy": score, "top5": score},
        }  # fmt: skip

        def write(folder):
            model.save(folder)
            scores.write_metrics(folder, told)
            log_proba = model.predict_log_proba(samples["test"].x)
            classes = statistics[asked.fold].classes
            table = scores.predictions(samples["test"], log_proba, classes)
            table.to_parquet(folder / scores.PREDICTIONS)
            history.to_parquet(folder / HISTORY, index=False)

        key = stages.key_for("05_train_lstm", recipe, recording, asked, code)
        extra = {"recipe": recipe.model_dump(), "notebook": {"code_hash": code, "edited": edited}}
        made = stages.made_of("05_train_lstm", recipe, recording, asked, code)
        extra |= {"stage_version": stages.STAGES["05_train_lstm"].version, "in_key": made.values}
        return store.commit(
            "05_train_lstm", recording, key, write, params=asked.model_dump(), upstream=[split_key],
            seed=asked.seed, extra=extra,
        )  # fmt: skip


def rewrite(folder: Path, name: str, table: pd.DataFrame) -> None:
    """Change a stored table so that its manifest vouches for it: a fault as code would make it."""
    table.to_parquet(folder / name, index=False)
    vouch(folder, name)


def reseal(folder: Path, manifest: dict) -> None:
    """Write a manifest with a checksum that fits."""
    (folder / store.MANIFEST).write_text(integrity.dump_sealed({**manifest, "sha256": ""}))


def vouch(folder: Path, name: str) -> None:
    """Record a file's present bytes in its manifest."""
    manifest = store.read_manifest(folder)
    path = folder / name
    manifest["outputs"][name] = {"sha256": integrity.sha256(path), "bytes": path.stat().st_size}
    reseal(folder, manifest)


def change_metrics(folder: Path, **changed) -> None:
    """Change what a run says of itself, so that its manifest vouches for it."""
    told = json.loads((folder / scores.METRICS).read_text())
    (folder / scores.METRICS).write_text(json.dumps(told | changed))
    vouch(folder, scores.METRICS)


def change_manifest(folder: Path, **changed) -> None:
    """Change fields of a manifest."""
    manifest = store.read_manifest(folder)
    reseal(folder, manifest | changed)
