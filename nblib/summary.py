"""What 90 says about all runs: the table as people read it, and the result in words."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

METRIC_TEXT = {
    "accuracy": "accuracy",
    "top5": "top-5 accuracy",
    "balanced_accuracy": "balanced accuracy",
}


def runs_table(runs: pd.DataFrame) -> pd.DataFrame:
    """A scan of runs as people read it: best first, scores in percent with their interval."""

    def percent(x: float) -> str:
        return "" if pd.isna(x) else f"{x:.1%}"

    runs = runs.sort_values("value", ascending=False, kind="stable", na_position="last")
    interval = [
        f"{percent(a)} to {percent(b)}"
        for a, b in zip(runs["ci_low"], runs["ci_high"], strict=True)
    ]
    return pd.DataFrame(
        {
            **{name: runs[name] for name in ("recipe", "recording", "model", "variant")},
            "score": runs["value"].map(percent),
            "95 % interval": interval,
            "chance": runs["chance"].map(percent),
            "p": runs["p"].map("{:.2g}".format),
            "best possible": runs["oracle"].map(percent),
            **{name: runs[name] for name in ("fold", "seed", "n_test", "flag", "key")},
        }
    ).reset_index(drop=True)


def save(runs: pd.DataFrame, folder: Path) -> None:
    """Write a scan of runs: runs.parquet with every column, runs.csv for a spreadsheet."""
    runs.to_parquet(folder / "runs.parquet", index=False)
    runs.to_csv(folder / "runs.csv", index=False)


def in_words(runs: pd.DataFrame, metric: str = "accuracy") -> str:
    """The decoder that validation chooses for each recipe, and its test score.

    runs: as in `results.clean`. Test scores have no part in the choice.
    """
    if len(runs) == 0:
        return "**Result.** There is no run to compare yet."
    parts = []
    runs = runs[~runs["variant"].str.contains("shuffle_labels")]  # a control, not a decoder
    named = runs["model"] + runs["variant"].map(lambda v: f" ({v})" if v else "")
    for recipe, part in runs.assign(model=named).groupby("recipe", sort=True):
        mean = part.groupby("model")[["value", "chance", "val_accuracy"]].mean()
        if mean["val_accuracy"].isna().all():
            continue
        best = mean["val_accuracy"].idxmax()
        n = part.loc[part["model"] == best, "recording"].nunique()
        where = f"over {n} recordings " if n > 1 else ""
        known = part.loc[part["model"] == best, "oracle"].dropna()
        possible = f", against a best possible of {known.mean():.1%}" if len(known) else ""
        parts.append(
            f"- {recipe}: **{best}** with a mean {METRIC_TEXT[metric]} of {mean.loc[best, 'value']:.1%} "
            f"{where}(chance {mean.loc[best, 'chance']:.1%}){possible}."
        )
    return (
        f"**Result.** {len(runs)} runs compared. The decoder with the highest validation accuracy, "
        "and its score on test presentations:\n\n" + "\n".join(parts)
    )
