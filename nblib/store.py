"""The only module that knows paths: artifacts by content key, committed atomically, verified.

An artifact is a folder `<home>/<stage>/<recording>/<key>/` with data files and `manifest.json`.
It is written beside its place and renamed, so the folder exists exactly when it is complete.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import platform
import re
import resource
import shutil
import stat
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import nblib
from nblib.errors import BadInput, BadParameter, CorruptArtifact, MissingInput, StorageError

MANIFEST = "manifest.json"
# Attached after the commit, by the runner: not part of what the manifest vouches for.
ATTACHED = ("executed.ipynb",)
NO_SPACE = {errno.ENOSPC: "no space left on the disk", errno.EDQUOT: "disk quota exceeded",
            errno.EFBIG: "file size limit reached"}  # fmt: skip


def project_root() -> Path:
    """The checkout: the folder that holds `notebooks/` and `params/`, from any working folder."""
    root = Path(os.environ.get("NBLIB_PROJECT", Path(nblib.__file__).parents[1]))
    if not (root / "notebooks").is_dir():
        raise BadParameter(
            f"{root} holds no notebooks/ folder; install nblib from its checkout "
            "(pip install -e .) or point NBLIB_PROJECT at the checkout."
        )
    return root


def notebooks_dir() -> Path:
    return project_root() / "notebooks"


def recipes_dir() -> Path:
    return project_root() / "params" / "recipes"


def models_dir() -> Path:
    """Where the settings of each model stand."""
    return project_root() / "params" / "models"


def home() -> Path:
    """Root of all artifacts: NBLIB_HOME, or `data/` of the checkout."""
    text = os.environ.get("NBLIB_HOME", "")
    if not text:
        return project_root() / "data"
    path = Path(text).expanduser()
    if not path.is_absolute():
        raise BadParameter(f"NBLIB_HOME={text!r} is relative; give an absolute path.")
    if path.is_file():
        raise BadParameter(
            f"NBLIB_HOME={text!r} is a file; give a folder, which is made if need be."
        )
    return path


def derived_recipes_dir() -> Path:
    return home() / "recipes"


def raw_dir() -> Path:
    """Where fetched recordings live."""
    return home() / "raw"


def published_dir() -> Path:
    """Where tables of published numbers lie that somebody took in."""
    return home() / "published"


def published_files() -> list[Path]:
    """Every table of published numbers: those of the project, then those of the data root."""
    own = project_root() / "params" / "published"
    return [path for folder in (own, published_dir()) for path in sorted(folder.glob("*.csv"))]


def check_published(path: Path) -> None:
    """Raise BadInput when the data root holds other published numbers under this file's name."""
    place = published_dir() / path.name
    if place.is_file() and place.read_text("utf-8-sig") != path.read_text("utf-8-sig"):
        raise BadInput(f"{path}: {place} holds other numbers under that name; delete it first.")


def add_published(path: Path) -> Path:
    """Copy a table of published numbers into the data root; its place there."""
    check_published(path)
    place = published_dir() / path.name
    write_text(place, path.read_text(encoding="utf-8-sig"))
    return place


def failed_dir() -> Path:
    """Where notebooks that failed are kept."""
    return home() / "failed"


def searches_dir() -> Path:
    """Where searches keep their trials."""
    return home() / "searches"


def log_dir(stage: str, recording: str, key: str) -> Path:
    """Where a run keeps what it writes while it works: its log, and checkpoints to go on from."""
    return home() / "logs" / stage / recording / key


