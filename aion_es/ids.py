"""Identifiers: their types, what a valid one looks like, and the port that makes new ones.

Each id has a `NewType` of its own, so that a type checker refuses a run id where a workflow id is due.
"""

import re
import uuid
from typing import Final, NewType, Protocol

import uuid_utils

from aion_es.errors import InvalidIdError

WorkflowId = NewType("WorkflowId", str)
RunId = NewType("RunId", str)
ScheduleId = NewType("ScheduleId", str)
ActivityId = NewType("ActivityId", int)
"""Ordinal of the scheduling command among the activities of one run, from 0."""
TimerId = NewType("TimerId", str)
SignalId = NewType("SignalId", str)
StreamName = NewType("StreamName", str)
Namespace = NewType("Namespace", str)

DEFAULT_NAMESPACE: Final = Namespace("aion")
DEFAULT_TASK_QUEUE: Final = "default"
MAX_ID_LENGTH: Final = 255

_NAMESPACE = re.compile(r"[a-z0-9_]{1,64}")


class IdSource(Protocol):
    """Where new identifiers come from; tests replace it to make runs repeatable."""

    def new(self) -> str:
        """Return a fresh identifier, unique in practice and sortable by creation time."""
        ...


class UUIDv7Source:
    """The production `IdSource`: UUIDv7 text (RFC 9562), so that ids sort by creation time."""

    def new(self) -> str:
        """Return a fresh UUIDv7 in its 36-character text form."""
        return str(uuid_utils.uuid7())


def is_storable(text: str) -> bool:
    """Return whether every store and database can hold the text: it has no NUL and no half of a surrogate pair."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def check_id(kind: str, value: object) -> str:
    """Return `value` if it can name a workflow or a schedule.

    Args:
        kind: What the id names, for the message ("workflow_id").
        value: 1–255 printable characters (spaces inside are fine, control characters are not).

    Raises:
        InvalidIdError: It is not such a string; nothing was recorded.
    """
    if not isinstance(value, str):
        raise InvalidIdError(kind, repr(value), f"must be a str, not {type(value).__name__}")
    if not value:
        raise InvalidIdError(kind, repr(value), "must not be empty")
    if len(value) > MAX_ID_LENGTH:
        shown = f"{value[:32]}…"
        raise InvalidIdError(
            kind, shown, f"has {len(value)} characters; at most {MAX_ID_LENGTH} are allowed"
        )
    if not value.isprintable():
        raise InvalidIdError(kind, repr(value), "must contain printable characters only")
    return value


def check_namespace(value: object) -> Namespace:
    """Return `value` if it can be a namespace: 1–64 of `a-z`, `0-9` and `_`.

    Raises:
        InvalidIdError: It is not.
    """
    if not isinstance(value, str) or not _NAMESPACE.fullmatch(value):
        raise InvalidIdError("namespace", repr(value), "must be 1–64 characters of a-z, 0-9 and _")
    return Namespace(value)


def workflow_stream(namespace: Namespace, workflow_id: WorkflowId) -> StreamName:
    """Return the stream that holds every run of `workflow_id`.

    EventStoreDB takes what stands before the first `-` as the category, hence the form.
    """
    return StreamName(f"{namespace}_workflow-{workflow_id}")


def schedule_stream(namespace: Namespace, schedule_id: ScheduleId) -> StreamName:
    """Return the stream that holds one schedule."""
    return StreamName(f"{namespace}_schedule-{schedule_id}")


def catalog_stream(namespace: Namespace) -> StreamName:
    """Return the stream that says which packages of code `namespace` has loaded, and where its types are routed."""
    return StreamName(f"{namespace}_catalog")


def package_stream(namespace: Namespace, version: str) -> StreamName:
    """Return the stream that holds the files of one package, named by the hash of its content."""
    return StreamName(f"{namespace}_package-{version}")


def workflow_prefix(namespace: Namespace) -> str:
    """Return the prefix that every workflow stream of `namespace` shares."""
    return f"{namespace}_workflow-"


def package_prefix(namespace: Namespace) -> str:
    """Return the prefix that the streams of all packages of `namespace` share."""
    return f"{namespace}_package-"


def schedule_prefix(namespace: Namespace) -> str:
    """Return the prefix that every schedule stream of `namespace` shares."""
    return f"{namespace}_schedule-"


def deterministic_event_id(stream: StreamName, command_id: str, ordinal: int) -> uuid.UUID:
    """Return the id of the `ordinal`-th event of one command: UUIDv5 of the three.

    The same command on the same stream always gives the same ids, so a store recognises an append
    that is repeated after its answer was lost. Different commands never share an id: each carries an
    identity of its own.
    """
    text = f"{stream}\n{command_id}\n{ordinal}"
    made = uuid.UUID.__new__(uuid.UUID)
    # What UUID(bytes=…) does after checking bytes that need no check; every recorded event pays for it.
    _set_int(made, uuid_utils.uuid5(_EVENT_NAMESPACE, text).int)
    _set_safe(made, _UNKNOWN)
    return made


_UNKNOWN = uuid.SafeUUID.unknown  # looking it up in the enum costs as much as all the rest
_set_int = uuid.UUID.__dict__["int"].__set__
_set_safe = uuid.UUID.__dict__["is_safe"].__set__
_EVENT_NAMESPACE: Final = uuid_utils.UUID("6f2c1d0a-54b7-5f0e-9a55-8a1f6a0e7c31")
