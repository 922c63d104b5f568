"""`make demo`: orders from a CSV file, fulfilled by workers that are killed in mid-flight, and audited at the end.

Exit status: 0 if everything adds up, 1 if it does not, 2 if the file or the command line cannot be used.
"""

import argparse
import asyncio
import io
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from examples.order_fulfilment.audit import Answers, Expected, Line, ask, audit
from examples.order_fulfilment.effects import Ledger
from examples.order_fulfilment.files import Files, RefusedError, locked, require_ours
from examples.order_fulfilment.orders import BadRow, Order, UnusableFileError, read_orders
from examples.order_fulfilment.supervise import Plan, Supervisor, WorkerFailedError

ORDERS: Final = Path(__file__).parent.parent / "data" / "orders.csv"
SHOWN_BAD_ROWS: Final = 100
SECONDS_BETWEEN_LINES: Final = 5.0
"""Between two reports of progress where no bar can be drawn."""

Say = Callable[[str], None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo and return its exit status."""
    options = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # names may not fit into the terminal's encoding
    console = Console(highlight=False, markup=False, emoji=False)
    complain = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)
    try:
        return _run(options, console, complain.print)
    except (UnusableFileError, RefusedError) as error:
        complain.print(f"error: {error}")
        return 2
    except WorkerFailedError as error:
        complain.print(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        complain.print("interrupted; the next demo starts afresh")
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="demo", description="Orders that survive kill -9.")
    parser.add_argument("--orders", type=Path, default=ORDERS, help="a CSV file of your own")
    parser.add_argument("--db", type=Path, default=Path("aion.db"), help="where the events go")
    parser.add_argument("--kills", type=int, default=2, help="how often a worker is killed")
    parser.add_argument(
        "--seconds-between-kills", type=float, default=3.0, help="no worker lives longer than that"
    )
    parser.add_argument("--quiet", action="store_true", help="only the result and what went wrong")
    return parser


def _run(options: argparse.Namespace, console: Console, complain: Say) -> int:
    say: Say = (lambda _text: None) if options.quiet else partial(console.print, soft_wrap=True)
    files = Files.beside(options.db)
    require_ours(files)
    began_at = time.monotonic()
    with TemporaryDirectory(prefix=".demo-", dir=files.events.parent) as draft:
        expected = _take_in(options.orders, Path(draft) / "ledger.db", complain)
        if removed := files.replace(Path(draft) / "ledger.db"):
            say(f"removed what an earlier demo had left: {', '.join(map(str, removed))}")
    say(f"{expected.orders:,} orders from {options.orders}")
    plan = Plan(expected.orders, max(options.kills, 0), options.seconds_between_kills)
    with locked(files.ledger):
        ledger = Ledger(files.ledger)
        with _progress(console, expected.orders, quiet=options.quiet) as show:
            supervisor = Supervisor(files, ledger, plan, show, say)
            supervisor.run()
        answers = asyncio.run(ask(files, expected))
        kills = supervisor.kills
        lines = audit(expected, ledger, answers, kills=kills, kills_due=plan.kills_due)
        ledger.close()
    console.print(_table(lines))
    all_holds = all(line.holds for line in lines)
    verdict = "everything adds up" if all_holds else "it does NOT add up: see ✗"
    console.print(f"{verdict}; {time.monotonic() - began_at:.1f} s")
    if not options.quiet:
        _what_next(console, files, expected.first, answers)
    return 0 if all_holds else 1


def _take_in(path: Path, ledger_path: Path, complain: Say) -> Expected:
    """Read the file into a new ledger, a few hundred orders at a time, and reckon what must come out.

    Raises:
        UnusableFileError: It cannot be read, or has no order.
    """
    expected, rejected = Expected(), 0
    ledger = Ledger.create(ledger_path)
    rows = read_orders(path)
    while portion := list(islice(rows, 1_000)):
        orders = [row for row in portion if isinstance(row, Order)]
        bad = [row for row in portion if isinstance(row, BadRow)]
        for order in orders:
            expected.add(order)
        for row in bad[: max(SHOWN_BAD_ROWS - rejected, 0)]:
            complain(f"skipped {path}, {row}")
        rejected += len(bad)
        ledger.take_in(orders, bad)
    ledger.close()
    if not expected.orders:
        raise UnusableFileError(f"{path} has no order that could be used, below its header")
    if rejected > SHOWN_BAD_ROWS:
        complain(f"skipped {rejected:,} rows in all; the ledger's table `rejected` has every one")
    return expected


@contextmanager
def _progress(console: Console, orders: int, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Give what shows the number of orders done: a bar, or a line now and then where there is no terminal."""
    if console.is_terminal and not quiet:
        columns = TextColumn("orders"), BarColumn(None), MofNCompleteColumn(), TimeElapsedColumn()
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("", total=orders)
            yield lambda done: bar.update(task, completed=done)
        return
    shown_at = time.monotonic()

    def line(done: int) -> None:
        nonlocal shown_at
        if not quiet and time.monotonic() - shown_at >= SECONDS_BETWEEN_LINES:
            shown_at = time.monotonic()
            console.print(f"{done:,} of {orders:,} orders done")

    yield line


def _table(lines: Sequence[Line]) -> Table:
    table = Table("", show_edge=False, pad_edge=False)
    table.add_column("found", justify="right")
    table.add_column("from the file", justify="right")
    table.add_column("")
    for line in lines:
        mark = Text("✓", "green") if line.holds else Text("✗", "bold red")
        table.add_row(Text(line.what), line.found, line.expected, mark)
    return table


def _what_next(console: Console, files: Files, order_id: str, answers: Answers) -> None:
    """Print a program that looks at what was left behind; it runs as it stands."""
    console.print(
        f"""
{files.events} keeps every event. What to try next: the history of one order, and a question to the read model.

import asyncio
from aion_es import Engine

async def main():
    async with Engine.open({f"sqlite:///{files.events}"!r}) as engine:
        for entry in await engine.handle({f"order-{order_id}"!r}).history():
            print(entry.revision, entry.recorded_at.time(), repr(entry.event))
        async for run in engine.visibility.list({answers.filter!r}):
            print(run.workflow_id, run.status, run.execution_duration)

asyncio.run(main())

The workflows are in examples/order_fulfilment/workflows.py. With your orders: make demo ORDERS=path.csv""",
        soft_wrap=True,
    )


if __name__ == "__main__":
    sys.exit(main())
