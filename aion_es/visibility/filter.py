"""The list filter: its text, parsed by sqlglot, checked against the fields, as a tree of our own.

Nothing of the text goes any further: the tree holds fields that are known and values that are bound.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Final, Literal, TypeAlias

from aion_es.errors import FilterSyntaxError
from aion_es.events.values import AttributeType
from aion_es.visibility.fields import BUILT_IN, Field, find_field, near_fields
from aion_es.visibility.literals import Unfit, read_literal

MAX_BYTES: Final = 8_192
MAX_NODES: Final = 64
"""Comparisons and connectives in one filter."""

Operator: TypeAlias = Literal[
    "=", "!=", "<", "<=", ">", ">=", "in", "between", "starts_with", "is_null"
]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One field compared with values; false where the run has no value, but for `is_null`."""

    field: Field
    operator: Operator
    values: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Both:
    """All of its parts hold."""

    parts: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Either:
    """At least one of its parts holds."""

    parts: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Negation:
    """Its part does not hold."""

    part: "Node"


Node: TypeAlias = Comparison | Both | Either | Negation


@dataclass(frozen=True, slots=True)
class Order:
    """The field by which runs are listed; then, in the same direction, by run id."""

    field: Field = BUILT_IN["StartTime"]
    descending: bool = True


@dataclass(frozen=True, slots=True)
class Filter:
    """What a filter asks for."""

    condition: Node | None = None
    order: Order = Order()


def parse_filter(
    text: str, attributes: Mapping[str, AttributeType], now: Callable[[], datetime]
) -> Filter:
    """Return what `text` asks for; empty text asks for everything, newest first.

    Args:
        text: As in `WorkflowType = 'checkout' AND customer = 'ana' ORDER BY StartTime DESC`.
        attributes: The search attributes that are known, and their types.
        now: Gives the instant that `now()` stands for.

    Raises:
        FilterSyntaxError: It cannot be understood; says what is wrong, and where.
    """
    if not text.strip():
        return Filter()
    if len(text.encode(errors="replace")) > MAX_BYTES:
        raise FilterSyntaxError(text, 0, f"longer than {MAX_BYTES:,} bytes")
    query, offset = _parsed(text)
    return _Reader(text, offset, attributes, now()).read(query)


def _parsed(text: str) -> tuple[Any, int]:
    """Return sqlglot's tree of the query that the filter completes, and where the text begins in it."""
    import sqlglot
    from sqlglot.errors import ParseError

    orders_only = text.lstrip()[:5].casefold() == "order"
    head = "SELECT 1 FROM v " if orders_only else "SELECT 1 FROM v WHERE "
    try:
        statements: list[Any] = list(sqlglot.parse(head + text, dialect=_dialect()))
    except ParseError as error:
        first = error.errors[0] if error.errors else {}
        at = int(first.get("col") or 0) - len(str(first.get("highlight") or "")) - len(head)
        reason = str(first.get("description") or error).split(" for <class")[0]
        if "\n" in text:
            at = 0  # sqlglot counts columns by line; the text it quotes is in the message
        raise FilterSyntaxError(text, max(0, min(at, len(text))), reason) from error
    except (
        Exception
    ) as error:  # a parser met with text that it was not made for: every way it fails is bad syntax
        raise FilterSyntaxError(text, 0, f"cannot be parsed ({type(error).__name__})") from error
    if len(statements) != 1 or statements[0] is None:
        raise FilterSyntaxError(text, text.find(";") if ";" in text else 0, "more than one filter")
    return statements[0], len(head)


@cache
def _dialect() -> Any:
    """Return SQL with `a STARTS_WITH b` in the place of GLOB, made when the first filter is parsed."""
    from sqlglot import Tokenizer, TokenType
    from sqlglot.dialects.dialect import Dialect

    words = {word: kind for word, kind in Tokenizer.KEYWORDS.items() if word != "GLOB"}
    tokenizer = type(
        "Tokenizer", (Tokenizer,), {"KEYWORDS": {**words, "STARTS_WITH": TokenType.GLOB}}
    )
    return type("FilterDialect", (Dialect,), {"Tokenizer": tokenizer})


