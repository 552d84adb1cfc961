"""Label-budget curves of embedders (09): how many labels does each need?

Every embedder gets the same draws of labelled windows from training subjects and is judged on all
labelled windows of test subjects (what is fitted: `probes`). Shapes: W windows, E embedding, K
classes.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field, field_validator

from nblib.core import params as P
from nblib.core import store
from nblib.core.errors import BadInput, BadParameter
from nblib.core.markup import in_markdown
from nblib.evaluate import scores, stats
from nblib.experiments import readouts, self_supervision
from nblib.experiments.readouts import ALL
from nblib.prepare.spectra import log_band_power

if TYPE_CHECKING:
    from nblib.prepare.windows import Cohort
    from nblib.road.stages import Stage


class Params(P.Fit, P.CohortParams):
    """Parameters of 09: embedders on a label budget."""

    embedders: list[str] = Field(
        ["rp", "ts", "cpc", "random", "bandpower"],
        min_length=1,
        description="also supervised, rp@all, .pth, a+b",
    )
    head: Literal["logistic", "linear", "finetune"] = Field(
        "logistic", description="logistic probe, a linear layer, or all layers trained on"
    )
    tasks: list[Literal["one_vs_all", "multiclass"]] = Field(
        ["one_vs_all", "multiclass"], min_length=1, description="what is asked of the embedding"
    )
    budgets: list[Annotated[int, Field(ge=0)]] = Field(
        [1, 10, 100, 0], min_length=1, description="labels a class; 0 = all [count]"
    )
    n_draws: int = Field(20, ge=1, le=1000, description="draws at each budget [count]")
    n_draws_trained: int = Field(3, ge=1, le=1000, description="draws where a network is trained")
    folds: list[Annotated[int, Field(ge=0)]] = Field(
        [0, 1, 2, 3, 4], min_length=1, description="folds to judge on"
    )
    n_folds: int = Field(5, ge=2, description="folds by subject, as in 08 [count]")
    pretext_params: dict[str, Any] = Field({}, description="parameters of 08 beside its defaults")
    compare: list[str] = Field(
        ["rp - bandpower", "ts - bandpower", "cpc - bandpower"],
        description="differences to test",
    )
    preset: Literal["banville", "lab"] = Field("banville", description="layers of the StagerNet")
    max_epochs: int | None = Field(None, ge=1, description="of a network; None = 100 [count]")
    shuffle_labels: bool = Field(
        False, description="control: labels permuted within each recording"
    )

    @field_validator("embedders", "tasks", "budgets", "folds", "compare")
    @classmethod
    def _each_once(cls, values: list[Any]) -> list[Any]:
        if twice := [v for i, v in enumerate(values) if v in values[:i]]:
            raise ValueError(f"{twice[0]!r} stands twice")
        return values

    def check(self) -> None:
        check_embedders(self)

    def files(self) -> dict[str, str]:
        return {part: part for part in self.parts() if part.endswith(".pth")}

    def needs(self, recipe: P.Recipe) -> list[self_supervision.Params]:
        runs = [self.pretext_run(part, fold) for part in self.parts() for fold in self.folds]
        return [run for run in runs if run is not None]

    def parts(self) -> list[str]:
        """The embedders, those that are joined by `+` one by one."""
        return sorted({part for embedder in self.embedders for part in embedder.split("+")})

    def pretext_run(self, part: str, fold: int) -> self_supervision.Params | None:
        """The run of 08 behind one embedder and fold; None for an embedder that 08 does not make.

        `rp`, `ts`, `cpc`: taught without the fold's test subjects; `rp@all`: taught by all
        subjects, once.
        """
        pretext, at, teachers = part.partition("@")
        if pretext not in self_supervision.PRETEXTS or (at and teachers != "all"):
            return None
        shared = {name: getattr(self, name) for name in ("recipe", "n_folds", "seed", "preset")}
        decided = (*shared, "pretext", "fold", "teachers", "shuffle_time")
        if twice := [name for name in decided if name in self.pretext_params]:
            raise BadParameter(
                f"09: pretext_params holds {twice[0]!r}, which 09 itself decides: otherwise 08 could learn "
                "from subjects that 09 tests. Taught by all subjects is `rp@all`."
            )
        values = {**shared, **self.pretext_params, "pretext": pretext, "fold": fold}
        if at:
            values |= {"teachers": "all_subjects", "fold": min(self.folds)}
        return P.checked(self_supervision.Params, values, "09: pretext_params")


DRAWS, CURVE, SUBJECTS, CLASSES = "draws.parquet", "curve.parquet", "subjects.parquet", "classes.parquet"  # fmt: skip
BAND_POWER = "bandpower"  # the embedder that learns nothing: log power by channel and band
LAB_DICT = "budget_accuracy.json"


@dataclass(frozen=True)
class Fold:
    """One fold: rows of labelled windows of training and of test subjects; y (W,) class of each."""

    number: int
    train: np.ndarray
    test: np.ndarray
    y: np.ndarray
    subject: np.ndarray
    classes: np.ndarray


@dataclass
class Curves:
    """draws: one row an embedder, task, budget, fold, draw, class and subject; curve: with interval."""

    draws: pd.DataFrame
    subjects: pd.DataFrame
    curve: pd.DataFrame
    classes: pd.DataFrame
    compared: pd.DataFrame
    n_test: int


def make_folds(cohort: Cohort, stage: Stage) -> list[Fold]:
    """The folds asked for. BadParameter for one that is not there; BadInput when a fold's training
    subjects or a whole test set lack a state."""
    p = stage.params
    known = self_supervision.folds_of(cohort, p)
    if max(p.folds) >= len(known) or len(set(p.folds)) != len(p.folds):
        raise BadParameter(
            f"folds = {p.folds}: there are {len(known)}, numbered from 0, each once."
        )
    rows = np.flatnonzero(cohort.labelled)
    classes = np.unique(cohort.label[rows])
    if len(classes) < 2:
        raise BadInput(
            f"recipe {stage.recipe.recipe!r}: labelled windows of {len(classes)} state(s)."
        )
    label = cohort.label.copy()
    if p.shuffle_labels:
        for record in range(len(cohort.parts)):
            own = rows[cohort.record[rows] == record]
            rng = np.random.default_rng([p.seed, record, 45])
            label[own] = rng.permutation(label[own])
    y = np.searchsorted(classes, label)
    folds = []
    for number in p.folds:
        inside = np.isin(cohort.subject[rows], known[number])
        train, test = rows[~inside], rows[inside]
        for role, part in (("training", train), ("test", test)):
            absent = np.setdiff1d(np.arange(len(classes)), y[part])
            if absent.size:
                raise BadInput(
                    f"fold {number}: no labelled {role} window of {str(classes[absent[0]])!r}; choose other "
                    "folds (n_folds, seed)."
                )
        folds.append(Fold(number, train, test, y, cohort.subject, classes))
    tested = sum(len(known[number]) for number in p.folds)
    if tested < 2:
        raise BadParameter(
            f"folds = {p.folds}: one test subject, {str(known[p.folds[0]][0])!r}, gives no interval over subjects; take "
            "more folds, or fewer and larger ones (n_folds)."
        )
    least = min(np.bincount(f.y[f.train], minlength=len(classes)).min() for f in folds)
    if least <= max(p.budgets):
        raise BadParameter(
            f"budgets = {p.budgets}: the rarest state has {least} labelled training windows; ask for "
            f"fewer than that, or 0 for all."
        )
    return folds


def smallest_class_len(cohort: Cohort, stage: Stage) -> int:
    """Labelled training windows of the rarest state, least over folds: budgets lie below it."""
    return min(
        int(np.bincount(f.y[f.train]).min()) for f in make_folds(cohort, _with_budget(stage, [ALL]))
    )


def _with_budget(stage: Stage, budgets: list[int]) -> Any:
    return SimpleNamespace(params=stage.params.model_copy(update={"budgets": budgets}), recipe=stage.recipe)  # fmt: skip


def draw(fold: Fold, budget: int, number: int, seed: int, positive: int | None) -> np.ndarray:
    """Rows of a draw: `budget` of each class, or of the positive class and as many of the others.

    The draws of one fold and number hold each other: a smaller budget is the beginning of a larger
    one. budget 0: all rows.
    """
    y = fold.y[fold.train]
    if budget == ALL:
        return fold.train
    task = -1 if positive is None else positive
    rng = np.random.default_rng([seed, fold.number, number, task + 1, 46])
    if positive is None:
        groups = [np.flatnonzero(y == c) for c in range(len(fold.classes))]
    else:
        groups = [np.flatnonzero(y == positive), np.flatnonzero(y != positive)]
    rows = [rng.permutation(group)[:budget] for group in groups]
    return fold.train[np.concatenate(rows)]


# --- embedders -----------------------------------------------------------------------------------


def embeddings(name: str, cohort: Cohort, fold: Fold, stage: Stage, kept: dict) -> np.ndarray:
    """Embeddings (W, E) of all windows by a named embedder, or by several joined with `+`."""
    parts = []
    for part in name.split("+"):
        made = stage.params.pretext_run(part, fold.number)
        where = (part, made.fold if made else None)
        if where not in kept:
            kept[where] = _one_embedding(part, cohort, made, stage)
        parts.append(kept[where])
    return np.concatenate(parts, axis=1)


def _one_embedding(part: str, cohort: Cohort, made: self_supervision.Params | None, stage: Stage) -> np.ndarray:  # fmt: skip
    from nblib.models import stagernet

    if made is not None:
        from safetensors.numpy import load_file

        found = load_file(stage.needed(made) / self_supervision.EMBEDDINGS)
        if not np.array_equal(found["start_s"], cohort.start_s):
            raise BadInput(f"the embeddings of {part!r}, fold {made.fold}, are of other windows.")
        return found["h"]
    if part == BAND_POWER:
        return log_band_power(cohort.x, cohort.rate_hz)
    return stagernet.embed(embedder_net(part, cohort, None, stage), cohort.x)


def embedder_net(
    part: str, cohort: Cohort, made: self_supervision.Params | None, stage: Stage
) -> Any:
    """The StagerNet behind a name: trained by the run `made` of 08, random, fresh, or from a file."""
    from nblib.models import stagernet, training

    if made is not None:
        return stagernet.load(stage.needed(made))
    n_samples, n_channels = cohort.x.shape[1:]
    if part.endswith(".pth"):
        return stagernet.load_weights(part, n_channels, n_samples)
    with training.reproducible(stage.params.seed + 1000):
        return stagernet.StagerNet(
            n_channels, n_samples, cohort.rate_hz, stage.params.preset
        ).eval()


def check_embedders(params: Any) -> None:
    """BadParameter for an embedder, or one of `compare`, that is unknown or cannot be joined."""
    for text in params.compare:
        if text.count(" - ") != 1:
            raise BadParameter(f"compare: {text!r}; expected two embedders, as in 'rp - random'.")
    for name in [*params.embedders, *(n for text in params.compare for n in text.split(" - "))]:
        parts = name.split("+")
        if len(parts) > 1 and any(trains_a_network(part, params.head) for part in parts):
            raise BadParameter(
                f"embedder {name!r}: only embedders that stay as they are can be joined."
            )
        for part in parts:
            if part == BAND_POWER and params.head == "finetune":
                raise BadParameter(
                    "embedder 'bandpower' has no weights that head 'finetune' could train; take head "
                    "'logistic' or 'linear', or leave it out."
                )
            known = part in ("random", "supervised", BAND_POWER) or part.endswith(".pth")
            if not known and params.pretext_run(part, 0) is None:
                raise BadParameter(
                    f"embedder {part!r}: expected {', '.join(self_supervision.PRETEXTS)} (or one followed by @all), "
                    "random, bandpower, supervised or a path to a .pth file."
                )


def trains_a_network(name: str, head: str) -> bool:
    """Whether an embedder's own weights are trained on the labels."""
    return head == "finetune" or name == "supervised"


