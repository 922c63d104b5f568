"""The catalog: which code there is, by type and version, and which version new runs take."""

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from aion_es.authoring.definitions import (
    ActivityDefinition,
    WorkflowDefinition,
    activity_definition,
    workflow_definition,
)
from aion_es.engine.package_modules import LoadedPackage
from aion_es.errors import (
    ActivityTypeNotFoundError,
    DefinitionError,
    VersionNotLoadedError,
    WorkflowTypeNotFoundError,
)


class Catalog:
    """Workflow types with their versions, and activities.

    A version is the label of a function, or the content hash of a package that holds it. Several versions
    of a type live side by side: a run keeps the one it began with. New runs take the recorded route of
    their type; without one, the label that was registered last. A package is taken by new runs only where
    a route leads to it.
    """

    def __init__(self, workflows: Iterable[Any] = (), activities: Iterable[Any] = ()) -> None:
        self._versions: dict[str, dict[str, WorkflowDefinition]] = {}
        self._last_label: dict[str, str] = {}
        self._recorded: Mapping[str, str] = {}
        self._routes: Mapping[str, str] = {}  # replaced as a whole: no start sees half of a change
        self._activities: dict[str, ActivityDefinition] = {}
        self._packages: dict[str, LoadedPackage] = {}
        for function in workflows:
            self.register_workflow(function)
        for function in activities:
            self.register_activity(function)

    def register_workflow(self, function: Any) -> None:
        """Register a function decorated with `@workflow`; without a recorded route new runs take it from now on.

        Raises:
            DefinitionError: Not a workflow; an annotation cannot be resolved; another function is
                registered under this type and version.
        """
        definition = workflow_definition(function)
        _ = (
            definition.signature.hints
        )  # an annotation that cannot be resolved is told now, not at the first run
        if sys.flags.dev_mode:
            from aion_es.authoring.impurities import warn_of_impurities

            warn_of_impurities(definition.function, definition.signature.where)
        versions = self._versions.setdefault(definition.type, {})
        known = versions.get(definition.version)
        if known is not None and known.function is not definition.function:
            raise DefinitionError(
                definition.signature.where,
                f"{known.signature.where} is already registered as version {definition.version!r} of "
                f"{definition.type!r}; give one of them another version= or name=",
            )
        versions[definition.version] = definition
        self._last_label[definition.type] = definition.version
        self._routes = {**self._last_label, **self._recorded}

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

    def add_package(self, package: LoadedPackage) -> None:
        """Let runs that are pinned to a package find their code; where new runs go is not changed by it."""
        self._packages[package.version] = package
        for workflow_type, definition in package.workflows.items():
            self._versions.setdefault(workflow_type, {})[package.version] = definition

    def remove_package(self, version: str) -> None:
        """Take a package out again; one that is not there is fine."""
        package = self._packages.pop(version, None)
        for workflow_type in () if package is None else package.workflows:
            del self._versions[workflow_type][version]
            if not self._versions[workflow_type]:
                del self._versions[workflow_type]

    def set_routes(self, recorded: Mapping[str, str]) -> None:
        """Replace the recorded routes, all at once; types that are not named go back to their last label."""
        self._recorded = dict(recorded)
        self._routes = {**self._last_label, **self._recorded}

    def routed_version(self, workflow_type: str) -> str | None:
        """Return the version that new runs of a type take; `None` if it has none."""
        return self._routes.get(workflow_type)

    def routed(self, workflow_type: str) -> WorkflowDefinition:
        """Return the code that new runs of a type take.

        Raises:
            WorkflowTypeNotFoundError: No version of the type is routed; lists the types that are.
            VersionNotLoadedError: The one that is routed is not loaded here.
        """
        version = self._routes.get(workflow_type)
        if version is None:
            raise WorkflowTypeNotFoundError(workflow_type, sorted(self._routes))
        return self.pinned(workflow_type, version, 0)

    def pinned(self, workflow_type: str, version: str, runs: int = 1) -> WorkflowDefinition:
        """Return the code that a run is pinned to.

        Args:
            workflow_type: Of the run.
            version: Of the run.
            runs: How many need it, for the message.

        Raises:
            VersionNotLoadedError: It is not loaded here; names what is.
        """
        versions = self._versions.get(workflow_type, {})
        definition = versions.get(version)
        if definition is None:
            raise VersionNotLoadedError(
                workflow_type, version, runs, sorted(versions), self._why_not_loaded(version)
            )
        return definition

    def has(self, workflow_type: str, version: str) -> bool:
        """Return whether a version of a type is loaded here."""
        return version in self._versions.get(workflow_type, {})

    def versions(self) -> dict[str, tuple[str, ...]]:
        """Return every type with its loaded versions, in the order in which they came."""
        return {
            workflow_type: tuple(versions) for workflow_type, versions in self._versions.items()
        }

    def child_version(self, parent_type: str, parent_version: str, child_type: str) -> str | None:
        """Return the version that a child takes: its parent's package, if that holds its type, else the routed one.

        Labels are not inherited: that two types have the same one means nothing. `None` if the type has no
        version at all.
        """
        package = self._packages.get(parent_version)
        if (
            package is not None
            and parent_type in package.workflows
            and child_type in package.workflows
        ):
            return parent_version
        return self.routed_version(child_type)

    def activity(self, activity_type: str, version: str | None = None) -> ActivityDefinition:
        """Return an activity.

        Args:
            activity_type: Its type.
            version: Of the run that needs it: an activity of the run's own package comes first.

        Raises:
            ActivityTypeNotFoundError: It is not registered here; lists those that are.
        """
        package = None if version is None else self._packages.get(version)
        definition = None if package is None else package.activities.get(activity_type)
        if definition is None:
            definition = self._activities.get(activity_type)
        if definition is None:
            own = () if package is None else package.activities
            raise ActivityTypeNotFoundError(activity_type, sorted({*own, *self._activities}))
        return definition

    def _why_not_loaded(self, version: str) -> str:  # noqa: ARG002 - what an open engine knows, a mere table does not
        return ""
