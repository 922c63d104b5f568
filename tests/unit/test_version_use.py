"""What needs a version: open runs, and children that are recorded to start on it."""

from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

from aion_es.engine.version_use import Use, VersionUse
from aion_es.ids import RunId, WorkflowId
from aion_es.projections.pending_index import OpenVersion, PendingChild
from aion_es.store.port import Position

CHILD = PendingChild(
    WorkflowId("parent"),
    RunId("r"),
    WorkflowId("child"),
    "ship",
    "v1",
    "default",
    "cancel",
    parent_open=True,
    owed="start",
)


class Rows:
    """The rows, and how far they had to be when they were asked for."""

    def __init__(self) -> None:
        self.awaited: list[Position] = []

    async def open_versions(self) -> list[OpenVersion]:
        assert self.awaited == [Position(7, 7)]
        return [OpenVersion("pay", "v1", 2), OpenVersion("pay", "v2", 9), OpenVersion("a", "v1", 3)]

    async def children(self) -> list[PendingChild]:
        return [
            CHILD,
            replace(CHILD, package_version="v2"),
            replace(CHILD, owed="outcome"),
            replace(CHILD, owed="close"),
        ]

    async def end_position(self) -> Position:
        return Position(7, 7)

    async def wait_until(self, position: Position, *, projection: str, timeout: timedelta) -> None:
        assert (projection, timeout) == ("pending_work", timedelta(seconds=10))
        self.awaited.append(position)


async def test_open_runs_and_children_about_to_start_need_a_version() -> None:
    rows = cast("Any", Rows())
    assert await VersionUse(rows, rows, rows).of("v1") == Use(5, 1, ("a", "pay", "ship"))


async def test_a_version_that_nothing_is_pinned_to_is_free() -> None:
    rows = cast("Any", Rows())
    assert await VersionUse(rows, rows, rows).of("v3") == Use(0, 0, ())
