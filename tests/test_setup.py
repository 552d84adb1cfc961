"""What a newcomer meets first holds together: set-up, pins, conda, Makefile, README, CI."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import conduct
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


def requirements() -> list[Requirement]:
    """Every requirement of the core and of each extra, the project's own extras left out."""
    lines = [*PROJECT["dependencies"]]
    for extra in PROJECT["optional-dependencies"].values():
        lines += extra
    wanted = [Requirement(line) for line in lines]
    return [r for r in wanted if canonicalize_name(r.name) != "nblib"]


def pins() -> dict[str, Version]:
    """constraints.txt as name -> version; fails on anything that is not one exact version."""
    found: dict[str, Version] = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, _, version = line.partition("==")
        assert version, f"constraints.txt: {line!r} is not one exact version"
        name = canonicalize_name(name)
        assert name not in found, f"constraints.txt: {name} stands twice"
        found[name] = Version(version)
    return found


def tracked() -> list[str]:
    out = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if out.returncode != 0:
        pytest.skip("not a git checkout")
    return [name for name in out.stdout.split("\0") if name and (ROOT / name).is_file()]


# --- constraints ---------------------------------------------------------------------------------


def test_every_requirement_is_pinned_inside_its_bounds():
    pinned = pins()
    for wanted in requirements():
        name = canonicalize_name(wanted.name)
        assert name in pinned, f"{wanted.name} is in pyproject.toml, not in constraints.txt"
        assert wanted.specifier.contains(pinned[name], prereleases=True), (
            f"{wanted} does not admit {pinned[name]} of constraints.txt"
        )


def test_pins_serve_the_cpu_and_the_cuda_build_and_every_person():
    pinned = pins()
    assert pinned["torch"] == Version("2.13.0")
    labelled = [name for name, version in pinned.items() if version.local]
    assert not labelled, f"a build label admits one build only: {labelled}"
    assert "nblib" not in pinned
    assert {"uv", "allensdk"} <= set(pinned), "the Makefile installs these by their pin"


@pytest.mark.parametrize("wanted", requirements(), ids=lambda r: r.name)
def test_what_runs_is_what_is_pinned(wanted):
    try:
        installed = Version(importlib.metadata.version(wanted.name))
    except importlib.metadata.PackageNotFoundError:
        extras = PROJECT["optional-dependencies"]
        seldom = [Requirement(line).name for line in extras["sweep"] + extras["ibl"]]
        assert wanted.name in seldom, f"{wanted.name} is not installed; run make setup"
        pytest.skip(
            "neither the sweep engine nor what fetches from the IBL is in the default set-up"
        )
    assert Version(installed.public) == pins()[canonicalize_name(wanted.name)]


# --- pyproject and environment.yml ---------------------------------------------------------------


def test_all_means_every_extra():
    extras = dict(PROJECT["optional-dependencies"])
    (line,) = extras.pop("all")
    assert Requirement(line).extras == set(extras)
    assert set(extras) == {"train", "lab", "book", "allen", "ibl", "sweep", "dev"}


def test_the_core_is_light():
    core = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    heavy = {"torch", "lightning", "jupyterlab", "jupyter-book", "allensdk", "snakemake"}
    assert not core & heavy


def test_environment_yml_takes_python_and_pip_from_conda_and_the_rest_from_the_checkout():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, rest = environment.pop("dependencies")
    assert environment == {
        "name": "nblib",
        "channels": ["conda-forge"],
    }  # mixed channels mix binaries
    assert pip.startswith("pip") and rest == {"pip": ["-c constraints.txt", "-e .[all]"]}
    minor = re.fullmatch(r"python=(\d+\.\d+)", python)[1]
    assert SpecifierSet(PROJECT["requires-python"]).contains(f"{minor}.99")


def test_one_version_everywhere():
    import nblib

    version = PROJECT["version"]
    assert nblib.__version__ == version
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()
    assert PROJECT["license"] == "BSD-3-Clause"
    assert (ROOT / "LICENSE").read_text().startswith("BSD 3-Clause License")


