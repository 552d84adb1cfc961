"""What one check says, and how a check asks another program."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

OK, WARN, FAIL = "ok", "warn", "FAIL"


@dataclass(frozen=True)
class Check:
    """One judgement: `fix` is the command or step that mends it, empty when nothing is wrong."""

    name: str
    status: str
    found: str
    fix: str = ""


def ask(command: list[str], timeout_s: float = 15) -> tuple[int | None, str, str]:
    """Exit status, stdout and stderr of a program; None when it is not there or takes too long."""
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
    except FileNotFoundError:
        return None, "", f"{command[0]}: not found"
    except subprocess.TimeoutExpired:
        return None, "", f"{command[0]}: no answer within {timeout_s:g} s"
    except OSError as error:
        return None, "", f"{command[0]}: {error.strerror}"
    return told.returncode, told.stdout, told.stderr


def last_line(text: str) -> str:
    """The last line that says something: of a traceback, the error itself."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
