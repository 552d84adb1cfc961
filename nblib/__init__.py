"""nblib: decode neural recordings in notebooks people can trust.

The names a notebook uses most are here; each is imported only when it is first used, so that
`import nblib` costs next to nothing.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

_LAZY = {"begin": "road.stages", "load_run": "report.one_run", "load_recipe": "core.recipes"}

__all__ = ["__version__", *sorted(_LAZY)]


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(importlib.import_module(f"nblib.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'nblib' has no attribute {name!r}")
