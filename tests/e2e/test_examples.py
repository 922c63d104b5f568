"""The examples do what they say: each runs as a program, and its workflow meets what its text promises."""

import asyncio
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from aion_es import WorkflowHandle
from aion_es.errors import RunClosedError, WorkflowFailedError
from aion_es.events.workflow import ActivityScheduled, ActivityStarted
from aion_es.testing.clock import ManualClock
from examples import approval, billing, cart, command_line, fan_out, polling, saga
from examples.calendar_days import pass_days
from tests.docs.pages import ROOT
from tests.e2e.conftest import EngineOpener
from tests.e2e.scenario import SOON, events_of, is_recorded, kinds, stream_of, until

PRINTED = {
    "saga": """\
trip-1: booked
trip-2: not booked: no flight is left
trip-3: failed: activity 'cancel' failed after 3 attempts: ConnectionError: the hotel office does not answer
booked: car/trip-1 car/trip-3 flight/trip-1 hotel/trip-1 hotel/trip-3
trip-3, reopened: not booked: no flight is left
booked: car/trip-1 flight/trip-1 hotel/trip-1
""",
    "approval": """\
day 0
  to ana: please decide on lunch
  to ana: please decide on train
  to ana: please decide on hotel
lunch: approved
day 1
day 2
  to ana: train still waits for you
  to ana: hotel still waits for you
day 3
train: declined
day 4
day 5
  to kim: ana is silent on hotel
day 6
day 7
day 8
day 9
hotel waits for kim
hotel: approved
""",
    "polling": """\
430 primes below 3,000
the last of its runs made at most ten looks: True
and it was not the only one: True
""",
    "fan_out": """\
495 meters, 618,500 Wh
m050.json: damaged
m150.json: damaged
m250.json: damaged
m350.json: damaged
m450.json: damaged
""",
    "billing": """\
30 July: month 8, 1100 cents each
left in month 8, paid 7100, unpaid months [6]
ana,1,900
ana,2,900
ana,3,900
ana,4,1100
ana,5,1100
ana,7,1100
ana,8,1100
""",
    "cart": """\
in the cart: {'tea': 30}
cups: 0
on its first run: False
order cart-7 is placed
paid with card 42: {'tea': 30}
""",
}
UNORDERED = {"approval"}
"""Letters of one day are sent at once; who is first is nobody's promise."""


