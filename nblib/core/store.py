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
import re
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nblib
from nblib.core import integrity, provenance
from nblib.core.errors import (
    BadParameter,
    CorruptArtifact,
    MissingInput,
    OutdatedArtifact,
    StorageError,
)
from nblib.core.integrity import MANIFEST

# The executed notebook, attached after the commit by the runner; it carries its own checksum.
EXECUTED = "executed.ipynb"
NO_SPACE = {
    errno.ENOSPC: "no space left on the disk",
    errno.EDQUOT: "disk quota exceeded",
    errno.EFBIG: "file size limit reached",
}


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
    place = folder(stage, recording, key)
    return (place / MANIFEST).is_file() or integrity.bring_back(place)


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
        raise storage_error(error, path, "it was not written") from error


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
    replace: bool = False,
) -> Path:
    """Run `write(folder)` in a folder beside the artifact's place, then rename it into place.

    `started` is the `time.time()` at which the work began; `extra` goes into the manifest, and the
    key must follow from its `in_key` and `stage_version` where it has them. When another process
    commits the same key first, its folder stands and this one is discarded; with `replace` what
    stands makes way, at the very end. Raises StorageError when the disk is
    full, the quota is reached or the folder cannot be written; nothing is left behind.
    """
    place = folder(stage, recording, key)
    if is_committed(stage, recording, key) and not replace:
        return place
    temporary = integrity.unfinished(place)
    try:
        for path in integrity.leftovers(place.parent):
            shutil.rmtree(path, ignore_errors=True)
        temporary.mkdir(parents=True)
        write(temporary)
        # As the folder: whoever may enter it may read it, whatever a library made of its file.
        mode = stat.S_IMODE(temporary.stat().st_mode)
        outputs = {}
        for path in sorted(temporary.rglob("*")):
            path.chmod(mode if path.is_dir() else mode & 0o666)
            if path.is_file():
                _fsync(path)
                about = {"sha256": integrity.sha256(path), "bytes": path.stat().st_size}
                outputs[str(path.relative_to(temporary))] = about
        manifest = {
            "stage": stage,
            "recording": recording,
            "key": key,
            "parameters": plain(params),
            "upstream": list(upstream),
            "outputs": outputs,
            "seed": seed,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            **provenance.measured(started),
            **(extra or {}),
            **provenance.environment(),
            "sha256": "",
        }
        (temporary / MANIFEST).write_text(integrity.dump_sealed(plain(manifest)))
        _fsync(temporary / MANIFEST)
        _fsync(temporary)
        try:
            integrity.swap(temporary, place) if replace else temporary.rename(place)
        except OSError:
            if replace:
                raise
            if not is_committed(stage, recording, key):  # a folder that lost its manifest makes way
                integrity.swap(temporary, place)
    except (OSError, RuntimeError) as error:  # HDF5 reports a full disk as either
        raise storage_error(error, place) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return place


def read_manifest(artifact: Path) -> dict[str, Any]:
    """The manifest of a committed artifact, which must be that of this very folder.

    Raises MissingInput without one; CorruptArtifact for changed bytes, another stage, recording or key
    than the folder's, or a key that does not follow from them; OutdatedArtifact without checksum.
    """
    path = artifact / MANIFEST
    integrity.bring_back(artifact)
    try:
        manifest = integrity.load_sealed(path.read_bytes())
    except FileNotFoundError:
        raise MissingInput(f"{artifact}: no artifact here (no {MANIFEST}).") from None
    except ValueError as error:
        raise CorruptArtifact(f"{path}: not readable ({error}); {_remake(artifact)}") from None
    except OSError as error:
        raise CorruptArtifact(f"{path}: cannot be read ({error.strerror}).") from None
    if manifest is None:
        raise OutdatedArtifact(
            f"{path}: made by an earlier version of nblib, which put no checksum of its own into it; "
            f"{_remake(artifact)}"
        )
    lies, belongs = "/".join(artifact.absolute().parts[-3:]), _place(manifest)
    if lies != belongs:
        raise CorruptArtifact(
            f"{artifact}: this folder holds {belongs}, so it was renamed or moved. Give it its name "
            "back, or delete it and make both again with `nblib run`."
        )
    if "in_key" in manifest:
        _check_key(manifest, path)
    return manifest


def _place(manifest: dict[str, Any]) -> str:
    return "/".join(str(manifest[name]) for name in ("stage", "recording", "key"))


