"""`Client`: start workflows and talk to them from a process that runs no workflow code."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from aion_es.aggregates.attributes import AttributeSchema
from aion_es.aggregates.catalog_repository import CatalogRepository
from aion_es.aggregates.workflow_repository import WorkflowRepository
from aion_es.authoring.definitions import WorkflowDefinition, workflow_definition
from aion_es.batch import Batches
from aion_es.client import WorkflowClient
from aion_es.clock import Clock, SystemClock
from aion_es.engine.catalog import Catalog
from aion_es.engine.direct import DirectGateway
from aion_es.engine.limits import max_payload_bytes
from aion_es.engine.surroundings import Surroundings
from aion_es.errors import RunNotFoundError, WorkflowNotFoundError
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
from aion_es.store.port import EventStore
from aion_es.store.url import open_store, read_model_beside
from aion_es.telemetry import is_recording

if TYPE_CHECKING:
    from aion_es.visibility.attributes import SearchAttributes
    from aion_es.visibility.query import Visibility


class Client(WorkflowClient):
    """Everything that an `Engine` offers to those who start and watch workflows, without running any.

    Made by `Client.open`. Commands are recorded when they return; an engine on the same store carries them out.

    Attributes:
        visibility: Lists, counts and finds runs, from the read model that engines keep up to date.
        search_attributes: Registers search attributes.
        batch: Gives one command to every run that a filter asks for.
    """

    visibility: "Visibility"
    search_attributes: "SearchAttributes"
    batch: Batches

    @classmethod
    def open(
        cls,
        url: str | EventStore,
        *,
        workflows: Iterable[Any] = (),
        search_attributes: Iterable[SearchAttribute[Any]] = (),
        namespace: str = DEFAULT_NAMESPACE,
        read_model: str | None = None,
        clock: Clock | None = None,
        ids: IdSource | None = None,
    ) -> AbstractAsyncContextManager["Client"]:
        """Return a client to be entered: `async with Client.open("sqlite:///aion.db") as client`.

        Args:
            url: As of `Engine.open`.
            workflows: Code that may answer queries here. A workflow function need not be among them to be
                started: its types and its version are read off it.
            search_attributes: Registered from the start.
            namespace: As of `Engine.open`.
            read_model: As of `Engine.open`.
            clock: Default: the machine's.
            ids: Default: UUIDv7.

        Raises:
            DefinitionError, InvalidIdError, ConflictingAttributeTypeError: As of `Engine.open`.
            On entering also every error of `open_store`.
        """
        return _opened(
            url,
            Catalog(workflows),
            AttributeSchema(*search_attributes),
            check_namespace(namespace),
            read_model if read_model is not None else read_model_beside(url, namespace),
            clock if clock is not None else SystemClock(),
            ids if ids is not None else UUIDv7Source(),
        )

    def __init__(
        self,
        gateway: DirectGateway,
        repository: WorkflowRepository,
        catalog: Catalog,
        routes: CatalogRepository,
        schema: AttributeSchema,
        ids: IdSource,
        store: EventStore,
        visibility: "Visibility",
    ) -> None:
        super().__init__(
            gateway, repository, catalog, schema, ids, store.limits, visibility.attributes
        )
        self.store = store
        self.visibility = visibility
        self.search_attributes = visibility.attributes
        self.batch = Batches(self, visibility)
        self._routes = routes

    async def _routed(
        self, workflow: Callable[..., Awaitable[Any]] | str
    ) -> tuple[WorkflowDefinition, str]:
        """See `WorkflowClient`; a route that is recorded for all processes counts before a function's own version."""
        if isinstance(workflow, str) or not callable(workflow):
            definition, version = await super()._routed(workflow)
        else:
            definition = workflow_definition(workflow)
            version = definition.version
        recorded = (await self._routes.load()).state.routes
        return definition, recorded.get(definition.type, version)


@asynccontextmanager
async def _opened(
    url: str | EventStore,
    catalog: Catalog,
    schema: AttributeSchema,
    namespace: Namespace,
    read_model_url: str,
    clock: Clock,
    ids: IdSource,
) -> AsyncGenerator[Client, None]:
    from aion_es.projections.read_model import ReadModel
    from aion_es.projections.runner import ProjectionRunner
    from aion_es.projections.visibility import VisibilityProjection
    from aion_es.visibility.query import Visibility

    async with AsyncExitStack() as stack:
        store = await open_store(url) if isinstance(url, str) else url
        if isinstance(url, str):  # else whoever opened it closes it
            stack.push_async_callback(store.aclose)
        read_model = await ReadModel.open(read_model_url)
        stack.push_async_callback(read_model.aclose)
        # Never run here: it makes the tables if there are none yet, and knows how far an engine's has come.
        runner = ProjectionRunner(
            store,
            read_model,
            [VisibilityProjection(namespace)],
            prefix=(workflow_prefix(namespace), schedule_prefix(namespace)),
        )
        await runner.prepare()
        visibility = Visibility(read_model, runner, schema)
        await visibility.attributes.publish()
        repository = WorkflowRepository(store, namespace=namespace, schema=schema, ids=ids)
        surroundings = Surroundings(
            schema,
            catalog.routed_version,
            catalog.child_version,
            max_payload_bytes(store.limits),
            traced=is_recording(),
        )

        async def stuck(workflow_id: WorkflowId, run_id: RunId) -> str | None:
            try:
                return (await visibility.get(workflow_id, run_id)).stuck_reason
            except (WorkflowNotFoundError, RunNotFoundError):
                return None  # the read model has not seen it yet

        gateway = DirectGateway(store, repository, catalog, surroundings, clock, stuck)
        routes = CatalogRepository(store, namespace=namespace, ids=ids)
        yield Client(gateway, repository, catalog, routes, schema, ids, store, visibility)
