"""One model of several sessions that decodes, encodes and imputes, beside linear ones and the best possible (12)."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from nblib.core.errors import BadParameter
from nblib.core.markup import in_markdown
from nblib.evaluate import ratios
from nblib.evaluate.result import Result, Row
from nblib.experiments.multimodal import answers, further, judge, transfer
from nblib.models.multimodal import fitting
from nblib.models.multimodal.branch import PSTH, Branch, at_rest, fit_branch
from nblib.models.multimodal.tasks import (
    AREAS,
    BEHAVIOUR,
    IMPUTING,
    NETWORK,
    Task,
    decoding,
    encoding,
)
from nblib.prepare import sessions as prepared

if TYPE_CHECKING:
    from nblib.core.params import Recipe
    from nblib.models.multimodal.model import Multimodal
    from nblib.prepare.sessions import Session

OF_PSTH = {"model": PSTH, "variant": BEHAVIOUR}
BESIDE = ("passport", "inflation", "bands", "embeddings", "causal", "transfer")


def load_sessions(
    split: list[Path], counts: list[Path], recipe: Recipe, params: judge.Params
) -> list[Session]:
    """The sessions of the recipe (see `prepared.load_sessions`), with behaviour of other trials as a control.

    Raises BadParameter for a `new` recording that is not there, and where no other is left.
    """
    if unknown := sorted(set(params.new) - set(recipe.recordings)):
        raise BadParameter(f"new: {unknown[0]!r} is not in recipe {recipe.recipe!r}.")
    if set(params.new) == set(recipe.recordings):
        raise BadParameter("new: no recording is left to learn from.")
    loaded = prepared.load_sessions(split, counts, recipe, params.fold)
    tasks = [task.name for task in (*decoding(loaded[0]), *encoding(loaded[0]), *IMPUTING)]
    if twice := {name for name in tasks if tasks.count(name) > 1}:
        raise BadParameter(
            f"signals and variables: two tasks would be called {twice.pop()!r}; rename a signal or variable."
        )
    for one, n in product(loaded, params.budgets):
        if one.name in params.new:
            transfer.with_few(one, n, params.seed)  # refuses more than there are, before any work
    if params.shuffle_labels:
        return [prepared.shuffled(one, params.seed + k) for k, one in enumerate(loaded)]
    return loaded


def run(
    loaded: list[Session], recipe: Recipe, params: judge.Params, folder: Path | None = None
) -> Result:
    """Fit linear models and the network, and score every task on test trials.

    Tables: against (see `judge.against_linear`), history (of the training), passport (see `judge`), inflation,
    bands, embeddings and areas (see `further`), transfer (see `transfer.curve`) and causal
    (see `price`); the last three are empty where they are not asked for.
    """
    sessions = [one for one in loaded if one.name not in params.new]
    branch, model, history = fitted(sessions, params, folder)
    model = answers.of_network(model, sessions, branch)
    known = not (params.shuffle_labels or params.causal)
    best, rows = answers.ceilings(sessions, recipe) if known else {}, []
    for task, by in branch.answers.items():
        limit = judge.scores(task, best[task.name], sessions, params) if task.name in best else {}
        for name, answer in by.items():
            of = {"model": name, "variant": task.name}
            for metric, score in judge.scores(task, answer, sessions, params).items():
                what = f"{task.name}, {name}: {metric}"
                rows.append(Row(what, score, limit.get(metric), of, metric))
    about = {
        "split_hash": loaded[0].split_hash,
        "n_train": sum(len(one.rows("train")) for one in sessions),
        "n_test": sum(len(one.rows("test")) for one in sessions),
        "n_bins": sessions[0].counts.shape[1],
        "n_units": sum(len(one.unit_ids) for one in sessions),
        "n_sessions": len(sessions),
        "fit_s": history.attrs["fit_s"],
        "best_epoch": history.attrs["best_epoch"],
        "val_loss": history.attrs["best_val_loss"],
        "headline": {"model": NETWORK, "metrics": judge.SHOWN},
    }
    spikes, new = encoding(sessions[0])[0], [one for one in loaded if one.name in params.new]
    by_area, beside = sessions if params.by_area else [], branch.chosen[Task(AREAS, "impute")]
    tables = {
        "against": judge.against_linear(branch, model.trust, sessions, params),
        "history": history,
        "passport": judge.passport(spikes, branch.answers[spikes], sessions),
        "inflation": further.inflation(sessions, branch, params),
        "bands": further.bands(branch, sessions),
        "embeddings": further.areas_of_units(model, params),
        "areas": further.areas(model, by_area, beside, params),
        "causal": price(model, branch, sessions, params) if params.causal else pd.DataFrame(),
        "transfer": transfer.curve(new, model, recipe, params),
    }
    return Result(rows, about, tables, files=[model])


def fitted(
    sessions: list[Session], params: judge.Params, folder: Path | None = None, whole: bool = True
) -> tuple[Branch, Multimodal, pd.DataFrame]:
    """The linear models, the network, and how its training went."""
    branch = fit_branch(sessions, params.causal, whole=whole)
    return branch, *_network(sessions, branch, params, folder)


def _network(
    sessions: list[Session], branch: Branch, params: judge.Params, folder: Path | None = None
) -> tuple[Multimodal, pd.DataFrame]:
    more = {"compiled": params.compiled, "processes": params.processes}
    settings = params.fit_settings, params.shape, params.mix
    return fitting.fit(sessions, branch, *settings, folder, **more)


def trial(
    split: list[Path], counts: list[Path], recipe: Recipe, params: judge.Params
) -> dict[str, float]:
    """What validation trials say of these parameters: val_loss, of decoding, after the last epoch.

    split, counts: folders of the artifacts of 04 and 03, one a recording of the recipe.
    """
    loaded = load_sessions(split, counts, recipe, params)
    sessions = [one for one in loaded if one.name not in params.new]
    rest = [at_rest(one, one.known) for one in sessions]
    alone = Branch({}, {}, [{} for _ in sessions], rest, {})  # a network needs no linear models
    _, history = _network(sessions, alone, params)
    return {"val_loss": history.attrs["best_val_loss"]}


def price(
    model: Multimodal, branch: Branch, sessions: list[Session], params: judge.Params
) -> pd.DataFrame:
    """What it costs that no later bin is seen: for each signal R2 beyond the mean course of the network, that of
    one that sees all bins, the difference with its interval, and how long a call takes (see `further.latency`)."""
    all_bins = params.model_copy(update={"causal": False})
    beside, free, _ = fitted(sessions, all_bins, whole=False)
    answers.of_network(free, sessions, beside)
    rows = []
    for task in (task for task in branch.answers if task.kind == "signal"):
        pair = [one.answers[task][NETWORK] for one in (beside, branch)]
        both = [judge.earned(task, answer, sessions)[judge.BEYOND_COURSE] for answer in pair]
        cost = judge.difference(task, *pair, sessions, params)[1:]
        rows.append((task.name, *map(ratios.value, reversed(both)), *cost))
    table = pd.DataFrame(rows, columns=["task", "causal", "all_bins", "price", "ci_low", "ci_high"])
    return table.assign(**further.latency(model, sessions[0]))


def beside(result: Result) -> list[pd.DataFrame]:
    """The tables `BESIDE` the scores, as people read them; without those that are empty."""
    return [
        table.dropna(axis=1, how="all").round(3).rename_axis(columns=name)
        for name, table in result.tables.items()
        if name in BESIDE and len(table)
    ]


def in_words(result: Result) -> str:
    """How near the network comes to the best possible, and every task where a linear model does as well."""
    near = [
        f"{in_markdown(row.of['variant'])} {row.score.value:.3f} of {row.best.value:.3f}"
        for row in result.rows
        if row.metric in judge.SHOWN and row.of["model"] == NETWORK and row.best is not None
    ]
    table = result.tables["against"]
    wins = table[table["ci_low"] > 0]["task"].tolist()
    others = table[table["ci_low"] <= 0]["task"].tolist()
    text = (
        f"**Result.** One network of {result.about['n_sessions']} sessions answers {len(table)} tasks on "
        f"{result.about['n_test']} test trials. "
    )
    if near:
        text += f"It reaches, of what is possible: {'; '.join(near)}. "
    if wins:
        text += f"It is better than the best linear model at {in_markdown(', '.join(wins))}"
        if others:
            text += f"; at {in_markdown(', '.join(others))} a linear model does as well or better"
    else:
        text += "At no task is it better than the best linear model"
    rests = {row.metric: row.score.value for row in result.rows if row.of == OF_PSTH}
    apart = rests[judge.OVER_TRAIN] - rests[judge.OVER_TEST]
    text += f". Rates drift from train to test by {apart:.3f} bits a spike."
    return text + transfer.in_words(result.tables["transfer"])
