"""A turn of a process: what it takes in, what it decided, and the appends that record it."""

from dataclasses import dataclass
from datetime import datetime

from aion_es.aggregates.aggregate import Pending
from aion_es.aggregates.repository import PreparedAppend
from aion_es.aggregates.workflow import Workflow
from aion_es.engine.requests import QueryRequest, Request
from aion_es.events.workflow import WorkflowEvent


@dataclass(slots=True, eq=False)
class Turn:
    """One turn between its decisions and its append.

    Attributes:
        items: What it settles.
        batch: What it adds, in order.
        appends: The same, ready for the store: one append, or more if it is too large for one.
        traceparents: The trace context of each event of the batch; `None` where nobody records.
        is_unsure: An append of it may have been made although its answer was lost.
    """

    items: list[Request | QueryRequest]
    workflow: Workflow
    at: datetime
    batch: list[Pending[WorkflowEvent]]
    appends: list[PreparedAppend]
    traceparents: list[str | None] | None = None
    is_unsure: bool = False
