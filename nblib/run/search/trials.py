"""The trials of a search: proposed by Optuna, judged on validation, kept in a journal file.

A trial fits with one proposal and is scored on validation trials; it never looks at test trials and
leaves no run. Any number of processes on any number of nodes may write to
the journal (Akiba et al. 2019).
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nblib.core import params as P
from nblib.core import store
from nblib.core.errors import BadInput, CorruptArtifact, MissingInput, NblibError
from nblib.road.stage_registry import CLEAN, SPLIT, STAGES, by_name
from nblib.run import execute, plan
from nblib.run.plan import Task
from nblib.run.search.definition import Search, Space, Study, settings_text

if TYPE_CHECKING:
    import optuna

STUDY, JOURNAL, CURRENT = "study.json", "journal.log", "current.json"


def need_optuna() -> Any:
    """Optuna, quiet. MissingInput with the command that mends it where it is not installed."""
    try:
        import optuna
    except ImportError:
        raise MissingInput(
            "a search needs Optuna. The command that mends it:  pip install -e '.[sweep]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # The sampler that a grid's points are given to has been called experimental since 2020.
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


def open_study(study: Study, index: int = 0, *, create: bool = False) -> optuna.Study:
    """The trials of a study as Optuna has them; index: of the trial that is proposed next; create:
    begin its journal where there is none (reading alone must not write).

    Proposals depend on (seed, index) and on the trials known by then: each process that proposes
    draws anew, so that no two propose the same by sharing a seed.
    """
    optuna = need_optuna()
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    s = study.search
    path = str(study.folder() / JOURNAL)
    # This lock holds on NFS too, and one left by a process that was killed gives way by itself.
    try:
        storage = optuna.storages.JournalStorage(
            JournalFileBackend(path, JournalFileOpenLock(path))
        )
    except (ValueError, KeyError) as error:
        raise CorruptArtifact(
            f"{path}: a line of it is damaged ({error}). Without that line the other trials stand; "
            "delete it, or the file to begin anew."
        ) from None
    seed = int(np.random.SeedSequence([s.seed, index]).generate_state(1)[0])
    n_startup = min(10, max(4, s.trials // 3))
    if s.sampler == "tpe":
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=n_startup)
    else:
        sampler = optuna.samplers.RandomSampler(seed=seed)
    if s.sampler == "grid":
        sampler = optuna.samplers.PartialFixedSampler(_point(s, index), sampler)
    pruners = {
        "median": optuna.pruners.MedianPruner(n_startup_trials=n_startup, n_warmup_steps=s.grace_epochs),
        "asha": optuna.pruners.SuccessiveHalvingPruner(min_resource=s.grace_epochs, reduction_factor=2),
        "none": optuna.pruners.NopPruner(),
    }  # fmt: skip
    name = study.folder().name
    if create:
        optuna.create_study(
            storage=storage, study_name=name, direction=s.direction, load_if_exists=True
        )
    return optuna.load_study(
        storage=storage, study_name=name, sampler=sampler, pruner=pruners[s.pruner]
    )


def _point(search: Search, index: int) -> dict[str, Any]:
    """The point of a grid that belongs to this index, in an order drawn by the seed."""
    points = list(itertools.product(*(space.choices for space in search.space.values())))
    order = np.random.default_rng(search.seed).permutation(len(points))
    return dict(zip(search.space, points[order[index % len(points)]], strict=True))


def ended(study: Study) -> dict[int, optuna.trial.FrozenTrial]:
    """The trials that came to an end, by index; those of killed processes are not among them.

    Of an index that two sweeps tried at once, a trial that ran whole stands before another one.
    Those beyond the number of trials asked for are left out.
    """
    if not (study.folder() / JOURNAL).is_file():
        return {}
    by_index: dict[int, optuna.trial.FrozenTrial] = {}
    finished = [t for t in open_study(study).get_trials(deepcopy=False) if t.state.is_finished()]
    for trial in sorted(finished, key=lambda trial: trial.state.name != "COMPLETE"):
        index = trial.user_attrs.get("index", study.search.trials)
        if index < study.search.trials:
            by_index.setdefault(index, trial)
    return by_index


def begin(study: Study) -> list[int]:
    """Write down what the study is; return the indices of the trials to do.

    Raises BadInput when the settings searched lead to different validation presentations.
    """
    from nblib.prepare import stored_splits

    hashes = {}
    for run in study.inputs():
        job = plan.job_of(*run)
        roles = [stored_splits.load(job.input(SPLIT, name))[0] for name in job.recordings]
        hashes[tuple(map(stored_splits.split_hash, roles))] = job.recipe_name
    if len(hashes) > 1:
        raise BadInput(
            f"search {study.name}: recipes {', '.join(hashes.values())} have different splits, so their "
            "trials would be judged on different presentations. Do not search settings of the split."
        )
    folder = study.folder()
    folder.mkdir(parents=True, exist_ok=True)
    values = {"name": study.name, "search": study.search.model_dump(), "fixed": study.fixed}
    store.write_text(folder / STUDY, json.dumps(values, indent=1))
    open_study(study, create=True)
    done = ended(study)
    return [i for i in range(study.search.trials) if i not in done]


def read(folder: Path | str) -> Study:
    """The study that `begin` wrote down."""
    path = Path(folder) / STUDY
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CorruptArtifact(f"{path}: not readable ({error}); call the sweep again.") from None
    search = P.checked(Search, values["search"], str(folder))
    return Study(values["name"], search, values["fixed"])


def attempt_trial(folder: str, index: int) -> execute.Exit:
    """One trial, in a process of its own; its outcome is in the journal when this returns.

    Settings with which nothing can be trained are a trial that failed, not a failed sweep.
    """
    optuna = need_optuna()
    study = read(folder)
    if index in ended(study):
        return execute.Exit(execute.OK, f"trial {index}: done already")
    trial = open_study(study, index).ask()
    trial.set_user_attr("index", index)
    trial.set_user_attr("worker", f"{platform.node()} {os.getpid()}")
    settings = {name: _suggest(trial, name, space) for name, space in study.search.space.items()}
    words = f"{study.name}, {study.title()}, trial {index} ({settings_text(settings)})"
    try:
        value = judge(study, settings, trial)
    except optuna.TrialPruned:
        trial.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        return execute.Exit(execute.OK, f"{words}: given up early")
    except Exception as error:  # whatever it is, it is this trial's end and stands in its record
        reason = str(error) if isinstance(error, NblibError) else f"{type(error).__name__}: {error}"
        trial.set_user_attr("error", reason)
        trial.study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return execute.Exit(execute.OK, f"{words}: failed. {reason}")
    trial.study.tell(trial, value)
    return execute.Exit(execute.OK, f"{words}: {study.search.objective} {value:.4f}")


def _suggest(trial: optuna.Trial, name: str, space: Space) -> Any:
    if space.choices:
        return trial.suggest_categorical(name, space.choices)
    if isinstance(space.low, int) and isinstance(space.high, int):
        return trial.suggest_int(name, space.low, space.high, log=space.log)
    return trial.suggest_float(name, space.low, space.high, log=space.log)


def judge(study: Study, settings: dict[str, Any], trial: optuna.Trial | None = None) -> float:
    """Fit with these settings on train trials and score on validation, by the objective.

    trial: told the objective of every epoch; raises optuna.TrialPruned when it shall be given up.
    """
    from nblib.models import training

    job, objective = plan.job_of(*study.task(settings)), study.search.objective

    def watch(row: dict[str, float]) -> None:
        if trial is not None and np.isfinite(row[objective]):
            trial.report(row[objective], int(row["epoch"]) + 1)
            if trial.should_prune():
                raise need_optuna().TrialPruned

    with training.watching(watch):
        find = job.inputs if STAGES[job.name].cohort else job.input
        inputs = find(SPLIT), find(CLEAN), job.recipe, job.params
        return by_name(STAGES[job.name].trial)(*inputs)[objective]


def calls(studies: list[Study]) -> list[dict[str, Any]]:
    """The trials that are still to do, as calls for `runner.run_calls`."""
    return [
        {"call": "nblib.run.search.trials:attempt_trial", "folder": str(study.folder()), "index": i}
        for study in studies
        for i in begin(study)
    ]


# --- what came out -------------------------------------------------------------------------------


def best(study: Study) -> optuna.trial.FrozenTrial | None:
    """The whole trial with the best objective; the first of equals. None without one."""
    whole = [trial for _, trial in sorted(ended(study).items()) if trial.state.name == "COMPLETE"]
    sign = -1 if study.search.direction == "maximize" else 1
    return min(whole, key=lambda trial: sign * trial.value, default=None)


def winner(study: Study) -> Task | None:
    """The run that is tested: the best trial's settings. None while no trial ran to its end."""
    chosen = best(study)
    return None if chosen is None else study.task(chosen.params)


def keep(name: str, studies: list[Study]) -> None:
    """Remember which studies a sweep has now; notebook 91 shows these."""
    keys = json.dumps([study.folder().name for study in studies])
    store.write_text(store.searches_dir() / name / CURRENT, keys)


def tested(study: Study) -> list[Task]:
    """The runs that are evaluated on test presentations: the winner, and the settings as they were.

    None before every trial has ended: who looks at the test halfway, and goes on, has chosen by it.
    """
    if len(ended(study)) < study.search.trials:
        return []
    chosen = winner(study)
    return [] if chosen is None else [chosen, study.task({})]
