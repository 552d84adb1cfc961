"""Leakage audit: what every run says of itself, checked against the files it was made from.

Nothing is trusted that can be read: roles from the stored split, test rows from the stored
predictions, teachers from the runs of 08, and what a recording is from the hash of its raw file.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from nblib.core.errors import NblibError
from nblib.report import all_runs
from nblib.report.audit import checks, sessions
from nblib.report.audit.files import Files
from nblib.report.one_run import Unreadable, nothing_to_free, read_all

CHECKS = {
    "files": "what a run and its split hold is what was written",
    "one split": "runs compared with each other were judged by one split, the one that is stored",
    "roles": "no presentation, and none that overlaps or lies inside the gap, teaches and judges",
    "test rows": "predictions are of the test rows of their fold, and the numbers of rows agree",
    "random split": "no split is random where labels come in runs",
    "choice": "what a run chose itself (epoch, penalty) it chose on validation",
    "windows": "of time without trials, a role sees its own time and gaps alone, and nothing after t0",
    "recordings": "no recording takes part under two names",
    "subjects": "no test subject taught the embedder that it judges",
    "sessions": "a model of several sessions scales by train trials and sees neither what is hidden nor, if causal, what comes later; no new recording taught it, it remembers no test trial, and none is a trial of another recording that teaches",
}
LOOKS = {
    "test rows": checks.test_rows, "random split": checks.random_split, "choice": checks.choice,
    "windows": checks.windows, "subjects": checks.subjects, "sessions": sessions.model_of_sessions,
}  # fmt: skip
ACROSS = {
    "one split": checks.one_split,
    "roles": checks.roles,
    "recordings": checks.recordings,
}
LEAK, UNTOLD = "leak", "cannot be told"
# What reading raises: one run that is not as its stage writes it must not end the audit.
UNREADABLE = (NblibError, OSError)


@dataclass(frozen=True)
class Finding:
    """One fault: the check, the run, what was found, and "leak" or "cannot be told"."""

    check: str
    folder: Path
    what: str
    verdict: str

    @classmethod
    def of(cls, check: str, folder: Path, fault: checks.Fault) -> Finding:
        """From what a check gave: a sentence is a leak, an error what cannot be told."""
        return cls(check, folder, str(fault), LEAK if isinstance(fault, str) else UNTOLD)


@dataclass(frozen=True)
class Audit:
    """What was looked at, how often, and what was found."""

    looked: dict[str, int]
    findings: list[Finding]

    def table(self) -> pd.DataFrame:
        """One row a finding, and one for each check without any."""
        rows = []
        for check, rule in CHECKS.items():
            empty = "passed" if self.looked[check] else "nothing to look at"
            faults = [
                (f.verdict, "/".join(f.folder.parts[-2:]), f.what)
                for f in self.findings
                if f.check == check
            ]
            for verdict, run, what in faults or [(empty, "", "")]:
                rows.append(
                    {"check": check, "verdict": verdict, "run": run, "found": what,
                     "looked at": self.looked[check], "what must hold": rule}
                )  # fmt: skip
        return pd.DataFrame(rows)

    @property
    def exit_code(self) -> int:
        return int(bool(self.findings))

    def __str__(self) -> str:
        return self.table().to_string(index=False)

    def in_words(self) -> str:
        """The verdict in a sentence."""
        if not self.findings:
            return f"{self.looked['files']} runs audited: no leak found."
        leaks = sum(f.verdict == LEAK for f in self.findings)
        return (
            f"{self.looked['files']} runs audited: **{leaks} leaks**, and "
            f"{len(self.findings) - leaks} that cannot be told."
        )


@nothing_to_free()
def audit(recipe: str = "") -> Audit:
    """Check every run of the data root, or those of one recipe and the recipes derived from it.

    Raises BadParameter for a recipe that is not there and has no run.
    """
    everything = read_all()
    table = all_runs.by_result(all_runs.scores(everything, recipe))
    folders = set(table["folder"])
    everything = [run for run in everything if str(run.folder) in folders]
    looked, findings, files = Counter({"files": len(everything)}), [], Files()
    runs = []
    for run in everything:
        if isinstance(run, Unreadable):
            findings.append(Finding.of("files", run.folder, run.error))
        else:
            runs.append(run)
    # Runs of one split and fold in a row: their samples are cut once, and one at a time is held.
    for run in sorted(runs, key=lambda r: (str(r.split), r.metrics.get("fold", 0))):
        for check, look in LOOKS.items():
            try:
                faults = look(run, files)
            except UNREADABLE as error:
                faults = [error]
            if faults is not None:
                looked[check] += 1
                findings += [Finding.of(check, run.folder, fault) for fault in faults]
    for run in runs:
        for split in run.splits:
            try:
                files.split(split)
            except UNREADABLE as error:
                findings.append(Finding.of("files", run.folder, error))
    files.keep_answers()
    for check, look in ACROSS.items():
        looked[check], faults = look(runs, table, files)
        findings += [Finding.of(check, folder, fault) for folder, fault in faults]
    return Audit({check: looked[check] for check in CHECKS}, findings)
