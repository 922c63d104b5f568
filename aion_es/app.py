"""The composition root: `Engine.open` wires store, aggregates, engine, projections and visibility together."""

import asyncio
import logging
from collections.abc import Collection, Coroutine, Iterable
from contextlib import AsyncExitStack
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from aion_es.aggregates.attributes import AttributeSchema
from aion_es.aggregates.catalog_repository import CatalogRepository, PackageRepository
from aion_es.aggregates.workflow_repository import WorkflowRepository
from aion_es.batch import Batches
from aion_es.client import WorkflowClient
from aion_es.clock import SleepingClock, SystemClock, seconds_to_wait
from aion_es.collector import relax_collector, restore_collector
from aion_es.engine.core import EngineCore
from aion_es.engine.follower import Follower
from aion_es.engine.limits import max_payload_bytes
from aion_es.engine.live_catalog import CatalogTies, LiveCatalog
from aion_es.engine.options import EngineOptions
from aion_es.engine.registry import Registry
from aion_es.engine.supervision import Supervision
from aion_es.engine.surroundings import Surroundings
from aion_es.engine.termination import EXIT_STATUS, Termination
from aion_es.engine.watchdog import Watchdog
from aion_es.errors import StoreError, VersionNotLoadedError, WaitTimeoutError
from aion_es.events.attributes import SearchAttribute
from aion_es.ids import (
    DEFAULT_NAMESPACE,
    IdSource,
    Namespace,
    RunId,
    UUIDv7Source,
    WorkflowId,
    check_namespace,
    schedule_prefix,
    workflow_prefix,
)
from aion_es.store.observed import observed, unobserved
from aion_es.store.port import EventStore
from aion_es.store.url import open_store, read_model_beside
from aion_es.telemetry import is_recording

if TYPE_CHECKING:
    from aion_es.engine.health import EngineHealth
    from aion_es.engine.orphans import Orphans
    from aion_es.engine.recovery import Recovery
    from aion_es.engine.scheduling import Scheduling
    from aion_es.projections.heartbeats import ActivityHeartbeats
    from aion_es.projections.projection import Projection
    from aion_es.projections.read_model import ReadModel
    from aion_es.projections.runner import ProjectionRunner
    from aion_es.projections.workers import Workers
    from aion_es.schedule_client import Schedules
    from aion_es.visibility.attributes import SearchAttributes
    from aion_es.visibility.query import Visibility

_LOG: Final = logging.getLogger("aion_es")
_PROJECTION_INTERVAL: Final = timedelta(milliseconds=100)
"""While events stream in, rows are written so often: a short run then begins and ends within one batch, and
is written once. Whoever waits for a position hurries it."""


