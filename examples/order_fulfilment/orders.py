"""Orders as a shop is given them: a CSV file of anybody's, checked row by row.

`read_orders` yields an `Order` or a `BadRow` for every row, in one pass and bounded memory (of each order
only its id is kept, to find duplicates). A file that cannot be used at all is an `UnusableFileError`.
"""

import csv
import re
import unicodedata
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TextIO, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict

Card: TypeAlias = Literal["ok", "flaky", "refused"]
"""How a customer's card behaves: it is accepted, accepted at the third try, or never."""

REQUIRED: Final = ("order_id", "customer", "item", "quantity", "amount", "country")
OPTIONAL: Final = ("card", "approval")

MAX_ID: Final = 100
MAX_TEXT: Final = 200
MAX_QUANTITY: Final = 10_000
MAX_AMOUNT: Final = 1_000_000
MAX_LINE: Final = 200_000
"""Characters of a line that are looked at; no good row has as many."""
MAX_ROW_LINES: Final = 50
"""Lines that one row may take; a quote that is open for longer is taken for a slip."""

_DELIMITERS: Final = (",", ";", "\t")
_AMOUNT: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,2})?")
_SURROGATE: Final = re.compile("[\udc80-\udcff]")
_CARDS: Final[Mapping[str, Card]] = {"": "ok", "ok": "ok", "flaky": "flaky", "refused": "refused"}
_YES_NO: Final = {
    **dict.fromkeys(("yes", "y", "true", "1"), True),
    **dict.fromkeys(("", "no", "n", "false", "0"), False),
}
T = TypeVar("T")


class Order(BaseModel):
    """What a customer wants, and how the card will behave."""

    model_config = ConfigDict(frozen=True)

    order_id: str
    customer: str
    item: str
    quantity: int
    cents: int
    country: str
    card: Card = "ok"
    approval: bool = False

    @property
    def deposit(self) -> int:
        """Cents paid at the till, a tenth; the card is charged the rest."""
        return self.cents // 10


class BadRow(NamedTuple):
    """A row that is skipped, by the line it begins on (the file's first line is 1), and why."""

    line: int
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}"


class UnusableFileError(Exception):
    """The file holds no orders that could be read. The text says what is missing."""


class _RowError(Exception):
    """What is wrong with the row at hand."""


def read_orders(path: Path) -> Iterator[Order | BadRow]:
    """Yield every row of the CSV file at `path`: an order, or what is wrong with the row.

    Raises:
        UnusableFileError: It cannot be read, is not text in UTF-8, or lacks a column. This may be known
            only after some rows, where the text turns out not to be UTF-8.
    """
    try:
        if path.is_dir():
            raise UnusableFileError(f"{path} is a directory; what is needed is a CSV file")
        # Bytes that are no UTF-8 become surrogates, so that the line which has them can be named.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            yield from _read(path, file)
    except FileNotFoundError as error:
        raise UnusableFileError(f"{path} does not exist") from error
    except (OSError, ValueError) as error:
        raise UnusableFileError(f"{path} cannot be read: {error}") from error


def _read(path: Path, file: TextIO) -> Iterator[Order | BadRow]:
    lines = _Lines(path, file)
    columns, delimiter = _header(path, lines.first())
    first_line: dict[str, int] = {}
    for number, fields in lines.records(delimiter):
        try:
            order = _order(columns, fields)
            _require_new(order.order_id, first_line)
        except _RowError as error:
            yield BadRow(number, str(error))
        else:
            first_line[order.order_id] = number
            yield order


# ------------------------------------------------------------------------------------- the file


class _Lines:
    """The lines of a file with their numbers, and the rows that they make up."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self._path = path
        self._file = file
        self._returned: deque[str] = deque()
        self._row: list[str] = []
        self._number = 0

    def first(self) -> str:
        """Return the first line that is not blank.

        Raises:
            UnusableFileError: There is none, or it is not text.
        """
        for line in self:
            self._row.clear()
            if line.strip():
                return line
        raise UnusableFileError(
            f"{self._path} is empty; needed is a header with {', '.join(REQUIRED)}"
        )

    def records(self, delimiter: str) -> Iterator[tuple[int, Sequence[str]]]:
        """Yield the rows, each with the number of its first line; a malformed one has no fields."""
        reader = csv.reader(self, delimiter=delimiter, strict=True)
        while True:
            self._row.clear()
            fields: Sequence[str] = ()
            try:
                fields = next(reader)
            except StopIteration:
                return
            except (csv.Error, _RowError):
                self._give_back_all_but_first()
            else:
                if not any(field.strip() for field in fields):
                    continue
            yield self._number - len(self._row) + 1, fields

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if len(self._row) == MAX_ROW_LINES:
            raise _RowError
        line = self._returned.popleft() if self._returned else self._read_line()
        self._number += 1
        self._row.append(line)
        return line

    def _read_line(self) -> str:
        line = self._file.readline(MAX_LINE)
        if not line:
            raise StopIteration
        at = f"{self._path}, line {self._number + 1}"
        if "\0" in line:
            raise UnusableFileError(f"{at}: a NUL byte; this is a binary file or UTF-16, not UTF-8")
        if not line.isascii() and _SURROGATE.search(line):
            raise UnusableFileError(f"{at}: not UTF-8; save the file as CSV in UTF-8")
        rest = line
        while len(rest) == MAX_LINE and not rest.endswith(("\n", "\r")):
            rest = self._file.readline(MAX_LINE)
        return line

    def _give_back_all_but_first(self) -> None:
        """Read a malformed row's other lines again: most likely they are rows of their own."""
        again = self._row[1:]
        self._returned.extendleft(reversed(again))
        self._number -= len(again)
        del self._row[1:]


