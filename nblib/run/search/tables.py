"""What searches found: the tables and sentences of notebook 91.

Validation chose the winner out of many trials, so its validation score is too good to be believed;
the score on test presentations, which no trial has seen, is the honest one.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from nblib.core import store
from nblib.core.errors import CorruptArtifact, MissingInput
from nblib.core.markup import in_markdown
from nblib.evaluate.scores import FRACTION
from nblib.models import FitSettings
from nblib.run import plan
from nblib.run.search import definition
from nblib.run.search import trials as study_trials
from nblib.run.search.definition import Study

STATES = {"COMPLETE": "whole", "PRUNED": "given up early", "FAIL": "failed"}
OBJECTIVE_TEXT = {"val_accuracy": "validation accuracy", "val_loss": "validation loss [nats]"}
TRIALS = "trials.parquet"
SCORE = {"test": "value", "ci_low": "ci_low", "ci_high": "ci_high", "chance": "chance", "n_test": "n", "unit": "unit"}  # fmt: skip


def names() -> list[str]:
    """The sweeps that have searched something in this data root."""
    return sorted(p.parent.name for p in store.searches_dir().glob(f"*/{study_trials.CURRENT}"))


def current(name: str = "") -> list[Study]:
    """The studies of a sweep; name "" = the only one. MissingInput when there is none."""
    known = names()
    if name not in known and (name or len(known) != 1):
        known_as = f"there are {', '.join(known)}" if known else "none was run in this data root"
        raise MissingInput(
            f"search = {name!r}: {known_as}. Run one with:  nblib sweep params/sweeps/lab_search.yml"
        )
    folder = store.searches_dir() / (name or known[0])
    try:
        keys = json.loads((folder / study_trials.CURRENT).read_text(encoding="utf-8"))
    except ValueError as error:
        raise CorruptArtifact(
            f"{folder / study_trials.CURRENT}: not readable ({error}); call the sweep again."
        ) from None
    return [study_trials.read(folder / key) for key in keys]


def keys_read(params: definition.Params) -> list[str]:
    """Keys of what a report would be of if it were made now. MissingInput without any search."""
    return inputs(current(params.search))


def inputs(studies: list[Study]) -> list[str]:
    """What a report of these studies rests on: their trials and the runs that were tested."""
    keys = set()
    for study in studies:
        ended = sorted(study_trials.ended(study).items())
        states = [[i, trial.state.name, trial.value, trial.params] for i, trial in ended]
        name = study.folder().name
        keys.add(store.make_key("trials", definition.VERSION, {"trials": states}, [name]))
        keys |= {job.key for job in _tested(study) if job.committed}
    return sorted(keys)


def _tested(study: Study) -> list[plan.Job]:
    return [plan.job_of(*run) for run in study_trials.tested(study)]


def trials(studies: list[Study]) -> pd.DataFrame:
    """One row a trial: study, trial, state, value (NaN unless whole), a column for each setting,
    epochs, last (the objective of the last epoch), seconds, error."""
    rows = []
    for study in studies:
        for index, trial in sorted(study_trials.ended(study).items()):
            reported = trial.intermediate_values
            last = reported[max(reported)] if reported else None
            rows.append(
                {"study": study.title(), "trial": index, "state": STATES[trial.state.name],
                 "value": trial.value if trial.state.name == "COMPLETE" else None, **trial.params,
                 "epochs": max(reported, default=0), "last": last, "seconds": trial.duration.total_seconds(),
                 "error": trial.user_attrs.get("error", "")}
            )  # fmt: skip
    columns = ["study", "trial", "state", "value", "epochs", "last", "seconds", "error"]
    table = pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns)
    return table.astype({"value": float, "last": float})


def importances(studies: list[Study]) -> pd.DataFrame:
    """How much of the spread of the objective each setting explains: study, setting, share.

    A functional analysis of variance over the whole trials (Hutter et al. 2014); no row for a study
    with fewer than four of them, or whose trials all scored the same.
    """
    import optuna

    rows = []
    for study in studies:
        values = [t.value for t in study_trials.ended(study).values() if t.state.name == "COMPLETE"]
        if len(values) < 4 or len(set(values)) < 2:
            continue
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=study.search.seed)
        shares = optuna.importance.get_param_importances(
            study_trials.open_study(study), evaluator=evaluator
        )
        rows += [
            {"study": study.title(), "setting": k, "share": float(v)} for k, v in shares.items()
        ]
    return pd.DataFrame(rows, columns=["study", "setting", "share"])


def outcome(studies: list[Study]) -> pd.DataFrame:
    """The settings chosen and the settings as they were, side by side: two rows a study and test score.

    study, which, settings, validation (what validation says of that run), score (its name), test, ci_low,
    ci_high, chance, n_test, unit, key; of the runs in the store.
    """
    rows = []
    for study in studies:
        best = study_trials.best(study)
        names = ("chosen by validation", "as they were")
        for name, job in zip(names, _tested(study), strict=False):  # none before all trials ended
            if not job.committed:
                continue
            metrics = json.loads((job.folder / "metrics.json").read_text(encoding="utf-8"))
            settings = best.params if name == names[0] else _before(study, best.params)
            about = {
                "study": study.title(),
                "which": name,
                "settings": definition.settings_text(settings),
                "validation": metrics.get("val_accuracy", metrics.get("val_loss")),
            }
            for score, of in _test_scores(metrics).items():
                values = {to: of[field] for to, field in SCORE.items()}
                rows.append(about | {"score": score} | values | {"key": job.key})
    columns = ["study", "which", "settings", "validation", "score", *SCORE, "key"]
    return pd.DataFrame(rows, columns=columns)


def _test_scores(metrics: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The scores that a run is told by: its accuracy, or of several results those that it names itself."""
    if (headline := metrics.get("headline")) is None:
        return {"accuracy": metrics["scores"]["accuracy"]}
    return {
        row["variant"]: score
        for row in metrics["rows"]
        for metric, score in row["scores"].items()
        if row["model"] == headline["model"] and metric in headline["metrics"]
    }


