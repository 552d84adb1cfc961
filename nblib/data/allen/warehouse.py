"""The Allen Institute's warehouse: allensdk asks it, everything that can lose data is done here.

A download goes to a temporary name, is verified, and only then takes its place.

Retries: a file or a list is tried `TRIES` times in all, after pauses of 1, 2, 4 and 8 s, for
broken connections, stalls of 60 s, bodies that end early and answers 429 or 5xx; other answers
are final. A retry goes on where the last one stopped when the server names the file's version.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import socket
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from nblib.core import store, swap
from nblib.core.errors import BadParameter, MissingInput, StorageError

WAREHOUSE = "http://api.brain-map.org"  # allensdk's own; NBLIB_ALLEN_WAREHOUSE names another
TRIES = 5
PAUSES_S = (1.0, 2.0, 4.0, 8.0)
CONNECT_S, STALL_S = 20.0, 60.0
CHUNK_BYTES = 1 << 20  # at most so much is fetched twice after a break
LONGEST_S = 6 * 3600.0  # one try of one file
RETRY_STATUS = (429, 500, 502, 503, 504)
_ONE_AT_A_TIME = threading.Lock()  # the SDK's modules are altered while they work


@store.shared()
def fetch(
    place: Path, what: str, stream: Callable[[Any], Iterator[bytes]], verify: Callable[[Path], Any]
) -> Path:
    """Stream one file to a name of its own beside `place`, verify it, and only then rename it."""
    part = place.with_name(
        f".{place.stem}.{platform.node()}.{os.getpid()}.{uuid.uuid4().hex[:8]}.part"
    )
    made = [folder for folder in place.parents[:3] if not folder.exists()]
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(place.parent)
        with warehouse() as (api, guard), part.open("wb") as file:
            link = _Resume(file, guard)
            persist(lambda: _attempt(stream(api), link), what, link.retry)
            os.fsync(file.fileno())
        verify(part)
        part.replace(place)
    except OSError as error:
        raise store.storage_error(error, place, "nothing was kept") from error
    finally:
        part.unlink(missing_ok=True)
        for folder in made:  # only while empty
            with contextlib.suppress(OSError):
                folder.rmdir()
    return place


class _Resume:
    """A file being filled, over several tries: where it stands and how to go on."""

    def __init__(self, file: BinaryIO, guard: SimpleNamespace):
        self.file, self.guard = file, guard
        self.version = ""  # what names this version of the file to the server
        self.total: int | None = None

    def retry(self) -> None:
        """Ask for the rest when the server can tell that it is the rest of the same file."""
        have = self.file.tell()
        self.guard.headers = {}
        if have and self.version and (self.total is None or have < self.total):
            self.guard.headers = {"Range": f"bytes={have}-", "If-Range": self.version}

    def begin(self, response: Any) -> None:
        """At the first bytes: go on where we stand, or start over."""
        told = response.headers
        if response.status_code == 206:
            span, _, total = told.get("Content-Range", "").removeprefix("bytes ").partition("/")
            if span.partition("-")[0] == str(self.file.tell()) and total == str(self.total):
                return
            self.version = ""
            raise _Short("the server sent another part of the file than was asked for")
        self.file.seek(0)
        self.file.truncate()
        plain = "Content-Length" in told and "Content-Encoding" not in told
        self.total = int(told["Content-Length"]) if plain else None
        strong = told.get("ETag", "")
        # Without byte ranges or a strong name for this version, a retry starts over.
        self.version = strong if strong.startswith('"') else told.get("Last-Modified", "")
        self._check_space()

    def _check_space(self) -> None:
        place = Path(self.file.name).parent
        free = shutil.disk_usage(place).free
        if self.total is not None and self.total > free:
            raise StorageError(
                f"{place}: the file needs {self.total / 1e9:.2f} GB, {free / 1e9:.2f} GB are free; "
                "nothing was kept. Free space there or point NBLIB_HOME at a larger disk."
            )


class _Short(Exception):
    """A body that is not what its headers said."""


def _attempt(stream: Iterator[bytes], link: _Resume) -> None:
    """One try: take the bytes, count them."""
    begun = False
    for chunk in stream:
        if not begun:
            link.begin(link.guard.response)
            begun = True
        link.file.write(chunk)
    have = link.file.tell() if begun else 0
    if not have or (link.total is not None and have != link.total):
        raise _Short(f"{have} of {link.total} bytes came")


def persist(
    work: Callable[[], Any], what: str, before_retry: Callable[[], None] = lambda: None
) -> Any:
    """Run `work`, again after a pause when the network failed; MissingInput after `TRIES` times."""
    import requests

    for k in range(TRIES):
        try:
            return work()
        except requests.HTTPError as error:
            fault = f"HTTP {error.response.status_code}"
            if error.response.status_code not in RETRY_STATUS:
                break
        except (requests.JSONDecodeError, ValueError, LookupError) as error:
            fault = f"an answer that is not a warehouse's ({type(error).__name__})"
        except (requests.RequestException, _Short) as error:
            fault = f"{type(error).__name__}: {str(error)[:160]}"
        except Exception as error:
            # The SDK's own class for a refused query; nothing else is taken for a network fault.
            if type(error).__name__ != "RmaRequestError":
                raise
            fault = f"the warehouse refused the query: {str(error)[:160]}"
        if k + 1 < TRIES:
            pause = PAUSES_S[min(k, len(PAUSES_S) - 1)]
            print(
                f"{what}: {fault}; again in {pause:g} s (try {k + 2} of {TRIES})", file=sys.stderr
            )
            time.sleep(pause)
            before_retry()
    scheme, host = _address()
    raise MissingInput(
        f"{what} could not be fetched from {scheme}://{host} in {k + 1} tries (last: {fault}); "
        "nothing was kept. Check the network, or NBLIB_ALLEN_WAREHOUSE, and run it again."
    )


def check_reachable(patience_s: float = 3.0) -> None:
    """MissingInput within `patience_s` seconds on a machine that the warehouse cannot be reached from."""
    if urllib.request.getproxies():  # it is the proxy that knows
        return
    scheme, host = _address()
    name, _, port = host.partition(":")
    fault = f"no answer within {patience_s:g} s"

    def connect() -> None:
        nonlocal fault
        try:
            place = (name, int(port or (443 if scheme == "https" else 80)))
            socket.create_connection(place, timeout=patience_s).close()
            fault = ""
        except OSError as error:
            fault = str(error)

    # In a thread, since looking up a name knows no time limit.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(patience_s)
    if fault:
        raise MissingInput(
            f"{host} cannot be reached from here ({fault}). Call this where the internet is at hand; "
            "on a cluster that is often a login node. NBLIB_ALLEN_WAREHOUSE names another place."
        )


def _address() -> tuple[str, str]:
    """(scheme, host[:port]) of the warehouse; BadParameter for one that is not a web address."""
    text = os.environ.get("NBLIB_ALLEN_WAREHOUSE") or WAREHOUSE
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/"):
        raise BadParameter(
            f"NBLIB_ALLEN_WAREHOUSE={text!r}; expected http://host or https://host:port."
        )
    return parts.scheme, parts.netloc


@contextlib.contextmanager
def warehouse() -> Iterator[tuple[Any, SimpleNamespace]]:
    """allensdk's warehouse API, its requests made careful; and what they last got."""
    scheme, host = _address()
    http_engine, rma_engine, project = import_sdk()
    import requests  # the SDK needs it, so it is there

    guard = SimpleNamespace(headers={}, response=None)

    def careful_get(url: str, stream: bool = False) -> Any:
        """The SDK sets no time limit and takes an error page for data; this does neither."""
        headers = {"Accept-Encoding": "identity", **(guard.headers if stream else {})}
        response = requests.get(url, stream=stream, headers=headers, timeout=(CONNECT_S, STALL_S))
        response.raise_for_status()
        guard.response = response
        return response

    stand_in = SimpleNamespace(get=careful_get, Timeout=requests.Timeout)
    with _ONE_AT_A_TIME:
        http_engine.requests = rma_engine.requests = stand_in
        try:
            engine = rma_engine.RmaEngine(
                scheme=scheme, host=host, timeout=LONGEST_S, chunksize=CHUNK_BYTES
            )
            yield project.EcephysProjectWarehouseApi(engine), guard
        finally:
            http_engine.requests = rma_engine.requests = requests


