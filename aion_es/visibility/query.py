"""Queries over runs: list, count, get, chain and watch, by filters, in stable pages."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, overload

from sqlalchemy import Connection, Select, select

from aion_es.aggregates.attributes import AttributeSchema
from aion_es.clock import Clock, SystemClock
from aion_es.errors import (
    FilterSyntaxError,
    InvalidArgumentError,
    RunNotFoundError,
    WorkflowNotFoundError,
)
from aion_es.events.conditions import Comparable
from aion_es.events.values import AttributeType
from aion_es.projections.read_model import ReadModel
from aion_es.projections.runner import ProjectionRunner
from aion_es.projections.visibility import VisibilityProjection
from aion_es.projections.visibility_tables import EXECUTIONS
from aion_es.store.port import Position
from aion_es.visibility.arguments import (
    Asked,
    Ordered,
    can_be_id,
    check_page_size,
    check_position,
    check_span,
    filter_text,
    order_text,
)
from aion_es.visibility.attributes import SearchAttributes
from aion_es.visibility.compile import conjuncts, count_query, group_query
from aion_es.visibility.fields import Field, find_field, near_fields
from aion_es.visibility.filter import Filter, parse_filter
from aion_es.visibility.name_sets import read_sets
from aion_es.visibility.page_tokens import Started, read_token, write_token
from aion_es.visibility.pages import read_page
from aion_es.visibility.rows import WorkflowExecution, execution_from
from aion_es.visibility.watching import Marks, VisibilityChange, look

MAX_GROUPS: Final = 10_000
_PATIENCE: Final = timedelta(seconds=5)
_PAGE: Final = 100
_LOOK: Final = timedelta(milliseconds=200)
_GROUPS: Final = {"status": "ExecutionStatus", "type": "WorkflowType"}


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the runs that were asked for.

    Attributes:
        rows: In the order that was asked for.
        next_page_token: What gives the following page; `None` if this is the last.
    """

    rows: tuple[WorkflowExecution, ...]
    next_page_token: str | None
    _write: Callable[[int], str] = field(repr=False, compare=False)

    def token_after(self, index: int) -> str:
        """Return what gives the page that begins behind row number `index`."""
        return self._write(index)


