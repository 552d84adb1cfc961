"""What 90 says about all runs: the table as people read it, folds, curves, the result in words.

`runs` is a scan of `results`; what is compared or averaged are rows of `results.comparable`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from nblib.core.markup import in_markdown
from nblib.evaluate import scores, stats
from nblib.report import compare, published, results
from nblib.report.compare import EACH, chosen, label, narrow
from nblib.report.runs import load_run


def percent(x: float) -> str:
    return "" if pd.isna(x) else f"{x:.1%}"


def in_order(runs: pd.DataFrame) -> pd.DataFrame:
    """A scan as people read it: runs that are compared first, those with a flag last, best first."""
    compared = runs["run"].isin(results.comparable(runs)["run"])
    place = (runs["flag"] != "").astype(int) * 2 - compared.astype(int)
    return (
        runs.assign(_place=place)
        .sort_values(
            ["_place", "value"], ascending=[True, False], kind="stable", na_position="last"
        )
        .drop(columns="_place")
    )


def differs(runs: pd.DataFrame) -> pd.Series:
    """What tells each run from a plain one of 05 of its model: settings, recipe, fold, flag, ..."""
    several = len(set(runs["group"])) > 1

    def words(run: Any) -> str:
        told = [
            run.variant, run.changed, run.group if several else "",
            "" if run.notebook in results.DECODERS else run.notebook[:2],
            *(f"{k} {v:g}" for k, v in (("fold", run.fold), ("seed", run.seed)) if pd.notna(v) and v > 0),
            "" if run.metric in ("accuracy", None) else scores.SCORE_TEXT.get(run.metric, run.metric), run.flag,
        ]  # fmt: skip
        return ", ".join(filter(None, told))

    return pd.Series([words(run) for run in runs.itertuples()], index=runs.index, dtype=object)


def runs_table(runs: pd.DataFrame) -> pd.DataFrame:
    """A scan of runs in order, as people read it: what differs, scores in percent with interval."""
    runs = in_order(runs)
    pairs = zip(runs["ci_low"], runs["ci_high"], strict=True)
    shown = {
        "run": runs["run"],
        "model": runs["model"].fillna(runs["notebook"]),
        "recording": runs["recording"],
        "differs": differs(runs),
        "score": runs["value"].map(percent),
        "95 % interval": ["" if pd.isna(a) else f"{percent(a)} to {percent(b)}" for a, b in pairs],
        "chance": runs["chance"].map(percent),
        "p": runs["p"].map(lambda p: "" if pd.isna(p) else f"{p:.2g}"),
        "best possible": runs["oracle"].map(percent),
        "validation": runs["val_accuracy"].map(percent),
        "n_test": runs["n_test"].astype("Int64"),
    }
    return pd.DataFrame(shown).reset_index(drop=True)


def short_table(runs: pd.DataFrame, width: int) -> str:
    """`runs_table` as lines of at most `width` characters, 80 or more.

    Model, recording, what differs, score with its interval, best possible score. What does not fit
    ends with "…".
    """
    table = runs_table(runs)
    within = table["95 % interval"].map(lambda text: f" ({text})" if text else "")
    columns = {
        "model": table["model"], "recording": table["recording"], "differs": table["differs"],
        "accuracy, 95 % interval": table["score"].str.rjust(6) + within, "best": table["best possible"],
    }  # fmt: skip
    columns = {name: [name, *cells] for name, cells in columns.items()}
    room = {name: max(map(len, cells)) for name, cells in columns.items()}
    room |= {"model": min(room["model"], 18), "recording": min(room["recording"], 14)}
    others = sum(size + 2 for name, size in room.items() if name != "differs")
    room["differs"] = min(room["differs"], width - others)
    cells = [[_cut(c, room[name]) for c in column] for name, column in columns.items()]
    return "\n".join("  ".join(line).rstrip() for line in zip(*cells, strict=True))


def _cut(text: str, width: int) -> str:
    return text.ljust(width) if len(text) <= width else f"{text[: width - 1]}…"


def save(runs: pd.DataFrame, folder: Path, leaks: pd.DataFrame) -> None:
    """Write a scan of runs, runs.parquet with every column and runs.csv, and the audit's table."""
    runs.to_parquet(folder / "runs.parquet", index=False)
    runs.to_csv(folder / "runs.csv", index=False)
    leaks.to_parquet(folder / "audit.parquet", index=False)


def inputs(runs: pd.DataFrame) -> list[str]:
    """What a report of these runs is made from: their keys, and published numbers beside them."""
    return sorted(runs["key"]) + published.contents(runs["recording"])


def over_folds(runs: pd.DataFrame) -> pd.DataFrame:
    """Out-of-fold accuracy of every decoder that was run on more than one fold of a split.

    The test presentations of all folds are pooled; the spread is that over folds. One row a
    recipe, recording, decoder and seed; no row when nothing was run on several folds.
    """
    rows = []
    kept = runs.assign(decoder=label(runs))
    for who, part in kept.groupby(["group", "recording", "decoder", "seed"], sort=True):
        if len(part) < 2:
            continue
        found = scores.out_of_fold([load_run(f).predictions for f in part["folder"]])
        rows.append(
            dict(zip(("recipe", "recording", "decoder", "seed"), who, strict=True))
            | {"folds": found["n_folds"], "pooled accuracy": percent(found["value"]),
               "95 % interval": f"{percent(found['ci_low'])} to {percent(found['ci_high'])}",
               "chance": percent(found["chance"]), "p": f"{found['p']:.2g}", "n": found["n"],
               "sd over folds": percent(found["fold_sd"]),
               "lowest fold": percent(found["fold_min"]),
               "highest fold": percent(found["fold_max"])}
        )  # fmt: skip
    return narrow(pd.DataFrame(rows))


