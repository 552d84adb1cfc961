"""Run folders become one table. Nothing is typed in."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import Field

from nblib.core import params, recipes, store
from nblib.core import params as P
from nblib.core.errors import (
    BadInput,
    BadParameter,
    CorruptArtifact,
    MissingInput,
    NblibError,
    OutdatedArtifact,
    some,
)
from nblib.evaluate import stats
from nblib.report.runs import Run, load_run, read_run
from nblib.road import stages


class Params(P.ReportParams):
    """Parameters of 90_results."""

    recipe: str = Field("", description="show one recipe only; empty = every run")
    metric: Literal["accuracy", "top5", "balanced_accuracy"] = Field(
        "accuracy", description="score to compare"
    )


COLUMNS = {
    "notebook": str, "group": str, "recipe": str, "base": str, "changed": str, "recording": str,
    "model": str, "fold": int, "seed": int, "variant": str,
    "accuracy": float, "val_accuracy": float, "top5": float, "balanced_accuracy": float,
    "metric": str, "value": float, "ci_low": float, "ci_high": float, "chance": float, "p": float,
    "oracle": float, "oracle_low": float, "oracle_high": float,
    "n_train": int, "n_val": int, "n_test": int, "n_classes": int, "n_units": int, "n_bins": int,
    "fit_s": float, "peak_gpu_bytes": int, "split_hash": str, "key": str, "folder": str,
    "created": str, "code_version": str, "stage_version": int, "host": str, "wall_s": float,
    "edited": bool, "executed": bool, "result": int, "run": str, "flag": str,
}  # fmt: skip
ALWAYS = ("accuracy", "top5", "balanced_accuracy")
SCORE_FIELDS = ("value", "ci_low", "ci_high", "chance", "p")
MANIFEST_FIELDS = ("created", "code_version", "host", "wall_s", "peak_gpu_bytes")
# Parameters that name a run or say how to work; the others, where they differ from the default,
# make its `variant`.
NOT_A_VARIANT = {
    "recipe", "recording", "model", "fold", "seed", "device", "threads", "logger",
    "n_permutations", "n_bootstrap", "importance", "areas",
}  # fmt: skip
WITHOUT_SCORES = ("corrupt", "earlier nblib")  # flags of runs that cannot be read
ORDER = ["group", "recipe", "recording", "notebook", "model", "variant", "fold", "seed", "created", "key"]  # fmt: skip
SAME = ["notebook", "recipe", "recording", "model", "fold", "seed", "variant", "split_hash"]
# Notebooks whose runs are whole decoders, trained on all train rows: what may be compared.
DECODERS = ("05_train_lstm", "06_train_st_gat")


@dataclass(frozen=True)
class Unreadable:
    """A run whose files cannot be read: what reading raised, and its recipe where that is known."""

    folder: Path
    error: Exception
    recipe: dict[str, Any]


def read_all() -> list[Run | Unreadable]:
    """Every run of the data root, each read once; reports, which hold no scores, are left out."""
    found: list[Run | Unreadable] = []
    for folder in store.artifacts():
        stage = stages.STAGES.get(folder.parts[-3])
        if stage is None or not stage.is_run or stage.upstream is None:
            continue
        try:
            found.append(read_run(folder))
        except (NblibError, OSError) as error:
            found.append(Unreadable(folder, error, _recipe_of(folder)))
    return found


def _recipe_of(folder: Path) -> dict[str, Any]:
    try:
        return store.read_manifest(folder).get("recipe") or {}
    except (NblibError, OSError):
        return {}


def scan(recipe: str = "", metric: str = "accuracy") -> pd.DataFrame:
    """`table_of` all runs, or those of one recipe, a name or a path, and of recipes derived from it.

    Raises BadParameter for a metric that no run knows, and for a recipe that neither has a run nor
    is there.
    """
    return table_of(read_all(), recipe, metric)


def table_of(
    runs: list[Run | Unreadable], recipe: str = "", metric: str = "accuracy"
) -> pd.DataFrame:
    """One row for each result of these runs, sorted; `value` is the score asked for.

    A run that has no such score shows its own first one; `metric` says which it is.
    A run of 05 or 06 is one row; one of 07, 09 or 10 has a row for each of its results. `base` is the
    recipe that a derived one came from.
    `group` is that recipe with the changed settings of the split, if any: runs of one group and
    recording were judged alike. `changed` holds the other settings that were changed.
    `flag` says what must not be averaged silently: "corrupt" (bytes changed; no scores shown),
    "earlier nblib" (without the checksum that tells changed bytes; no scores shown),
    "old split" (made from another split than the recipe gives now), "old code" (made by another
    version of its stage than there is now), "edited notebook", and "duplicate of KEY" (same
    recipe, recording, model, fold, seed, variant and split as a newer run, which stands for both).
    `result` numbers the results of a run; `run` is recording/key, since simulated recordings of one
    cohort share their keys.
    Scores are fractions, `fit_s` seconds. Raises BadParameter as `scan` does.
    """
    given = [run.manifest["parameters"].get("recipe", "") for run in runs if isinstance(run, Run)]
    bases = recipes.Known(given)
    rows = [row for run in runs for row in _rows(run, metric, bases)]
    table = pd.DataFrame(rows, columns=[*COLUMNS, "_upstream"])
    table = table[_of_recipe(table, recipe)].reset_index(drop=True)
    _flag(table, bases)
    known = table["metric"].notna()
    if metric not in ALWAYS and known.any() and not (table["metric"] == metric).any():
        raise BadParameter(f"metric {metric!r}: no run has that score.")
    table = table.drop(columns="_upstream").sort_values(ORDER, ignore_index=True)
    return table.astype({k: t for k, t in COLUMNS.items() if t in (bool, float)})


def _of_recipe(table: pd.DataFrame, recipe: str) -> pd.Series:
    """Which rows are of a recipe, or of one derived from it; "" = all."""
    name = Path(recipe).stem if recipe.endswith((".yml", ".yaml")) else recipe
    asked = (table[["recipe", "base"]] == name).any(axis=1) | (recipe == "")
    if recipe and not asked.any():
        try:
            recipes.find_recipe(recipe)
        except BadParameter as error:
            names = ", ".join(sorted(set(table["base"]) - {""})) or "no recipe at all"
            raise BadParameter(f"{error} There are runs of {names}.") from None
    return asked


def clean(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a scan that may be averaged: those without a flag."""
    return table[table["flag"] == ""]


