"""The connection: which client package is installed, one channel at a time, and calls that are tried again.

The client packages give connection strings, TLS, credentials and the discovery of a cluster's leader.
The calls themselves go over their generated stubs: the packages' own methods swallow a cancellation
(a reader that is cancelled sees the end of the stream instead), open a call per append, and retry
some errors and not others.
"""

import asyncio
import importlib
import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final, NamedTuple, TypeVar

from aion_es.errors import (
    AionError,
    StoreClosedError,
    StoreUnavailableError,
    UnknownStoreURLError,
    UnsupportedStoreVersionError,
)
from aion_es.store.eventstoredb.certificates import check_certificates
from aion_es.store.eventstoredb.errors import SILENT, CallFailedError, call_failure

T = TypeVar("T")

_LOG: Final = logging.getLogger("aion_es.store.eventstoredb")

DEADLINE: Final = 10.0
"""Seconds that one try of a call may take, unless the connection string has `DefaultDeadline`."""
RETRY_FOR: Final = 20.0
"""Seconds from the first failure of a call to the last try."""
FIRST_DELAY: Final = 0.05
LAST_DELAY: Final = 2.0
"""Bounds in seconds of the pause between two tries; doubled each time, then drawn at random below that."""
_OPENING_TRIES: Final = 3

OLDEST: Final = (22, 10)
"""The first version that tells an event's position in every read."""
_MEDIUM: Final = (25, 1)
_KEEPS_FILTERS: Final = (23, 10)

