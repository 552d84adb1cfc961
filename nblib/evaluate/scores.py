"""Scores of decoded labels, and what chance would reach: each with its interval, chance, p and n.

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

from nblib.core.errors import BadInput, BadParameter
from nblib.evaluate import stats

if TYPE_CHECKING:
    from nblib.models.base import Decoder
    from nblib.prepare.decoder_inputs import Samples

METRICS, PREDICTIONS = "metrics.json", "predictions.parquet"
SCORE_TEXT = {
    "accuracy": "accuracy",
    "top5": "top-5 accuracy",
    "balanced_accuracy": "balanced accuracy",
}
FRACTION, NATS = "fraction", "nats"
FIELDS = ("value", "ci_low", "ci_high", "chance", "p")
REQUIRED = (*FIELDS, "n", "unit")
ROUNDING = 1e-12
WORST = 700.0  # nats; a certain error must not be infinite


@dataclass(frozen=True)
class Score:
    """One score: its 95 % interval, what guessing scores, p, n, unit.

    null: what p measures it against, in words, such as "label permutation"; absent: presentations
    without a label, which took no part. Sums of fractions miss 0 or 1 by a last digit; here they
    become what they are.
    """

    value: float
    ci_low: float
    ci_high: float
    chance: float
    p: float
    n: int
    unit: str = FRACTION
    null: str = ""
    absent: int = 0

    def __post_init__(self):
        for field in FIELDS[:-1] if self.unit == FRACTION else ():
            value = getattr(self, field)
            if isinstance(value, float) and abs(value - np.rint(value)) < ROUNDING:
                object.__setattr__(self, field, float(np.rint(value)) + 0.0)  # never -0.0

    def fields(self) -> dict[str, Any]:
        """Its numbers by name; `absent` only where a label was."""
        return {k: v for k, v in asdict(self).items() if k != "absent" or v}


def rank_of_truth(log_proba: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Place of the true class among the C classes, 1 = most probable; ties count against it.

    log_proba (B, C), y (B,) class index; returns int64 (B,).
    """
    truth = log_proba[np.arange(len(y)), y]
    return (log_proba >= truth[:, None]).sum(axis=1)


