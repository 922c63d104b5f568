"""Workflows of every shape, what asks for each however often, and what of the histories is a decision."""

import asyncio
import os
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

from aion_es import Context, NonRetryableError, RetryPolicy, Signal, activity, workflow
from aion_es.app import Engine
from aion_es.errors import (
    InvalidStateError,
    RunClosedError,
    WorkflowAlreadyStartedError,
    WorkflowCancelledError,
    WorkflowFailedError,
    WorkflowTimedOutError,
)
from aion_es.events.codec import decode, decode_metadata
from aion_es.events.workflow import (
    ActivityCancelled,
    ActivityCompleted,
    ActivityFailed,
    ActivityScheduled,
    ActivityStarted,
    ChildWorkflowCompleted,
    ChildWorkflowStarted,
    MarkerRecorded,
    SignalDelivered,
    SignalReceived,
    SignalSent,
    TimerCancelled,
    TimerFired,
    TimerStarted,
    WorkflowCompleted,
    WorkflowContinuedAsNew,
    WorkflowEvent,
    WorkflowFailed,
)
from aion_es.ids import DEFAULT_NAMESPACE, WorkflowId, workflow_stream
from aion_es.store.memory import MemoryEventStore
from aion_es.store.port import EventReader, RecordedEvent

SOON = timedelta(seconds=60)
"""Longer than anything takes here; only a failing test waits so long."""
AT_ONCE = RetryPolicy(initial_interval=timedelta(0))

go = Signal("go", int)
executions: Counter[str] = Counter()
"""How often each activity's code was entered in this process, by idempotency key."""


def entered() -> int:
    """Count an execution, here and, where a file for it is named, for other processes to see."""
    key = activity.info().idempotency_key
    executions[key] += 1
    if log := os.environ.get("EXECUTIONS"):
        file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, f"{key}\n".encode())  # whole, or not at all
        os.close(file)
    return executions[key]


class Outside:
    """What is out of order outside, until somebody mends it: the same for this process and its children."""

    def __init__(self) -> None:
        if "OUTSIDE" not in os.environ:
            self._owned = tempfile.TemporaryDirectory()
            os.environ["OUTSIDE"] = self._owned.name

    def _sign(self, name: str) -> Path:
        return Path(os.environ["OUTSIDE"]) / name

    def break_down(self, name: str) -> None:
        self._sign(name).unlink(missing_ok=True)

    def mend(self, name: str) -> None:
        self._sign(name).touch()

    def is_mended(self, name: str) -> bool:
        return self._sign(name).exists()


outside = Outside()


# ------------------------------------------------------------------------------ activities


@activity(retry=AT_ONCE)
async def add_one(number: int) -> int:
    entered()
    await asyncio.sleep(0)
    return number + 1


@activity(retry=AT_ONCE)
async def add_one_in_time(number: int) -> int:
    """End with four others, not with all: what ends together is recorded together."""
    entered()
    await asyncio.sleep(number % 10 * 0.003)
    return number + 1


@activity(retry=AT_ONCE)
async def third_time_lucky(number: int) -> int:
    if entered() < 3:
        raise RuntimeError("not yet")
    return number + 1


@activity(retry=RetryPolicy(initial_interval=timedelta(0), max_attempts=50))
async def bounded(number: int) -> int:
    entered()
    return number + 1


@activity(retry=AT_ONCE)
async def never_ends() -> None:
    entered()
    await asyncio.Event().wait()


@activity(retry=AT_ONCE)
async def refuses() -> None:
    entered()
    raise NonRetryableError("no")


@activity(retry=AT_ONCE)
async def needs_repair(name: str) -> int:
    entered()
    if not outside.is_mended(name):
        raise NonRetryableError("broken")
    return 7


# ------------------------------------------------------------------------------- workflows


@workflow
async def in_a_row(ctx: Context) -> int:
    number = 0
    for step in (add_one, bounded, add_one):
        number = await ctx.run(step, number)
    return number


@workflow
async def retrying(ctx: Context) -> int:
    return await ctx.run(third_time_lucky, await ctx.run(add_one, 0))


@workflow
async def napping(ctx: Context) -> int:
    await asyncio.sleep(0.02)
    number = await ctx.run(add_one, 0)
    async with asyncio.timeout(3_600):
        await ctx.sleep(timedelta(milliseconds=10))
    return number


