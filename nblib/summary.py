"""What 90 says about all runs: the table as people read it, comparisons, the result in words.

`runs` is a scan of `results`; what is compared or averaged are rows of `results.comparable`.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from nblib import metrics, published, results, stats
from nblib.errors import BadParameter
from nblib.markup import in_markdown
from nblib.runs import load_run

METRIC_TEXT = {
    "accuracy": "accuracy",
    "top5": "top-5 accuracy",
    "balanced_accuracy": "balanced accuracy",
}

COMPARED = ["recipe", "recording", "seed", "chosen", "other", "difference", "95 % interval", "n", "of", "p", "p, Holm"]  # fmt: skip


def label(runs: pd.DataFrame) -> pd.Series:
    """What tells the decoders of one recording apart: model, and settings that are not default."""
    more = [
        ", ".join(filter(None, pair)) for pair in zip(runs["variant"], runs["changed"], strict=True)
    ]
    named = [f"{m} ({v})" if v else m for m, v in zip(runs["model"], more, strict=True)]
    return pd.Series(named, index=runs.index, dtype=object)


def percent(x: float) -> str:
    return "" if pd.isna(x) else f"{x:.1%}"


def runs_table(runs: pd.DataFrame) -> pd.DataFrame:
    """A scan of runs as people read it: best first, scores in percent with their interval.

    Runs that are compared come first, then other runs, then those with a flag.
    """
    compared = runs["run"].isin(results.comparable(runs)["run"])
    place = (runs["flag"] != "").astype(int) * 2 - compared.astype(int)
    runs = runs.assign(_place=place).sort_values(
        ["_place", "value"], ascending=[True, False], kind="stable", na_position="last"
    )
    interval = [
        f"{percent(a)} to {percent(b)}"
        for a, b in zip(runs["ci_low"], runs["ci_high"], strict=True)
    ]
    return (
        pd.DataFrame(
            {
                "run": runs["run"],
                **{name: runs[name] for name in ("group", "recording", "notebook")},
                "model": label(runs.assign(model=runs["model"].fillna(""))),
                "score": runs["value"].map(percent),
                "of": runs["metric"].map(lambda m: METRIC_TEXT.get(m, m)),
                "95 % interval": interval,
                "chance": runs["chance"].map(percent),
                "p": runs["p"].map(lambda p: "" if pd.isna(p) else f"{p:.2g}"),
                "best possible": runs["oracle"].map(percent),
                **{name: runs[name] for name in ("fold", "seed", "n_test", "flag")},
            }
        )
        .rename(columns={"group": "recipe"})
        .reset_index(drop=True)
    )


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
        found = metrics.out_of_fold([load_run(f).predictions for f in part["folder"]])
        rows.append(
            dict(zip(("recipe", "recording", "decoder", "seed"), who, strict=True))
            | {"folds": found["n_folds"], "pooled accuracy": percent(found["value"]),
               "95 % interval": f"{percent(found['ci_low'])} to {percent(found['ci_high'])}",
               "chance": percent(found["chance"]), "p": f"{found['p']:.2g}", "n": found["n"],
               "sd over folds": percent(found["fold_sd"]),
               "lowest fold": percent(found["fold_min"]),
               "highest fold": percent(found["fold_max"])}
        )  # fmt: skip
    return _narrow(pd.DataFrame(rows))


def _narrow(table: pd.DataFrame) -> pd.DataFrame:
    """Without the columns recipe, recording and seed where they are the same in every row."""
    same = [c for c in ("recipe", "recording", "seed") if c in table and len(set(table[c])) == 1]
    return table.drop(columns=same)


def paired(runs: pd.DataFrame) -> pd.DataFrame:
    """The decoder that validation chooses, beside each other one on the same test presentations.

    Folds that both were run on are pooled; runs of another split are compared apart. `difference` is the share right of the chosen one minus
    that of the other; p is two-sided and, in the last column, adjusted for the number of
    comparisons on this recording (Holm). One row a recipe, recording, seed and other decoder.
    """
    return _narrow(_paired(runs))


def _paired(runs: pd.DataFrame) -> pd.DataFrame:
    rows = []
    kept = runs[runs["val_accuracy"].notna()].assign(decoder=label(runs))
    judged_alike = ["group", "recording", "seed", "split_hash"]
    for (recipe, recording, seed, _), part in kept.groupby(judged_alike, sort=True):
        mean = part.groupby("decoder")["val_accuracy"].mean()
        if len(mean) < 2:
            continue
        folders = {name: g.set_index("fold")["folder"] for name, g in part.groupby("decoder")}
        best = mean.idxmax()
        tables: dict[str, pd.DataFrame] = {}
        found = []
        for other in mean.drop(best).sort_values(ascending=False).index:
            both = sorted(set(folders[best].index) & set(folders[other].index))
            if not both:
                continue
            for folder in [folders[name][fold] for name in (best, other) for fold in both]:
                if folder not in tables:
                    tables[folder] = load_run(folder).predictions
            right = [
                pd.concat(
                    [tables[folders[name][fold]].set_index("trial")["correct"] for fold in both]
                )
                for name in (best, other)
            ]
            if set(right[0].index) != set(right[1].index):
                continue  # not the same test presentations: the audit on this page names the run
            d = stats.paired_difference(
                right[0].to_numpy(float), right[1].loc[right[0].index].to_numpy(float)
            )
            found.append(
                {"recipe": recipe, "recording": recording, "seed": seed, "chosen": best,
                 "other": other, "difference": f"{d.value:+.1%}",
                 "95 % interval": f"{d.ci_low:+.1%} to {d.ci_high:+.1%}", "n": d.n, "p": d.p}
            )  # fmt: skip
        adjusted = stats.holm([row["p"] for row in found]) if found else []
        rows += [row | {"p, Holm": p} for row, p in zip(found, adjusted, strict=True)]
    return pd.DataFrame(rows).round({"p": 4, "p, Holm": 4})


def chosen(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of the decoder that validation chooses for each recording, with its name `decoder`.

    runs: as in `results.comparable`. What counts is the mean validation accuracy over folds and
    seeds; test scores have no part in it. Only decoders that were run on every fold of the
    recording stand for choice, so that no easy fold decides.
    """
    kept = runs[runs["val_accuracy"].notna()].assign(decoder=label(runs))
    parts = [kept.iloc[:0]]
    for _, part in kept.groupby(["group", "recording", "split_hash"], sort=True):
        folds = part.groupby("decoder")["fold"].nunique()
        whole = part[part["decoder"].isin(folds.index[folds == part["fold"].nunique()])]
        if len(whole):
            best = whole.groupby("decoder")["val_accuracy"].mean().idxmax()
            parts.append(whole[whole["decoder"] == best])
    return pd.concat(parts, ignore_index=True)


