"""What workflow code cannot reach, though its loop does not see it; and who is not kept from it."""

import asyncio
import concurrent.futures
import logging
import multiprocessing
import os
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from typing import Any

import pytest

from aion_es import Context, Engine, Query, Signal, activity, workflow
from aion_es.errors import QueryFailedError, WorkflowSandboxError
from tests.e2e.conftest import EngineOpener
from tests.e2e.scenario import SOON, kinds

go = Signal("go")
asked = Query("asked", str)

pool = concurrent.futures.ThreadPoolExecutor(1)
"""An executor whose thread is there before any workflow is."""


def starts_a_thread() -> str:
    thread = threading.Thread(target=len, args=("tea",))
    thread.start()
    thread.join()
    return "started"


def submits_to_new_threads() -> str:
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        return str(threads.submit(len, "tea").result())


def submits_to_threads_that_wait() -> str:
    return str(pool.submit(len, "tea").result())


def submits_to_processes() -> str:
    with concurrent.futures.ProcessPoolExecutor(1) as processes:
        return str(processes.submit(len, "tea").result())


def starts_a_process() -> str:
    process = multiprocessing.get_context("spawn").Process(target=len, args=("tea",))
    process.start()
    process.join()
    return "started"


def runs_a_program() -> str:
    return str(subprocess.run([sys.executable, "-c", ""], check=False).returncode)


def runs_a_shell() -> str:
    return str(os.system("true"))


def forks() -> str:
    child = os.fork()
    if not child:
        os._exit(0)
    return str(os.waitpid(child, 0)[1])


def opens_a_socket() -> str:
    with socket.socket() as made:
        return str(made.family)


def looks_up_a_host() -> str:
    return str(socket.getaddrinfo("127.0.0.1", 1)[0][0])


def makes_a_loop() -> str:
    loop = asyncio.new_event_loop()
    loop.close()
    return "made"


def runs_a_loop() -> str:
    asyncio.run(asyncio.sleep(0))
    return "ran"


DOORS: list[tuple[Callable[[], str], str]] = [
    (starts_a_thread, "threading.Thread.start()"),
    (submits_to_new_threads, "an executor of concurrent.futures"),
    (submits_to_threads_that_wait, "an executor of concurrent.futures"),
    (submits_to_processes, "an executor of concurrent.futures"),
    (starts_a_process, "multiprocessing.Process.start()"),
    (runs_a_program, "subprocess.Popen()"),
    (runs_a_shell, "os.system()"),
    (forks, "os.fork()"),
    (opens_a_socket, "socket.socket()"),
    (looks_up_a_host, "socket.getaddrinfo()"),
    (makes_a_loop, "asyncio.new_event_loop()"),
    (runs_a_loop, "asyncio.run()"),
]
each_door = pytest.mark.parametrize(
    ("door", "operation"), DOORS, ids=[door.__name__ for door, _ in DOORS]
)


def by_name(name: str) -> Callable[[], str]:
    return next(door for door, _ in DOORS if door.__name__ == name)


@workflow
async def tries(ctx: Context, name: str) -> str:
    try:
        return by_name(name)()
    except WorkflowSandboxError as error:
        return str(error)


@workflow
async def answers(ctx: Context) -> None:
    ctx.answer(asked, opens_a_socket)
    await ctx.receive(go)


@activity
def does(name: str) -> str:
    return by_name(name)()


@activity
async def does_on_the_loop() -> str:
    return opens_a_socket()


@workflow
async def has_it_done(ctx: Context, name: str) -> str:
    return await ctx.run(does, name)


@workflow
async def has_it_done_on_the_loop(ctx: Context) -> str:
    return await ctx.run(does_on_the_loop)


@workflow
async def records_it(ctx: Context) -> str:
    result = ctx.side_effect(opens_a_socket, str)
    await ctx.receive(go)
    return result