def _before(study: Study, names: dict[str, Any]) -> dict[str, Any]:
    """The values that the settings searched have without a search, where they are told."""
    from nblib import models

    job = plan.job_of(*study.task({}))
    known = job.recipe.model_dump()
    if hasattr(job.params, "model"):
        decoder = models.make(job.params.model, job.params.model_params)
        known |= asdict(FitSettings.of({}, decoder.training))
        known |= {f"model_params.{k}": v for k, v in decoder.params.items()}
    known |= {k: v for k, v in job.params.model_dump().items() if v is not None}
    return {name: known[name] for name in names if name in known}


def outcome_table(outcomes: pd.DataFrame) -> pd.DataFrame:
    """`outcome` as people read it."""
    table = outcomes.copy()
    shares = table["unit"] == FRACTION
    for name in ("validation", "test", "ci_low", "ci_high", "chance"):
        table[name] = [_number(*pair) for pair in zip(table[name], shares, strict=True)]
    table.insert(6, "95 % interval (test)", table.pop("ci_low") + " to " + table.pop("ci_high"))
    return table.drop(columns="unit")


def _number(value: float, share: bool) -> str:
    return f"{value:.1%}" if share else f"{value:.3f}"


def save(trials: pd.DataFrame, folder: Path) -> None:
    """Write the table of trials."""
    trials.to_parquet(folder / TRIALS, index=False)


def _beside(new: Any, old: pd.Series) -> str:
    """A test score of the settings chosen, its interval, and that of the settings as they were."""
    value, low, high, chance, before = (
        _number(x, new.unit == FRACTION)
        for x in (new.test, new.ci_low, new.ci_high, new.chance, old["test"])
    )
    return (
        f"{new.score} {value} (95 % interval {low} to {high}, chance {chance}, {new.n_test:,} trials; "
        f"the settings as they were: {before})"
    )


def in_words(studies: list[Study], trials: pd.DataFrame, tested: pd.DataFrame) -> str:
    """What each search came to, in a sentence with the test score of the settings chosen."""
    parts = []
    for study in studies:
        of_study = trials[trials["study"] == study.title()]
        count = of_study["state"].value_counts()
        counted = ", ".join(f"{count[s]} {s}" for s in STATES.values() if s in count)
        line = f"- {in_markdown(study.title())}: {len(of_study)} trials ({counted})"
        rows = tested[tested["study"] == study.title()]
        chosen = rows[rows["which"] == "chosen by validation"]
        before = rows[rows["which"] == "as they were"].set_index("score")
        if len(chosen) and len(chosen) == len(before):
            line += f". The settings chosen ({in_markdown(chosen['settings'].iloc[0])}) score on test trials"
            line += (
                f" {'; '.join(_beside(new, before.loc[new.score]) for new in chosen.itertuples())}"
            )
        elif len(of_study) < study.search.trials:
            line += f" of {study.search.trials}. Nothing was tested: the others have not ended"
        elif "whole" not in count:
            line += f". Nothing was tested: none ran to its end ({in_markdown((of_study['error'].tolist() or [''])[0])})"
        parts.append(f"{line.rstrip('.')}.")
    return (
        "**Result.** No trial has seen test presentations; what was chosen is tested when all trials have "
        "ended.\n\n" + "\n".join(parts)
    )
