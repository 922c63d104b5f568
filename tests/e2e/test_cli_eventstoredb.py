"""The command line with a server: `aion-es dev-server`, and `aion-es copy` into it."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from aion_es import Context, Engine, workflow
from aion_es.errors import AccessDeniedError
from aion_es.store.port import NO_STREAM
from aion_es.store.url import open_store
from aion_es.testing.clock import ManualClock
from aion_es.testing.store_contract.base import STREAM, some_events
from tests.e2e.scenario import SOON, stream_of, until
from tests.integration.certificates import openssl_is_missing

pytest.importorskip("grpc", reason="no EventStoreDB client is installed: make test-clients")

COMMAND = (sys.executable, "-m", "aion_es.cli")
PIPE = asyncio.subprocess.PIPE


@workflow
async def resting(ctx: Context) -> str:
    await ctx.sleep(timedelta(hours=3))
    return "rested"


async def run(*arguments: str) -> tuple[int | None, str, str]:
    """Run the command to its end; return its exit code, output and errors."""
    process = await asyncio.create_subprocess_exec(*COMMAND, *arguments, stdout=PIPE, stderr=PIPE)
    shown, errors = await process.communicate()
    return process.returncode, shown.decode(), errors.decode()


@asynccontextmanager
async def dev_server(
    *arguments: str, end: signal.Signals = signal.SIGTERM
) -> AsyncIterator[tuple[str, list[str]]]:
    """Run a server; yield its connection string, and a list that gets its errors when it has ended well."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "dev-server", "--port", "0", *arguments, stdout=PIPE, stderr=PIPE
    )
    assert process.stdout is not None
    told: list[str] = []
    try:
        uri = (await process.stdout.readline()).decode().strip()
        assert uri, (await process.communicate())[1].decode()
        yield uri, told
        process.send_signal(end)
        shown, errors = await process.communicate()
        assert (process.returncode, shown) == (0, b"")
        told += errors.decode().splitlines()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_workflow_that_slept_in_a_file_is_copied_to_the_server_and_goes_on_there(
    tmp_path: Path, clock: ManualClock
) -> None:
    source = f"sqlite:///{tmp_path}/aion.db"
    async with Engine.open(source, workflows=[resting], clock=clock) as engine:
        await engine.start(resting, id="sleeper")
        await until(lambda: _is_asleep(engine))
    async with dev_server() as (uri, _):
        copied = await run("copy", source, uri, "--namespace", "aion")
        told = "2 events copied, 0 were there before, 1 streams, all compared\n"
        assert copied == (0, told, "")
        async with Engine.open(
            uri, workflows=[resting], clock=clock, read_model="sqlite://"
        ) as engine:
            await engine.wait_recovered(SOON)
            clock.advance(timedelta(hours=4))
            assert await engine.handle("sleeper").result(timeout=SOON) == "rested"


async def _is_asleep(engine: Engine) -> bool:
    return "TimerStarted" in await stream_of(engine, "sleeper")


async def test_the_server_keeps_events_in_the_file_that_it_is_given(tmp_path: Path) -> None:
    data = f"{tmp_path}/events.db"
    async with dev_server("--data", data) as (uri, told):
        store = await open_store(uri)
        await store.append(STREAM, some_events(3), NO_STREAM)
        await store.aclose()
    assert told[-1] == f"events are kept in {data}; Ctrl-C ends the server"
    async with dev_server("--data", data) as (uri, _):
        store = await open_store(uri)
        assert await store.head(STREAM) == 2
        await store.aclose()


async def test_the_server_says_that_it_is_not_for_production() -> None:
    async with dev_server() as (_, told):
        pass
    assert len([line for line in told if line.endswith("not for production")]) == 1
    assert told[-1] == "events are kept in memory; Ctrl-C ends the server"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name)
async def test_a_signal_ends_the_server_cleanly_with_a_client_connected(
    number: signal.Signals,
) -> None:
    async with dev_server(end=number) as (uri, told):
        store = await open_store(uri)
        await store.append(STREAM, some_events(1), NO_STREAM)
    await store.aclose()
    assert [line for line in told if "Traceback" in line] == []


@pytest.mark.skipif(openssl_is_missing(), reason="openssl is not installed: it makes certificates")
async def test_with_tls_and_users_only_they_may_enter(tmp_path: Path) -> None:
    options = ("--tls", f"{tmp_path}/tls", "--user", "admin:changeit", "--user", "clerk:secret")
    async with dev_server(*options) as (uri, _):
        assert uri.startswith("esdb://admin:changeit@127.0.0.1:")
        assert uri.endswith(f"?Tls=true&TlsCaFile={tmp_path}/tls/ca.crt")
        for known in (uri, uri.replace("admin:changeit", "clerk:secret")):
            store = await open_store(known)
            await store.aclose()
        with pytest.raises(AccessDeniedError):
            await open_store(uri.replace("changeit", "changed"))
    certificate = (tmp_path / "tls" / "node.crt").read_bytes()
    async with dev_server(*options):
        assert (tmp_path / "tls" / "node.crt").read_bytes() == certificate  # the same again


async def test_it_listens_on_the_address_that_it_is_given() -> None:
    async with dev_server("--host", "::1") as (uri, _):
        assert uri.startswith("esdb://[::1]:")
        store = await open_store(uri)
        await store.aclose()


async def test_a_port_that_is_taken_is_one_line_and_exit_code_1() -> None:
    async with dev_server() as (uri, _):
        port = uri.partition("?")[0].rpartition(":")[2]
        code, shown, errors = await run("dev-server", "--port", port)
    assert (code, shown) == (1, "")
    assert errors.splitlines()[-1] == f"error: 127.0.0.1:{port}: the port is taken"


async def test_a_user_without_a_password_is_refused() -> None:
    told = "error: --user: 'admin' needs the form NAME:PASSWORD\n"
    assert await run("dev-server", "--user", "admin") == (1, "", told)


async def test_half_a_certificate_is_refused(tmp_path: Path) -> None:
    (tmp_path / "node.crt").write_text("half")
    code, shown, errors = await run("dev-server", "--tls", str(tmp_path))
    assert (code, shown) == (1, "")
    assert errors.startswith("error: --tls: ")
    assert "node.key" in errors


async def test_a_copy_to_a_server_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    async with Engine.open(f"sqlite:///{tmp_path}/aion.db", workflows=[resting]):
        pass
    code, shown, errors = await run(
        "copy", f"sqlite:///{tmp_path}/aion.db", "esdb://me:secret@127.0.0.1:1?Tls=false"
    )
    assert (code, shown, len(errors.splitlines())) == (1, "", 1)
    assert errors.startswith("error: esdb://me:***@127.0.0.1:1?Tls=false: connecting: ")