def over_recordings(runs: pd.DataFrame, best: str = "") -> pd.DataFrame:
    """A decoder beside each other one, paired over the recordings that both were run on.

    best: the decoder's name as `label` gives it; "" = the one that validation chooses, by the mean
    over recordings of its validation accuracy, among those run on the most recordings. Of each
    recording, the difference in test score is averaged over folds and seeds that both have; the
    interval (Student's t) and the two-sided p (signs flipped) are over recordings; Holm's
    correction is for the comparisons of a recipe. One row a recipe and other decoder; none for a
    recipe with a single recording. Raises BadParameter for a name that no run has.
    """
    rows = []
    named = label(runs)
    if best and best not in set(named):
        raise BadParameter(f"best = {best!r}: there are {', '.join(sorted(set(named)))}.")
    kept = runs[runs["val_accuracy"].notna()].assign(decoder=named)
    judged = ["recording", "split_hash", "fold", "seed"]
    for recipe, part in kept.groupby("group", sort=True):
        each = part.groupby(["decoder", "recording"])["val_accuracy"].mean()
        count = each.groupby("decoder").size()
        mean = each.groupby("decoder").mean()
        first = best or mean[count == count.max()].idxmax()
        found = []
        for other in mean.drop(first, errors="ignore").sort_values(ascending=False).index:
            two = [part[part["decoder"] == name].groupby(judged)["value"].mean() for name in (first, other)]  # fmt: skip
            differences = (two[0] - two[1]).dropna().groupby("recording").mean()
            if len(differences) < 2:
                continue
            low, high = stats.t_interval(differences.to_numpy(), -1.0, 1.0)
            p = stats.sign_flip_p(differences.to_numpy(), two_sided=True)
            found.append(
                {"recipe": recipe, "chosen": first, "other": other,
                 "difference": f"{differences.mean():+.1%}",
                 "95 % interval": f"{low:+.1%} to {high:+.1%}", "n": len(differences),
                 "of": "recordings", "p": p}
            )  # fmt: skip
        adjusted = stats.holm([row["p"] for row in found]) if found else []
        rows += [row | {"p, Holm": p} for row, p in zip(found, adjusted, strict=True)]
    return pd.DataFrame(rows).round({"p": 4, "p, Holm": 4})


def comparisons(runs: pd.DataFrame) -> pd.DataFrame:
    """The chosen decoder beside each other one: over recordings, where a recipe has several.

    A recipe with a single recording is compared over its test presentations (`paired`): that says
    which decoder reads this recording better, and nothing of others.
    """
    several = runs.groupby("group")["recording"].transform("nunique") > 1
    tables = [
        over_recordings(runs[several]).assign(recording="all", seed="all"),
        _paired(runs[~several]).assign(of="presentations"),
    ]
    tables = [table[COMPARED] for table in tables if len(table)]
    return _narrow(pd.concat(tables, ignore_index=True)) if tables else pd.DataFrame()


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


def in_words(runs: pd.DataFrame, metric: str = "accuracy", leaks: str = "") -> str:
    """The decoder that validation chooses for each recipe, its test score, and the audit's verdict.

    runs: as in `results.comparable`. Test scores have no part in the choice.
    """
    if len(runs) == 0:
        return f"**Result.** There is no run to compare yet. {leaks}".rstrip()
    parts = []
    for recipe, part in runs.assign(decoder=label(runs)).groupby("group", sort=True):
        mean = part.groupby("decoder")[["value", "chance", "val_accuracy"]].mean()
        if mean["val_accuracy"].isna().all():
            continue
        best = mean["val_accuracy"].idxmax()
        chosen = part[part["decoder"] == best]
        n = chosen["recording"].nunique()
        where = f"over {n} recordings " if n > 1 else ""
        known = chosen["oracle"].dropna()
        possible = f", against a best possible of {known.mean():.1%}" if len(known) else ""
        parts.append(
            f"- {in_markdown(recipe)}: **{in_markdown(best)}** with a mean {METRIC_TEXT[metric]} of {mean.loc[best, 'value']:.1%} "
            f"{where}(chance {mean.loc[best, 'chance']:.1%}){possible}."
        )
    versions = map(in_markdown, results.several_versions(runs))
    more = [f"- {told}" for told in (*versions, leaks) if told]
    return (
        f"**Result.** {len(runs)} runs compared. The decoder with the highest validation accuracy, "
        "and its score on test presentations:\n\n" + "\n".join([*parts, *more])
    )
