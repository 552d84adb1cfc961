"""The checks of the audit, one function a leak: each takes one run, or all of them, and says what is wrong.

A fault is a sentence where something leaks, an error where that cannot be told.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from nblib.core.errors import NblibError
from nblib.data.counts_dataset import to_ns
from nblib.data.trials.time_intervals import merged, touches
from nblib.experiments.pretext import TASKS
from nblib.prepare.stored_splits import RUNS_AND_RANDOM
from nblib.report import all_runs
from nblib.report.audit.files import (
    Files,
    embedders,
    subjects_of,
)
from nblib.report.one_run import HISTORY, Run
from nblib.road.stage_registry import STAGES


class Untold(NblibError):
    """Whether something leaks cannot be told."""


Fault = str | Exception
Across = tuple[int, list[tuple[Path, Fault]]]  # how many were looked at; folder of a run, its fault


def gap_s(run: Run) -> float:
    """Time that the split of a run keeps free between roles [s]; 0 of one at random."""
    recipe = run.manifest["recipe"]
    besides = recipe["split"] == "segments" or recipe["binning"] == "continuous"
    context = sum(recipe["context_s"]) if besides else 0.0
    return 0.0 if recipe["split"] == "random" else float(recipe["gap_s"]) + context


def role_faults(split: pd.DataFrame, gap_s: float) -> Iterator[str]:
    """What is wrong with the roles of a split (see `split_roles.make_split`), in sentences.

    gap_s: time that must lie between presentations that judge and those that teach [s]; with 0
    they must not overlap.
    """
    for fold, part in split.groupby("fold"):
        teaching = part[part["role"] != "gap"]
        for name in ("trial", "group"):
            pairs = teaching[[name, "role"]].drop_duplicates()
            several = pairs[pairs[name].duplicated(keep=False)].sort_values([name, "role"])
            if len(several):
                first = several[several[name] == several[name].iloc[0]]
                yield (
                    f"{several[name].nunique()} {name}(s) of fold {fold} have several roles, first "
                    f"{first[name].iloc[0]} ({', '.join(first['role'])})"
                )
        if (again := part["trial"].duplicated()).any():
            yield f"trial {part['trial'][again].iloc[0]} of fold {fold} stands twice"
        start, stop = to_ns(part["start_s"].to_numpy()), to_ns(part["stop_s"].to_numpy())
        gap, role = round(gap_s * 1e9), part["role"].to_numpy()
        for judge, losers in (("test", ("train", "val")), ("val", ("train",))):
            held = role == judge
            zone = merged(np.column_stack([start[held] - gap, stop[held] + gap]))
            near = np.isin(role, losers) & touches(start, stop, zone)
            if near.any():
                yield (
                    f"{near.sum()} of {' and '.join(losers)} in fold {fold} lie within {gap_s:g} s of {judge}, "
                    f"first trial {part['trial'].to_numpy()[near][0]}"
                )
    tested = split[split["role"] == "test"]["trial"]
    if (again := tested.duplicated()).any():
        yield f"trial {tested[again].iloc[0]} is tested in several folds"


def test_rows(run: Run, files: Files) -> list[Fault] | None:
    """Whether a run answered for its test rows, all of them and no other."""
    info = STAGES[run.stage]
    name = info.answers
    if run.split is None or (predictions := run.table(name, "trial")) is None:
        return None
    test, answered, faults = files.rows(run, "test"), set(predictions["trial"]), []
    taught = answered & (files.rows(run, "train") | files.rows(run, "val"))
    if taught:
        faults.append(
            f"{len(taught)} predictions are of rows that taught, first trial {min(taught)}"
        )
    elif other := answered - test:
        faults.append(f"{len(other)} predictions are of no test row, first trial {min(other)}")
    if info.compared:
        if missing := test - answered:
            faults.append(
                f"{len(missing)} test rows have no prediction, first trial {min(missing)}"
            )
        if len(answered) < len(predictions["trial"]):
            faults.append("a test row is predicted twice")
        for role in ("train", "val", "test"):
            n, stored = run.metrics[f"n_{role}"], len(files.rows(run, role))
            if n != stored:
                faults.append(f"the run counts {n} {role} rows, its split {stored}")
    return faults


def random_split(run: Run, files: Files) -> list[Fault] | None:
    """Whether presentations were drawn at random for the test although their labels come in runs."""
    if run.split is None:
        return None
    if run.manifest["recipe"]["split"] == "random" and files.block(run.split) > 1:
        return [RUNS_AND_RANDOM]
    return []


def choice(run: Run, files: Files) -> list[Fault] | None:
    """Whether validation chose what a run chose (epoch, penalty): the kept one has the lowest
    validation loss, and the stored model gives that loss and that accuracy on the validation rows.

    Of 08 its own record is read alone: the pairs that it drew are not stored. So is that of a run
    with `refit`, whose stored model is another than the one that was chosen: a record that agrees
    with itself leaves untold whether validation rows chose before they taught.
    """
    if not STAGES[run.stage].chosen:
        return None
    history, value = run.table(HISTORY), run.metrics.get("val_accuracy")
    if value is None:
        raise Untold("no validation accuracy is recorded")
    if history is None:
        raise Untold("it holds no history")
    if seen := [name for name in history if "test" in name]:
        return [f"test scores stood beside its epochs: {seen[0]}"]
    if missing := {"epoch", "val_loss", "val_accuracy"} - set(history):
        raise Untold(f"its history holds no {', '.join(sorted(missing))}")
    losses = history["val_loss"]
    best = losses.argmin()
    refit = run.manifest["parameters"].get("refit", False)
    if refit or STAGES[run.stage].cohort:
        accuracy = history["val_accuracy"][best]
        if abs(accuracy - value) > 1e-6:
            return [
                f"its validation accuracy {value:.4f} is not that of the epoch with the lowest validation loss, {accuracy:.4f}"
            ]
        if not refit:
            return []
    epoch = run.config["training"]["best_epoch"]
    if epoch not in history["epoch"]:
        raise Untold(f"it kept epoch {epoch}, of which its history says nothing")
    kept = losses[history["epoch"] == epoch][0]
    if kept > losses[best]:
        return [
            f"it kept epoch {epoch}, whose validation loss is {kept:.4f}; epoch {history['epoch'][best]} has the lowest, {losses[best]:.4f}"
        ]
    if refit:
        raise Untold(
            "validation rows taught its model again after the choice (refit); its record of the choice agrees with itself, and no model is left to ask"
        )
    again = files.answers(run, "val")
    if abs(again.loss - kept) > again.slack:
        of_test = abs(files.answers(run, "test").loss - kept) <= again.slack
        which = ", but that on the test rows" if of_test else ""
        return [
            f"the validation loss of its kept epoch, {kept:.4f}, is not that of its model on the validation rows, {again.loss:.4f}{which}"
        ]
    if abs(again.right - value * again.n) > again.near + 1e-6:
        return [
            f"its validation accuracy {value:.4f} is not that of its model on the validation rows, {again.right / again.n:.4f}"
        ]
    return []


def windows(run: Run, files: Files) -> list[Fault] | None:
    """Of a run on time without trials: whether what a role sees and predicts lies in its own time or in
    gaps, whether anything after t0 changed an answer, whether train alone scaled what is seen, and whether
    validation chose what was chosen."""
    table = run.table("windows.parquet", "role", "sees_from_s", "first_s", "until_s")
    if table is None or run.split is None:
        return None
    split, faults = pd.DataFrame(files.split(run.split)[0]), []
    split = split[(split["fold"] == run.metrics.get("fold", 0)) & (split["role"] != "gap")]
    start, stop = to_ns(split["start_s"].to_numpy()), to_ns(split["stop_s"].to_numpy())
    for role in dict.fromkeys(table["role"]):
        mine = np.asarray(table["role"]) == role
        seen = np.column_stack(
            [to_ns(np.asarray(table[end])[mine]) for end in ("sees_from_s", "until_s")]
        )
        others = (split["role"] != role).to_numpy() & touches(start, stop, merged(seen))
        if others.any():
            first = split[others].iloc[0]
            faults.append(
                f"windows of {role} reach over a seam: into {others.sum()} row(s) of another role, first "
                f"{first['role']} at {first['start_s']:g} s"
            )
    for model, change in run.metrics["change_after_t0"].items():
        if change:
            faults.append(
                f"{model} sees what comes after the first bin: noise there moved its answer by {change:.3g}"
            )
    if change := run.metrics.get("change_outside_train"):
        faults.append(
            f"stimulus or rates are scaled by more than train: noise elsewhere moved them by {change:.3g}"
        )
    choices = run.table("choices.parquet", "of", "chosen", "role")
    for of, chosen, role in zip(*choices.values(), strict=True) if choices else ():
        if role != "val":
            faults.append(f"{of}: {chosen} was chosen on {role}, not on validation")
    return faults


def subjects(run: Run, files: Files) -> list[Fault] | None:
    """Whether the test subjects of 08 and 09 had no part in teaching, unless that was asked for."""
    if not STAGES[run.stage].cohort or run.splits:
        return None
    subject = subjects_of(run)
    if STAGES[run.stage].cohort and STAGES[run.stage].chosen:
        if run.manifest["parameters"]["teachers"] == "all_subjects":
            return []  # asked for, and named so wherever it is shown
        tested = {subject[r] for r in run.metrics["recordings"]["test"]}
        return _taught_by("this embedder", _teachers(run, subject) & tested)
    draws, faults = pd.DataFrame(run.table("draws.parquet", "embedder", "fold", "subject")), []
    sparing = {
        (p["pretext"], p["fold"]): embedder
        for embedder in embedders(run)
        if (p := embedder.manifest["parameters"])["teachers"] == "train_subjects"
    }
    for (names, fold), part in draws.groupby(["embedder", "fold"]):
        for name in str(names).split("+"):
            if name.endswith(".pth"):
                faults.append(Untold(f"nobody knows who taught the weights {Path(name).name}"))
            elif name not in TASKS:
                continue  # `rp@all`, which is named so wherever it is shown
            elif (name, fold) not in sparing:
                faults.append(
                    f"{name}, fold {fold}: no run of 08 that spared the test subjects stands behind it"
                )
            else:
                teachers = _teachers(sparing[name, fold], subject)
                faults += _taught_by(f"{name}, fold {fold}", teachers & set(part["subject"]))
    return faults


def _taught_by(embedder: str, subjects: set[str]) -> list[Fault]:
    return (
        [f"{embedder}: taught by test subject(s) {', '.join(sorted(subjects))}"] if subjects else []
    )


def _teachers(run: Run, subject: dict[str, str]) -> set[str]:
    """Subjects whose recordings taught an embedder, or told when to stop."""
    roles = run.metrics["recordings"]
    return {subject[recording] for recording in (*roles["train"], *roles["val"])}


# --- all runs ------------------------------------------------------------------------------------


def one_split(runs: list[Run], table: pd.DataFrame, files: Files) -> Across:
    """Whether the hash that a run states is its split's, and one for all that are compared."""
    with_split = [run for run in runs if run.split is not None]
    faults = []
    for run in with_split:
        try:
            stored = files.split(run.split)[1]
        except NblibError as error:
            faults.append((run.folder, error))
            continue
        if stored != run.metrics["split_hash"]:
            stated = run.metrics["split_hash"]
            faults.append((run.folder, f"it states split {stated}, its stored split is {stored}"))
    for (group, recording), part in all_runs.comparable(table).groupby(["group", "recording"]):
        most = part["split_hash"].value_counts().index[0]
        for row in part[part["split_hash"] != most].itertuples():
            what = f"judged by split {row.split_hash}; most runs of {group}, {recording}, by {most}"
            faults.append((Path(row.folder), what))
    return len(with_split), faults


def roles(runs: list[Run], table: pd.DataFrame, files: Files) -> Across:
    """Whether anybody teaches and judges at once, in each split and for each gap asked of it."""
    splits = {(folder, gap_s(r)): r for r in reversed(runs) for folder in r.splits}
    faults = []
    for (folder, gap), run in splits.items():
        try:
            rows, _ = files.split(folder)
            faults += [
                (run.folder, f"split {folder.name}: {what}") for what in role_faults(rows, gap)
            ]
        except NblibError as error:
            faults.append((run.folder, error))
    return len(splits), faults


def recordings(runs: list[Run], table: pd.DataFrame, files: Files) -> Across:
    """Whether one raw recording takes part under several names."""
    names: dict[str, dict[str, Path]] = {}
    faults = []
    for run in runs:
        for recording in run.recordings:
            try:
                content = files.content(run, recording)
            except NblibError as error:
                faults.append((run.folder, error))
                continue
            names.setdefault(content, {}).setdefault(recording, run.folder)
    for content, known in names.items():
        first, *others = known
        for other in others:
            what = f"{other} and {first} are one recording (content {content[:12]})"
            faults.append((known[other], what))
    return sum(len(known) for known in names.values()), faults
