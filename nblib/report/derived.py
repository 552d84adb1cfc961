"""What the recipe of a run changes of the one that it was derived from."""

from __future__ import annotations

import contextlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from nblib.core import params as P
from nblib.core import recipes, store
from nblib.core.errors import BadParameter


class Known:
    """Recipes as they are now, by name, and what runs of other ones changed.

    given: what runs were told as their recipe, names and paths: one that was given by its path is
    found again by that path.
    """

    def __init__(self, given: list[str]):
        ways = {recipes.base_of(way) for way in set(given)}
        self._paths = {Path(way).stem: way for way in ways if way.endswith((".yml", ".yaml"))}
        self.find = lru_cache(None)(self._find)  # a recipe as it is now; asked for every run
        self._told: dict[str, dict[str, str]] = {}

    def _find(self, name: str) -> P.Recipe | None:
        """A recipe; None when it is gone."""
        for way in (name, self._paths.get(name, name)):
            with contextlib.suppress(BadParameter):
                return recipes.find_recipe(way)
        return None

    def tell(self, recipe: dict[str, Any]) -> dict[str, str]:
        """What a run's recipe is called, and what it changes of the one that it was derived from.

        `base`: the name of that one, its own where nothing was changed or the other is gone;
        `group`: base with the settings of the split that differ; `changed`: the other ones.
        """
        text = json.dumps(recipe)
        if text not in self._told:
            self._told[text] = self._tell(recipe)
        return self._told[text]

    def _tell(self, recipe: dict[str, Any]) -> dict[str, str]:
        name = recipe.get("recipe", "")
        base = recipes.root_name(name)
        now = self.find(base) if base != name else None
        base = name if now is None else base
        other = recipe if now is None else store.plain(now.model_dump())
        # Which recordings, and where they lie, says nothing of how this one was treated.
        kept = [k for k in recipe if k not in ("recipe", "recordings", "path")]
        text = {k: f"{k}={json.dumps(recipe[k])}" for k in kept if recipe[k] != other.get(k)}
        split = ", ".join(t for k, t in text.items() if k in P.SplitSettings.model_fields)
        others = ", ".join(t for k, t in text.items() if k not in P.SplitSettings.model_fields)
        group = f"{base} ({split})" if split else base
        return {"recipe": name, "base": base, "group": group, "changed": others}
