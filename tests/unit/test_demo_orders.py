"""The demo takes anybody's CSV file: what it reads, what it skips and why, and what it refuses."""

from pathlib import Path

import pytest

from examples.order_fulfilment.orders import (
    MAX_ROW_LINES,
    BadRow,
    Order,
    UnusableFileError,
    read_orders,
)

HEADER = "order_id,customer,item,quantity,amount,country,card,approval"
GOOD = "A1,Zoë Müller,tamper,2,34.50,Österreich,flaky,yes"
ORDER = Order(
    order_id="A1",
    customer="Zoë Müller",
    item="tamper",
    quantity=2,
    cents=3450,
    country="Österreich",
    card="flaky",
    approval=True,
)


def read(tmp_path: Path, content: str | bytes) -> list[Order | BadRow]:
    path = tmp_path / "orders.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_orders(path))


def reason(tmp_path: Path, row: str) -> str:
    """Return why `row`, on line 2, is skipped; the good row after it must be read."""
    bad, good = read(tmp_path, f"{HEADER}\n{row}\nlast,a,b,1,1,c,,\n")
    assert isinstance(bad, BadRow)
    assert bad.line == 2
    assert isinstance(good, Order)
    return bad.reason


def refusal(tmp_path: Path, content: str | bytes) -> str:
    with pytest.raises(UnusableFileError) as refused:
        read(tmp_path, content)
    return str(refused.value).replace(f"{tmp_path}/", "")


def test_a_row_becomes_an_order(tmp_path: Path) -> None:
    assert read(tmp_path, f"{HEADER}\n{GOOD}\n") == [ORDER]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_delimiter_is_found_from_the_header(tmp_path: Path, delimiter: str) -> None:
    text = f"{HEADER}\n{GOOD}\n".replace(",", delimiter)
    assert read(tmp_path, text) == [ORDER]


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_any_line_ending_and_a_byte_order_mark_are_taken(tmp_path: Path, ending: str) -> None:
    text = f"\ufeff{HEADER}\n{GOOD}".replace("\n", ending)
    assert read(tmp_path, text) == [ORDER]


def test_columns_have_any_order_case_and_spacing_and_others_are_ignored(tmp_path: Path) -> None:
    text = (
        ' Country ,NOTE,Amount,"Order  ID",ITEM,customer,Quantity\n'
        'FR,"two\nlines",0.5,B 2,"cup, small", Chloé ,1\n'
    )
    assert read(tmp_path, text) == [
        Order(
            order_id="B 2", customer="Chloé", item="cup, small", quantity=1, cents=50, country="FR"
        )
    ]


def test_card_and_approval_have_defaults_and_any_case(tmp_path: Path) -> None:
    rows = read(tmp_path, f"{HEADER}\nA,a,b,1,1,c,,\nB,a,b,1,1,c,Refused,NO\nC,a,b,1,1,c,OK,True\n")
    assert [(r.card, r.approval) for r in rows if isinstance(r, Order)] == [
        ("ok", False),
        ("refused", False),
        ("ok", True),
    ]


