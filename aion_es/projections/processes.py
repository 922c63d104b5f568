"""Which process this is, and whether another is gone; known on Linux, elsewhere nothing is said."""

import os
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_STATE, _STARTED = 0, 19
"""Fields of /proc/PID/stat, counted behind the command's name, which may hold spaces."""


def this_process() -> str:
    """Return what no other process, before or after, has in common with this one; empty if not known."""
    try:
        boot, namespace = _machine()
        return f"{boot} {namespace} {os.getpid()} {_stat(os.getpid())[_STARTED]}"
    except (OSError, IndexError):
        return ""


def is_gone(process: str) -> bool:
    """Return True if the process is known to have ended; False if it lives, or nobody can tell.

    Args:
        process: What `this_process` returned there.
    """
    try:
        boot, namespace, pid, started = process.split()
        here = _machine()
    except (OSError, ValueError):
        return False
    if boot != here[0]:
        return True  # the machine was started again since
    if namespace != here[1]:
        return False  # of another container, whose processes are not seen from here
    try:
        fields = _stat(int(pid))
    except (OSError, ValueError):
        return True
    return fields[_STATE] in {"Z", "X"} or fields[_STARTED] != started


def _machine() -> tuple[str, str]:
    boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    return boot, str((_PROC / "self/ns/pid").readlink())


def _stat(pid: int) -> list[str]:
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
