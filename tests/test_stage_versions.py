"""A stage whose code changed must get a new version: old artifacts must not pass for new ones.

`stage_sources.json` records, for every stage, its version and a hash of the code behind it
(comments, docstrings and layout do not count). After a change: if what the stage writes can
differ, raise its version in `nblib/stages.py`; then `python tests/test_stage_versions.py`.
"""

import ast
import hashlib
import json
from pathlib import Path

import pytest

from nblib import stages
from nblib.sources import simulate

ROOT = Path(__file__).resolve().parents[1]
RECORD = Path(__file__).with_name("stage_sources.json")
SOURCES = {
    "00_simulate": ["sources/simulate*.py", "sources/oracle.py"],
    "01_ingest": ["recording.py", "inspection/*.py", "sources/hdf5.py", "sources/nwb*.py", "sources/allen*.py", "sources/checks.py", "sources/plainfiles.py"],
    "02_bin": ["binning.py", "counting.py", "sources/lab_pickle.py", "sources/guarded_pickle.py"],
    "03_clean": ["cleaning.py", "intervals.py"],
    "04_split": ["splits.py"],
    "05_train_lstm": ["windows.py", "training/*.py", "metrics.py", "stats.py", "models/*.py"],
}  # fmt: skip


def without_docstrings(tree: ast.AST) -> ast.AST:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            node.body = body[1:] or [ast.Pass()]
    return tree


def code_hash(patterns: list[str]) -> str:
    digest = hashlib.sha256()
    for pattern in patterns:
        files = sorted((ROOT / "nblib").glob(pattern))
        assert files, f"{pattern} matches no module"
        for path in files:
            digest.update(
                ast.dump(without_docstrings(ast.parse(path.read_text(encoding="utf-8")))).encode()
            )
    return digest.hexdigest()[:16]


def current() -> dict[str, dict]:
    versions = {"00_simulate": simulate.VERSION} | {s: i.version for s, i in stages.STAGES.items()}
    return {s: {"version": versions[s], "code": code_hash(p)} for s, p in SOURCES.items()}


@pytest.mark.parametrize("stage", SOURCES)
def test_changed_code_has_a_new_version(stage):
    recorded, now = json.loads(RECORD.read_text())[stage], current()[stage]
    assert now == recorded, (
        f"{stage}: its code changed since it was recorded. If its results can differ, raise its version; "
        "then record the code with: python tests/test_stage_versions.py"
    )


def test_the_check_sees_code_and_not_comments(tmp_path):
    one = without_docstrings(ast.parse('def f(x):\n    """Doc."""\n    return x + 1  # why\n'))
    two = without_docstrings(ast.parse("def f(x):\n    return (x\n            + 1)\n"))
    three = without_docstrings(ast.parse("def f(x):\n    return x + 2\n"))
    assert ast.dump(one) == ast.dump(two) != ast.dump(three)


if __name__ == "__main__":
    RECORD.write_text(json.dumps(current(), indent=1) + "\n")
    print(f"recorded {RECORD}")