def plain(value: Any) -> Any:
    """JSON without surprises: infinities as strings, paths as text, keys sorted by the caller."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return plain(value.item())
    return str(value) if isinstance(value, Path) else value


def make_key(stage: str, version: int, params: dict[str, Any], upstream: list[str]) -> str:
    """16 hex digits from stage, stage version, parameters and upstream keys."""
    text = json.dumps(
        [stage, version, plain(params), list(upstream)], sort_keys=True, allow_nan=False
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def folder(stage: str, recording: str, key: str) -> Path:
    return home() / stage / recording / key


def is_committed(stage: str, recording: str, key: str) -> bool:
    return (folder(stage, recording, key) / MANIFEST).is_file()


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_hash(path: Path) -> str:
    """sha256 of a raw file, remembered by (path, size, modification time)."""
    path = path.resolve()
    try:
        stat = path.stat()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}).") from None
    card = (
        home() / "cache" / "sha256" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:24]}.json"
    )
    now = {"path": str(path), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    try:
        known = json.loads(card.read_text())
        if {k: known.get(k) for k in now} == now:
            return known["sha256"]
    except (FileNotFoundError, json.JSONDecodeError):
        pass  # not hashed before, or the note was cut short: hash again
    digest = sha256(path)
    write_text(card, json.dumps({**now, "sha256": digest}))
    return digest


def content_hash(path: Path | str) -> str:
    """What a file, or a folder of files, holds: changes when any of them does, not with its place.

    Raises MissingInput when there is nothing at `path`.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return file_hash(path)
    if not path.is_dir():
        raise MissingInput(f"{path}: no such file or folder.")
    inside = {p.name: file_hash(p) for p in sorted(path.iterdir()) if p.is_file()}
    return hashlib.sha256(json.dumps(inside).encode()).hexdigest()


@contextlib.contextmanager
def shared() -> Iterator[None]:
    """While it lasts, what this process makes is the group's to read and write, where the data
    root is: a person's umask of 077 would lock out the others who work in it.

    Where the root is not the group's to write, or not there yet, the umask stays as it is.
    """
    root = home()
    if not (root.is_dir() and root.stat().st_mode & stat.S_IWGRP):
        yield
        return
    before = os.umask(0o077)
    os.umask(before & ~stat.S_IRWXG)
    try:
        yield
    finally:
        os.umask(before)


