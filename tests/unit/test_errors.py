"""The tree of errors: drawn as it is, stable codes, families apart, and facts that survive the way."""

import copy
import inspect
import pickle
from collections.abc import Iterator
from datetime import UTC, datetime
from types import UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import pytest

from aion_es import errors
from aion_es.errors import AionError, DomainError, InternalError, OperationalError

CODES: Final = {
    "AionError": "aion",
    "DomainError": "refused",
    "InvalidIdError": "invalid_id",
    "InvalidArgumentError": "invalid_argument",
    "DefinitionError": "definition",
    "PayloadError": "payload",
    "PayloadTooLargeError": "payload_too_large",
    "WorkflowNotFoundError": "workflow_not_found",
    "RunNotFoundError": "run_not_found",
    "RunClosedError": "run_closed",
    "InvalidStateError": "invalid_state",
    "WorkflowAlreadyStartedError": "workflow_already_started",
    "WorkflowTypeNotFoundError": "workflow_type_not_found",
    "ActivityTypeNotFoundError": "activity_type_not_found",
    "ContinueAsNewError": "continue_as_new",
    "PendingWorkError": "pending_work",
    "ActivityNotFoundError": "activity_not_found",
    "StaleAttemptError": "stale_attempt",
    "TimerAlreadyStartedError": "timer_already_started",
    "TimerNotStartedError": "timer_not_started",
    "ChildAlreadyStartedError": "child_already_started",
    "ChildNotFoundError": "child_not_found",
    "UnregisteredAttributeError": "unregistered_attribute",
    "ConflictingAttributeTypeError": "conflicting_attribute_type",
    "AttributeTypeError": "attribute_type",
    "ScheduleAlreadyExistsError": "schedule_already_exists",
    "ScheduleNotFoundError": "schedule_not_found",
    "SchedulePausedError": "schedule_paused",
    "ScheduleSpecError": "schedule_spec",
    "QueryNotFoundError": "query_not_found",
    "QueryFailedError": "query_failed",
    "FilterSyntaxError": "filter_syntax",
    "InvalidPageTokenError": "invalid_page_token",
    "PackageError": "package",
    "PackageNotFoundError": "package_not_found",
    "VersionPinnedError": "version_pinned",
    "WorkflowSandboxError": "workflow_sandbox",
    "OperationalError": "operational",
    "StoreError": "store",
    "ConcurrencyConflictError": "concurrency_conflict",
    "StreamDeletedError": "stream_deleted",
    "AppendTooLargeError": "append_too_large",
    "AccessDeniedError": "access_denied",
    "StoreUnavailableError": "store_unavailable",
    "StoreClosedError": "store_closed",
    "StoreCorruptError": "store_corrupt",
    "UnsupportedStoreVersionError": "unsupported_store_version",
    "UnknownStoreURLError": "unknown_store_url",
    "SubscriptionDroppedError": "subscription_dropped",
    "ConsumerGroupNotFoundError": "consumer_group_not_found",
    "ConsumerGroupExistsError": "consumer_group_exists",
    "UnknownEventTypeError": "unknown_event_type",
    "EventDecodeError": "event_decode",
    "ProjectionLagError": "projection_lag",
    "NonDeterminismError": "non_determinism",
    "VersionNotLoadedError": "version_not_loaded",
    "EngineClosedError": "engine_closed",
    "WaitTimeoutError": "wait_timeout",
    "WorkflowOutcomeError": "workflow_outcome",
    "WorkflowFailedError": "workflow_failed",
    "WorkflowCancelledError": "workflow_cancelled",
    "WorkflowTerminatedError": "workflow_terminated",
    "WorkflowTimedOutError": "workflow_timed_out",
    "ActivityError": "activity",
    "ChildWorkflowError": "child_workflow",
    "SignalDeliveryError": "signal_delivery",
    "ApplicationError": "application",
    "RetryableError": "retryable",
    "NonRetryableError": "non_retryable",
    "InternalError": "internal",
}
"""The code of every error. A new error adds a line; a line never changes: others match on codes."""


def descendants(root: type[AionError]) -> Iterator[type[AionError]]:
    for child in root.__subclasses__():
        if child.__module__.startswith(errors.__name__):
            yield child
            yield from descendants(child)


ALL: Final[tuple[type[AionError], ...]] = (AionError, *descendants(AionError))
FAMILIES: Final[tuple[type[AionError], ...]] = tuple(
    child for child in AionError.__subclasses__() if child in ALL
)
FACTS: Final[dict[Any, object]] = {
    str: "a fact",
    int: 3,
    float: 1.5,
    bool: True,
    Any: {"left": [0, None]},
    datetime: datetime(2026, 11, 24, tzinfo=UTC),
}


