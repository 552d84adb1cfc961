"""Self-supervised training of an embedder on a cohort (08): data, fit, scores, embeddings, files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from nblib.core import params as P
from nblib.core.errors import BadParameter
from nblib.evaluate.result import Result, Row, readable, with_interval
from nblib.evaluate.scores import Score, score_over_subjects
from nblib.experiments import pretext, subjects
from nblib.experiments.pretext import EMBEDDINGS
from nblib.models import FitSettings, reproducible
from nblib.road import notebook_code
from nblib.road.stage_registry import CohortParams

if TYPE_CHECKING:
    from torch import Tensor

    from nblib.experiments.pretext import Timeline
    from nblib.models.stagernet import PretextNet, StagerNet
    from nblib.prepare.potentials.stored_windows import Cohort


class Params(P.Fit, CohortParams):
    """Parameters of 08: one embedder, one pretext task, one fold."""

    pretext: Literal["rp", "ts", "cpc"] = Field("rp", description="pretext task")
    tau_pos_s: P.Limit = Field(30.0, gt=0, description="windows at most so far apart are near [s]")
    tau_neg_s: float = Field(60.0, gt=0, description="windows farther apart are far (rp, ts) [s]")
    n_context: int = Field(10, ge=1, description="windows of context (cpc) [count]")
    n_ahead: int = Field(8, ge=1, description="windows to tell (cpc) [count]")
    n_negatives: int = Field(10, ge=1, description="wrong windows beside each true one (cpc)")
    negatives: Literal["same_recording", "any_recording"] = Field(
        "same_recording", description="where wrong windows come from (cpc)"
    )
    teachers: Literal["train_subjects", "all_subjects"] = Field(
        "train_subjects", description="who may teach: all but the fold's test subjects, or all"
    )
    preset: Literal["banville", "lab"] = Field("banville", description="layers of the StagerNet")
    n_folds: int = Field(5, ge=2, description="folds by subject [count]")
    fold: int = Field(0, ge=0, description="whose subjects are the test")
    n_steps: int = Field(40, ge=1, description="steps of an epoch [count]")
    batch_size: int = Field(256, ge=2, description="pairs or triplets of a step (cpc: a sixteenth)")
    max_epochs: int | None = Field(None, ge=1, description="None = 40 [count]")
    learning_rate: float | None = Field(None, gt=0, description="None = 5e-4")
    patience: int | None = Field(None, ge=1, description="None = 8 [epochs]")
    shuffle_time: bool = Field(False, description="control: windows of a recording change places")
    precision: Literal["32", "bf16-mixed", "16-mixed"] = Field("32", description="arithmetic")
    n_bootstrap: int = Field(1000, ge=100, le=100_000, description="bootstrap draws [count]")

    @model_validator(mode="after")
    def _near_is_not_far(self) -> Params:
        if self.pretext != "cpc" and self.tau_neg_s < self.tau_pos_s:
            raise ValueError(
                f"tau_neg_s = {self.tau_neg_s:g} below tau_pos_s = {self.tau_pos_s:g}: a pair could be near and far"
            )
        return self


FIT = {
    "max_epochs": 40,
    "learning_rate": 5e-4,
    "weight_decay": 1e-3,
    "patience": 8,
    "clip_norm": 1.0,
}
TOGETHER = 2  # recordings that one step draws from; their windows are embedded once
VAL_STEPS, TEST_STEPS = 8, 8
CPC_SHARE = 16  # a CPC sample is so many times a pair


@dataclass(frozen=True)
class Embedder:
    """A trained embedder, as `Result.save` stores it: .safetensors, and .pth named by its settings."""

    net: StagerNet
    params: Params

    def save(self, folder: Path) -> None:
        import torch

        from nblib.models import stagernet

        stagernet.save(self.net, folder)
        torch.save(self.net.state_dict(), folder / weights_name(self.params))


def weights_name(params: Params) -> str:
    """File name of exported weights, with the tau values they were trained with."""
    tau = f"{params.tau_pos_s:g}_{params.tau_neg_s:g}"
    return f"{params.pretext.upper()}_stagernet_{tau if params.pretext != 'cpc' else params.n_ahead}.pth"


def test_subjects(cohort: Cohort, params: Params) -> np.ndarray:
    """Subjects of the fold's test, as in 09; BadParameter for a fold that is not there."""
    folds = subjects.subject_folds(cohort.subject, params.n_folds, params.seed)
    if params.fold >= len(folds):
        raise BadParameter(f"fold = {params.fold}: there are {len(folds)} folds, numbered from 0.")
    return folds[params.fold]