def learning_curves(runs: pd.DataFrame) -> pd.DataFrame:
    """The curves of 07, averaged over the recordings of a recipe: one row a decoder and k.

    Runs of different recipes, or with other settings, are curves of their own. Of one recording,
    the interval is that of its run (draws and presentations); of several, it is over
    recordings, as the question then is what another recording would give; recordings that lack a
    k are left out. Folds and seeds of a recording are averaged first. Columns as
    `plots.few_shot_curves` takes them, `n_recordings` and the `runs` behind it; no row without 07.
    """
    control = runs["variant"].str.contains("shuffle_labels", na=False).astype(bool)
    part = results.clean(runs[(runs["notebook"] == "07_few_shot") & ~control])
    found = part["variant"].str.extract(r"^k=(?P<k>\d+|all)(?:, )?(?P<rest>.*)$")
    part = part.assign(
        k=found["k"].replace("all", "0").astype(int), rest=found["rest"],
        per_class=part["n_train"] / part["n_classes"],
    )  # fmt: skip
    sets = list(part.groupby(["group", "changed", "rest"], sort=True))
    rows = []
    for who, own in sets:
        told = ", ".join(filter(None, who)) if len(sets) > 1 else ""
        for model, curve in own.groupby("model", sort=False):
            whole = curve.groupby("recording")["k"].nunique() == curve["k"].nunique()
            curve = curve[curve["recording"].isin(whole.index[whole])]
            for k, same in curve.groupby("k", sort=False):
                each = same.groupby("recording")[["value", "ci_low", "ci_high", "chance", "per_class"]].mean()  # fmt: skip
                mean = each.mean()
                low, high = mean["ci_low"], mean["ci_high"]
                if len(each) > 1:
                    low, high = stats.fraction_interval(each["value"].to_numpy(float))
                name = f"{model}, {told}" if told else model
                rows.append({"model": name, "k": k, "n_recordings": len(each), **mean, "ci_low": low, "ci_high": high,
                             "runs": sorted(same["run"].unique())})  # fmt: skip
    return pd.DataFrame(rows)


def in_words(
    runs: pd.DataFrame,
    metric: str = "accuracy",
    leaks: str = "",
    compared: pd.DataFrame | None = None,
) -> str:
    """The decoder that validation chooses for each recipe, how it did on test, the audit's verdict.

    runs: as in `results.comparable`; compared: their `choice.comparisons`, when they were made.
    """
    if len(runs) == 0:
        return f"**Result.** There is no run to compare yet. {leaks}".rstrip()
    parts = [f"- {line}" for line in verdicts(runs, metric, compared, by=("group",))]
    versions = map(in_markdown, results.several_versions(runs))
    more = [f"- {told}" for told in (*versions, leaks) if told]
    return (
        f"**Result.** {len(runs)} runs compared. The decoder with the highest validation accuracy, "
        "and its score on test presentations:\n\n" + "\n".join([*parts, *more])
    )


def verdicts(
    runs: pd.DataFrame,
    metric: str = "accuracy",
    compared: pd.DataFrame | None = None,
    by: tuple[str, ...] = EACH,
) -> list[str]:
    """A sentence for each recording of a recipe (or each recipe, see `choice.chosen`), as Markdown."""
    lines = []
    best = dict(iter(chosen(runs, by).groupby(list(by))))
    for who, _ in runs.groupby(list(by), sort=True):
        recipe, recording = who[0], who[-1]
        name = recipe if recipe.startswith(recording) else f"{recording} ({recipe})"
        told = "validation chooses none: no two decoders with a validation score were run on the same recordings and folds."
        if who in best:
            others = pd.DataFrame() if compared is None else compared
            if len(others):
                others = others[others[["recipe", "recording"][: len(by)]].eq(who).all(axis=1)]
            told = verdict(best[who], metric, others)
        lines.append(f"{in_markdown(name)}: {told}")
    return lines


def verdict(best: pd.DataFrame, metric: str, compared: pd.DataFrame, name: str = "") -> str:
    """What there is to say of the decoder that validation chose, as Markdown.

    best: its runs (`choice.chosen`); compared: its rows of `choice.comparisons`; name: what stands
    for it, "" = its own name.
    """
    first = best.iloc[0]
    n = best["recording"].nunique()
    each = best.groupby("recording")["value"].mean()
    spread = f"95 % interval {percent(first['ci_low'])} to {percent(first['ci_high'])}"
    if len(best) > 1:
        spread = (
            f"{len(best)} runs, {percent(best['value'].min())} to {percent(best['value'].max())}"
        )
    where = f" over {n} recordings" if n > 1 else ""
    known = best["oracle"].dropna()
    possible = f", best possible {known.mean():.1%}" if len(known) else ""
    alone = f"out of {first['rivals']} decoders" if first["rivals"] > 1 else "the only decoder"
    out = first["left_out"]
    fewer = f" {out} more, not run on the same recordings and folds, took no part." if out else ""
    return (
        f"**{name or in_markdown(first['decoder'])}**, {alone}, with {'a mean ' if len(best) > 1 else 'an '}{scores.SCORE_TEXT[metric]} of "
        f"{each.mean():.1%}{where} ({spread}, chance {best['chance'].mean():.1%}{possible}).{fewer} {in_markdown(compare.standing(compared))}"
    ).rstrip()