# --- judging -------------------------------------------------------------------------------------


def _answers(fold: Fold, rows: np.ndarray, y: np.ndarray, n_classes: int, budget: int, how: Any) -> np.ndarray:  # fmt: skip
    """Class (W_test,) that a decoder fitted on `rows` gives each test window."""
    p = how.stage.params
    rows, y, chooses = readouts.teach_and_choose(rows, y, budget, how.cohort)
    seed = zlib.crc32(repr((p.seed, fold.number, how.number)).encode()) % 2**31
    fit = SimpleNamespace(seed=seed, device=how.device, threads=p.threads, max_epochs=p.max_epochs)
    if how.net is not None:
        net = readouts.train_network(how.net, how.x[rows], y, chooses, n_classes, fit)
        return readouts.classes_of(net, how.x[fold.test])
    if p.head == "linear":
        net = readouts.train_layer(how.h[rows], y, chooses, n_classes, fit)
        return readouts.classes_of(net, how.h[fold.test])
    weight, bias = readouts.probe(how.h[rows], y, chooses, n_classes)
    return (how.h[fold.test] @ weight + bias).argmax(axis=1)


def run(cohort: Cohort, stage: Stage) -> Curves:
    """Every embedder at every budget, fold and draw; judged subject by subject."""
    p = stage.params
    check_embedders(p)
    folds = make_folds(cohort, stage)
    kept: dict = {}
    rows, device = [], _device(p)
    for fold in folds:
        for name in p.embedders:
            trained = trains_a_network(name, p.head)
            how = SimpleNamespace(stage=stage, number=0, net=None, h=None, x=cohort.x, cohort=cohort, device=device)  # fmt: skip
            if trained:
                made = p.pretext_run(name, fold.number)
                how.net = embedder_net(name, cohort, made, stage)
            else:
                how.h = _standardised(embeddings(name, cohort, fold, stage, kept), fold)
            for budget in p.budgets:
                n = 1 if budget == ALL else (p.n_draws_trained if trained else p.n_draws)
                for how.number in range(n):
                    for task in p.tasks:
                        found = _judge(fold, task, budget, how)
                        rows += [{"embedder": name, "task": task, "budget": budget, "fold": fold.number, "draw": how.number, **r} for r in found]  # fmt: skip
    draws = pd.DataFrame(rows)
    n_test = sum(len(f.test) for f in folds)
    return summarise(draws, stage, n_test, len(folds[0].classes))


