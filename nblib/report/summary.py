"""What 90 says about all runs: the tables as people read them, and the result in words.

`runs` is a scan of `results`; what is compared or averaged are rows of `all_runs.comparable`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from nblib.core.markup import in_markdown
from nblib.evaluate.result import readable
from nblib.evaluate.scores import SCORE_TEXT
from nblib.report import all_runs, model_choice, published
from nblib.road.stage_registry import DECODERS

INTERVAL = "{ci_low:.1%} to {ci_high:.1%}"


def save(runs: pd.DataFrame, folder: Path, leaks: pd.DataFrame) -> None:
    """Write a scan of runs, runs.parquet with every column and runs.csv, and the audit's table."""
    runs.to_parquet(folder / "runs.parquet", index=False)
    runs.to_csv(folder / "runs.csv", index=False)
    leaks.to_parquet(folder / "audit.parquet", index=False)


def inputs(runs: pd.DataFrame) -> list[str]:
    """What a report of these runs is made from: their keys, and published numbers beside them."""
    return sorted(runs["key"]) + published.contents(runs["recording"])


def keys_read(params: all_runs.Params) -> list[str]:
    """Keys of what a report would be of if it were made now."""
    return inputs(all_runs.scan(params.recipe, params.metric))


# --- tables --------------------------------------------------------------------------------------


def in_order(runs: pd.DataFrame) -> pd.DataFrame:
    """A scan as people read it: runs that are compared first, those with a flag last, best first."""
    compared = runs["run"].isin(all_runs.comparable(runs)["run"])
    place = (runs["flag"] != "").astype(int) * 2 - compared.astype(int)
    by_score = runs.assign(_place=place).sort_values(
        ["_place", "value"], ascending=[True, False], kind="stable", na_position="last"
    )
    return by_score.drop(columns="_place")


def differs(runs: pd.DataFrame) -> pd.Series:
    """What tells each run from a plain one of 05 of its model: settings, recipe, fold, flag, ..."""
    several = len(set(runs["group"])) > 1

    def words(run: Any) -> str:
        numbers = {"fold": run.fold, "seed": run.seed}
        plain = run.metric in ("accuracy", None)
        parts = [
            run.variant,
            run.changed,
            run.group if several else "",
            "" if run.notebook in DECODERS else run.notebook[:2],
            *(f"{name} {n:g}" for name, n in numbers.items() if pd.notna(n) and n > 0),
            "" if plain else SCORE_TEXT.get(run.metric, run.metric),
            run.flag,
        ]
        return ", ".join(filter(None, parts))

    return pd.Series([words(run) for run in runs.itertuples()], index=runs.index, dtype=object)


def runs_table(runs: pd.DataFrame) -> pd.DataFrame:
    """A scan of runs in order, as people read it: what differs, scores in percent with interval."""
    runs = in_order(runs)
    null = [f", {null}" if null else "" for null in runs["null"].fillna("")]
    model = runs["model"].fillna(runs["notebook"])
    runs = runs.assign(model=model, differs=differs(runs), null=null)
    columns = {
        "run": "{run}",
        "model": "{model}",
        "recording": "{recording}",
        "differs": "{differs}",
        "score": "{value:.1%}",
        "95 % interval": INTERVAL,
        "chance": "{chance:.1%}",
        "p": "{p:.2g}{null}",
        "best possible": "{oracle:.1%}",
        "validation": "{val_accuracy:.1%}",
        "n_test": "{n_test}",
    }
    return readable(runs, columns).astype({"n_test": "Int64"}).reset_index(drop=True)


def short_table(runs: pd.DataFrame, width: int) -> str:
    """`runs_table` as lines of at most `width` characters, 80 or more.

    Model, recording, what differs, score with its interval, best possible score. What does not fit
    ends with "…".
    """
    table = runs_table(runs)
    within = table["95 % interval"].map(lambda text: f" ({text})" if text else "")
    columns = {
        "model": table["model"],
        "recording": table["recording"],
        "differs": table["differs"],
        "accuracy, 95 % interval": table["score"].str.rjust(6) + within,
        "best": table["best possible"],
    }
    columns = {name: [name, *cells] for name, cells in columns.items()}
    room = {name: max(map(len, cells)) for name, cells in columns.items()}
    room |= {"model": min(room["model"], 18), "recording": min(room["recording"], 14)}
    others = sum(size + 2 for name, size in room.items() if name != "differs")
    room["differs"] = min(room["differs"], width - others)
    cells = [[_cut(c, room[name]) for c in column] for name, column in columns.items()]
    return "\n".join("  ".join(line).rstrip() for line in zip(*cells, strict=True))


def _cut(text: str, width: int) -> str:
    return text.ljust(width) if len(text) <= width else f"{text[: width - 1]}…"


def comparison_table(compared: pd.DataFrame) -> pd.DataFrame:
    """`model_choice.comparisons` as people read them, without what is the same in every row."""
    columns = {
        **{name: f"{{{name}}}" for name in ("recipe", "recording", "seed", "chosen", "other")},
        "difference": "{difference:+.1%}",
        "95 % interval": "{low:+.1%} to {high:+.1%}",
        "n": "{n}",
        "of": "{of}",
        "p, sign flips": "{p}",
        "p, Holm": "{holm}",
    }
    return _narrow(compared.round({"p": 4, "holm": 4}), columns)


