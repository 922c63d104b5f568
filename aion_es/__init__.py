"""Durable workflows for Python, event-sourced: plain async functions that survive `kill -9`.

Workflow authors need what is here. The aggregates are a product of their own: `aion_es.aggregates`.
Tests of yours find their tools in `aion_es.testing`.
"""

from aion_es.app import Engine
from aion_es.authoring.activities import ActivityInfo, activity
from aion_es.authoring.channels import Query, Signal
from aion_es.authoring.children import ChildHandle
from aion_es.authoring.context import Context
from aion_es.authoring.definitions import workflow
from aion_es.authoring.runtime import WorkflowInfo
from aion_es.client import WorkflowDescription, WorkflowHandle
from aion_es.engine.options import EngineOptions
from aion_es.engine.queues import QueueOptions
from aion_es.errors import (
    ActivityError,
    AionError,
    ChildWorkflowError,
    NonRetryableError,
    RetryableError,
    SignalDeliveryError,
)
from aion_es.events.attributes import SearchAttribute, SearchAttributeValues
from aion_es.events.values import RetryPolicy
from aion_es.payload import Payload
from aion_es.remote import Client

__all__ = [
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
]
__version__ = "0.1.0"