def _device(params: Any) -> str:
    """Where networks are trained, said once; "cpu" where none is."""
    if params.head == "logistic" and not any(trains_a_network(e, params.head) for e in params.embedders):  # fmt: skip
        return "cpu"
    from nblib.models.settings import say_device

    return say_device(params.device)


def _standardised(h: np.ndarray, fold: Fold) -> np.ndarray:
    """Embeddings in units of their spread over the training subjects' windows; labels play no part."""
    known = h[np.isin(fold.subject, np.unique(fold.subject[fold.train]))].astype(np.float64)
    sd = known.std(axis=0)
    return (h - known.mean(axis=0)) / np.where(sd > 1e-9, sd, np.inf)


def _judge(fold: Fold, task: str, budget: int, how: Any) -> list[dict[str, Any]]:
    """Balanced accuracy by test subject (and, one against all, by class)."""
    p, found = how.stage.params, []
    subject, truth = fold.subject[fold.test], fold.y[fold.test]
    asked = range(len(fold.classes)) if task == "one_vs_all" else [None]
    for positive in asked:
        rows = draw(fold, budget, how.number, p.seed, positive)
        own = fold.y[rows] if positive is None else (fold.y[rows] == positive).astype(int)
        if positive is not None and budget == ALL:  # as many negatives as positives
            rng = np.random.default_rng([p.seed, fold.number, positive, 47])
            few = min((own == 1).sum(), (own == 0).sum())
            keep = np.sort(np.concatenate([rng.permutation(np.flatnonzero(own == v))[:few] for v in (0, 1)]))  # fmt: skip
            rows, own = rows[keep], own[keep]
        n_classes = len(fold.classes) if positive is None else 2
        answer = _answers(fold, rows, own, n_classes, budget, how)
        right = truth if positive is None else (truth == positive).astype(int)
        for name in np.unique(subject):
            here = subject == name
            if positive is not None and len(np.unique(right[here])) < 2:
                continue  # a subject without both answers says nothing of telling them apart
            found.append(
                {"class": "" if positive is None else str(fold.classes[positive]), "subject": str(name),
                 "accuracy": balanced(right[here], answer[here]), "n": int(here.sum())}
            )  # fmt: skip
    return found


