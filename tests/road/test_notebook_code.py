"""A kernel knows whether a person sits in front of it."""

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
