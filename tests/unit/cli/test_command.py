"""The command line as a whole: its entry point, its errors, and `aion-es copy` between files."""

import subprocess
import sys
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from aion_es.cli import run
from aion_es.cli.main import app
from aion_es.ids import DEFAULT_NAMESPACE, StreamName, workflow_prefix
from aion_es.store.port import NO_STREAM
from aion_es.store.sqlite import SQLiteEventStore
from aion_es.testing.store_contract.base import as_appended, collect, some_events

OURS = StreamName(f"{workflow_prefix(DEFAULT_NAMESPACE)}order-1")
SCHEDULE = StreamName("aion_schedule-nightly")
NEIGHBOUR = StreamName("aion_workflow_workflow-order-1")
"""A workflow of the namespace `aion_workflow`, which the prefix `aion_` would also match."""
CATALOG = StreamName("aion_catalog")
PACKAGE = StreamName("aion_package-1f")
NEIGHBOURS_CATALOG = StreamName("aion_catalog_catalog")
"""The catalog of the namespace `aion_catalog`, whose name begins with that of ours."""
FOREIGN = StreamName("invoices-1")


def command(*arguments: str) -> tuple[int, str, str]:
    """Run the command in a process of its own; return its exit code, output and errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "aion_es.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, prog_name="aion-es")


@pytest.fixture
async def source(tmp_path: Path) -> str:
    """The URL of a store with a workflow, a schedule, another namespace's workflow and a foreign stream."""
    async with await SQLiteEventStore.open(tmp_path / "source.db") as store:
        for stream in (OURS, SCHEDULE, NEIGHBOUR, FOREIGN):
            await store.append(stream, some_events(3, stream), NO_STREAM)
    return f"sqlite:///{tmp_path}/source.db"


async def streams_of(path: Path) -> list[str]:
    async with await SQLiteEventStore.open(path) as store:
        return list(dict.fromkeys(event.stream for event in await collect(store.read_all())))


# ------------------------------------------------------------------------------ the whole


def test_the_installed_script_is_this_entry_point() -> None:
    (script,) = entry_points(group="console_scripts", name="aion-es")
    assert script.load() is run


def test_the_version_is_the_packages() -> None:
    assert command("--version") == (0, f"{version('aion-es')}\n", "")


