"""Every command that README and the book print is one that works: read by a test, and run once."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from nblib import cli
from nblib.core import store
from nblib.road import notebook_code, stages
from nblib.run import plan, sweep

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *(p for place in ("*", "methods/*", "api/*") for p in sorted((ROOT / "book").glob(f"{place}.md")))]  # fmt: skip
PROGRAMS = "nblib|make|papermill|pip|conda|python"
# Recipe and model that a page makes, and a notebook; test_guides.py follows these pages.
MINE, MY_NOTEBOOK = ("sorted", "correlation"), "20_first_bins"


def commands(text: str) -> list[str]:
    """Commands in the shell blocks of a page, and between the single backticks of its prose."""
    shell = re.findall(r"^```(?:bash|sh|shell|console)\n(.*?)^```", text, re.M | re.S)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]
    lines = "\n".join([*shell, *spans]).replace("\\\n", " ")
    found = re.findall(rf"^ *(?:\S*/)?((?:{PROGRAMS}) +[a-z-].*)$", lines, re.M)
    return [" ".join(shlex.quote(w) for w in shlex.split(c, comments=True)) for c in found]


PRINTED = sorted({command for page in PAGES for command in commands(page.read_text("utf-8"))})
OURS = [
    command.removeprefix("nblib ")
    for command in PRINTED
    if command.startswith("nblib ") and MY_NOTEBOOK not in command
]


def test_commands_are_found_wherever_they_stand():
    page = "```bash\nfor x in 1; do\n  nblib run 05 \\\n    -p seed $x  # why\ndone\n```\nand `nblib du`, `nblib`\n| a | `.venv/bin/nblib gc` |"
    assert commands(page) == ["nblib run 05 -p seed '$x'", "nblib du", "nblib gc"]
    assert {c.split()[0] for c in OURS} >= {"run", "sweep", "allen", "status", "results", "book"}
    assert len(OURS) > 30


def asked(command: str) -> tuple[str, dict]:
    """Stage and typed values of a printed `nblib run`; what a shell fills in stands as it is."""
    options = cli.parser().parse_args(shlex.split(command))
    _, stage = plan.find_notebook(options.notebook)
    pairs = [[name, value if value != "$seed" else "0"] for name, value in options.pairs]
    file = str(ROOT / options.file) if (options.file or "").startswith("params/") else None
    return stage, cli.gather(stage, pairs, file)


@pytest.mark.parametrize("command", OURS)
def test_a_printed_command_of_nblib_is_understood(command, home):
    options = cli.parser().parse_args(shlex.split(command))
    if options.command is cli.run:
        stage, values = asked(command)
        shipped = (store.recipes_dir() / f"{values.get('recipe', 'demo')}.yml").is_file()
        if shipped and values.get("model") not in MINE and "$" not in command:
            plan.job_of(stage, runner_values(stage, values))
        else:
            assert values.get("recipe", "mine") in (
                "mine",
                "lab",
                "allen_natural_scenes",
                *MINE,
                "demo",
            )
    if hasattr(options, "file") and options.command is not cli.run and options.file:
        sweep.read(ROOT / options.file)


def runner_values(stage: str, values: dict) -> dict:
    """With the first recording of the recipe, where several are meant."""
    if plan.names_recordings(stage, values):
        return values | {"recording": plan.recordings_of(values["recipe"])[0]}
    return values


@pytest.mark.parametrize("command", [c for c in PRINTED if not c.startswith("nblib ")])
def test_a_printed_command_of_another_program_names_what_is_here(command):
    program, *words = shlex.split(command)
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
        assert words[0] in targets
    if program == "papermill":
        source, _, *given = words
        stage = plan.find_notebook(ROOT / source)[1]
        assert given[::3] == ["-p"] * (len(given) // 3)
        notebook_code.check_names(stage, given[1::3], stages.accepted_names(stage))
    for flag in ("-c", "-f"):
        if program in ("pip", "conda") and flag in words:
            assert (ROOT / words[words.index(flag) + 1]).is_file()


# --- each once, on recordings of seconds ---------------------------------------------------------

TINY = """\
recipe: tiny
recordings: [tiny]
source: simulate
simulate: {n_units: 12, n_scenes: 20, n_repeats: 40, signal: 2.0}
gap_s: 0.25
"""
MICE = """\
recipe: mice
recordings: [m1, m2, m3, m4, m5]
source: simulate_lfp
simulate_lfp: {state_s: 40.0, rate_hz: 125.0}
intervals: states
label: state
window_s: 2.0
hop_s: 2.0
"""
FILM = """\
recipe: film
recordings: [p1]
source: simulate_movie
source_params: {seed: 11, n_frames: 9001, n_units: 10, n_pauses: 1}
intervals: frames
label: hero
binning: frames
split: segments
n_folds: 5
gap_s: 4.0
n_parts: 4
"""
RETINA = """\
recipe: retina
recordings: [r1]
source: simulate_retina
source_params: {n_cells: 6, n_types: 3, duration_s: 40.0}
intervals: ""
binning: continuous
bin_s: 0.001
split: cycles
cycle_s: [12.0, 3.0, 3.0]
gap_s: 0.0
context_s: [0.8, 0.2]
"""
QUICK = {
    "max_epochs": "1", "n_steps": "2", "vae_epochs": "1", "n_permutations": "100", "n_bootstrap": "100", "importance": "0",
    "n_draws": "1", "n_draws_large": "1", "n_draws_trained": "1", "n_folds": "3",
}  # fmt: skip
# What only the network, a cluster, a person's own files or hours can run.
ELSEWHERE = ("allen ", "cancel ", "job ", "book", "--profile", *MINE, "FOLDER", "~/", "published ")


def tiny(command: str, recipes: Path) -> list[str]:
    """The command, on a recording of seconds and with little work."""
    words = shlex.split(command)
    if words[0] == "sweep":
        return [words[0], str(ROOT / words[1]), "--dry-run"]
    if words[0] == "status" and words[1:]:
        return [words[0], str(ROOT / words[1])]
    if words[0] != "run":
        return words
    stage, _ = asked(command)
    accepted = stages.accepted_names(stage)
    pairs = dict(cli.parser().parse_args(words).pairs)
    pairs = {k: v for k, v in pairs.items() if "$" not in v and k not in ("recording", "device")}
    more = {k: v for k, v in QUICK.items() if k in accepted and k not in ("n_folds", *pairs)}
    if stages.STAGES[stage].cohort and stages.STAGES[stage].signal == "spikes":
        more |= {"recipe": "task_tiny"}
        more |= {"new": "[t2]", "budgets": "[10]"} if "new" in pairs else {}
        more |= {"fold": "0"} if "fold" in pairs else {}  # it has one
    elif stages.STAGES[stage].cohort:
        more |= {"n_folds": "3", "recipe": str(recipes / "mice.yml")}
    elif "leak" in accepted:  # six minutes of film have no room for the longer buffers
        more |= {"recipe": str(recipes / "film.yml"), "n_permutations": "20"}
        more |= {"leak": "[0, 4]"} if "leak" in pairs else {}
    elif "cell_code" in accepted:
        more |= {"recipe": str(recipes / "retina.yml")}
    elif "recipe" in accepted and stage[:2] < "90":
        more |= {"recipe": str(recipes / "tiny.yml")}
    if "pretext_params" in accepted:
        more |= {"pretext_params": "{tau_neg_s: 30.0, max_epochs: 1, n_steps: 2}"}
    flags = [word for name, value in sorted((pairs | more).items()) for word in ("-p", name, value)]
    return ["run", stage, "--with-upstream", *flags]


def distinct() -> list[str]:
    """One of each: a command, a notebook, a decoder, a set of options."""
    chosen: dict[str, str] = {}
    for command in OURS:
        if not any(word in f"{command} " for word in ELSEWHERE):
            chosen.setdefault(shlex.join(tiny(command, Path())), command)
    return list(chosen.values())


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands")
    (folder / "home").mkdir()
    (folder / "tiny.yml").write_text(TINY)
    (folder / "mice.yml").write_text(MICE)
    (folder / "film.yml").write_text(FILM)
    (folder / "retina.yml").write_text(RETINA)
    return folder


CHEAP = ("status", "results", "audit", "du", "gc", "verify", "version", "published")


@pytest.mark.parametrize(
    "command",
    [pytest.param(c, marks=() if c.split()[0] in CHEAP else pytest.mark.slow) for c in distinct()],
)
def test_a_printed_command_runs(command, laboratory, preloaded, monkeypatch):
    monkeypatch.setenv("NBLIB_HOME", str(laboratory / "home"))
    monkeypatch.chdir(laboratory)
    code = cli.main(tiny(command, laboratory))
    assert code == 0 or (command == "doctor" and code == 1)  # this machine may lack something
