"""Notices that another process wrote to the file."""

import asyncio
import sqlite3
import threading
from typing import Final

from aion_es.store.feed import LiveFeed
from aion_es.store.sqlite import reader
from aion_es.store.sqlite.writer import Writer

INTERVAL: Final = 0.025
"""Seconds between two looks at the file's change counter: a few microseconds each, and 100 to wake up."""


class Watcher:
    """A thread that tells the feed when the file changed.

    It also sees the commits of its own process. To the feed it tells only of what lies beyond them;
    should it be a moment faster than the writer's own word, that is harmless.

    Args:
        connection: A reading one of its own, which it closes in the end.
        loop: Where the feed lives.
        feed: Whom to tell.
        writer: Whose commits the feed already knows of.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        loop: asyncio.AbstractEventLoop,
        feed: LiveFeed,
        writer: Writer,
    ) -> None:
        self._connection = connection
        self._loop = loop
        self._feed = feed
        self._writer = writer
        # A held lock, to be released at the end: waiting for it takes a third less than for an Event.
        self._open = threading.Lock()
        self._open.acquire()
        self._thread = threading.Thread(target=self._run, name="aion-es-sqlite-watcher")
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end."""
        self._open.release()

    def join(self) -> None:
        """Wait until it has."""
        self._thread.join()

    def _run(self) -> None:
        seen = -1
        try:
            while not self._open.acquire(timeout=INTERVAL) and threading.main_thread().is_alive():
                try:
                    seen = self._look(seen)
                except sqlite3.Error:
                    # The file is busy or away. Those who read and write are told by their own calls;
                    # here it is enough to look again.
                    continue
                except RuntimeError:
                    if self._loop.is_closed():  # the program ended without closing the store
                        return
                    raise
        finally:
            self._connection.close()

    def _look(self, seen: int) -> int:
        version: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
        if version != seen:
            end = reader.end(self._connection)
            if end > self._writer.committed:
                self._loop.call_soon_threadsafe(self._feed.advanced, end)
            else:  # our own commit, or one that wrote no event, as consumers of other processes do
                self._loop.call_soon_threadsafe(self._feed.changed)
        return version
