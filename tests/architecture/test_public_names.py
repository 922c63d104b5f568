"""The public names, pinned: a name that comes or goes is a decision, and shows up in this file."""

import importlib
import inspect

import pytest

PUBLIC = {
    "aion_es": [
        "ActivityError",
        "ActivityInfo",
        "AionError",
        "ChildHandle",
        "ChildWorkflowError",
        "Client",
        "Context",
        "Engine",
        "EngineOptions",
        "NonRetryableError",
        "Payload",
        "Query",
        "QueueOptions",
        "RetryPolicy",
        "RetryableError",
        "SearchAttribute",
        "SearchAttributeValues",
        "Signal",
        "SignalDeliveryError",
        "WorkflowDescription",
        "WorkflowHandle",
        "WorkflowInfo",
        "activity",
        "workflow",
    ],
    "aion_es.aggregates": [
        "ActivityState",
        "Aggregate",
        "AttributeSchema",
        "ChildState",
        "Executed",
        "ExecutedSchedule",
        "OnConflict",
        "Pending",
        "PendingWork",
        "ReadWriteStore",
        "RetrySettings",
        "Reuse",
        "Saved",
        "Schedule",
        "ScheduleRepository",
        "ScheduleState",
        "StartWorkflow",
        "Workflow",
        "WorkflowRepository",
        "WorkflowState",
        "WorkflowStatus",
        "evolve",
        "pending_work",
        "status_after",
        "successor_of",
    ],
    "aion_es.schedules": [
        "Calendar",
        "CatchUp",
        "Cron",
        "Interval",
        "Overlap",
        "Schedule",
        "Spec",
        "Start",
        "next_times",
        "times_between",
    ],
    "aion_es.testing": ["FaultyStore", "ManualClock", "StoreContract", "given", "given_schedule"],
}


@pytest.mark.parametrize("module", PUBLIC)
def test_a_public_module_exports_exactly_its_pinned_names(module: str) -> None:
    assert importlib.import_module(module).__all__ == PUBLIC[module]


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in PUBLIC.items() for name in names]
)
def test_a_public_name_exists_and_says_what_it_is(module: str, name: str) -> None:
    found = getattr(importlib.import_module(module), name)
    if inspect.isclass(found) or inspect.isroutine(found):
        assert found.__doc__, f"{module}.{name} has no docstring"


def test_the_version_is_the_one_of_the_installed_package() -> None:
    from importlib.metadata import version

    assert importlib.import_module("aion_es").__version__ == version("aion-es")
