"""The catalog: which code there is, by type and version, and which version new runs take."""

from collections.abc import Iterable
from typing import Any

from aion_es.authoring.definitions import (
    ActivityDefinition,
    WorkflowDefinition,
    activity_definition,
    workflow_definition,
)
from aion_es.errors import (
    ActivityTypeNotFoundError,
    DefinitionError,
    VersionNotLoadedError,
    WorkflowTypeNotFoundError,
)


class Catalog:
    """Workflow types with their versions, and activities.

    Several versions of one type may be registered side by side: a run keeps the version it began with,
    new runs take the routed one, which is the last registered unless `route` says otherwise.
    """

    def __init__(self, workflows: Iterable[Any] = (), activities: Iterable[Any] = ()) -> None:
        self._versions: dict[str, dict[str, WorkflowDefinition]] = {}
        self._routes: dict[str, str] = {}
        self._activities: dict[str, ActivityDefinition] = {}
        for function in workflows:
            self.register_workflow(function)
        for function in activities:
            self.register_activity(function)

    def register_workflow(self, function: Any) -> None:
        """Register a function decorated with `@workflow`; new runs of its type take it from now on.

        Raises:
            DefinitionError: Not a workflow; an annotation cannot be resolved; another function is
                registered under this type and version.
        """
        definition = workflow_definition(function)
        _ = (
            definition.signature.hints
        )  # an annotation that cannot be resolved is told now, not at the first run
        versions = self._versions.setdefault(definition.type, {})
        known = versions.get(definition.version)
        if known is not None and known.function is not definition.function:
            raise DefinitionError(
                definition.signature.where,
                f"{known.signature.where} is already registered as version {definition.version!r} of "
                f"{definition.type!r}; give one of them another version= or name=",
            )
        versions[definition.version] = definition
        self._routes[definition.type] = definition.version

    def register_activity(self, function: Any) -> None:
        """Register a function decorated with `@activity`.

        Raises:
            DefinitionError: Not an activity; an annotation cannot be resolved; another function has this type.
        """
        definition = activity_definition(function)
        _ = definition.signature.hints
        known = self._activities.get(definition.type)
        if known is not None and known.function is not definition.function:
            raise DefinitionError(
                definition.signature.where,
                f"{known.signature.where} is already registered as {definition.type!r}; give one of them another name=",
            )
        self._activities[definition.type] = definition

    def route(self, workflow_type: str, version: str) -> None:
        """Let new runs of a type take this version; runs that are open keep theirs.

        Raises:
            WorkflowTypeNotFoundError: No version of the type is registered.
            VersionNotLoadedError: This one is not.
        """
        if workflow_type not in self._versions:
            raise WorkflowTypeNotFoundError(workflow_type, sorted(self._versions))
        self.pinned(workflow_type, version)
        self._routes[workflow_type] = version

    def routed_version(self, workflow_type: str) -> str | None:
        """Return the version that new runs of a type take; `None` if it has none."""
        return self._routes.get(workflow_type)

    def routed(self, workflow_type: str) -> WorkflowDefinition:
        """Return the code that new runs of a type take.

        Raises:
            WorkflowTypeNotFoundError: No version of the type is registered; lists the types that are.
        """
        version = self._routes.get(workflow_type)
        if version is None:
            raise WorkflowTypeNotFoundError(workflow_type, sorted(self._versions))
        return self._versions[workflow_type][version]

    def pinned(self, workflow_type: str, version: str, runs: int = 1) -> WorkflowDefinition:
        """Return the code that a run is pinned to.

        Raises:
            VersionNotLoadedError: It is not registered here; names what is.
        """
        versions = self._versions.get(workflow_type, {})
        definition = versions.get(version)
        if definition is None:
            raise VersionNotLoadedError(workflow_type, version, runs, sorted(versions))
        return definition

    def versions(self) -> dict[str, tuple[str, ...]]:
        """Return every type with its registered versions, in the order of registration."""
        return {
            workflow_type: tuple(versions) for workflow_type, versions in self._versions.items()
        }

    def activity(self, activity_type: str) -> ActivityDefinition:
        """Return an activity.

        Raises:
            ActivityTypeNotFoundError: It is not registered here; lists those that are.
        """
        definition = self._activities.get(activity_type)
        if definition is None:
            raise ActivityTypeNotFoundError(activity_type, sorted(self._activities))
        return definition