class Engine(WorkflowClient):
    """An engine, open: runs workflows and activities, recovers what was left behind, answers queries.

    Made by `Engine.open`. Leaving the `async with` block drains: running activities get `shutdown_grace`,
    what is decided is recorded, and every open run is suspended until an engine opens the store again.

    Attributes:
        visibility: Lists, counts and finds runs by status, type, times and search attributes.
        catalog: Loads packages of code, routes workflow types to versions, registers functions that came late.
        search_attributes: Registers search attributes, at any time, for every process on the read model.
        batch: Gives one command to every run that a filter asks for.
        schedules: Starts workflows by the calendar: creates, changes, triggers and describes schedules.
        registry: The open runs that this engine knows, with their residency.
        supervision: The tree of types and runs with their restarts; lets a stuck run try again.
        projections: How far each projection is, and how to wait for it.
        read_model: Where the rows of projections are, also of your own.
    """

    visibility: "Visibility"
    catalog: LiveCatalog
    search_attributes: "SearchAttributes"
    batch: Batches
    schedules: "Schedules"
    registry: Registry
    supervision: Supervision

    @classmethod
    def open(
        cls,
        url: str | EventStore,
        *,
        workflows: Iterable[Any] = (),
        activities: Iterable[Any] = (),
        search_attributes: Iterable[SearchAttribute[Any]] = (),
        projections: "Iterable[Projection]" = (),
        namespace: str = DEFAULT_NAMESPACE,
        read_model: str | None = None,
        options: EngineOptions | None = None,
        clock: SleepingClock | None = None,
        ids: IdSource | None = None,
    ) -> "OpeningEngine":
        """Return an engine to be entered: `async with Engine.open("sqlite:///aion.db", workflows=[…]) as engine`.

        Args:
            url: Where the events are: `sqlite:///file.db`, `sqlite://` (in memory), `memory://`; or a store
                that is open already, and stays open when the engine is left.
            workflows: Functions decorated with `@workflow`; several versions of a type side by side.
            activities: Functions decorated with `@activity`.
            search_attributes: Registered from the start. Others are registered when they are first used.
            projections: Of your own; fed and checkpointed beside the built-in ones, in the same read model.
            namespace: `[a-z0-9_]{1,64}`: engines of different namespaces on one store never meet.
            read_model: URL of the read model, in SQLite or PostgreSQL; each namespace needs one of its own.
                Default: a file beside the store's; in memory for a store that was given open.
            options: See `EngineOptions`.
            clock: Default: the machine's.
            ids: Default: UUIDv7.

        Raises:
            DefinitionError: A function is not a workflow or an activity, or two share a type and version.
            InvalidIdError: The namespace has another form.
            ConflictingAttributeTypeError: Two search attributes share a name.
            On entering also every error of `open_store`.
        """
        return OpeningEngine(
            url,
            LiveCatalog(workflows, activities),
            AttributeSchema(*search_attributes),
            tuple(projections),
            check_namespace(namespace),
            read_model if read_model is not None else read_model_beside(url, namespace),
            options if options is not None else EngineOptions(),
            clock if clock is not None else SystemClock(),
            ids if ids is not None else UUIDv7Source(),
        )

    def __init__(
        self,
        core: EngineCore,
        store: EventStore,
        repository: WorkflowRepository,
        catalog: LiveCatalog,
        schema: AttributeSchema,
        ids: IdSource,
        read_model: "ReadModel",
        runner: "ProjectionRunner",
        visibility: "Visibility",
        recovery: "Recovery",
        orphans: "Orphans",
        scheduling: "Scheduling",
    ) -> None:
        # Imported here: it needs SQLAlchemy, which takes longer to load than all the rest.
        from aion_es.schedule_client import Schedules

        super().__init__(
            core, repository, catalog, schema, ids, store.limits, visibility.attributes
        )
        self.records_payloads = core.tracing is not None and core.tracing.records_payloads
        self.store = store
        self.visibility = visibility
        self.search_attributes = visibility.attributes
        self.batch = Batches(self, visibility)
        self.registry = core.registry
        self.supervision = core.supervision
        self.read_model = read_model
        self.projections = runner
        self._core = core
        self._recovery = recovery
        self._orphans = orphans
        self._scheduling = scheduling
        self.schedules = Schedules(
            self,
            scheduling.driver,
            scheduling.actions,
            scheduling.repository,
            scheduling.index,
            runner,
            store.limits,
        )

    @property
    def activities_executed(self) -> int:
        """How many activity attempts this engine has begun."""
        return self._core.dispatcher.executed

    async def health(self) -> "EngineHealth":
        """Return how the engine stands: what a readiness probe asks. Answers within two seconds, and never raises."""
        from aion_es.engine.health import health_of

        return await health_of(self.store, self.projections, self.supervision, self._recovery.done)

    @property
    def orphaned(self) -> tuple[VersionNotLoadedError, ...]:
        """Versions that open runs need and that are not loaded here, as of the opening or the end of another engine."""
        return self._orphans.current

    async def wait_recovered(self, timeout: timedelta | None = None) -> None:
        """Return when everything that earlier engines left behind has been taken up.

        Raises:
            WaitTimeoutError: Not within `timeout`; it goes on.
            InvalidArgumentError: `timeout` is no timedelta.
        """
        seconds = seconds_to_wait(timeout)
        try:
            async with asyncio.timeout(seconds):
                await self._recovery.done.wait()
                await self._scheduling.supply.done.wait()
        except TimeoutError as error:
            raise WaitTimeoutError("recovery", seconds or 0.0) from error