def test_blank_lines_are_no_rows_but_count_as_lines(tmp_path: Path) -> None:
    rows = read(tmp_path, f"\n{HEADER}\n\n , ,\n{GOOD}\nA1,,,,,,,\n\n")
    assert rows == [ORDER, BadRow(6, "customer is missing")]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (",a,b,1,1,c,,", "order_id is missing"),
        ("A,a,b,1,,c,,", "amount '' is not a positive number such as 12.50"),
        ("A,a,b,1,-3,c,,", "amount '-3' is not a positive number such as 12.50"),
        ("A,a,b,1,NaN,c,,", "amount 'NaN' is not a positive number such as 12.50"),
        ("A,a,b,1,inf,c,,", "amount 'inf' is not a positive number such as 12.50"),
        ("A,a,b,1,1e3,c,,", "amount '1e3' is not a positive number such as 12.50"),
        ("A,a,b,1,ten,c,,", "amount 'ten' is not a positive number such as 12.50"),
        ("A,a,b,1,1.005,c,,", "amount '1.005' is not a positive number such as 12.50"),
        ("A,a,b,1,١٢,c,,", "amount '١٢' is not a positive number such as 12.50"),
        ("A,a,b,1,0,c,,", "amount '0' is not between 0.01 and 1,000,000"),
        ("A,a,b,1,1000000.01,c,,", "amount '1000000.01' is not between 0.01 and 1,000,000"),
        ("A,a,b,0,1,c,,", "quantity '0' is not a whole number from 1 to 10,000"),
        ("A,a,b,1.5,1,c,,", "quantity '1.5' is not a whole number from 1 to 10,000"),
        ("A,a,b,10001,1,c,,", "quantity '10001' is not a whole number from 1 to 10,000"),
        ("A,a,b,1,1,c,stolen,", "card 'stolen' is not ok, flaky or refused"),
        ("A,a,b,1,1,c,,maybe", "approval 'maybe' is not yes or no"),
        ("A,a,b,1,1,c", "6 fields where the header has 8"),
        ("A,a,b,1,1,c,,,", "9 fields where the header has 8"),
        ("A\x07,a,b,1,1,c,,", "order_id 'A\\x07' has control characters"),
        ("A\u202e,a,b,1,1,c,,", "order_id 'A\\u202e' has characters that cannot be printed"),
        ('A,"a\nx",b,1,1,c,,', "customer 'a\\nx' has control characters"),
        (f"{'A' * 101},a,b,1,1,c,,", "order_id has 101 characters, more than 100"),
        (f"A,{'a' * 300_000},b,1,1,c,,", "a quote is not closed, text follows a closing one"),
    ],
)
def test_a_bad_row_is_skipped_with_its_line_and_reason(tmp_path: Path, row: str, why: str) -> None:
    assert reason(tmp_path, row).startswith(why)


def test_the_second_of_two_orders_with_one_id_is_skipped(tmp_path: Path) -> None:
    assert read(tmp_path, f"{HEADER}\n{GOOD}\n{GOOD}\n") == [
        ORDER,
        BadRow(3, "order_id 'A1' is also on line 2"),
    ]


def test_a_quote_that_is_never_closed_costs_its_own_row_only(tmp_path: Path) -> None:
    filling = [f"F{n},a,b,1,1,c,," for n in range(MAX_ROW_LINES * 2)]
    rows = read(tmp_path, "\n".join([HEADER, 'A,"a,b,1,1,c,,', *filling, 'Z,"a,b,1,1,c,,']))
    assert [row.line for row in rows if isinstance(row, BadRow)] == [2, MAX_ROW_LINES * 2 + 3]
    assert len([row for row in rows if isinstance(row, Order)]) == len(filling)


def test_a_file_that_is_not_there_or_is_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableFileError, match=r"nothing\.csv does not exist"):
        list(read_orders(tmp_path / "nothing.csv"))
    with pytest.raises(UnusableFileError, match="is a directory"):
        list(read_orders(tmp_path))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "orders.csv is empty; needed is a header with order_id, customer, item"),
        (" \n\n", "orders.csv is empty"),
        (
            "order_id,customer,item,quantity,price\n",
            "orders.csv lacks the columns amount, country; "
            "its first line has 'order_id', 'customer', 'item', 'quantity', 'price'",
        ),
        ("A1,Ana,tamper,1,2.50,ES\n", "orders.csv lacks the columns order_id, customer"),
        (f"{HEADER},Amount\n", "orders.csv has the column amount twice"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "orders.csv, line 1: not UTF-8"),
        (b"PK\x03\x04\x00\x00", "orders.csv, line 1: a NUL byte; this is a binary file"),
        (f"{HEADER}\n{GOOD}\n".encode("utf-16"), "orders.csv, line 1: a NUL byte"),
        (f"{HEADER}\n{GOOD}\n".encode("latin-1"), "orders.csv, line 2: not UTF-8"),
    ],
)
def test_a_file_of_another_kind_is_refused_and_says_what_is_missing(
    tmp_path: Path, content: str | bytes, why: str
) -> None:
    assert refusal(tmp_path, content).startswith(why)


def test_the_file_that_comes_with_the_demo_is_good_and_has_every_kind_of_order() -> None:
    rows = list(read_orders(Path("examples/data/orders.csv")))
    orders = [row for row in rows if isinstance(row, Order)]
    assert len(orders) == len(rows) == 420
    assert {(order.card, order.approval) for order in orders} == {
        (card, approval) for card in ("ok", "flaky", "refused") for approval in (True, False)
    }
