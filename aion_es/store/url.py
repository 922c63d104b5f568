"""Opens the store that a URL names: the one place that knows every adapter."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from aion_es.clock import Clock
from aion_es.errors import UnknownStoreURLError
from aion_es.ids import DEFAULT_NAMESPACE
from aion_es.store.observed import observed
from aion_es.store.port import EventStore

_FORMS: Final = (
    "sqlite:///file.db, sqlite:// (in memory, with SQLite), memory:// (in memory), "
    "esdb://host:2113?Tls=…, esdb+discover://…, kurrentdb://…, kurrentdb+discover://…"
)


async def open_store(url: str, *, clock: Clock | None = None) -> EventStore:
    """Open the event store that `url` names; its opener closes it.

    In a program with an OpenTelemetry SDK each of its calls has a span.

    Args:
        url: `sqlite:///file.db` (relative to the working directory), `sqlite:////dir/file.db`
            (absolute), `sqlite://` (private, in memory), each with `?durability=full` (default: an
            acknowledged append survives a power loss) or `normal`; `memory://` for tests; the connection
            strings of EventStoreDB and KurrentDB, `esdb://`, `esdb+discover://`, `kurrentdb://` and
            `kurrentdb+discover://`, with the options that their clients know.
        clock: Where a store in this process takes the time from. Default: the machine's clock.

    Raises:
        UnknownStoreURLError: No store has this form, or its client package is not installed (says which
            extra to install); nothing was opened.
        AccessDeniedError: The server does not know the user and password.
        StoreUnavailableError: The store cannot be reached, or its file not be opened.
        StoreCorruptError: The file is not a store; it was left untouched.
        UnsupportedStoreVersionError: The store or its library has the wrong version.
    """
    scheme, separator, _ = url.partition("://")
    if not separator:
        raise UnknownStoreURLError(url, f"has no scheme; known forms: {_FORMS}")
    opener = _OPENERS.get(scheme)
    if opener is None:
        from aion_es.store.eventstoredb.client import without_password

        raise UnknownStoreURLError(
            without_password(url), f"unknown scheme {scheme!r}; known forms: {_FORMS}"
        )
    return observed(await opener(url, clock))


def sqlite_file(url: str) -> Path | None:
    """Return the file that a `sqlite:` URL names; None if it names memory, or is no such URL.

    Raises:
        UnknownStoreURLError: It is malformed.
    """
    return _sqlite_place(url)[0] if url.startswith("sqlite://") else None


def is_in_memory(url: str) -> bool:
    """Return whether a URL names a store that only the program has that opens it, and only as long.

    Raises:
        UnknownStoreURLError: It is a malformed `sqlite:` URL.
    """
    return url.startswith("memory://") or (url.startswith("sqlite://") and sqlite_file(url) is None)


async def _open_sqlite(url: str, clock: Clock | None) -> EventStore:
    from aion_es.store.sqlite import Durability, SQLiteEventStore

    path, text = _sqlite_place(url)
    known = [durability.value for durability in Durability]
    if text is not None and text not in known:
        raise UnknownStoreURLError(url, f"durability is {' or '.join(known)}, not {text!r}")
    durability = Durability.FULL if text is None else Durability(text)
    return await SQLiteEventStore.open(path, durability=durability, clock=clock)


def _sqlite_place(url: str) -> tuple[Path | None, str | None]:
    """Return the file that a URL names, None for memory, and the durability that it asks for.

    Raises:
        UnknownStoreURLError: It is malformed.
    """
    parts = urlsplit(url)
    if parts.netloc:
        raise UnknownStoreURLError(
            url, f"names a host; write sqlite:///{parts.netloc}{parts.path} for a file"
        )
    if parts.fragment:
        raise UnknownStoreURLError(url, "a file name has no '#'; write %23")
    options = _options(url, parts.query, ("durability",))
    path = unquote(parts.path.removeprefix("/"))
    if parts.path == "/" or path.startswith(":memory:"):
        raise UnknownStoreURLError(url, "names no file; a store in memory is sqlite://")
    if "\0" in path:
        raise UnknownStoreURLError(url, "a file name has no NUL")
    return Path(path) if path else None, options.get("durability")


async def _open_memory(url: str, clock: Clock | None) -> EventStore:
    from aion_es.store.memory import MemoryEventStore

    parts = urlsplit(url)
    if parts.netloc or parts.path:
        raise UnknownStoreURLError(url, "a store in memory has no name; write memory://")
    _options(url, parts.query, ())
    return MemoryEventStore(clock)


async def _open_eventstoredb(url: str, clock: Clock | None) -> EventStore:  # noqa: ARG001 - the server has one
    from aion_es.store.eventstoredb import EventStoreDBStore

    return await EventStoreDBStore.open(url)


def _options(url: str, query: str, known: tuple[str, ...]) -> Mapping[str, str]:
    """Return the options of a URL.

    Raises:
        UnknownStoreURLError: One is unknown, malformed, or given twice.
    """
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError as error:
        raise UnknownStoreURLError(url, f"malformed options {query!r}") from error
    for name, _ in pairs:
        if name not in known:
            names = ", ".join(known) or "none"
            raise UnknownStoreURLError(url, f"unknown option {name!r}; known: {names}")
    options = dict(pairs)
    if len(options) < len(pairs):
        raise UnknownStoreURLError(url, "an option is given twice")
    return options


_OPENERS: Final[Mapping[str, Callable[[str, Clock | None], Awaitable[EventStore]]]] = {
    "sqlite": _open_sqlite,
    "memory": _open_memory,
    "esdb": _open_eventstoredb,
    "esdb+discover": _open_eventstoredb,
    "kurrentdb": _open_eventstoredb,
    "kurrentdb+discover": _open_eventstoredb,
}


def read_model_beside(url: object, namespace: str) -> str:
    """Return the URL of the read model that belongs to a store: `aion.db` has `aion.readmodel.db`.

    A namespace other than the default one has one of its own, `aion.NAMESPACE.readmodel.db`. A server's is a
    file of that name in the working directory: engines of different servers need directories of their own,
    or `read_model=`. A store that was given open, or is in memory, has one in memory.
    """
    if not isinstance(url, str):
        return "sqlite://"
    name = "readmodel" if namespace == DEFAULT_NAMESPACE else f"{namespace}.readmodel"
    base = url.partition("?")[0]
    scheme, _, path = base.partition("://")
    if scheme.partition("+")[0] in {"esdb", "kurrentdb"}:
        return f"sqlite:///aion.{name}.db"
    if scheme != "sqlite" or path in {"", "/", "/:memory:"}:
        return "sqlite://"
    stem, dot, extension = path.rpartition(".")
    return (
        f"sqlite://{stem}.{name}.{extension}"
        if dot and "/" not in extension
        else f"sqlite://{path}.{name}"
    )