# --- Makefile ------------------------------------------------------------------------------------

TARGETS = {"help", "setup", "book", "test", "test-full", "lint", "bench", "lab", "clean"}


def make(folder, *args, path="") -> subprocess.CompletedProcess:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "UV_", "MAKE"))}
    env["PATH"] = f"{path}{os.pathsep}{env['PATH']}" if path else env["PATH"]
    for name in ("PYTHON", "TORCH", "TORCH_INDEX", "VENV"):
        env.pop(name, None)
    command = ["make", "--no-print-directory", *args]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60)


def script(path, body: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)


@pytest.fixture
def checkout(tmp_path):
    """A folder with the files that set-up depends on, and no environment."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def fake_environment(checkout, torch: str, pip_config: str = "exit 1"):
    """An environment whose python, pip and uv only write down what they were asked."""
    log = checkout / "asked.log"
    body = f"""
        case "$*" in
          *"import torch"*) {torch} ;;
          *"config get"*) {pip_config} ;;
          *) echo "python $*" >> {log} ;;
        esac"""
    script(checkout / ".venv/bin/python", body)
    script(checkout / ".venv/bin/uv", f'echo "uv $*" >> {log}')
    return log


def test_help_is_the_default_and_lists_every_target(checkout):
    out = make(checkout)
    assert out.returncode == 0
    assert {line.split()[0] for line in out.stdout.split("\n\n")[0].splitlines()} == TARGETS
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.M)[1].split()
    assert set(phony) == TARGETS


def test_every_target_sets_up_by_itself_once(checkout):
    working = TARGETS - {"help", "clean", "setup"}
    for target in working:
        assert "pip install" in make(checkout, "-n", target).stdout, target
    (checkout / ".venv").mkdir()
    (checkout / ".venv/ready-cpu").touch()
    for target in working:
        assert "pip install" not in make(checkout, "-n", target).stdout, target
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        os.utime(checkout / ".venv/ready-cpu", (1, 1))
        assert "pip install" in make(checkout, "-n", "test").stdout, name


def test_setup_passes_on_what_pip_was_told_and_ends_with_its_stamp(checkout):
    config = """case "$*" in
        *find-links*) echo /wheels /more ;;
        *extra-index*) echo https://two/s ;;
        *) exit 1 ;;
      esac"""
    log = fake_environment(checkout, "echo cpu", config)
    out = make(checkout, "setup")
    assert out.returncode == 0, out.stderr
    uv = [line for line in log.read_text().splitlines() if line.startswith("uv ")]
    assert len(uv) == 2
    for line in uv:
        assert "--find-links /wheels --find-links /more" in line
        assert "--index https://two/s" in line
        assert "-c constraints.txt" in line
    assert "-e .[train,lab,book,allen,sweep,dev]" in uv[0]
    assert uv[1].endswith("--no-deps allensdk")
    assert "ipykernel install --sys-prefix --name nblib" in log.read_text()
    assert (checkout / ".venv/ready-cpu").exists()
    log.unlink()
    assert make(checkout, "setup").returncode == 0
    assert not log.exists(), "a second call must not set up again"


def test_the_choice_of_torch_is_checked_and_remembered(checkout):
    fake_environment(checkout, "echo cpu")
    out = make(checkout, "setup", "TORCH=cuda")
    assert out.returncode != 0
    assert "TORCH=cuda was asked for, but pip found the cpu build" in out.stderr
    assert "TORCH_INDEX=" in out.stderr
    assert not (checkout / ".venv/ready-cuda").exists()
    log = fake_environment(checkout, "echo cuda")
    assert make(checkout, "setup", "TORCH=cuda", "TORCH_INDEX=https://one/s").returncode == 0
    assert "--extra-index-url https://one/s torch" in log.read_text()
    log.unlink()
    assert make(checkout, "setup").returncode == 0
    assert not log.exists(), "TORCH=cuda must be remembered"
    out = make(checkout, "setup", "TORCH=gpu")
    assert out.returncode != 0 and "choose cpu or cuda" in out.stderr


def test_an_old_python_is_refused_with_a_way_out(checkout):
    old = checkout / "oldpython"
    pretend = "import sys; sys.version_info = (3, 9, 1); exec(sys.argv[2])"
    script(old, f"""exec python3 -c '{pretend}' "$@" """)
    out = make(checkout, "setup", f"PYTHON={old}")
    assert out.returncode != 0
    assert "is Python 3.9.1; nblib needs 3.11.5" in out.stderr and "make PYTHON=" in out.stderr
    out = make(checkout, "setup", "PYTHON=")
    assert out.returncode != 0 and "No Python found" in out.stderr
    assert not (checkout / ".venv").exists()


def test_clean_leaves_artifacts(checkout):
    for name in ("data", "nblib", "tests", ".venv"):
        (checkout / name).mkdir()
    assert make(checkout, "clean").returncode == 0
    assert (checkout / "data").exists() and not (checkout / ".venv").exists()


# --- .ci/run -------------------------------------------------------------------------------------


def ci(tmp_path, *, data: bool, fail: str = ""):
    repo = tmp_path / "checkout"
    (repo / ".ci").mkdir(parents=True)
    (repo / ".venv").mkdir()
    shutil.copy(ROOT / ".ci/run", repo / ".ci/run")
    if data:
        (tmp_path / "shared/data").mkdir(parents=True)
    body = """
        echo "made $1 with ${NBLIB_TEST_DATA:-nothing}, no skip: $NBLIB_NO_SKIP"
        if [[ "$1" == test ]]; then
          echo "real recordings: 3 tests skipped without them"
          echo "9 passed, 3 skipped in 1.00s"
        fi
        [[ "$1" != "$FAIL" ]]"""
    script(tmp_path / "bin/make", body)
    script(tmp_path / "bin/slurmctld", "true")  # it is there: nothing is installed by a test
    script(tmp_path / "bin/apt-get", "exit 1")
    env = {k: v for k, v in os.environ.items() if k not in ("NBLIB_TEST_DATA", "NBLIB_NO_SKIP")}
    env |= {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{env['PATH']}", "FAIL": fail}
    return subprocess.run(
        ["bash", ".ci/run"], cwd=repo, env=env, capture_output=True, text=True, timeout=60
    )


def test_ci_runs_all_steps_and_closes_on_the_tests_own_line(tmp_path):
    out = ci(tmp_path, data=True)
    assert out.returncode == 0, out.stderr
    made = re.findall(r"^made ([\w-]+) with (.*)$", out.stdout, re.M)
    assert [target for target, _ in made] == ["setup", "lint", "test", "book", "test-full"]
    assert {how for _, how in made} == {f"{(tmp_path / 'shared/data').resolve()}, no skip: 1"}
    assert out.stdout.splitlines()[-1] == "9 passed, 3 skipped in 1.00s"
    assert "real recordings: 3 tests skipped" in out.stdout


def test_ci_without_the_real_recordings_says_so(tmp_path):
    out = ci(tmp_path, data=False)
    assert out.returncode == 0 and "real recordings: none; NBLIB_NO_SKIP=1" in out.stdout


@pytest.mark.parametrize("no_skip", ["0", "1"])
def test_what_would_skip_fails_where_nothing_may(no_skip, monkeypatch):
    monkeypatch.setenv("NBLIB_NO_SKIP", no_skip)
    ends = {"0": pytest.skip.Exception, "1": pytest.fail.Exception}
    with pytest.raises(ends[no_skip], match="no Slurm here"):
        conduct.lacking("no Slurm here")


def test_tests_of_one_slurm_share_a_worker_and_long_ones_come_first():
    slurm, other = "tests/slurm/test_cluster.py::a", "tests/slurm/test_real_notebooks.py::b"
    short, long = "tests/core/test_store.py::a", "tests/experiments/test_spikes.py::a"
    assert conduct.scope(slurm) == conduct.scope(other) != conduct.scope(short)
    assert conduct.scope(short) == conduct.scope("tests/core/test_store.py::b")
    assert conduct.in_order([short, long, other, slurm]) == [other, slurm, long, short]
    more = "tests/core/test_params.py::{}"
    assert conduct.in_order([short, *map(more.format, "ab")])[-1] == short
    for part in (*(part for chain in conduct.CHAINS for part in chain), *conduct.LONG):
        assert list((ROOT / "tests").rglob(part.strip("/"))), f"{part} is no file of tests"


@pytest.mark.parametrize("step", ["setup", "lint", "test", "book", "test-full"])
def test_ci_stops_at_the_first_failure(tmp_path, step):
    out = ci(tmp_path, data=False, fail=step)
    assert out.returncode != 0
    assert re.findall(r"^made ([\w-]+)", out.stdout, re.M)[-1] == step


# --- README --------------------------------------------------------------------------------------


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def inline() -> list[str]:
    """What stands between single backticks, outside the blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", README, flags=re.M | re.S))


