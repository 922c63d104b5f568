"""What must not be called directly in workflow code, found by reading the code: a warning for the developer.

Replay finds every divergence, but only when it happens. In Python's development mode (`python -X dev`) what
a workflow function calls by name is looked through when it is registered; that costs nothing when it runs.
"""

import builtins
import datetime as datetime_module
import dis
import os
import random
import secrets
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, Final, NamedTuple

_INSTEAD: Final = {
    "clock": "take the time from ctx.now()",
    "random": "take it from ctx.random or ctx.uuid4()",
    "wait": "await ctx.sleep(…) or asyncio.sleep(…)",
    "file": "read and write in an activity",
}
_KINDS: Final[tuple[tuple[Any, str], ...]] = (
    *((getattr(time, name), "clock") for name in ("time", "time_ns", "monotonic", "perf_counter")),
    *((getattr(datetime_module.datetime, name), "clock") for name in ("now", "utcnow", "today")),
    (datetime_module.date.today, "clock"),
    (time.sleep, "wait"),
    (builtins.open, "file"),
    (os.urandom, "random"),
    (uuid.uuid1, "random"),
    (uuid.uuid4, "random"),  # noqa: TID251 - looked for, not called
    *((getattr(secrets, name), "random") for name in ("token_bytes", "token_hex", "choice")),
    *((getattr(random, name), "random") for name in ("random", "randint", "choice", "uniform")),
    *((getattr(random, name), "random") for name in ("shuffle", "sample", "randrange")),
)


class WorkflowDeterminismWarning(UserWarning):
    """Workflow code calls something that gives another answer when the code is replayed."""


class Impurity(NamedTuple):
    """One place in workflow code.

    Attributes:
        name: As the code calls it.
        instead: What to do about it.
        line: In the file of the code.
    """

    name: str
    instead: str
    line: int


def warn_of_impurities(function: Callable[..., Any], where: str) -> None:
    """Warn, with file and line, of everything that `impurities` finds."""
    for found in impurities(function):
        warnings.warn_explicit(
            f"{where} calls {found.name}(): replay gets another answer; {found.instead}",
            WorkflowDeterminismWarning,
            function.__code__.co_filename,
            found.line,
        )


def impurities(function: Callable[..., Any]) -> Iterator[Impurity]:
    """Yield what `function`, or a function inside it, reaches by global names and must not call; in order."""
    names = {**vars(builtins), **function.__globals__}
    yield from _in_code(function.__code__, names)


def _in_code(code: CodeType, names: dict[str, Any]) -> Iterator[Impurity]:
    reached: Any = None
    path, line = "", code.co_firstlineno
    for instruction in dis.get_instructions(code):
        position = instruction.positions
        if position is not None and position.lineno is not None:
            line = position.lineno
        if instruction.opname in {"LOAD_GLOBAL", "LOAD_NAME"}:
            path = str(instruction.argval)
            reached = names.get(path)
        elif instruction.opname in {"LOAD_ATTR", "LOAD_METHOD"} and path:
            path = f"{path}.{instruction.argval}"
            # Of modules and classes only: what an object of the user's own does when asked is not our business.
            known = isinstance(reached, ModuleType | type)
            reached = getattr(reached, str(instruction.argval), None) if known else None
        else:
            path = ""
            continue
        if isinstance(reached, FunctionType | BuiltinFunctionType | MethodType):
            kind = next((kind for banned, kind in _KINDS if reached == banned), None)
            if kind is not None:
                yield Impurity(path, _INSTEAD[kind], line)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _in_code(constant, names)
