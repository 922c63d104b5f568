"""Health: whether an engine can do its work now, from its store, its rows and the runs that it knows."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from aion_es.engine.supervision import Supervision
from aion_es.errors import StoreError
from aion_es.projections.pending_work import PendingWorkProjection
from aion_es.projections.runner import ProjectionRunner
from aion_es.projections.status import ProjectionStatus
from aion_es.store.port import EventStore

T = TypeVar("T")

_PATIENCE: Final = 1.0
"""Seconds that store and read model each have to answer: less than what probes usually allow."""


@dataclass(frozen=True, slots=True)
class EngineHealth:
    """How an engine stands at one moment.

    Attributes:
        store_error: Why the store does not answer; `None` if it does.
        read_model_error: Why the read model does not; `None` if it does.
        is_recovered: What earlier engines left behind has been taken up.
        projections: How each projection stands; empty if the read model does not answer.
        stuck: How many runs that this engine knows cannot go on here. That is theirs: the engine is ready.
    """

    store_error: str | None
    read_model_error: str | None
    is_recovered: bool
    projections: tuple[ProjectionStatus, ...]
    stuck: int

    @property
    def is_ready(self) -> bool:
        """Whether commands will be recorded and work is being done."""
        return self.store_error is None and self.read_model_error is None and self.is_recovered

    @property
    def recovery_error(self) -> str | None:
        """Why what earlier engines left behind is not taken up as a whole: the rows of it stand still.

        What is recorded after the event that they stand at is not recovered, nor taken over from engines that
        die, before somebody passes over it with `engine.projections.skip`. `None` if nothing stands in the way.
        """
        name = PendingWorkProjection.name
        return next((status.error for status in self.projections if status.name == name), None)

    @property
    def lag(self) -> int | None:
        """How far the projection that is furthest behind is behind; `None` where that is not known."""
        lags = [status.lag for status in self.projections]
        known = [lag for lag in lags if lag is not None]
        return max(known) if lags and len(known) == len(lags) else None


async def health_of(
    store: EventStore,
    runner: ProjectionRunner,
    supervision: Supervision,
    recovered: asyncio.Event,
) -> EngineHealth:
    """Return how the engine stands that has these."""
    (_, store_error), (projections, read_model_error) = await asyncio.gather(
        answer_of(store.health), answer_of(runner.status)
    )
    return EngineHealth(
        store_error,
        read_model_error,
        recovered.is_set(),
        tuple(projections or ()),
        supervision.stuck,
    )


async def answer_of(ask: Callable[[], Awaitable[T]]) -> tuple[T | None, str | None]:
    """Return an answer, or why there is none."""
    try:
        async with asyncio.timeout(_PATIENCE):
            return await ask(), None
    except StoreError as error:
        return None, str(error)
    except TimeoutError:
        return None, f"no answer within {_PATIENCE:g} s"