def test_without_arguments_it_says_what_there_is() -> None:
    shown = invoke()
    commands = ["copy", "dev-server", "doctor"]
    assert [name for name in commands if f"  {name} " in shown.output] == commands


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_one_line_says_what_to_install(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None\nfrom aion_es.cli import run\nrun()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    told = f'error: the aion-es command needs {missing}: pip install "aion-es[cli]"\n'
    assert (done.returncode, done.stdout, done.stderr) == (2, "", told)


def test_a_module_that_is_missing_for_another_reason_keeps_its_traceback() -> None:
    code = (
        "import sys; sys.modules['aion_es.store.copying'] = None\n"
        "from aion_es.cli import run\nrun()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr


# ------------------------------------------------------------------------------ copy


async def test_everything_is_copied_and_compared(source: str, tmp_path: Path) -> None:
    copied = command("copy", source, f"sqlite:///{tmp_path}/copy.db")
    told = "12 events copied, 0 were there before, 4 streams, all compared\n"
    assert copied == (0, told, "")
    async with (
        await SQLiteEventStore.open(tmp_path / "source.db") as before,
        await SQLiteEventStore.open(tmp_path / "copy.db") as after,
    ):
        expected = await collect(before.read_all())
        assert as_appended(await collect(after.read_all())) == as_appended(expected)


def test_copying_again_copies_nothing(source: str, tmp_path: Path) -> None:
    destination = f"sqlite:///{tmp_path}/copy.db"
    first, second = invoke("copy", source, destination), invoke("copy", source, destination)
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert second.output == "0 events copied, 12 were there before, 4 streams, all compared\n"


async def test_a_namespace_is_its_catalog_packages_workflows_and_schedules_and_no_other_namespaces(
    source: str, tmp_path: Path
) -> None:
    async with await SQLiteEventStore.open(tmp_path / "source.db") as store:
        for stream in (NEIGHBOURS_CATALOG, PACKAGE, CATALOG):
            await store.append(stream, some_events(1, stream), NO_STREAM)
    copied = command("copy", source, f"sqlite:///{tmp_path}/copy.db", "--namespace", "aion")
    told = "8 events copied, 0 were there before, 4 streams, all compared\n"
    assert copied == (0, told, "")
    assert await streams_of(tmp_path / "copy.db") == [CATALOG, PACKAGE, OURS, SCHEDULE]


def test_a_namespace_without_routes_and_packages_is_copied_too(source: str, tmp_path: Path) -> None:
    copied = command("copy", source, f"sqlite:///{tmp_path}/copy.db", "--namespace", "aion")
    told = "6 events copied, 0 were there before, 2 streams, all compared\n"
    assert copied == (0, told, "")


def test_comparing_can_be_left_out(source: str, tmp_path: Path) -> None:
    copied = invoke("copy", source, f"sqlite:///{tmp_path}/copy.db", "--no-verify")
    assert copied.output == "12 events copied, 0 were there before, 4 streams, not compared\n"


def test_on_a_terminal_bars_show_how_far_it_is(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    shown = invoke("copy", source, f"sqlite:///{tmp_path}/copy.db").stderr
    assert [f"{what} all streams" in shown for what in ("copying", "comparing")] == [True, True]
    assert "12 events" in shown


def test_an_interrupted_copy_says_how_to_go_on(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("aion_es.cli.copy.copy_streams", interrupted)
    stopped = invoke("copy", source, f"sqlite:///{tmp_path}/copy.db")
    assert (stopped.exit_code, stopped.stdout) == (130, "")
    assert stopped.stderr == "interrupted; the same command goes on where this one stopped\n"


async def test_a_store_that_holds_something_else_is_an_error_that_names_the_place(
    source: str, tmp_path: Path
) -> None:
    async with await SQLiteEventStore.open(tmp_path / "copy.db") as other:
        await other.append(OURS, some_events(1, "other"), NO_STREAM)
    code, shown, told = command("copy", source, f"sqlite:///{tmp_path}/copy.db")
    assert (code, shown) == (1, "")
    assert told == (
        f"error: {OURS}@0: the destination holds something else than the source; copy into streams "
        "that do not exist, or that an earlier copy began\n"
    )


def test_a_misspelled_file_is_an_error_and_makes_no_file(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/misspelled.db"
    code, _, told = command("copy", url, f"sqlite:///{tmp_path}/copy.db")
    assert (code, told) == (1, f"error: '{url}': there is no such file; nothing was copied\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("memory", ["sqlite://", "memory://", "sqlite://?durability=normal"])
def test_a_store_in_memory_is_neither_copied_from_nor_into(
    source: str, tmp_path: Path, memory: str
) -> None:
    told = (
        f"error: '{memory}': a store in memory begins empty and ends with this command; "
        "name a file or a server; nothing was copied\n"
    )
    assert command("copy", source, memory) == (1, "", told)
    assert command("copy", memory, f"sqlite:///{tmp_path}/copy.db") == (1, "", told)
    assert not (tmp_path / "copy.db").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("nowhere", "sqlite://"), "error: 'nowhere': has no scheme; known forms"),
        (("mysql://me:secret@host/db", "sqlite://"), "error: 'mysql://me:***@host/db': unknown"),
        (("sqlite://", "sqlite://", "--namespace", "A-B"), "error: namespace 'A-B' must be"),
    ],
    ids=["no scheme", "unknown scheme, without its password", "no namespace"],
)
def test_what_makes_no_sense_is_one_line_and_no_traceback(
    arguments: tuple[str, ...], told: str
) -> None:
    code, shown, errors = command("copy", *arguments)
    assert (code, shown, len(errors.splitlines())) == (1, "", 1)
    assert errors.startswith(told)


def test_a_missing_argument_is_exit_code_2() -> None:
    assert command("copy", "sqlite://")[0] == 2
