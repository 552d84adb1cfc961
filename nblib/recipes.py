"""Recipes as files: one read and checked, one found by its name, one derived from another."""

from __future__ import annotations

import hashlib
import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from nblib import params as P
from nblib import store, yamlfile
from nblib.errors import BadParameter


def load_recipe(path: Path | str) -> P.Recipe:
    """Read and check one recipe file.

    Raises BadParameter for unknown keys, wrong types or values out of bounds, and when the
    recipe's own name differs from the file's.
    """
    path = Path(path)
    return _load(path, yamlfile.text_of(path, f"recipe {path}"))


@lru_cache(maxsize=256)
def _load(path: Path, text: str) -> P.Recipe:
    """A sweep asks for the same recipe thousands of times."""
    values = yamlfile.read_settings(text, f"recipe {path}")
    recipe = P.checked(P.Recipe, values, f"recipe {path}")
    if recipe.recipe != path.stem:
        raise BadParameter(
            f"recipe {path}: calls itself {recipe.recipe!r}; name and file must agree, "
            f"so write 'recipe: {path.stem}'."
        )
    return recipe


def find_recipe(name: str) -> P.Recipe:
    """A recipe by name (params/recipes, then the derived ones of the data root) or by path."""
    if name.endswith((".yml", ".yaml")):
        return load_recipe(Path(name).expanduser())
    for folder in (store.recipes_dir(), store.derived_recipes_dir()):
        if (folder / f"{name}.yml").is_file():
            return load_recipe(folder / f"{name}.yml")
    known = sorted(p.stem for p in store.recipes_dir().glob("*.yml"))
    raise BadParameter(f"no recipe {name!r}; params/recipes holds {', '.join(known)}.")


def derive(recipe: P.Recipe, overrides: dict[str, Any]) -> P.Recipe:
    """The recipe with some settings changed; named by its content, saved, carried downstream."""
    changed = {k: v for k, v in overrides.items() if v is not None and v != getattr(recipe, k)}
    if not changed:
        return recipe
    values = {k: getattr(recipe, k) for k in P.Recipe.model_fields} | changed
    root = re.sub(r"-[0-9a-f]{8}$", "", recipe.recipe)
    settings = {
        k: v
        for k, v in P.checked(P.Recipe, values, f"recipe {root}").model_dump().items()
        if k != "recipe"
    }
    digest = hashlib.sha256(json.dumps(store.plain(settings), sort_keys=True).encode()).hexdigest()[
        :8
    ]
    derived = P.checked(P.Recipe, values | {"recipe": f"{root}-{digest}"}, f"recipe {root}")
    path = store.derived_recipes_dir() / f"{derived.recipe}.yml"
    if not path.is_file():
        text = yaml.safe_dump(derived.model_dump(), sort_keys=False)
        store.write_text(
            path, f"# derived from {recipe.recipe}: {', '.join(sorted(changed))}\n{text}"
        )
    return derived
