"""Traces: from a start through activations, activities and children, over restarts, as one; and what is on the spans."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from aion_es import (
    Client,
    Context,
    Engine,
    EngineOptions,
    NonRetryableError,
    RetryPolicy,
    Signal,
    WorkflowHandle,
    activity,
    workflow,
)
from aion_es.errors import WorkflowAlreadyStartedError, WorkflowFailedError
from aion_es.events.workflow import ActivityScheduled
from aion_es.schedules import Interval, Schedule, Start
from aion_es.store.memory import MemoryEventStore
from aion_es.telemetry import PAYLOAD_CHARACTERS
from aion_es.testing.clock import ManualClock
from aion_es.testing.faults import FaultyStore
from tests.e2e.scenario import SOON, is_recorded, until
from tests.unit.recorded_spans import RecordedSpans, spans

__all__ = ["spans"]

go = Signal("go", str)
EAGER = EngineOptions(max_resident=1)


# ------------------------------------------------------------------------------------ the code


@activity
async def step(name: str) -> str:
    return name.upper()


@activity
async def flaky(name: str) -> str:
    if activity.info().attempt == 1:
        raise ConnectionError("try again")
    return name


@activity
async def refused(name: str) -> str:
    raise NonRetryableError(f"no {name}")


@activity
async def with_span_of_its_own(name: str) -> str:
    with trace.get_tracer("shop").start_as_current_span("in the activity"):
        return name


@activity
def with_span_in_a_thread(name: str) -> str:
    assert threading.current_thread() is not threading.main_thread()
    with trace.get_tracer("shop").start_as_current_span("in the activity"):
        return name


@activity(executor="process")
def context_in_a_process(name: str) -> str:
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x} {context.span_id:016x}"


@workflow
async def one_step(ctx: Context, name: str) -> str:
    return await ctx.run(step, name)


@workflow
async def flaky_step(ctx: Context, name: str) -> str:
    return await ctx.run(flaky, name, retry=RetryPolicy(initial_interval=timedelta(milliseconds=1)))


@workflow
async def refused_step(ctx: Context, name: str) -> str:
    return await ctx.run(refused, name)


@workflow
async def user_span(ctx: Context, how: str) -> str:
    code: Any = {
        "async": with_span_of_its_own,
        "thread": with_span_in_a_thread,
        "process": context_in_a_process,
    }[how]
    value: str = await ctx.run(code, how)
    return value


@workflow
async def waiter(ctx: Context) -> str:
    return await ctx.receive(go)


@workflow
async def twice(ctx: Context) -> list[str]:
    return [await ctx.receive(go), await ctx.receive(go)]


@workflow
async def grandchild(ctx: Context) -> str:
    return await ctx.run(step, await ctx.receive(go))


@workflow
async def child(ctx: Context) -> str:
    await ctx.run(step, "child")
    return await ctx.spawn(grandchild, id="grandchild")


@workflow
async def parent(ctx: Context) -> str:
    await ctx.run(step, "parent")
    return await ctx.spawn(child, id="child")


@workflow
async def sender(ctx: Context) -> None:
    await ctx.send("w", go, "from another")


@workflow
async def counting(ctx: Context, left: int) -> int:
    if left:
        ctx.continue_as_new(left - 1)
    return left


@workflow
async def marks(ctx: Context) -> str:
    """Makes spans of its own, in two tasks and three activations."""

    async def beside() -> None:
        await ctx.receive(go)
        with trace.get_tracer("shop").start_as_current_span("beside"):
            pass

    with trace.get_tracer("shop").start_as_current_span("before"):
        pass
    async with asyncio.TaskGroup() as group:
        group.create_task(beside())
    return await ctx.receive(go)


CODE: list[Any] = [
    one_step, flaky_step, refused_step, user_span, waiter, grandchild, child, parent, sender, counting,
    marks,
]  # fmt: skip
ACTIVITIES: list[Any] = [
    step,
    flaky,
    refused,
    with_span_of_its_own,
    with_span_in_a_thread,
    context_in_a_process,
]


# --------------------------------------------------------------------------------- looking at it

Tree = tuple[Any, ...]
"""A span's name, and the trees of its children, in the order in which they began."""