@workflow
async def racing(ctx: Context) -> list[Any]:
    first = await ctx.race(ctx.run(add_one, 0), asyncio.sleep(3_600, "late"))
    second = await ctx.race(ctx.run(never_ends), asyncio.sleep(0.02, "awake"))
    third = await ctx.race(ctx.receive(go), ctx.run(bounded, 1))
    return [first, second, third]


@workflow
async def fanning_out(ctx: Context) -> list[int]:
    return list(await asyncio.gather(*(ctx.run(add_one_in_time, i) for i in range(50))))


@workflow
async def having_a_child(ctx: Context) -> int:
    child = ctx.spawn(in_a_row, id=f"{ctx.info.workflow_id}/child")
    return await ctx.run(add_one, await child)


@workflow
async def having_a_grandchild(ctx: Context) -> int:
    return await ctx.spawn(having_a_child, id=f"{ctx.info.workflow_id}/child") + 1


@workflow
async def hearing(ctx: Context) -> list[int]:
    return [await ctx.run(add_one, await ctx.receive(go)) for _ in range(2)]


@workflow
async def telling(ctx: Context) -> str:
    ear = f"{ctx.info.workflow_id}/ear"
    await ctx.send(ear, go, await ctx.run(add_one, 0), signal_id="first")
    await ctx.send(ear, go, await ctx.run(add_one, 1), signal_id="second")
    return "told"


@workflow
async def signalled(ctx: Context) -> list[int]:
    taken = [await ctx.receive(go), await ctx.receive(go)]
    return [await ctx.run(add_one, number) for number in taken]


@workflow
async def continuing(ctx: Context, count: int) -> int:
    count = await ctx.run(add_one, count)
    if count == 3:
        return count
    return ctx.continue_as_new(count)


@workflow
async def compensating(ctx: Context) -> None:
    await ctx.run(add_one, 0)
    await ctx.run(bounded, 1)
    try:
        await ctx.run(refuses)
    except Exception:
        await ctx.run(bounded, -2)
        await ctx.run(add_one, -1)
        raise


@workflow
async def pausing(ctx: Context) -> int:
    return await ctx.run(bounded, await ctx.run(add_one, await ctx.receive(go)))


@workflow
async def reopening(ctx: Context) -> int:
    number = await ctx.run(add_one, 0)
    try:
        number += await ctx.run(needs_repair, ctx.info.workflow_id)
    except Exception:
        await ctx.run(bounded, -1)  # void once the run is reopened
        raise
    return await ctx.run(bounded, number)


@workflow
async def cleaning_up(ctx: Context) -> None:
    try:
        await asyncio.sleep(3_600)
    except asyncio.CancelledError:
        await ctx.run(add_one, 0)
        await ctx.run(bounded, 0)
        raise


@workflow
async def expiring(ctx: Context, is_last: bool) -> None:
    if not is_last:
        ctx.continue_as_new(True)
    await ctx.receive(go)


@workflow
async def patched(ctx: Context) -> list[int]:
    numbers = [await ctx.run(add_one, 0)]
    if ctx.patched("twice"):
        numbers.append(await ctx.run(bounded, 1))
    numbers.append(await ctx.run(add_one, 2))
    if ctx.patched("at the end"):
        numbers.append(await ctx.run(bounded, 3))
    return numbers


WORKFLOWS: list[Any] = [
    in_a_row,
    retrying,
    napping,
    racing,
    fanning_out,
    having_a_child,
    having_a_grandchild,
    hearing,
    telling,
    signalled,
    continuing,
    compensating,
    pausing,
    reopening,
    cleaning_up,
    expiring,
    patched,
]
ACTIVITIES: list[Any] = [
    add_one,
    add_one_in_time,
    third_time_lucky,
    bounded,
    never_ends,
    refuses,
    needs_repair,
]


# ------------------------------------------------------------------------------------ asking


async def begin(engine: Engine, code: str, id: str, *inputs: Any, **options: Any) -> None:
    """Start what was never started; what is open goes on, what has closed stays closed."""
    with suppress(WorkflowAlreadyStartedError):
        await engine.start(
            code,
            *inputs,
            id=id,
            request_id=id,
            on_conflict="use_existing",
            reuse="reject",
            **options,
        )


