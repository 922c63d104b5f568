"""Queries over runs: list, count, get and chain, by filters, in stable pages."""

import base64
import binascii
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final, Literal, overload

from pydantic_core import from_json, to_json
from sqlalchemy import Connection, Select, select

from aion_es.aggregates.attributes import AttributeSchema
from aion_es.clock import Clock, SystemClock
from aion_es.errors import (
    FilterSyntaxError,
    InvalidArgumentError,
    InvalidPageTokenError,
    RunNotFoundError,
    WorkflowNotFoundError,
)
from aion_es.events.values import AttributeType
from aion_es.projections.read_model import ReadModel
from aion_es.projections.runner import ProjectionRunner
from aion_es.projections.visibility import VisibilityProjection
from aion_es.projections.visibility_tables import EXECUTIONS, SCHEMA
from aion_es.store.port import Position
from aion_es.visibility.compile import NARROW, Place, count_query, narrowing, page_query
from aion_es.visibility.filter import Filter, parse_filter
from aion_es.visibility.rows import WorkflowExecution, execution_from

MAX_PAGE: Final = 10_000
_PATIENCE: Final = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the runs that were asked for.

    Attributes:
        rows: In the order that was asked for.
        next_page_token: What gives the following page; `None` if this is the last.
    """

    rows: tuple[WorkflowExecution, ...]
    next_page_token: str | None


class Visibility:
    """What is known of all runs, by the read model: a moment behind the store, unless `at_least` is given.

    A comparison with a field that a run does not have is false, and its NOT is true; use IS NULL and
    IS NOT NULL to ask for that. On a KeywordList `=` and IN mean *contains*.
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
            schema: Search attributes that this process registered; others are known from the events.
            clock: Tells what `now()` in a filter is. Default: the system's.
        """
        self._read_model = read_model
        self._runner = runner
        self._schema = schema
        self._clock = clock or SystemClock()
        self._learnt: dict[str, AttributeType] = {}

    async def learn_schema(self) -> None:
        """Register the search attributes that events have carried, as far as this process lacks them.

        A name that is registered here with another type keeps the type that it has here.
        """
        for name, kind in (await self._recorded_types()).items():
            if self._schema.get(name) is None:
                self._schema.register(name, kind)

    async def list(
        self,
        filter: str = "",
        *,
        page_size: int = 100,
        at_least: Position | None = None,
        timeout: timedelta = _PATIENCE,
    ) -> AsyncIterator[WorkflowExecution]:
        """Yield the runs that `filter` asks for, newest first unless it says ORDER BY.

        A run that is there all the time comes exactly once, whatever is started or closed meanwhile.

        Args:
            filter: Empty for all; else as in `ExecutionStatus = 'Running' AND customer = 'ana'`.
            page_size: Read at once.
            at_least: First wait until the read model has seen this position: read your own writes.
            timeout: How long to wait for that.

        Raises:
            FilterSyntaxError: The filter cannot be understood.
            ProjectionLagError: The read model did not come to `at_least` in time.
            InvalidArgumentError: `page_size` is not 1–10,000.
        """
        token: str | None = None
        while True:
            page = await self.page(
                filter, page_size=page_size, page_token=token, at_least=at_least, timeout=timeout
            )
            for row in page.rows:
                yield row
            token, at_least = page.next_page_token, None
            if token is None:
                return

    async def page(
        self,
        filter: str = "",
        *,
        page_size: int = 100,
        page_token: str | None = None,
        at_least: Position | None = None,
        timeout: timedelta = _PATIENCE,
    ) -> Page:
        """Return one page.

        Args:
            filter: As `list` takes it.
            page_size: At most so many rows, 1–10,000.
            page_token: From the page before, asked for with the same filter; `None` for the first page.
            at_least: First wait until the read model has seen this position.
            timeout: How long to wait for that.

        Raises:
            FilterSyntaxError: The filter cannot be understood.
            InvalidPageTokenError: The token is damaged, or of another filter.
            ProjectionLagError: The read model did not come to `at_least` in time.
            InvalidArgumentError: `page_size` is not 1–10,000.
        """
        if not 1 <= page_size <= MAX_PAGE:
            raise InvalidArgumentError("page_size", f"must be 1–{MAX_PAGE:,}, got {page_size}")
        asked = await self._asked(filter, at_least, timeout)
        mark = _fingerprint(filter)
        after = None if page_token is None else _place(page_token, mark)
        found = await self._read_model.read(partial(_read_page, asked, after, page_size + 1))
        rows = tuple(execution_from(row) for row in found[:page_size])
        last = found[page_size - 1] if len(found) > page_size else None
        token = None if last is None else _token(mark, (last.sort_value, last.run_id))
        return Page(rows, token)

    @overload
    async def count(self, filter: str = "", group_by: None = None) -> int: ...

    @overload
    async def count(self, filter: str, group_by: Literal["status", "type"]) -> dict[str, int]: ...

    @overload
    async def count(
        self, filter: str = "", *, group_by: Literal["status", "type"]
    ) -> dict[str, int]: ...

    async def count(
        self, filter: str = "", group_by: Literal["status", "type"] | None = None
    ) -> int | dict[str, int]:
        """Return how many runs `filter` asks for; with `group_by`, by status or by workflow type.

        Raises:
            FilterSyntaxError: The filter cannot be understood.
        """
        asked = await self._asked(filter, None, _PATIENCE)
        rows = await self._all(count_query(asked, group_by))
        if group_by is None:
            return int(rows[0][0])
        return {group: int(number) for group, number in rows}

    async def get(self, workflow_id: str, run_id: str | None = None) -> WorkflowExecution:
        """Return one run: the newest of `workflow_id`, or `run_id`.

        Raises:
            WorkflowNotFoundError: The read model knows no run of this workflow.
            RunNotFoundError: It knows others, not this one.
        """
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

    async def _asked(self, text: str, at_least: Position | None, patience: timedelta) -> Filter:
        asked = await self._parsed(text)
        if at_least is not None:
            await self._runner.wait_until(
                at_least, projection=VisibilityProjection.name, timeout=patience
            )
        return asked

    async def _parsed(self, text: str) -> Filter:
        try:
            return parse_filter(text, self._types(), self._clock.now)
        except FilterSyntaxError:
            # It may name an attribute that came with an event of another process.
            known, self._learnt = self._learnt, await self._recorded_types()
            if self._learnt == known:
                raise
        return parse_filter(text, self._types(), self._clock.now)

    def _types(self) -> dict[str, AttributeType]:
        known = dict(self._learnt)
        known.update((name, self._schema[name]) for name in self._schema.names)
        return known

    async def _recorded_types(self) -> dict[str, AttributeType]:
        return {name: kind for name, kind in await self._all(select(SCHEMA))}  # noqa: C416 - rows, not pairs

    async def _all(self, query: Select[Any]) -> "list_[Any]":
        def run(connection: Connection) -> list_[Any]:
            rows: Any = connection.execute(query).all()
            return [*rows]

        return await self._read_model.read(run)


list_ = list
"""The built-in, under a name that `Visibility.list` does not hide."""


def _read_page(
    asked: Filter, after: Place | None, limit: int, connection: Connection
) -> list_[Any]:
    narrow = next(
        (
            comparison
            for comparison, count in narrowing(asked)
            if connection.execute(count).scalar_one() <= NARROW
        ),
        None,
    )
    rows: Any = connection.execute(page_query(asked, after, limit, narrow)).all()
    return [*rows]


def _fingerprint(filter: str) -> str:
    return hashlib.sha256(filter.strip().encode(errors="replace")).hexdigest()[:16]


def _token(mark: str, place: Place) -> str:
    return base64.urlsafe_b64encode(to_json([mark, *place])).decode()


def _place(token: str, mark: str) -> Place:
    try:
        parts: Any = from_json(base64.b64decode(token, altchars=b"-_", validate=True))
        found, value, run_id = parts
        fits = value is None or isinstance(value, str | float) or -(2**63) <= value < 2**63
    except (binascii.Error, ValueError, TypeError) as error:
        raise InvalidPageTokenError(token, "it is damaged") from error
    if not isinstance(run_id, str) or not fits:
        raise InvalidPageTokenError(token, "it is damaged")
    if found != mark:
        raise InvalidPageTokenError(token, "it belongs to another filter")
    return value, run_id
