"""Durable workflows for Python, event-sourced: plain async functions that survive `kill -9`.

Workflow authors need what is here. The aggregates are a product of their own: `aion_es.aggregates`.
Tests of yours find their tools in `aion_es.testing`.
"""

from aion_es.app import Engine
from aion_es.authoring.activities import ActivityInfo, activity
from aion_es.authoring.channels import Query, Signal
from aion_es.authoring.context import Context, WorkflowInfo
from aion_es.authoring.definitions import workflow
from aion_es.client import WorkflowDescription, WorkflowHandle
from aion_es.engine.core import EngineOptions
from aion_es.errors import ActivityError, AionError, NonRetryableError, RetryableError
from aion_es.events.attributes import SearchAttribute
from aion_es.events.values import RetryPolicy
from aion_es.payload import Payload

__all__ = [
    "ActivityError",
    "ActivityInfo",
    "AionError",
    "Context",
    "Engine",
    "EngineOptions",
    "NonRetryableError",
    "Payload",
    "Query",
    "RetryPolicy",
    "RetryableError",
    "SearchAttribute",
    "Signal",
    "WorkflowDescription",
    "WorkflowHandle",
    "WorkflowInfo",
    "activity",
    "workflow",
]
__version__ = "0.1.0"
