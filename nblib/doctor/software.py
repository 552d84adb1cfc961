"""Python, packages, notebooks, the Jupyter kernel, widgets and allensdk."""

from __future__ import annotations

import json
import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path

from nblib import stages, store
from nblib.doctor.check import FAIL, OK, WARN, Check, ask, last_line
from nblib.errors import NblibError

# Extras without which a part of the road is closed; the others are a matter of taste.
NEEDED_EXTRAS = ("", "train")
OPTIONAL_EXTRAS = ("lab", "book", "allen")
MEND = "make setup"
KERNEL = "nblib"
INSTALL_KERNEL = f'{sys.executable} -m ipykernel install --sys-prefix --name {KERNEL} --display-name "Python ({KERNEL})"'
# Major versions that speak the same widget protocol.
WIDGET_PARTNERS = {"jupyterlab_widgets": 3, "widgetsnbextension": 4}


def canonical(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def python(version: tuple[int, ...] = sys.version_info[:3]) -> Check:
    told = ".".join(str(v) for v in version) + f" ({sys.executable}, {platform.platform()})"
    if (3, 11, 5) <= tuple(version) < (3, 14):
        return Check("Python", OK, told)
    fix = "make setup PYTHON=/path/to/python3.11 VENV=.venv311"
    return Check("Python", FAIL, f"{told}; nblib needs 3.11.5 or later, up to 3.13", fix)


def installed() -> dict[str, str]:
    """Version of every package here, by canonical name."""
    return {
        canonical(d.metadata["Name"]): d.version
        for d in metadata.distributions()
        if d.metadata["Name"]
    }


def requirements() -> dict[str, list[str]]:
    """Extra -> requirement lines of nblib itself ("" = the core)."""
    from packaging.requirements import Requirement

    found: dict[str, list[str]] = {}
    for line in metadata.requires("nblib") or []:
        wanted = Requirement(line)
        for extra in ("", *NEEDED_EXTRAS, *OPTIONAL_EXTRAS):
            if wanted.marker is None and extra:
                continue
            if wanted.marker is None or (extra and wanted.marker.evaluate({"extra": extra})):
                lines = found.setdefault(extra, [])
                if line not in lines and wanted.name != "nblib":
                    lines.append(line)
    return found


def constraints() -> dict[str, str]:
    """The versions that were tested together; empty without a checkout."""
    try:
        path = store.project_root() / "constraints.txt"
    except NblibError:
        return {}
    lines = path.read_text().splitlines() if path.is_file() else []
    pairs = [line.split("#")[0].strip().split("==") for line in lines]
    return {canonical(pair[0]): pair[1] for pair in pairs if len(pair) == 2}


def packages(
    have: dict[str, str], wanted: dict[str, list[str]], tested: dict[str, str]
) -> list[Check]:
    """Missing or unfit packages of each extra, then those that differ from what was tested."""
    from packaging.requirements import Requirement

    found, differing = [], {}
    for extra, lines in wanted.items():
        name = f"packages [{extra}]" if extra else "packages"
        fix = f"{MEND}, or: pip install -c constraints.txt -e '.{f'[{extra}]' if extra else ''}'"
        needs = [Requirement(line) for line in lines]
        missing = [r.name for r in needs if canonical(r.name) not in have]
        unfit = [
            f"{r.name} {have[canonical(r.name)]} (needs {r.specifier})"
            for r in needs
            if canonical(r.name) in have
            and not r.specifier.contains(have[canonical(r.name)], prereleases=True)
        ]
        for r in needs:
            key = canonical(r.name)
            version = have.get(key, "").split("+")[0]
            if version and key in tested and version != tested[key]:
                differing[key] = f"{r.name} {version} (tested: {tested[key]})"
        if missing or unfit:
            told = [f"missing: {', '.join(missing)}"] if missing else []
            told += [f"unfit: {', '.join(unfit)}"] if unfit else []
            status = FAIL if extra in NEEDED_EXTRAS or unfit else WARN
            found.append(Check(name, status, "; ".join(told), fix))
        else:
            found.append(Check(name, OK, f"all {len(needs)} are here"))
    if differing:
        told = ", ".join(sorted(differing.values()))
        found.append(Check("tested versions", WARN, f"other versions here: {told}", MEND))
    elif tested:
        found.append(Check("tested versions", OK, "as in constraints.txt"))
    return found


def git() -> Check:
    if shutil.which("git"):
        return Check("git", OK, "here; manifests name the commit")
    return Check("git", WARN, "not found; manifests cannot name the commit", "install git")


def notebooks() -> Check:
    """Every stage's notebook in the checkout; raises BadParameter without a checkout."""
    folder = store.notebooks_dir()
    missing = [name for name in stages.STAGES if not (folder / f"{name}.ipynb").is_file()]
    if missing:
        fix = f"git -C {folder.parent} checkout -- notebooks"
        return Check("notebooks", FAIL, f"missing in {folder}: {', '.join(missing)}", fix)
    return Check("notebooks", OK, f"{len(stages.STAGES)} in {folder}")


def kernels() -> dict[str, str]:
    """Registered Jupyter kernels: name -> the program it starts."""
    from jupyter_client.kernelspec import KernelSpecManager

    found = KernelSpecManager().get_all_specs()
    return {name: (spec["spec"]["argv"] or [""])[0] for name, spec in found.items()}


def kernel(registered: dict[str, str], own: str = sys.executable) -> Check:
    """The kernel that people choose in Jupyter must start this Python."""
    name = "Jupyter kernel"
    if KERNEL not in registered:
        told = f"{KERNEL!r} is not registered (there are: {', '.join(registered) or 'none'})"
        return Check(name, FAIL, told, INSTALL_KERNEL)
    program = registered[KERNEL]
    same = not Path(program).is_absolute() or Path(program).parent == Path(own).parent
    if not same:
        return Check(name, WARN, f"{KERNEL!r} starts {program}, not {own}", INSTALL_KERNEL)
    return Check(name, OK, f"{KERNEL!r} starts {program}")


def lab_extension() -> str:
    """Version of the widget manager that JupyterLab finds in this environment; "" = none."""
    from jupyter_core.paths import jupyter_path

    for base in jupyter_path("labextensions"):
        file = Path(base) / "@jupyter-widgets" / "jupyterlab-manager" / "package.json"
        if file.is_file():
            return json.loads(file.read_text())["version"]
    return ""


def widgets(have: dict[str, str], extension: str) -> Check:
    """ipywidgets in the kernel, the manager in JupyterLab, and versions that fit each other."""
    name = "ipywidgets"
    fix = f"{MEND}, then reload the browser page"
    if "ipywidgets" not in have or "comm" not in have:
        return Check(name, FAIL, "not installed, so sliders cannot be drawn", fix)
    if have["ipywidgets"].split(".")[0] != "8":
        return Check(name, FAIL, f"ipywidgets {have['ipywidgets']}; nblib needs 8", fix)
    for partner, major in WIDGET_PARTNERS.items():
        version = have.get(canonical(partner), "")
        if version.split(".")[0] != str(major):
            told = f"{partner} {version or 'is missing'}; ipywidgets 8 goes with {partner} {major}"
            return Check(name, FAIL, f"{told}, so sliders show as text", fix)
    if not extension:
        return Check(
            name, FAIL, "JupyterLab has no widget manager here, so sliders show as text",
            "pip install --force-reinstall --no-deps jupyterlab_widgets",
        )  # fmt: skip
    if "jupyterlab" not in have:
        return Check(
            name, WARN,
            f"ipywidgets {have['ipywidgets']} is ready, but JupyterLab is not in this environment; "
            "the one that opens the notebooks needs jupyterlab_widgets 3 as well",
            "pip install -c constraints.txt -e '.[lab]'",
        )  # fmt: skip
    return Check(name, OK, f"{have['ipywidgets']}, JupyterLab's widget manager {extension}")


def allensdk(timeout_s: float = 120) -> Check:
    """Import the SDK in a process of its own: it is large, and patched before its import."""
    code = "from nblib.sources.allen_warehouse import import_sdk; import_sdk(); import allensdk; print(allensdk.__version__)"
    status, out, err = ask([sys.executable, "-W", "ignore", "-c", code], timeout_s)
    if status == 0:
        return Check("allensdk", OK, f"{last_line(out)} can be imported")
    fix = "pip install -c constraints.txt -e '.[allen]' && pip install -c constraints.txt --no-deps allensdk"
    return Check("allensdk", WARN, f"cannot be imported ({last_line(err)}); no downloads then", fix)
