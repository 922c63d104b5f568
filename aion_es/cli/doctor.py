"""`aion-es doctor`: what keeps a store's workflows from going on, as far as the read model knows it."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Final

import typer

from aion_es.aggregates.attributes import AttributeSchema
from aion_es.clock import SystemClock
from aion_es.errors import UnknownStoreURLError
from aion_es.ids import DEFAULT_NAMESPACE, check_namespace, schedule_prefix, workflow_prefix
from aion_es.projections import ProjectionRunner, ReadModel
from aion_es.projections.built_in import built_in
from aion_es.projections.pending_index import OpenVersion, PendingWorkIndex
from aion_es.projections.status import ProjectionStatus
from aion_es.projections.workers import Others, Workers
from aion_es.store.url import is_in_memory, open_store, read_model_beside, sqlite_file
from aion_es.visibility import Visibility, WorkflowExecution

FOUND: Final = 3
"""The exit code where something keeps workflows from going on."""
_SHOWN: Final = 20
"""Stuck runs that are named; of more it is said that there are."""


@dataclass(frozen=True, slots=True)
class _Findings:
    """How a store's workflows stand.

    Attributes:
        engines: That use it.
        projections: How far the rows are that all else was read from.
        versions: What the open runs were begun with.
        stuck: Runs that cannot go on, one more than are shown.
    """

    engines: Others
    projections: Sequence[ProjectionStatus]
    versions: Sequence[OpenVersion]
    stuck: Sequence[WorkflowExecution]

    @property
    def orphaned(self) -> list[OpenVersion]:
        """The versions of open runs that no engine has that is alive."""
        return [version for version in self.versions if version[:2] not in self.engines.code]


def doctor(
    url: Annotated[str, typer.Argument(metavar="URL", help="The store, as in Engine.open.")],
    *,
    namespace: Annotated[
        str, typer.Option(metavar="NAME", help="Whose workflows.")
    ] = DEFAULT_NAMESPACE,
    read_model: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The read model, if the engines were given another."),
    ] = None,
) -> None:
    """Say what keeps workflows from going on: orphaned and stuck runs, projections that stand still.

    The exit code is 3 if there is any such thing.
    """
    findings = asyncio.run(_examine(url, namespace, read_model))
    typer.echo(f"engines: {len(findings.engines.alive)} alive")
    for status in findings.projections:
        typer.echo(f"projection {status.name}: {_standing(status)}")
    troubles = [*_orphans(findings), *_stuck(findings.stuck)]
    for trouble in troubles:
        typer.echo(trouble)
    if troubles or any(status.error for status in findings.projections):
        raise typer.Exit(FOUND)
    typer.echo("nothing keeps a workflow from going on")


def _standing(status: ProjectionStatus) -> str:
    behind = "up to date" if not status.lag else f"{status.lag:,} positions behind the store"
    if status.error is None:
        return behind
    where = f" at {status.failed_event}" if status.failed_event else ""
    return f"stands still{where}, {behind}: {_indented(status.error)}"


def _orphans(findings: _Findings) -> list[str]:
    what, why = "orphaned", "no engine that is alive has it"
    if not findings.engines.alive:
        what, why = "waiting", "no engine is alive"
    return [
        f"{what}: {runs:,} open runs of {workflow_type!r} need version {version!r}: {why}"
        for workflow_type, version, runs in findings.orphaned
    ]


def _stuck(runs: Sequence[WorkflowExecution]) -> list[str]:
    shown = [
        f"stuck: {run.workflow_id} ({run.workflow_type}): {_indented(run.stuck_reason or '')}"
        for run in runs
    ]
    return shown if len(shown) <= _SHOWN else [*shown[:_SHOWN], "stuck: and more"]


def _indented(text: str) -> str:
    return "\n    ".join(text.splitlines())


async def _examine(url: str, namespace: str, read_model: str | None) -> _Findings:
    name = check_namespace(namespace)
    _require_there(url)
    async with (
        aclosing(await open_store(url)) as store,
        aclosing(await ReadModel.open(read_model or read_model_beside(url, name))) as model,
    ):
        runner = ProjectionRunner(
            store,
            model,
            built_in(name),
            prefix=(workflow_prefix(name), schedule_prefix(name)),
        )
        await runner.prepare()
        visibility = Visibility(model, runner, AttributeSchema())
        stuck = await visibility.page("StuckReason IS NOT NULL", page_size=_SHOWN + 1)
        return _Findings(
            await Workers(model, SystemClock()).all(),
            await runner.status(),
            await PendingWorkIndex(model).open_versions(),
            stuck.rows,
        )


def _require_there(url: str) -> None:
    """Return if `url` does not name a file that is not there, nor a store in memory.

    Raises:
        UnknownStoreURLError: It does: opening it would make an empty store, with which all is well.
    """
    file = sqlite_file(url)
    if file is not None and not file.exists():
        raise UnknownStoreURLError(url, "there is no such file")
    if is_in_memory(url):
        raise UnknownStoreURLError(
            url, "a store in memory is only its own program's; name a file or a server"
        )