def draw(lines: list[Timeline], params: Any):
    """The sampler of a task over some recordings: rng -> (rows (P, ...), y (P,))."""
    n = params.batch_size if params.pretext != "cpc" else max(2, params.batch_size // CPC_SHARE)

    def one(line: Timeline, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        if params.pretext == "cpc":
            same = params.negatives == "same_recording"
            context, ahead = pretext.draw_cpc(
                line, n, params.n_context, params.n_ahead, params.n_negatives, same, rng
            )
            index = np.concatenate([context, ahead.reshape(n, -1)], axis=1)
            return line.row[index], np.zeros(n * params.n_ahead, np.int64)
        sample = {"rp": pretext.draw_rp, "ts": pretext.draw_ts}[params.pretext]
        index, y = sample(line, n, params.tau_pos_s, params.tau_neg_s, rng)
        return line.row[index], y

    def drawn(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        chosen = rng.choice(len(lines), min(TOGETHER, len(lines)), replace=False)
        if params.pretext == "cpc" and params.negatives == "any_recording":
            return one(_joined([lines[i] for i in chosen]), n, rng)
        shares = [len(part) for part in np.array_split(np.arange(n), len(chosen))]
        parts = [one(lines[i], share, rng) for i, share in zip(chosen, shares, strict=True)]
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])

    return drawn


def _joined(lines: list[Timeline]) -> Timeline:
    parts = [np.concatenate([getattr(x, n) for x in lines]) for n in ("row", "record", "start_s")]
    order = np.lexsort((parts[2], parts[1]))
    return pretext.Timeline(*(p[order] for p in parts), lines[0].names, lines[0].window_s)


def train_embedder(cohort: Cohort, params: Params, folder: Path) -> Result:
    """Train an embedder on the teachers, score it on the fold's test subjects, embed all windows.

    Parameters
    ----------
    folder
        Of its log and checkpoints; a run that was killed goes on from there.

    Returns
    -------
    Result
        Tables: history, one row an epoch; neighbours (see `neighbours`). Arrays: embeddings, h
        (W, 100) of all windows of the cohort. Files: the `Embedder`.
    """
    import torch

    from nblib.models import stagernet, training
    from nblib.models.stagernet import DrawnBatches, PretextNet

    test = test_subjects(cohort, params)
    train, val = subjects.teachers(cohort, test, params.teachers, params.seed)
    judge = np.flatnonzero(np.isin([p.subject for p in cohort.parts], test))
    lines = {r: pretext.Timeline.of(cohort, np.array([r])) for r in {*train, *val, *judge}}
    if params.shuffle_time:  # the control in which order says nothing
        lines = {r: line.shuffled([params.seed, 44, int(r)]) for r, line in lines.items()}
    settings = FitSettings.of(params, FIT, progress=notebook_code.is_interactive())
    device, _ = training.pick_device(settings)
    with reproducible(settings.seed):
        size = cohort.x.shape[1:]
        embedder = stagernet.StagerNet(size[1], size[0], cohort.rate_hz, params.preset)
        net = PretextNet(embedder, params.pretext, params.n_context, params.n_ahead)
    x = torch.from_numpy(cohort.x).to(device)
    fit = DrawnBatches(x, draw([lines[r] for r in train], params), params.n_steps, params.seed)
    choose = DrawnBatches(
        x, draw([lines[r] for r in val], params), VAL_STEPS, params.seed + 1, fixed=True
    )
    identity = {"task": params.pretext, "embedder": json.dumps(embedder.config)}
    options = {"stage": f"pretext-{params.pretext}", "resume": "auto", "identity": identity}
    history = training.fit(net, fit, choose, settings, folder, **options)
    fitted, history.attrs = dict(history.attrs), {}
    score = score_pretext(net, cohort, {r: lines[r] for r in judge}, params)
    embeddings = stagernet.embed(net.embedder, cohort.x, device.type)
    roles = {"train": train, "val": val, "test": judge}
    names = {role: [cohort.parts[i].recording for i in rows] for role, rows in roles.items()}
    about = {
        "model": params.pretext,
        "split_hash": subjects.fold_hash(cohort, params.n_folds, params.seed),
        **{f"n_{role}": len(rows) for role, rows in roles.items()},
        "val_accuracy": float(history["val_accuracy"].iloc[fitted["best_epoch"]]),
        "fit_s": fitted["fit_s"],
        "device": fitted["device"],
        "recordings": names,
    }
    return Result(
        [Row("accuracy", score)],
        about,
        tables={"history": history, "neighbours": neighbours(cohort, embeddings)},
        arrays={
            EMBEDDINGS: {
                "h": embeddings,
                "record": cohort.record.astype(np.int64),
                "start_s": cohort.start_s,
            }
        },
        files=[Embedder(net.embedder, params)],
    )


def score_pretext(
    net: PretextNet, cohort: Cohort, lines: dict[int, Timeline], params: Params
) -> Score:
    """Accuracy of the pretext task, mean over test subjects; interval and p are over subjects too.

    Samples share the windows of a subject, so they do not count. The wrong windows of cpc come
    from the same recording here, whatever `negatives` says.
    """
    import torch

    from nblib.models.stagernet import DrawnBatches

    x = torch.from_numpy(cohort.x)
    net.eval()
    right: dict[str, list[np.ndarray]] = {}
    for record, line in lines.items():
        batches = DrawnBatches(x, draw([line], params), TEST_STEPS, params.seed + 2, fixed=True)
        subject = cohort.parts[record].subject
        for batch, y in batches:
            with torch.inference_mode():
                right.setdefault(subject, []).append(_right(net(batch), y))
    each = [np.concatenate(parts) for parts in right.values()]
    chance = 0.5 if params.pretext != "cpc" else 1 / (1 + params.n_negatives)
    means = np.array([part.mean() for part in each])
    return score_over_subjects(means, chance, params.seed, n=sum(map(len, each)))


def _right(logits: Tensor, y: Tensor) -> np.ndarray:
    """(P,) True where the truth stands above every other answer: a tie is no answer."""
    mine = logits.gather(1, y[:, None])
    others = logits.scatter(1, y[:, None], -np.inf).max(dim=1).values
    return (mine[:, 0] > others).cpu().numpy()


def neighbours(cohort: Cohort, embeddings: np.ndarray, k: int = 10) -> pd.DataFrame:
    """Nearest windows in the embedding: how many share the state, the subject, the minute.

    Labelled windows alone; per recording: `state` and `subject` share of the k nearest (itself left
    out), and what each would be by chance.
    """
    from sklearn.neighbors import NearestNeighbors

    keep = np.flatnonzero(cohort.labelled)
    h = embeddings[keep]
    h = (h - h.mean(axis=0)) / np.maximum(h.std(axis=0), 1e-9)
    k = min(k, len(keep) - 1)
    near = NearestNeighbors(n_neighbors=k + 1).fit(h).kneighbors(h, return_distance=False)[:, 1:]
    label, subject = cohort.label[keep], cohort.subject[keep]
    columns = {"state": label, "subject": subject}
    rows = []
    for part in range(len(cohort.parts)):
        here = cohort.record[keep] == part
        row: dict[str, Any] = {"recording": cohort.parts[part].recording}
        for name, values in columns.items():
            row[name] = float((values[near[here]] == values[here, None]).mean())
            counts = pd.Series(values).value_counts()
            row[f"{name}_chance"] = float((counts[values[here]].mean() - 1) / (len(values) - 1))
        rows.append(row)
    return pd.DataFrame(rows)


def example_map(cohort: Cohort, embeddings: np.ndarray) -> tuple[np.ndarray, ...]:
    """What `plots.embedding_map` takes: the first two principal components of standardised
    embeddings (W, 2); states ("" for none), subjects and times of all windows."""
    h = (embeddings - embeddings.mean(axis=0)) / np.maximum(embeddings.std(axis=0), 1e-9)
    u, s, _ = np.linalg.svd(h, full_matrices=False)
    label = np.where(cohort.labelled, cohort.label, "")
    return u[:, :2] * s[:2], label, cohort.subject, cohort.start_s


def score_table(result: Result) -> pd.DataFrame:
    """The pretext score beside chance, and the neighbours of a window, as people read them."""
    near = result.tables["neighbours"]
    rows = [{"what": "pretext task, test subjects"} | result.scores["accuracy"].fields()]
    for kind in ("state", "subject"):
        what = f"nearest windows of the same {kind}"
        rows.append(
            {"what": what, "value": near[kind].mean(), "chance": near[f"{kind}_chance"].mean()}
        )
    columns = {
        "what": "{what}",
        "value": "{value:.1%}",
        "95 % interval": "{ci_low:.1%} to {ci_high:.1%}",
        "chance": "{chance:.1%}",
        "p, sign flips over subjects": "{p:.2g}",
    }
    return readable(pd.DataFrame(rows), columns)


def in_words(result: Result, params: Params) -> str:
    """The result in a sentence."""
    s, near = result.scores["accuracy"], result.tables["neighbours"]
    who = result.about["recordings"]
    seen = set(who["test"]) & {*who["train"], *who["val"]}
    part = "were among its teachers (`all_subjects`)" if seen else "had no part in its training"
    what = {
        "rp": "tells near from far windows",
        "ts": "tells whether three windows are in order",
        "cpc": f"finds the true next window among {1 + params.n_negatives}",
    }[params.pretext]
    return (
        f"**Result.** On {len(who['test'])} subjects (fold {params.fold} of {params.n_folds}) that {part}, "
        f"{pretext.TITLES[params.pretext]} {what} in {with_interval(s)} "
        f"of {s.n:,} samples; guessing would in {s.chance:.1%}. Of the ten windows nearest in "
        f"the embedding {near['state'].mean():.0%} share the state (chance {near['state_chance'].mean():.0%}) and "
        f"{near['subject'].mean():.0%} the subject (chance {near['subject_chance'].mean():.0%})."
    )
