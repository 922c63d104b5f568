"""The runner: rows and checkpoint together, whoever dies, fails or runs beside it."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import ClassVar

import pytest
from sqlalchemy import Connection

from aion_es.errors import (
    ProjectionLagError,
    SubscriptionDroppedError,
    UnsupportedStoreVersionError,
)
from aion_es.events import workflow as ev
from aion_es.ids import StreamName
from aion_es.projections import ProjectionRunner, ReadModel
from aion_es.store.memory import MemoryEventStore
from aion_es.store.memory_subscriptions import MemorySubscription
from aion_es.store.port import ANY, START, Position, RecordedEvent
from tests.unit.projections.histories import new_event, started
from tests.unit.projections.logs import (
    OTHER,
    PATIENCE,
    STREAM,
    Breaking,
    Log,
    append,
    append_around_poison,
    caught_up,
    handled,
    places,
    runner_of,
    running,
    standing_still,
    stored_places,
)


class Dropping(MemoryEventStore):
    """Refuses the first subscription, as a store does that drops it."""

    refused = 0

    def subscribe_all(
        self, *, from_position: Position = START, prefix: str = ""
    ) -> MemorySubscription:
        if not self.refused:
            self.refused += 1
            raise SubscriptionDroppedError("try again")
        return super().subscribe_all(from_position=from_position, prefix=prefix)


@pytest.fixture
def open_subscriptions(store: MemoryEventStore) -> Callable[[], int]:
    """How many subscriptions of the store are open."""
    return lambda: len(store._subscriptions)


async def test_every_event_is_handled_once_in_the_stores_order(
    store: MemoryEventStore, model: ReadModel
) -> None:
    await append(store, 7)
    runner = runner_of(store, model, Log(), max_batch=3)
    async with running(runner):
        await runner.wait_until_caught_up()
        last = await append(store, 4)
        await handled(runner, last, "log")
    assert await places(model) == await stored_places(store)


async def test_a_new_runner_goes_on_from_the_checkpoint(
    store: MemoryEventStore, model: ReadModel
) -> None:
    for _ in range(3):
        await append(store, 5)
        await caught_up(runner_of(store, model, Log(), max_batch=2))
    assert await places(model) == await stored_places(store)


async def test_two_runners_on_one_read_model_count_no_event_twice(
    store: MemoryEventStore, two_models: tuple[ReadModel, ReadModel]
) -> None:
    await append(store, 60)
    one, other = two_models
    runners = [runner_of(store, model, Log(), max_batch=2) for model in (one, other)]
    for runner in runners:
        await runner.prepare()
    async with running(*runners):
        for runner in runners:
            await runner.wait_until_caught_up()
        last = await append(store, 10)
        for runner in runners:
            await handled(runner, last, "log")
    assert await places(one) == await stored_places(store)


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (SystemExit("enough"), "SystemExit: enough"),
        (StopIteration("no more"), "RuntimeError: apply raised StopIteration('no more')"),
    ],
    ids=["sys.exit", "StopIteration"],
)
async def test_what_would_end_a_task_or_a_generator_stops_a_projection_like_any_error(
    store: MemoryEventStore, model: ReadModel, raised: BaseException, told: str
) -> None:
    class Raising(Breaking):
        def apply(self, connection: Connection, batch: Sequence[RecordedEvent]) -> None:
            if self.broken and batch:
                raise raised
            super().apply(connection, batch)

    raising = Raising()
    last = await append(store, 3)
    runner = runner_of(store, model, Log(), raising)
    async with running(runner), asyncio.timeout(PATIENCE.total_seconds()):
        await handled(runner, last, "log")
        status = await standing_still(runner)
        assert (status.error, status.failed_position) == (told, Position(0, 0))
        raising.broken = False
        await handled(runner, last, "breaking")
    assert await places(model, OTHER) == await places(model) == await stored_places(store)


async def test_a_handler_that_raises_stops_only_its_own_projection_and_says_where(
    store: MemoryEventStore, model: ReadModel
) -> None:
    _, last = await append_around_poison(store, 2)
    breaking = Breaking()
    runner = runner_of(store, model, Log(), breaking)
    async with running(runner):
        await handled(runner, last, "log")
        await standing_still(runner)
        with pytest.raises(ProjectionLagError) as refused:
            await runner.wait_until(
                last.position, projection="breaking", timeout=timedelta(milliseconds=50)
            )
        log, failed = await runner.status()
        assert (log.error, log.position) == (None, last.position)
        assert (failed.error, failed.failed_event) == (
            "LookupError: no such thing",
            f"ActivityScheduled {STREAM}@2",
        )
        assert failed.failed_position is not None
        assert failed.position < failed.failed_position
        assert isinstance(refused.value.__cause__, LookupError)
        breaking.broken = False
        await handled(runner, last, "breaking")
        assert (await runner.status())[1].error is None
    assert await places(model, OTHER) == await stored_places(store)


async def test_a_projection_that_was_mended_shares_a_subscription_again(
    store: MemoryEventStore, model: ReadModel, open_subscriptions: Callable[[], int]
) -> None:
    _, last = await append_around_poison(store, 2)
    breaking = Breaking()
    runner = runner_of(store, model, Log(), breaking)
    async with running(runner):
        await handled(runner, last, "log")
        breaking.broken = False
        await handled(runner, last, "breaking")
        last = await append(store, 1)
        await handled(runner, last, "log", "breaking")
        assert open_subscriptions() == 1
        last = await append(store, 3)
        await handled(runner, last, "log", "breaking")
    assert await places(model) == await stored_places(store)
    assert await places(model, OTHER) == await stored_places(store)


async def test_a_dropped_subscription_is_opened_again_after_the_last_handled_event(
    model: ReadModel,
) -> None:
    store = Dropping()
    last = await append(store, 3)
    runner = runner_of(store, model, Log())
    async with running(runner):
        await handled(runner, last, "log")
    assert await places(model) == await stored_places(store)
    assert store.refused == 1
    await store.aclose()


async def test_only_wanted_event_types_reach_the_handler(
    store: MemoryEventStore, model: ReadModel
) -> None:
    class Choosy(Log):
        wants: ClassVar[frozenset[str] | None] = frozenset({"WorkflowCompleted"})

    await append(store, 2)
    last = await store.append(STREAM, [new_event(ev.WorkflowCompleted())], ANY)
    runner = runner_of(store, model, Choosy())
    async with running(runner):
        await handled(runner, last, "log")
    assert await places(model) == [last.position.commit]


async def test_a_raised_version_folds_everything_anew(
    store: MemoryEventStore, model: ReadModel
) -> None:
    class Newer(Log):
        version: ClassVar[int] = 2

    await append(store, 3)
    for projection in (Log(), Newer()):
        await caught_up(runner_of(store, model, projection))
    assert await places(model) == await stored_places(store)
    with pytest.raises(UnsupportedStoreVersionError):
        await runner_of(store, model, Log()).prepare()


async def test_of_several_prefixes_exactly_their_streams_come(
    store: MemoryEventStore, model: ReadModel
) -> None:
    runner = ProjectionRunner(store, model, [Log()], prefix=("aion_a-", "aion_b-"))
    wanted = []
    for name in ("aion_a-1", "aion_c-1", "aion_b-1", "other_a-1", "aion_a-2"):
        done = await store.append(StreamName(name), [new_event(started())], ANY)
        if name[:7] in {"aion_a-", "aion_b-"}:
            wanted.append(done.position.commit)
    await caught_up(runner)
    assert await places(model) == wanted


async def test_to_wait_for_an_event_of_somebody_elses_is_not_to_wait_for_ever(
    store: MemoryEventStore, model: ReadModel
) -> None:
    await append(store, 1)
    runner = runner_of(store, model, Log())
    async with running(runner):
        await runner.wait_until_caught_up()
        foreign = await store.append(StreamName("other-1"), [new_event(started())], ANY)
        await runner.wait_until(foreign.position, projection="log", timeout=PATIENCE)
        to_come = Position(foreign.position.commit + 1, foreign.position.prepare + 1)
        with pytest.raises(ProjectionLagError):
            await runner.wait_until(to_come, projection="log", timeout=timedelta(seconds=1))


async def test_a_position_that_is_not_reached_in_time_is_a_lag_error(
    store: MemoryEventStore, model: ReadModel
) -> None:
    last = await append(store, 1)
    runner = runner_of(store, model, Log())
    with pytest.raises(ProjectionLagError) as refused:
        await runner.wait_until(last.position, projection="log", timeout=timedelta(0))
    assert (refused.value.position, refused.value.reached) == (str(last.position), str(START))
