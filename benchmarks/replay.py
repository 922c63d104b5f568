"""What a history costs: replay by its length, and loading by the length of the chain of runs (P6, P7)."""

import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final

from aion_es.aggregates.attributes import AttributeSchema
from aion_es.aggregates.lifecycle import StartWorkflow
from aion_es.aggregates.workflow import Workflow
from aion_es.aggregates.workflow_repository import WorkflowRepository
from aion_es.authoring.definitions import workflow_definition
from aion_es.collector import paused_collector
from aion_es.engine.execution import CodeExecution
from aion_es.engine.replay import replay
from aion_es.engine.surroundings import Surroundings
from aion_es.events.codec import decode_history
from aion_es.ids import ActivityId, RunId, UUIDv7Source
from aion_es.payload import Payload
from aion_es.store.memory import MemoryEventStore
from aion_es.store.port import RecordedEvent
from aion_es.store.sqlite import SQLiteEventStore
from benchmarks.harness import Bench, Reach, Row, row
from benchmarks.workloads import Measured, WrongResultError, many_steps, settings_of

_REPLAYS: Final = 3
_MOST_REPLAYS: Final = 200
_SHORT: Final = 20_000
"""Events: a shorter history is replayed more often, so that its figure is as steady as a long one's."""
_LONG: Final = 1_000
"""Runs from which a chain counts as long: a few runs more make no difference to it."""
_EVENTS_PER_STEP: Final = 3
_RUNS_PER_APPEND: Final = 100
_AT: Final = datetime(2030, 1, 1, 12, tzinfo=UTC)
_FLAT: Final = 20.0
"""Percent by which a cost may differ and still count as flat."""


# -------------------------------------------------------------------------------- measuring


