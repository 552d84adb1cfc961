"""What starting costs: the runner over papermill itself, importing nblib, its command line."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from measure import Row, best, process

BIN = Path(sys.executable).parent
NOTEBOOK = "01_ingest"


def rows(nwb: Path, *, repeats: int = 3) -> list[Row]:
    """Seconds of whole processes, each the best of `repeats`; the notebook reads a small file."""
    return [*_starting(2 * repeats + 1), *_runner(nwb, repeats)]


def _starting(repeats: int) -> list[Row]:
    took = best(
        repeats,
        bare=lambda: process(sys.executable, "-c", "pass"),
        package=lambda: process(sys.executable, "-c", "import nblib"),
        line=lambda: process(str(BIN / "nblib"), "--help"),
    )
    package, line = max(0.0, took["package"] - took["bare"]), took["line"]
    group = "tools"
    return [
        Row(group, "import nblib", package, limit="at most 0.3 s", holds=package <= 0.3,
            note="over an empty Python"),
        Row(group, "nblib --help", line, limit="at most 0.6 s", holds=line <= 0.6,
            note="the whole command"),
    ]  # fmt: skip


def _runner(nwb: Path, repeats: int) -> list[Row]:
    """Both run the same notebook on the same file into an empty data root, as whole commands."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "bench.yml"
        recipe.write_text(f"recipe: bench\nrecordings: [bench]\nsource: nwb\npath: {nwb}\n")
        given = ["-p", "recipe", str(recipe), "-p", "recording", "bench"]
        source = str(Path(__file__).resolve().parents[2] / "notebooks" / f"{NOTEBOOK}.ipynb")
        made = iter(range(1_000))

        def home() -> dict[str, str]:
            return {"NBLIB_HOME": str(Path(folder) / f"home{next(made)}")}

        def papermill() -> None:
            out = str(Path(folder) / "out.ipynb")
            process(str(BIN / "papermill"), source, out, *given, env=home())

        def nblib() -> None:
            process(str(BIN / "nblib"), "run", NOTEBOOK, *given, env=home())

        took = best(repeats, papermill=papermill, nblib=nblib)
    over = took["nblib"] - took["papermill"]
    group, against = "tools", f"papermill {NOTEBOOK}"
    return [
        Row(group, against, took["papermill"], ratio=1.0, note="a small simulated recording"),
        Row(group, f"nblib run {NOTEBOOK}", took["nblib"], ratio=took["nblib"] / took["papermill"],
            against=against, limit="at most 1 s more", holds=over <= 1.0, note=f"{over:+.2f} s"),
    ]  # fmt: skip
