"""What the data root holds: artifacts by stage and recording, and the notebooks that failed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nblib.core import store
from nblib.core.errors import NblibError
from nblib.run.execute import at_work, size


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
    return [(path, words(path)) for path in paths]


def words(path: Path) -> str:
    """What a kept notebook says of its end: its error's last line, or that it is at work."""
    if (who := at_work(path)) is not None:
        if who.alive is None:
            return f"at work on {who.host}, if that is still so"
        return "running now" if who.alive else "its runner was killed"
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError):
        return "not readable"
    note = "".join(cells[0]["source"]) if cells and cells[0]["cell_type"] == "markdown" else ""
    if note.startswith("**This run did not end well"):
        return note.strip("*")
    outputs = [o for cell in cells for o in cell.get("outputs", [])]
    for output in reversed(outputs):
        if output["output_type"] == "error":
            return f"{output['ename']}: {(str(output['evalue']).strip().splitlines() or [''])[-1]}"
    return "no error in it"


def report() -> str:
    """All of it as text for a terminal."""
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
