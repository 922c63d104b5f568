"""Reading a field off the bytes gives what decoding gives, also where the bytes look unusual."""

import pytest

from aion_es.aggregates.status import status_after
from aion_es.errors import EventDecodeError
from aion_es.events import workflow as ev
from aion_es.events.base import Event
from aion_es.events.values import ActivityFailure
from aion_es.ids import ActivityId
from aion_es.projections.glance import STATUS_AFTER, attempted, last_of, scheduled
from aion_es.store.port import RecordedEvent
from tests.unit.projections.histories import History, started
from tests.unit.projections.histories import scheduled as schedule


def recorded(event: Event, data: bytes | None = None) -> RecordedEvent:
    found = History().add("w", event).events[0]
    return found if data is None else found._replace(data=data)


@pytest.mark.parametrize("kind", ["charge", "my.module-2", "größe", 'a"b', "a\\b", "", "x,y"])
def test_id_and_type_are_read_off_a_scheduled_activity_of_any_name(kind: str) -> None:
    assert scheduled(recorded(schedule(12, kind))) == (12, kind)


def test_id_and_attempt_are_read_off_an_outcome() -> None:
    failed = ev.ActivityFailed(
        activity_id=ActivityId(3), attempt=4, error=ActivityFailure(kind="terminal", type="B")
    )
    assert attempted(recorded(failed)) == (3, 4)
    assert attempted(recorded(ev.ActivityCompleted(activity_id=ActivityId(0), attempt=1))) == (0, 1)


def test_json_of_another_layout_is_decoded() -> None:
    other = b'{ "attempt": 2, "activity_id": 7 }'
    assert attempted(recorded(ev.ActivityStarted(activity_id=ActivityId(0), attempt=1), other)) == (
        7,
        2,
    )
    other = b'{"task_queue":"q","activity_type":"x","activity_id":7}'
    assert scheduled(recorded(schedule(0), other)) == (7, "x")


def test_what_is_no_such_event_is_a_decode_error() -> None:
    with pytest.raises(EventDecodeError):
        scheduled(recorded(schedule(0), b'{"activity_id":1}'))


def test_the_status_table_is_the_aggregates_fold() -> None:
    assert STATUS_AFTER["WorkflowStarted"] is status_after(started())
    assert STATUS_AFTER["WorkflowCompleted"] is status_after(ev.WorkflowCompleted())
    assert STATUS_AFTER["MarkerRecorded"] is None


def test_the_last_event_of_some_types_is_found_from_the_end() -> None:
    events = (
        History().add("w", started(), schedule(0), ev.WorkflowCompleted(), started("r2")).events
    )
    assert last_of(events, frozenset({"WorkflowStarted"})) == 3
    assert last_of(events, frozenset({"WorkflowFailed"})) == -1
