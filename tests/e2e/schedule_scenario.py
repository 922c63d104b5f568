"""What the tests of schedules share: a workflow that waits for its signal, and looking into a schedule's stream."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from aion_es import Context, Signal, workflow
from aion_es.app import Engine
from aion_es.events import schedule as ev
from aion_es.events.codec import decode
from aion_es.ids import DEFAULT_NAMESPACE, ScheduleId, WorkflowId, schedule_stream
from aion_es.schedules import CatchUp, Interval, Overlap, Schedule, Spec, Start
from aion_es.schedules.naming import action_id
from aion_es.store.port import EventReader
from aion_es.testing.clock import ManualClock
from tests.e2e.scenario import until

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
NIGHTLY = "nightly"
done = Signal("done")


@workflow
async def waits(ctx: Context) -> str:
    await ctx.receive(done)
    return "done"


@workflow
async def echoes(ctx: Context, word: str) -> str:
    return word


@workflow
async def insists(ctx: Context) -> str:
    """Does not end when it is asked to, only when it is told."""
    import asyncio

    while True:
        try:
            await ctx.receive(done)
        except asyncio.CancelledError:
            continue
        return "done"


WORKFLOWS = (waits, echoes, insists)


def every_minute(
    overlap: Overlap = Overlap.SKIP,
    catch_up: CatchUp = CatchUp.ONE,
    *,
    id: str = NIGHTLY,
    action: Start | None = None,
    spec: Spec | None = None,
) -> Schedule:
    return Schedule(
        id=id,
        spec=Interval(MINUTE) if spec is None else spec,
        action=Start(waits) if action is None else action,
        overlap=overlap,
        catch_up=catch_up,
    )


async def recorded(store: EventReader, schedule_id: str = NIGHTLY) -> list[ev.ScheduleEvent]:
    """Return a schedule's events, in order."""
    stream = schedule_stream(DEFAULT_NAMESPACE, ScheduleId(schedule_id))
    return [decode(event) async for event in store.read(stream)]  # type: ignore[misc]  # only such events are in this stream


def story(events: Sequence[ev.ScheduleEvent], begin: datetime) -> list[str]:
    """Return the events in short: what was done, and for which minute since `begin`."""
    short = []
    for event in events:
        name = type(event).__name__.removeprefix("Schedule").lower()
        due = getattr(event, "scheduled_for", None)
        if due is not None:
            name += f" {(due - begin) / MINUTE:g}"
        if isinstance(event, ev.ScheduleSkipped):
            name += f" ({event.reason})"
        short.append(name)
    return short


def name(minute: int, schedule_id: str = NIGHTLY) -> WorkflowId:
    """Return the workflow id of the action of a minute since `BEGIN`."""
    return action_id(ScheduleId(schedule_id), BEGIN + minute * MINUTE)


async def told(store: EventReader) -> list[str]:
    """Return the story of the nightly schedule since `BEGIN`."""
    return story(await recorded(store), BEGIN)


async def is_told(store: EventReader, *expected: str) -> bool:
    return await told(store) == list(expected)


async def is_long(store: EventReader, events: int) -> bool:
    """Return whether the nightly schedule has recorded so many events, or more."""
    return len(await recorded(store)) >= events


async def has(engine: Engine, workflow_id: str) -> bool:
    """Return whether there is such a workflow."""
    return await engine.store.head(engine.repository.stream(workflow_id)) >= 0


async def begun(engine: Engine, *minutes: int) -> None:
    """Return when the actions of these minutes since `BEGIN` are there."""
    for minute in minutes:
        await until(lambda minute=minute: has(engine, name(minute)))


async def minute_by_minute(
    engine: Engine, clock: ManualClock, minutes: int, *, events: int = 1
) -> None:
    """Let minutes pass, one at a time, until the nightly schedule has recorded so many events more for each."""
    for _ in range(minutes):
        wanted = len(await recorded(engine.store)) + events
        clock.advance(MINUTE)
        await until(lambda wanted=wanted: is_long(engine.store, wanted))


async def finish(engine: Engine, due: datetime, schedule_id: str = NIGHTLY) -> None:
    """Let the action of a due time end, and return when it has."""
    handle = engine.handle(action_id(ScheduleId(schedule_id), due), waits)
    await handle.signal(done)
    await handle.result()
