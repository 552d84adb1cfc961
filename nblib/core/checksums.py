"""Checksums: of files, and of JSON texts that carry their own.

A sealed text ends with the entry `"sha256": "..."`, the sha256 of all its other bytes, so that no
byte of it can change unseen.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

SEAL = re.compile(rb'"sha256": "([0-9a-f]{64}|)"(?=[\s}]*\Z)')


def sha256(path: Path) -> str:
    """Of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def dumps(document: dict[str, Any]) -> str:
    """`document` as JSON; its very last entry, `sha256`, becomes the seal."""
    text = json.dumps(document, indent=1) + "\n"
    empty = SEAL.search(text.encode())
    if empty is None or empty[1]:
        raise ValueError('a document to seal must end with the entry "sha256": "".')
    digest = hashlib.sha256(text.encode()).hexdigest()
    head, _, tail = text.rpartition('"sha256": ""')
    return f'{head}"sha256": "{digest}"{tail}'


def loads(content: bytes) -> dict[str, Any] | None:
    """The document of a sealed text; None for one without a seal. ValueError where bytes changed."""
    seal = SEAL.search(content)
    try:
        document = json.loads(content.decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deep") from None
    if seal is None:
        return None
    empty = content[: seal.start(1)] + content[seal.end(1) :]
    if hashlib.sha256(empty).hexdigest().encode() != seal[1]:
        raise ValueError("its bytes changed since it was written")
    return document
