"""A kernel knows whether a person sits in front of it."""

from types import SimpleNamespace

import pandas as pd
import xarray as xr
from IPython.core.formatters import DisplayFormatter
from IPython.display import HTML

from nblib.road import notebook_code


def test_nobody_is_there_in_a_test():
    assert notebook_code.is_interactive() is False


def test_a_kernel_knows_a_person_from_a_batch(home):
    """Jupyter's front ends allow input with a cell, papermill does not: asked of a real kernel."""
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python3")
    try:
        told = {}
        for allow in (True, False):
            code = "from nblib.road import notebook_code; print(notebook_code.is_interactive())"
            said = []
            client.allow_stdin = allow
            client.execute_interactive(
                code, allow_stdin=allow, timeout=60,
                output_hook=lambda m, said=said: said.append(m["content"].get("text", "")),
            )  # fmt: skip
            told[allow] = "".join(said).strip()
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert told == {True: "True", False: "False"}


def test_names_with_dollars_are_no_formulas_in_what_cells_show(monkeypatch):
    label = "$x$ and $y$"
    counts = xr.Dataset({"counts": ("trial", [1, 2])}, coords={"label": ("trial", [label, "b"])})
    table = pd.DataFrame({label: [1]})
    shell = SimpleNamespace(display_formatter=DisplayFormatter())
    shell.display_formatter.formatters["text/html"].for_type(int, lambda n: f"<b>{n}</b>")
    monkeypatch.setattr(notebook_code, "_shell", lambda: shell)
    notebook_code.show_no_formula()
    notebook_code.show_no_formula()
    for shown, name in ((counts, label), (table, label), (HTML(label), label), (7, "<b>7</b>")):
        page = shell.display_formatter.format(shown)[0]["text/html"]
        assert page.startswith('<div class="tex2jax_ignore mathjax_ignore">')
        assert page.count("mathjax_ignore") == 1 and name in page
    assert "text/html" not in shell.display_formatter.format("text")[0]
