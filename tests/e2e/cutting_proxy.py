"""A TCP proxy that cuts, delays and half-closes the connections through it, when a test says so and at random."""

import asyncio
import random
from collections.abc import Callable
from types import TracebackType
from typing import Self


class CuttingProxy:
    """Listens on loopback and passes bytes on to `port`, badly.

    Args:
        port: Of the server on 127.0.0.1.
        seed: Of the choices made; a test prints it.
    """

    def __init__(self, port: int, seed: int) -> None:
        self._target = port
        self._random = random.Random(seed)
        self._links: set[_Link] = set()
        self._group = asyncio.TaskGroup()
        self._server: asyncio.Server | None = None
        self.done: dict[str, int] = {"cut": 0, "half-closed": 0, "silent": 0, "delayed": 0}

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for link in tuple(self._links):
            link.cut()
        await self._group.__aexit__(kind, error, traceback)

    def harm(self) -> None:
        """Do the next harm, in random order but each as often as the others, to a random connection."""
        if not self._links:
            return
        link = self._random.choice(sorted(self._links, key=id))
        least = min(self.done.values())
        what = self._random.choice([kind for kind, times in self.done.items() if times == least])
        harms: dict[str, Callable[[], None]] = {
            "cut": link.cut,
            "half-closed": link.half_close,
            "silent": link.fall_silent,
            "delayed": lambda: link.delay(self._random.uniform(0.02, 0.2)),
        }
        harms[what]()
        self.done[what] += 1

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            to_server = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        link = _Link((reader, writer), to_server)
        self._links.add(link)
        task = self._group.create_task(link.run())
        task.add_done_callback(lambda _: self._links.discard(link))


class _Link:
    """One connection through the proxy."""

    def __init__(
        self,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._client, self._server = client, server
        self._pause = 0.0
        self._is_silent = False

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pass_on(self._client[0], self._server[1]))
            group.create_task(self._pass_on(self._server[0], self._client[1]))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                pause, self._pause = self._pause, 0.0
                await asyncio.sleep(pause)
                if self._is_silent:
                    continue  # swallowed: to either end it looks as if the other had nothing to say
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            self.cut()

    def cut(self) -> None:
        """Reset both ends."""
        for _, writer in (self._client, self._server):
            writer.transport.abort()

    def half_close(self) -> None:
        """Tell the server that the client says no more, and keep the other direction open."""
        if self._server[1].can_write_eof() and not self._server[1].is_closing():
            self._server[1].write_eof()
        self._is_silent = True

    def fall_silent(self) -> None:
        """Swallow everything from now on, in both directions; nobody is told."""
        self._is_silent = True

    def delay(self, seconds: float) -> None:
        """Hold back what comes next."""
        self._pause = seconds
