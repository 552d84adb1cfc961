"""Run folders become one table with a row a score; nothing is typed in.

`scores` reads it once. Other views are made from it: `by_result` has a row for each result of a
run; `score_file` adds parameters, settings and published numbers for a file.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import Field

from nblib.core import params as P
from nblib.core import recipes, store
from nblib.core.errors import (
    BadInput,
    BadParameter,
    CorruptArtifact,
    MissingInput,
    OutdatedArtifact,
    some,
)
from nblib.report.one_run import Run, Unreadable, read_all
from nblib.road import stages
from nblib.road.stage_registry import DECODERS, SPLIT, ReportParams


class Params(ReportParams):
    """Parameters of 90."""

    recipe: str = Field("", description="show one recipe only; empty = every run")
    metric: Literal["accuracy", "top5", "balanced_accuracy"] = Field(
        "accuracy", description="score to compare"
    )


IDENTITY = (
    "notebook", "group", "recipe", "base", "changed", "recording", "model", "fold", "seed", "variant",
)  # fmt: skip
SCORE = ("value", "ci_low", "ci_high", "chance", "p", "n", "unit", "null")
ORACLE = {"oracle": "value", "oracle_low": "ci_low", "oracle_high": "ci_high"}
OF_RESULT = (
    "split_hash", "n_train", "n_val", "n_test", "n_classes", "n_units", "n_bins", "val_accuracy",
    "fit_s", "stage_version", "edited", "executed", "run", "key", "folder", "flag",
)  # fmt: skip
MANIFEST = ("created", "code_version", "host", "wall_s", "peak_gpu_bytes")
# One row a score.
COLUMNS = (*IDENTITY, "metric", *SCORE, *ORACLE, *OF_RESULT, *MANIFEST, "result")
ALWAYS = ("accuracy", "top5", "balanced_accuracy")
# One row a result: the scores `ALWAYS`, and the one that was asked for.
WIDE = (*IDENTITY, *ALWAYS, *COLUMNS[len(IDENTITY) :])
NUMBERS = (
    *ALWAYS, "val_accuracy", "value", "ci_low", "ci_high", "chance", "p", *ORACLE, "fit_s", "wall_s",
)  # fmt: skip
PLACE = ["folder", "result"]  # what tells one result from another
# Settings of a recipe that say which presentations judge, and of what.
JUDGED = {*P.IngestSettings.model_fields, *P.SplitSettings.model_fields, "keep_blank"}
ORDER = [
    "group", "recipe", "recording", "notebook", "model", "variant", "fold", "seed", "created", "key",
]  # fmt: skip
SAME = ["notebook", "recipe", "recording", "model", "fold", "seed", "variant", "split_hash"]
# Parameters that name a run or say how to work; the others, where they differ from the default,
# make its `variant`.
NOT_A_VARIANT = {
    "recipe", "recording", "model", "fold", "seed", "device", "threads", "logger",
    "n_permutations", "n_bootstrap", "importance", "areas",
}  # fmt: skip
YAML = (".yml", ".yaml")
WITHOUT_SCORES = ("corrupt", "earlier nblib")  # flags of runs that cannot be read


# --- one row a score -----------------------------------------------------------------------------


def scores(runs: list[Run | Unreadable], recipe: str = "") -> pd.DataFrame:
    """Every score of these runs, sorted, one row each; the columns are `COLUMNS`.

    `metric` names the score; `value`, `ci_low`, `ci_high` and `chance` are in `unit`, `fit_s` in
    seconds; `oracle` is the best possible score where the truth is known.
    A run of 05 or 06 holds one result, one of 07, 09 or 10 several, numbered by `result`. `run` is
    recording/key, since simulated recordings of one cohort share their keys.
    `base` is the recipe that a derived one came from; `group` adds its changed settings of 01 and 04,
    so runs of one group and recording were judged alike; `changed` holds the other changed settings.
    `flag` says what must not be averaged silently: "corrupt" (bytes changed; no scores shown),
    "earlier nblib" (without the checksum that tells changed bytes; no scores shown),
    "old split" (made from another split than the recipe gives now), "old code" (made by another
    version of its stage than there is now), "edited notebook", and "duplicate of KEY" (same
    recipe, recording, model, fold, seed, variant and split as a newer run, which stands for both).

    Parameters
    ----------
    runs
        What `one_run.read_all` gives.
    recipe
        Name or path of a recipe: its runs and those of recipes derived from it; "" = all.

    Raises
    ------
    BadParameter
        For a recipe that neither has a run nor is there.
    """
    recipes_now = _recipes_now(runs)
    rows = [row for run in runs for row in _rows(run, recipes_now)]
    table = pd.DataFrame(rows, columns=[*COLUMNS, "split"]).astype({"n": "Int64"})
    table = table[_of_recipe(table, recipe)].reset_index(drop=True)
    flags = _flags(table.drop_duplicates(PLACE), recipes_now)
    table["flag"] = [flags[place] for place in zip(table["folder"], table["result"], strict=True)]
    return table.sort_values(ORDER, ignore_index=True).drop(columns="split")


def _recipes_now(runs: list[Run | Unreadable]) -> dict[str, P.Recipe]:
    """The recipes of these runs, and those that they were derived from, as they are now, by name.

    A recipe that was given by its path is found again by that path; one that is gone is left out.
    """
    stored = [
        run.recipe if isinstance(run, Unreadable) else run.manifest.get("recipe") for run in runs
    ]
    names = {(recipe or {}).get("recipe", "") for recipe in stored}
    given_as = {
        run.manifest["parameters"].get("recipe", "") for run in runs if isinstance(run, Run)
    }
    paths = {Path(way).stem: way for way in map(recipes.base_of, given_as) if way.endswith(YAML)}
    now: dict[str, P.Recipe] = {}
    for name in names | {recipes.root_name(name) for name in names}:
        for way in (name, paths.get(name, name)):
            with contextlib.suppress(BadParameter):
                now.setdefault(name, recipes.find_recipe(way))
    return now


def derivation(recipe: dict[str, Any], recipes_now: dict[str, P.Recipe]) -> dict[str, str]:
    """What a run's recipe is called, and what it changes of the one that it was derived from.

    `base`: the name of that one, its own where nothing was changed or the other is gone; `group`:
    base with those settings that differ and say what is judged; `changed`: the other ones.
    """
    name = recipe.get("recipe", "")
    base = recipes.root_name(name)
    if base == name or base not in recipes_now:
        return {"recipe": name, "base": name, "group": name, "changed": ""}
    other = store.plain(recipes_now[base].model_dump())
    # Which recordings, and where they lie, says nothing of how this one was treated.
    kept = [k for k in recipe if k not in ("recipe", "recordings", "path")]
    text = {k: _difference(k, recipe[k], other.get(k)) for k in kept if recipe[k] != other.get(k)}
    judged = ", ".join(t for k, t in text.items() if k in JUDGED)
    others = ", ".join(t for k, t in text.items() if k not in JUDGED)
    group = f"{base} ({judged})" if judged else base
    return {"recipe": name, "base": base, "group": group, "changed": others}


def _difference(name: str, value: Any, other: Any) -> str:
    """A setting that differs, as text; of a group of settings those that differ."""
    if isinstance(value, dict) and isinstance(other, dict):
        return ", ".join(
            _difference(k, v, other.get(k)) for k, v in value.items() if v != other.get(k)
        )
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return f"{name}={'+'.join(value)}"
    return f"{name}={json.dumps(value)}"


def _rows(run: Run | Unreadable, recipes_now: dict[str, P.Recipe]) -> list[dict[str, Any]]:
    """A row for each score of a run; one without scores, flagged, for a run that is not readable."""
    stage, recording, key = run.folder.parts[-3:]
    row = dict.fromkeys(COLUMNS) | {
        "notebook": stage, "recording": recording, "key": key, "folder": str(run.folder), "flag": "",
        "split": "", "edited": False, "executed": (run.folder / store.EXECUTED).is_file(),
        "variant": "", "changed": "", "result": 0, "run": f"{recording}/{key}",
    }  # fmt: skip
    if isinstance(run, Unreadable):
        flag = WITHOUT_SCORES[isinstance(run.error, OutdatedArtifact)]
        return [row | derivation(run.recipe, recipes_now) | {"flag": flag}]
    manifest, names = run.manifest, {"recipe": "", "base": "", "group": ""}
    try:
        derived = derivation(manifest["recipe"] or {}, recipes_now)
        names = {name: derived[name] for name in names}
        row_of_run = row | derived | {name: manifest[name] for name in MANIFEST} | {
            "stage_version": manifest["stage_version"], "split": manifest["upstream"][0],
            "edited": bool(manifest["notebook"]["edited"]),
        }  # fmt: skip
        changed = _changed_parameters(stage, manifest["parameters"])
        rows = []
        for i, result in enumerate(run.results):
            of_result = {
                k: result[k] for k in (*IDENTITY, *OF_RESULT) if k in result and k != "recipe"
            }
            of_result["model"] = result["model"]
            of_result["variant"] = ", ".join(filter(None, [result.get("variant"), changed]))
            for metric, score in result["scores"].items():
                best = (result.get("oracle") or {}).get(metric) or {}
                rows.append(
                    row_of_run
                    | of_result
                    | {"metric": metric, "result": i}
                    | {name: score.get(name) for name in SCORE}
                    | {name: best.get(field) for name, field in ORACLE.items()}
                )
        return rows
    except CorruptArtifact:  # a field is missing
        return [row | names | {"flag": "corrupt"}]


def _changed_parameters(stage: str, parameters: dict[str, Any]) -> str:
    """What differs from the notebook's defaults, as text: 'max_epochs=3, shuffle_labels=true'."""
    fields = stages.STAGES[stage].params.model_fields
    return ", ".join(
        _difference(name, parameters[name], {} if isinstance(parameters[name], dict) else None)
        for name in sorted(parameters)
        if name in fields and name not in NOT_A_VARIANT and parameters[name] != fields[name].default
    )