def test_readme_names_every_target_and_no_other():
    named = set(re.findall(r"^make ([a-z][a-z-]*)", "\n".join(inline()), re.M))
    named |= set(re.findall(r"^make ([a-z-]+)", "\n".join(blocks("bash")), re.M))
    assert named == TARGETS


def test_readme_recipes_are_valid():
    from nblib.core.params import Recipe, checked
    from nblib.core.text_to_values import read_yaml

    texts = {text: read_yaml(text, "README.md") for text in blocks("yaml")}
    recipes = {text: values for text, values in texts.items() if "recipe" in values}
    assert len(recipes) == 3 and len(texts) == 4
    for text, values in texts.items():
        recipe = checked(
            Recipe, {"recipe": "r", "recordings": ["a"], "source": "nwb"} | values, "README.md"
        )
        if text not in recipes:
            continue
        assert f"# params/recipes/{recipe.recipe}.yml" in text
        assert recipe.recordings[0] in str(recipe.file(recipe.recordings[0]))


@pytest.mark.parametrize("page", ["README.md", "book/longleaf.md"])
def test_every_exit_code_is_documented(page):
    from nblib.run import execute

    told = " ".join((ROOT / page).read_text().split()).lower().split("exit code")[1][:500]
    codes = {execute.OK, 1, execute.BAD_PARAMETERS, execute.NOTEBOOK_ERROR, execute.KERNEL_DIED}
    assert {int(n) for n in re.findall(r"(?:^|[ :,]) ?(\d)(?= \w)", told)} == codes
    assert "128 + n" in told


