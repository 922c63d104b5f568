"""`aion-es copy`: copies streams from one store into another, and shows how far it is."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from aion_es.errors import UnknownStoreURLError
from aion_es.ids import (
    StreamName,
    catalog_stream,
    check_namespace,
    package_prefix,
    schedule_prefix,
    workflow_prefix,
)
from aion_es.store.copying import CopyProgress, copy_stream, copy_streams
from aion_es.store.port import EventStore
from aion_es.store.url import is_in_memory, open_store, sqlite_file

INTERRUPTED: Final = 130
"""The exit code of a program that Ctrl-C ended: 128 and the signal's number."""


def copy(
    source: Annotated[
        str, typer.Argument(metavar="SRC_URL", help="Copied from, such as sqlite:///aion.db.")
    ],
    destination: Annotated[
        str,
        typer.Argument(metavar="DST_URL", help="Copied into, such as esdb://localhost:2113."),
    ],
    *,
    namespace: Annotated[
        str | None,
        typer.Option(
            help="Only this namespace: workflows, schedules, routes, packages. Without it: every stream."
        ),
    ] = None,
    verify: Annotated[
        bool, typer.Option(help="In the end, read everything back from both and compare.")
    ] = True,
) -> None:
    """Copy streams from one store into another. Stop the engines of both first.

    Run again after an interruption, it goes on where it stopped. Nothing is ever overwritten.
    """
    try:
        copied = asyncio.run(_copy(source, destination, _parts(namespace), verify=verify))
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command goes on where this one stopped", err=True)
        raise typer.Exit(INTERRUPTED) from None
    typer.echo(_told(copied, verify=verify))


@dataclass(frozen=True)
class _Part:
    """A part of a store: the streams whose name begins with `name`, or the one that is called so."""

    name: str
    is_one: bool = False

    @property
    def shown(self) -> str:
        if self.is_one:
            return self.name
        return f"{self.name}…" if self.name else "all streams"


def _parts(namespace: str | None) -> tuple[_Part, ...]:
    if namespace is None:
        return (_Part(""),)
    name = check_namespace(namespace)
    return (
        # By its exact name: other namespaces may begin with it.
        _Part(catalog_stream(name), is_one=True),
        _Part(package_prefix(name)),
        _Part(workflow_prefix(name)),
        _Part(schedule_prefix(name)),
    )


async def _copy(
    source_url: str, destination_url: str, parts: tuple[_Part, ...], *, verify: bool
) -> list[CopyProgress]:
    _require_kept(source_url)
    file = sqlite_file(source_url)
    if file is not None and not file.exists():
        # Opening it would make an empty store, of which nothing is copied with success.
        raise UnknownStoreURLError(source_url, "there is no such file; nothing was copied")
    async with AsyncExitStack() as stack:
        source = await open_store(source_url)
        stack.push_async_callback(source.aclose)
        _require_kept(destination_url)
        destination = await open_store(destination_url)
        stack.push_async_callback(destination.aclose)
        return [await _copy_shown(source, destination, part, verify=verify) for part in parts]


def _require_kept(url: str) -> None:
    """Return if the store that `url` names is there before and after this command.

    Raises:
        UnknownStoreURLError: It is in memory.
    """
    if is_in_memory(url):
        raise UnknownStoreURLError(
            url,
            "a store in memory begins empty and ends with this command; name a file or a server; "
            "nothing was copied",
        )


async def _copy_shown(
    source: EventStore, destination: EventStore, part: _Part, *, verify: bool
) -> CopyProgress:
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[events]:,} events"),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,  # a log has no use for a bar
    ) as progress:
        bar = _Bar(progress, part.shown)
        bar.begin((await source.end_position()).commit)
        if part.is_one:
            stream = StreamName(part.name)
            return await copy_stream(source, destination, stream, verify=verify, progress=bar.show)
        return await copy_streams(
            source, destination, prefix=part.name, verify=verify, progress=bar.show
        )


@dataclass
class _Bar:
    """Two bars: copying, which goes by the place in the source, and then comparing, by events."""

    progress: Progress
    subject: str
    end: int = 0
    copying: TaskID | None = None
    comparing: TaskID | None = None

    def begin(self, end: int) -> None:
        """Show the first one, up to the source's end."""
        self.end = max(end, 1)
        self.copying = self.progress.add_task(f"copying {self.subject}", total=self.end, events=0)

    def show(self, now: CopyProgress) -> None:
        """Move to where the copy is now."""
        assert self.copying is not None  # noqa: S101 - begun before
        met = now.copied + now.found
        if not now.verified:
            self.progress.update(self.copying, completed=max(now.position.commit, 0), events=met)
            return
        if self.comparing is None:  # what matched may have ended before the store did
            self.progress.update(self.copying, completed=self.end)
            self.comparing = self.progress.add_task(
                f"comparing {self.subject}", total=met, events=0
            )
        self.progress.update(self.comparing, completed=now.verified, events=now.verified)


def _told(copied: list[CopyProgress], *, verify: bool) -> str:
    streams = sum(progress.streams for progress in copied)
    new = sum(progress.copied for progress in copied)
    found = sum(progress.found for progress in copied)
    compared = "all compared" if verify else "not compared"
    return f"{new:,} events copied, {found:,} were there before, {streams:,} streams, {compared}"
