"""The command `nblib`. Every import that costs time happens inside the command that needs it."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit code. Errors made for people come as one line, not a traceback."""
    from nblib.core.errors import BadParameter, NblibError

    options = parser().parse_args(argv)
    try:
        result = options.command(options)
        if result is None or isinstance(result, int):
            return result or 0
        print(result)
        return getattr(result, "exit_code", 0)
    except NblibError as error:
        print(f"nblib: {error}", file=sys.stderr)
        return 2 if isinstance(error, BadParameter) else 1
    except KeyboardInterrupt:
        print("nblib: stopped by SIGINT; what is committed stays.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `nblib results | head`
        sys.stderr.close()
        return 0
    except OSError as error:
        from nblib.core import store

        fault = store.storage_error(error, Path(error.filename or store.home()))
        print(f"nblib: {fault}", file=sys.stderr)
        return 1


def at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number of at least 1")
    return int(text)


def path(text: str) -> Path:
    return Path(text).expanduser()


def call(at: str, *names: str) -> Callable[[argparse.Namespace], Any]:
    """A command that hands the options of these names to `module:function` of nblib."""

    def command(options: argparse.Namespace) -> Any:
        module, _, function = at.partition(":")
        values = [getattr(options, name) for name in names]
        return getattr(importlib.import_module(f"nblib.{module}"), function)(*values)

    return command


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="nblib", description="Decode neural recordings in notebooks people can trust."
    )
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, function: Callable, about: str) -> argparse.ArgumentParser:
        title = about[:1].upper() + about[1:] + "."
        sub = commands.add_parser(name, help=about, description=title)
        sub.set_defaults(command=function)
        return sub

    sub = command("run", run, "run a notebook: nblib run 05 -p recording demo")
    sub.add_argument("notebook", help="a stage (05, or its whole name) or the path of a notebook")
    sub.add_argument(
        "-p", dest="pairs", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
        help="a parameter of the notebook or a setting of the recipe",
    )  # fmt: skip
    sub.add_argument("-f", dest="file", help="YAML file with parameters, or a whole recipe")
    sub.add_argument("--with-upstream", action="store_true", help="first make what it needs")
    sub.add_argument("--force", action="store_true", help="run again although the result is there")
    sub.add_argument(
        "--jobs",
        type=at_least_one,
        default=1,
        metavar="N",
        help="recordings at once, when the recipe has several and none is named",
    )
    sub.add_argument("--quiet", action="store_true", help="say nothing unless it fails")

    start = call("run.sweep:run", "file", "jobs", "dry_run", "profile")
    sub = command("sweep", start, "run all of a file of params/sweeps that is not done yet")
    sub.add_argument("file", type=path, help="the sweep, such as params/sweeps/tau.yml")
    sub.add_argument(
        "--jobs", type=at_least_one, default=2, metavar="N", help="runs at once (default 2)"
    )
    sub.add_argument("--dry-run", action="store_true", help="say what would run, and run nothing")
    sub.add_argument(
        "--profile", default="local", help="local, or a cluster's folder of workflow/profiles"
    )
    about = "end a sweep on the cluster: its driver and its jobs"
    sub = command("cancel", call("run.cluster:stop", "file"), about)
    sub.add_argument("file", type=path, help="the sweep")
    about = "what a job of a sweep does on the cluster (called by the workflow)"
    sub = command("job", call("run.cluster:job", "plan", "name"), about)
    sub.add_argument("plan", type=path)
    sub.add_argument("name")

    about = "list or download sessions of the Allen Visual Coding data"
    listing = call("data.allen:listing", "csv")
    kinds = command("allen", listing, about).add_subparsers(metavar="list|get", required=True)
    listed = kinds.add_parser("list", help="sessions with natural scenes")
    listed.add_argument("--csv", metavar="FILE", help="write the list to a file as well")
    get = kinds.add_parser("get", help="download one session, verified, into the data root")
    get.set_defaults(command=call("data.allen:download", "session"))
    get.add_argument("session", help="session id")

    sub = command(
        "inventory",
        call("data.inventory:inventory", "folder"),
        "match a folder's pickles and NWB files",
    )
    sub.add_argument("folder", type=path)
    sub = command("cohort", cohort, "the records of Mouse_Training_Data as a recipe's recordings")
    sub.add_argument("folder", help="the folder that holds LFP_Data and INT_TIME")
    sub.add_argument(
        "--skip", nargs="+", default=[], metavar="MOUSE", help="mice or records left out"
    )
    sub.add_argument("--all-records", action="store_true", help="not just the first of each mouse")
    sub.add_argument("--names", type=path, metavar="FILE", help="write training_names.txt as well")
    sub.add_argument(
        "--from",
        dest="source",
        metavar="FILE",
        default="",
        help="the records of a training_names.txt",
    )
    about = "what the data root holds and which notebooks failed, or how far a sweep is"
    sub = command("status", call("run.sweep:progress", "file"), about)
    sub.add_argument(
        "file", type=path, nargs="?", help="a sweep: its runs done, running, queued, failed"
    )
    sub = command("results", results, "the table of all training runs")
    sub.add_argument(
        "--wide", action="store_true", help="more columns, one line a result, however long"
    )
    sub.add_argument("--csv", metavar="FILE", help="write every score, with parameters, to a file")
    sub.add_argument("--parquet", metavar="FILE", help="the same as Parquet")
    sub.add_argument("--recipe", default="", help="one recipe only")
    about = "take in tables of published numbers, or list them"
    sub = command("published", call("report.published:take_in", "files"), about)
    about = "CSV with recording, model, metric, value, unit, selected, source"
    sub.add_argument("files", type=path, nargs="*", metavar="FILE", help=about)
    sub = command("audit", call("report.audit:audit", "recipe"), "look for leakage in all runs")
    sub.add_argument("--recipe", default="", help="one recipe only")
    command("du", call("run.clean_up:du"), "how large the parts of the data root are")
    about = "what no result rests on, and can be freed"
    sub = command("gc", call("run.clean_up:gc", "delete"), about)
    sub.add_argument("--delete", action="store_true", help="free it; without, only say what")
    about = "hash every stored file, and the raw files, again and compare"
    command("verify", call("run.clean_up:verify"), about)
    about = "run the notebooks on the demo recording and render the book"
    sub = command("book", call("book.build:build", "jobs", "no_run", "fresh", "output"), about)
    sub.add_argument("--no-run", action="store_true", help="render what is there, run nothing")
    sub.add_argument("--fresh", action="store_true", help="render every page anew")
    sub.add_argument(
        "--jobs", type=at_least_one, default=2, metavar="N", help="runs at once (default 2)"
    )
    sub.add_argument("--output", type=path, help="folder that gets _build/html (default book/)")
    about = "write the parameters cell of every notebook from its declared parameters"
    command("cells", cells, about)
    command("doctor", call("run.doctor:main"), "check this machine and say what mends it")
    about = "the version of nblib and of its checkout"
    command("version", call("core.provenance:version"), about)
    return top


