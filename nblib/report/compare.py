"""The decoder that validation chooses, and how it stands beside each other one.

`runs` are rows of `results.comparable`. Test scores have no part in the choice; they judge it.
"""

from __future__ import annotations

import pandas as pd

from nblib.evaluate import stats
from nblib.report.runs import load_run

EACH = ("group", "recording")
COMPARED = ["recipe", "recording", "seed", "chosen", "other", "difference", "95 % interval", "n", "of", "p", "p, Holm"]  # fmt: skip
PLACE = ["recording", "split_hash", "fold"]


def label(runs: pd.DataFrame) -> pd.Series:
    """What tells the decoders of one recording apart: model, and settings that are not default."""
    more = [
        ", ".join(filter(None, pair)) for pair in zip(runs["variant"], runs["changed"], strict=True)
    ]
    named = [f"{m} ({v})" if v else m for m, v in zip(runs["model"], more, strict=True)]
    return pd.Series(named, index=runs.index, dtype=object)


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
    known = runs[runs["val_accuracy"].notna()].assign(decoder=label(runs))
    parts = [known.iloc[:0].assign(rivals=0, left_out=0)]
    for _, part in known.groupby(list(by), sort=True):
        places = {
            name: frozenset(own[PLACE].itertuples(index=False, name=None))
            for name, own in part.groupby("decoder")
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
    known = runs[runs["val_accuracy"].notna()].assign(decoder=label(runs))
    for (recipe, recording, seed, _), part in known.groupby(
        ["group", "recording", "seed", "split_hash"], sort=True
    ):
        first = best.get((recipe, recording))
        folders = {name: g.set_index("fold")["folder"] for name, g in part.groupby("decoder")}
        if first not in folders:
            continue
        mean = part.groupby("decoder")["val_accuracy"].mean().drop(first)
        answers: dict[str, pd.DataFrame] = {}
        found = []
        for other in mean.sort_values(ascending=False).index:
            both = sorted(set(folders[first].index) & set(folders[other].index))
            pairs = [(folders[first][fold], folders[other][fold]) for fold in both]
            for folder in (f for pair in pairs for f in pair if f not in answers):
                answers[folder] = load_run(folder).predictions.set_index("trial")
            if not pairs or any(set(answers[a].index) != set(answers[b].index) for a, b in pairs):
                continue  # not the same test presentations: the audit on this page names the run
            mine = pd.concat([answers[a] for a, _ in pairs])
            others = pd.concat([answers[b].loc[answers[a].index] for a, b in pairs])
            d = stats.paired_difference(
                mine["correct"].to_numpy(float),
                others["correct"].to_numpy(float),
                group=mine["group"].to_numpy(),
            )
            found.append(
                {"recipe": recipe, "recording": recording, "seed": seed, "chosen": first,
                 "other": other, "difference": d.value, "low": d.ci_low, "high": d.ci_high,
                 "n": d.n, "of": "presentations", "p": d.p}
            )  # fmt: skip
        rows += _adjusted(found)
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
    known = runs[runs["val_accuracy"].notna()].assign(decoder=label(runs))
    for recipe, part in known.groupby("group", sort=True):
        if recipe not in best:
            continue
        first = best[recipe]
        score = part.groupby(["decoder", *PLACE, "seed"])["value"].mean()
        mean = part.groupby("decoder")["val_accuracy"].mean().drop(first)
        found = []
        for other in mean.sort_values(ascending=False).index:
            differences = (score[first] - score[other]).dropna().groupby("recording").mean()
            if len(differences) < 2:
                continue
            low, high = stats.t_interval(differences.to_numpy(), -1.0, 1.0)
            found.append(
                {"recipe": recipe, "recording": "all", "seed": "all", "chosen": first,
                 "other": other, "difference": differences.mean(), "low": low, "high": high,
                 "n": len(differences), "of": "recordings",
                 "p": stats.sign_flip_p(differences.to_numpy(), two_sided=True)}
            )  # fmt: skip
        rows += _adjusted(found)
    return pd.DataFrame(rows)


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


def table(compared: pd.DataFrame) -> pd.DataFrame:
    """Comparisons as people read them, without what is the same in every row."""
    if compared.empty:
        return compared
    shown = compared.assign(**{
        "difference": compared["difference"].map("{:+.1%}".format),
        "95 % interval": [f"{a:+.1%} to {b:+.1%}" for a, b in zip(compared["low"], compared["high"], strict=True)],
        "p, Holm": compared["holm"],
    }).round({"p": 4, "p, Holm": 4})  # fmt: skip
    return narrow(shown[COMPARED])


def narrow(shown: pd.DataFrame) -> pd.DataFrame:
    """Without the columns recipe, recording and seed where they are the same in every row."""
    same = [c for c in ("recipe", "recording", "seed") if c in shown and len(set(shown[c])) == 1]
    return shown.drop(columns=same)


def standing(compared: pd.DataFrame) -> str:
    """How one chosen decoder stands beside the others on test, in a sentence; "" without any.

    compared: its rows of `comparisons`. A difference counts where its interval lies off 0 and the
    adjusted p below .05; interval and test must agree.
    """
    if compared.empty:
        return ""
    apart = compared["holm"] < 0.05
    worse = compared[apart & (compared["high"] < 0)]["other"]
    alike = compared[~(apart & ((compared["low"] > 0) | (compared["high"] < 0)))]["other"]
    told = []
    for names, what in (
        (worse, "On test it is beaten by {}, which has no part in the choice."),
        (alike, "On test it cannot be told apart from {}."),
    ):
        if len(names):
            told.append(what.format(_few(list(dict.fromkeys(names)))))
    return " ".join(told) or f"On test it beats {_few(compared['other'].unique().tolist())}."


def _few(names: list[str]) -> str:
    """Names in a row, at most five of them."""
    shown = names if len(names) <= 5 else [*names[:4], f"{len(names) - 4} others"]
    return " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))
