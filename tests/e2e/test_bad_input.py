"""Bad input, by name: each is a typed error that says what is wrong, and nothing is recorded."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, cast

import pytest
from pydantic import BaseModel

from aion_es import (
    Context,
    Engine,
    NonRetryableError,
    Query,
    RetryPolicy,
    Signal,
    activity,
    workflow,
)
from aion_es.aggregates import Workflow
from aion_es.errors import (
    AionError,
    AttributeTypeError,
    DefinitionError,
    InvalidArgumentError,
    InvalidIdError,
    PayloadError,
    PayloadTooLargeError,
    RunClosedError,
    StoreCorruptError,
    StoreUnavailableError,
    UnknownStoreURLError,
    UnregisteredAttributeError,
    UnsupportedStoreVersionError,
    WorkflowAlreadyStartedError,
    WorkflowFailedError,
    WorkflowNotFoundError,
    WorkflowTypeNotFoundError,
)
from aion_es.events.attributes import SearchAttribute
from aion_es.events.workflow import WorkflowStarted
from tests.e2e.conftest import EngineOpener
from tests.e2e.scenario import SOON, kinds, stored, until

number = Signal("number", int)
age = SearchAttribute("age", int)


class Line(BaseModel):
    sku: str
    count: int


class Order(BaseModel):
    id: str
    lines: list[Line] = []


@activity
async def opaque() -> Any:
    return object()


@activity
async def takes_order(order: Order) -> int:
    return len(order.lines)


@activity
async def returns_text() -> int:
    return cast("int", "text")


@activity
async def returns_much() -> str:
    return "x" * 2_000_000


@workflow
async def takes(ctx: Context, order: Order) -> str:
    await ctx.receive(number)
    return order.id


@workflow
async def takes_anything(ctx: Context, value: Any) -> None:
    return None


@workflow
async def returns_object(ctx: Context) -> Any:
    return object()


@workflow
async def returns_wrong_type(ctx: Context) -> int:
    return cast("int", "text")


@workflow
async def quick(ctx: Context) -> None:
    return None


@workflow
async def runs(ctx: Context, which: str) -> str:
    chosen = {"opaque": opaque, "returns_text": returns_text, "returns_much": returns_much}[which]
    return str(await ctx.run(cast("Any", chosen)))


@workflow
async def schedules_badly(ctx: Context) -> str:
    try:
        await ctx.run(takes_order, cast("Any", {"id": 7}))
    except PayloadError as error:
        return f"{error.what} at {error.path}"
    return "taken"


@workflow
async def schedules_too_much(ctx: Context) -> int:
    big = Order(id="x" * 2_000_000)
    return await ctx.run(takes_order, big)


@workflow
async def sets_attribute(ctx: Context, value: Any) -> str:
    try:
        ctx.set_attributes({age: value})
        ctx.set_attributes({"unheard_of": 1})
    except AionError as error:
        return type(error).__name__
    return "set"


ALL: list[Any] = [
    takes,
    takes_anything,
    returns_object,
    returns_wrong_type,
    quick,
    runs,
    schedules_badly,
    schedules_too_much,
    sets_attribute,
]
ACTIVITIES: list[Any] = [opaque, takes_order, returns_text, returns_much]


# ------------------------------------------------------------------------------------- the store


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("mysql://host/db", "unknown scheme 'mysql'"),
        ("aion.db", "has no scheme"),
        ("sqlite://aion.db", "names a host"),
        ("sqlite:///a.db?speed=ludicrous", "unknown option 'speed'"),
        ("sqlite:///a.db?durability=maybe", "durability is full or normal"),
    ],
)
async def test_a_url_that_names_no_store_is_refused_with_the_forms_that_are_known(
    url: str, reason: str
) -> None:
    with pytest.raises(UnknownStoreURLError, match=reason.replace("?", r"\?")):
        async with Engine.open(url, workflows=[quick]):
            pass


async def test_a_file_that_is_no_database_is_refused_and_left_untouched(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    path.write_text("shopping list: tea, milk and a very long explanation of why " * 100)
    before = path.read_bytes()
    with pytest.raises(StoreCorruptError):
        async with Engine.open(f"sqlite:///{path}", workflows=[quick]):
            pass
    assert path.read_bytes() == before
    directory = list(tmp_path.iterdir())  # noqa: ASYNC240 - nothing else runs here
    assert [p.name for p in directory] == ["notes.db"]


async def test_somebody_elses_database_is_refused_and_left_untouched(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE customers (name TEXT)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreCorruptError):
        async with Engine.open(f"sqlite:///{path}", workflows=[quick]):
            pass
    assert path.read_bytes() == before


async def test_a_file_from_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "aion.db"
    async with Engine.open(f"sqlite:///{path}", workflows=[quick]) as engine:
        await (await engine.start(quick)).result(timeout=SOON)
    connection = sqlite3.connect(path)
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.execute(f"PRAGMA user_version = {version + 1}")
    connection.commit()
    connection.close()
    with pytest.raises(UnsupportedStoreVersionError):
        async with Engine.open(f"sqlite:///{path}", workflows=[quick]):
            pass


async def test_a_directory_that_does_not_exist_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError):
        async with Engine.open(f"sqlite:///{tmp_path}/no/such/aion.db", workflows=[quick]):
            pass


async def test_a_namespace_of_another_form_is_refused() -> None:
    with pytest.raises(InvalidIdError, match="namespace"):
        Engine.open("memory://", workflows=[quick], namespace="Not-Me")


# ------------------------------------------------------------------------------------- functions


def not_async(ctx: Context) -> None: ...


async def no_parameter() -> None: ...


async def three_parameters(ctx: Context, a: int, b: int) -> None: ...


async def keyword_only(ctx: Context, *, a: int) -> None: ...


async def variadic(ctx: Context, *many: int) -> None: ...


async def generator(ctx: Context) -> Any:
    yield 1


async def context_second(number: int, ctx: Context) -> None: ...


async def context_is_a_number(ctx: int) -> None: ...


async def context_is_text(ctx: "Order", order: "NotYetThere") -> None: ...  # type: ignore[name-defined]  # noqa: F821 - that is the point


class Shop:
    async def method(self, ctx: Context) -> None: ...

    def pack(self) -> None: ...

    @staticmethod
    @workflow
    async def static(ctx: Context) -> str:
        return "packed"


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (context_second, r"the context is the first parameter: \(ctx\) or \(ctx, input\)"),
        (context_is_a_number, "not 'ctx: int', but 'ctx: Context'"),
        (context_is_text, "but 'ctx: Context'"),
        (Shop.method, "a method cannot be decorated, because its object is not recorded"),
        (not_async, "a workflow is an `async def` function"),
        (no_parameter, r"a workflow takes \(ctx\) or \(ctx, input\), this one takes 0"),
        (three_parameters, "this one takes 3 parameters; put several values into one model"),
        (keyword_only, "parameter 'a'"),
        (variadic, "parameter 'many'"),
        (generator, "a workflow is an `async def` function"),
        (Order, "a workflow is an `async def` function"),
        (7, "a workflow is an `async def` function"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_function_that_cannot_be_a_workflow_is_refused_at_its_decoration(
    function: Any, reason: str
) -> None:
    with pytest.raises(DefinitionError, match=reason):
        workflow(function)


def two_parameters(a: int, b: int) -> None: ...


def yields() -> Any:
    yield 1


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (two_parameters, "this one takes 2 parameters"),
        (yields, "a generator cannot be an activity"),
        (Shop.pack, "a method cannot be decorated, because its object is not recorded"),
        (Order, "only plain functions"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_function_that_cannot_be_an_activity_is_refused_at_its_decoration(
    function: Any, reason: str
) -> None:
    with pytest.raises(DefinitionError, match=reason):
        activity(function)


class ContextOfATest(Context):
    """Something that a unit test of the user's gives instead."""