def _check_key(manifest: dict[str, Any], path: Path) -> None:
    """CorruptArtifact where a key is not that of the parameters and inputs beside it."""
    parameters, in_key = manifest["parameters"], manifest["in_key"]
    key = make_key(manifest["stage"], manifest["stage_version"], in_key, manifest["upstream"])
    differs = [name for name in in_key if name in parameters and parameters[name] != in_key[name]]
    if key != manifest["key"] or differs:
        what = f"its {differs[0]}" if differs else "what it was made from"
        raise CorruptArtifact(
            f"{path}: {what} does not belong to key {manifest['key']}; {_remake(path.parent)}"
        )


def open_artifact(artifact: Path) -> Path:
    """Check every file of an artifact against its recorded sha256; return the folder.

    Raises what `read_manifest` raises, and CorruptArtifact naming the file whose bytes changed.
    """
    for name, output in read_manifest(artifact)["outputs"].items():
        path = artifact / name
        if not path.is_file():
            raise CorruptArtifact(f"{path}: the file is gone; {_remake(artifact)}")
        digest = integrity.sha256(path)
        if digest != output["sha256"]:
            raise CorruptArtifact(
                f"{path}: its bytes changed since it was written (sha256 {digest[:12]}…, recorded "
                f"{output['sha256'][:12]}…); {_remake(artifact)}"
            )
    return artifact


def attach(artifact: Path, notebook: dict[str, Any]) -> Path:
    """Put the executed notebook into a committed artifact, whole or not at all; its path.

    It says whose it is and carries its own checksum, so the manifest need not change.
    """
    whose = {"artifact": _place(read_manifest(artifact)), "sha256": ""}
    metadata = {**notebook["metadata"], "nblib": whose}
    rest = {name: value for name, value in notebook.items() if name != "metadata"}
    place = artifact / EXECUTED
    write_text(place, integrity.dump_sealed({**rest, "metadata": metadata}))
    return place


def read_attached(artifact: Path) -> dict[str, Any]:
    """The executed notebook of an artifact; CorruptArtifact where it changed or is another's."""
    path = artifact / EXECUTED
    advice = f"delete it, or make it again with `nblib run --force`: {path}"
    try:
        notebook = integrity.load_sealed(path.read_bytes())
    except ValueError as error:
        raise CorruptArtifact(f"{path}: not readable ({error}); {advice}") from None
    whose = _place(read_manifest(artifact))
    if notebook is None or notebook["metadata"]["nblib"]["artifact"] != whose:
        raise CorruptArtifact(f"{path}: saved by hand, or of another run; {advice}")
    return notebook


def strangers(artifact: Path) -> list[Path]:
    """Files of an artifact's folder that it was not written with; hidden ones, as of Jupyter, aside."""
    known = {MANIFEST, EXECUTED, *read_manifest(artifact)["outputs"]}
    names = [path.relative_to(artifact) for path in sorted(artifact.rglob("*")) if path.is_file()]
    hidden = [name for name in names if any(part.startswith(".") for part in name.parts)]
    return [artifact / name for name in names if str(name) not in known and name not in hidden]


def places() -> Iterator[Path]:
    """Every folder in the place of an artifact, its manifest there or not, in a stable order."""
    for parent in home().glob("[0-9][0-9]_*/*"):
        integrity.bring_back_in(parent)
    for folder in sorted(home().glob("[0-9][0-9]_*/*/*/")):
        if not folder.name.startswith("."):
            yield folder


def artifacts() -> Iterator[Path]:
    """Every committed artifact of the data root, in a stable order."""
    return (folder for folder in places() if (folder / MANIFEST).exists())


def _remake(artifact: Path) -> str:
    return f"delete the folder {artifact} and make it again with `nblib run`."


def storage_error(error: Exception, place: Path, lost: str = "nothing was committed") -> Exception:
    """The error as a StorageError that says what to do, and what was `lost` on a full disk; the error
    itself where no file is in it."""
    number = getattr(error, "errno", None)
    if number is None and (match := re.search(r"errno = (\d+)", str(error))):
        number = int(match[1])
    if number in NO_SPACE:
        return StorageError(
            f"{place}: {NO_SPACE[number]}; {lost}. Free space there or point "
            "NBLIB_HOME at a larger disk."
        )
    refused = number in (errno.EACCES, errno.EPERM, errno.EROFS)
    if refused and place.is_relative_to(home()):
        return StorageError(
            f"{place}: may not be written ({os.strerror(number)}); point NBLIB_HOME at a folder of your own."
        )
    if isinstance(error, OSError) and number is not None:
        return StorageError(f"{error.filename or place}: {os.strerror(number)}.")
    return error


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
