"""A stage whose code changed must get a new version: old artifacts must not pass for new ones.

`stage_sources.json` records, for every stage, its version and a hash of the code behind it
(comments, docstrings and layout do not count). After a change: if what the stage writes can
differ, raise its version in `nblib/road/stage_registry.py`; then `python tests/road/test_stage_versions.py`.

What stands behind 00-04 is listed here. What stands behind a run is computed: every module that
its notebook reaches by imports, but those of the stages it rests on, whose keys are in its own,
and those that stand APART.
"""

import ast
import hashlib
import json
from functools import cache
from pathlib import Path, PurePosixPath

import pytest

from nblib.road import stages
from nblib.simulate import allen, lfp, movie, retina, task

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "nblib"
RECORD = Path(__file__).with_name("stage_sources.json")
ROAD = {
    "00_simulate": ["simulate/[!lmftr_]*.py"],
    "00_simulate_movie": ["simulate/movie.py", "simulate/film_oracle.py", "simulate/nwb_file.py", "simulate/stored.py"],
    "00_simulate_task": ["simulate/task.py", "simulate/task_oracle.py", "simulate/stored.py", "data/ibl/*.py"],
    "00_simulate_lfp": ["simulate/lfp.py", "simulate/nwb_file.py", "simulate/stored.py"],
    "00_simulate_retina": ["simulate/retina.py", "simulate/nwb_file.py", "simulate/stored.py"],
    "01_ingest": ["data/[!i_]*.py", "data/files/*.py", "data/nwb/*.py", "data/lfp/*.py", "data/allen/*.py", "data/ibl/*.py", "data/checks/*.py", "data/trials/*.py"],
    "02_bin": ["prepare/binning.py", "prepare/bin_of_spike.py", "prepare/potentials/lfp_windows.py", "prepare/potentials/stored_windows.py", "prepare/responses.py", "prepare/binning_stage.py", "prepare/continuous/film.py", "prepare/continuous/__init__.py", "data/stimulus.py", "prepare/signals.py", "data/expressions.py", "data/trials/*.py", "data/sources.py", "data/opening.py", "data/counts_dataset.py", "data/binned_files.py", "data/lab_pickle.py", "data/files/guarded_pickle.py", "data/files/__init__.py"],
    "03_clean": ["prepare/cleaning.py"],
    "04_split": ["prepare/stored_splits.py", "prepare/train_statistics.py", "prepare/continuous/film.py", "prepare/continuous/__init__.py", "prepare/split_roles.py", "data/trials/labelling.py"],
}  # fmt: skip
# No artifact holds other data because of these, so they stand behind no version.
APART = {
    "settle or check what is asked for, whose values are in the key; keep and check bytes": {"core", "road"},
    "draw and word what stands in the executed notebook, not in the artifact": {"report/plots", "report/explore.py", "report/response_explorer.py"},
    "run notebooks, and tell what was run": {
        "__init__.py", "__main__.py", "cli.py", "run", "book", "data/inventory.py", "report/score_file.py",
    },
    "hold nothing but a sentence": {f"{room}/__init__.py" for room in ("data", "simulate", "prepare", "evaluate", "experiments", "experiments/film", "experiments/images", "experiments/multimodal", "models/multimodal", "experiments/spikes", "models/encoders", "prepare/encoding", "prepare/potentials", "report")},
}  # fmt: skip
NAMED_BY_TEXT = {"models/__init__.py": "models/*.py"}  # imported by the name that a setting gives
VERSIONS = {
    "00_simulate": allen.VERSION,
    "00_simulate_lfp": lfp.VERSION,
    "00_simulate_movie": movie.VERSION,
    "00_simulate_task": task.VERSION,
    "00_simulate_retina": retina.VERSION,
} | {name: info.version for name, info in stages.STAGES.items()}


def is_apart(module: str) -> bool:
    places = {module, *(parent.as_posix() for parent in PurePosixPath(module).parents)}
    return bool(places & set().union(*APART.values()))


def matching(patterns: list[str]) -> set[str]:
    found = set()
    for pattern in patterns:
        modules = {p.relative_to(PACKAGE).as_posix() for p in PACKAGE.glob(pattern)}
        assert modules, f"{pattern} matches no module"
        found |= modules
    return found


def module_of(name: str) -> str:
    """The file of a dotted name, or of the longest beginning of it that is a module."""
    parts = name.split(".")[1:]
    while parts:
        stem = "/".join(parts)
        for file in (f"{stem}.py", f"{stem}/__init__.py"):
            if (PACKAGE / file).is_file():
                return file
        parts.pop()
    return "__init__.py"


