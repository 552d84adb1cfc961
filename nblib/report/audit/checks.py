"""The checks of the audit: each takes one run, or all of them, and gives what it found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from nblib.core.errors import NblibError
from nblib.evaluate.scores import PREDICTIONS
from nblib.models.base import CONFIG
from nblib.prepare import blocks
from nblib.prepare.binning import to_ns
from nblib.prepare.cleaning import merged, touches
from nblib.report import results
from nblib.report.audit.run import Run, content_of, embedders, own_recordings, subjects_of
from nblib.report.runs import HISTORY
from nblib.road import stages
from nblib.road.stages import PRETEXTS

LEAK, UNTOLD = "leak", "cannot be told"


@dataclass(frozen=True)
class Finding:
    """One fault: the check, the run, what was found, and "leak" or "cannot be told"."""

    check: str
    folder: Path
    what: str
    verdict: str = LEAK


def gap_s(run: Run) -> float:
    recipe = run.manifest["recipe"]
    return float(recipe["gap_s"]) if recipe["split"] == "blocked" else 0.0


def role_faults(split: pd.DataFrame, gap_s: float) -> Iterator[str]:
    """What is wrong with the roles of a split (see `splits.make_split`), in sentences.

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


def test_rows(run: Run) -> list[Finding] | None:
    """Whether a run answered for its test rows, all of them and no other."""
    name = PREDICTIONS if run.stage != "10_image_latents" else "retrieval.parquet"
    if run.split_folder is None or (told := run.table(name, "trial")) is None:
        return None
    test, answered, found = run.rows("test"), set(told["trial"]), []
    taught = answered & (run.rows("train") | run.rows("val"))
    if taught:
        found.append(
            f"{len(taught)} predictions are of rows that taught, first trial {min(taught)}"
        )
    elif other := answered - test:
        found.append(f"{len(other)} predictions are of no test row, first trial {min(other)}")
    if run.stage in results.DECODERS:
        if missing := test - answered:
            found.append(f"{len(missing)} test rows have no prediction, first trial {min(missing)}")
        if len(answered) < len(told["trial"]):
            found.append("a test row is predicted twice")
        for role in ("train", "val", "test"):
            n, stored = run.metrics[f"n_{role}"], len(run.rows(role))
            if n != stored:
                found.append(f"the run counts {n} {role} rows, its split {stored}")
    return [Finding("test rows", run.folder, what) for what in found]


def random_split(run: Run) -> list[Finding] | None:
    """Whether presentations were drawn at random for the test although their labels come in runs."""
    if run.split_folder is None:
        return None
    if run.manifest["recipe"]["split"] == "random" and run.shared.block(run.split_folder) > 1:
        return [Finding("random split", run.folder, blocks.RUNS_AND_RANDOM)]
    return []


def choice(run: Run) -> list[Finding] | None:
    """Whether validation chose what a run chose (epoch, penalty): the kept one has the lowest
    validation loss, and the stored model gives that loss and that accuracy on the validation rows.

    Of 08 its own record is read alone: the pairs that it drew are not stored.
    """
    if run.stage not in (*results.DECODERS, "08_ssl_pretext"):
        return None

    def found(what: str, verdict: str = LEAK) -> list[Finding]:
        return [Finding("choice", run.folder, what, verdict)]

    history, value = run.table(HISTORY), run.metrics.get("val_accuracy")
    if history is None or value is None:
        what = "no validation accuracy is recorded" if value is None else "it holds no history"
        return found(what, UNTOLD)
    if seen := [name for name in history if "test" in name]:
        return found(f"test scores stood beside its epochs: {seen[0]}")
    if missing := {"epoch", "val_loss", "val_accuracy"} - set(history):
        return found(f"its history holds no {', '.join(sorted(missing))}", UNTOLD)
    losses = history["val_loss"]
    lowest = losses.argmin()
    if run.stage == "08_ssl_pretext":
        there = history["val_accuracy"][lowest]
        if abs(there - value) > 1e-6:
            return found(f"its validation accuracy {value:.4f} is not that of the epoch with the lowest validation loss, {there:.4f}")  # fmt: skip
        return []
    epoch = run.text(CONFIG)["training"]["best_epoch"]
    if epoch not in history["epoch"]:
        return found(f"it kept epoch {epoch}, of which its history says nothing", UNTOLD)
    kept = losses[history["epoch"] == epoch][0]
    if kept > losses[lowest]:
        return found(f"it kept epoch {epoch}, whose validation loss is {kept:.4f}; epoch {history['epoch'][lowest]} has the lowest, {losses[lowest]:.4f}")  # fmt: skip
    again = run.shared.answers.of(run, "val")
    if abs(again.loss - kept) > again.slack:
        of_test = abs(run.shared.answers.of(run, "test").loss - kept) <= again.slack
        which = ", but that on the test rows" if of_test else ""
        return found(f"the validation loss of its kept epoch, {kept:.4f}, is not that of its model on the validation rows, {again.loss:.4f}{which}")  # fmt: skip
    if abs(again.right - value * again.n) > again.near + 1e-6:
        return found(f"its validation accuracy {value:.4f} is not that of its model on the validation rows, {again.right / again.n:.4f}")  # fmt: skip
    return []


