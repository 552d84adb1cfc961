"""What the data root holds: artifacts by stage and recording, and the notebooks that failed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nblib import store
from nblib.errors import NblibError


def artifacts() -> list[dict[str, Any]]:
    """One row a committed artifact: stage, recording, key, recipe, created, bytes, executed."""
    rows = []
    for folder in store.artifacts():
        stage, recording, key = folder.parts[-3:]
        row = {"stage": stage, "recording": recording, "key": key}
        try:
            manifest = store.read_manifest(folder)
        except NblibError:
            row |= {"recipe": "unreadable manifest", "created": "", "bytes": 0}
        else:
            n_bytes = sum(output["bytes"] for output in manifest["outputs"].values())
            recipe = (manifest.get("recipe") or {}).get("recipe", "")
            row |= {"recipe": recipe, "created": manifest["created"], "bytes": n_bytes}
        rows.append(row | {"executed": (folder / store.ATTACHED[0]).is_file()})
    return rows


def failed() -> list[tuple[Path, str]]:
    """Notebooks kept because they failed, newest last, each with the last line of its error."""
    paths = sorted(store.failed_dir().glob("*/*.ipynb"), key=lambda path: path.stat().st_mtime)
    return [(path, _words(path)) for path in paths]


def _words(path: Path) -> str:
    running = path.name.removesuffix(".running.ipynb")
    if running != path.name:
        pid = running.rpartition(".")[2]
        alive = store.alive(int(pid))
        return "running now, if it was begun on this host" if alive else "its runner was killed"
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError):
        return "not readable"
    outputs = [o for cell in cells for o in cell.get("outputs", [])]
    for output in reversed(outputs):
        if output["output_type"] == "error":
            return f"{output['ename']}: {(str(output['evalue']).strip().splitlines() or [''])[-1]}"
    note = "".join(cells[0]["source"]) if cells else ""
    return note.strip("*") if cells and cells[0]["cell_type"] == "markdown" else "no error in it"


def report() -> str:
    """All of it as text for a terminal."""
    from nblib.runner import size

    lines = [f"data root: {store.home()}", ""]
    rows = artifacts()
    widths = {"stage": 14, "recording": 18, "key": 16, "recipe": 24, "created": 20}
    if rows:
        lines.append(
            "  ".join(f"{name:{w}}" for name, w in widths.items()) + "       size  notebook"
        )
    for row in rows:
        text = "  ".join(f"{row[name]:{w}}" for name, w in widths.items())
        lines.append(f"{text}  {size(row['bytes']):>9}  {'attached' if row['executed'] else '-'}")
    total = sum(row["bytes"] for row in rows)
    lines.append(f"{len(rows)} artifacts, {size(total)}" if rows else "no artifacts yet")
    kept = failed()
    lines += ["", f"{len(kept)} failed notebooks" if kept else "no failed notebooks"]
    for path, words in kept:
        lines += [f"  {path}", f"      {words}"]
    return "\n".join(lines)
