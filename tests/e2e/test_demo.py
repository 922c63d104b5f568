"""`make demo` as its user sees it: a process with an exit status, what it prints, and the files it leaves."""

import csv
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

HEADER = "order_id,customer,item,quantity,amount,country,card,approval"


def demo(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "examples.order_fulfilment.demo", *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=110,
        check=False,
    )


def orders_file(tmp_path: Path, orders: int) -> Path:
    path = tmp_path / "mine.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(HEADER.split(","))
        for number in range(orders):
            card = ("ok", "ok", "flaky", "refused")[number % 4]
            approval = "yes" if number % 10 == 2 else ""
            who = ("Seán O'Brien", "Éire") if number % 3 else ("山田 花子", "日本")
            out.writerow(
                (f"N{number}", who[0], f"item {number % 5}", 2, "10.00", who[1], card, approval)
            )
    return path


def found(output: str, what: str) -> str:
    """Return the table's second column on the line of `what`."""
    (line,) = (line for line in output.splitlines() if line.startswith(what))
    return line.split("│")[1].strip()


def files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in tmp_path.iterdir() if path.suffix == ".db")


def test_orders_survive_kills_and_a_second_demo_begins_anew(tmp_path: Path) -> None:
    db, orders = tmp_path / "aion.db", orders_file(tmp_path, 80)
    first = demo("--orders", orders, "--db", db)
    assert (first.returncode, first.stderr) == (0, "")
    assert "everything adds up" in first.stdout
    assert [found(first.stdout, what) for what in ("orders", "completed", "refunded")] == [
        "80",
        "60",
        "20",
    ]
    assert int(found(first.stdout, "restarts")) >= 1
    assert first.stdout.count("kill -9 of worker") == int(found(first.stdout, "restarts"))
    assert found(first.stdout, "approved by the manager") == "8"
    assert found(first.stdout, "effects applied twice") == "0"
    assert found(first.stdout, "runs in the inventory's chain") == "2"
    assert found(first.stdout, "found for Seán O'Brien, Éire") == "53"
    assert files(tmp_path) == ["aion.db", "aion.ledger.db", "aion.readmodel.db"]

    program = first.stdout[first.stdout.index("import asyncio") :].partition("\nThe workflows")[0]
    looked = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=False
    )
    assert (looked.returncode, looked.stderr) == (0, "")
    assert "WorkflowStarted(workflow_type='fulfil_order'" in looked.stdout.splitlines()[0]
    assert looked.stdout.count("Completed") >= 53

    second = demo("--orders", orders, "--db", db, "--kills", "0")
    assert (second.returncode, second.stderr) == (0, "")
    assert second.stdout.startswith(f"removed what an earlier demo had left: {db}, ")
    assert found(second.stdout, "restarts") == "0"


def test_one_order_is_enough_and_is_killed_in_its_midst(tmp_path: Path) -> None:
    done = demo("--orders", orders_file(tmp_path, 1), "--db", tmp_path / "one.db", "--kills", "1")
    assert (done.returncode, done.stderr) == (0, "")
    assert found(done.stdout, "completed") == "1"


def test_bad_rows_are_reported_by_line_and_the_others_done(tmp_path: Path) -> None:
    path = tmp_path / "some.csv"
    path.write_text(f"{HEADER}\nA,a,b,1,1,c,,\nB,a,b,1,NaN,c,,\nA,a,b,1,1,c,,\n", encoding="utf-8")
    done = demo("--orders", path, "--db", tmp_path / "some.db", "--quiet", "--kills", "0")
    assert done.returncode == 0
    assert [line.partition(", ")[2] for line in done.stderr.splitlines()] == [
        "line 3: amount 'NaN' is not a positive number such as 12.50",
        "line 4: order_id 'A' is also on line 2",
    ]
    assert found(done.stdout, "orders") == "1"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "does not exist"),
        (b"", "is empty"),
        (b"order_id,customer\n", "lacks the columns item, quantity, amount, country"),
        (f"{HEADER}\nA,a,b,1,-1,c,,\n".encode(), "has no order that could be used"),
        (f"{HEADER}\nA,Zo\xeb,b,1,1,c,,\n".encode("latin-1"), "line 2: not UTF-8"),
    ],
)
def test_an_unusable_file_is_refused_and_nothing_is_left(
    tmp_path: Path, content: bytes | None, why: str
) -> None:
    path = tmp_path / "orders.csv"
    if content is not None:
        path.write_bytes(content)
    refused = demo("--orders", path, "--db", tmp_path / "aion.db")
    assert refused.returncode == 2
    assert why in refused.stderr.splitlines()[-1]
    assert refused.stdout == ""
    assert [p for p in tmp_path.iterdir() if p != path] == []


def test_a_file_that_is_not_the_demos_is_left_as_it_is(tmp_path: Path) -> None:
    db = tmp_path / "aion.db"
    db.write_text("precious")
    refused = demo("--db", db)
    assert refused.returncode == 2
    assert "was not made by this demo, so it is left as it is" in refused.stderr
    assert (db.read_text(), files(tmp_path)) == ("precious", ["aion.db"])


def test_a_database_that_took_the_name_of_the_demos_is_left_as_it_is(tmp_path: Path) -> None:
    db = tmp_path / "aion.db"
    assert demo("--db", db, "--orders", orders_file(tmp_path, 1), "--kills", "0").returncode == 0
    db.unlink()
    with sqlite3.connect(db) as other:
        other.execute("CREATE TABLE precious (x)")
    other.close()
    refused = demo("--db", db)
    assert refused.returncode == 2
    with sqlite3.connect(db) as other:
        assert other.execute("SELECT count(*) FROM precious").fetchone() == (0,)
    other.close()


@pytest.mark.parametrize("name", ["aion", "nowhere/aion.db", "a?b.db"])
def test_a_name_that_cannot_be_a_database_is_refused(tmp_path: Path, name: str) -> None:
    refused = demo("--db", tmp_path / name)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: --db ")