def comparable(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that stand for a decoder at its best: no flag, no shuffled labels, all train rows."""
    fair = clean(table)
    control = fair["variant"].str.contains("shuffle_labels", na=False).astype(bool)
    return fair[~control & fair["notebook"].isin(DECODERS)]


def several_versions(table: pd.DataFrame) -> list[str]:
    """A sentence for each recipe whose comparable runs come from several versions of nblib.

    Another commit is no flag: most change nothing in a run. What does raises the stage's version.
    """
    told = []
    for group, part in comparable(table).groupby("group"):
        versions = part["code_version"].value_counts()
        if len(versions) > 1:
            shown = some((f"{name} ({n})" for name, n in versions.items()), 4)
            told.append(
                f"{group}: {len(part)} runs of {len(versions)} versions of nblib, all of the current "
                f"stage versions: {shown}."
            )
    return told


def _rows(run: Run | Unreadable, metric: str, bases: recipes.Known) -> list[dict[str, Any]]:
    """A row for each result of a run; one without scores, flagged, for a run that is not readable."""
    stage, recording, key = run.folder.parts[-3:]
    row = {name: None for name in COLUMNS} | {
        "notebook": stage, "recording": recording, "key": key, "folder": str(run.folder), "flag": "",
        "_upstream": "", "edited": False, "executed": (run.folder / store.ATTACHED[0]).is_file(),
        "variant": "", "changed": "", "result": 0, "run": f"{recording}/{key}",
    }  # fmt: skip
    if isinstance(run, Unreadable):
        flag = WITHOUT_SCORES[isinstance(run.error, OutdatedArtifact)]
        return [row | bases.tell(run.recipe) | {"flag": flag}]
    manifest = run.manifest
    try:
        row |= bases.tell(manifest["recipe"] or {})
        row |= {name: manifest[name] for name in MANIFEST_FIELDS}
        row["stage_version"] = manifest["stage_version"]
        row["edited"] = bool(manifest["notebook"]["edited"])
        row["_upstream"] = manifest["upstream"][0]
        variant = _variant(stage, manifest["parameters"])
        return [
            row | _result(one, metric, variant) | {"result": i} for i, one in enumerate(run.results)
        ]
    except CorruptArtifact:  # a field is missing
        named = {name: row[name] or "" for name in ("recipe", "base", "group")}
        return [row | named | {"flag": "corrupt"}]


def _result(metrics: dict[str, Any], metric: str, variant: str) -> dict[str, Any]:
    """What one result adds to the row of its run."""
    scores = metrics["scores"]
    found = {n: metrics[n] for n in COLUMNS if n in metrics and n not in ("oracle", "recipe")}
    found |= {name: scores[name]["value"] for name in ALWAYS if name in scores}
    found["metric"] = own = metric if metric in scores else next(iter(scores))
    found |= {name: scores[own].get(name) for name in SCORE_FIELDS}
    found |= _oracle(metrics, own)
    found["variant"] = ", ".join(filter(None, [metrics.get("variant"), variant]))
    found["model"] = metrics["model"]
    return found


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


def _flag(table: pd.DataFrame, bases: recipes.Known) -> None:
    """Fill in `flag`: several words are joined by a comma."""
    words: dict[int, list[str]] = {i: [flag] if flag else [] for i, flag in table["flag"].items()}
    sound = table[table["flag"] == ""]
    single = sound[sound["recording"] != stages.COHORT]  # folds by subject are part of the run
    for (recipe, recording), part in single.groupby(["recipe", "recording"]):
        current = _current_split(bases.find(recipe), recording)
        if current is not None:
            old = part["_upstream"] != current
        else:  # the recipe is gone: what was made last stands for it
            old = part["split_hash"] != part.sort_values("created")["split_hash"].iloc[-1]
        for i in part.index[old]:
            words[i].append("old split")
    for i, notebook, version in sound[["notebook", "stage_version"]].itertuples():
        now = stages.STAGES[notebook].version
        if version != now:
            words[i].append(f"old code (stage version {version:g}, now {now})")
    for i in sound.index[sound["edited"].astype(bool)]:
        words[i].append("edited notebook")
    several = sound[sound.duplicated(SAME, keep=False)]
    for _, same in several.groupby(SAME, dropna=False):
        # The newest stands for all; one without another flag goes before one that has some.
        first = sorted(same.index, key=lambda i: (not words[i], same["created"][i]))[-1]
        for i in same.index.drop(first):
            words[i].append(f"duplicate of {same['key'][first][:8]}")
    table["flag"] = pd.Series({i: ", ".join(w) for i, w in words.items()}, dtype=object)


def _current_split(recipe: params.Recipe | None, recording: str) -> str | None:
    """Key of the split that a recipe gives today; None when that cannot be told any more."""
    try:
        return None if recipe is None else stages.key_for("04_split", recipe, recording)
    except (BadParameter, MissingInput, BadInput):
        return None


def against_in_words(
    stage: stages.Stage, metrics: dict[str, Any], predictions: pd.DataFrame, other: str
) -> str:
    """A run beside the stored run of `other`, or how to make that one, in a sentence.

    metrics: who the run at hand is (`decode.identity`); predictions: its table, one row a test
    presentation. The other one had the very same recipe, split, fold and seed, and defaults. The
    difference is right minus right, presentation by presentation.
    """
    if metrics["shuffle_labels"]:
        return "Labels are shuffled: this control is compared with nothing."
    runs = clean(scan())
    same = (runs["model"] == other) & (runs["variant"] == "") & (runs["notebook"] == DECODERS[0])
    # The recipe to the letter: one derived from it has other bins, units or scaling.
    for name in ("recipe", "recording", "split_hash", "fold", "seed"):
        same &= runs[name] == metrics[name]
    if not same.any():
        more = "".join(f" -p {k} {metrics[k]}" for k in ("fold", "seed") if metrics[k])
        return (
            f"There is no run of `{other}` on this input and split to compare with; make it with "
            f"`nblib run 05_train_lstm -p recipe {stage.recipe_name} "
            f"-p recording {metrics['recording']} -p model {other}{more}`."
        )
    run = load_run(runs.loc[same, "folder"].iloc[-1])
    theirs = run.predictions.set_index("trial")["correct"].loc[predictions["trial"]].to_numpy(float)
    d = stats.paired_difference(
        predictions["correct"].to_numpy(float), theirs,
        group=predictions["group"].to_numpy(), seed=metrics["seed"],
    )  # fmt: skip
    verdict = "no difference that these presentations could show"
    if d.p < 0.05 and not d.ci_low <= 0 <= d.ci_high:  # interval and test must agree
        verdict = f"{metrics['model'] if d.value > 0 else other} is right more often"
    return (
        f"Beside `{other}` ({theirs.mean():.1%}, run {run.key[:8]}) on the same {d.n:,} test "
        f"presentations: {d.value:+.1%} (95 % interval {d.ci_low:+.1%} to {d.ci_high:+.1%}, "
        f"p = {d.p:.2g}): {verdict}."
    )
