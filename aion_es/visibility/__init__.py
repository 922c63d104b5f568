"""What a person may ask: list filters and queries over the read model."""

from aion_es.visibility.query import Page, Visibility
from aion_es.visibility.rows import WorkflowExecution

__all__ = ["Page", "Visibility", "WorkflowExecution"]
