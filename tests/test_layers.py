"""Who may import whom: imports point up one list, and torch stays where it is needed."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from nblib.core.source_registry import SOURCES
from nblib.road.stage_registry import STAGES

ROOT = Path(__file__).resolve().parents[1]
# The folders of the package in the order data flows. A module may import what stands in its own
# folder or in one above it, never what stands below.
ORDER = [
    "core", "data", "simulate", "road", "prepare", "models", "evaluate", "experiments", "report",
    "run", "book", "cli", "__main__",
]  # fmt: skip
PACKAGE = ROOT / "nblib"
FILES = sorted(p for p in PACKAGE.rglob("*.py"))
TORCH = {"torch", "lightning", "pytorch_lightning", "torch_geometric", "torchmetrics", "wandb"}
# Notebooks 01-04 use these, and so must start without torch.
ROAD = ["core", "data", "road", "prepare", "report/plots", "report/response_explorer.py"]


def layer(path: Path) -> str:
    """The name in ORDER that a file belongs to."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imported(tree: ast.AST, path: Path) -> set[str]:
    """The layers of nblib that a file names in any import, inside functions too."""
    package = ["nblib", *path.relative_to(PACKAGE).parts[:-1]]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, node.module] if node.module else base)
            names = [f"{stem}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("nblib.")}
    return found & set(ORDER)


def loaded_by(code: str) -> set[str]:
    """Top-level names of the modules that a fresh interpreter holds after running `code`."""
    show = "import json, sys; print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    out = subprocess.run(
        [sys.executable, "-c", f"{code}\n{show}"], capture_output=True, text=True, timeout=120
    )
    assert out.returncode == 0, out.stderr
    return set(json.loads(out.stdout.splitlines()[-1]))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_up(path):
    tree = ast.parse(path.read_text(), filename=str(path))
    if path == PACKAGE / "__init__.py":
        inside = {n for stmt in tree.body for n in imported(stmt, path)}
        assert not inside, "nblib/__init__.py imports nothing of nblib until it is asked"
        return
    own = layer(path)
    assert own in ORDER, f"{own} has no place in the list of folders"
    below = {n for n in imported(tree, path) if ORDER.index(n) > ORDER.index(own)}
    assert not below, f"{path.relative_to(ROOT)} imports from further down: {sorted(below)}"


def test_import_nblib_is_light():
    new = loaded_by("import nblib") - loaded_by("")
    outside = {name for name in new if name not in sys.stdlib_module_names}
    assert {name for name in outside if not name.startswith(("_", "nblib"))} == set()


def test_the_command_line_starts_light():
    heavy = {"numpy", "pandas", "scipy", "xarray", "h5py", "pynwb", "matplotlib", "papermill"}
    heavy |= TORCH | {"sklearn", "IPython", "ipykernel", "pydantic", "yaml"}
    code = "import contextlib, nblib.cli\nwith contextlib.suppress(SystemExit): nblib.cli.main(['--help'])"
    assert not loaded_by(code) & heavy


def test_notebooks_01_to_04_never_load_torch_or_the_sdk(home):
    """Neither by what they import nor by what they do."""
    places = [PACKAGE / name for name in ROAD]
    files = [f for place in places for f in (place.rglob("*.py") if place.is_dir() else [place])]
    modules = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    code = (
        f"import sys\nsys.path.insert(0, {str(ROOT / 'tests')!r})\nfrom by_hand import ROAD, by_hand\n"
        "for name in ROAD: by_hand(name, recipe='tiny', recording='tiny')\n"
        f"import {', '.join(modules)}"
    )
    assert not loaded_by(code) & (TORCH | {"allensdk", "SimpleITK"})


def named(nodes: Iterable[ast.AST]) -> set[str]:
    """The packages that import statements among some nodes name."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_torch_is_named_at_the_top_of_models_and_the_sdk_in_one_module_only():
    for path in FILES:
        tree = ast.parse(path.read_text())
        assert layer(path) == "models" or not named(tree.body) & TORCH, path
        sdk = "allensdk" in named(ast.walk(tree))
        assert sdk == (path == PACKAGE / "data" / "allen" / "warehouse.py"), path


# Who may name a source: a command and an extra of pip of that name, and the default of recipes.
NAMED = {"cli.py": {"allen"}, "run/doctor.py": {"allen"}, "core/params.py": {"simulate"}}
COMMON = {"counts", "movie", "reach"}  # words that mean something else as well


def test_no_source_or_notebook_is_named_outside_its_own_room():
    """What holds for one of them stands in its registry entry or its module, so that a new one fits in."""
    sources, notebooks = set(SOURCES) - COMMON, set(STAGES)
    for path in FILES:
        nodes = ast.walk(ast.parse(path.read_text()))
        texts = {node.value for node in nodes if isinstance(node, ast.Constant)}
        if layer(path) not in ("data", "simulate") and path.name != "source_registry.py":
            names = texts & sources - NAMED.get(str(path.relative_to(PACKAGE)), set())
            assert not names, f"{path} names source {names}"
        if path.name != "stage_registry.py":
            assert not texts & notebooks, f"{path} names notebook {texts & notebooks}"
        assert "SimpleNamespace" not in path.read_text(), path


@pytest.mark.parametrize(
    ("name", "text", "layers"),
    [
        ("prepare/x.py", "from nblib import data, core", {"data", "core"}),
        ("data/nwb/x.py", "from ...core.y import x", {"core"}),
        ("data/x.py", "from . import allen\nfrom .. import cli", {"data", "cli"}),
        ("data/x.py", "def f():\n    import nblib.cli", {"cli"}),
        ("data/x.py", "import numpy\nfrom nblib.models.network import LSTM", {"models"}),
    ],
)
def test_the_reader_of_imports_sees(name, text, layers):
    assert imported(ast.parse(text), PACKAGE / name) == layers
