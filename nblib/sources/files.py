"""What stands at a path that was to be a file, in words."""

from __future__ import annotations

from pathlib import Path

from nblib.errors import MissingInput

ZARR = (".zgroup", ".zarray", ".zattrs", ".zmetadata", "zarr.json")
POINTER = 1024  # what stands for a file's content is shorter [byte]


def require_file(path: Path, hint: str = "check `path` in the recipe") -> None:
    """MissingInput that says what stands at `path` where it is no file with content of its own."""
    link = path.readlink() if path.is_symlink() else None
    if path.is_file():
        what = _pointer(path)
    elif path.is_dir():
        zarr = path.suffix == ".zarr" or any((path / name).exists() for name in ZARR)
        what = (
            "this is a Zarr folder; nblib reads NWB in HDF5. Write it anew as one .nwb file (pynwb "
            "with hdmf-zarr: NWBHDF5IO.export), or fetch the HDF5 version"
            if zarr
            else f"this is a folder, not a file; {hint}"
        )
    elif link is not None:
        what = (
            _fetch("git-annex", f"git annex get {path.name}` or `datalad get {path.name}")
            if "annex" in link.parts
            else f"this is a link to {link}, which is not there; {hint}"
        )
    else:
        what = f"no such file; {hint}"
    if what:
        raise MissingInput(f"{path}: {what}.")


def _pointer(path: Path) -> str:
    """What to do about a small text that stands for a file whose content was not fetched."""
    if path.stat().st_size > POINTER:
        return ""
    text = path.read_bytes()
    if text.startswith(b"version https://git-lfs"):
        return _fetch("Git LFS", f"git lfs pull --include={path.name}")
    if text.startswith(b"/annex/objects/"):
        return _fetch("git-annex", f"git annex get {path.name}` or `datalad get {path.name}")
    return ""


def _fetch(keeper: str, command: str) -> str:
    return f"its content was not fetched, {keeper} keeps it elsewhere; run `{command}` beside it"