class LooksLikeAContext(Protocol):
    async def sleep(self, delay: float) -> None: ...


async def annotates_nothing(ctx: Any, order: Order) -> None: ...


async def annotates_a_subclass(ctx: ContextOfATest) -> None: ...


async def annotates_a_protocol(ctx: LooksLikeAContext) -> None: ...


async def annotates_what_is_not_there(ctx: "Elsewhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821 - see above


@pytest.mark.parametrize(
    "function",
    [
        annotates_nothing,
        annotates_a_subclass,
        annotates_a_protocol,
        annotates_what_is_not_there,
    ],
    ids=lambda function: function.__name__,
)
def test_what_may_be_the_context_is_taken_at_the_decoration(function: Any) -> None:
    assert workflow(function) is function


async def test_a_static_method_may_be_a_workflow(open_engine: EngineOpener) -> None:
    async with open_engine([Shop.static]) as engine:
        assert await (await engine.start(Shop.static)).result(timeout=SOON) == "packed"


def test_a_channel_takes_a_type_and_no_handler() -> None:
    with pytest.raises(DefinitionError, match=r"query 'phase': takes the type of its answer") as q:
        Query("phase", cast("Any", lambda: 1))
    assert "what handles it is given to ctx.answer(query, handler)" in q.value.reason
    with pytest.raises(DefinitionError, match=r"given to ctx\.on_signal\(signal, handler\)"):
        Signal("approval", cast("Any", print))


# ----------------------------------------------------------------------------- inputs left out


@activity
async def counts_from(first: int = 3) -> int:
    return first


@workflow
async def goes_on_from(ctx: Context, first: int = 40) -> int:
    if first == 41:
        ctx.continue_as_new()
    return first + await ctx.run(counts_from)


@workflow
async def may_be_none(ctx: Context, first: int | None = None) -> str:
    return repr(first)


@workflow
async def means_two_things(ctx: Context, first: int | None = 3) -> str:
    return repr(first)


@pytest.mark.parametrize(
    ("given", "recorded", "result"), [((), 40, 43), ((5,), 5, 8), ((41,), 40, 43)], ids=str
)
async def test_an_input_that_is_left_out_is_its_default_and_recorded(
    open_engine: EngineOpener, given: tuple[int, ...], recorded: int, result: int
) -> None:
    async with open_engine([goes_on_from], [counts_from]) as engine:
        handle = await engine.start(goes_on_from, *given)
        first = (await handle.history())[0].event
        assert isinstance(first, WorkflowStarted)
        assert first.input.data == recorded
        assert await handle.result(timeout=SOON) == result


async def test_an_input_that_is_left_out_is_none_where_that_is_its_default(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([may_be_none]) as engine:
        assert await (await engine.start(may_be_none)).result(timeout=SOON) == "None"


async def test_an_input_that_cannot_be_told_from_one_that_is_left_out_is_refused(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([means_two_things]) as engine:
        with pytest.raises(DefinitionError, match="has a default and may be None too"):
            await engine.start(means_two_things)
        assert await stored(engine) == 0
        assert await (await engine.start(means_two_things, 7)).result(timeout=SOON) == "7"


def test_functions_that_are_not_decorated_cannot_be_registered() -> None:
    with pytest.raises(DefinitionError, match="decorate it with @workflow"):
        Engine.open("memory://", workflows=[no_parameter])
    with pytest.raises(DefinitionError, match="decorate it with @activity"):
        Engine.open("memory://", activities=[two_parameters])


def test_two_functions_cannot_share_a_type_and_a_version() -> None:
    @workflow(name="quick")
    async def impostor(ctx: Context) -> None: ...

    with pytest.raises(DefinitionError, match="already registered as version '1' of 'quick'"):
        Engine.open("memory://", workflows=[quick, impostor])


# --------------------------------------------------------------------------------------- options

BAD_ACTIVITY_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"nonsense": 1}, "there is no option 'nonsense'; the options are retry, start_to_close"),
    ({"retry": {"max_attempts": 3}}, "retry must be a RetryPolicy, got dict"),
    ({"retry": None}, "retry must be a RetryPolicy, got NoneType"),
    ({"retry": RetryPolicy(max_interval=timedelta.max)}, "max_interval must be at most"),
    ({"start_to_close": 5}, "start_to_close must be a timedelta, got int"),
    ({"heartbeat": timedelta(0)}, "heartbeat must be positive"),
    ({"schedule_to_close": timedelta.max}, "schedule_to_close must be at most 365000 days"),
    ({"task_queue": 7}, "task_queue 7 must be a str, not int"),
    ({"task_queue": ""}, "task_queue '' must not be empty"),
    ({"cancellation": "WAIT"}, "one of 'try_cancel', 'wait', 'abandon', got 'WAIT'"),
]
BAD_CHILD_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"nonsense": 1}, "there is no option 'nonsense'; the options are id, parent_close"),
    ({"parent_close": "detach"}, "one of 'cancel', 'terminate', 'abandon', got 'detach'"),
    ({"cancellation": "nope"}, "one of 'try_cancel', 'wait', 'abandon', got 'nope'"),
    ({"task_queue": 7}, "task_queue 7 must be a str, not int"),
    ({"attributes": 5}, "attributes must be a dict, got int"),
]


