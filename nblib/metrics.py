"""Scores that can be believed: each with its interval, its chance level, its p and its n.

Everything here looks at test presentations once, after the model is final. Shapes: B test
presentations, C classes.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nblib import stats
from nblib.errors import BadInput, BadParameter

if TYPE_CHECKING:
    from nblib.models.base import Decoder
    from nblib.windows import Samples

METRICS, PREDICTIONS = "metrics.json", "predictions.parquet"
BY_TIME = "accuracy_by_time.parquet"
FRACTION, NATS = "fraction", "nats"
REQUIRED = ("value", "ci_low", "ci_high", "chance", "p", "n", "unit")


@dataclass(frozen=True)
class Score:
    """One score: its 95 % interval, what guessing scores, p by label permutation, n, unit."""

    value: float
    ci_low: float
    ci_high: float
    chance: float
    p: float
    n: int
    unit: str = FRACTION


def rank_of_truth(log_proba: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Place of the true class among the C classes, 1 = most probable; ties count against it.

    log_proba (B, C), y (B,) class index; returns int64 (B,).
    """
    truth = log_proba[np.arange(len(y)), y]
    return (log_proba >= truth[:, None]).sum(axis=1)


def scores(
    y: np.ndarray,
    log_proba: np.ndarray,
    *,
    n_permutations: int = 1000,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Score]:
    """Accuracy, top-5, balanced accuracy and log-loss of one set of test presentations.

    y (B,) class index; log_proba (B, C). Intervals: percentile bootstrap over presentations.
    Chance of accuracy and top-5: the best constant answer on these very presentations (majority
    rate); of balanced accuracy: 1 / classes present; of log-loss: the uniform answer, log C.
    p: share of label permutations that score as well, with the true labelling counted in (Ojala
    and Garriga 2010, J. Mach. Learn. Res. 11). Raises BadInput for shapes that do not fit.
    """
    y, log_proba = np.asarray(y), np.asarray(log_proba, np.float64)
    if log_proba.ndim != 2 or y.shape != log_proba.shape[:1] or len(y) == 0:
        raise BadInput(
            f"scores need y (B,) and log_proba (B, C), not {y.shape} and {log_proba.shape}."
        )
    if np.isnan(log_proba).any() or y.min() < 0 or y.max() >= log_proba.shape[1]:
        raise BadInput("scores need class indices below C and log-probabilities that are not NaN.")
    n, n_classes = log_proba.shape
    top = min(5, n_classes)
    count = np.bincount(y, minlength=n_classes)
    present = count > 0
    # For every presentation, what each possible true label would earn: (B, C).
    best = log_proba.argmax(axis=1)
    hit = np.zeros((n, n_classes), bool)
    hit[np.arange(n), best] = True
    near = _among_first(log_proba, top)
    log_p = np.maximum(log_proba, -700.0)  # exp(-700): a certain error must not be infinite
    rows = np.arange(n)
    weight = np.divide(1.0, count, out=np.zeros(n_classes), where=present) / present.sum()

    def balanced(labels: np.ndarray) -> np.ndarray:
        return hit[rows, labels] * weight[labels] * n  # its mean is the balanced accuracy

    largest = np.sort(count)[::-1]
    table = {
        "accuracy": (lambda labels: hit[rows, labels], largest[0] / n, FRACTION),
        "top5": (lambda labels: near[rows, labels], largest[:top].sum() / n, FRACTION),
        "balanced_accuracy": (balanced, 1 / present.sum(), FRACTION),
        "log_loss": (lambda labels: log_p[rows, labels], math.log(n_classes), NATS),
    }
    null = _permuted({k: v[0] for k, v in table.items()}, y, n_permutations, seed)
    drawn = _drawn(table, y, present, n_bootstrap, seed)
    found = {}
    for name, (earned, chance, unit) in table.items():
        value = float(np.mean(earned(y), dtype=np.float64))
        p = stats.permutation_p(value, null[name])
        low, high = stats.percentile_interval(drawn[name])
        if unit == NATS:  # earned is minus the loss, so that more is better
            value, low, high = -value, -high, -low
        found[name] = Score(value, low, high, float(chance), p, n, unit)
    return found


def _among_first(log_proba: np.ndarray, top: int) -> np.ndarray:
    """(B, C) True for the classes whose rank is `top` or better; ties count against a class."""
    kth = -np.partition(-log_proba, top - 1, axis=1)[:, top - 1 : top]
    inside = log_proba >= kth
    crowded = inside.sum(axis=1) > top
    inside[crowded] = log_proba[crowded] > kth[crowded]
    return inside


def _permuted(
    earned: dict[str, Any], y: np.ndarray, n_permutations: int, seed: int
) -> dict[str, np.ndarray]:
    """Each score under label permutations, (n_permutations,)."""
    rng = np.random.default_rng([seed, 1])
    null = {name: np.empty(n_permutations) for name in earned}
    for i in range(n_permutations):
        labels = rng.permutation(y)
        for name, earn in earned.items():
            null[name][i] = np.mean(earn(labels), dtype=np.float64)
    return null


def _drawn(
    table: dict, y: np.ndarray, present: np.ndarray, n_bootstrap: int, seed: int
) -> dict[str, np.ndarray]:
    """Each score in bootstrap samples of the presentations, (n_bootstrap,)."""
    classes = np.flatnonzero(present)
    member = (y[:, None] == classes).astype(np.float32)  # (B, classes present)
    right = np.asarray(table["accuracy"][0](y), np.float32)
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in table}
    for weights in stats.bootstrap_slices(len(y), n_bootstrap, seed):
        for name in ("accuracy", "top5", "log_loss"):
            drawn[name].append(weights @ np.asarray(table[name][0](y), np.float64) / len(y))
        shown, got = weights @ member, weights @ (member * right[:, None])
        recall = np.divide(got, shown, out=np.full_like(got, np.nan), where=shown > 0)
        drawn["balanced_accuracy"].append(np.nanmean(recall, axis=1))
    return {name: np.concatenate(parts) for name, parts in drawn.items()}