def _of_recipe(table: pd.DataFrame, recipe: str) -> pd.Series:
    """Which rows are of a recipe, or of one derived from it; "" = all."""
    name = Path(recipe).stem if recipe.endswith(YAML) else recipe
    wanted = (table[["recipe", "base"]] == name).any(axis=1) | (recipe == "")
    if recipe and not wanted.any():
        try:
            recipes.find_recipe(recipe)
        except BadParameter as error:
            names = ", ".join(sorted(set(table["base"]) - {""})) or "no recipe at all"
            raise BadParameter(f"{error} There are runs of {names}.") from None
    return wanted


def _flags(results: pd.DataFrame, recipes_now: dict[str, P.Recipe]) -> dict[tuple[str, int], str]:
    """Place of a result -> its flag, several joined by a comma.

    results: a row each; those without scores bring their flag along.
    """
    words: dict[int, list[str]] = {i: [flag] if flag else [] for i, flag in results["flag"].items()}
    sound = results[results["flag"] == ""]
    single = sound[sound["recording"] != stages.COHORT]  # folds by subject are part of the run
    for (recipe, recording), part in single.groupby(["recipe", "recording"]):
        current = _current_split(recipes_now.get(recipe), recording)
        if current is not None:
            old = part["split"] != current
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
    places = zip(results["folder"], results["result"], strict=True)
    return {place: ", ".join(words[i]) for i, place in zip(results.index, places, strict=True)}