def folds_table(pooled: pd.DataFrame) -> pd.DataFrame:
    """`model_choice.over_folds` as people read it, without what is the same in every row."""
    columns = {
        **{name: f"{{{name}}}" for name in ("recipe", "recording", "decoder", "seed")},
        "folds": "{n_folds}",
        "pooled accuracy": "{value:.1%}",
        "95 % interval": INTERVAL,
        "chance": "{chance:.1%}",
        "p, labels permuted in folds": "{p:.2g}",
        "n": "{n}",
        "sd over folds": "{fold_sd:.1%}",
        "lowest fold": "{fold_min:.1%}",
        "highest fold": "{fold_max:.1%}",
    }
    return _narrow(pooled, columns)


def _narrow(table: pd.DataFrame, columns: dict[str, str]) -> pd.DataFrame:
    """Readable, without the columns recipe, recording and seed that are the same in every row."""
    if table.empty:
        return table
    same = [name for name in ("recipe", "recording", "seed") if len(set(table[name])) == 1]
    return readable(table, columns).drop(columns=same)


# --- words ---------------------------------------------------------------------------------------


def in_words(
    runs: pd.DataFrame,
    metric: str = "accuracy",
    leaks: str = "",
    compared: pd.DataFrame | None = None,
) -> str:
    """The decoder that validation chooses for each recipe, how it did on test, the audit's verdict.

    runs: as in `all_runs.comparable`; compared: their `model_choice.comparisons`, when they were made.
    """
    if len(runs) == 0:
        return f"**Result.** There is no run to compare yet. {leaks}".rstrip()
    versions = map(in_markdown, all_runs.several_versions(runs))
    lines = [*verdicts(runs, metric, compared, by=("group",)), *versions, leaks]
    return (
        f"**Result.** {len(runs)} runs compared. The decoder with the highest validation accuracy, "
        "and its score on test presentations:\n\n"
        + "\n".join(f"- {line}" for line in lines if line)
    )


def verdicts(
    runs: pd.DataFrame,
    metric: str = "accuracy",
    compared: pd.DataFrame | None = None,
    by: tuple[str, ...] = model_choice.EACH,
) -> list[str]:
    """A sentence for each recording of a recipe (or each recipe, see `model_choice.chosen`), as Markdown."""
    lines = []
    best = dict(iter(model_choice.chosen(runs, by).groupby(list(by))))
    for who, _ in runs.groupby(list(by), sort=True):
        recipe, recording = who[0], who[-1]
        name = recipe if recipe.startswith(recording) else f"{recording} ({recipe})"
        sentence = "validation chooses none: no two decoders with a validation score were run on the same recordings and folds."
        if who in best:
            others = pd.DataFrame() if compared is None else compared
            if len(others):
                others = others[others[["recipe", "recording"][: len(by)]].eq(who).all(axis=1)]
            sentence = verdict(best[who], metric, others)
        lines.append(f"{in_markdown(name)}: {sentence}")
    return lines


def verdict(best: pd.DataFrame, metric: str, compared: pd.DataFrame, name: str = "") -> str:
    """What there is to say of the decoder that validation chose, as Markdown.

    best: its runs (`model_choice.chosen`); compared: its rows of `model_choice.comparisons`; name: what stands
    for it, "" = its own name.
    """
    first = best.iloc[0]
    several, n = len(best) > 1, best["recording"].nunique()
    name = name or in_markdown(first["decoder"])
    rivals = f"out of {first['rivals']} decoders" if first["rivals"] > 1 else "the only decoder"
    score = best.groupby("recording")["value"].mean().mean()
    spread = f"95 % interval {first['ci_low']:.1%} to {first['ci_high']:.1%}"
    if several:
        spread = f"{len(best)} runs, {best['value'].min():.1%} to {best['value'].max():.1%}"
    known = best["oracle"].dropna()
    possible = f", best possible {known.mean():.1%}" if len(known) else ""
    where = f" over {n} recordings" if n > 1 else ""
    sentences = [
        f"**{name}**, {rivals}, with {'a mean' if several else 'an'} {SCORE_TEXT[metric]} of "
        f"{score:.1%}{where} ({spread}, chance {best['chance'].mean():.1%}{possible})."
    ]
    if out := first["left_out"]:
        sentences.append(f"{out} more, not run on the same recordings and folds, took no part.")
    return " ".join([*sentences, in_markdown(standing(compared))]).rstrip()


def standing(compared: pd.DataFrame) -> str:
    """How one chosen decoder stands beside the others on test, in a sentence; "" without any.

    compared: its rows of `model_choice.comparisons`. A difference counts where its interval lies off 0
    and the adjusted p below .05; interval and test must agree.
    """
    if compared.empty:
        return ""
    apart = compared["holm"] < 0.05
    worse = compared[apart & (compared["high"] < 0)]["other"].unique()
    alike = compared[~(apart & ((compared["low"] > 0) | (compared["high"] < 0)))]["other"].unique()
    sentences = []
    if len(worse):
        sentences.append(f"On test it is beaten by {_few(worse)}, which has no part in the choice.")
    if len(alike):
        sentences.append(f"On test it cannot be told apart from {_few(alike)}.")
    return " ".join(sentences) or f"On test it beats {_few(compared['other'].unique())}."


def _few(names: Any) -> str:
    """Names in a row, at most five of them."""
    names = list(names)
    shown = names if len(names) <= 5 else [*names[:4], f"{len(names) - 4} others"]
    return " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))
