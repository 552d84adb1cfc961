"""The house style of notebooks, checked: readable, runnable by anyone, and free of hidden state."""

import ast
import json
import re

import nbformat
import pytest

from nblib.core import store
from nblib.road import stages
from nblib.road.parameter_cells import parameters_cell

NAMES = sorted(stages.STAGES)
MOST_CELLS, MOST_LINES = 26, 15


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def notebook(name):
    return nbformat.read(store.notebooks_dir() / f"{name}.ipynb", as_version=4)


def code(notebook):
    return [c for c in notebook.cells if c.cell_type == "code"]


def parameters(notebook):
    tagged = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    assert len(tagged) == 1, "exactly one cell is tagged parameters"
    return tagged[0]


def figure_cells(notebook):
    return [c for c in code(notebook) if re.search(r"^(\w*plots|explore)\.", c.source, re.M)]


def test_every_notebook_is_a_stage_and_valid(name, notebook):
    nbformat.validate(notebook)
    files = {p.stem for p in store.notebooks_dir().glob("*.ipynb")}
    assert files == set(NAMES)


def test_title_and_question_come_first(name, notebook):
    first, second = notebook.cells[:2]
    lines = first.source.strip().splitlines()
    assert first.cell_type == "markdown" and lines[0].startswith(f"# {name[:2]} · ")
    assert re.fullmatch(r"\*\*.+\?\*\*", lines[-1]), "a question in one sentence"
    assert "**Goes in:**" in second.source and "**Comes out:**" in second.source


def test_order_parameters_validate_work(name, notebook):
    cells = code(notebook)
    assert cells[0] is parameters(notebook)
    assert f'stage = nblib.begin("{name}", globals())' in cells[1].source
    assert sum("nblib.begin(" in c.source for c in cells) == 1
    assert sum("stage.commit(" in c.source for c in cells) == 1


def test_size(notebook):
    assert len(notebook.cells) <= MOST_CELLS
    own = parameters(notebook)
    for cell in notebook.cells:
        if cell is not own:  # one line a parameter: as long as its model
            assert len(cell.source.splitlines()) <= MOST_LINES, cell.id
        widest = max(map(len, cell.source.splitlines()))
        assert cell.cell_type == "markdown" or widest <= (120 if cell is own else 100), cell.id


def test_a_sentence_stands_before_every_cell_of_work(notebook):
    for before, cell in zip(notebook.cells[1:], notebook.cells[2:], strict=False):
        if cell.cell_type == "code" and cell is not parameters(notebook) and cell.id != "result":
            assert before.cell_type == "markdown", cell.id
            assert before.source.rstrip().endswith((".", ":")), before.id


def test_what_to_do_in_a_kernel_without_nblib_stands_above_the_cell_that_finds_out(notebook):
    place = next(i for i, c in enumerate(notebook.cells) if "import nblib" in c.source)
    assert [c for c in notebook.cells[:place] if c.cell_type == "code"] == [parameters(notebook)]
    told, display = notebook.cells[place - 1].source, "Python (nblib)"
    assert "If there is no module `nblib`, choose a kernel that has it" in told and display in told
    makefile = (store.project_root() / "Makefile").read_text(encoding="utf-8")
    assert f'--name nblib --display-name "{display}"' in makefile, "what `make lab` offers"


def test_no_outputs_and_plain_metadata(notebook):
    for cell in code(notebook):
        assert cell.outputs == [] and cell.execution_count is None
        assert set(cell.metadata) <= {"tags"}
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.language_info == {"name": "python"}


def test_file_is_clean_json_with_fixed_ids(name, notebook):
    text = (store.notebooks_dir() / f"{name}.ipynb").read_text(encoding="utf-8")
    assert text == json.dumps(json.loads(text), indent=1, ensure_ascii=False) + "\n"
    ids = [c.id for c in notebook.cells]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", i) for i in ids), "ids that a person chose"