def _current_split(recipe: P.Recipe | None, recording: str) -> str | None:
    """Key of the split that a recipe gives today; None when that cannot be told any more."""
    try:
        return None if recipe is None else stages.key_for(SPLIT, recipe, recording)
    except (BadParameter, MissingInput, BadInput):
        return None


# --- one row a result ----------------------------------------------------------------------------


def scan(recipe: str = "", metric: str = "accuracy") -> pd.DataFrame:
    """`by_result` of all runs of the data root, or of those of one recipe (see `scores`)."""
    return by_result(scores(read_all(), recipe), metric)


def by_result(table: pd.DataFrame, metric: str = "accuracy") -> pd.DataFrame:
    """One row for each result of a table of `scores`, in its order; `value` is the score asked for.

    A result that has no such score shows its own first one; `metric` says which it is. The scores
    `ALWAYS` have columns of their own. Raises BadParameter for a metric that no run knows.
    """
    known = set(table["metric"].dropna())
    if known and metric not in {*known, *ALWAYS}:
        raise BadParameter(f"metric {metric!r}: no run has that score.")
    other = (table["metric"] != metric).sort_values(kind="stable").index
    wide = table.loc[other].drop_duplicates(PLACE).sort_index()
    for name in ALWAYS:
        values = table.loc[table["metric"] == name, [*PLACE, "value"]]
        wide = wide.merge(values.rename(columns={"value": name}), how="left", on=PLACE)
    return wide[list(WIDE)].astype(
        dict.fromkeys(NUMBERS, float) | {"edited": bool, "executed": bool}
    )


def clean(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that may be averaged: those without a flag."""
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
    sentences = []
    for group, part in comparable(table).groupby("group"):
        versions = part["code_version"].value_counts()
        if len(versions) > 1:
            shown = some((f"{name} ({n})" for name, n in versions.items()), 4)
            sentences.append(
                f"{group}: {len(part)} runs of {len(versions)} versions of nblib, all of the current "
                f"stage versions: {shown}."
            )
    return sentences
