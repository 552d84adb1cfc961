"""How kinds of files are read, and what stands at a path that was to be a file, in words."""

from __future__ import annotations

import os
from pathlib import Path

from nblib.core.errors import MissingInput

ZARR = (".zgroup", ".zarray", ".zattrs", ".zmetadata", "zarr.json")
POINTER = 1024  # what stands for a file's content is shorter [byte]


def require_file(path: Path, hint: str = "check `path` in the recipe") -> None:
    """MissingInput that says what stands at `path` where it is no file with content of its own."""
    if what := _instead(path) or ("" if path.is_file() else f"no such file; {hint}"):
        raise MissingInput(f"{path}: {what}.")


def _instead(path: Path) -> str:
    """What is at a path in place of the file that was meant, and what to do; "" for nothing known."""
    if path.is_dir():
        if path.suffix != ".zarr" and not any((path / name).exists() for name in ZARR):
            return "this is a folder; give the path of the file in it"
        return (
            "this is a Zarr folder, and nblib reads HDF5. Write it as one .nwb file with hdmf-zarr "
            "and pynwb: NWBHDF5IO(…, 'w').export(src_io, nwbfile, write_args={'link_data': False})"
        )
    if path.is_symlink() and not path.exists():
        target = path.readlink()
        if "annex" not in target.parts:
            return f"this is a link to {target}, which is not there"
        start = b"/annex/objects/"
    elif path.is_file() and path.stat().st_size < POINTER and os.access(path, os.R_OK):
        start = path.read_bytes()
    else:
        return ""
    if start.startswith(b"/annex/objects/"):
        keeper, command = "git-annex", f"git annex get {path.name}` or `datalad get {path.name}"
    elif start.startswith(b"version https://git-lfs"):
        keeper, command = "Git LFS", f"git lfs pull --include={path.name}"
    else:
        return ""
    return f"its content was not fetched, {keeper} keeps it elsewhere; run `{command}` beside it"
