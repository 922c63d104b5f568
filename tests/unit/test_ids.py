"""Identifiers: what a valid one is, the streams they name, and where new ones come from."""

import uuid
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aion_es.clock import SystemClock
from aion_es.errors import InvalidIdError
from aion_es.ids import (
    MAX_ID_LENGTH,
    Namespace,
    ScheduleId,
    StreamName,
    UUIDv7Source,
    WorkflowId,
    check_id,
    check_namespace,
    deterministic_event_id,
    schedule_prefix,
    schedule_stream,
    workflow_prefix,
    workflow_stream,
)

STREAM = StreamName("aion_workflow-checkout-42")
SHOP = Namespace("shop")


@pytest.mark.parametrize("value", ["a", "checkout-42", "with space", "Ørsted/✓", "-", "x" * 255])
def test_printable_text_up_to_the_limit_can_be_an_id(value: str) -> None:
    assert check_id("workflow_id", value) == value


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("", "workflow_id '' must not be empty"),
        (
            "x" * (MAX_ID_LENGTH + 1),
            f"workflow_id {'x' * 32}… has 256 characters; at most 255 are allowed",
        ),
        ("a\nb", "workflow_id 'a\\nb' must contain printable characters only"),
        ("a\x00", "workflow_id 'a\\x00' must contain printable characters only"),
        ("\ud800", "workflow_id '\\ud800' must contain printable characters only"),
        (7, "workflow_id 7 must be a str, not int"),
        (None, "workflow_id None must be a str, not NoneType"),
        (b"a", "workflow_id b'a' must be a str, not bytes"),
    ],
)
def test_anything_else_is_refused_and_told_why(value: object, told: str) -> None:
    with pytest.raises(InvalidIdError) as caught:
        check_id("workflow_id", value)
    assert str(caught.value) == told
    assert caught.value.kind == "workflow_id"


@pytest.mark.parametrize("value", ["aion", "a", "0", "_", "shop_2", "x" * 64])
def test_lower_case_digits_and_underscores_can_be_a_namespace(value: str) -> None:
    assert check_namespace(value) == value


@pytest.mark.parametrize("value", ["", "x" * 65, "Shop", "a-b", "a b", "é", "a\n", None, 7])
def test_anything_else_cannot_be_a_namespace(value: object) -> None:
    with pytest.raises(InvalidIdError, match="must be 1–64 characters of a-z, 0-9 and _") as caught:
        check_namespace(value)
    assert (caught.value.kind, caught.value.value) == ("namespace", repr(value))


def test_a_workflow_has_one_stream_in_the_category_of_its_namespace() -> None:
    assert workflow_stream(SHOP, WorkflowId("checkout-42")) == "shop_workflow-checkout-42"


def test_a_schedule_has_one_stream_in_the_category_of_its_namespace() -> None:
    assert schedule_stream(SHOP, ScheduleId("nightly")) == "shop_schedule-nightly"


def test_prefixes_tell_workflows_schedules_and_namespaces_apart() -> None:
    streams = [
        workflow_stream(SHOP, WorkflowId("schedule-1")),
        schedule_stream(SHOP, ScheduleId("workflow-1")),
        workflow_stream(Namespace("shop_2"), WorkflowId("1")),
    ]
    assert [name.startswith(workflow_prefix(SHOP)) for name in streams] == [True, False, False]
    assert [name.startswith(schedule_prefix(SHOP)) for name in streams] == [False, True, False]


def test_new_ids_are_uuids_of_version_7_in_their_text_form() -> None:
    made = UUIDv7Source().new()
    assert (str(uuid.UUID(made)), uuid.UUID(made).version) == (made, 7)


def test_new_ids_are_unique_and_sort_by_creation() -> None:
    source = UUIDv7Source()
    made = [source.new() for _ in range(2000)]
    assert sorted(set(made)) == made


def test_event_ids_are_the_uuid_5_of_stream_command_and_ordinal() -> None:
    # Recorded in every store: this form may never change.
    namespace = uuid.UUID("6f2c1d0a-54b7-5f0e-9a55-8a1f6a0e7c31")
    assert deterministic_event_id(STREAM, "command-1", 2) == uuid.uuid5(
        namespace, f"{STREAM}\ncommand-1\n2"
    )


identities = st.tuples(
    st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1),
    st.text(st.sampled_from("a1\n")),
    st.integers(min_value=0, max_value=200),
)


@given(one=identities, other=identities)
def test_event_ids_are_equal_only_for_the_same_stream_command_and_ordinal(
    one: tuple[str, str, int], other: tuple[str, str, int]
) -> None:
    ids = [
        deterministic_event_id(StreamName(stream), command, ordinal)
        for stream, command, ordinal in (one, other)
    ]
    assert (ids[0] == ids[1]) == (one == other)


def test_the_system_clock_tells_an_instant_in_utc() -> None:
    before = datetime.now(UTC)  # noqa: TID251 - compared with the port itself
    now = SystemClock().now()
    assert now.tzinfo is UTC
    assert before <= now
