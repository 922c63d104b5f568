"""What workflow code must not call is found where it is written, in development mode."""

import asyncio
import random
import subprocess
import sys
import textwrap
import time
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from aion_es import Context
from aion_es.authoring.impurities import WorkflowDeterminismWarning, impurities, warn_of_impurities


async def calls_the_clock(ctx: Context) -> Any:
    return time.time(), datetime.now()  # noqa: TID251 - it is what must be found


async def asks_the_time(ctx: Context) -> float:
    return time.time()  # noqa: TID251 - see above


async def calls_inside(ctx: Context) -> Any:
    def draw() -> float:
        return random.random()  # noqa: TID251 - see above

    return [draw() for _ in range(2)], uuid.uuid4()  # noqa: TID251 - see above


async def opens(ctx: Context) -> str:
    with open(__file__) as file:  # noqa: ASYNC230, PTH123 - it is what must be found
        return file.read()


async def is_pure(ctx: Context) -> Any:
    await asyncio.sleep(1)
    return ctx.now(), ctx.random.random(), ctx.uuid4(), datetime(2030, 1, 1), time.struct_time


@pytest.mark.parametrize(
    ("code", "found"),
    [
        (calls_the_clock, ["time.time", "datetime.now"]),
        (calls_inside, ["uuid.uuid4", "random.random"]),
        (opens, ["open"]),
        (is_pure, []),
    ],
)
def test_what_gives_another_answer_in_replay_is_found(code: Any, found: list[str]) -> None:
    assert [impurity.name for impurity in impurities(code)] == found


def test_the_warning_names_file_and_line_and_the_remedy() -> None:
    with pytest.warns(WorkflowDeterminismWarning, match=r"time\.time\(\).*ctx\.now\(\)") as caught:
        warn_of_impurities(asks_the_time, "workflow 'asks_the_time'")
    assert caught[0].filename == __file__
    assert caught[0].lineno == asks_the_time.__code__.co_firstlineno + 1


@pytest.mark.parametrize(("flags", "warned"), [(["-X", "dev"], True), ([], False)])
def test_it_is_told_in_development_mode_only(
    tmp_path: Path, flags: list[str], warned: bool
) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            """
            import time
            from aion_es import Context, Engine, workflow

            @workflow
            async def late(ctx: Context) -> float:
                return time.time()

            Engine.open("memory://", workflows=[late])
            """
        )
    )
    done = subprocess.run(
        [sys.executable, *flags, str(program)], capture_output=True, text=True, check=True
    )
    assert ("WorkflowDeterminismWarning" in done.stderr) == warned


class Touchy:
    """Like an array: it does not say yes or no to a comparison, and minds being asked."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("ambiguous")

    __hash__ = None  # type: ignore[assignment]  # it is compared, never looked up

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


touchy = Touchy()


async def uses_an_object(ctx: Context) -> Any:
    return touchy, touchy.shape


def test_objects_of_the_users_own_are_left_alone() -> None:
    assert list(impurities(uses_an_object)) == []