_CHANNEL_OPTIONS: Final = (
    # gRPC by itself waits up to two minutes before it tries a server again.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # A subscription hears nothing of a connection that is dead on the other side unless it asks.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)
_KEEP_ALIVE: Final = 10_000
"""Milliseconds between two pings, and that an answer may take, unless the connection string says so."""
_FEATURES: Final = "/event_store.client.server_features.ServerFeatures/GetSupportedMethods"
_LAST_PORT: Final = 65_535
_USER: Final = re.compile(r"(?<=://)([^/@:]*):[^/@]*@")
_USER_CERTIFICATE: Final = re.compile(r"[?&]usercertfile=", re.IGNORECASE)


class Library(NamedTuple):
    """The names that both client packages have.

    Attributes:
        package: Which one it is.
        client: Its asyncio client's class.
        streams: Generated messages of the streams service; `persistent`, `shared` likewise.
    """

    package: str
    client: Any
    streams: Any
    persistent: Any
    shared: Any


_PACKAGES: Final = (
    ("kurrentdbclient", "AsyncKurrentDBClient", "kurrentdbclient.protos.v1"),
    ("esdbclient", "AsyncEventStoreDBClient", "esdbclient.protos.Grpc"),
)


def load_library(url: str) -> Library:
    """Import the client package that is installed.

    Never both: their generated messages exclude each other in one process.

    Raises:
        UnknownStoreURLError: Neither is; says which extra to install.
    """
    for package, client, messages in _PACKAGES:
        try:
            module = importlib.import_module(package)
        except ModuleNotFoundError as error:
            if error.name != package:
                raise
            continue
        return Library(
            package,
            getattr(module, client),
            importlib.import_module(f"{messages}.streams_pb2"),
            importlib.import_module(f"{messages}.persistent_pb2"),
            importlib.import_module(f"{messages}.shared_pb2"),
        )
    extra = "kurrentdb" if url.startswith("kurrentdb") else "eventstoredb"
    raise UnknownStoreURLError(
        without_password(url),
        f"needs a client package: pip install 'aion-es[{extra}]' "
        "(extras eventstoredb and kurrentdb speak to either server; install one of them)",
    )


def without_password(url: str) -> str:
    """Return `url` fit to be shown."""
    return _USER.sub(r"\1:***@", url)


@dataclass(frozen=True, slots=True)
class ServerVersion:
    """What the server says that it is."""

    text: str

    @property
    def number(self) -> tuple[int, int]:
        """Major and minor; a build without a number counts as the newest."""
        found = re.match(r"(\d+)\.(\d+)", self.text)
        if found is None or found[1] == "0":
            return (9999, 0)
        return (int(found[1]), int(found[2]))

    @property
    def tells_caught_up(self) -> bool:
        """Whether its subscriptions say when they are live; later versions of 23 do, in part."""
        return self.number >= (24, 2)

    @property
    def keeps_filters(self) -> bool:
        """Whether a persistent subscription that is changed keeps its filter; before 23.10 it may lose it."""
        return self.number >= _KEEPS_FILTERS

    @property
    def limit(self) -> int:
        """Bytes that it accepts in one append, by default.

        1 MiB through 25.0. Later ones take 16 MiB per event and more per append; a request is kept
        below the 16 MiB that a gRPC message may have.
        """
        return 15 * 2**20 if self.number >= _MEDIUM else 2**20


class Connection:
    """One connection to the server or to the cluster's preferred node, replaced when that is needed.

    Attributes:
        library: The client package's names.
        where: The connection string without password.
        version: The server's.
        generation: Counts connections, so that of many who see one fail only the first replaces it.
        deadline: Seconds for one try of a call.
    """

    def __init__(self, library: Library, client: Any, url: str) -> None:
        self.library = library
        self.where = without_password(url)
        self.version = ServerVersion("")
        self.generation = 0
        self._client = client
        default: int | None = client._default_deadline  # noqa: SLF001 - see the module's docstring
        self.deadline = DEADLINE if default is None else float(default)
        scheme, _, rest = url.partition("://")
        self._is_cluster = "+discover" in scheme or "," in rest.partition("?")[0]
        self._replacing = asyncio.Lock()
        self._closed = False

    @classmethod
    async def open(cls, url: str) -> "Connection":
        """Connect, and ask the server what it is.

        Raises:
            UnknownStoreURLError: No client package, or the connection string is wrong.
            StoreUnavailableError: Nobody answers there, or not in this language.
            AccessDeniedError: Wrong user or password.
            UnsupportedStoreVersionError: The server is older than 22.10, or something else.
        """
        library = load_library(url)
        spelled = url.replace("kurrentdb", "esdb", 1) if library.package == "esdbclient" else url
        certified = bool(_USER_CERTIFICATE.search(url)) and "@" not in url.partition("?")[0]
        if certified:  # both packages ask for a password, also where a certificate stands for it
            spelled = spelled.replace("://", "://certificate:certificate@", 1)
        try:
            client = library.client(spelled)
            check_certificates(spelled)
        except (ValueError, OSError) as error:  # OSError: a certificate's file
            said = str(error).replace(spelled, without_password(url))
            raise UnknownStoreURLError(without_password(url), said) from error
        _check_ports(client.connection_spec.targets, url)
        if certified:
            client._call_credentials = None  # noqa: SLF001 - see the module's docstring
        client.grpc_options = _channel_options(client.grpc_options)
        connection = cls(library, client, url)
        try:
            await connection._establish()
        except BaseException:
            await connection.aclose()
            raise
        return connection

    async def _establish(self) -> None:
        try:
            await self._client.connect()
        except Exception as error:
            raise StoreUnavailableError(
                f"{self.where}: no node of the cluster was found ({error}); check hosts and ports"
            ) from error
        try:
            self.version = await self._retrying(self._read_version, _OPENING_TRIES, "connecting")
        except StoreUnavailableError as error:
            raise StoreUnavailableError(
                f"{error.reason}; check that the server runs, host and port, and that Tls=true or "
                "Tls=false in the connection string is what the server speaks; with TLS also that "
                "the authority in TlsCaFile has signed the server's certificate, and that it names this host"
            ) from error
        if self.version.number < OLDEST:
            raise UnsupportedStoreVersionError(
                f"the server at {self.where}", self.version.text, "22.10 or later"
            )

    # ---------------------------------------------------------------- calls

    @property
    def streams(self) -> Any:
        """The stub of the streams service, on the present connection."""
        return self._present().streams._stub  # noqa: SLF001 - see the module's docstring

    @property
    def persistent(self) -> Any:
        """The stub of the persistent subscriptions service."""
        return self._present().persistent_subscriptions._stub  # noqa: SLF001

    def options(self, *, leader: bool = False, timeout: float | None = None) -> dict[str, Any]:
        """Return what every call is given: headers, credentials and its deadline.

        Args:
            leader: Only the leader may answer; else the connection string's `NodePreference` decides.
            timeout: Seconds until the call fails; None for a call without end.
        """
        service = self._present().streams
        headers: Any = service._metadata(self._client._call_metadata, requires_leader=leader)  # noqa: SLF001
        return {
            "metadata": headers,
            "credentials": self._client._call_credentials,  # noqa: SLF001
            "timeout": timeout,
        }

    async def answer(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Make a call that has one answer, and return it.

        Raises:
            CallFailedError: It failed.
        """
        try:
            return await call()
        except BaseException as error:
            failure = call_failure(error)
            if failure is None:
                raise
            raise failure from error

    async def answers(self, call: Callable[[], Any]) -> AsyncGenerator[Any, None]:
        """Make a call that has many answers, and yield them; the call ends with the generator.

        Raises:
            CallFailedError: It failed; what was yielded is right.
        """
        made: Any = None
        try:
            made = call()
            async for message in made:
                yield message
        except (Exception, asyncio.CancelledError) as error:
            failure = call_failure(error)
            if failure is None:
                raise
            raise failure from error
        finally:
            if made is not None:
                made.cancel()

    async def persistently(
        self,
        work: Callable[[], Awaitable[T]],
        what: str,
        *,
        stream: str = "",
        outcome_unknown: bool = False,
    ) -> T:
        """Do `work`, which may be done twice, again while that makes sense; for `RETRY_FOR` at most.

        Args:
            work: Makes calls by `answer` and `answers`.
            what: Names it in errors.
            stream: Which stream (or consumer group) it is about.
            outcome_unknown: `work` writes.

        Raises:
            AionError: What the last failure means.
        """
        return await self._retrying(work, None, what, stream, outcome_unknown=outcome_unknown)

    async def _retrying(
        self,
        work: Callable[[], Awaitable[T]],
        tries: int | None,
        what: str,
        stream: str = "",
        *,
        outcome_unknown: bool = False,
    ) -> T:
        async def once() -> T:
            self.require_open()
            generation = self.generation
            try:
                return await work()
            except CallFailedError as failure:
                self.require_open()
                if failure.again:
                    await self.mend(failure, generation)
                raise

        try:
            try:
                return await once()
            except CallFailedError as failure:
                if not failure.again:
                    raise
            result: T = await _patient(tries)(once)
        except CallFailedError as failure:
            raise self.told(failure, what, stream, outcome_unknown=outcome_unknown) from failure
        return result

    def told(
        self,
        failure: CallFailedError,
        what: str,
        stream: str = "",
        *,
        outcome_unknown: bool = False,
    ) -> AionError:
        """Return what a failure means to the store's user."""
        return failure.told(f"{self.where}: {what}", stream=stream, outcome_unknown=outcome_unknown)

    async def _read_version(self) -> ServerVersion:
        call = self._present()._grpc_channel.unary_unary(  # noqa: SLF001
            _FEATURES, request_serializer=bytes, response_deserializer=bytes
        )
        message = await self.answer(lambda: call(b"", **self.options(timeout=self.deadline)))
        return ServerVersion(_text_field(message, 2))

    # ---------------------------------------------------------------- the connection itself

    def require_open(self) -> None:
        """Return if the store is open.

        Raises:
            StoreClosedError: It is not.
        """
        if self._closed:
            raise StoreClosedError(self.where)

    def refuse(self) -> None:
        """Let every later call be `StoreClosedError`."""
        self._closed = True

    async def mend(self, failure: CallFailedError, generation: int) -> None:
        """Connect anew if the failure asks for it: to the leader that was named, or to whom discovery finds.

        To a single server gRPC itself connects again, once it has noticed.

        Args:
            failure: What happened.
            generation: On which connection.
        """
        elsewhere = self._is_cluster and failure.code != "DEADLINE_EXCEEDED"
        if failure.leader is None and failure.code != SILENT and not elsewhere:
            return
        async with self._replacing:
            if self.generation != generation or self._closed:
                return
            try:
                new = await self._client._connect(failure.leader)  # noqa: SLF001
            except Exception as error:  # noqa: BLE001 - whoever tries again is told by the next failure
                _LOG.warning("%s: connecting anew: %s", self.where, error)
                return
            old, self._client._connection = self._client._connection, new  # noqa: SLF001
            self.generation += 1
            _LOG.info("%s: now on %s", self.where, new.grpc_target)
            await _close(old)

    async def aclose(self) -> None:
        """Close the channel; calls that are under way end as lost."""
        self._closed = True
        old = getattr(self._client, "_connection", None)
        if old is not None:
            await _close(old)

    def _present(self) -> Any:
        return self._client._connection  # noqa: SLF001


def _check_ports(targets: Sequence[str], url: str) -> None:
    """Return if each of the hosts with their ports can be connected to: gRPC cuts a port down to 16 bits.

    Raises:
        UnknownStoreURLError: One cannot; names it.
    """
    for target in targets:
        port = target.rpartition(":")[2]
        if not (port.isdecimal() and 0 < int(port) <= _LAST_PORT):
            raise UnknownStoreURLError(
                without_password(url), f"{target!r}: a port is a number from 1 to {_LAST_PORT}"
            )


async def _close(connection: Any) -> None:
    # Not the package's own close(): that waits for calls that have no end, five seconds long.
    await connection._grpc_channel.close(None)  # noqa: SLF001


def _channel_options(given: Any) -> tuple[tuple[str, Any], ...]:
    """Return the channel's options: a package's, made complete.

    One of the packages misspells the interval of keep-alives, and its timeout has no effect alone: gRPC
    waits for the answer to a ping for as long as `ping_timeout_ms` says.
    """
    options = dict(given)
    interval = options.pop("grpc.keepalive_ms", _KEEP_ALIVE)
    timeout = options.get("grpc.keepalive_timeout_ms", _KEEP_ALIVE)
    options.setdefault("grpc.keepalive_time_ms", interval)
    options["grpc.keepalive_timeout_ms"] = options["grpc.http2.ping_timeout_ms"] = timeout
    return (*options.items(), *_CHANNEL_OPTIONS)


def _patient(tries: int | None) -> Any:
    # Imported when something failed: the way without needs none of it.
    from tenacity import (
        AsyncRetrying,
        retry_if_exception,
        stop_after_attempt,
        stop_after_delay,
        wait_random_exponential,
    )

    return AsyncRetrying(
        retry=retry_if_exception(lambda e: isinstance(e, CallFailedError) and e.again),
        stop=stop_after_delay(RETRY_FOR) if tries is None else stop_after_attempt(tries - 1),
        wait=wait_random_exponential(multiplier=FIRST_DELAY, max=LAST_DELAY),
        reraise=True,
    )


class Backoff:
    """The pauses of a loop that connects again and again; bounded, and drawn at random.

    Attributes:
        failures: Since the last success.
    """

    def __init__(self) -> None:
        self.failures = 0
        self._since = 0.0

    def succeeded(self) -> None:
        """Begin with the shortest pause again."""
        self.failures = 0

    def failed(self) -> bool:
        """Count a failure; return whether to go on: `RETRY_FOR` is not over since the first of the row."""
        now = asyncio.get_running_loop().time()
        if not self.failures:
            self._since = now
        self.failures += 1
        return now - self._since < RETRY_FOR

    async def pause(self) -> None:
        """Wait for as long as the number of failures asks for."""
        from tenacity import wait_random_exponential

        # The number of the attempt is all that tenacity asks of a retry's state here.
        state: Any = SimpleNamespace(attempt_number=max(self.failures, 1))
        await asyncio.sleep(wait_random_exponential(multiplier=FIRST_DELAY, max=LAST_DELAY)(state))


def _text_field(message: bytes, wanted: int) -> str:
    """Return a text field of a protobuf message that neither package has a class for; the last one wins."""
    at, text = 0, ""
    with suppress(IndexError):
        while at < len(message):
            tag, at = _varint(message, at)
            if tag & 7 != 2:
                break  # the message has fields with a length only; anything else is not ours
            size, at = _varint(message, at)
            if tag >> 3 == wanted:
                text = message[at : at + size].decode(errors="replace")
            at += size
    return text


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
