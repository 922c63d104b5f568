"""update_attributes and record_marker, and the schema that the first is checked against."""

from typing import Any

import pytest

from aion_es.aggregates import AttributeSchema
from aion_es.errors import (
    AttributeTypeError,
    ConflictingAttributeTypeError,
    InvalidArgumentError,
    RunClosedError,
    UnregisteredAttributeError,
    WorkflowNotFoundError,
)
from aion_es.events import workflow as ev
from aion_es.events.attributes import SearchAttribute
from aion_es.events.values import AttributeValue
from aion_es.testing.aggregates import given
from tests.unit.aggregates.histories import (
    CLOSED,
    CUSTOMER,
    NEXT,
    NOON,
    TOTAL,
    schema,
    started,
    text,
    whole,
)

# ------------------------------------------------------------------------------------- the command


def test_attributes_are_set_and_removed_key_by_key() -> None:
    update = ev.SearchAttributesUpdated(attributes={"customer": None, "total": whole(3)})
    outcome = (
        given(started(attributes={"customer": text("ana")}), schema=schema())
        .when(lambda wf: wf.update_attributes({"customer": None, "total": whole(3)}, at=NOON))
        .then(update)
    )
    assert outcome.aggregate.state.attributes == {"total": whole(3)}


def test_a_later_value_wins() -> None:
    wf = given(started(attributes={"total": whole(1)}), schema=schema()).aggregate
    wf.update_attributes({"total": whole(2)}, at=NOON)
    wf.update_attributes({"total": whole(3)}, at=NOON)
    assert wf.state.attributes == {"total": whole(3)}


def test_the_same_request_is_applied_once_also_after_the_run_closed() -> None:
    applied = ev.SearchAttributesUpdated(attributes={"total": whole(3)}, request_id="req")
    given(started(), schema=schema()).when(
        lambda wf: wf.update_attributes({"total": whole(3)}, request_id="req", at=NOON)
    ).then(applied)
    given(started(), applied, CLOSED, schema=schema()).when(
        lambda wf: wf.update_attributes({"total": whole(4)}, request_id="req", at=NOON)
    ).then_nothing()


def test_an_unregistered_name_is_refused_with_the_near_ones() -> None:
    given(started(), schema=schema()).when(
        lambda wf: wf.update_attributes({"total": whole(1), "custmer": text("x")}, at=NOON)
    ).then_refused(UnregisteredAttributeError, name="custmer", near=("customer",))


def test_an_unregistered_name_is_not_removed_either() -> None:
    given(started()).when(
        lambda wf: wf.update_attributes({"customer": None}, at=NOON)
    ).then_refused(UnregisteredAttributeError, name="customer", near=())


def test_a_value_of_another_type_is_refused() -> None:
    given(started(), schema=schema()).when(
        lambda wf: wf.update_attributes({"total": text("3")}, at=NOON)
    ).then_refused(AttributeTypeError, name="total", expected="Int", actual="String")


def test_a_value_that_is_not_of_its_own_type_is_refused() -> None:
    given(started(), schema=schema()).when(
        lambda wf: wf.update_attributes(
            {"total": AttributeValue(type="Int", value="many")}, at=NOON
        )
    ).then_refused(AttributeTypeError, name="total", expected="Int", actual="str 'many'")


def test_a_closed_or_unknown_workflow_takes_no_update() -> None:
    given(started(), CLOSED, schema=schema()).when(
        lambda wf: wf.update_attributes({"total": whole(3)}, at=NOON)
    ).then_refused(RunClosedError)
    given(schema=schema()).when(
        lambda wf: wf.update_attributes({"total": whole(3)}, at=NOON)
    ).then_refused(WorkflowNotFoundError)


# -------------------------------------------------------------------------------------- the schema


def test_the_same_registration_again_is_fine() -> None:
    known = schema()
    known.register(CUSTOMER)
    known.register("total", "Int")
    assert (known.names, known["customer"], known.get("total")) == (
        ("customer", "total"),
        "String",
        "Int",
    )


def test_a_registered_type_never_changes() -> None:
    known = schema()
    with pytest.raises(ConflictingAttributeTypeError) as refused:
        known.register("total", "Float")
    assert refused.value.args == ("total", "Int", "Float")
    assert known["total"] == "Int"


@pytest.mark.parametrize("name", ["", "1st", "with space", "x" * 65, "WorkflowId", "é"])
def test_a_name_that_cannot_be_one_is_not_registered(name: str) -> None:
    known = schema()
    with pytest.raises(InvalidArgumentError):
        known.register(name, "Int")
    assert known.names == ("customer", "total")


def test_a_name_is_registered_with_a_type() -> None:
    with pytest.raises(InvalidArgumentError, match="needs a type"):
        AttributeSchema().register("total")


def test_an_unknown_name_is_looked_up_in_vain() -> None:
    known = schema()
    assert known.get("totl") is None
    assert "totl" not in known
    with pytest.raises(UnregisteredAttributeError) as refused:
        known["totl"]
    assert refused.value.near == ("total",)


def test_typed_values_are_made_and_keys_register_themselves() -> None:
    known = schema()
    city = SearchAttribute("city", str)
    typed = known.typed(city.to("Graz") | {"total": 3} | CUSTOMER.to(None))
    assert typed == {"city": text("Graz"), "total": whole(3), "customer": None}
    assert list(known) == ["customer", "total", "city"]


def test_a_dict_of_keys_and_names_is_taken_though_no_checker_can_follow_it() -> None:
    mixed: dict[Any, Any] = {SearchAttribute("city", str): "Graz", "total": 3, CUSTOMER: None}
    assert schema().typed(mixed) == {"city": text("Graz"), "total": whole(3), "customer": None}


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ({"unknown": 1}, UnregisteredAttributeError),
        ({SearchAttribute("total", float): 1.0}, ConflictingAttributeTypeError),
        ({TOTAL: "three"}, AttributeTypeError),
    ],
)
def test_a_refused_call_registers_nothing(bad: dict[Any, Any], error: type[Exception]) -> None:
    known = schema()
    with pytest.raises(error):
        known.typed({SearchAttribute("city", str): "Graz", **bad})
    assert len(known) == 2
    assert list(known) == ["customer", "total"]


# ----------------------------------------------------------------------------------------- markers


def test_a_patch_is_recorded_once_per_run() -> None:
    patch = ev.MarkerRecorded(kind="patch", name="new-price")
    given(started()).when(lambda wf: wf.record_marker("patch", "new-price", at=NOON)).then(patch)
    given(started(), patch).when(
        lambda wf: wf.record_marker("patch", "new-price", at=NOON)
    ).then_nothing()


def test_side_effects_may_share_a_name() -> None:
    effect = ev.MarkerRecorded(kind="side_effect", name="dice", value=NEXT)
    given(started(), effect).when(
        lambda wf: wf.record_marker("side_effect", "dice", NEXT, at=NOON)
    ).then(effect)


def test_a_closed_run_takes_no_marker() -> None:
    given(started(), CLOSED).when(
        lambda wf: wf.record_marker("patch", "new-price", at=NOON)
    ).then_refused(RunClosedError)