def test_the_parameters_cell_is_the_one_written_from_their_model(name, notebook):
    assert parameters(notebook).source == parameters_cell(name), "run `nblib cells`"
    values = {}
    exec(parameters(notebook).source, values)
    declared = stages.STAGES[name].params.model_fields.items()
    assert {key: values[key] for key, _ in declared} == {key: f.default for key, f in declared}


def test_each_parameter_says_what_it_means(name, notebook):
    for line in parameters(notebook).source.splitlines():
        if line == "# None: as the recipe says":
            continue
        assert re.fullmatch(r"\w+: \w+ = \S.*?  # \S.+", line), line
        assert line.count("=") == 1, "papermill cannot read a line with two equals signs"


def test_papermill_reads_every_parameter(name):
    from papermill.inspection import inspect_notebook

    path = str(store.notebooks_dir() / f"{name}.ipynb")
    assert list(inspect_notebook(path)) == [
        line.split(":")[0]
        for line in parameters(nbformat.read(path, as_version=4)).source.splitlines()
        if not line.startswith("#")
    ]


def test_work_is_calls_not_logic(notebook):
    """No loops, branches, functions or classes: what a test cannot reach stays in the package."""
    banned = (ast.For, ast.While, ast.If, ast.Try, ast.With, ast.FunctionDef, ast.ClassDef)
    for cell in code(notebook):
        found = [
            type(n).__name__ for n in ast.walk(ast.parse(cell.source)) if isinstance(n, banned)
        ]
        assert not found, f"{cell.id}: {found}"
        assert not re.search(r"^[%!]", cell.source, re.M), f"{cell.id}: a magic command"


def test_no_paths_and_no_plain_secrets(notebook):
    for cell in code(notebook):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not re.match(r"(/|~|\.\.?/|[A-Za-z]:\\)", node.value), (
                    f"{cell.id}: {node.value}"
                )
        assert not re.search(r"\b(Path|open|os|pathlib)\b\(?", cell.source.split("#")[0]), cell.id


def test_no_name_is_a_parameter_twice(name, notebook):
    """Running the validate cell again must find the parameters, not what the work called so."""
    taken = set(stages.accepted_names(name))
    for cell in code(notebook)[1:]:
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                assert node.id not in taken, f"{cell.id} overwrites the parameter {node.id}"
            if isinstance(node, ast.alias):
                assert (node.asname or node.name).split(".")[0] not in taken, (
                    f"{cell.id}: {node.name}"
                )


def test_figures_come_last_in_cells_of_their_own(notebook):
    cells = code(notebook)
    commit = next(i for i, c in enumerate(cells) if "stage.commit(" in c.source)
    assert len(figure_cells(notebook)) >= 1
    for cell in cells[commit + 1 : -1]:
        last = ast.parse(cell.source).body[-1]
        assert isinstance(last, ast.Expr) and re.match(
            r"(\w*plots|explore)\.", ast.unparse(last)
        ), cell.id
    for cell in cells[:commit]:
        assert not re.search(r"^\w*plots\.", cell.source, re.M), (
            f"{cell.id}: a figure before the commit"
        )


def test_the_last_cell_states_the_result_from_the_data(notebook):
    last = notebook.cells[-1]
    assert last.cell_type == "code" and last.id == "result"
    shown = ast.parse(last.source).body[-1]
    assert isinstance(shown, ast.Expr) and shown.value.func.id == "Markdown"
    text = shown.value.args[0]
    if isinstance(text, ast.JoinedStr):
        assert "**Result.**" in last.source
        assert sum(isinstance(v, ast.FormattedValue) for v in text.values) >= 2, "computed"
    else:  # a sentence that needs conditions is written, and tested, in the package
        assert re.fullmatch(
            r"\w+\.(in_words|sentence)\(.*\)",
            ast.unparse(text),
        )


def test_notebooks_before_training_import_no_torch(name, notebook):
    if name < "05":
        text = "\n".join(c.source for c in code(notebook))
        assert not re.search(r"\b(torch|lightning|models|training)\b", text)