class OpeningEngine:
    """What `Engine.open` returns: enters as an `Engine`, and owns everything that belongs to it."""

    def __init__(
        self,
        url: str | EventStore,
        catalog: LiveCatalog,
        schema: AttributeSchema,
        projections: "tuple[Projection, ...]",
        namespace: Namespace,
        read_model_url: str,
        options: EngineOptions,
        clock: SleepingClock,
        ids: IdSource,
    ) -> None:
        self._url = url
        self._catalog = catalog
        self._schema = schema
        self._projections = projections
        self._namespace = namespace
        self._read_model_url = read_model_url
        self._options = options
        self._clock = clock
        self._ids = ids
        self._stack = AsyncExitStack()
        self._group = asyncio.TaskGroup()
        self._background: list[asyncio.Task[None]] = []
        self._core: EngineCore | None = None
        self._scheduling: Scheduling | None = None
        self._termination = Termination()

    async def __aenter__(self) -> Engine:
        if self._options.handle_signals:
            self._termination.watch()
            self._stack.callback(self._termination.close)
        try:
            return await self._open()
        except BaseException as error:
            await self._stack.aclose()
            self._end_program(error)
            raise

    async def _open(self) -> Engine:
        # Imported here: SQLAlchemy takes longer to load than all the rest.
        from aion_es.engine.orphans import Orphans
        from aion_es.engine.recovery import Recovery
        from aion_es.engine.scheduling import Scheduling
        from aion_es.engine.version_use import VersionUse
        from aion_es.projections.built_in import built_in
        from aion_es.projections.heartbeats import ActivityHeartbeats
        from aion_es.projections.pending_index import PendingWorkIndex
        from aion_es.projections.read_model import ReadModel
        from aion_es.projections.runner import ProjectionRunner
        from aion_es.projections.workers import Workers
        from aion_es.visibility.query import Visibility

        self._relax_collector()
        store = await self._opened_store()
        read_model = await ReadModel.open(self._read_model_url)
        self._stack.push_async_callback(read_model.aclose)
        namespace = self._namespace
        prefix = workflow_prefix(namespace)
        runner = ProjectionRunner(
            store,
            read_model,
            [*built_in(namespace), *self._projections],
            prefix=(prefix, schedule_prefix(namespace)),
            interval=_PROJECTION_INTERVAL,
        )
        await runner.prepare()
        visibility = Visibility(read_model, runner, self._schema)
        await visibility.attributes.publish()
        repository = WorkflowRepository(
            store, namespace=namespace, schema=self._schema, ids=self._ids
        )
        index = PendingWorkIndex(read_model)
        self._stack.callback(self._catalog.close)
        await self._catalog.open(
            CatalogTies(
                store,
                CatalogRepository(store, namespace=namespace, ids=self._ids),
                PackageRepository(store, namespace=namespace, ids=self._ids),
                self._clock,
                VersionUse(store, runner, index).of,
            )
        )

        await self._group.__aenter__()
        core = self._core = EngineCore(
            store,
            repository,
            self._catalog,
            Surroundings(
                self._schema,
                self._catalog.routed_version,
                self._catalog.child_version,
                max_payload_bytes(store.limits),
                serves=self._serves,
                traced=is_recording(),
            ),
            self._group,
            clock=self._clock,
            ids=self._ids,
            options=self._options,
            attributes=visibility.attributes,
        )
        follower = Follower(store, core, core.registry, prefix)
        orphans = Orphans(read_model, runner, index, self._catalog, core.registry)
        core.on_stuck = _StuckRecorder(read_model, self._group)
        core.is_elsewhere = orphans.is_elsewhere
        workers = Workers(read_model, SystemClock())
        gone = await self._announced(workers, core, orphans)
        # Read after that: recovery then covers whatever those who were gone by then have recorded.
        end = await store.end_position()
        heartbeats = core.heartbeats.rows = ActivityHeartbeats(read_model, SystemClock())
        scheduling = self._scheduling = Scheduling(
            core,
            follower,
            store,
            repository,
            self._catalog,
            runner,
            read_model,
            namespace=namespace,
            clock=self._clock,
            ids=self._ids,
        )

        def code_arrived(workflow_types: Collection[str]) -> None:
            core.supervision.code_arrived(workflow_types)
            scheduling.driver.code_arrived()
            self._group.create_task(orphans.code_arrived())

        self._catalog.on_arrived = code_arrived
        recovery = Recovery(core, store, runner, index, orphans, self._clock)
        if self._options.max_step is not None:
            watchdog = Watchdog(
                core.surroundings.watch,
                self._options.max_step.total_seconds(),
                core.supervision.step_blocked,
            )
            watchdog.start()
            self._stack.callback(watchdog.stop)
        for job in (
            runner.run(),
            follower.run(end),
            core.timers.run(),
            recovery.run(end),
            scheduling.run(end),
            self._catalog.follow(),
            self._metered(core, store, follower, orphans, scheduling, recovery),
            _stay_announced(workers, core, recovery, orphans, gone),
            _swept(heartbeats, recovery),
        ):
            self._background.append(self._group.create_task(job))
        return Engine(
            core,
            store,
            repository,
            self._catalog,
            self._schema,
            self._ids,
            read_model,
            runner,
            visibility,
            recovery,
            orphans,
            scheduling,
        )

    async def _announced(
        self, workers: "Workers", core: EngineCore, orphans: "Orphans"
    ) -> frozenset[str]:
        """Be alive for the other engines until the engine is left; return those that are gone."""
        others = await workers.announce(core.worker, orphans.loaded)
        core.effects.activities.others = others.alive
        await orphans.hear(others.code)
        self._stack.push_async_callback(_left, workers, core.worker)
        return others.gone

    def _metered(
        self,
        core: EngineCore,
        store: EventStore,
        follower: Follower,
        orphans: "Orphans",
        scheduling: "Scheduling",
        recovery: "Recovery",
    ) -> Coroutine[Any, Any, None]:
        """Have the engine's metrics while it is open; return the job that keeps them up to date."""
        from aion_es.engine.metering import EngineMeter

        meter = EngineMeter(
            core,
            unobserved(store),
            follower,
            orphans,
            scheduling.index,
            recovery.done,
            self._clock,
            self._namespace,
        )
        self._stack.enter_context(meter.shown())
        return meter.run()

    def _relax_collector(self) -> None:
        if self._options.collector_threshold is not None:
            relax_collector(self._options.collector_threshold)
            self._stack.callback(restore_collector)

    def _serves(self, task_queue: str) -> bool:
        return self._options.serves is None or task_queue in self._options.serves

    async def _opened_store(self) -> EventStore:
        if not isinstance(self._url, str):
            return observed(self._url)  # whoever opened it closes it
        store = await open_store(self._url, clock=self._clock)
        self._stack.push_async_callback(store.aclose)
        return store

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._termination.is_leaving = True
        try:
            await self._leave(error)
        except asyncio.CancelledError:
            if not self._termination.has_come:
                raise
        finally:
            await self._stack.aclose()
        self._end_program(error)
        await self._termination.others_left()

    def _end_program(self, error: BaseException | None) -> None:
        """Raise `SystemExit` after a SIGTERM if this engine is the last to leave: an earlier one would cut the others."""
        if self._termination.ends_program and isinstance(error, asyncio.CancelledError):
            raise SystemExit(EXIT_STATUS) from None

    async def _leave(self, error: BaseException | None) -> None:
        if self._scheduling is not None:
            await self._scheduling.driver.stop()
        if self._core is not None:
            await self._core.drain()
        for task in self._background:
            task.cancel()
        # The group is told of a cancellation, which may be its own doing; the body's other errors are the body's.
        if isinstance(error, asyncio.CancelledError):
            await self._group.__aexit__(type(error), error, error.__traceback__)
        else:
            await self._group.__aexit__(None, None, None)