async def histories(directory: str, lengths: Sequence[int]) -> Measured:
    """P6: decode, fold and replay a history by its code; events per second, for each length."""
    del directory  # nothing is read from a disk here
    repository = WorkflowRepository(MemoryEventStore())
    _replayed(repository, await _history(min(lengths)))  # validators are built when first used
    values: dict[str, float] = {}
    for length in lengths:
        stored = await _history(length)
        replays = max(_REPLAYS, min(_SHORT // length, _MOST_REPLAYS))
        values[f"events_per_s_{length}"] = statistics.median(
            len(stored) / _replayed(repository, stored) for _ in range(replays)
        )
    return {"values": values, "settings": {"cores": "1"}}


async def _history(length: int) -> list[RecordedEvent]:
    """Return about `length` events of one open run of `many_steps`, as a store gives them."""
    store = MemoryEventStore()
    repository = WorkflowRepository(store)
    workflow = repository.new("replayed")
    count = (length - 1) // _EVENTS_PER_STEP
    _start(workflow, Payload(data=count + 1))  # one activity more than there is: the run stays open
    for number in range(count):
        step = ActivityId(number)
        workflow.schedule_activity(step, "add_one", Payload(data=number), at=_AT)
        workflow.complete_activity(step, 1, Payload(data=number + 1), worker="bench", at=_AT)
        if len(workflow.uncommitted) >= 1_000:
            await repository.save(workflow)
    await repository.save(workflow)
    stored = [event async for event in store.read(repository.stream("replayed"))]
    await store.aclose()
    return stored


def _start(workflow: Workflow, input: Payload) -> None:
    workflow.start(
        StartWorkflow(
            workflow_type="many_steps",
            package_version="1",
            run_id=RunId(UUIDv7Source().new()),
            input=input,
        ),
        at=_AT,
    )


def _replayed(repository: WorkflowRepository, stored: Sequence[RecordedEvent]) -> float:
    """Return how long it takes to bring aggregate and code to where the history ends, in seconds.

    In the same steps as the engine, when it brings a run back.
    """
    surroundings = Surroundings(AttributeSchema(), lambda _: "1", lambda *_: "1", 1_000_000)
    began = time.perf_counter()
    history = decode_history(stored)
    workflow = repository.fold("replayed", history)
    execution = CodeExecution(workflow_definition(many_steps), workflow, surroundings)
    with paused_collector():
        replay(execution, history)
    took = time.perf_counter() - began
    commands = execution.take_commands()
    execution.close()
    if [str(command) for command in commands] != [f"activity {len(stored) // 3} 'add_one'"]:
        raise WrongResultError(f"the code does not go on where the history ends: {commands}")
    return took


async def chains(directory: str, lengths: Sequence[int], loads: int) -> Measured:
    """P7: load a workflow whose run is the n-th of its chain, and continue it once more; microseconds."""
    values: dict[str, float] = {}
    async with await SQLiteEventStore.open(f"{directory}/chains.db") as store:
        repository = WorkflowRepository(store)
        for length in lengths:
            # Continued a second time a short chain is another one: it takes many to measure on.
            names = [f"{length}-{number}" for number in range(loads if length < _LONG else 1)]
            for name in names:
                await _chain(repository, name, length)
            calls = [names[number % len(names)] for number in range(loads)]
            load = [partial(repository.load, name) for name in calls]
            go_on = [partial(repository.execute, name, _continue) for name in calls]
            values[f"load_us_{length}"] = await _microseconds(load)
            values[f"continue_us_{length}"] = await _microseconds(go_on)
        settings = await settings_of(store)
    return {"values": values, "settings": settings}


async def _chain(repository: WorkflowRepository, workflow_id: str, length: int) -> None:
    workflow = repository.new(workflow_id)
    _start(workflow, Payload(data=0))
    for run in range(1, length):
        _continue(workflow)
        if run % _RUNS_PER_APPEND == 0:
            await repository.save(workflow)
    await repository.save(workflow)


def _continue(workflow: Workflow) -> None:
    workflow.continue_as_new(Payload(data=1), package_version="1", at=_AT)


async def _microseconds(calls: Sequence[Callable[[], Awaitable[object]]]) -> float:
    """Return the median time of the calls."""
    times: list[float] = []
    for call in calls:
        began = time.perf_counter()
        await call()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e6


# ------------------------------------------------------------------------------- benchmarks


def p6(bench: Bench) -> list[Row]:
    """Replay speed by the length of the history."""
    lengths = bench.sizes.histories
    samples = bench.rounds("P6", lambda: bench.measure("histories", lengths=lengths))
    rows: list[Row] = []
    for length in lengths:
        speeds = [sample.values[f"events_per_s_{length}"] for sample in samples]
        reach = Reach("≥", 60_000, "events/s") if length == 10_000 else None
        what = f"replay of {length:,} events: decode, fold, run the code"
        rows.append(row("P6", what, "events/s", speeds, samples, {"events": length}, reach))
    spread = [
        _deviation([1 / sample.values[f"events_per_s_{n}"] for n in lengths]) for sample in samples
    ]
    what = f"cost per event at {_listed(lengths[1:])} events differs from that at {lengths[0]:,} by"
    sizes = {"events": max(lengths)}
    rows.append(row("P6", what, "%", spread, samples, sizes, Reach("≤", _FLAT, "%")))
    return rows


def p7(bench: Bench) -> list[Row]:
    """Loading and continuing by the length of the chain."""
    lengths = bench.sizes.chains
    samples = bench.rounds(
        "P7", lambda: bench.measure("chains", lengths=lengths, loads=bench.sizes.loads)
    )
    rows: list[Row] = []
    for key, what in (("load", "load the aggregate"), ("continue", "continue as new once more")):
        for length in lengths:
            times = [sample.values[f"{key}_us_{length}"] for sample in samples]
            rows.append(
                row(
                    "P7",
                    f"{what}, run {length:,} of its chain",
                    "µs",
                    times,
                    samples,
                    {"runs": length},
                )
            )
        spread = [
            _deviation([sample.values[f"{key}_us_{length}"] for length in lengths])
            for sample in samples
        ]
        told = f"{what}: run {_listed(lengths[1:])} differs from run {lengths[0]:,} by"
        sizes = {"runs": max(lengths)}
        rows.append(row("P7", told, "%", spread, samples, sizes, Reach("≤", _FLAT, "%")))
    return rows


def _listed(lengths: Sequence[int]) -> str:
    return " / ".join(f"{length:,}" for length in lengths)


def _deviation(values: Sequence[float]) -> float:
    """Return by how many percent the values differ from the first, at most."""
    first, *others = values
    return max((abs(value / first - 1) * 100 for value in others), default=0.0)