def option(value: Any) -> str:
    """Return the id of a case."""
    return ", ".join(map("{0[0]}={0[1]}".format, value.items())) if isinstance(value, dict) else ""


@pytest.mark.parametrize(("options", "reason"), BAD_ACTIVITY_OPTIONS, ids=option)
def test_an_option_that_no_activity_can_have_is_refused_at_its_decoration(
    options: Any, reason: str
) -> None:
    async def charge() -> None: ...

    with pytest.raises(DefinitionError, match=reason) as caught:
        activity(**options)(charge)
    assert "'test_an_option" in caught.value.function
    assert "charge" in caught.value.function


@pytest.mark.parametrize(("options", "reason"), BAD_ACTIVITY_OPTIONS, ids=option)
async def test_an_option_that_no_activity_can_have_is_refused_at_the_call(
    options: Any, reason: str
) -> None:
    await told_to_the_code(lambda ctx: ctx.run(takes_order, Order(id="1"), **options), reason)


@pytest.mark.parametrize(("options", "reason"), BAD_CHILD_OPTIONS, ids=option)
async def test_an_option_that_no_child_can_have_is_refused_at_the_call(
    options: Any, reason: str
) -> None:
    await told_to_the_code(lambda ctx: ctx.spawn(quick, **options), reason)