async def outcome(engine: Engine, id: str) -> Any:
    """Return the result, or what the run ended with instead."""
    try:
        return await engine.handle(id).result(timeout=SOON)
    except WorkflowFailedError as error:
        return f"failed: {error.type}"
    except WorkflowCancelledError as error:
        return f"cancelled: {error.reason}"
    except WorkflowTimedOutError as error:
        return f"timed out: {error.timeout}"


async def has(engine: Engine, id: str, kind: str) -> bool:
    stream = engine.repository.stream(id)
    return any([event.type == kind async for event in engine.store.read(stream)])


async def begin_chain(engine: Engine, code: str, id: str) -> None:
    await begin(engine, code, id, 0)


async def begin_two(engine: Engine, code: str, id: str) -> None:
    await begin(engine, "hearing", f"{id}/ear")
    await begin(engine, code, id)


async def begin_and_signal(engine: Engine, code: str, id: str) -> None:
    await begin(engine, code, id)
    with suppress(RunClosedError):  # it has them both
        for value in (1, 2):
            await engine.handle(id).signal(go, value, signal_id=f"signal-{value}")


async def begin_and_cancel(engine: Engine, code: str, id: str) -> None:
    await begin(engine, code, id)
    with suppress(RunClosedError):  # it has ended already
        await engine.handle(id).cancel("enough")


async def begin_and_pause(engine: Engine, code: str, id: str) -> None:
    await begin(engine, code, id)
    handle = engine.handle(id)
    with suppress(RunClosedError, InvalidStateError):  # somebody else did, and is further than this
        if not await has(engine, id, "WorkflowPaused"):
            await handle.pause("wait")
        await handle.signal(go, 1, signal_id="while paused")
        if not await has(engine, id, "WorkflowResumed"):
            await handle.resume("go on")


async def begin_and_reopen(engine: Engine, code: str, id: str) -> None:
    await begin(engine, code, id)
    if not await has(engine, id, "WorkflowReopened"):
        assert await outcome(engine, id) in {"failed: ActivityError", 9}
        outside.mend(id)
        with suppress(InvalidStateError):  # somebody else did
            await engine.handle(id).reopen()


async def begin_to_expire(engine: Engine, code: str, id: str) -> None:
    # The deadline may have passed before any run waits for it: neither history nor result tells.
    await begin(engine, code, id, False, execution_timeout=timedelta(milliseconds=40))


Decisions: TypeAlias = dict[str, tuple[list[str], list[str]]]
"""By stream: what was commanded, and what was told."""


@dataclass(frozen=True)
class Shape:
    """A workflow, and what asks for it: asked again after a crash it asks for the same again.

    Attributes:
        code: Of the workflow type.
        result: What it ends with.
        ask: Does all that is asked of the engine.
        needs: What asking has recorded, by type of event and over all streams: with that in the store it
            comes to its end without being asked.
        is_fuzzy: Asked twice at once it may be asked for twice: an operator's command has no identity.
    """

    code: str
    result: object
    ask: Callable[[Engine, str, str], Awaitable[None]] = begin
    needs: Mapping[str, int] = field(default_factory=dict[str, int])
    is_fuzzy: bool = False

    async def drive(self, engine: Engine, code: str, id: str) -> Any:
        """Ask for everything, and return what came of it, once every workflow that belongs to it has ended."""
        await self.ask(engine, code, id)
        return await self.outcome(engine, id)

    async def outcome(self, engine: Engine, id: str) -> Any:
        """Return what came of it, once every workflow that belongs to it has ended."""
        result = await outcome(engine, id)
        if self.code == "telling":
            return [result, await outcome(engine, f"{id}/ear")]
        return result

    async def accompany(self, engine: Engine, id: str) -> Any:
        """Do what a second one, elsewhere, can do at the same time without changing what happens."""
        if not self.is_fuzzy:
            return await self.drive(engine, self.code, id)
        await begin(engine, self.code, id)
        return await self.outcome(engine, id)

    def is_asked(self, events: Iterable[RecordedEvent]) -> bool:
        """Return whether nobody needs to ask any more."""
        recorded = Counter(event.type for event in events)
        return all(recorded[kind] >= count for kind, count in self.needs.items())