def accuracy_over_time(
    decoder: Decoder,
    samples: Samples,
    stop_s: np.ndarray,
    train_mean: np.ndarray,
    *,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Test accuracy when only the bins up to each moment are known.

    Later bins are set to the training mean (T, N) and the fitted decoder is asked again; nothing
    is retrained. stop_s (T,): end of each bin from onset [s].
    Returns time, accuracy, ci_low, ci_high, one row a bin.
    """
    rows = []
    for t, stop in enumerate(stop_s):
        x = samples.x.copy()
        x[:, t + 1 :] = train_mean[t + 1 :]
        right = decoder.predict(x) == samples.y
        low, high = stats.bootstrap_interval(right, n_bootstrap=n_bootstrap, seed=seed)
        rows.append((float(stop), float(right.mean()), low, high))
    return pd.DataFrame(rows, columns=["time", "accuracy", "ci_low", "ci_high"])


def predictions(samples: Samples, log_proba: np.ndarray, classes: np.ndarray) -> pd.DataFrame:
    """One row a test presentation: trial, label, predicted, correct, rank, log_p_true [nats]."""
    best = log_proba.argmax(axis=1)
    return pd.DataFrame(
        {
            "trial": samples.trial,
            "label": classes[samples.y],
            "predicted": classes[best],
            "correct": best == samples.y,
            "rank": rank_of_truth(log_proba, samples.y),
            "log_p_true": log_proba[np.arange(len(best)), samples.y],
        }
    )


def confusion(table: pd.DataFrame, classes: np.ndarray) -> np.ndarray:
    """Counts (C, C) of a predictions table: rows are true classes, columns predicted ones."""
    place = pd.Index(classes)
    counts = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(counts, (place.get_indexer(table["label"]), place.get_indexer(table["predicted"])), 1)
    return counts


def out_of_fold(
    folds: list[pd.DataFrame], *, n_bootstrap: int = 1000, n_permutations: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Accuracy pooled over the folds' test presentations, and its spread over folds.

    folds: predictions of one model and seed, one table a fold. p: by labels permuted within folds.
    Raises BadInput when a presentation was tested twice, since the folds then do not belong to
    one split.
    """
    pooled = pd.concat(folds, ignore_index=True)
    if pooled["trial"].duplicated().any():
        twice = pooled["trial"][pooled["trial"].duplicated()].iloc[0]
        raise BadInput(
            f"trial {twice} is tested in more than one fold; these folds are not one split."
        )
    right = pooled["correct"].to_numpy(float)
    low, high = stats.bootstrap_interval(right, n_bootstrap=n_bootstrap, seed=seed)
    each = np.array([fold["correct"].mean() for fold in folds])
    hits = np.zeros(n_permutations)
    for i, fold in enumerate(folds):
        labels, said = fold["label"].to_numpy(), fold["predicted"].to_numpy()
        slices = stats.permutation_slices(labels, n_permutations, seed + i)
        hits += np.concatenate([(part == said).sum(axis=1) for part in slices])
    return {
        "value": float(right.mean()),
        "ci_low": low,
        "ci_high": high,
        "chance": float(pooled["label"].value_counts().iloc[0] / len(pooled)),
        "p": stats.permutation_p(float(right.mean()), hits / len(pooled)),
        "n": len(pooled),
        "n_folds": len(folds),
        "fold_sd": float(each.std(ddof=1)) if len(each) > 1 else 0.0,
        "fold_min": float(each.min()),
        "fold_max": float(each.max()),
    }


def write_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    """Write metrics.json after checking every score in it.

    metrics: `scores`, name -> Score, where there is one the same of the `oracle`, and for a run of
    several results `rows`, each with the scores of one.

    Raises BadParameter for a fraction outside [0, 1], a number that is not finite, a score
    without chance, interval, p or n, or no score at all.
    """
    groups = {"scores": metrics.get("scores") or {}, "oracle": metrics.get("oracle") or {}}
    for i, row in enumerate(metrics.get("rows", [])):
        groups |= {f"rows[{i}].{group}": row.get(group) or {} for group in ("scores", "oracle")}
    if not groups["scores"]:
        raise BadParameter("metrics without scores: nothing to report.")
    for group, found in groups.items():
        for name, score in found.items():
            _check_score(f"{group}.{name}", asdict(score) if isinstance(score, Score) else score)
    plain = {k: _plain(v) for k, v in metrics.items()}
    (folder / METRICS).write_text(
        json.dumps(plain, indent=1, allow_nan=False) + "\n", encoding="utf-8"
    )


def _check_score(name: str, score: dict[str, Any]) -> None:
    missing = [field for field in REQUIRED if field not in score]
    if missing:
        raise BadParameter(f"{name}: without {', '.join(missing)}; a score never stands alone.")
    for field in ("value", "ci_low", "ci_high", "chance", "p"):
        value = score[field]
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise BadParameter(f"{name}.{field} = {value!r}: not a finite number.")
        if (score["unit"] == FRACTION or field == "p") and not 0 <= value <= 1:
            raise BadParameter(
                f"{name}.{field} = {value!r}: a fraction lies between 0 and 1 (percent?)."
            )
    if score["n"] < 1:
        raise BadParameter(f"{name}.n = {score['n']!r}: a score needs at least one presentation.")


def _plain(value: Any) -> Any:
    if isinstance(value, Score):
        return asdict(value)
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value
