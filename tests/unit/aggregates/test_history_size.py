"""The bytes of a run's history, up to any of its events: of recorded ones, and of those that wait for their append."""

from collections import Counter
from collections.abc import Callable

import pytest

from aion_es.aggregates import Workflow, WorkflowRepository
from aion_es.aggregates.history_size import HistorySize
from aion_es.events import codec
from aion_es.events.base import Event
from aion_es.events.codec import decode_envelope, encode
from aion_es.events.values import SignalMessage
from aion_es.ids import SignalId
from aion_es.payload import Payload
from aion_es.store.memory import MemoryEventStore
from tests.unit.aggregates.histories import NEXT, NEXT_RUN, NOON, OOPS, start


def new() -> Workflow:
    return WorkflowRepository(MemoryEventStore()).new("order-42")


def told(workflow: Workflow, lengths: int) -> list[int]:
    return [workflow.history_bytes(length) for length in range(lengths + 1)]


def signals(workflow: Workflow, *texts: str) -> None:
    for text in texts:
        message = SignalMessage(signal_id=SignalId(text), name="note", payload=Payload.of(text))
        workflow.receive_signal(message, at=NOON)


def sums(*events: Event) -> list[int]:
    data = [len(encode(event)) for event in events]
    return [sum(data[:length]) for length in range(len(data) + 1)]


def test_sizes_are_summed_up_to_any_event_in_any_order() -> None:
    size = HistorySize()
    size.add((5, 7, 11))
    assert [size.of_first(n) for n in (3, 1, 2, 0, 3)] == [23, 5, 12, 0, 23]
    size.add((2,))
    assert (size.of_first(4), len(size)) == (25, 4)


def test_what_waits_for_its_append_is_counted_as_it_will_be_written() -> None:
    workflow = new()
    workflow.start(start(), at=NOON)
    signals(workflow, "a", "ä" * 100)
    assert told(workflow, 3) == sums(*(pending.event for pending in workflow.uncommitted))


async def test_recorded_events_count_the_same_in_memory_and_read_again() -> None:
    store = MemoryEventStore()
    repository = WorkflowRepository(store)
    workflow = repository.new("order-42")
    workflow.start(start(), at=NOON)
    signals(workflow, "a")
    await repository.save(workflow)
    signals(workflow, "bb", "ccc")
    waiting = told(workflow, 4)
    await repository.save(workflow)
    stored = [len(e.data) async for e in store.read(repository.stream("order-42"))]
    assert waiting == told(workflow, 4) == [sum(stored[:n]) for n in range(5)]
    assert told(await repository.load("order-42"), 4) == waiting


async def test_a_new_run_counts_from_its_own_start_before_and_after_its_append() -> None:
    store = MemoryEventStore()
    repository = WorkflowRepository(store)
    workflow = repository.new("order-42")
    workflow.start(start(), at=NOON)
    signals(workflow, "of the first run")
    await repository.save(workflow)
    workflow.continue_as_new(NEXT, package_version="2", new_run_id=NEXT_RUN, at=NOON)
    signals(workflow, "x")
    _, *own = (pending.event for pending in workflow.uncommitted)
    assert told(workflow, 2) == sums(*own)
    await repository.save(workflow)
    assert told(workflow, 2) == sums(*own)
    workflow.fail(OOPS, at=NOON)
    own.append(workflow.uncommitted[0].event)
    await repository.save(workflow)
    assert told(workflow, 3) == sums(*own)
    assert told(await repository.load("order-42"), 3) == sums(*own)
    whole_chain = [decode_envelope(e) async for e in store.read(repository.stream("order-42"))]
    assert told(repository.fold("order-42", whole_chain), 3) == sums(*own)


def test_a_run_that_began_during_an_earlier_append_counts_from_its_own_start() -> None:
    repository = WorkflowRepository(MemoryEventStore())
    workflow = repository.new("order-42")
    workflow.start(start(), at=NOON)
    workflow.continue_as_new(NEXT, package_version="2", new_run_id=NEXT_RUN, at=NOON)
    own = workflow.uncommitted[-1].event
    workflow.mark_saved(0, 1)
    assert told(workflow, 1) == sums(own)
    workflow.mark_saved(1, 1)
    assert told(workflow, 1) == sums(own)
    workflow.mark_saved(2)
    assert told(workflow, 1) == sums(own)


async def test_an_event_whose_size_was_asked_for_is_written_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: Counter[str] = Counter()
    encoder_of = vars(codec)["_encoder_of"]

    def counting(kind: type[Event]) -> Callable[[Event], bytes]:
        def write(event: Event) -> bytes:
            written[kind.__name__] += 1
            data: bytes = encoder_of(kind)(event)
            return data

        return write

    monkeypatch.setattr(codec, "_encoder_of", counting)
    monkeypatch.setattr(codec, "_encoders", {})
    repository = WorkflowRepository(MemoryEventStore())
    workflow = repository.new("order-42")
    workflow.start(start(), at=NOON)
    signals(workflow, "a")
    assert told(workflow, 1) == told(workflow, 1)
    await repository.save(workflow)
    signals(workflow, "b")
    assert told(workflow, 3)[3] > told(workflow, 3)[2]
    await repository.save(workflow)
    assert written == {"WorkflowStarted": 1, "SignalReceived": 2}