def _header(path: Path, line: str) -> tuple[Sequence[str], str]:
    """Return the names of the columns and the delimiter: the one that makes most of the header.

    Raises:
        UnusableFileError: It lacks a column, or has one twice.
    """
    readings = [(_names(line, delimiter), delimiter) for delimiter in _DELIMITERS]
    columns, delimiter = max(readings, key=lambda r: len(set(r[0]) & {*REQUIRED, *OPTIONAL}))
    if missing := [name for name in REQUIRED if name not in columns]:
        found = ", ".join(_shown(name) for name in columns[:20])
        raise UnusableFileError(
            f"{path} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}; "
            f"its first line has {found or 'nothing that could be read'}"
        )
    if twice := [name for name in (*REQUIRED, *OPTIONAL) if columns.count(name) > 1]:
        raise UnusableFileError(f"{path} has the column {twice[0]} twice")
    return columns, delimiter


def _names(line: str, delimiter: str) -> Sequence[str]:
    try:
        fields = next(csv.reader([line], delimiter=delimiter))
    except csv.Error:  # a field without end
        return []
    return ["_".join(field.casefold().split()) for field in fields]


# -------------------------------------------------------------------------------------- the rows


def _order(columns: Sequence[str], fields: Sequence[str]) -> Order:
    if not fields:
        raise _RowError("a quote is not closed, text follows a closing one, or a field is endless")
    if len(fields) != len(columns):
        raise _RowError(f"{len(fields)} fields where the header has {len(columns)}")
    row = {name: field.strip() for name, field in zip(columns, fields, strict=True)}
    checked: dict[str, Any] = {
        "order_id": _id(row["order_id"]),
        "customer": _text("customer", row["customer"]),
        "item": _text("item", row["item"]),
        "quantity": _quantity(row["quantity"]),
        "cents": _cents(row["amount"]),
        "country": _text("country", row["country"]),
        "card": _choice("card", row.get("card", ""), _CARDS, "ok, flaky or refused"),
        "approval": _choice("approval", row.get("approval", ""), _YES_NO, "yes or no"),
    }
    return Order(**checked)


def _require_new(order_id: str, first_line: Mapping[str, int]) -> None:
    if order_id in first_line:
        raise _RowError(f"order_id {_shown(order_id)} is also on line {first_line[order_id]}")


def _id(value: str) -> str:
    if not _text("order_id", value, MAX_ID).isprintable():
        raise _RowError(f"order_id {_shown(value)} has characters that cannot be printed")
    return value


def _text(name: str, value: str, longest: int = MAX_TEXT) -> str:
    if not value:
        raise _RowError(f"{name} is missing")
    if len(value) > longest:
        raise _RowError(f"{name} has {len(value):,} characters, more than {longest}")
    if any(unicodedata.category(c) in {"Cc", "Zl", "Zp"} for c in value):
        raise _RowError(f"{name} {_shown(value)} has control characters")
    return value


def _quantity(value: str) -> int:
    if value.isascii() and value.isdigit() and len(value) <= 9 and 1 <= int(value) <= MAX_QUANTITY:
        return int(value)
    raise _RowError(f"quantity {_shown(value)} is not a whole number from 1 to {MAX_QUANTITY:,}")


def _cents(value: str) -> int:
    if not _AMOUNT.fullmatch(value):
        raise _RowError(f"amount {_shown(value)} is not a positive number such as 12.50")
    whole, _, fraction = value.partition(".")
    cents = int(whole) * 100 + int(fraction.ljust(2, "0"))
    if not 1 <= cents <= MAX_AMOUNT * 100:
        raise _RowError(f"amount {_shown(value)} is not between 0.01 and {MAX_AMOUNT:,}")
    return cents


def _choice(name: str, value: str, known: Mapping[str, T], names: str) -> T:
    chosen = known.get(value.casefold())
    if chosen is None:
        raise _RowError(f"{name} {_shown(value)} is not {names}")
    return chosen


def _shown(value: str) -> str:
    return repr(value if len(value) <= 40 else f"{value[:40]}…")