def decoding_scores(
    y: np.ndarray,
    log_proba: np.ndarray,
    *,
    group: np.ndarray | None = None,
    unit: str | None = None,
    apart: np.ndarray | None = None,
    n_permutations: int = 1000,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Score]:
    """Accuracy, top-5, balanced accuracy and log-loss of one set of test presentations.

    Intervals are over groups: exact ones, or at the number of answers that would vary as much
    (`stats.fraction_interval`); of log-loss by bootstrap.
    Chance of accuracy and top-5: the best constant answer on these very presentations (majority
    rate); of balanced accuracy: 1 / classes present; of log-loss: the uniform answer, log C.
    p: share of label permutations that score as well, with the true labelling counted in (Ojala
    and Garriga 2010, J. Mach. Learn. Res. 11).

    Parameters
    ----------
    y
        (B,) class index, in the order of time; NaN for a presentation without a label. It takes no
        part in any score, and each score counts how many there were (`absent`).
    log_proba
        (B, C) [nats].
    group
        (B,) presentations that hang together; None where each stands alone.
    unit
        What may be exchanged for p, see `stats.permutation_slices`; None: time where groups hold
        several presentations, else presentations.
    apart
        (B,) sessions: labels move along time within each alone, as what is frequent in one may be
        rare in another, which a decoder knows without looking. None: all are of one.

    Raises
    ------
    BadInput
        For shapes that do not fit, and where no presentation has a label.
    """
    y, log_proba = np.asarray(y), np.asarray(log_proba, np.float64)
    if log_proba.ndim != 2 or y.shape != log_proba.shape[:1] or len(y) == 0:
        raise BadInput(
            f"scores need y (B,) and log_proba (B, C), not {y.shape} and {log_proba.shape}."
        )
    known = ~np.isnan(y)
    if not known.any():
        raise BadInput(f"scores need a label: none of {len(y)} presentations has one.")
    absent = int((~known).sum())
    y, log_proba = y[known].astype(np.int64), log_proba[known]
    group, apart = (None if of is None else np.asarray(of)[known] for of in (group, apart))
    moved = (group, unit) if apart is None else (apart, "time within groups")
    if np.isnan(log_proba).any() or y.min() < 0 or y.max() >= log_proba.shape[1]:
        raise BadInput("scores need class indices below C and log-probabilities that are not NaN.")
    n, n_classes = log_proba.shape
    top, rows, count = min(5, n_classes), np.arange(n), np.bincount(y, minlength=n_classes)
    largest, n_present = np.sort(count)[::-1], np.count_nonzero(count)
    hit = np.zeros((n, n_classes), bool)
    hit[rows, log_proba.argmax(axis=1)] = True
    near, log_p = _among_first(log_proba, top), np.maximum(log_proba, -WORST)
    weight = np.divide(1.0, count, out=np.zeros(n_classes), where=count > 0) / n_present
    draws = {"n_bootstrap": n_bootstrap, "seed": seed}
    # What each possible true label of a presentation would earn (B, C), chance and interval.
    table = {
        "accuracy": (hit, largest[0] / n, stats.fraction_interval(hit[rows, y], group=group)),
        "top5": (near, largest[:top].sum() / n, stats.fraction_interval(near[rows, y], group=group)),
        "balanced_accuracy": (hit * weight * n, 1 / n_present, balanced_interval(y, hit[rows, y], group)),
        "log_loss": (
            log_p, math.log(n_classes),
            stats.mean_interval(-log_p[rows, y], group=group, least=0.0, most=WORST, **draws),
        ),
    }  # fmt: skip
    permuted: dict[str, list[np.ndarray]] = {name: [] for name in table}
    for labels in stats.permutation_slices(y, n_permutations, seed, *moved):
        for name, (earned, *_) in table.items():
            permuted[name].append(np.mean(earned[rows, labels], axis=1, dtype=np.float64))
    scores, null = {}, stats.null_of(*moved)
    for name, (earned, chance, interval) in table.items():
        value = float(np.mean(earned[rows, y], dtype=np.float64))
        p = stats.permutation_p(value, np.concatenate(permuted[name]))
        scale = NATS if name == "log_loss" else FRACTION
        value = -value if scale == NATS else value  # minus the loss is earned: more is better
        numbers = (float(number) for number in (value, *interval, chance, p))
        scores[name] = Score(*numbers, n, scale, null, absent)
    return scores


def balanced_interval(
    y: np.ndarray, right: np.ndarray, group: np.ndarray | None = None
) -> tuple[float, float]:
    """Interval of the balanced accuracy; y (B,) class index, right (B,), group (B,).

    The variance is that of each class's own share, which is taken one answer towards the mean of
    all classes: three right ones of three do not make a class certain. Where groups vary more than
    that, theirs.
    """
    count = np.bincount(y)
    classes = np.flatnonzero(count)
    place, count = np.searchsorted(classes, y), count[classes]
    recall = np.bincount(place, right) / count
    share = recall.mean()
    near = (recall * count + share) / (count + 1)
    # Divided by what `near` itself takes off the variance, for equal classes.
    variance = (near * (1 - near) / (1 - count / (count + 1) ** 2) / count).sum() / len(count) ** 2
    n_units, df = len(count) ** 2 / (1 / count).sum(), np.inf  # answers, by their unequal weights
    if stats.in_blocks(group):
        _, of_groups, n_groups = stats.mean_variance(right, 1 / count[place], group, recall[place])
        variance, n_units, df = max(variance, of_groups), min(n_units, n_groups), n_groups - 1
    return stats.effective_interval(share, variance, n_units, df)


def _among_first(log_proba: np.ndarray, top: int) -> np.ndarray:
    """(B, C) True for the classes whose rank is `top` or better; ties count against a class."""
    kth = -np.partition(-log_proba, top - 1, axis=1)[:, top - 1 : top]
    inside = log_proba >= kth
    crowded = inside.sum(axis=1) > top
    inside[crowded] = log_proba[crowded] > kth[crowded]
    return inside