def give_back_names() -> None:
    """Give numpy and pynwb the names that allensdk 2.16 still uses and newer releases dropped."""
    import numpy as np
    import pynwb

    dropped = {
        "VisibleDeprecationWarning": np.exceptions.VisibleDeprecationWarning,
        "NaN": np.nan, "NAN": np.nan, "Inf": np.inf, "string_": np.bytes_, "unicode_": np.str_,
    }  # fmt: skip
    for name, value in dropped.items():
        if name not in vars(np):
            setattr(np, name, value)
    for verb in ("get", "add"):
        if not hasattr(pynwb.ProcessingModule, f"{verb}_data_interface"):
            setattr(
                pynwb.ProcessingModule,
                f"{verb}_data_interface",
                getattr(pynwb.ProcessingModule, verb),
            )
    if not hasattr(pynwb.NWBFile, "modules"):
        pynwb.NWBFile.modules = property(lambda self: self.processing)


def import_sdk() -> tuple[Any, Any, Any]:
    """allensdk's http engine, query engine and warehouse API; MissingInput when not installed."""
    give_back_names()
    try:
        from allensdk.brain_observatory.ecephys.ecephys_project_api import (
            ecephys_project_warehouse_api,
            http_engine,
            rma_engine,
        )
    except ImportError as error:
        raise MissingInput(
            f"allensdk cannot be imported ({error}); `make setup` installs it, or: "
            "pip install 'nblib[allen]' && pip install --no-deps allensdk==2.16.2"
        ) from None
    return http_engine, rma_engine, ecephys_project_warehouse_api


def _remove_leftovers(folder: Path) -> None:
    """Delete part files of processes that were killed on this host."""
    for path in folder.glob(f".*.{platform.node()}.*.part"):
        pid = path.name.split(".")[-3]
        if pid.isdigit() and not swap.alive(int(pid)):
            path.unlink(missing_ok=True)
