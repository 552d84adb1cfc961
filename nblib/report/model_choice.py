"""The decoder that validation chooses, and how it stands beside each other one.

`runs` are rows of `all_runs.comparable`. Test scores have no part in the choice; they judge it.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from nblib.evaluate import scores, stats
from nblib.report import all_runs
from nblib.report.one_run import load_run
from nblib.road.stage_registry import DECODERS, FEW_SHOT

EACH = ("group", "recording")
PLACE = ["recording", "split_hash", "fold"]


def label(runs: pd.DataFrame) -> pd.Series:
    """What tells the decoders of one recording apart: model, and settings that are not default."""
    more = [
        ", ".join(filter(None, pair)) for pair in zip(runs["variant"], runs["changed"], strict=True)
    ]
    named = [f"{m} ({v})" if v else m for m, v in zip(runs["model"], more, strict=True)]
    return pd.Series(named, index=runs.index, dtype=object)


def _validated(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with a validation score, and the name of their decoder."""
    return runs[runs["val_accuracy"].notna()].assign(decoder=label(runs))


def chosen(runs: pd.DataFrame, by: tuple[str, ...] = EACH) -> pd.DataFrame:
    """The runs of the decoder that validation chooses for each recording of a recipe.

    by: with ("group",) for each recipe, over all of its recordings. This is the one rule behind
    every sentence, table and figure that names such a decoder.
    Only decoders that were run on the very same recordings, splits and folds are compared: of all
    sets of these the largest, and of equally large ones that on which the most decoders were run.
    Where that leaves several sets, none is chosen. The mean validation accuracy decides: over
    seeds, then folds, then recordings.
    Columns added: `decoder`, its name; `rivals`, how many decoders were compared, itself among
    them; `left_out`, how many were not.
    """
    known = _validated(runs)
    parts = [known.iloc[:0].assign(rivals=0, left_out=0)]
    for _, part in known.groupby(list(by), sort=True):
        places = {
            name: frozenset(rows[PLACE].itertuples(index=False, name=None))
            for name, rows in part.groupby("decoder")
        }
        alike = pd.Series(places).to_frame("places").groupby("places").size()
        best = max((len(where), n) for where, n in alike.items())
        sets = [where for where, n in alike.items() if (len(where), n) == best]
        if len(sets) > 1:
            continue
        rivals = [name for name, where in places.items() if where == sets[0]]
        mean = (
            part[part["decoder"].isin(rivals)].groupby(["decoder", *PLACE])["val_accuracy"].mean()
        )
        mean = mean.groupby(["decoder", "recording"]).mean().groupby("decoder").mean()
        counts = {"rivals": len(rivals), "left_out": len(places) - len(rivals)}
        parts.append(part[part["decoder"] == mean.idxmax()].assign(**counts))
    return pd.concat(parts, ignore_index=True)


def marked(runs: pd.DataFrame) -> pd.DataFrame:
    """All runs, with a column `chosen` that says which are of the decoder that validation chooses."""
    return runs.assign(chosen=runs["run"].isin(chosen(runs)["run"]))


def paired(runs: pd.DataFrame) -> pd.DataFrame:
    """The decoder chosen for a recording beside each other one, on the same test presentations.

    Folds that both were run on are pooled; runs of another split are not compared. One row a
    recipe, recording, seed and other decoder: `difference`, `low` and `high` of the share right of
    the chosen one minus that of the other; two-sided `p`, and `holm`, adjusted for the number of
    comparisons on this recording; `n` presentations.
    """
    rows = []
    best = chosen(runs).drop_duplicates(EACH).set_index(list(EACH))["decoder"]
    for (recipe, recording, seed, _), part in _validated(runs).groupby(
        ["group", "recording", "seed", "split_hash"], sort=True
    ):
        first = best.get((recipe, recording))
        folders = {name: g.set_index("fold")["folder"] for name, g in part.groupby("decoder")}
        if first not in folders:
            continue
        answers: dict[str, pd.DataFrame] = {}
        compared = []
        for other in _others(part, first):
            folds = sorted(set(folders[first].index) & set(folders[other].index))
            pairs = [(folders[first][fold], folders[other][fold]) for fold in folds]
            for folder in (f for pair in pairs for f in pair if f not in answers):
                answers[folder] = load_run(folder).predictions.set_index("trial")
            if not pairs or any(set(answers[a].index) != set(answers[b].index) for a, b in pairs):
                continue  # not the same test presentations: the audit on this page names the run
            ours = pd.concat([answers[a] for a, _ in pairs])
            theirs = pd.concat([answers[b].loc[answers[a].index] for a, b in pairs])
            d = _difference(ours, theirs)
            compared.append(
                {"recipe": recipe, "recording": recording, "seed": seed, "chosen": first,
                 "other": other, "difference": d.value, "low": d.ci_low, "high": d.ci_high,
                 "n": d.n, "of": "presentations", "p": d.p}
            )  # fmt: skip
        rows += _adjusted(compared)
    return pd.DataFrame(rows)


