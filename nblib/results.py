"""Run folders become one table, and a run folder becomes a model again. Nothing is typed in."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nblib import params, recipes, stages, stats, store
from nblib.errors import BadInput, BadParameter, CorruptArtifact, MissingInput, NblibError
from nblib.metrics import METRICS, PREDICTIONS

if TYPE_CHECKING:
    import xarray as xr

    from nblib.models.base import Decoder
    from nblib.splits import TrainStatistics

HISTORY = "history.parquet"
SHOWN = (
    "notebook", "recipe", "recording", "model", "fold", "seed", "variant", "value", "ci_low", "ci_high",
    "chance", "p", "oracle", "n_test", "key", "flag",
)  # fmt: skip
COLUMNS = {
    "notebook": str, "group": str, "recipe": str, "base": str, "changed": str, "recording": str,
    "model": str, "fold": int, "seed": int, "variant": str,
    "accuracy": float, "val_accuracy": float, "top5": float, "balanced_accuracy": float,
    "value": float, "ci_low": float, "ci_high": float, "chance": float, "p": float,
    "oracle": float, "oracle_low": float, "oracle_high": float,
    "n_train": int, "n_val": int, "n_test": int, "n_classes": int, "n_units": int, "n_bins": int,
    "fit_s": float, "peak_gpu_bytes": int, "split_hash": str, "key": str, "folder": str,
    "created": str, "code_version": str, "host": str, "edited": bool, "executed": bool, "flag": str,
}  # fmt: skip
ALWAYS = ("accuracy", "top5", "balanced_accuracy")
SCORE_FIELDS = ("value", "ci_low", "ci_high", "chance", "p")
MANIFEST_FIELDS = ("created", "code_version", "host", "peak_gpu_bytes")
# Parameters that name a run or say how to work; the others, where they differ from the default,
# make its `variant`.
NOT_A_VARIANT = {
    "recipe", "recording", "model", "fold", "seed", "device", "threads", "logger",
    "n_permutations", "n_bootstrap", "importance", "areas",
}  # fmt: skip
SAME = ["notebook", "recipe", "recording", "model", "fold", "seed", "variant", "split_hash"]
# Notebooks whose runs are whole decoders, trained on all train rows: what may be compared.
DECODERS = ("05_train_lstm", "06_train_st_gat")


def scan(recipe: str = "", metric: str = "accuracy") -> pd.DataFrame:
    """One row for each result in the data root, sorted; `value` is the score asked for.

    A run of 05 or 06 is one row; one of 07 or 10 has a row for each of its results. `base` is the
    recipe that a derived one came from; asking for a recipe asks for those derived from it too.
    `group` is that recipe with the changed settings of the split, if any: runs of one group and
    recording were judged alike. `changed` holds the other settings that were changed.
    `flag` says what must not be averaged silently: "corrupt" (bytes changed; no scores shown),
    "old split" (made from another split than the recipe gives now), "edited notebook", and
    "duplicate of KEY" (same recipe, recording, model, fold, seed, variant and split as a newer
    run, which stands for both).
    Scores are fractions, `fit_s` seconds. Raises BadParameter for a metric no run knows.
    """
    rows = []
    for folder in store.artifacts():
        if stages.STAGES.get(folder.parts[-3]) and stages.STAGES[folder.parts[-3]].is_run:
            found = _rows(folder, metric)
            rows += [row for row in found if recipe in ("", row["recipe"], row["base"])]
    table = pd.DataFrame(rows, columns=[*COLUMNS, "_upstream"])
    _flag(table)
    known = table["flag"] != "corrupt"
    if known.any() and table.loc[known, "value"].isna().all():
        raise BadParameter(f"metric {metric!r}: no run has that score.")
    order = [
        "group",
        "recipe",
        "recording",
        "notebook",
        "model",
        "variant",
        "fold",
        "seed",
        "created",
        "key",
    ]
    table = table.drop(columns="_upstream").sort_values(order, ignore_index=True)
    return table.astype({k: t for k, t in COLUMNS.items() if t in (bool, float)})


def clean(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a scan that may be averaged: those without a flag."""
    return table[table["flag"] == ""]


