"""The list filter: its text, parsed by sqlglot, checked against the fields, as a tree of our own.

Nothing of the text goes any further: the tree holds fields that are known and values that are bound.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias

from aion_es.errors import FilterSyntaxError
from aion_es.events.values import AttributeType
from aion_es.visibility.fields import BUILT_IN, Field, find_field, near_fields
from aion_es.visibility.lexing import check_neighbours, dialect, tokens_of
from aion_es.visibility.literals import Unfit, read_literal

MAX_NODES: Final = 64
"""Comparisons and connectives in one filter; a chain of ANDs, or of ORs, is one connective."""

Operator: TypeAlias = Literal[
    "=",
    "!=",
    "<",
    "<=",
    ">",
    ">=",
    "in",
    "not_in",
    "between",
    "not_between",
    "starts_with",
    "is_null",
]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One field compared with values; false where the run has no value, but for `is_null`."""

    field: Field
    operator: Operator
    values: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Both:
    """All of its parts hold; none of them is a `Both`."""

    parts: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Either:
    """At least one of its parts holds; none of them is an `Either`."""

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
    text: str,
    attributes: Mapping[str, AttributeType],
    now: Callable[[], datetime],
    order_by: str = "",
) -> Filter:
    """Return what `text` asks for; empty text asks for everything, newest first.

    Args:
        text: As in `WorkflowType = 'checkout' AND customer = 'ana' ORDER BY StartTime DESC`.
        attributes: The search attributes that are known, and their types.
        now: Gives the instant that `now()` stands for.
        order_by: As behind ORDER BY, of which there may be one.

    Raises:
        FilterSyntaxError: It cannot be understood; says what is wrong, and where. Of an `order_by`, the
            error's `filter` is that.
    """
    condition, order = tokens_of(text)
    reader = _Reader(text, attributes, now)
    node = reader.condition(condition) if condition else None
    if not order_by.strip():
        return Filter(node, reader.order(order) if order else Order())
    if order:
        raise FilterSyntaxError(text, order[0].start, "ordered twice: here, and by order_by")
    behind, more = tokens_of(order_by)
    if more:
        raise FilterSyntaxError(order_by, 0, "order_by begins with the field, without ORDER BY")
    return Filter(node, _Reader(order_by, attributes, now).order(behind))