def ours(spans: RecordedSpans) -> list[ReadableSpan]:
    """Return the spans that are neither of stores nor of projections, in the order in which they began."""
    hidden = ("aion.store.", "aion.projection ")
    found = [span for span in spans.all if not span.name.startswith(hidden)]
    return sorted(found, key=lambda span: span.start_time or 0)


def trees(spans: RecordedSpans) -> list[Tree]:
    """Return each trace as the tree of its spans' names."""
    found = ours(spans)
    known = {span.context.span_id for span in found}

    def tree(span: ReadableSpan) -> Tree:
        below = [s for s in found if s.parent and s.parent.span_id == span.context.span_id]
        return (span.name, *[tree(s) for s in below])

    return [tree(s) for s in found if s.parent is None or s.parent.span_id not in known]


def named(spans: RecordedSpans, name: str) -> list[ReadableSpan]:
    return [span for span in ours(spans) if span.name == name]


def facts(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def context_of(span: ReadableSpan) -> str:
    context = span.context
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def links_of(span: ReadableSpan) -> list[int]:
    return [link.context.span_id for link in span.links]


async def contexts(handle: WorkflowHandle[Any]) -> list[tuple[str, str | None]]:
    return [(type(e.event).__name__, e.metadata.traceparent) for e in await handle.history()]


@asynccontextmanager
async def engine_on(directory: Path, options: EngineOptions | None = None) -> AsyncIterator[Engine]:
    url = f"sqlite:///{directory}/aion.db"
    opened = Engine.open(url, workflows=CODE, activities=ACTIVITIES, options=options)
    async with opened as engine:
        await engine.wait_recovered()
        yield engine


# ------------------------------------------------------------------------------------ one trace

WHOLE: Tree = (
    "aion.start parent",
    ("aion.activation parent", ("aion.activity step",)),
    (
        "aion.activation parent",
        ("aion.activation child", ("aion.activity step",)),
        (
            "aion.activation child",
            ("aion.activation grandchild",),
            ("aion.activation grandchild", ("aion.activity step",)),
            ("aion.activation grandchild",),
        ),
        ("aion.activation child",),
    ),
    ("aion.activation parent",),
)
SIGNAL: Tree = ("aion.signal go",)


@pytest.mark.parametrize("options", [EngineOptions(), EAGER], ids=["resident", "evicting"])
async def test_a_start_its_activities_children_and_theirs_are_one_trace_over_a_restart(
    spans: RecordedSpans, tmp_path: Path, options: EngineOptions
) -> None:
    async with engine_on(tmp_path, options) as engine:
        await engine.start(parent, id="parent")
        await until(lambda: is_there(engine, "grandchild"))
        await until(lambda: is_recorded(engine.handle("child"), "ChildWorkflowStarted"))
    async with engine_on(tmp_path, options) as engine:
        await engine.handle("grandchild").signal(go, "late")
        assert await engine.handle("parent").result(timeout=SOON) == "LATE"
    assert trees(spans) == [WHOLE, SIGNAL]


async def is_there(engine: Engine, workflow_id: str) -> bool:
    return (await engine.repository.load(workflow_id)).exists


async def test_a_run_that_was_evicted_goes_on_in_its_trace(
    spans: RecordedSpans, tmp_path: Path
) -> None:
    async with engine_on(tmp_path, EAGER) as engine:
        handles = [await engine.start(grandchild, id=f"w{n}") for n in range(3)]
        assert sum(run.residency == "resident" for run in engine.registry) == 1
        for handle in handles:
            await handle.signal(go, "x")
            await handle.result(timeout=SOON)
    run: Tree = (
        "aion.start grandchild",
        ("aion.activation grandchild",),
        ("aion.activation grandchild", ("aion.activity step",)),
        ("aion.activation grandchild",),
    )
    assert trees(spans) == [run, run, run, SIGNAL, SIGNAL, SIGNAL]


async def test_an_attempt_that_recovery_takes_up_follows_from_what_scheduled_it(
    spans: RecordedSpans, tmp_path: Path
) -> None:
    served = EngineOptions(serves=frozenset({"other"}))
    async with engine_on(tmp_path, served) as engine:
        handle = await engine.start(one_step, "x", id="w")  # recorded, and left to others
    async with engine_on(tmp_path) as engine:
        await engine.handle("w").result(timeout=SOON)
        scheduled = [
            e.metadata.traceparent
            for e in await engine.handle("w").history()
            if isinstance(e.event, ActivityScheduled)
        ]
    first, _ = named(spans, "aion.activation one_step")
    assert scheduled == [context_of(first)]
    assert trees(spans) == [
        (
            "aion.start one_step",
            ("aion.activation one_step", ("aion.activity step",)),
            ("aion.activation one_step",),
        )
    ]
    assert handle.workflow_id == "w"


@pytest.mark.parametrize(
    "policy",
    [
        pytest.param(RetryPolicy(), id="recorded when it ends"),
        pytest.param(
            RetryPolicy(initial_interval=timedelta(milliseconds=1), max_attempts=5),
            id="recorded when it begins",
        ),
    ],
)
async def test_an_attempt_that_an_engine_left_behind_is_made_again_in_the_same_trace(
    spans: RecordedSpans, tmp_path: Path, policy: RetryPolicy
) -> None:
    begun = asyncio.Event()

    @activity(name="slow")
    async def first_slow(name: str) -> str:
        begun.set()
        await asyncio.get_running_loop().create_future()
        return name

    @activity(name="slow")
    async def then_fast(name: str) -> str:
        return name

    @workflow
    async def patient(ctx: Context) -> str:
        return await ctx.run(first_slow, "x", retry=policy)

    url = f"sqlite:///{tmp_path}/aion.db"
    at_once = EngineOptions(shutdown_grace=timedelta(0))
    async with Engine.open(
        url, workflows=[patient], activities=[first_slow], options=at_once
    ) as engine:
        await engine.start(patient, id="w")
        await begun.wait()
    async with Engine.open(url, workflows=[patient], activities=[then_fast]) as engine:
        assert await engine.handle("w").result(timeout=SOON) == "x"
    (tree,) = trees(spans)
    attempt = ("aion.activity slow",)
    assert tree[:2] == ("aion.start patient", ("aion.activation patient", attempt, attempt))
    assert {branch[0] for branch in tree[2:]} == {"aion.activation patient"}


@pytest.mark.parametrize("appends", [1, 2])
async def test_an_errand_that_a_crash_cut_off_is_run_in_the_same_trace(
    spans: RecordedSpans, tmp_path: Path, appends: int
) -> None:
    store, read_model = FaultyStore(MemoryEventStore()), f"sqlite:///{tmp_path}/rows.db"

    @workflow
    async def errands(ctx: Context) -> None:
        await ctx.receive(go)
        _ = ctx.send("w", go, "from another")
        _ = ctx.spawn(one_step, "x", id="child", parent_close="abandon")
        await ctx.receive(go)

    code = [errands, waiter, one_step]
    async with Engine.open(
        store, workflows=code, activities=[step], read_model=read_model
    ) as engine:
        await engine.start(waiter, id="w")
        handle = await engine.start(errands, id="errands")
        store.crash_after(appends)  # what asks for both; then also one of them
        await handle.signal(go, "begin")
        await store.crashed.wait()
    store.heal()
    async with Engine.open(
        store, workflows=code, activities=[step], read_model=read_model
    ) as engine:
        await engine.handle("w").result(timeout=SOON)
        await until(lambda: is_there(engine, "child"))
        await engine.handle("child").result(timeout=SOON)
    sending = named(spans, "aion.activation errands")[1]
    taking = [s for s in named(spans, "aion.activation waiter") if "aion.outcome" in facts(s)]
    assert [links_of(s) for s in taking] == [[sending.context.span_id]]
    of_child = [s for s in named(spans, "aion.activation one_step") if "aion.events" in facts(s)]
    assert {s.parent.span_id for s in of_child if s.parent} == {sending.context.span_id}


@pytest.mark.parametrize("options", [EngineOptions(), EAGER], ids=["resident", "evicting"])
async def test_each_retry_is_a_span_that_follows_from_what_scheduled_the_activity(
    spans: RecordedSpans, tmp_path: Path, options: EngineOptions
) -> None:
    async with engine_on(tmp_path, options) as engine:
        handle = await engine.start(flaky_step, "x", id="w")
        await engine.start(waiter, id="evicts it")
        await handle.result(timeout=SOON)
    assert [tree for tree in trees(spans) if tree[0] != "aion.start waiter"] == [
        (
            "aion.start flaky_step",
            ("aion.activation flaky_step", ("aion.activity flaky",), ("aion.activity flaky",)),
            ("aion.activation flaky_step",),
            ("aion.activation flaky_step",),
        )
    ]
    first, second = named(spans, "aion.activity flaky")
    assert (facts(first)["aion.attempt"], facts(second)["aion.attempt"]) == (1, 2)
    assert facts(first)["error.type"] == "ConnectionError"
    assert first.status.status_code is StatusCode.ERROR
    assert [event.name for event in first.events] == ["exception"]
    assert "error.type" not in facts(second)


async def test_the_runs_of_a_chain_are_one_trace(spans: RecordedSpans, tmp_path: Path) -> None:
    async with engine_on(tmp_path) as engine:
        handle = await engine.start(counting, 2, id="w")
        await handle.result(timeout=SOON)
    run = "aion.activation counting"
    assert trees(spans) == [("aion.start counting", (run, (run, (run,))))]
    outcomes = [facts(span).get("aion.outcome") for span in named(spans, run)]
    assert outcomes == ["continued_as_new", "continued_as_new", "completed"]


async def test_a_run_that_an_operator_continues_stays_in_its_trace(
    spans: RecordedSpans, tmp_path: Path
) -> None:
    async with engine_on(tmp_path) as engine:
        handle = await engine.start(waiter, id="w")
        await handle.continue_as_new()
        await handle.signal(go, "x")
        await handle.result(timeout=SOON)
    assert trees(spans) == [
        ("aion.start waiter", *[("aion.activation waiter",)] * 3),
        ("aion.continue_as_new",),
        SIGNAL,
    ]


# ------------------------------------------------------------------------------------ commands


async def test_a_start_belongs_to_the_trace_of_who_gave_it(
    spans: RecordedSpans, tmp_path: Path
) -> None:
    tracer = spans.provider.get_tracer("shop")
    async with engine_on(tmp_path) as engine:
        with tracer.start_as_current_span("a request"):
            handle = await engine.start(one_step, "x", id="w")
        await handle.result(timeout=SOON)
    assert trees(spans) == [
        (
            "a request",
            (
                "aion.start one_step",
                ("aion.activation one_step", ("aion.activity step",)),
                ("aion.activation one_step",),
            ),
        )
    ]


async def test_a_start_says_what_and_which_run(spans: RecordedSpans, tmp_path: Path) -> None:
    async with engine_on(tmp_path) as engine:
        handle = await engine.start(waiter, id="w")
        with pytest.raises(WorkflowAlreadyStartedError):
            await engine.start(waiter, id="w")
    started, refusal = named(spans, "aion.start waiter")
    assert started.kind is SpanKind.PRODUCER
    assert facts(started) == {
        "aion.workflow_id": "w",
        "aion.workflow_type": "waiter",
        "aion.run_id": handle.run_id,
    }
    assert facts(refusal)["error.type"] == "workflow_already_started"


async def test_every_command_has_a_span(spans: RecordedSpans, tmp_path: Path) -> None:
    async with engine_on(tmp_path) as engine:
        handle = await engine.start(waiter, id="w")
        await handle.pause()
        await handle.resume()
        await handle.cancel("enough")
        with pytest.raises(Exception, match="enough"):
            await handle.result(timeout=SOON)
        await handle.reopen()
        await handle.terminate("at last")
    given = [span.name for span in ours(spans) if span.kind is SpanKind.PRODUCER]
    assert given == [
        "aion.start waiter", "aion.pause", "aion.resume", "aion.cancel", "aion.reopen", "aion.terminate",
    ]  # fmt: skip


async def test_a_signal_is_linked_to_the_activation_that_took_it(
    spans: RecordedSpans, tmp_path: Path
) -> None:
    async with engine_on(tmp_path) as engine:
        handle = await engine.start(waiter, id="w")
        await handle.signal(go, "x", signal_id="s")
        await handle.result(timeout=SOON)
        recorded = dict(await contexts(handle))
    (sent,) = named(spans, "aion.signal go")
    first, second = named(spans, "aion.activation waiter")
    assert (links_of(first), links_of(second)) == ([], [sent.context.span_id])
    assert facts(sent)["aion.signal_id"] == "s"
    assert recorded == {
        "WorkflowStarted": context_of(named(spans, "aion.start waiter")[0]),
        "SignalReceived": context_of(sent),
        "WorkflowCompleted": context_of(second),
    }


async def test_a_signal_of_a_workflow_is_linked_to_the_activation_that_sent_it(
    spans: RecordedSpans, tmp_path: Path
) -> None:
    async with engine_on(tmp_path) as engine:
        handle = await engine.start(waiter, id="w")
        await (await engine.start(sender, id="sender")).result(timeout=SOON)
        await handle.result(timeout=SOON)
    sending = named(spans, "aion.activation sender")[0]
    _, taking = named(spans, "aion.activation waiter")
    assert links_of(taking) == [sending.context.span_id]


async def test_what_a_client_without_an_engine_gave_is_taken_up_in_its_trace(
    spans: RecordedSpans, tmp_path: Path
) -> None:
    async with Client.open(f"sqlite:///{tmp_path}/aion.db") as client:
        handle = await client.start(waiter, id="w")
        await handle.signal(go, "x")
    async with engine_on(tmp_path) as engine:
        await engine.handle("w").result(timeout=SOON)
    assert trees(spans) == [("aion.start waiter", ("aion.activation waiter",)), SIGNAL]
    (taking,) = named(spans, "aion.activation waiter")
    assert links_of(taking) == [named(spans, "aion.signal go")[0].context.span_id]


async def test_what_a_schedule_starts_begins_a_trace_whoever_opened_the_engine(
    spans: RecordedSpans,
) -> None:
    tracer, clock = spans.provider.get_tracer("shop"), ManualClock()
    with tracer.start_as_current_span("opening"):
        async with Engine.open(
            MemoryEventStore(), workflows=[one_step], activities=[step], clock=clock
        ) as engine:
            await engine.wait_recovered()
            hourly = Interval(timedelta(hours=1))
            await engine.schedules.create(
                Schedule(id="hourly", spec=hourly, action=Start(one_step, "x"))
            )
            clock.advance(timedelta(hours=1))
            await until(lambda: len(named(spans, "aion.activation one_step")) >= 2)
    (started,) = named(spans, "aion.start one_step")
    assert started.parent is None
    assert {s.context.trace_id for s in named(spans, "aion.activation one_step")} == {
        started.context.trace_id
    }


async def test_what_a_person_triggers_is_in_that_person_s_trace(
    spans: RecordedSpans, tmp_path: Path
) -> None:
    tracer = spans.provider.get_tracer("shop")
    async with engine_on(tmp_path) as engine:
        hourly = Interval(timedelta(hours=1))
        await engine.schedules.create(
            Schedule(id="hourly", spec=hourly, action=Start(one_step, "x"))
        )
        with tracer.start_as_current_span("a request"):
            await engine.schedules.trigger("hourly")
        await until(lambda: bool(named(spans, "aion.activity step")))
    (request,) = [tree for tree in trees(spans) if tree[0] == "a request"]
    assert request[1][:2] == (
        "aion.start one_step",
        ("aion.activation one_step", ("aion.activity step",)),
    )
    assert facts(named(spans, "aion.start one_step")[0])["aion.schedule_id"] == "hourly"


# --------------------------------------------------------------------------------- what is on them


async def test_activations_and_attempts_say_whose_and_which(
    spans: RecordedSpans, tmp_path: Path
) -> None:
    async with engine_on(tmp_path) as engine:
        handle = await engine.start(one_step, "x", id="w")
        await handle.result(timeout=SOON)
    of_run = {
        "aion.workflow_id": "w",
        "aion.run_id": handle.run_id,
        "aion.workflow_type": "one_step",
        "aion.task_queue": "default",
    }
    first, last = named(spans, "aion.activation one_step")
    assert facts(first) == of_run | {"aion.workflow_version": "1", "aion.events": 2}
    assert facts(last) == of_run | {
        "aion.workflow_version": "1",
        "aion.events": 3,
        "aion.outcome": "completed",
    }
    (attempt,) = named(spans, "aion.activity step")
    assert facts(attempt) == of_run | {
        "aion.activity_type": "step",
        "aion.activity_id": 0,
        "aion.attempt": 1,
    }
    assert {first.kind, attempt.kind} == {SpanKind.CONSUMER}


async def test_a_run_that_fails_shows_on_its_last_activation(
    spans: RecordedSpans, tmp_path: Path
) -> None:
    async with engine_on(tmp_path) as engine:
        handle = await engine.start(refused_step, "x", id="w")
        with pytest.raises(WorkflowFailedError):
            await handle.result(timeout=SOON)
    last = named(spans, "aion.activation refused_step")[-1]
    assert (facts(last)["aion.outcome"], facts(last)["error.type"]) == ("failed", "ActivityError")
    assert last.status.status_code is StatusCode.ERROR


async def test_an_activation_s_append_and_a_projection_s_batch_are_spans(
    spans: RecordedSpans, tmp_path: Path
) -> None:
    async with engine_on(tmp_path) as engine:
        handle = await engine.start(one_step, "x", id="w")
        await handle.result(timeout=SOON)
        end = await engine.store.end_position()
        await engine.projections.wait_until(end, projection="visibility")
    first, last = named(spans, "aion.activation one_step")
    for activation, events in ((first, 2), (last, 3)):
        (append,) = [
            s for s in spans.all if s.parent and s.parent.span_id == activation.context.span_id
            and s.name == "aion.store.append"
        ]  # fmt: skip
        assert facts(append)["db.operation.batch.size"] == events
    batches = [s for s in spans.all if s.name == "aion.projection visibility"]
    assert sum(facts(s)["aion.events"] for s in batches) >= 2
    assert all(s.parent is None for s in batches)


VALUES = {
    "aion.start echo": {"aion.input": '{"a":"x"}'},
    "aion.activation echo": {"aion.input": '{"a":"x"}', "aion.result": '["x"]'},
    "aion.activity echo_step": {"aion.input": '"x"', "aion.result": '["x"]'},
    "aion.signal go": {"aion.input": '"now"'},
}


@pytest.mark.parametrize("record", [True, False], ids=["on", "off"])
async def test_inputs_and_results_are_on_spans_only_if_that_is_asked_for(
    spans: RecordedSpans, tmp_path: Path, record: bool
) -> None:
    @activity
    async def echo_step(name: str) -> list[str]:
        return [name]

    @workflow
    async def echo(ctx: Context, given: dict[str, str]) -> list[str]:
        await ctx.receive(go)
        return await ctx.run(echo_step, given["a"])

    async with Engine.open(
        f"sqlite:///{tmp_path}/aion.db",
        workflows=[echo],
        activities=[echo_step],
        options=EngineOptions(record_payloads=record),
    ) as engine:
        handle = await engine.start(echo, {"a": "x"}, id="w")
        await handle.signal(go, "now")
        await handle.result(timeout=SOON)
    seen: dict[str, dict[str, Any]] = {}
    for span in ours(spans):
        values = {k: v for k, v in facts(span).items() if k in {"aion.input", "aion.result"}}
        seen[span.name] = seen.get(span.name, {}) | values
    assert seen == (VALUES if record else {name: {} for name in VALUES})


async def test_of_a_large_value_only_the_beginning_is_on_a_span(
    spans: RecordedSpans, tmp_path: Path
) -> None:
    async with engine_on(tmp_path, EngineOptions(record_payloads=True)) as engine:
        handle = await engine.start(one_step, "x" * 100_000, id="w")
        await handle.result(timeout=SOON)
    (attempt,) = named(spans, "aion.activity step")
    assert facts(attempt)["aion.input"] == '"' + "x" * (PAYLOAD_CHARACTERS - 1)
    assert len(facts(attempt)["aion.result"]) == PAYLOAD_CHARACTERS


# ------------------------------------------------------------------------------ spans of users'


@pytest.mark.parametrize("how", ["async", "thread"])
async def test_a_span_of_an_activity_s_own_has_the_attempt_as_its_parent(
    spans: RecordedSpans, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "get_tracer", spans.provider.get_tracer)
    async with engine_on(tmp_path) as engine:
        await (await engine.start(user_span, how, id="w")).result(timeout=SOON)
    (attempt,) = [span for span in ours(spans) if span.name.startswith("aion.activity ")]
    (own,) = named(spans, "in the activity")
    assert own.parent is not None
    assert own.parent.span_id == attempt.context.span_id
    assert own.context.trace_id == attempt.context.trace_id


async def test_an_activity_in_a_process_has_the_attempt_s_context_as_the_present_one(
    spans: RecordedSpans, tmp_path: Path
) -> None:
    async with engine_on(tmp_path) as engine:
        seen = [
            await (await engine.start(user_span, "process")).result(timeout=SOON) for _ in range(3)
        ]
    attempts = named(spans, "aion.activity context_in_a_process")
    assert seen == [f"{a.context.trace_id:032x} {a.context.span_id:016x}" for a in attempts]


@pytest.mark.parametrize("options", [EngineOptions(), EAGER], ids=["resident", "evicting"])
async def test_in_workflow_code_the_activation_is_present_in_every_task_and_never_in_replay(
    spans: RecordedSpans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: EngineOptions
) -> None:
    monkeypatch.setattr(trace, "get_tracer", spans.provider.get_tracer)
    async with engine_on(tmp_path, options) as engine:
        handle = await engine.start(marks, id="w")
        await engine.start(waiter, id="evicts it")
        await handle.signal(go, "1")
        await until(lambda: is_recorded(handle, "SignalReceived"))
    async with Client.open(f"sqlite:///{tmp_path}/aion.db") as client:
        await client.handle("w").signal(go, "2")
    async with engine_on(tmp_path, options) as engine:  # replays, and goes on in one go
        await engine.handle("w").result(timeout=SOON)
    of_run = [tree for tree in trees(spans) if tree[0] == "aion.start marks"]
    assert of_run == [
        (
            "aion.start marks",
            ("aion.activation marks", ("before",)),
            ("aion.activation marks", ("beside",)),
            ("aion.activation marks",),
        )
    ]
    assert [s.name for s in ours(spans)].count("before") == 1


async def test_an_activation_that_met_a_conflict_is_discarded_and_derived_anew(
    spans: RecordedSpans,
) -> None:
    inner = MemoryEventStore()
    store = FaultyStore(inner)
    async with Engine.open(store, workflows=[twice]) as engine, Client.open(inner) as client:
        handle = await engine.start(twice, id="w")
        calls = store.calls
        store.hang(times=1)
        async with asyncio.TaskGroup() as group:
            group.create_task(handle.signal(go, "second"))
            await until(lambda: store.calls > calls)
            await client.handle("w").signal(go, "first")
            store.heal()
        assert await handle.result(timeout=SOON) == ["first", "second"]
    _, *later = named(spans, "aion.activation twice")
    discarded = [s for s in later if "aion.discarded" in facts(s)]
    recorded = [s for s in later if "aion.events" in facts(s)]
    assert len(discarded) == 1
    assert discarded[0] == later[0]
    assert "aion.events" not in facts(discarded[0])
    assert facts(recorded[-1])["aion.outcome"] == "completed"
    assert store.conflicts == 1


async def test_an_append_that_is_tried_again_is_part_of_one_activation(
    spans: RecordedSpans,
) -> None:
    store = FaultyStore(MemoryEventStore())
    async with Engine.open(store, workflows=[waiter]) as engine:
        handle = await engine.start(waiter, id="w")
        store.fail(times=2)
        await handle.signal(go, "x")
        await handle.result(timeout=SOON)
    first, second = named(spans, "aion.activation waiter")
    assert "aion.discarded" not in facts(second)
    appends = [
        s
        for s in spans.all
        if s.name == "aion.store.append" and s.parent and s.parent.span_id == second.context.span_id
    ]
    assert [facts(s).get("error.type") for s in appends] == [
        "store_unavailable",
        "store_unavailable",
        None,
    ]
    assert first.context.trace_id == second.context.trace_id


# --------------------------------------------------------------------------------- nobody records


async def test_without_an_sdk_no_span_is_made_and_nothing_is_remembered_or_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Sequence[Any]] = []
    monkeypatch.setattr("aion_es.telemetry._TRACER", Refusing(made))
    async with engine_on(tmp_path) as engine:
        assert engine._core.tracing is None
        handle = await engine.start(parent, id="parent")
        await until(lambda: is_there(engine, "grandchild"))
        assert [process.trace for process in engine._core._processes.values()] == [None] * 3
        assert [p.execution.span for p in engine._core._processes.values() if p.execution] == [
            None
        ] * 3
        await engine.handle("grandchild").signal(go, "x")
        await handle.result(timeout=SOON)
        recorded = await contexts(handle)
    assert made == []
    assert {context for _, context in recorded} == {None}


class Refusing:
    """A tracer that notes that it was asked for a span."""

    def __init__(self, made: list[Sequence[Any]]) -> None:
        self._made = made

    def start_span(self, *args: Any, **_options: Any) -> Any:
        self._made.append(args)
        raise AssertionError("a span was made")

    start_as_current_span = start_span
