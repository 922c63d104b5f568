"""The query side: how fast its rows are made (P9), and how fast a page of a million is read (P10)."""

import asyncio
import resource
import statistics
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from sqlalchemy import create_engine, text

from aion_es.aggregates.attributes import AttributeSchema
from aion_es.events import workflow as ev
from aion_es.events.base import Event
from aion_es.events.codec import encode
from aion_es.events.metadata import EventMetadata
from aion_es.events.values import AttributeValue
from aion_es.ids import DEFAULT_NAMESPACE, ActivityId, RunId, WorkflowId, workflow_stream
from aion_es.payload import Payload
from aion_es.projections import ProjectionRunner, ReadModel, VisibilityProjection
from aion_es.store.memory import MemoryEventStore
from aion_es.store.port import NO_STREAM, NewEvent
from aion_es.store.sqlite import Durability, SQLiteEventStore
from aion_es.visibility import Visibility
from benchmarks import million
from benchmarks.harness import Bench, Reach, Row, Sample, fresh_directory, row
from benchmarks.workloads import Measured, WrongResultError
from tests.postgresql.cluster import NoPostgreSQLError, running_cluster

_AT: Final = datetime(2030, 1, 1, 12, tzinfo=UTC)
_PER_WORKFLOW: Final = 11
"""Events of a workflow with three activities, as the engine records it."""
_AT_ONCE: Final = 200
_PAGE: Final = 100
_DEEP: Final = 1_000
"""Number of the page that is read at a depth."""
_LOOKS: Final = 50
_PREFIX: Final = "aion_"

QUESTIONS: Final = {
    "region": "region = 'eu'",
    "range": "total > 500000",
    "two": "region = 'eu' AND tags = 'tag03'",
    "null": "total IS NULL",
    "running": "ExecutionStatus = 'Running' ORDER BY CloseTime DESC",
}
"""What is asked for on page 1; the first also on page 1,000."""
_REACH: Final = Reach("≤", 5.0, "ms")


# -------------------------------------------------------------------------------- the events


def _workflow(number: int) -> list[NewEvent]:
    """Return the events of one workflow, from its start to its completion."""
    run_id = RunId(str(uuid.UUID(int=number)))
    attributes = {
        "region": AttributeValue(type="String", value=("eu", "us", "asia", "africa")[number % 4]),
        "customer": AttributeValue(type="String", value=f"customer-{number // 100:05d}"),
        "total": AttributeValue(type="Int", value=number * 7919 % 1_000_000),
    }
    start = ev.WorkflowStarted(
        workflow_type="checkout",
        package_version="1",
        run_id=run_id,
        first_run_id=run_id,
        input=Payload(data=number),
        attributes=attributes,
    )
    events: list[Event] = [start]
    for step in map(ActivityId, range(3)):
        events.append(ev.ActivityScheduled(activity_id=step, activity_type="charge"))
        events.append(ev.ActivityStarted(activity_id=step, attempt=1, worker="w"))
        events.append(ev.ActivityCompleted(activity_id=step, attempt=1, result=Payload(data=1)))
    events.append(ev.WorkflowCompleted(result=Payload(data=3)))
    metadata = EventMetadata(_AT + timedelta(seconds=number), run_id, activated=True).to_bytes()
    return [
        NewEvent(uuid.UUID(int=number << 8 | place), type(event).__name__, encode(event), metadata)
        for place, event in enumerate(events)
    ]