def balanced(truth: np.ndarray, answer: np.ndarray) -> float:
    """Mean over the classes present of the share answered right."""
    return float(np.mean([(answer[truth == c] == c).mean() for c in np.unique(truth)]))


def summarise(draws: pd.DataFrame, stage: Stage, n_test: int, n_classes: int) -> Curves:
    """Draws are averaged first, then classes; the interval is Student's, over subjects."""
    p = stage.params
    by = ["embedder", "task", "budget", "class", "subject"]
    means = draws.groupby(by, sort=False)["accuracy"].mean().reset_index()
    subjects = means.groupby(["embedder", "task", "budget", "subject"], sort=False)["accuracy"].mean().reset_index()  # fmt: skip
    curve, classes = [], []
    for (name, task, budget), part in subjects.groupby(["embedder", "task", "budget"], sort=False):
        curve.append({"embedder": name, "task": task, "budget": budget, **_interval(part["accuracy"], p, 0.5 if task == "one_vs_all" else 1 / n_classes)})  # fmt: skip
    for (name, budget, state), part in means[means["task"] == "one_vs_all"].groupby(["embedder", "budget", "class"], sort=False):  # fmt: skip
        classes.append({"embedder": name, "budget": budget, "class": state, **_interval(part["accuracy"], p, 0.5)})  # fmt: skip
    return Curves(draws, subjects, pd.DataFrame(curve), pd.DataFrame(classes), compare(subjects, stage), n_test)  # fmt: skip