def over_recordings(runs: pd.DataFrame) -> pd.DataFrame:
    """The decoder chosen for a recipe beside each other one, paired over the recordings of both.

    Of each recording, the difference in test score is averaged over folds and seeds that both have;
    the interval (Student's t) and the two-sided p (signs flipped) are over recordings; Holm's
    correction is for the comparisons of a recipe. One row a recipe and other decoder, columns as
    in `paired`; none for a single recording.
    """
    rows = []
    best = chosen(runs, ("group",)).drop_duplicates("group").set_index("group")["decoder"]
    for recipe, part in _validated(runs).groupby("group", sort=True):
        if recipe not in best:
            continue
        first = best[recipe]
        score = part.groupby(["decoder", *PLACE, "seed"])["value"].mean()
        compared = []
        for other in _others(part, first):
            differences = (score[first] - score[other]).dropna().groupby("recording").mean()
            if len(differences) < 2:
                continue
            low, high = stats.t_interval(differences.to_numpy(), -1.0, 1.0)
            compared.append(
                {"recipe": recipe, "recording": "all", "seed": "all", "chosen": first,
                 "other": other, "difference": differences.mean(), "low": low, "high": high,
                 "n": len(differences), "of": "recordings",
                 "p": stats.sign_flip_p(differences.to_numpy(), two_sided=True)}
            )  # fmt: skip
        rows += _adjusted(compared)
    return pd.DataFrame(rows)


def _others(part: pd.DataFrame, first: str) -> list[str]:
    """The decoders but one, the best on validation first."""
    mean = part.groupby("decoder")["val_accuracy"].mean().drop(first)
    return list(mean.sort_values(ascending=False).index)


def _difference(ours: pd.DataFrame, theirs: pd.DataFrame, seed: int = 0) -> stats.PairedDifference:
    """Share right of one decoder minus that of another; rows: the same test presentations."""
    return stats.paired_difference(
        ours["correct"].to_numpy(float),
        theirs["correct"].to_numpy(float),
        group=ours["group"].to_numpy(),
        seed=seed,
    )


def _adjusted(rows: list[dict]) -> list[dict]:
    """The comparisons of one decoder with the p values that their number asks for."""
    holm = stats.holm([row["p"] for row in rows]) if rows else []
    return [row | {"holm": float(p)} for row, p in zip(rows, holm, strict=True)]


def comparisons(runs: pd.DataFrame) -> pd.DataFrame:
    """The chosen decoder beside each other one: over recordings, where a recipe has several.

    A recipe with a single recording is compared over its test presentations (`paired`): that says
    which decoder reads this recording better, and nothing of others.
    """
    several = runs.groupby("group")["recording"].transform("nunique") > 1
    tables = [over_recordings(runs[several]), paired(runs[~several])]
    tables = [table for table in tables if len(table)]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def over_folds(runs: pd.DataFrame) -> pd.DataFrame:
    """Out-of-fold accuracy of every decoder that was run on more than one fold of a split.

    The test presentations of all folds are pooled; the spread is that over folds. One row a
    recipe, recording, decoder and seed, with what `scores.out_of_fold` gives; no row when nothing
    was run on several folds.
    """
    rows = []
    by = ["group", "recording", "decoder", "seed"]
    for who, part in runs.assign(decoder=label(runs)).groupby(by, sort=True):
        if len(part) > 1:
            pooled = scores.out_of_fold([load_run(f).predictions for f in part["folder"]])
            rows.append(dict(zip(("recipe", *by[1:]), who, strict=True)) | pooled)
    return pd.DataFrame(rows)