async def _record(store: SQLiteEventStore, events: int) -> int:
    """Append about so many events, of workflows one after the other; return how many."""
    count = max(1, events // _PER_WORKFLOW)
    for begin in range(0, count, _AT_ONCE):
        async with asyncio.TaskGroup() as group:
            for number in range(begin, min(begin + _AT_ONCE, count)):
                stream = workflow_stream(DEFAULT_NAMESPACE, WorkflowId(f"order-{number:07d}"))
                group.create_task(store.append(stream, _workflow(number), NO_STREAM))
    return count * _PER_WORKFLOW


# -------------------------------------------------------------------------------- measuring


async def catch_up(directory: str, events: int) -> Measured:
    """P9: fold all that is stored into the rows of `visibility`, then make them anew beside the old ones."""
    store = await SQLiteEventStore.open(f"{directory}/events.db", durability=Durability.NORMAL)
    async with store, await ReadModel.open(f"sqlite:///{directory}/rows.db") as model:
        recorded = await _record(store, events)
        before = _peak_mib()
        async with _running(store, model) as runner:
            began = time.perf_counter()
            await runner.wait_until_caught_up()
            took = time.perf_counter() - began
            caught_up = _peak_mib()
            began = time.perf_counter()
            await runner.rebuild(VisibilityProjection.name)
            await runner.wait_until_rebuilt(VisibilityProjection.name)
            rebuilt = time.perf_counter() - began
        found = await _visibility(model, runner).count("ExecutionStatus = 'Completed'")
        if found != recorded // _PER_WORKFLOW:
            raise WrongResultError(f"{found} runs are shown of {recorded // _PER_WORKFLOW}")
    return {
        "values": {
            "events_per_s": recorded / took,
            "rebuild_events_per_s": recorded / rebuilt,
            "rebuild_s": rebuilt,
            "catch_up_mib": max(0.0, caught_up - before),
            "peak_mib": _peak_mib(),
        },
        "settings": {"read model": "sqlite, WAL, synchronous=NORMAL"},
    }


@asynccontextmanager
async def _running(store: SQLiteEventStore, model: ReadModel) -> AsyncIterator[ProjectionRunner]:
    runner = ProjectionRunner(store, model, [VisibilityProjection()], prefix=_PREFIX)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(runner.run())
        yield runner
        running.cancel()


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def fill(directory: str, rows: int, url: str) -> Measured:
    """Make the rows that `pages` reads."""
    began = time.perf_counter()
    async with await ReadModel.open(url or _file_in(directory)) as model:
        await million.fill(model, rows)
    if url:
        _analyse(url)
    return {"values": {"seconds": time.perf_counter() - began}, "settings": {}}


def _analyse(url: str) -> None:
    """Do at once what PostgreSQL does by itself within a minute of so many inserts."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("VACUUM ANALYZE"))
    engine.dispose()


async def pages(directory: str, url: str) -> Measured:
    """P10: milliseconds for one page of each question, and for a page far behind."""
    values: dict[str, float] = {}
    async with await ReadModel.open(url or _file_in(directory)) as model:
        store = MemoryEventStore()
        runner = ProjectionRunner(store, model, [VisibilityProjection()], prefix=_PREFIX)
        visibility = _visibility(model, runner)
        for name, asked in QUESTIONS.items():
            values[f"{name}_ms"] = await _page_ms(visibility, asked, None)
        deep = await _token(visibility, QUESTIONS["region"])
        values["region_deep_ms"] = await _page_ms(visibility, QUESTIONS["region"], deep)
        await store.aclose()
        return {"values": values, "settings": {"read model": model.dialect}}


def _file_in(directory: str) -> str:
    return f"sqlite:///{directory}/million.db"


def _visibility(model: ReadModel, runner: ProjectionRunner) -> Visibility:
    schema = AttributeSchema()
    for name, kind in million.TYPES.items():
        schema.register(name, kind)
    return Visibility(model, runner, schema)


async def _page_ms(visibility: Visibility, filter: str, token: str | None) -> float:
    times: list[float] = []
    for _ in range(_LOOKS):
        began = time.perf_counter()
        page = await visibility.page(filter, page_size=_PAGE, page_token=token)
        times.append(time.perf_counter() - began)
        if not page.rows:
            raise WrongResultError(f"{filter}: an empty page")
    return statistics.median(times) * 1_000


async def _token(visibility: Visibility, filter: str) -> str | None:
    """Return the token of page 1,000, or of the last one; pages before it are read in large ones."""
    token: str | None = None
    before = (_DEEP - 1) * _PAGE
    while before:
        size = min(before, 9_900)
        page = await visibility.page(filter, page_size=size, page_token=token)
        if page.next_page_token is None:
            return token
        token, before = page.next_page_token, before - size
    return token


# ------------------------------------------------------------------------------- benchmarks


def p9(bench: Bench) -> list[Row]:
    """Making rows."""
    events = bench.sizes.stored
    samples = bench.rounds("P9", lambda: bench.measure("catch_up", events=events))
    figures = (
        ("events_per_s", "catch-up of visibility over", "events/s", Reach("≥", 25_000, "events/s")),
        ("rebuild_events_per_s", "rebuild of visibility beside its rows, of", "events/s", None),
        ("rebuild_s", "time of the rebuild of", "s", None),
        ("catch_up_mib", "memory that the catch-up took, at its peak, over", "MiB", None),
        ("peak_mib", "resident memory at its peak, rebuild included, with", "MiB", None),
    )
    return [
        row(
            "P9",
            f"{what} {events:,} events",
            unit,
            [sample.values[name] for sample in samples],
            samples,
            {"events": events},
            reach,
        )
        for name, what, unit, reach in figures
    ]


def p10(bench: Bench) -> list[Row]:
    """Reading pages, on SQLite, and on PostgreSQL where there is one."""
    with fresh_directory() as directory:
        rows = _paged(bench, "SQLite", directory, "")
    try:
        with running_cluster() as cluster, tempfile.TemporaryDirectory() as unused:
            url = cluster.url(cluster.create_database())
            return rows + _paged(bench, "PostgreSQL", Path(unused), url)
    except NoPostgreSQLError as error:
        bench.progress(f"P10: SQLite only: {error}")
        return rows


def _paged(bench: Bench, database: str, directory: Path, url: str) -> list[Row]:
    count = bench.sizes.rows
    bench.progress(f"P10: making {count:,} rows on {database}")
    bench.measure("fill", directory, rows=count, url=url)
    samples = bench.rounds(f"P10 on {database}", lambda: bench.measure("pages", directory, url=url))
    return [*_page_rows(database, count, samples)]


def _page_rows(database: str, count: int, samples: Sequence[Sample]) -> Iterator[Row]:
    sizes = {"rows": count, "page": _PAGE}
    figures = [(name, f"page 1 of {asked}", _REACH) for name, asked in QUESTIONS.items()]
    deep = ("region_deep", f"page {_DEEP:,} of {QUESTIONS['region']}", _REACH)
    for name, what, reach in (*figures, deep):
        times = [sample.values[f"{name}_ms"] for sample in samples]
        yield row("P10", f"{database}, {count:,} runs: {what}", "ms", times, samples, sizes, reach)
