"""A program that is told to end leaves its engine as if its block had ended: it drains, and loses nothing."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from aion_es import Engine
from aion_es.engine.termination import Termination
from tests.e2e.scenario import kinds, until

ROOT = Path(__file__).parents[2]


@contextmanager
def program(folder: Path, handler: str, seconds: float) -> Iterator[subprocess.Popen[str]]:
    """The program, its activity begun."""
    command = [sys.executable, "-m", "tests.e2e.terminated_program"]
    process = subprocess.Popen(
        [*command, f"sqlite:///{folder / 'aion.db'}", handler, str(seconds)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


async def recorded(folder: Path, namespace: str = "aion") -> list[str]:
    async with Engine.open(f"sqlite:///{folder / 'aion.db'}", namespace=namespace) as engine:
        return await kinds(engine.handle("w"))


COMPLETED = [
    "WorkflowStarted",
    "ActivityScheduled",
    "ActivityStarted",
    "ActivityCompleted",
    "WorkflowCompleted",
]


async def test_sigterm_drains_and_ends_with_the_status_that_shells_know(tmp_path: Path) -> None:
    with program(tmp_path, "default", 0.3) as process:
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=30)
    assert (output, errors, process.returncode) == ("leaving\nended\nleft\n", "", 143)
    assert await recorded(tmp_path) == COMPLETED


async def test_sigterm_lets_the_engines_of_all_tasks_drain_before_it_ends_the_program(
    tmp_path: Path,
) -> None:
    with program(tmp_path, "two engines", 0.3) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=30)  # asyncio remarks on what it did not pass on
    assert (output, process.returncode) == ("ended\nended\n", 143)
    assert [await recorded(tmp_path, name) for name in ("aion", "other")] == [COMPLETED] * 2


async def test_sigterm_while_an_engine_opens_ends_the_program_with_the_same_status(
    tmp_path: Path,
) -> None:
    with program(tmp_path, "opening", 0) as process:
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=30)
    assert (output, errors, process.returncode) == ("left\n", "", 143)


async def test_ctrl_c_drains_and_ends_as_programs_do_after_it(tmp_path: Path) -> None:
    with program(tmp_path, "default", 0.3) as process:
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=30)
    assert (output, process.returncode) == ("leaving\nended\nleft\n", -signal.SIGINT)
    assert errors.endswith("KeyboardInterrupt\n")
    assert await recorded(tmp_path) == COMPLETED


def is_anybody_left(group: int) -> bool:
    """Whether any process of the group is there, its first one or those that it began."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


ways_to_begin_processes = pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])


@ways_to_begin_processes
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["sigterm", "ctrl-c"])
async def test_a_signal_to_the_whole_group_lets_processes_of_the_pool_end_their_activities(
    tmp_path: Path, number: signal.Signals, method: str
) -> None:
    """As a terminal sends Ctrl-C, and a service manager SIGTERM: to everybody at once."""
    with program(tmp_path, method, 0.5) as process:
        os.killpg(process.pid, number)
        output, errors = process.communicate(timeout=30)
        await until(lambda: not is_anybody_left(process.pid))
    assert output == "leaving\nended\nleft\n"
    if number == signal.SIGTERM:
        assert (errors, process.returncode) == ("", 143)
    else:
        assert (errors.count("\nKeyboardInterrupt"), process.returncode) == (1, -signal.SIGINT)
        assert errors.endswith("KeyboardInterrupt\n")
    assert await recorded(tmp_path) == COMPLETED


@ways_to_begin_processes
async def test_processes_of_the_pool_end_with_an_engine_that_is_killed(
    tmp_path: Path, method: str
) -> None:
    with program(tmp_path, method, 60) as process:
        process.kill()
        process.wait()
        await until(lambda: not is_anybody_left(process.pid))


async def test_a_second_sigterm_ends_the_program_at_once(tmp_path: Path) -> None:
    with program(tmp_path, "default", 60) as process:
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert process.stdout.readline() == "leaving\n"
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=10)
    assert (output, process.returncode) == ("", -signal.SIGTERM)


async def test_without_the_option_sigterm_is_what_it_always_was(tmp_path: Path) -> None:
    with program(tmp_path, "off", 60) as process:
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=10)
    assert (output, process.returncode) == ("", -signal.SIGTERM)


async def test_a_handler_of_the_programs_own_is_left_alone(tmp_path: Path) -> None:
    with program(tmp_path, "own", 0.3) as process:
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["own handler\n", "ended\n"]
        assert process.poll() is None


async def test_the_signal_is_given_back_when_the_last_engine_has_gone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    one, two = Termination(), Termination()
    one.watch()
    ours = signal.getsignal(signal.SIGTERM)
    two.watch()
    one.close()
    assert ours is not before
    assert signal.getsignal(signal.SIGTERM) is ours
    two.close()
    assert signal.getsignal(signal.SIGTERM) is before


async def test_in_another_thread_no_signal_is_handled() -> None:
    before = signal.getsignal(signal.SIGTERM)
    termination = Termination()
    thread = threading.Thread(target=termination.watch)
    thread.start()
    await asyncio.to_thread(thread.join)
    assert signal.getsignal(signal.SIGTERM) is before
    termination.close()


async def test_every_engine_that_is_open_hears_of_it() -> None:
    cancelled: list[str] = []

    async def watched(name: str) -> None:
        termination = Termination()
        termination.watch()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            assert termination.has_come
            cancelled.append(name)
        finally:
            termination.close()

    async with asyncio.TaskGroup() as group:
        for name in ("a", "b"):
            group.create_task(watched(name))
        await asyncio.sleep(0)
        signal.raise_signal(signal.SIGTERM)
    assert cancelled == ["a", "b"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize("kind", [RuntimeError, asyncio.CancelledError])
async def test_what_ends_the_block_otherwise_goes_on_as_it_is(kind: type[BaseException]) -> None:
    with pytest.raises(kind):
        async with Engine.open("memory://"):
            raise kind
