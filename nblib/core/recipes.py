"""Recipes as files (`params/recipes/`): one read and checked, one found by its name, one derived from another."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from nblib.core import params as P
from nblib.core import store
from nblib.core.errors import BadParameter
from nblib.core.text_to_values import cut, read_settings, shown, text_of

DERIVED = "# derived from "  # how the file of a derived recipe begins


def load_recipe(path: Path | str) -> P.Recipe:
    """Read and check one recipe file.

    Raises BadParameter for unknown keys, wrong types or values out of bounds, and when the
    recipe's own name differs from the file's.
    """
    path = Path(path)
    return _load(path, text_of(path, f"recipe {cut(str(path))}"))


@lru_cache(maxsize=256)
def _load(path: Path, text: str) -> P.Recipe:
    """A sweep asks for the same recipe thousands of times."""
    values = read_settings(text, f"recipe {path}")
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
        if re.fullmatch(P.RECORDING_ID, name) and (folder / f"{name}.yml").is_file():
            return load_recipe(folder / f"{name}.yml")
    known = sorted(p.stem for p in store.recipes_dir().glob("*.yml"))
    raise BadParameter(f"no recipe {shown(name)}; params/recipes holds {', '.join(known)}.")


def root_name(name: str) -> str:
    """The name of the recipe that a derived one comes from; the name itself of any other."""
    return re.sub(r"-[0-9a-f]{8}$", "", name)


def base_of(name: str) -> str:
    """What finds the recipe that a derived one came from: a name, or the path that it was given by.

    The name itself where it is no derived recipe of this data root.
    """
    path = store.derived_recipes_dir() / f"{name}.yml"
    first = path.read_text(encoding="utf-8").split("\n")[0] if path.is_file() else ""
    match = re.fullmatch(rf"{DERIVED}(.+): [a-z_, ]+", first)
    return base_of(match[1]) if match else name


def derive(
    recipe: P.Recipe,
    overrides: dict[str, Any],
    given: str = "",
    check: Callable[[P.Recipe], None] = lambda recipe: None,
) -> P.Recipe:
    """The recipe with some settings changed; named by its content, saved, carried downstream.

    given: the name or path that found the recipe, by which `base_of` finds it again. check: raises
    for a recipe that is not to be saved.
    """
    root = root_name(recipe.recipe)
    wanted = {k: v for k, v in overrides.items() if v is not None}
    before = recipe.model_dump()
    whole = P.checked(P.Recipe, before | wanted, f"recipe {root}").model_dump()
    changed = sorted(k for k in wanted if whole[k] != before[k])
    if not changed:
        return recipe
    settings = {k: v for k, v in whole.items() if k != "recipe"}
    text = json.dumps(store.plain(settings), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    derived = P.checked(P.Recipe, whole | {"recipe": f"{root}-{digest}"}, f"recipe {root}")
    check(derived)
    path = store.derived_recipes_dir() / f"{derived.recipe}.yml"
    if not path.is_file():
        text = yaml.safe_dump(derived.model_dump(), sort_keys=False)
        store.write_text(path, f"{DERIVED}{given or recipe.recipe}: {', '.join(changed)}\n{text}")
    return derived