async def told_to_the_code(ask: Callable[[Context], Any], reason: str) -> None:
    """Check that `ask` raises in the code, in a later step than the first, and records nothing."""
    refusals: list[str] = []

    @workflow
    async def asks(ctx: Context) -> None:
        await ctx.run(opaque_nothing)
        try:
            ask(ctx)
        except DefinitionError as error:
            refusals.append(str(error))

    async with Engine.open(
        "memory://", workflows=[asks, quick], activities=[opaque_nothing, takes_order]
    ) as engine:
        handle = await engine.start(asks)
        await handle.result(timeout=SOON)
        assert reason in refusals[0]
        assert (await kinds(handle))[-2:] == ["ActivityCompleted", "WorkflowCompleted"]


@activity
async def opaque_nothing() -> None: ...


def test_an_executor_that_there_is_not_is_refused() -> None:
    with pytest.raises(DefinitionError, match="executor must be 'thread' or 'process', got 'gpu'"):
        activity(executor=cast("Any", "gpu"))(two_parameters)


def test_a_workflows_task_queue_without_form_is_refused() -> None:
    async def packs(ctx: Context) -> None: ...

    with pytest.raises(DefinitionError, match="task_queue 7 must be a str"):
        workflow(task_queue=cast("Any", 7))(packs)


async def test_a_childs_cancel_takes_a_text_as_its_reason() -> None:
    @workflow
    async def cancels(ctx: Context) -> str:
        child = ctx.spawn(takes, Order(id="1"))
        await ctx.run(opaque_nothing)
        try:
            child.cancel(cast("Any", ValueError("late")))
        except InvalidArgumentError as error:
            return str(error)
        return "taken"

    async with Engine.open(
        "memory://", workflows=[cancels, takes], activities=[opaque_nothing]
    ) as engine:
        handle = await engine.start(cancels)
        assert await handle.result(timeout=SOON) == "reason: must be a str, got ValueError"