def learning_curves(runs: pd.DataFrame) -> pd.DataFrame:
    """The curves of 07, averaged over the recordings of a recipe: one row a decoder and k.

    Runs of different recipes, or with other settings, are curves of their own. Of one recording,
    the interval is that of its run (draws and presentations); of several, it is over
    recordings, as the question then is what another recording would give; recordings that lack a
    k are left out. Folds and seeds of a recording are averaged first. Columns as
    `plots.few_shot_curves` takes them, `n_recordings` and the `runs` behind it; no row without 07.
    """
    control = runs["variant"].str.contains("shuffle_labels", na=False).astype(bool)
    part = all_runs.clean(runs[(runs["notebook"] == FEW_SHOT) & ~control])
    named = part["variant"].str.extract(r"^k=(?P<k>\d+|all)(?:, )?(?P<rest>.*)$")
    part = part.assign(
        k=named["k"].replace("all", "0").astype(int),
        rest=named["rest"],
        per_class=part["n_train"] / part["n_classes"],
    )
    sets = list(part.groupby(["group", "changed", "rest"], sort=True))
    rows = []
    for who, curves in sets:
        suffix = ", ".join(filter(None, who)) if len(sets) > 1 else ""
        for model, curve in curves.groupby("model", sort=False):
            name = f"{model}, {suffix}" if suffix else model
            rows += [{"model": name, **point} for point in _curve(curve)]
    return pd.DataFrame(rows)


def _curve(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """One curve: a row for each k, over the recordings that have every k."""
    whole = runs.groupby("recording")["k"].nunique() == runs["k"].nunique()
    points = []
    for k, same in runs[runs["recording"].isin(whole.index[whole])].groupby("k", sort=False):
        numbers = ["value", "ci_low", "ci_high", "chance", "per_class"]
        each = same.groupby("recording")[numbers].mean()
        point = {"k": k, "n_recordings": len(each), **each.mean(), "runs": sorted(set(same["run"]))}
        if len(each) > 1:
            low, high = stats.fraction_interval(each["value"].to_numpy(float))
            point |= {"ci_low": low, "ci_high": high}
        points.append(point)
    return points


def against_in_words(
    run: dict[str, Any], predictions: pd.DataFrame, other: str, recipe: str
) -> str:
    """A run beside the stored run of `other`, or how to make that one, in a sentence.

    run: who the run at hand is (`decode.identity`); predictions: its table, one row a test
    presentation; recipe: what finds its recipe. The other one had the very same recipe, split, fold
    and seed, and defaults. The difference is right minus right, presentation by presentation.
    """
    if run["shuffle_labels"]:
        return "Labels are shuffled: this control is compared with nothing."
    runs = all_runs.clean(all_runs.scan())
    same = (runs["model"] == other) & (runs["variant"] == "")
    same &= runs["notebook"] == DECODERS[0]
    # The recipe to the letter: one derived from it has other bins, units or scaling.
    for name in ("recipe", "recording", "split_hash", "fold", "seed"):
        same &= runs[name] == run[name]
    if not same.any():
        more = "".join(f" -p {k} {run[k]}" for k in ("fold", "seed") if run[k])
        return (
            f"There is no run of `{other}` on this input and split to compare with; make it with "
            f"`nblib run {DECODERS[0]} -p recipe {recipe} "
            f"-p recording {run['recording']} -p model {other}{more}`."
        )
    theirs = load_run(runs.loc[same, "folder"].iloc[-1])
    answers = theirs.predictions.set_index("trial").loc[predictions["trial"]]
    d = _difference(predictions, answers, seed=run["seed"])
    verdict = "no difference that these presentations could show"
    if d.p < 0.05 and not d.ci_low <= 0 <= d.ci_high:  # interval and test must agree
        verdict = f"{run['model'] if d.value > 0 else other} is right more often"
    return (
        f"Beside `{other}` ({answers['correct'].to_numpy(float).mean():.1%}, run {theirs.key[:8]}) on "
        f"the same {d.n:,} test presentations: {d.value:+.1%} (95 % interval {d.ci_low:+.1%} to "
        f"{d.ci_high:+.1%}, p = {d.p:.2g} by sign flips): {verdict}."
    )