# --- values ------------------------------------------------------------------------------------


def gather(stage: str, pairs: list[list[str]], file: str | None) -> dict[str, Any]:
    """Values of -f and -p together, -p last. A file that names `recordings` is a recipe itself."""
    from nblib.core import recipes
    from nblib.core.errors import BadParameter
    from nblib.core.text_to_values import from_text, read_settings, text_of
    from nblib.road import notebook_code, stages

    values: dict[str, Any] = {}
    if file is not None:
        path = Path(file).expanduser().resolve()
        values = read_settings(text_of(path, str(path)), str(path))
        if "recordings" in values:
            recipe = recipes.load_recipe(path)
            values = {k: v for k, v in values.items() if k not in type(recipe).model_fields}
            values["recipe"] = str(path)
    accepted = stages.accepted_names(stage)
    names = [name for name, _ in pairs]
    notebook_code.check_names(stage, [*values, *names], accepted)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadParameter(f"{stage}: -p {twice[0]} stands twice.")
    return values | {name: from_text(name, text, accepted[name].annotation) for name, text in pairs}


# --- commands ------------------------------------------------------------------------------------


def run(options: argparse.Namespace) -> int:
    from nblib.run import execute, many, plan

    _, stage = plan.find_notebook(options.notebook)
    values = gather(stage, options.pairs, options.file)
    choices = {"with_upstream": options.with_upstream, "force": options.force}
    jobs = [values]
    if plan.names_recordings(stage, values):
        recordings = values.get("recordings") or plan.recordings_of(values["recipe"])
        jobs = [values | {"recording": r} for r in recordings]
    if options.jobs > 1 and len(jobs) > 1:
        pairs = [(options.notebook, job) for job in jobs]
        outcomes = many.run_many(pairs, options.jobs, progress=not options.quiet, **choices)
        return max(outcome.code for outcome in outcomes)
    codes = []
    for job in jobs:
        codes.append(execute.run(options.notebook, job, progress=not options.quiet, **choices))
        if codes[-1] > 128:
            break  # told to stop
    return max(codes)


def cohort(options: argparse.Namespace) -> str:
    from nblib.data.lfp import mat

    chosen = {"skip": options.skip, "all_records": options.all_records, "names": options.source}
    records = mat.cohort(options.folder, **chosen)
    if options.names:
        text = "".join(f"{record}\n" for record in records)  # as the lab's scripts read it
        options.names.write_text(text, encoding="utf-8")
    return f"recordings: [{', '.join(records)}]"


def results(options: argparse.Namespace) -> None:
    import shutil

    from nblib.report import all_runs as source
    from nblib.report import score_file, summary
    from nblib.report.one_run import read_all

    runs = read_all()
    scores = source.scores(runs, options.recipe)
    if options.csv or options.parquet:
        score_file.write(score_file.with_settings(scores, runs), options.csv, options.parquet)
    table = source.by_result(scores)
    if table.empty:
        print("no runs yet")
    elif options.wide:
        print(summary.runs_table(table).to_string(index=False))
    else:
        print(summary.short_table(table, max(80, shutil.get_terminal_size((100, 24)).columns)))
    for sentence in source.several_versions(table):
        print(sentence)


def cells(options: argparse.Namespace) -> str:
    from nblib.road.parameter_cells import write_cells

    return "\n".join(map(str, write_cells())) or "every parameters cell is as declared"


if __name__ == "__main__":
    sys.exit(main())
