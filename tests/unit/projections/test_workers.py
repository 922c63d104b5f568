"""Who is alive, and who was: every engine on a read model gets to see each of the others go."""

import subprocess
import sys
from datetime import timedelta

import pytest

from aion_es.projections import ReadModel
from aion_es.projections.workers import Others, Workers
from aion_es.testing.clock import ManualClock

NOBODY = Others(frozenset(), frozenset())


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def workers(model: ReadModel, clock: ManualClock) -> Workers:
    return Workers(model, clock)


def alive(*names: str) -> Others:
    return Others(frozenset(names), frozenset())


def gone(*names: str) -> Others:
    return Others(frozenset(), frozenset(names))


async def test_who_is_alone_sees_nobody_itself_not_counted(workers: Workers) -> None:
    assert [await workers.announce("a") for _ in range(2)] == [NOBODY, NOBODY]


async def test_who_announced_itself_lately_is_alive(workers: Workers, clock: ManualClock) -> None:
    await workers.announce("b")
    clock.advance(timedelta(seconds=10))
    assert await workers.announce("a") == alive("b")


async def test_who_was_silent_for_longer_than_ten_seconds_is_gone(
    workers: Workers, clock: ManualClock
) -> None:
    await workers.announce("b")
    clock.advance(timedelta(seconds=10, microseconds=1))
    assert await workers.announce("a") == gone("b")


async def test_who_leaves_is_gone_at_once_also_for_one_that_never_saw_it(workers: Workers) -> None:
    await workers.announce("a")
    await workers.announce("b")
    await workers.leave("b")
    assert await workers.announce("a") == gone("b")


@pytest.fixture(scope="module")
def ended() -> str:
    """The name of a process that has ended."""
    code = "from aion_es.projections import processes; print(processes.this_process())"
    name = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not name:
        pytest.skip("this system does not say which processes have ended")
    return name


async def test_whose_process_has_ended_is_gone_at_once(
    workers: Workers,
    model: ReadModel,
    clock: ManualClock,
    ended: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("aion_es.projections.workers.this_process", lambda: ended)
        other = Workers(model, clock)
    await other.announce("b")
    assert await workers.announce("a") == gone("b")


async def test_each_of_those_left_sees_one_go(workers: Workers, clock: ManualClock) -> None:
    for name in ("a", "b", "c"):
        await workers.announce(name)
    await workers.leave("c")
    clock.advance(timedelta(seconds=2))
    assert await workers.announce("a") == Others(frozenset({"b"}), frozenset({"c"}))
    assert await workers.announce("b") == Others(frozenset({"a"}), frozenset({"c"}))


async def test_who_is_gone_for_a_minute_is_forgotten_once_somebody_has_seen_it(
    workers: Workers, clock: ManualClock
) -> None:
    await workers.announce("b")
    clock.advance(timedelta(minutes=1, microseconds=1))
    assert [await workers.announce("a") for _ in range(2)] == [gone("b"), NOBODY]


async def test_who_was_gone_and_announces_itself_is_alive_again(workers: Workers) -> None:
    await workers.announce("b")
    await workers.leave("b")
    await workers.announce("b")
    assert await workers.announce("a") == alive("b")


async def test_what_the_living_have_loaded_is_known_and_what_changes(
    workers: Workers, clock: ManualClock
) -> None:
    await workers.announce("b", [("order", "1"), ("order", "2")])
    await workers.announce("c", [("order", "2"), ("cart", "1")])
    assert (await workers.announce("a", [("own", "1")])).code == {
        ("cart", "1"),
        ("order", "1"),
        ("order", "2"),
    }
    await workers.announce("b", [("order", "3")])
    await workers.leave("c")
    assert (await workers.announce("a", [("own", "1")])).code == {("order", "3")}
    clock.advance(timedelta(minutes=2))
    assert (await workers.announce("a", [("own", "1")])).code == frozenset()
    assert (await workers.announce("b")).code == {("own", "1")}
