"""A read model with very many runs, for P10: made in the tables of the projection, and indexed at the end.

The rows are those that the projection writes for such runs (`Execution.row`, `attribute_rows`), written by
the statements that it writes them with; only the indexes are made afterwards, which saves most of the time.
"""

import random
from collections.abc import Iterator
from typing import Any, Final

from sqlalchemy import Connection, Table

from aion_es.aggregates.status import WorkflowStatus
from aion_es.events.values import AttributeType
from aion_es.projections import ReadModel, VisibilityProjection, bulk
from aion_es.projections.checkpoints import install
from aion_es.projections.visibility_fold import Execution, attribute_rows
from aion_es.projections.visibility_tables import ATTRIBUTES, EXECUTIONS, SCHEMA

_FIRST: Final = 1_790_000_000_000_000
"""Microseconds since 1970."""
_STEP: Final = 250_000
_BATCH: Final = 20_000
_REGIONS: Final = ("eu", "us", "asia", "africa")
_TYPES: Final = ("checkout", "shipment", "refund", "invoice")
_TAGS: Final = tuple(f"tag{number:02d}" for number in range(20))
_SEED: Final = 7
TYPES: Final[dict[str, AttributeType]] = {
    "region": "String",
    "customer": "String",
    "total": "Int",
    "weight": "Float",
    "due": "Datetime",
    "tags": "KeywordList",
}


def runs(count: int) -> Iterator[Execution]:
    """Yield runs as they might be: four regions, a customer for every hundred runs, 1 in 50 still open.

    20 in all lack `total`; `weight` is on every fourth and `due` on every tenth.
    """
    chance = random.Random(_SEED)
    bare = max(1, count // 20)
    for number in range(count):
        started = _FIRST + number * _STEP
        run = Execution(
            number,
            f"order-{number:07d}",
            f"0190{chance.getrandbits(48):012x}-{number:07d}",
            "",
            None,
            None,
            None,
            f"order-{number:07d}",
            None,
            _TYPES[chance.randrange(4)],
            "1",
            "default",
            started,
            history_length=11,
            history_bytes=3_000,
        )
        run.first_run_id = run.run_id
        fate = chance.random()
        if fate >= 0.02:
            failed = fate < 0.05
            run.status = WorkflowStatus.FAILED if failed else WorkflowStatus.COMPLETED
            run.close_time = started + chance.randrange(1, 3_600_000_000)
            run.execution_duration = run.close_time - started
            run.failure_type = "CardRefused" if failed else None
        run.attributes = _attributes(chance, number, count, has_total=number % bare != bare // 2)
        run.changed = frozenset(run.attributes)
        yield run


def _attributes(
    chance: random.Random, number: int, count: int, *, has_total: bool
) -> dict[str, tuple[str, Any]]:
    values: dict[str, Any] = {
        "region": _REGIONS[chance.randrange(4)],
        "customer": f"customer-{chance.randrange(max(1, count // 100)):05d}",
        "tags": chance.sample(_TAGS, 2),
    }
    if has_total:
        values["total"] = chance.randrange(1_000_000)
    if number % 4 == 0:
        values["weight"] = chance.random()
    if number % 10 == 0:
        values["due"] = f"2026-12-{1 + chance.randrange(28):02d}T12:00:00.000000Z"
    return {name: (TYPES[name], value) for name, value in values.items()}


async def fill(model: ReadModel, count: int) -> None:
    """Write `count` runs into an empty read model, and index them."""
    await model.write(lambda c: install(c, VisibilityProjection()))
    await model.write(_drop_indexes)
    batch: list[Execution] = []
    for run in runs(count):
        batch.append(run)
        if len(batch) == _BATCH:
            await model.write(lambda c: _insert(c, batch))  # noqa: B023 - awaited at once
            batch = []
    await model.write(lambda c: _insert(c, batch))
    schema: list[bulk.Row] = list(TYPES.items())
    await model.write(lambda c: bulk.upsert(c, SCHEMA, schema))
    await model.write(_make_indexes)


def _insert(connection: Connection, batch: list[Execution]) -> None:
    bulk.upsert(connection, EXECUTIONS, [run.row() for run in batch])
    rows = [
        row for run in batch for name in sorted(run.changed) for row in attribute_rows(run, name)
    ]
    bulk.upsert(connection, ATTRIBUTES, rows)


def _tables() -> tuple[Table, ...]:
    return EXECUTIONS, ATTRIBUTES


def _drop_indexes(connection: Connection) -> None:
    for table in _tables():
        for index in table.indexes:
            index.drop(connection)


def _make_indexes(connection: Connection) -> None:
    for table in _tables():
        for index in table.indexes:
            index.create(connection)