@pytest.mark.parametrize("at_once", [True, False], ids=["in the first step", "in a later one"])
async def test_a_command_that_cannot_be_recorded_makes_the_run_stuck_with_its_reason(
    open_engine: EngineOpener, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    async def quick_activity(order: Order) -> int:
        return 1

    schedules = activity(quick_activity)

    @workflow
    async def sleeps(ctx: Context) -> str:
        if not at_once:
            await ctx.receive(number)
        waits = ctx.run(schedules, Order(id="1"))
        await ctx.start_timer("late", timedelta(microseconds=1))
        return f"slept {await waits}"

    with monkeypatch.context() as broken:
        # What an option that slipped through every check would do.
        broken.setattr(Workflow, "start_timer", raises_a_key_error)
        async with open_engine([sleeps], [schedules]) as engine:
            handle = await engine.start(sleeps, id="w")
            if not at_once:
                await handle.signal(number, 1)
            await until(lambda: is_stuck(engine))
            before = ["WorkflowStarted"] if at_once else ["WorkflowStarted", "SignalReceived"]
            assert await kinds(handle) == before
    async with open_engine([sleeps], [schedules]) as engine:
        assert await engine.handle("w").result(timeout=SOON) == "slept 1"


def raises_a_key_error(*_args: object, **_options: object) -> None:
    raise KeyError("unheard of")


async def is_stuck(engine: Engine) -> bool:
    """Return whether 'w' says why it cannot go on."""
    reason = (await engine.handle("w").describe()).stuck_reason
    return reason == "KeyError: 'unheard of'"


# ---------------------------------------------------------------------------- values going in


@pytest.mark.parametrize(
    ("value", "path", "reason"),
    [
        ({"id": 7}, "$.id", "valid string"),
        (
            Order.model_construct(
                id="1", lines=[Line.model_construct(sku="a", count=cast("int", "x"))]
            ),
            "$.lines[0].count",
            "valid integer",
        ),
        ("order", "$", "dictionary or instance of Order"),
        (None, "$", "dictionary or instance of Order"),
    ],
    ids=["a field", "a nested field", "another type", "nothing"],
)
async def test_an_input_that_does_not_fit_names_path_and_type_and_starts_nothing(
    open_engine: EngineOpener, value: Any, path: str, reason: str
) -> None:
    async with open_engine(ALL) as engine:
        with pytest.raises(PayloadError) as caught:
            await engine.start(takes, value)
        assert caught.value.what == "input of workflow 'takes'"
        assert caught.value.path == path
        assert reason in caught.value.reason
        assert await stored(engine) == 0


@pytest.mark.parametrize(
    ("value", "path"),
    [(object(), "$"), ({"a": [1, {2: object()}]}, "$.a"), (lambda: 1, "$")],
    ids=["an object", "an object deep inside", "a function"],
)
async def test_an_input_that_cannot_be_written_names_its_path_and_starts_nothing(
    open_engine: EngineOpener, value: Any, path: str
) -> None:
    async with open_engine(ALL) as engine:
        with pytest.raises(PayloadError) as caught:
            await engine.start(takes_anything, value)
        assert caught.value.path.startswith(path)
        assert await stored(engine) == 0


async def test_an_input_over_the_limit_is_refused_and_starts_nothing(
    open_engine: EngineOpener,
) -> None:
    async with open_engine(ALL) as engine:
        with pytest.raises(PayloadTooLargeError) as caught:
            await engine.start(takes, Order(id="x" * 2_000_000), id="big")
        assert caught.value.size > caught.value.limit
        assert "keep large data elsewhere" in str(caught.value)
        assert await stored(engine) == 0


async def test_a_signal_over_the_limit_is_refused_and_not_recorded(
    open_engine: EngineOpener,
) -> None:
    text = Signal("text", str)
    async with open_engine(ALL) as engine:
        handle = await engine.start(takes, Order(id="1"))
        with pytest.raises(PayloadTooLargeError, match="payload of signal 'text'"):
            await handle.signal(text, "x" * 2_000_000)
        assert await kinds(handle) == ["WorkflowStarted"]


# --------------------------------------------------------------------------- values coming out


@pytest.mark.parametrize("code", [returns_object, returns_wrong_type])
async def test_a_result_that_does_not_fit_fails_the_run_and_says_which(
    open_engine: EngineOpener, code: Any
) -> None:
    async with open_engine(ALL) as engine:
        handle = await engine.start(code)
        with pytest.raises(WorkflowFailedError) as caught:
            await handle.result(timeout=SOON)
        assert caught.value.type == "PayloadError"
        assert f"result of workflow '{code.__name__}', at $" in caught.value.message
        assert await kinds(handle) == ["WorkflowStarted", "WorkflowFailed"]


@pytest.mark.parametrize(
    ("which", "kind"),
    [
        ("opaque", "PayloadError"),
        ("returns_text", "PayloadError"),
        ("returns_much", "PayloadTooLargeError"),
    ],
)
async def test_an_activitys_result_that_does_not_fit_is_a_failure_that_is_not_retried(
    open_engine: EngineOpener, which: str, kind: str
) -> None:
    async with open_engine(ALL, ACTIVITIES) as engine:
        handle = await engine.start(runs, which)
        with pytest.raises(WorkflowFailedError, match=f"after 1 attempt: {kind}"):
            await handle.result(timeout=SOON)
        assert await kinds(handle) == [
            "WorkflowStarted",
            "ActivityScheduled",
            "ActivityStarted",
            "ActivityFailed",
            "WorkflowFailed",
        ]


async def test_an_activitys_input_that_does_not_fit_is_refused_in_the_code_and_schedules_nothing(
    open_engine: EngineOpener,
) -> None:
    async with open_engine(ALL, ACTIVITIES) as engine:
        handle = await engine.start(schedules_badly)
        assert await handle.result(timeout=SOON) == "input of activity 'takes_order' at $.id"
        assert await kinds(handle) == ["WorkflowStarted", "WorkflowCompleted"]


async def test_an_activitys_input_over_the_limit_fails_the_code_that_made_it(
    open_engine: EngineOpener,
) -> None:
    async with open_engine(ALL, ACTIVITIES) as engine:
        handle = await engine.start(schedules_too_much)
        with pytest.raises(WorkflowFailedError) as caught:
            await handle.result(timeout=SOON)
        assert caught.value.type == "PayloadTooLargeError"
        assert await kinds(handle) == ["WorkflowStarted", "WorkflowFailed"]


async def test_an_error_with_details_that_cannot_be_written_is_recorded_by_its_text(
    open_engine: EngineOpener,
) -> None:
    @activity
    async def raises() -> None:
        raise NonRetryableError("no", details={"at": object})

    @workflow
    async def fails(ctx: Context) -> None:
        await ctx.run(raises)

    async with open_engine([fails], [raises]) as engine:
        handle = await engine.start(fails)
        with pytest.raises(WorkflowFailedError, match="NonRetryableError: no"):
            await handle.result(timeout=SOON)


async def test_a_workflow_that_raises_a_huge_text_still_fails_properly(
    open_engine: EngineOpener,
) -> None:
    @workflow
    async def shouts(ctx: Context) -> None:
        raise ValueError("x" * 5_000_000)

    async with open_engine([shouts]) as engine:
        handle = await engine.start(shouts)
        with pytest.raises(WorkflowFailedError) as caught:
            await handle.result(timeout=SOON)
        assert caught.value.type == "ValueError"
        assert len(caught.value.message) < 10_000


# ------------------------------------------------------------------------- names and addresses


async def test_an_unknown_type_is_refused_and_the_known_ones_are_listed(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([quick, takes]) as engine:
        with pytest.raises(WorkflowTypeNotFoundError) as caught:
            await engine.start("checkout", 1)
        assert caught.value.known == ("quick", "takes")
        with pytest.raises(WorkflowTypeNotFoundError):
            await engine.start(returns_object)
        assert await stored(engine) == 0


async def test_what_is_no_workflow_cannot_be_started(open_engine: EngineOpener) -> None:
    async with open_engine([quick]) as engine:
        for nonsense in (7, None, not_async):
            with pytest.raises(AionError):
                await engine.start(cast("Any", nonsense))
        assert await stored(engine) == 0


@pytest.mark.parametrize("bad", ["", "x" * 256, "tab\there", "nul\0", 7], ids=repr)
async def test_an_id_without_form_is_refused(open_engine: EngineOpener, bad: Any) -> None:
    async with open_engine([quick]) as engine:
        with pytest.raises(InvalidIdError):
            await engine.start(quick, id=bad)
        with pytest.raises(InvalidIdError):
            engine.handle(bad)
        assert await stored(engine) == 0


@pytest.mark.parametrize("good", ["x" * 255, "Grüße, 世界 🚀", "a/b-c d:e", "-", "order-42"])
async def test_an_id_may_hold_whatever_can_be_printed(open_engine: EngineOpener, good: str) -> None:
    async with open_engine([quick]) as engine:
        handle = await engine.start(quick, id=good)
        await handle.result(timeout=SOON)
        assert (await engine.handle(good).describe()).workflow_id == good


async def test_the_same_id_twice_is_refused(open_engine: EngineOpener) -> None:
    async with open_engine(ALL) as engine:
        await engine.start(takes, Order(id="1"), id="w")
        with pytest.raises(WorkflowAlreadyStartedError, match="choose another id"):
            await engine.start(takes, Order(id="2"), id="w")
        assert await stored(engine) == 1


@pytest.mark.parametrize("command", ["signal", "cancel", "terminate", "pause", "resume"])
async def test_commands_to_unknown_and_closed_workflows_are_refused(
    open_engine: EngineOpener, command: str
) -> None:
    async def give(handle: Any) -> None:
        await (handle.signal(number, 1) if command == "signal" else getattr(handle, command)())

    async with open_engine([quick]) as engine:
        with pytest.raises(WorkflowNotFoundError, match="no workflow 'nobody'"):
            await give(engine.handle("nobody"))
        closed = await engine.start(quick)
        await closed.result(timeout=SOON)
        with pytest.raises(RunClosedError, match="it is Completed"):
            await give(closed)
        assert await stored(engine) == 2


@pytest.mark.parametrize("timeout", [5, 0.5, "5s"], ids=["int", "float", "text"])
async def test_what_is_no_timedelta_is_no_time_to_wait(
    open_engine: EngineOpener, timeout: Any
) -> None:
    async with open_engine([quick]) as engine:
        handle = await engine.start(quick)
        position = await engine.store.end_position()
        waits: list[Callable[[], Awaitable[object]]] = [
            lambda: handle.result(timeout=timeout),
            lambda: engine.wait_recovered(timeout),
            lambda: engine.projections.wait_until(
                position, projection="visibility", timeout=timeout
            ),
            lambda: engine.projections.wait_until_rebuilt("visibility", timeout=timeout),
        ]
        for wait in waits:
            with pytest.raises(InvalidArgumentError, match=r"timeout.*must be a timedelta, got"):
                await wait()
        await handle.result(timeout=SOON)


async def test_search_attributes_that_do_not_fit_are_refused_and_start_nothing(
    open_engine: EngineOpener,
) -> None:
    async with open_engine(ALL, search_attributes=[age]) as engine:
        with pytest.raises(AttributeTypeError):
            await engine.start(quick, attributes={age: "old"})  # type: ignore[arg-type] # a type checker refuses it too
        with pytest.raises(UnregisteredAttributeError):
            await engine.start(quick, attributes={"unheard_of": 1})
        assert await stored(engine) == 0
        refused = await engine.start(sets_attribute, "old")
        assert await refused.result(timeout=SOON) == "AttributeTypeError"
        assert await kinds(refused) == ["WorkflowStarted", "WorkflowCompleted"]
        unknown = await engine.start(sets_attribute, 7)
        assert await unknown.result(timeout=SOON) == "UnregisteredAttributeError"


async def test_bad_input_to_one_workflow_does_not_disturb_the_others(
    open_engine: EngineOpener,
) -> None:
    async with open_engine(ALL, ACTIVITIES) as engine:
        good = [await engine.start(takes, Order(id=str(i))) for i in range(5)]
        for _ in range(3):
            with pytest.raises(PayloadError):
                await engine.start(takes, cast("Any", object()))
        bad = await engine.start(returns_object)
        with pytest.raises(WorkflowFailedError):
            await bad.result(timeout=SOON)
        for handle in good:
            await handle.signal(number, 1)
        results = await asyncio.gather(*(h.result(timeout=SOON) for h in good))
        assert results == ["0", "1", "2", "3", "4"]