def score_over_subjects(
    means: np.ndarray, chance: float | np.ndarray, seed: int, n: int | None = None
) -> Score:
    """Score of some subjects, means (S,) fractions; interval and p are over subjects.

    chance: of all, or of each (S,), of which the score tells the mean. p: signs of the subjects'
    differences to chance flipped; of S subjects none is below 1 / 2**S. Of a single subject the
    interval is the whole range. n: what it rests on, the subjects unless said otherwise.
    """
    low, high = stats.fraction_interval(means)
    p = stats.sign_flip_p(means - chance, seed=seed)
    n = len(means) if n is None else n
    numbers = float(means.mean()), low, high, float(np.mean(chance)), p, n
    return Score(*numbers, null="sign flips over subjects")


def accuracy_over_time(
    decoder: Decoder,
    samples: Samples,
    stop_s: np.ndarray,
    train_mean: np.ndarray,
    group: np.ndarray | None = None,
) -> pd.DataFrame:
    """Test accuracy when only the bins up to each moment are known.

    Later bins are set to the training mean (T, N) and the fitted decoder is asked again; nothing
    is retrained. stop_s (T,): end of each bin from onset [s]; group (B,) as in `decoding_scores`.
    Returns time, accuracy, ci_low, ci_high, one row a bin.
    """
    rows = []
    for t, stop in enumerate(stop_s):
        x = samples.x.copy()
        x[:, t + 1 :] = train_mean[t + 1 :]
        right = decoder.predict(x) == samples.y
        low, high = stats.fraction_interval(right, group=group)
        rows.append((float(stop), float(right.mean()), low, high))
    return pd.DataFrame(rows, columns=["time", "accuracy", "ci_low", "ci_high"])


def predictions(
    samples: Samples, log_proba: np.ndarray, classes: np.ndarray, group: np.ndarray | None = None
) -> pd.DataFrame:
    """One row a test presentation: trial, label, predicted, correct, rank, log_p_true [nats], group.

    log_proba (B, C); classes (C,): label of each; group (B,), None where each stands alone. rank: see
    `rank_of_truth`.
    """
    best = log_proba.argmax(axis=1)
    return pd.DataFrame(
        {
            "trial": samples.trial,
            "label": classes[samples.y],
            "predicted": classes[best],
            "correct": best == samples.y,
            "rank": rank_of_truth(log_proba, samples.y),
            "log_p_true": log_proba[np.arange(len(best)), samples.y],
            "group": samples.trial if group is None else group,
        }
    )


def out_of_fold(
    folds: list[pd.DataFrame], *, n_permutations: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Accuracy pooled over the folds' test presentations, and its spread over folds.

    folds: predictions of one model and seed, one table a fold, in the order of time. The interval is
    over groups of presentations, never over fold means; p: by labels permuted within folds.
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
    low, high = stats.fraction_interval(right, group=pooled["group"].to_numpy())
    each = np.array([fold["correct"].mean() for fold in folds])
    hits = np.zeros(n_permutations)
    for i, fold in enumerate(folds):
        labels, predicted = fold["label"].to_numpy(), fold["predicted"].to_numpy()
        group = fold["group"].to_numpy()
        slices = stats.permutation_slices(labels, n_permutations, seed + i, group)
        hits += np.concatenate([(part == predicted).sum(axis=1) for part in slices])
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
    for group, scores in groups.items():
        for name, score in scores.items():
            _check_score(f"{group}.{name}", _plain(score))
    plain = {k: _plain(v) for k, v in metrics.items()}
    (folder / METRICS).write_text(
        json.dumps(plain, indent=1, allow_nan=False) + "\n", encoding="utf-8"
    )


def _check_score(name: str, score: dict[str, Any]) -> None:
    missing = [field for field in REQUIRED if field not in score]
    if missing:
        raise BadParameter(f"{name}: without {', '.join(missing)}; a score never stands alone.")
    for field in FIELDS:
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
        return value.fields()
    if isinstance(value, dict) and set(value) >= set(REQUIRED):
        return _plain(Score(**value))
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value