SHAPES = (
    Shape("in_a_row", 3),
    Shape("retrying", 2),
    Shape("napping", 1),
    Shape("racing", [1, "awake", 2]),
    Shape("fanning_out", list(range(1, 51))),
    Shape("having_a_child", 4),
    Shape("having_a_grandchild", 5),
    Shape("telling", ["told", [2, 3]], begin_two, {"WorkflowStarted": 2}),
    Shape("signalled", [2, 3], begin_and_signal, {"SignalReceived": 2}),
    Shape("continuing", 3, begin_chain),
    Shape("compensating", "failed: ActivityError"),
    Shape("pausing", 3, begin_and_pause, {"WorkflowResumed": 1}, is_fuzzy=True),
    Shape("reopening", 9, begin_and_reopen, {"WorkflowReopened": 1}),
    Shape("cleaning_up", "cancelled: enough", begin_and_cancel, {"WorkflowCancelRequested": 1}),
    Shape("expiring", "timed out: execution", begin_to_expire),
    Shape("patched", [1, 2, 3, 4]),
)
"""The fifteen of the crash matrix, and `signalled`: signals from outside beside those between workflows."""


# --------------------------------------------------------------------------------- histories


async def events_of(store: EventReader, id: str) -> list[RecordedEvent]:
    """Return what is recorded of a workflow and of all that belong to it, in the order of the store."""
    root = workflow_stream(DEFAULT_NAMESPACE, WorkflowId(id))
    events = [event async for event in store.read_all(prefix=root)]
    return [event for event in events if f"{event.stream}/".startswith(f"{root}/")]


async def undisturbed(shape: Shape, id: str) -> Decisions:
    """Return the decisions of a run of its own, in which nothing goes wrong."""
    return decisions(await undisturbed_events(shape, id))


async def undisturbed_events(shape: Shape, id: str) -> list[RecordedEvent]:
    """Return what is recorded in a run of its own, in which nothing goes wrong."""
    outside.break_down(id)
    store = MemoryEventStore()
    async with Engine.open(store, workflows=WORKFLOWS, activities=ACTIVITIES) as engine:
        assert await shape.drive(engine, shape.code, id) == shape.result
    outside.break_down(id)
    return await events_of(store, id)


def decisions(events: Iterable[RecordedEvent]) -> Decisions:
    """Return, by stream, what the code commanded, in order, and what it was told, sorted.

    Which of two that end at the same moment comes first is nobody's decision. Attempts and their failures
    are left out, and the end of an activity that nobody waits for.
    """
    found: Decisions = {}
    for recorded in events:
        commands, facts = found.setdefault(recorded.stream, ([], []))
        event = decode(recorded)
        match event:
            case ActivityStarted() | ActivityCancelled():
                pass
            case ActivityFailed() if event.retry_at is not None:
                pass
            case ActivityFailed():
                facts.append(f"failed {event.activity_id} {event.error.type}")
            case ActivityCompleted():
                facts.append(f"completed {event.activity_id} {event.result.data}")
            case TimerFired():
                facts.append(f"fired {event.timer_id}")
            case SignalReceived():
                facts.append(f"signal {event.signal_id}")
            case SignalDelivered():
                facts.append(f"delivered {event.signal_id}")
            case ChildWorkflowCompleted():
                facts.append(f"child {event.child_workflow_id} {event.result.data}")
            case _:
                commands.append(_named(event))  # type: ignore[arg-type]  # only workflows' streams are read
    return {stream: (commands, sorted(facts)) for stream, (commands, facts) in found.items()}


def _named(event: WorkflowEvent) -> str:
    match event:
        case ActivityScheduled():
            detail: object = f"{event.activity_id} {event.activity_type} {event.input.data}"
        case TimerStarted() | TimerCancelled():
            detail = event.timer_id
        case WorkflowCompleted():
            detail = event.result.data
        case WorkflowContinuedAsNew():
            detail = event.input.data
        case WorkflowFailed():
            detail = event.error.type
        case ChildWorkflowStarted():
            detail = f"{event.child_workflow_id} {event.workflow_type} {event.input.data}"
        case SignalSent():
            detail = f"{event.signal_id} {event.target_workflow_id} {event.payload.data}"
        case MarkerRecorded():
            detail = f"{event.kind} {event.name}"
        case _:
            detail = ""
    return f"{type(event).__name__} {detail}".strip()


def completed_keys(events: Iterable[RecordedEvent]) -> list[str]:
    """Return the idempotency keys of the activities whose completion is recorded, in order."""
    return [
        f"{decode_metadata(recorded).run_id}/{event.activity_id}"
        for recorded in events
        if isinstance(event := decode(recorded), ActivityCompleted)
    ]