def _interval(values: pd.Series, p: Any, chance: float) -> dict[str, Any]:
    values = values.to_numpy(float)
    low, high = stats.fraction_interval(values)
    return {"value": values.mean(), "ci_low": low, "ci_high": high, "chance": chance,
            "p": stats.sign_flip_p(values - chance, seed=p.seed), "n_subjects": len(values)}  # fmt: skip


def compare(subjects: pd.DataFrame, stage: Stage) -> pd.DataFrame:
    """The differences named beforehand, "a - b", paired over subjects at each budget.

    p by flipping signs of subjects' differences, adjusted by Holm for all of them together. Left out
    is one whose embedders were not run (the default names all that are run by default).
    """
    p, rows = stage.params, []
    for text in p.compare:
        names = text.split(" - ")
        if not set(names) <= set(p.embedders):
            continue
        for (task, budget), part in subjects.groupby(["task", "budget"], sort=False):
            a, b = (part[part["embedder"] == n].set_index("subject")["accuracy"] for n in names)
            difference = (a - b.loc[a.index]).to_numpy(float)
            low, high = stats.t_interval(difference, -1.0, 1.0)
            rows.append(
                {"difference": text, "task": task, "budget": budget, "value": difference.mean(),
                 "ci_low": low, "ci_high": high, "n_subjects": len(difference),
                 "p": stats.sign_flip_p(difference, seed=p.seed, two_sided=True)}
            )  # fmt: skip
    table = pd.DataFrame(rows)
    return table.assign(**{"p, Holm": stats.holm(table["p"].to_numpy())}) if len(table) else table


# --- files and words -----------------------------------------------------------------------------