def comparable(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that stand for a decoder at its best: no flag, no shuffled labels, all train rows."""
    fair = clean(table)
    control = fair["variant"].str.contains("shuffle_labels", na=False).astype(bool)
    return fair[~control & fair["notebook"].isin(DECODERS)]


def _rows(folder: Path, metric: str) -> list[dict[str, Any]]:
    """The results of one run; none for a run without metrics (a report)."""
    stage, recording, key = folder.parts[-3:]
    row = {name: None for name in COLUMNS} | {
        "notebook": stage, "recording": recording, "key": key, "folder": str(folder), "flag": "",
        "_upstream": "", "edited": False, "executed": (folder / store.ATTACHED[0]).is_file(),
        "variant": "", "changed": "",
    }  # fmt: skip
    try:
        manifest = store.read_manifest(folder)
        if METRICS not in manifest["outputs"]:
            return []
        row |= _recipe(manifest["recipe"] or {})
        if store.sha256(folder / METRICS) != manifest["outputs"][METRICS]["sha256"]:
            raise CorruptArtifact(f"{folder / METRICS}: its bytes changed since it was written.")
        told = json.loads((folder / METRICS).read_text(encoding="utf-8"))
        row |= {name: manifest[name] for name in MANIFEST_FIELDS}
        row["edited"] = bool(manifest["notebook"]["edited"])
        row["_upstream"] = manifest["upstream"][0]
        variant = _variant(stage, manifest["parameters"])
        return [row | _result(told | one, metric, variant) for one in told.get("rows", [{}])]
    except (NblibError, OSError, ValueError, KeyError, TypeError):
        row["flag"] = "corrupt"
        row |= {name: row[name] or "" for name in ("recipe", "base", "group")}
        return [row]


def _result(metrics: dict[str, Any], metric: str, variant: str) -> dict[str, Any]:
    """What one result adds to the row of its run."""
    scores = metrics["scores"]
    found = {n: metrics[n] for n in COLUMNS if n in metrics and n not in ("oracle", "recipe")}
    found |= {name: scores[name]["value"] for name in ALWAYS if name in scores}
    found |= {name: scores.get(metric, {}).get(name) for name in SCORE_FIELDS}
    found |= _oracle(metrics, metric)
    found["variant"] = ", ".join(filter(None, [metrics.get("variant"), variant]))
    found["model"] = metrics["model"]
    return found


def _recipe(recipe: dict[str, Any]) -> dict[str, str]:
    """The recipe's name, that of the recipe it was derived from, and what differs between them."""
    name = recipe.get("recipe", "")
    base = re.sub(r"-[0-9a-f]{8}$", "", name)
    try:
        other = recipe if base == name else store.plain(recipes.find_recipe(base).model_dump())
    except BadParameter:  # gone: the derived one stands for itself
        base, other = name, recipe
    changed = {k: v for k, v in recipe.items() if k != "recipe" and v != other.get(k)}
    text = {k: f"{k}={json.dumps(v)}" for k, v in changed.items()}
    split = ", ".join(t for k, t in text.items() if k in params.SplitSettings.model_fields)
    others = ", ".join(t for k, t in text.items() if k not in params.SplitSettings.model_fields)
    group = f"{base} ({split})" if split else base
    return {"recipe": name, "base": base, "group": group, "changed": others}


def _oracle(metrics: dict[str, Any], metric: str) -> dict[str, float]:
    """Score of the best possible decoder, where the truth is known."""
    score = (metrics.get("oracle") or {}).get(metric) or {}
    named = {"oracle": "value", "oracle_low": "ci_low", "oracle_high": "ci_high"}
    return {name: score.get(field) for name, field in named.items()}


def _variant(stage: str, given: dict[str, Any]) -> str:
    """What differs from the notebook's defaults, as text: 'max_epochs=3, shuffle_labels=True'."""
    fields = stages.STAGES[stage].params.model_fields
    changed = {
        name: value
        for name, value in given.items()
        if name in fields and name not in NOT_A_VARIANT and value != fields[name].default
    }
    return ", ".join(f"{name}={json.dumps(value)}" for name, value in sorted(changed.items()))


def _flag(table: pd.DataFrame) -> None:
    """Fill in `flag`: several words are joined by a comma."""
    words: dict[int, list[str]] = {i: [flag] if flag else [] for i, flag in table["flag"].items()}
    sound = table[table["flag"] == ""]
    single = sound[sound["recording"] != stages.COHORT]  # folds by subject are part of the run
    for (recipe, recording), part in single.groupby(["recipe", "recording"]):
        current = _current_split(recipe, recording)
        if current is not None:
            old = part["_upstream"] != current
        else:  # the recipe is gone: what was made last stands for it
            old = part["split_hash"] != part.sort_values("created")["split_hash"].iloc[-1]
        for i in part.index[old]:
            words[i].append("old split")
    for i in sound.index[sound["edited"].astype(bool)]:
        words[i].append("edited notebook")
    for _, same in sound.groupby(SAME, dropna=False):
        # The newest stands for all; one without another flag goes before one that has some.
        first = sorted(same.index, key=lambda i: (not words[i], same["created"][i]))[-1]
        for i in same.index.drop(first):
            words[i].append(f"duplicate of {same['key'][first][:8]}")
    table["flag"] = pd.Series({i: ", ".join(w) for i, w in words.items()}, dtype=object)


def _current_split(recipe: str, recording: str) -> str | None:
    """Key of the split that the recipe gives today; None when that cannot be told any more."""
    try:
        return stages.key_for("04_split", recipes.find_recipe(recipe), recording)
    except (BadParameter, MissingInput, BadInput):
        return None


def against(metrics: dict[str, Any], predictions: pd.DataFrame, other: str) -> Paired | None:
    """A run beside the stored run of `other`: the very same input, split, fold and seed, defaults.

    metrics: recipe, recording, split_hash, fold and seed of the run at hand; predictions: its
    table, one row a test presentation. The difference is right minus right, presentation by
    presentation. None when there is no such run, or the run at hand is a control.
    """
    if metrics["shuffle_labels"]:
        return None
    runs = clean(scan(metrics["recipe"]))
    same = (runs["model"] == other) & (runs["variant"] == "") & (runs["notebook"] == DECODERS[0])
    # The recipe to the letter: one derived from it has other bins, units or scaling.
    for name in ("recipe", "recording", "split_hash", "fold", "seed"):
        same &= runs[name] == metrics[name]
    if not same.any():
        return None
    run = load_run(runs.loc[same, "folder"].iloc[-1])
    both = predictions.merge(run.predictions, on="trial", suffixes=("", "_other"))
    if len(both) != len(predictions):
        raise CorruptArtifact(
            f"{run.folder}: its predictions are of other test presentations than its split says."
        )
    right, right_other = both["correct"].to_numpy(float), both["correct_other"].to_numpy(float)
    difference = stats.paired_difference(right, right_other, seed=metrics["seed"])
    return Paired(other, run.key, right_other.mean(), difference)


@dataclass(frozen=True)
class Paired:
    """A decoder beside another one, `other`, on the same test presentations."""

    other: str
    key: str
    accuracy: float
    difference: stats.PairedDifference

    def in_words(self, model: str) -> str:
        """What the comparison says, in a sentence."""
        d = self.difference
        verdict = "no difference that these presentations could show"
        if d.ci_low > 0 and d.p < 0.05:  # interval and test must agree
            verdict = f"{model} is right more often"
        elif d.ci_high < 0 and d.p < 0.05:
            verdict = f"{self.other} is right more often"
        return (
            f"Beside `{self.other}` ({self.accuracy:.1%}, run {self.key[:8]}) on the same {d.n:,} test "
            f"presentations: {d.value:+.1%} (95 % interval {d.ci_low:+.1%} to {d.ci_high:+.1%}, "
            f"p = {d.p:.2g}): {verdict}."
        )


def against_in_words(
    stage: stages.Stage, metrics: dict[str, Any], predictions: pd.DataFrame, other: str
) -> str:
    """`against` in a sentence, or how to get there when there is no such run."""
    if metrics["shuffle_labels"]:
        return "Labels are shuffled: this control is compared with nothing."
    beside = against(metrics, predictions, other)
    if beside is not None:
        return beside.in_words(metrics["model"])
    more = "".join(f" -p {k} {metrics[k]}" for k in ("fold", "seed") if metrics[k])
    return (
        f"There is no run of `{other}` on this input and split to compare with; make it with "
        f"`nblib run 05_train_lstm -p recipe {stage.recipe_name} "
        f"-p recording {metrics['recording']} -p model {other}{more}`."
    )


# --- one run -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """A finished training run: its scores, its predictions, and its model, ready to predict."""

    folder: Path
    manifest: dict[str, Any]
    metrics: dict[str, Any]

    @property
    def key(self) -> str:
        return self.manifest["key"]

    @cached_property
    def config(self) -> dict[str, Any]:
        """The model's name, hyper-parameters and shape."""
        return json.loads(self._file("config.json").read_text(encoding="utf-8"))

    def _file(self, name: str) -> Path:
        """A file of the run; MissingInput for a run of 07, 09 or 10, which holds other things."""
        if name not in self.manifest["outputs"]:
            there = ", ".join(sorted(self.manifest["outputs"]))
            raise MissingInput(f"{self.folder}: this run has no {name}; it holds {there}.")
        return self.folder / name

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """One row a test presentation: trial, label, predicted, correct, rank, log_p_true."""
        return pd.read_parquet(self._file(PREDICTIONS))

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row an epoch: train_loss, val_loss [nats], val_accuracy [fraction]."""
        return pd.read_parquet(self._file(HISTORY))

    @cached_property
    def recipe(self) -> params.Recipe:
        values = _numbers(self.manifest["recipe"])
        return params.checked(params.Recipe, values, str(self.folder / store.MANIFEST))

    @cached_property
    def statistics(self) -> TrainStatistics:
        """Kept units, scaler and classes, fitted on this run's train rows; from its split."""
        from nblib import splits

        recording, key = self.manifest["recording"], self.manifest["upstream"][0]
        place = store.folder("04_split", recording, key)
        if not store.is_committed("04_split", recording, key):
            raise MissingInput(
                f"run {self.key} scales its input as its split {place} says, which is gone. Make "
                "it again with:  nblib run 04_split --with-upstream "
                f"-p recipe {self.recipe.recipe} -p recording {recording}"
            )
        _, statistics = splits.load(store.open_artifact(place))
        return next(s for s in statistics if s.fold == self.metrics["fold"])

    @cached_property
    def model(self) -> Decoder:
        """The fitted decoder."""
        from nblib import models

        return models.load(self.folder)

    @property
    def classes(self) -> np.ndarray:
        """Labels in the order of the columns of `predict_log_proba`, (C,)."""
        return self.statistics.classes

    def predict_log_proba(
        self, x: xr.Dataset | np.ndarray, unit_ids: np.ndarray | None = None
    ) -> np.ndarray:
        """Log-probability of each class, (B, C) [nats].

        x: a binned Dataset, or counts (B, T, U) with the ids (U,) of their units. The counts are
        raw: the stored train statistics choose and scale the units. Raises BadInput when a unit
        or bin of the training data is missing.
        """
        if hasattr(x, "counts"):
            counts = x.counts.transpose("trial", "time", "unit").to_numpy()
            unit_ids = x.unit.to_numpy()
        else:
            counts = np.asarray(x)
            if unit_ids is None or counts.ndim != 3 or counts.shape[2] != len(unit_ids):
                told = "no unit_ids" if unit_ids is None else f"{len(unit_ids)} unit_ids"
                raise BadInput(
                    f"counts of shape {counts.shape} with {told}: expected (presentations, bins, "
                    "units) and one id for each unit."
                )
        return self.model.predict_log_proba(self.statistics.transform(counts, np.asarray(unit_ids)))

    def predict(self, x: xr.Dataset | np.ndarray, unit_ids: np.ndarray | None = None) -> np.ndarray:
        """Most probable label of each presentation, (B,); input as in `predict_log_proba`."""
        return self.classes[self.predict_log_proba(x, unit_ids).argmax(axis=1)]


def load_run(run: str | Path) -> Run:
    """A run by its folder or by its key (or a unique beginning of it, 4 digits or more).

    Every file is checked against the manifest: CorruptArtifact for changed bytes, MissingInput
    when there is no such run, BadParameter when the beginning fits several.
    """
    folder = Path(run).expanduser()
    if not folder.is_dir():
        folder = _by_key(str(run))
    store.open_artifact(folder)
    manifest = store.read_manifest(folder)
    if METRICS not in manifest["outputs"]:
        raise BadInput(f"{folder}: an artifact of {manifest['stage']}, not a run (no {METRICS}).")
    metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    return Run(folder, manifest, metrics)


def _by_key(key: str) -> Path:
    runs = [f for f in store.artifacts() if (f / METRICS).is_file() and len(key) >= 4]
    found = [f for f in runs if f.name.startswith(key)]
    if not found:
        raise MissingInput(
            f"no run {key!r} in {store.home()}; `nblib results` lists the runs there are."
        )
    if len({f.name for f in found}) > 1:
        names = ", ".join(f.name for f in found)
        raise BadParameter(f"run {key!r} could be {names}; give more digits.")
    return found[0]


def _numbers(value: Any) -> Any:
    """Undo JSON's lack of infinity in a stored recipe."""
    if isinstance(value, dict):
        return {k: _numbers(v) for k, v in value.items()}
    return float(value) if value in ("inf", "-inf") else value