async def _stay_announced(
    workers: "Workers",
    core: EngineCore,
    recovery: "Recovery",
    orphans: "Orphans",
    known: frozenset[str],
) -> None:
    """Say for as long as the engine is open that it is alive, hear who else is, and take over from who is not.

    Args:
        workers: Where that is said.
        core: Whose engine.
        recovery: Takes over.
        orphans: Hears what code they have.
        known: Who is known to be gone, and is seen to already.
    """
    from aion_es.projections.workers import HEARTBEAT

    activities = core.effects.activities
    while True:
        await asyncio.sleep(HEARTBEAT.total_seconds())
        try:
            others = await workers.announce(core.worker, orphans.loaded)
            await orphans.hear(others.code)
        except StoreError as error:
            _LOG.warning("the other engines on this read model are not known: %s", error)
            continue
        # One may have come and gone without ever being seen alive here.
        gone = (activities.others - others.alive) | (others.gone - known)
        activities.others, known = others.alive, others.gone
        if gone:
            _LOG.info("taking over from engines that are gone: %s", ", ".join(sorted(gone)))
            core.spawn(recovery.take_over())


async def _swept(heartbeats: "ActivityHeartbeats", recovery: "Recovery") -> None:
    """Delete what is left of heartbeats of activities that have ended, once that is known for sure."""
    await recovery.done.wait()
    try:
        await heartbeats.sweep()
    except StoreError as error:
        _LOG.warning("old heartbeats are kept until the next start: %s", error)


async def _left(workers: "Workers", worker: str) -> None:
    try:
        await workers.leave(worker)
    except StoreError as error:
        _LOG.warning("leaving could not be noted, and shows after a while by itself: %s", error)


class _StuckRecorder:
    """Notes in the read model which runs are stuck and why; operational state, not history."""

    def __init__(self, read_model: "ReadModel", group: asyncio.TaskGroup) -> None:
        self._read_model = read_model
        self._group = group

    def __call__(self, workflow_id: WorkflowId, run_id: RunId | None, reason: str | None) -> None:
        self._group.create_task(self._note(workflow_id, run_id, reason))

    async def _note(
        self, workflow_id: WorkflowId, run_id: RunId | None, reason: str | None
    ) -> None:
        from aion_es.projections.visibility import set_stuck

        try:
            await set_stuck(self._read_model, workflow_id, run_id, reason)
        except Exception:  # noqa: BLE001 - it is only a note: the run itself is not harmed
            _LOG.exception("workflow %s: its being stuck could not be noted", workflow_id)