def fact(annotation: Any) -> object:
    """A value other than any default, for a parameter so annotated."""
    if annotation in FACTS:
        return FACTS[annotation]
    origin, members = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return members[0]
    first = fact(members[0])
    return first if origin in {Union, UnionType} else (first,)


def example(error: type[AionError], **facts: object) -> AionError:
    """An error with a value for every parameter, or those in `facts`."""
    hints = get_type_hints(error.__init__)
    if not hints:
        return error("a fact")
    given = {name: fact(hint) for name, hint in hints.items() if name != "return"} | facts
    return error(**given)


def named(error: type[AionError]) -> str:
    return error.__name__


def drawn() -> list[tuple[str, str]]:
    """Child and parent of every line in the drawing that the module's docstring holds."""
    pairs: list[tuple[str, str]] = []
    parents = ["AionError"]
    lines = [line[4:] for line in (inspect.getdoc(errors) or "").splitlines() if "── " in line]
    for line in lines:
        lead, _, rest = line.partition("── ")
        depth = len(lead) // 4 + 1
        names = rest.split("  ", maxsplit=1)[0].split(", ")
        pairs += [(name, parents[depth - 1]) for name in names]
        parents[depth:] = [names[-1]]
    return pairs


def test_the_drawing_shows_every_error_below_its_base_once_and_in_order() -> None:
    there = [(error.__name__, base_of(error).__name__) for error in ALL[1:]]
    assert by_parent(drawn()) == by_parent(there)


def by_parent(pairs: list[tuple[str, str]]) -> dict[str, list[str]]:
    """The children of each parent in their order; of the families, each a module, in no order."""
    children: dict[str, list[str]] = {}
    for child, parent in pairs:
        children.setdefault(parent, []).append(child)
    children["AionError"].sort()
    return children


def base_of(error: type[AionError]) -> type[AionError]:
    (base,) = (base for base in error.__bases__ if issubclass(base, AionError))
    return base


def test_every_error_has_a_code_of_its_own_that_never_changes() -> None:
    assert {error.__name__: error.code for error in ALL} == CODES
    assert len(set(CODES.values())) == len(CODES)
    assert [error.__name__ for error in ALL if "code" not in vars(error)] == []


def test_the_families_are_those_that_the_drawing_promises() -> None:
    assert {family.__name__ for family in FAMILIES} == {
        "DomainError",
        "OperationalError",
        "WorkflowOutcomeError",
        "ActivityError",
        "ChildWorkflowError",
        "SignalDeliveryError",
        "ApplicationError",
        "InternalError",
    }


@pytest.mark.parametrize("error", ALL[1:], ids=named)
def test_an_error_belongs_to_exactly_one_family(error: type[AionError]) -> None:
    assert len([family for family in FAMILIES if issubclass(error, family)]) == 1


def test_a_refusal_a_failure_outside_and_a_bug_are_never_caught_as_one_another() -> None:
    families = (DomainError, OperationalError, InternalError)
    caught = [[isinstance(example(each), family) for family in families] for each in families]
    assert caught == [[True, False, False], [False, True, False], [False, False, True]]


@pytest.mark.parametrize("error", ALL, ids=named)
def test_an_error_is_unpickled_with_all_its_facts(error: type[AionError]) -> None:
    raised = example(error)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        same_facts(pickle.loads(pickle.dumps(raised, protocol)), raised)


@pytest.mark.parametrize("error", ALL, ids=named)
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy], ids=["copy", "deepcopy"])
def test_an_error_is_copied_with_all_its_facts(error: type[AionError], copied: Any) -> None:
    raised = example(error)
    same_facts(copied(raised), raised)


def same_facts(found: AionError, raised: AionError) -> None:
    assert (type(found), found.args, vars(found), str(found)) == (
        type(raised),
        raised.args,
        vars(raised),
        str(raised),
    )


@pytest.mark.parametrize("error", ALL, ids=named)
def test_the_args_of_an_error_are_its_facts_in_the_order_of_its_parameters(
    error: type[AionError],
) -> None:
    raised = example(error)
    names = [name for name in get_type_hints(error.__init__) if name != "return"]
    if names:
        assert raised.args == tuple(getattr(raised, name) for name in names)
        assert type(raised)(*raised.args).args == raised.args
    else:
        assert vars(raised) == {}


@pytest.mark.parametrize("error", ALL, ids=named)
def test_the_text_of_an_error_is_prose_and_not_the_tuple_of_its_facts(
    error: type[AionError],
) -> None:
    told = str(example(error))
    assert told
    assert told != str(example(error).args)
    assert "object at 0x" not in told
    assert told == told.strip()