@pytest.mark.parametrize("name", PRINTED)
def test_an_example_runs_as_a_program(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", f"examples.{name}", str(tmp_path / "kept")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    printed = done.stdout.splitlines()
    expected = [*PRINTED[name].splitlines(), f"the events are in {tmp_path}/kept/aion.db"]
    if name in UNORDERED:
        printed, expected = sorted(printed), sorted(expected)
    assert printed == expected


def test_a_folder_that_is_there_already_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.run(cart.example, cart.__doc__, [str(tmp_path)]) == 2
    assert "name a new folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------ saga


async def activities_of(handle: WorkflowHandle[str]) -> list[str]:
    """Return what was asked for, in order, as `type office`."""
    return [
        f"{event.activity_type} {event.input.to(saga.Booking).office}"
        for event in await events_of(handle, ActivityScheduled)
    ]


async def test_a_trip_that_cannot_be_booked_is_undone_in_reverse_order(
    open_engine: EngineOpener, tmp_path: Path
) -> None:
    offices = saga.open_offices(tmp_path / "offices")
    (offices / "flight" / "sold out").touch()
    async with open_engine([saga.book_trip], [saga.book, saga.cancel]) as engine:
        handle = await engine.start(saga.book_trip, saga.Trip(id="trip-1", offices=offices))
        assert await handle.result(timeout=SOON) == "not booked: no flight is left"
        assert await activities_of(handle) == [
            "book car",
            "book hotel",
            "book flight",
            "cancel hotel",
            "cancel car",
        ]
        assert saga.bookings(offices) == []


async def test_a_reopened_trip_goes_on_with_the_step_that_failed_and_undoes_no_other_again(
    open_engine: EngineOpener, tmp_path: Path
) -> None:
    offices = saga.open_offices(tmp_path / "offices")
    (offices / "flight" / "sold out").touch()
    (offices / "car" / "closed").touch()
    async with open_engine([saga.book_trip], [saga.book, saga.cancel]) as engine:
        handle = await engine.start(saga.book_trip, saga.Trip(id="trip-1", offices=offices))
        with pytest.raises(WorkflowFailedError):
            await handle.result(timeout=SOON)
        assert saga.bookings(offices) == ["car/trip-1"]
        (offices / "car" / "closed").unlink()
        await handle.reopen()
        assert await handle.result(timeout=SOON) == "not booked: no flight is left"
        cancelled = [e.activity_id for e in await events_of(handle, ActivityStarted)]
        assert [ordinal for ordinal in cancelled if ordinal > 2] == [3, 4, 4, 4, 4]
        assert saga.bookings(offices) == []


# -------------------------------------------------------------------------------------- approval

CLAIM = approval.Claim(id="lunch", cents=1, manager="ana", director="kim")
YES = approval.Decision(by="ana", verdict="approved")


@pytest.mark.parametrize(
    ("days", "letters"),
    [
        (0, ["to ana: please decide on lunch"]),
        (1, ["to ana: please decide on lunch"]),
        (2, ["to ana: please decide on lunch", "to ana: lunch still waits for you"]),
        (4, ["to ana: please decide on lunch", "to ana: lunch still waits for you"]),
        (
            5,
            [
                "to ana: please decide on lunch",
                "to ana: lunch still waits for you",
                "to kim: ana is silent on lunch",
            ],
        ),
    ],
    ids=lambda value: f"after {value} days" if isinstance(value, int) else "",
)
async def test_a_claim_is_reminded_of_after_two_days_and_escalated_after_five(
    open_engine: EngineOpener,
    clock: ManualClock,
    capsys: pytest.CaptureFixture[str],
    days: int,
    letters: list[str],
) -> None:
    async with open_engine([approval.approve_claim], [approval.send], clock=clock) as engine:
        handle = await engine.start(approval.approve_claim, CLAIM)
        await pass_days(clock, 0, [handle])
        for _ in range(days):
            await pass_days(clock, 1, [handle])
        await handle.signal(approval.decision, YES)
        assert await handle.result(timeout=SOON) == YES
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == letters


async def test_a_claim_tells_whom_it_waits_for(
    open_engine: EngineOpener, clock: ManualClock
) -> None:
    async with open_engine([approval.approve_claim], [approval.send], clock=clock) as engine:
        handle = await engine.start(approval.approve_claim, CLAIM)
        assert await handle.query(approval.waits_for) == "ana"
        await pass_days(clock, 0, [handle])
        await pass_days(clock, 5, [handle])
        assert await handle.query(approval.waits_for) == "kim"


# --------------------------------------------------------------------------------------- polling


async def test_a_job_is_looked_at_until_it_is_done_in_runs_of_ten_looks(
    open_engine: EngineOpener, clock: ManualClock, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    report.write_text(polling.Report(done=1, primes=0).model_dump_json())
    async with open_engine(
        [polling.watch_job], [polling.start_job, polling.look], clock=clock
    ) as engine:
        watch = polling.Watch(report=report, every=timedelta(days=1))
        handle = await engine.start(polling.watch_job, watch)
        await pass_days(clock, 0, [handle])
        for _ in range(24):
            await pass_days(clock, 1, [handle])
        report.write_text(polling.Report(done=100, primes=7).model_dump_json())
        await pass_days(clock, 1, [handle])
        assert await handle.result(timeout=SOON) == polling.Report(done=100, primes=7)
        first, last = await kinds(handle), await handle.describe()
        assert first.count("ActivityCompleted") == 11
        assert first[-1] == "WorkflowContinuedAsNew"
        assert (await stream_of(engine, last.workflow_id)).count("WorkflowStarted") == 3
        history = await engine.handle(last.workflow_id, run_id=last.run_id).history()
        assert [type(e.event).__name__ for e in history].count("TimerFired") == 5


async def test_a_job_that_is_gone_fails_the_watch(
    open_engine: EngineOpener, tmp_path: Path
) -> None:
    async with open_engine([polling.watch_job], [polling.start_job, polling.look]) as engine:
        watch = polling.Watch(
            report=tmp_path / "report.json", every=timedelta(milliseconds=1), looks=1
        )
        with pytest.raises(WorkflowFailedError, match=r"no job that writes report\.json"):
            await (await engine.start(polling.watch_job, watch)).result(timeout=SOON)


# --------------------------------------------------------------------------------------- fan-out


async def test_five_hundred_files_are_read_at_most_twenty_at_once_and_the_damaged_reported(
    open_engine: EngineOpener, tmp_path: Path
) -> None:
    folder = fan_out.write_readings(tmp_path / "meters")
    async with open_engine([fan_out.add_up], [fan_out.list_files, fan_out.read_meter]) as engine:
        handle = await engine.start(fan_out.add_up, folder)
        report = await handle.result(timeout=timedelta(seconds=60))
        under_way, most = 0, 0
        for kind in await kinds(handle):
            under_way += (kind == "ActivityScheduled") - (
                kind in {"ActivityCompleted", "ActivityFailed"}
            )
            most = max(most, under_way)
        assert most == fan_out.AT_ONCE
    damaged = [f"m{number:03}.json" for number in range(50, 500, 100)]
    assert report == fan_out.Report(
        read=495,
        watt_hours=sum(1_000 + n for n in range(500) if n % 100 != 50),
        failed=dict.fromkeys(damaged, "damaged"),
    )


# --------------------------------------------------------------------------------------- billing

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


def subscription(tmp_path: Path) -> billing.Subscription:
    return billing.Subscription(
        customer="ana", ledger=tmp_path / "ledger.csv", cents=900, began_at=NEW_YEAR
    )


def charged(tmp_path: Path) -> list[str]:
    return (tmp_path / "ledger.csv").read_text().splitlines()


async def test_each_month_is_charged_once_and_is_a_run_of_its_own(
    open_engine: EngineOpener, clock: ManualClock, tmp_path: Path
) -> None:
    async with open_engine([billing.subscription], [billing.charge], clock=clock) as engine:
        handle = await engine.start(billing.subscription, subscription(tmp_path))
        await pass_days(clock, 0, [handle])
        for _ in range(12):
            await pass_days(clock, 30, [handle])
        await handle.signal(billing.leave)
        end = await handle.result(timeout=SOON)
        assert (end.month, end.paid_cents, end.unpaid) == (13, 13 * 900, [])
        assert (await stream_of(engine, handle.workflow_id)).count("WorkflowStarted") == 13
        assert (await handle.describe()).history_length < 10
    assert charged(tmp_path) == [f"ana,{month},900" for month in range(1, 14)]


async def test_a_new_price_counts_from_the_next_month(
    open_engine: EngineOpener, clock: ManualClock, tmp_path: Path
) -> None:
    async with open_engine([billing.subscription], [billing.charge], clock=clock) as engine:
        handle = await engine.start(billing.subscription, subscription(tmp_path))
        await pass_days(clock, 0, [handle])
        await handle.signal(billing.new_price, 1_000)
        assert (await handle.query(billing.account)).cents == 1_000
        await pass_days(clock, 30, [handle])
        await handle.signal(billing.leave)
        assert (await handle.result(timeout=SOON)).paid_cents == 1_900
    assert charged(tmp_path) == ["ana,1,900", "ana,2,1000"]


async def test_months_that_passed_while_no_engine_was_open_are_charged_one_by_one(
    open_engine: EngineOpener, clock: ManualClock, tmp_path: Path
) -> None:
    async with open_engine([billing.subscription], [billing.charge], clock=clock) as engine:
        handle = await engine.start(billing.subscription, subscription(tmp_path), id="ana")
        await pass_days(clock, 0, [handle])
    clock.advance(timedelta(days=75))
    async with open_engine([billing.subscription], [billing.charge], clock=clock) as engine:
        handle = engine.handle("ana", billing.subscription)
        await pass_days(clock, 0, [handle])
        assert (await handle.query(billing.account)).month == 3
        await pass_days(clock, 15, [handle])
        assert (await handle.query(billing.account)).month == 4
    assert charged(tmp_path) == [f"ana,{month},900" for month in (1, 2, 3, 4)]


def test_a_charge_that_is_repeated_stands_in_the_ledger_once(tmp_path: Path) -> None:
    due = billing.Charge(customer="ana", ledger=tmp_path / "ledger.csv", month=1, cents=900)
    billing.charge(due)
    billing.charge(due)
    assert charged(tmp_path) == ["ana,1,900"]


# ------------------------------------------------------------------------------------------ cart


async def test_no_change_is_lost_or_taken_twice_where_one_run_ends_and_the_next_begins(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([cart.shopping_cart], [cart.place_order]) as engine:
        handle = await engine.start(cart.shopping_cart, cart.Cart(), id="cart-7")
        tea = cart.Change(item="tea", quantity=1)
        await asyncio.gather(
            *[
                handle.signal(cart.change, tea, signal_id=f"message-{number % 90}")
                for number in range(180)
            ]
        )
        await handle.signal(cart.pay, "card 42")
        order = await handle.result(timeout=SOON)
        assert order == cart.Order(number="cart-7", lines={"tea": 90}, paid_with="card 42")
        assert (await stream_of(engine, "cart-7")).count("WorkflowStarted") >= 2


async def test_a_paid_cart_still_answers_and_takes_no_more(open_engine: EngineOpener) -> None:
    async with open_engine([cart.shopping_cart], [cart.place_order]) as engine:
        handle = await engine.start(cart.shopping_cart, cart.Cart())
        await handle.signal(cart.change, cart.Change(item="cup", quantity=3))
        await handle.signal(cart.change, cart.Change(item="cup", quantity=-1))
        await handle.signal(cart.pay, "card 42")
        await handle.result(timeout=SOON)
        assert await handle.query(cart.quantity_of, "cup") == 2
        with pytest.raises(RunClosedError):
            await handle.signal(cart.change, cart.Change(item="cup", quantity=1))


async def test_a_cart_goes_on_in_the_next_engine_with_what_is_in_it(
    open_engine: EngineOpener,
) -> None:
    async with open_engine([cart.shopping_cart], [cart.place_order]) as engine:
        handle = await engine.start(cart.shopping_cart, cart.Cart(), id="cart-7")
        for _ in range(cart.CHANGES_PER_RUN + 5):
            await handle.signal(cart.change, cart.Change(item="tea", quantity=1))
        await until(lambda: is_recorded(handle, "WorkflowContinuedAsNew"))
    async with open_engine([cart.shopping_cart], [cart.place_order]) as engine:
        handle = engine.handle("cart-7", cart.shopping_cart)
        assert await handle.query(cart.contents) == cart.Cart(lines={"tea": 25})