def lab_dictionary(curves: Curves) -> dict[str, dict[str, dict[str, float]]]:
    """As the lab kept it: embedder -> task -> budget ("None" = all) -> mean test accuracy."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for row in curves.curve.itertuples():
        budget = "None" if row.budget == ALL else str(row.budget)
        found.setdefault(row.embedder, {}).setdefault(row.task, {})[budget] = round(row.value, 6)
    return found


def save(folder: Path, stage: Stage, cohort: Cohort, curves: Curves) -> None:
    """Write metrics.json with a row for each embedder, task and budget; the tables; the lab's dictionary."""
    import json

    rows, every = [], {}
    for r in curves.curve.itertuples():
        score = scores.Score(r.value, r.ci_low, r.ci_high, r.chance, r.p, r.n_subjects)
        budget = "all" if r.budget == ALL else r.budget
        every[f"{r.embedder}, {r.task}, {budget}"] = score
        rows.append({"model": f"{r.embedder} ({stage.params.head})", "variant": f"{r.task}, {budget} labels", "scores": {"balanced_accuracy": score}})  # fmt: skip
    scores.write_metrics(
        folder,
        {
            "notebook": stage.name, "recipe": stage.recipe.recipe, "recording": stage.recording,
            "fold": -1 if len(stage.params.folds) > 1 else stage.params.folds[0], "seed": stage.params.seed,
            "split_hash": self_supervision.fold_hash(cohort, stage.params), "n_test": curves.n_test,
            "n_classes": int(curves.classes["class"].nunique()) if len(curves.classes) else 0,
            "scores": every, "rows": rows, "oracle": {},
        },
    )  # fmt: skip
    curves.draws.to_parquet(folder / DRAWS, index=False)
    curves.subjects.to_parquet(folder / SUBJECTS, index=False)
    curves.curve.to_parquet(folder / CURVE, index=False)
    curves.classes.to_parquet(folder / CLASSES, index=False)
    store.write_text(folder / LAB_DICT, json.dumps(lab_dictionary(curves), indent=1) + "\n")


def short_table(curves: Curves) -> pd.DataFrame:
    """The curve as people read it: one row an embedder and task, a column a budget."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for r in curves.curve.itertuples():
        budget = "all" if r.budget == ALL else f"{r.budget} labels"
        rows.setdefault((r.embedder, r.task), {})[budget] = f"{r.value:.1%} ({r.ci_low:.0%} to {r.ci_high:.0%})"  # fmt: skip
    return pd.DataFrame([{"embedder": e, "task": t, **cells} for (e, t), cells in rows.items()])


def compared_table(curves: Curves) -> pd.DataFrame:
    """The differences named beforehand, as people read them."""
    table = curves.compared
    if len(table) == 0:
        return pd.DataFrame(
            {"no difference": ["named in `compare` is between embedders that were run"]}
        )
    return pd.DataFrame(
        {"difference": table["difference"], "task": table["task"],
         "labels": ["all" if b == ALL else str(b) for b in table["budget"]],
         "value": table["value"].map("{:+.1%}".format),
         "95 % interval": [f"{a:+.1%} to {b:+.1%}" for a, b in zip(table["ci_low"], table["ci_high"], strict=True)],
         "subjects": table["n_subjects"], "p": table["p"].map("{:.2g}".format), "p, Holm": table["p, Holm"].map("{:.2g}".format)}
    )  # fmt: skip


def in_words(stage: Stage, curves: Curves) -> str:
    """The result at the smallest and the largest budget, embedder by embedder."""
    task = stage.params.tasks[0]
    part = curves.curve[curves.curve["task"] == task]
    size = part["budget"].replace(ALL, np.inf)
    ends = part[size.isin([size.min(), size.max()])]
    lines = []
    for name, own in ends.groupby("embedder", sort=False):
        told = [
            f"{r.value:.1%} (95 % interval {r.ci_low:.1%} to {r.ci_high:.1%}) with "
            f"{'all labels' if r.budget == ALL else f'{r.budget} a class'}"
            for r in own.itertuples()
        ]
        lines.append(f"- **{in_markdown(name)}**: {', '.join(told)}")
    n, chance = part["n_subjects"].iloc[0], part["chance"].iloc[0]
    p = stage.params
    folds = (
        f"{len(p.folds)} of {p.n_folds} folds" if len(p.folds) < p.n_folds else f"{p.n_folds} folds"
    )
    words = {"one_vs_all": "one state against all others", "multiclass": "which state it is"}[task]
    return (
        f"**Result.** Balanced accuracy for {words}, mean over {n} test subjects ({folds}); guessing gives {chance:.0%}:\n\n"
        + "\n".join(lines)
    )