def imports(tree: ast.AST) -> set[str]:
    """Modules of nblib that code imports, inside functions too, but not for its type hints alone."""
    found, todo = set(), [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            todo += node.orelse
        elif isinstance(node, ast.Import):
            found |= {a.name for a in node.names if a.name.startswith("nblib.")}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports of nblib are absolute"
            if (node.module or "").split(".")[0] == "nblib":
                found |= {f"{node.module}.{a.name}" for a in node.names}
        else:
            todo += ast.iter_child_nodes(node)
    return {module_of(name) for name in found} - {"__init__.py"}


@cache
def code_of(module: str) -> ast.AST:
    return ast.parse((PACKAGE / module).read_text(encoding="utf-8"))


@cache
def behind(stage: str) -> frozenset[str]:
    """The modules whose code changes what a stage writes."""
    if stage in ROAD:
        return frozenset(matching(ROAD[stage]))
    notebook = json.loads((ROOT / "notebooks" / f"{stage}.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    before, upstream = set(), stages.STAGES[stage].upstream
    while upstream is not None:
        before |= behind(upstream)
        upstream = stages.STAGES[upstream].upstream
    before = before.union(*(behind(name) for name in ROAD if name.startswith("00_")))
    found, todo = set(), [m for cell in cells for m in imports(ast.parse(cell))]
    while todo:
        module = todo.pop()
        if module not in found | before and not is_apart(module):
            found.add(module)
            todo += imports(code_of(module))
            todo += matching([NAMED_BY_TEXT[module]]) if module in NAMED_BY_TEXT else []
    return frozenset(found)


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


@cache
def dump(module: str) -> bytes:
    return ast.dump(without_docstrings(code_of(module))).encode()


def code_hash(modules: frozenset[str]) -> str:
    digest = hashlib.sha256()
    for module in sorted(modules):
        digest.update(dump(module))
    return digest.hexdigest()[:16]


def current(stage: str) -> dict[str, object]:
    return {"version": VERSIONS[stage], "code": code_hash(behind(stage))}


@pytest.mark.parametrize("stage", VERSIONS)
def test_changed_code_has_a_new_version(stage):
    assert current(stage) == json.loads(RECORD.read_text()).get(stage), (
        f"{stage}: its code changed since it was recorded. If its results can differ, raise its version; "
        "then record the code with: python tests/road/test_stage_versions.py"
    )


def test_every_module_stands_behind_a_stage_or_is_named_apart():
    modules = {p.relative_to(PACKAGE).as_posix() for p in PACKAGE.rglob("*.py")}
    stand = set().union(*map(behind, VERSIONS))
    lost = {m for m in modules - stand if not is_apart(m)}
    assert not lost, (
        f"no stage's version covers {sorted(lost)}: list them in ROAD, or APART and why"
    )
    assert not {m for m in stand if is_apart(m)}
    gone = {place for place in set().union(*APART.values()) if not (PACKAGE / place).exists()}
    assert not gone, f"APART names what is not there: {sorted(gone)}"


def test_runs_are_covered_by_what_they_train_and_judge_with():
    assert {
        "experiments/decode.py", "evaluate/scores.py", "models/network.py", "models/training.py",
    } <= behind("05_train_lstm")  # fmt: skip
    assert "models/graphs.py" in behind("06_train_st_gat")
    assert "experiments/few_shot.py" in behind("07_few_shot")
    ssl = {
        "experiments/self_supervision.py",
        "experiments/pretext.py",
        "evaluate/stats.py",
    }
    assert ssl <= behind("08_ssl_pretext")
    assert {"experiments/label_budget.py", "experiments/readouts.py"} <= behind(
        "09_downstream_one_vs_all"
    )
    images = {
        "experiments/images/from_spikes.py",
        "experiments/images/regression.py",
        "models/vae.py",
    }
    assert images <= behind("10_image_latents")
    assert {"report/summary.py", "report/audit/checks.py"} <= behind("90_results")
    assert "prepare/binning.py" not in behind("05_train_lstm")  # a new 02 gives every run a new key


def test_the_check_sees_code_and_not_comments(tmp_path):
    one = without_docstrings(ast.parse('def f(x):\n    """Doc."""\n    return x + 1  # why\n'))
    two = without_docstrings(ast.parse("def f(x):\n    return (x\n            + 1)\n"))
    three = without_docstrings(ast.parse("def f(x):\n    return x + 2\n"))
    assert ast.dump(one) == ast.dump(two) != ast.dump(three)


if __name__ == "__main__":
    RECORD.write_text(json.dumps({stage: current(stage) for stage in VERSIONS}, indent=1) + "\n")
    print(f"recorded {RECORD}")