class _Reader:
    """Turns sqlglot's tree into ours, refusing whatever is not a filter."""

    def __init__(
        self, text: str, attributes: Mapping[str, AttributeType], now: Callable[[], datetime]
    ) -> None:
        from sqlglot import exp

        self._exp: Any = exp
        self._text = text
        self._attributes = attributes
        self._now = now()
        self._nodes = 0
        self._tokens: list[Any] = []
        self._words: dict[Any, set[str]] = {exp.Null: {"NULL"}, exp.Boolean: {"TRUE", "FALSE"}}
        self._comparisons: dict[Any, Operator] = {
            exp.EQ: "=",
            exp.NEQ: "!=",
            exp.LT: "<",
            exp.LTE: "<=",
            exp.GT: ">",
            exp.GTE: ">=",
            exp.Glob: "starts_with",
        }

    def condition(self, tokens: list[Any]) -> Node:
        """Return the tree of a condition."""
        check_neighbours(self._text, tokens)
        self._tokens = tokens
        return self._node(self._parsed(tokens))

    def order(self, tokens: list[Any]) -> Order:
        """Return the order that stands behind ORDER BY: a field, and perhaps ASC or DESC."""
        first, *rest = tokens
        if first.token_type.name != "IDENTIFIER":
            raise FilterSyntaxError(self._text, first.start, "expected the name of a field")
        field = self._named(first.text, first.start)
        if field.kind == "words":
            reason = f"cannot order by the list {field.name}"
            raise FilterSyntaxError(self._text, first.start, reason)
        direction = rest[0].text.casefold() if rest else "asc"
        if direction not in {"asc", "desc"}:
            only = "ORDER BY takes one field" if direction == "," else "expected ASC or DESC"
            raise FilterSyntaxError(self._text, rest[0].start, only)
        if len(rest) > 1:
            raise FilterSyntaxError(self._text, rest[1].start, "ORDER BY takes one field")
        return Order(field, direction == "desc")

    # ------------------------------------------------------------------------------- parsing

    def _parsed(self, tokens: list[Any]) -> Any:
        """Return sqlglot's tree of the condition, parsed as the end of a query."""
        from sqlglot.errors import ParseError

        head: list[Any] = list(_head())
        try:
            statements: list[Any] = dialect()().parser().parse([*head, *tokens], self._text)
            return statements[0].args["where"].this
        except ParseError as error:
            raise self._unparsed(error, tokens) from error
        except Exception as error:
            # A parser met with text that it was not made for: every way it fails is bad syntax.
            reason = f"cannot be parsed ({type(error).__name__})"
            raise FilterSyntaxError(self._text, 0, reason) from error

    def _unparsed(self, error: Any, tokens: list[Any]) -> FilterSyntaxError:
        first: dict[str, Any] = error.errors[0] if error.errors else {}
        place = (first.get("line"), first.get("col"))
        at = next((t.start for t in tokens if (t.line, t.col) == place), len(self._text.rstrip()))
        if place == (tokens[-1].line, tokens[-1].col):
            reason = "ends too early"  # sqlglot blames the last token for what does not follow it
            if "Unexpected" in str(first.get("description")):
                reason = f"unexpected {tokens[-1].text!r}"
            else:
                at = len(self._text.rstrip())
        else:
            reason = f"unexpected {self._text[at : at + 20].split(' ')[0]!r}"
        return FilterSyntaxError(self._text, at, reason)

    # ------------------------------------------------------------------------------- reading

    def _counted(self, node: Any) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise self._refused(node, f"more than {MAX_NODES} conditions and connectives")

    def _node(self, node: Any) -> Node:
        exp = self._exp
        while isinstance(node, exp.Paren):
            node = node.this
        self._counted(node)
        if isinstance(node, exp.And):
            return Both(self._parts(node, exp.And, Both))
        if isinstance(node, exp.Or):
            return Either(self._parts(node, exp.Or, Either))
        if isinstance(node, exp.Not):
            return self._negated(node)
        return self._comparison(node)

    def _parts(self, node: Any, kind: Any, ours: type[Both] | type[Either]) -> tuple[Node, ...]:
        """Return what a chain of one connective connects, in the order of the text."""
        parts: list[Any] = []
        while isinstance(node, kind):
            linked: Any = node
            parts.append(linked.right)
            node = linked.left
        read = [self._node(part) for part in (node, *reversed(parts))]
        flat: list[Node] = []
        for part in read:
            if isinstance(part, ours):
                self._nodes -= 1  # the same connective, in parentheses
                flat.extend(part.parts)
            else:
                flat.append(part)
        return tuple(flat)

    def _negated(self, node: Any) -> Node:
        inner = node.this
        if isinstance(inner, self._exp.In | self._exp.Between) and self._is_infix(inner):
            ranged = self._comparison(inner)
            opposite: Operator = "not_in" if ranged.operator == "in" else "not_between"
            return Comparison(ranged.field, opposite, ranged.values)
        return Negation(self._node(inner))

    def _is_infix(self, inner: Any) -> bool:
        """Whether NOT stands behind the field, as in `a NOT IN (…)`; sqlglot's tree does not tell."""
        name: Any = inner.this
        if not isinstance(name, self._exp.Column):
            return False
        end = int(name.this.meta.get("end", -1))
        return self._text[end + 1 :].lstrip()[:3].casefold() == "not"

    def _comparison(self, node: Any) -> Comparison:
        exp = self._exp
        operator = self._comparisons.get(type(node))
        if operator is not None and self._has_only(node, "this", "expression"):
            return self._checked(node, self._field(node.left), operator, (node.right,))
        if isinstance(node, exp.In) and self._has_only(node, "this", "expressions"):
            return self._checked(node, self._field(node.this), "in", tuple(node.expressions))
        if isinstance(node, exp.Between) and self._has_only(node, "this", "low", "high"):
            bounds = (node.args["low"], node.args["high"])
            return self._checked(node, self._field(node.this), "between", bounds)
        if isinstance(node, exp.Is) and isinstance(node.expression, exp.Null):
            return Comparison(self._field(node.this), "is_null")
        raise self._refused(node, "expected a comparison such as WorkflowType = 'checkout'")

    @staticmethod
    def _has_only(node: Any, *wanted: str) -> bool:
        return {name for name, value in node.args.items() if value} == set(wanted)

    def _checked(
        self, node: Any, field: Field, operator: Operator, literals: tuple[Any, ...]
    ) -> Comparison:
        if operator == "starts_with" and field.kind not in {"text", "words"}:
            raise self._refused(node, f"STARTS_WITH needs text, {field.name} is {field.kind}")
        ordered = operator in {"<", "<=", ">", ">=", "between"}
        if ordered and field.kind in {"words", "bool", "status"}:
            raise self._refused(node, f"{field.name} has no order: use =, != or IN")
        return Comparison(field, operator, tuple(self._value(node, field, one) for one in literals))

    def _field(self, node: Any) -> Field:
        if not isinstance(node, self._exp.Column) or not self._has_only(node, "this"):
            raise self._refused(node, "expected the name of a field")
        column: Any = node
        return self._named(str(column.name), self._position(column))

    def _named(self, name: str, at: int) -> Field:
        field = find_field(name, self._attributes)
        if field is None:
            near = near_fields(name, self._attributes)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise FilterSyntaxError(self._text, at, f"no field or search attribute {name!r}{hint}")
        return field

    def _value(self, node: Any, field: Field, literal: Any) -> Any:
        try:
            return read_literal(field, literal, self._now)
        except Unfit as unfit:
            raise FilterSyntaxError(self._text, self._place(node, literal), str(unfit)) from unfit

    def _place(self, node: Any, literal: Any) -> int:
        """Return where a literal of the comparison `node` stands that is the first that does not fit."""
        known = self._starts(literal)
        if known:
            return min(known)
        # The parser keeps no place of a word such as NULL: it is the first of its kind behind the field.
        field = self._position(node)
        found = (self._words.get(type(part)) for part in literal.walk())
        kinds = next((kinds for kinds in found if kinds is not None), {"VAR"})
        words = (one.start for one in self._tokens if one.token_type.name in kinds)
        return next((start for start in words if start > field), field)

    def _refused(self, node: Any, reason: str) -> FilterSyntaxError:
        return FilterSyntaxError(self._text, self._position(node), reason)

    def _position(self, node: Any) -> int:
        """Return where the leftmost part of the node stands in the text, 0 if the parser did not keep it."""
        return min(self._starts(node), default=0)

    @staticmethod
    def _starts(node: Any) -> list[int]:
        if not hasattr(node, "walk"):
            return []
        return [int(part.meta["start"]) for part in node.walk() if "start" in part.meta]


def _head() -> list[Any]:
    """Return the tokens that a condition stands behind in a query."""
    from sqlglot import Token, TokenType

    words = (("SELECT", "SELECT"), ("NUMBER", "1"), ("FROM", "FROM"), ("IDENTIFIER", "v"))
    return [
        Token(getattr(TokenType, kind), word, line=0, start=0, end=0)
        for kind, word in (*words, ("WHERE", "WHERE"))
    ]