@each_door
async def test_a_way_out_of_workflow_code_is_refused_with_an_activity_as_the_remedy(
    open_engine: EngineOpener, door: Callable[[], str], operation: str
) -> None:
    pool.submit(len, "").result()
    async with open_engine([tries]) as engine:
        handle = await engine.start(tries, door.__name__)
        assert await handle.result(timeout=SOON) == (
            f"{operation} is not available in workflow code, because replay could not repeat it; "
            "do it in an activity"
        )
        assert await kinds(handle) == ["WorkflowStarted", "WorkflowCompleted"]


@pytest.mark.parametrize("door", [starts_a_thread, runs_a_program, opens_a_socket, makes_a_loop])
async def test_an_activity_may_do_what_workflow_code_may_not(
    open_engine: EngineOpener, door: Callable[[], str]
) -> None:
    async with open_engine([has_it_done], [does]) as engine:
        expected = door()  # nor is it refused to who runs the engine
        handle = await engine.start(has_it_done, door.__name__)
        assert await handle.result(timeout=SOON) == expected


async def test_an_activity_on_the_engines_own_loop_may_do_it_too(open_engine: EngineOpener) -> None:
    async with open_engine([has_it_done_on_the_loop], [does_on_the_loop]) as engine:
        handle = await engine.start(has_it_done_on_the_loop)
        assert await handle.result(timeout=SOON) == str(socket.AF_INET)


async def test_a_querys_handler_is_refused_it_and_who_asks_is_told(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([answers]) as engine:
        handle = await engine.start(answers)
        with pytest.raises(QueryFailedError, match=r"WorkflowSandboxError: socket\.socket\(\)"):
            await handle.query(asked)


async def test_a_side_effect_may_do_it_because_its_value_is_recorded(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([records_it]) as engine:
        handle = await engine.start(records_it)
        await handle.signal(go)
        assert await handle.result(timeout=SOON) == str(socket.AF_INET)


class SendsElsewhere(logging.Handler):
    """A log handler that opens its connection when it is first needed, as those of the standard library do."""

    def emit(self, record: logging.LogRecord) -> None:
        self.sent = opens_a_socket(), starts_a_thread(), record.getMessage()


async def test_a_log_handler_may_reach_outside_whoever_logs(open_engine: EngineOpener) -> None:
    handler = SendsElsewhere()

    @workflow
    async def tells(ctx: Context) -> None:
        ctx.logger.warning("there is no tea")

    logger = logging.getLogger("aion_es.workflow.tells")
    logger.addHandler(handler)
    try:
        async with open_engine([tells]) as engine:
            await (await engine.start(tells)).result(timeout=SOON)
    finally:
        logger.removeHandler(handler)
    assert handler.sent == (str(socket.AF_INET), "started", "there is no tea")


async def test_a_module_that_is_imported_first_in_a_step_may_do_what_it_likes(
    open_engine: EngineOpener, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "starts_things.py").write_text(
        "import socket\nwith socket.socket() as made:\n    family = str(made.family)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    @workflow
    async def imports(ctx: Context) -> str:
        import starts_things  # type: ignore[import-not-found]  # it is made by this test

        return str(starts_things.family)

    async with open_engine([imports]) as engine:
        handle = await engine.start(imports)
        assert await handle.result(timeout=SOON) == str(socket.AF_INET)


def test_a_program_that_opens_no_engine_or_asks_for_no_guard_is_left_as_it_is() -> None:
    program = """
        import asyncio, threading
        before = threading.Thread.start, asyncio.run
        import aion_es
        print(before == (threading.Thread.start, asyncio.run))

        async def main():
            for options in (aion_es.EngineOptions(guard_doors=False), None):
                async with aion_es.Engine.open("memory://", options=options):
                    print(before == (threading.Thread.start, asyncio.run))

        asyncio.run(main())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "True", "False"]


async def test_the_doors_are_guarded_once_however_many_engines_open() -> None:
    async with Engine.open("memory://"):
        once = threading.Thread.start
        async with Engine.open("memory://"):
            assert threading.Thread.start is once