@shared()
def write_text(path: Path, text: str) -> None:
    """Write a small file beside its place and rename it there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _storage_error(error, path) from error


@shared()
def commit(
    stage: str,
    recording: str,
    key: str,
    write: Callable[[Path], Any],
    *,
    params: dict[str, Any],
    upstream: list[str],
    seed: int | None = None,
    started: float | None = None,
    extra: dict[str, Any] | None = None,
) -> Path:
    """Run `write(folder)` in a folder beside the artifact's place, then rename it into place.

    `started` is the `time.time()` at which the work began. When another process commits the same
    key first, its folder stands and this one is discarded. Raises StorageError when the disk is
    full, the quota is reached or the folder cannot be written; nothing is left behind.
    """
    place = folder(stage, recording, key)
    if is_committed(stage, recording, key):
        return place
    temporary = place.with_name(
        f".{key}.{platform.node()}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp"
    )
    try:
        _remove_leftovers(place.parent)
        temporary.mkdir(parents=True)
        write(temporary)
        # As the folder: whoever may enter it may read it, whatever a library made of its file.
        mode = stat.S_IMODE(temporary.stat().st_mode)
        inside = sorted(temporary.rglob("*"))
        for path in (p for p in inside if p.is_dir()):
            path.chmod(mode)
        files = [p for p in inside if p.is_file()]
        for path in files:
            path.chmod(mode & 0o666)
            _fsync(path)
        manifest = {
            "stage": stage,
            "recording": recording,
            "key": key,
            "parameters": plain(params),
            "upstream": list(upstream),
            "outputs": {str(p.relative_to(temporary)): {"sha256": sha256(p), "bytes": p.stat().st_size} for p in files},
            "seed": seed,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            **_measured(started),
            **(extra or {}),
            **_environment(),
        }  # fmt: skip
        (temporary / MANIFEST).write_text(json.dumps(plain(manifest), indent=1, allow_nan=False))
        _fsync(temporary / MANIFEST)
        _fsync(temporary)
        try:
            temporary.rename(place)
        except OSError:
            if not is_committed(stage, recording, key):
                raise
    except (OSError, RuntimeError) as error:  # HDF5 reports a full disk as either
        raise _storage_error(error, place) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return place


def read_manifest(artifact: Path) -> dict[str, Any]:
    """The manifest of a committed artifact; MissingInput or CorruptArtifact otherwise."""
    path = artifact / MANIFEST
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingInput(f"{artifact}: no artifact here (no {MANIFEST}).") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CorruptArtifact(f"{path}: not readable ({error}); {_remake(artifact)}") from None


def open_artifact(artifact: Path) -> Path:
    """Check every file of an artifact against its recorded sha256; return the folder.

    Raises CorruptArtifact naming the file whose bytes changed.
    """
    for name, output in read_manifest(artifact)["outputs"].items():
        path = artifact / name
        if not path.is_file():
            raise CorruptArtifact(f"{path}: the file is gone; {_remake(artifact)}")
        found = sha256(path)
        if found != output["sha256"]:
            raise CorruptArtifact(
                f"{path}: its bytes changed since it was written (sha256 {found[:12]}…, recorded "
                f"{output['sha256'][:12]}…); {_remake(artifact)}"
            )
    return artifact


def artifacts() -> Iterator[Path]:
    """Every committed artifact of the data root, in a stable order."""
    for manifest in sorted(home().glob(f"[0-9][0-9]_*/*/*/{MANIFEST}")):
        if not manifest.parent.name.startswith("."):
            yield manifest.parent


def _remake(artifact: Path) -> str:
    return f"delete the folder {artifact} and make it again with `nblib run`."


def _storage_error(error: Exception, place: Path) -> Exception:
    number = getattr(error, "errno", None)
    if number is None and (told := re.search(r"errno = (\d+)", str(error))):
        number = int(told[1])
    if number in NO_SPACE:
        return StorageError(
            f"{place}: {NO_SPACE[number]}; nothing was committed. Free space there or point "
            "NBLIB_HOME at a larger disk."
        )
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StorageError(
            f"{place}: may not be written ({os.strerror(number)}); point NBLIB_HOME at a folder of your own."
        )
    return error


def alive(pid: int) -> bool:
    """Whether a process of this host lives, anybody's: /proc may show a person only their own."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def leftovers(parent: Path) -> Iterator[Path]:
    """Half-written folders of processes that no longer live on this host."""
    for path in parent.glob(f".*.{platform.node()}.*.tmp"):
        pid = path.name.split(".")[-3]
        if pid.isdigit() and not alive(int(pid)):
            yield path


def _remove_leftovers(parent: Path) -> None:
    for path in leftovers(parent):
        shutil.rmtree(path, ignore_errors=True)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _measured(started: float | None) -> dict[str, Any]:
    peak_gpu = 0
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        peak_gpu = torch.cuda.max_memory_allocated()
    # ru_maxrss counts kilobytes on Linux and bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "wall_s": None if started is None else round(time.time() - started, 3),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        "peak_gpu_bytes": peak_gpu,
    }


@cache
def _environment() -> dict[str, Any]:
    from importlib.metadata import distributions

    packages = {d.metadata["Name"]: d.version for d in distributions() if d.metadata["Name"]}
    return {
        "code_version": code_version(),
        "python": platform.python_version(),
        "host": platform.node(),
        "job_id": os.environ.get("SLURM_JOB_ID"),
        "threads": int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1),
        "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
    }


@cache
def code_version() -> str:
    """Version of nblib, with the commit of its checkout and `+edited` when files changed."""
    git = ["git", "-C", str(Path(nblib.__file__).parent)]
    try:
        commit_id = subprocess.run(
            [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, timeout=10
        )
        edited = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no", "."],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return nblib.__version__
    if commit_id.returncode:
        return nblib.__version__
    return f"{nblib.__version__}+g{commit_id.stdout.strip()}{'+edited' if edited.stdout.strip() else ''}"