class Visibility:
    """What is known of all runs, by the read model: a moment behind the store, unless `at_least` is given.

    A filter is a text, as in `ExecutionStatus = 'Running' AND customer = 'ana'`, or a condition of
    `aion_es.visibility`; empty for all. A comparison with a field that a run does not have is false, and
    its NOT is true; use IS NULL and IS NOT NULL to ask for that. On a KeywordList `=` and IN mean *contains*.

    Attributes:
        attributes: The search attributes that a filter may name.
    """

    def __init__(
        self,
        read_model: ReadModel,
        runner: ProjectionRunner,
        schema: AttributeSchema,
        *,
        clock: Clock | None = None,
    ) -> None:
        """Ask `read_model`, which `runner` keeps up to date.

        Args:
            read_model: With the tables of the `visibility` projection.
            runner: Waited for when `at_least` is given.
            schema: Search attributes that this process registered; others are learnt when they are named.
            clock: Tells what `now()` in a filter is. Default: the system's.
        """
        self.attributes = SearchAttributes(read_model, schema)
        self._read_model = read_model
        self._runner = runner
        self._schema = schema
        self._clock = clock or SystemClock()

    async def list(
        self,
        filter: Asked = "",
        *,
        order_by: Ordered = "",
        page_size: int = _PAGE,
        page_token: str | None = None,
        at_least: Position | None = None,
        timeout: timedelta = _PATIENCE,
    ) -> AsyncIterator[WorkflowExecution]:
        """Yield the runs that `filter` asks for, newest first unless an order is given.

        A run that satisfies the filter all the time, and keeps its place in the order, comes exactly
        once, whatever is started or closed meanwhile. `now()` stands for one instant in all pages.

        Args:
            filter: Which runs.
            order_by: As in `"total DESC"`, `StartTime.desc()`, or a field or a key, smallest first; not
                beside an ORDER BY of the filter.
            page_size: Read at once.
            page_token: Begin behind the page that gave it.
            at_least: First wait until the read model has seen this position: read your own writes.
            timeout: How long to wait for that.

        Raises:
            FilterSyntaxError: The filter or the order cannot be understood.
            InvalidPageTokenError: The token is damaged, or of another filter or order.
            ProjectionLagError: The read model did not come to `at_least` in time.
            InvalidArgumentError: `page_size` is not 1–10,000, or an argument is of another type.
        """
        while True:
            page = await self.page(
                filter,
                order_by=order_by,
                page_size=page_size,
                page_token=page_token,
                at_least=at_least,
                timeout=timeout,
            )
            for row in page.rows:
                yield row
            page_token, at_least = page.next_page_token, None
            if page_token is None:
                return

    async def page(
        self,
        filter: Asked = "",
        *,
        order_by: Ordered = "",
        page_size: int = _PAGE,
        page_token: str | None = None,
        at_least: Position | None = None,
        timeout: timedelta = _PATIENCE,
    ) -> Page:
        """Return one page.

        Args:
            filter: As `list` takes it.
            order_by: As `list` takes it.
            page_size: At most so many rows, 1–10,000.
            page_token: From the page before, asked for with the same filter and order; `None` for the
                first page.
            at_least: First wait until the read model has seen this position.
            timeout: How long to wait for that.

        Raises:
            FilterSyntaxError: The filter or the order cannot be understood.
            InvalidPageTokenError: The token is damaged, or of another filter or order.
            ProjectionLagError: The read model did not come to `at_least` in time.
            InvalidArgumentError: `page_size` is not 1–10,000, or an argument is of another type.
        """
        check_page_size(page_size)
        started = None if page_token is None else read_token(page_token)
        now = self._clock.now() if started is None else started.now
        asked = await self._parsed(filter, now, order_text(order_by))
        await self._wait(at_least, timeout)
        found = await self._read_model.read(partial(_read_page, asked, started, page_size + 1))
        shown = found[:page_size]

        def write(index: int) -> str:
            return write_token(asked, now, (shown[index].sort_value, shown[index].run_id))

        following = write(-1) if len(found) > page_size else None
        return Page(tuple(execution_from(row) for row in shown), following, write)

    @overload
    async def count(
        self,
        filter: Asked = "",
        group_by: None = None,
        *,
        at_least: Position | None = None,
        timeout: timedelta = _PATIENCE,
    ) -> int: ...

    @overload
    async def count(
        self,
        filter: Asked,
        group_by: str | Comparable[Any],
        *,
        at_least: Position | None = None,
        timeout: timedelta = _PATIENCE,
    ) -> dict[str, int]: ...

    @overload
    async def count(
        self,
        filter: Asked = "",
        *,
        group_by: str | Comparable[Any],
        at_least: Position | None = None,
        timeout: timedelta = _PATIENCE,
    ) -> dict[str, int]: ...

    async def count(
        self,
        filter: Asked = "",
        group_by: str | Comparable[Any] | None = None,
        *,
        at_least: Position | None = None,
        timeout: timedelta = _PATIENCE,
    ) -> int | dict[str, int]:
        """Return how many runs `filter` asks for; with `group_by`, by each value of a field.

        Args:
            filter: Which runs.
            group_by: A field of text: built in, String or KeywordList; or `"status"` or `"type"`, which are
                short for two of them while no attribute is called so. Groups come in order of their values. A run without a value is in none; a run with several words is
                counted once for each.
            at_least: First wait until the read model has seen this position.
            timeout: How long to wait for that.

        Raises:
            FilterSyntaxError: The filter cannot be understood.
            InvalidArgumentError: There is no such field, or two, it is not of text, or it has more than
                10,000 values; or an argument is of another type.
            ProjectionLagError: The read model did not come to `at_least` in time.
        """
        asked = await self._parsed(filter, self._clock.now())
        group = None if group_by is None else await self._group_field(group_by)
        await self._wait(at_least, timeout)
        if group is None:
            return await self._read_model.read(partial(_read_count, asked))
        groups = await self._read_model.read(partial(_read_groups, asked, group))
        if len(groups) > MAX_GROUPS:
            raise InvalidArgumentError(
                "group_by", f"{group.name} has more than {MAX_GROUPS:,} values"
            )
        return {value: int(number) for value, number in groups}

    async def watch(
        self,
        filter: Asked = "",
        *,
        interval: timedelta = _LOOK,
        at_least: Position | None = None,
        timeout: timedelta = _PATIENCE,
    ) -> AsyncGenerator[VisibilityChange]:
        """Yield what becomes of the runs that `filter` asks for, for ever; first an `enter` for each.

        The rows are looked at again and again: a run that came and went between two looks is not told
        of, one that changed twice is told of once. `now()` moves. An ORDER BY has no effect.

        Args:
            filter: Which runs; at most 10,000 at a time.
            interval: Between two looks, and four times as long as a look takes if that is longer.
            at_least: Before the first look wait until the read model has seen this position.
            timeout: How long to wait for that.

        Raises:
            FilterSyntaxError: The filter cannot be understood.
            InvalidArgumentError: More than 10,000 runs satisfy it, now or later; or an argument is of
                another type.
            ProjectionLagError: The read model did not come to `at_least` in time.
        """
        check_span("interval", interval)
        marks: Marks = {}
        await self._wait(at_least, timeout)
        while True:
            began = time.monotonic()
            asked = await self._parsed(filter, self._clock.now())
            marks, changes = await self._read_model.read(partial(look, asked, marks))
            for change in changes:
                yield change
            took = time.monotonic() - began
            await asyncio.sleep(max(interval.total_seconds(), 4 * took))

    async def get(self, workflow_id: str, run_id: str | None = None) -> WorkflowExecution:
        """Return one run: the newest of `workflow_id`, or `run_id`.

        Raises:
            WorkflowNotFoundError: The read model knows no run of this workflow.
            RunNotFoundError: It knows others, not this one.
            InvalidArgumentError: An id is no text.
        """
        if not can_be_id("workflow_id", workflow_id):
            raise WorkflowNotFoundError(workflow_id)
        if run_id is not None and not can_be_id("run_id", run_id):
            raise RunNotFoundError(workflow_id, run_id)
        query = select(EXECUTIONS).where(EXECUTIONS.c.workflow_id == workflow_id)
        newest_first = query.order_by(EXECUTIONS.c.run_key.desc()).limit(1)
        wanted = newest_first
        if run_id is not None:
            wanted = newest_first.where(EXECUTIONS.c.run_id == run_id)
        rows = await self._all(wanted)
        if rows:
            return execution_from(rows[0])
        if run_id is not None and await self._all(newest_first):
            raise RunNotFoundError(workflow_id, run_id)
        raise WorkflowNotFoundError(workflow_id)

    async def run_chain(
        self, workflow_id: str, run_id: str | None = None
    ) -> "list_[WorkflowExecution]":
        """Return the runs that continue-as-new links with a run, oldest first.

        Args:
            workflow_id: Whose runs.
            run_id: Of the chain that is meant; that of the newest run by default.

        Raises:
            WorkflowNotFoundError: The read model knows no run of this workflow.
            RunNotFoundError: It knows others, not this one.
        """
        run = await self.get(workflow_id, run_id)
        query = (
            select(EXECUTIONS)
            .where(
                EXECUTIONS.c.workflow_id == workflow_id,
                EXECUTIONS.c.first_run_id == run.first_run_id,
            )
            .order_by(EXECUTIONS.c.run_key)
        )
        return [execution_from(row) for row in await self._all(query)]

    async def order_of(self, filter: Asked) -> Field:
        """Return the field in whose order `filter` lists runs.

        Raises:
            FilterSyntaxError: The filter cannot be understood.
            InvalidArgumentError: It is neither a text nor a condition.
        """
        return (await self._parsed(filter, self._clock.now())).order.field

    async def _wait(self, at_least: Position | None, patience: timedelta) -> None:
        check_position("at_least", at_least)
        check_span("timeout", patience)
        if at_least is not None:
            await self._runner.wait_until(
                at_least, projection=VisibilityProjection.name, timeout=patience
            )

    async def _parsed(self, filter: Asked, now: datetime, order_by: str = "") -> Filter:
        text = filter_text(filter)
        try:
            return parse_filter(text, self._types(), lambda: now, order_by)
        except FilterSyntaxError:
            # It may name an attribute of another process.
            if not await self.attributes.learn():
                raise
        return parse_filter(text, self._types(), lambda: now, order_by)

    async def _group_field(self, group_by: object) -> Field:
        if isinstance(group_by, str):
            name = await self._unabridged(group_by)
        elif isinstance(group_by, Comparable):
            name = group_by.name
        else:
            raise InvalidArgumentError("group_by", f"is the name of a field, not {group_by!r}")
        found = find_field(name, self._types())
        if found is None and await self.attributes.learn():
            found = find_field(name, self._types())
        if found is None:
            near = near_fields(name, self._types())
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise InvalidArgumentError("group_by", f"no field or search attribute {name!r}{hint}")
        if found.kind not in {"text", "words", "status"}:
            raise InvalidArgumentError("group_by", f"needs text, {name} is {found.kind}")
        return found

    async def _unabridged(self, name: str) -> str:
        """Return the name of the field that `"status"` or `"type"` stands for; any other name as it is."""
        long = _GROUPS.get(name)
        if long is None:
            return name
        await self.attributes.learn()
        if self._schema.get(name) is not None:
            raise InvalidArgumentError(
                "group_by",
                f"{name!r} is short for {long}, and the name of a search attribute: give {long!r}, or the "
                "attribute's key",
            )
        return long

    def _types(self) -> dict[str, AttributeType]:
        return {name: self._schema[name] for name in self._schema}

    async def _all(self, query: Select[Any]) -> "list_[Any]":
        def run(connection: Connection) -> list_[Any]:
            rows: Any = connection.execute(query).all()
            return [*rows]

        return await self._read_model.read(run)


list_ = list
"""The built-in, under a name that `Visibility.list` does not hide."""


def _read_count(asked: Filter, connection: Connection) -> int:
    sets = read_sets(connection, conjuncts(asked.condition))
    return int(connection.execute(count_query(asked, sets)).scalar_one())


def _read_groups(asked: Filter, group: Field, connection: Connection) -> list_[Any]:
    sets = read_sets(connection, conjuncts(asked.condition))
    return [*connection.execute(group_query(asked, group, MAX_GROUPS + 1, sets))]


def _read_page(
    asked: Filter, started: Started | None, limit: int, connection: Connection
) -> list_[Any]:
    after = None if started is None else started.place_in(asked)
    return read_page(asked, after, limit, connection)
