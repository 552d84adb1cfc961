"""A machine whose file systems cannot lock files, as Lustre and NFS often cannot."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

FLOCK = {"x86_64": 73, "aarch64": 32}  # number of the system call
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, FILTER = 22, 38, 2


def can_be_feigned() -> bool:
    return platform.system() == "Linux" and platform.machine() in FLOCK


def feign() -> None:
    """From here on `flock` fails in this process and its children, with "No locks available".

    The kernel itself says so, by a seccomp filter of four instructions.
    """
    load, if_equal, answer = 0x20, 0x15, 0x06
    refuse, allow = 0x00050000 | errno.ENOLCK, 0x7FFF0000
    code = [
        (load, 0, 0, 0),  # the number of the call
        (if_equal, 0, 1, FLOCK[platform.machine()]),
        (answer, 0, 0, refuse),
        (answer, 0, 0, allow),
    ]
    text = b"".join(struct.pack("HBBI", *line) for line in code)
    kept = ctypes.create_string_buffer(text)
    program = struct.pack("HxxxxxxP", len(code), ctypes.addressof(kept))
    system = ctypes.CDLL(None, use_errno=True)
    for call in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, FILTER, program, 0, 0)):
        if system.prctl(*call) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