class _Reader:
    """Turns sqlglot's tree into ours, refusing whatever is not a filter."""

    def __init__(
        self, text: str, offset: int, attributes: Mapping[str, AttributeType], now: datetime
    ) -> None:
        from sqlglot import exp

        self._exp: Any = exp
        self._text = text
        self._offset = offset
        self._attributes = attributes
        self._now = now
        self._nodes = 0
        self._comparisons: dict[Any, Operator] = {
            exp.EQ: "=",
            exp.NEQ: "!=",
            exp.LT: "<",
            exp.LTE: "<=",
            exp.GT: ">",
            exp.GTE: ">=",
            exp.Glob: "starts_with",
        }

    def read(self, query: Any) -> Filter:
        """Return the filter of a whole query."""
        if not isinstance(query, self._exp.Select):
            raise self._refused(query, "not a filter")
        for clause, value in query.args.items():
            if value and clause not in {"expressions", "from_", "from", "where", "order", "kind"}:
                raise self._refused(value, f"a filter has no {clause.upper().strip('_')} clause")
        where, order = query.args.get("where"), query.args.get("order")
        return Filter(
            None if where is None else self._node(where.this),
            Order() if order is None else self._order(order),
        )

    def _order(self, order: Any) -> Order:
        if len(order.expressions) != 1:
            raise self._refused(order, "ORDER BY takes one field")
        ordered = order.expressions[0]
        field = self._field(ordered.this)
        if field.kind == "words":
            raise self._refused(ordered, f"cannot order by the list {field.name}")
        return Order(field, bool(ordered.args.get("desc")))

    def _node(self, node: Any) -> Node:
        exp = self._exp
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise self._refused(node, f"more than {MAX_NODES} conditions")
        if isinstance(node, exp.Paren):
            return self._node(node.this)
        if isinstance(node, exp.And):
            return Both((self._node(node.left), self._node(node.right)))
        if isinstance(node, exp.Or):
            return Either((self._node(node.left), self._node(node.right)))
        if isinstance(node, exp.Not):
            return self._negated(self._node(node.this), node)
        return self._comparison(node)

    def _negated(self, part: Node, node: Any) -> Node:
        # `a NOT IN (…)` and `a NOT BETWEEN …` come as NOT over IN: of a run that has no `a`, both are false.
        inner = node.this
        ranged = isinstance(inner, self._exp.In | self._exp.Between)
        if isinstance(part, Comparison) and ranged and self._is_infix(inner):
            return Both((Negation(part), Negation(Comparison(part.field, "is_null"))))
        return Negation(part)

    def _is_infix(self, inner: Any) -> bool:
        """Whether NOT stood behind the field: what stands before the field's name is not that NOT."""
        before = self._text[: self._position(inner.this)].rstrip().casefold()
        return not before.endswith("not")

    def _comparison(self, node: Any) -> Comparison:
        exp = self._exp
        operator = self._comparisons.get(type(node))
        if operator is not None:
            field = self._field(node.left)
            return self._checked(node, field, operator, (node.right,))
        if isinstance(node, exp.In) and node.expressions and not node.args.get("query"):
            return self._checked(node, self._field(node.this), "in", tuple(node.expressions))
        if isinstance(node, exp.Between):
            bounds = (node.args["low"], node.args["high"])
            return self._checked(node, self._field(node.this), "between", bounds)
        if isinstance(node, exp.Is) and isinstance(node.expression, exp.Null):
            return Comparison(self._field(node.this), "is_null")
        raise self._refused(node, "expected a comparison such as WorkflowType = 'checkout'")

    def _checked(
        self, node: Any, field: Field, operator: Operator, literals: tuple[Any, ...]
    ) -> Comparison:
        if operator == "starts_with" and field.kind not in {"text", "words"}:
            raise self._refused(node, f"STARTS_WITH needs text, {field.name} is {field.kind}")
        if field.kind in {"words", "bool", "status"} and operator in {
            "<",
            "<=",
            ">",
            ">=",
            "between",
        }:
            raise self._refused(node, f"{field.name} has no order: use =, != or IN")
        return Comparison(field, operator, tuple(self._value(field, one) for one in literals))

    def _field(self, node: Any) -> Field:
        if not isinstance(node, self._exp.Column) or node.args.get("table"):
            raise self._refused(node, "expected the name of a field")
        name = str(node.name)
        field = find_field(name, self._attributes)
        if field is None:
            near = near_fields(name, self._attributes)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise self._refused(node, f"no field or search attribute {name!r}{hint}")
        return field

    def _value(self, field: Field, literal: Any) -> Any:
        try:
            return read_literal(field, literal, self._now)
        except Unfit as unfit:
            raise self._refused(literal, str(unfit)) from unfit

    def _refused(self, node: Any, reason: str) -> FilterSyntaxError:
        return FilterSyntaxError(self._text, self._position(node), reason)

    def _position(self, node: Any) -> int:
        """Return where the leftmost part of the node stands in the text, 0 if the parser did not keep it."""
        if not hasattr(node, "walk"):
            return 0
        starts = [int(part.meta["start"]) for part in node.walk() if "start" in part.meta]
        at = min(starts, default=self._offset) - self._offset
        return max(0, min(at, len(self._text)))