def subjects(run: Run) -> list[Finding] | None:
    """Whether the test subjects of 08 and 09 had no part in teaching, unless that was asked for."""
    if not stages.STAGES[run.stage].cohort:
        return None
    who = subjects_of(run)
    if run.stage == "08_ssl_pretext":
        if run.manifest["parameters"]["teachers"] == "all_subjects":
            return []  # asked for, and named so wherever it is shown
        both = _taught(run, who) & {who[r] for r in run.metrics["recordings"]["test"]}
        return [_taught_by_test(run, "this embedder", both)] if both else []
    draws, found = pd.DataFrame(run.table("draws.parquet", "embedder", "fold", "subject")), []
    teachers = {
        (t.manifest["parameters"]["pretext"], t.manifest["parameters"]["fold"]): t
        for t in embedders(run)
        if t.manifest["parameters"]["teachers"] == "train_subjects"
    }
    for (name, fold), part in draws.groupby(["embedder", "fold"]):
        for embedder in str(name).split("+"):
            what = f"{embedder}, fold {fold}"
            if embedder.endswith(".pth"):
                what = f"nobody knows who taught the weights {Path(embedder).name}"
                found.append(Finding("subjects", run.folder, what, UNTOLD))
            elif embedder in PRETEXTS:  # not `rp@all`, which is named so wherever it is shown
                if (embedder, fold) not in teachers:
                    what += ": no run of 08 that spared the test subjects stands behind it"
                    found.append(Finding("subjects", run.folder, what))
                elif both := _taught(teachers[embedder, fold], who) & set(part["subject"]):
                    found.append(_taught_by_test(run, what, both))
    return found


def _taught_by_test(run: Run, what: str, subjects: set[str]) -> Finding:
    return Finding("subjects", run.folder, f"{what}: taught by test subject(s) {', '.join(sorted(subjects))}")  # fmt: skip


def _taught(run: Run, who: dict[str, str]) -> set[str]:
    roles = run.metrics["recordings"]
    return {who[recording] for recording in (*roles["train"], *roles["val"])}


# --- all runs ------------------------------------------------------------------------------------


def one_split(runs: list[Run], table: pd.DataFrame) -> tuple[int, list[Finding]]:
    """Whether the hash that a run states is its split's, and one for all that are compared."""
    found, number = [], 0
    for run in runs:
        if run.split_folder is None:
            continue
        number += 1
        try:
            stored = run.split_hash
        except NblibError as error:
            found.append(Finding("one split", run.folder, str(error), UNTOLD))
            continue
        if stored != run.metrics["split_hash"]:
            what = f"it states split {run.metrics['split_hash']}, its stored split is {stored}"
            found.append(Finding("one split", run.folder, what))
    for (group, recording), part in results.comparable(table).groupby(["group", "recording"]):
        counts = part["split_hash"].value_counts()
        for row in part[part["split_hash"] != counts.index[0]].itertuples():
            what = f"judged by split {row.split_hash}; most runs of {group}, {recording}, by {counts.index[0]}"  # fmt: skip
            found.append(Finding("one split", Path(row.folder), what))
    return number, found


def roles(runs: list[Run], table: pd.DataFrame) -> tuple[int, list[Finding]]:
    """Whether anybody teaches and judges at once, in each split and for each gap asked of it."""
    asked = {(r.split_folder, gap_s(r)): r for r in reversed(runs) if r.split_folder}
    found = []
    for (folder, gap), run in asked.items():
        try:
            faults = [f"split {folder.name}: {what}" for what in role_faults(run.split, gap)]
        except NblibError as error:
            found.append(Finding("roles", run.folder, str(error), UNTOLD))
            continue
        found += [Finding("roles", run.folder, what) for what in faults]
    return len(asked), found


def recordings(runs: list[Run], table: pd.DataFrame) -> tuple[int, list[Finding]]:
    """Whether one raw recording takes part under several names."""
    names: dict[str, dict[str, Path]] = {}
    found = []
    for run in runs:
        for recording in own_recordings(run):
            try:
                content = content_of(run, recording)
            except NblibError as error:
                found.append(Finding("recordings", run.folder, str(error), UNTOLD))
                continue
            names.setdefault(content, {}).setdefault(recording, run.folder)
    for content, known in names.items():
        first, *others = known
        for other in others:
            what = f"{other} and {first} are one recording (content {content[:12]})"
            found.append(Finding("recordings", known[other], what))
    return sum(len(known) for known in names.values()), found