def test_readme_lists_the_decoders():
    models = pytest.importorskip("nblib.models")
    listed = re.search(r"Nineteen decoders: (.*?)\.\n", README, re.S)[1]
    assert re.findall(r"`(\w+)`", listed) == list(models.MODELS)


def test_readme_folders_exist():
    table = README.split("## What is where")[1]
    for name in re.findall(r"^\| `([\w./]+)` \|", table, re.M):
        assert name == "data/" or (ROOT / name).exists(), name


# --- the repository ------------------------------------------------------------------------------


def test_no_registry_host_and_no_local_path_is_written_down():
    hosts = re.compile(
        r"(pypi|pythonhosted|anaconda|npmjs|debian)\.(org|com)|download\.pytorch|/opt/"
    )
    for name in tracked():
        if name.endswith((".png", ".ico")):
            continue
        text = (ROOT / name).read_text(encoding="utf-8", errors="replace")
        if name != "tests/test_setup.py":
            assert not hosts.search(text), name


def test_no_data_no_weights_nothing_large_is_tracked():
    for name in tracked():
        assert not name.endswith((".nwb", ".pkl", ".h5", ".pt", ".pth", ".safetensors")), name
        assert (ROOT / name).stat().st_size < 1_000_000, name


@pytest.mark.parametrize(
    "name",
    [".venv/bin/python", "data/01_ingest/x/manifest.json", "notebooks/wandb/x", "a.nwb"],
)
def test_what_is_made_is_ignored(name):
    tracked()
    out = subprocess.run(["git", "check-ignore", "-q", name], cwd=ROOT)
    assert out.returncode == 0
