"""The peer's side: one measurement of DBOS on SQLite, run by the interpreter of the peer's own environment.

`peer_dbos.py MODE --database default|tuned --style sync|async -n N --directory DIR`; prints one JSON line.
The work is that of `workloads.py`. `default` leaves DBOS's SQLite as it is; `tuned` gives it an engine
with `journal_mode=WAL, synchronous=FULL`: our own settings.
"""

import argparse
import asyncio
import importlib
import json
import os
import resource
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

WARM_UP: Final = 20
_POLL: Final = 0.05
_FOREVER: Final = 3_600
_SYNCHRONOUS: Final = ("off", "normal", "full", "extra")


class Peer:
    """DBOS, launched, with the workflows of one style: `def` in threads, or `async def`."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.count: int = asked.n
        self.style: str = asked.style
        self.file = Path(asked.directory) / "peer.db"
        self.gate_open = asked.phase != "crash"
        # Not in the environment that checks this file, so it is `Any` here.
        self.dbos: Any = importlib.import_module("dbos").DBOS
        self.dbos(config=self._config(asked.database))
        self.code = self._sync_code() if self.style == "sync" else self._async_code()
        self.dbos.launch()

    def _config(self, database: str) -> dict[str, Any]:
        url = f"sqlite:///{self.file}"
        config: dict[str, Any] = {
            "name": "bench",
            "log_level": "ERROR",
            "application_version": "bench",
            "system_database_url": url,
        }
        if database == "tuned":
            alchemy: Any = importlib.import_module("sqlalchemy")
            engine = alchemy.create_engine(
                url, pool_size=20, max_overflow=0, pool_timeout=30, pool_pre_ping=True
            )
            alchemy.event.listen(engine, "connect", _tune)
            config["system_database_engine"] = engine
        return config

    def _sync_code(self) -> Mapping[str, Any]:
        def add_one(number: int) -> int:
            return number + 1

        step: Callable[[int], int] = self.dbos.step()(add_one)

        def one_step(number: int) -> int:
            return step(number)

        def three_steps(number: int) -> int:
            return step(step(step(number)))

        def many_steps(count: int) -> int:
            number = 0
            for _ in range(count):
                number = step(number)
            return number

        def gated(number: int) -> int:
            first = step(number)
            if not self.gate_open:
                time.sleep(_FOREVER)
            return step(step(first))

        return self._workflows(one_step, three_steps, many_steps, gated)

    def _async_code(self) -> Mapping[str, Any]:
        async def add_one(number: int) -> int:
            return number + 1

        step: Any = self.dbos.step()(add_one)

        async def one_step(number: int) -> Any:
            return await step(number)

        async def three_steps(number: int) -> Any:
            return await step(await step(await step(number)))

        async def many_steps(count: int) -> int:
            number = 0
            for _ in range(count):
                number = await step(number)
            return number

        async def gated(number: int) -> Any:
            first = await step(number)
            if not self.gate_open:
                await asyncio.sleep(_FOREVER)
            return await step(await step(first))

        return self._workflows(one_step, three_steps, many_steps, gated)

    def _workflows(self, *functions: Callable[..., Any]) -> Mapping[str, Any]:
        return {f.__name__: self.dbos.workflow()(f) for f in functions}

    # ------------------------------------------------------------------------ measurements

    def parallel(self) -> dict[str, float]:
        """P1: many workflows at once, three steps each."""
        if self.style == "sync":
            return self._timed("workflows", self._parallel_sync)
        return self._timed("workflows", lambda: asyncio.run(self._parallel_async()))

    def _parallel_sync(self) -> None:
        start, code = self.dbos.start_workflow, self.code["three_steps"]
        handles = [start(code, number) for number in range(self.count)]
        _require([n + 3 for n in range(self.count)], [handle.get_result() for handle in handles])

    async def _parallel_async(self) -> None:
        start, code = self.dbos.start_workflow_async, self.code["three_steps"]
        handles = [await start(code, number) for number in range(self.count)]
        results = await asyncio.gather(*(handle.get_result() for handle in handles))
        _require([n + 3 for n in range(self.count)], results)

    def sequential(self) -> dict[str, float]:
        """P3: workflows one after the other, one step each."""
        return self._timed("workflows", lambda: self._one_after_the_other(self.count))

    def _one_after_the_other(self, count: int) -> None:
        code = self.code["one_step"]
        if self.style == "sync":
            for number in range(count):
                _require(number + 1, code(number))
            return

        async def run() -> None:
            for number in range(count):
                _require(number + 1, await code(number))

        asyncio.run(run())

    def steps(self) -> dict[str, float]:
        """P4: one workflow, many steps in a row."""
        code = self.code["many_steps"]
        if self.style == "sync":
            return self._timed("activities", lambda: _require(self.count, code(self.count)))
        return self._timed(
            "activities", lambda: _require(self.count, asyncio.run(code(self.count)))
        )

    def _timed(self, unit: str, work: Callable[[], object]) -> dict[str, float]:
        self._one_after_the_other(WARM_UP)
        cpu, began = _cpu_seconds(), time.perf_counter()
        work()
        took, cpu = time.perf_counter() - began, _cpu_seconds() - cpu
        return {
            f"{unit}_per_s": self.count / took,
            f"cpu_ms_per_{unit.removesuffix('s')}": cpu / self.count * 1e3,
        }

    def crash(self) -> None:
        """P5, first process: leave workflows behind after their first step, and wait to be killed."""
        threading.Thread(target=self._start_gated, daemon=True).start()
        self._until(self.count, "SELECT count(*) FROM operation_outputs")
        print('{"pending": true}', flush=True)
        time.sleep(_FOREVER)

    def _start_gated(self) -> None:
        code = self.code["gated"]
        if self.style == "sync":
            for number in range(self.count):
                self.dbos.start_workflow(code, number)
            return

        async def run() -> None:
            for number in range(self.count):
                await self.dbos.start_workflow_async(code, number)
            await asyncio.sleep(_FOREVER)

        asyncio.run(run())

    def recover(self) -> dict[str, float]:
        """P5, second process: from its start until everything that the first left behind is complete."""
        done = "SELECT count(*) FROM workflow_status WHERE status = 'SUCCESS'"
        self._until(self.count, done)
        return {"seconds": time.time() - float(os.environ["BENCH_STARTED_AT"])}

    def _until(self, count: int, query: str) -> None:
        connection = sqlite3.connect(self.file, timeout=60)
        while connection.execute(query).fetchone()[0] < count:
            time.sleep(_POLL)
        connection.close()

    def settings(self) -> dict[str, str]:
        """Return the settings of the database as DBOS's own connections have them."""
        instance = importlib.import_module("dbos._dbos")._get_dbos_instance()
        connection = instance._sys_db.engine.raw_connection()
        try:
            (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
            (level,) = connection.execute("PRAGMA synchronous").fetchone()
        finally:
            connection.close()
        return {"journal_mode": mode, "synchronous": _SYNCHRONOUS[level], "style": self.style}


def _tune(connection: Any, _record: object) -> None:
    connection.isolation_level = "IMMEDIATE"  # as DBOS's own engine has it
    for pragma in (
        "busy_timeout = 30000",
        "foreign_keys = ON",
        "journal_mode = WAL",
        "synchronous = FULL",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _require(expected: object, found: object) -> None:
    if expected != found:
        raise ValueError(f"expected {expected!r}, found {found!r}"[:400])


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("phase", choices=["parallel", "sequential", "steps", "crash", "recover"])
    parser.add_argument("--database", choices=["default", "tuned"], default="default")
    parser.add_argument("--style", choices=["sync", "async"], default="sync")
    parser.add_argument("-n", type=int, required=True)
    parser.add_argument("--directory", required=True)
    return parser.parse_args()


if __name__ == "__main__":
    asked = _parsed()
    peer = Peer(asked)
    values = getattr(peer, asked.phase)()
    print(json.dumps({"values": values, "settings": peer.settings()}), flush=True)
    sys.stdout.flush()
    os._exit(0)  # its pools would go on polling
