"""The words of a list filter: sqlglot's tokens, of which only those that a filter can need get any further.

What is left for the parser is so little of SQL that a filter cannot become anything else: no function
but `now()`, no comment, no second statement, no clause.
"""

from functools import cache
from typing import Any, Final

from aion_es.errors import FilterSyntaxError

MAX_BYTES: Final = 8_192
"""Longest filter, in UTF-8."""
MAX_DEPTH: Final = 32
"""Deepest nesting of parentheses, and longest run of NOT, `-` and `(`."""

_WORDS: Final = ("AND", "OR", "NOT", "IN", "BETWEEN", "IS", "NULL", "TRUE", "FALSE", "ORDER BY")
"""Words that sqlglot shall know; every other word is a name, so that an attribute may be called `date`."""


def tokens_of(text: str) -> tuple[list[Any], list[Any]]:
    """Return sqlglot's tokens of the condition, and of what stands behind ORDER BY.

    Raises:
        FilterSyntaxError: A character or a word is there that no filter has, it is too long, or nested
            too deep.
    """
    if len(text.encode(errors="replace")) > MAX_BYTES:
        raise FilterSyntaxError(text, 0, f"longer than {MAX_BYTES:,} bytes")
    tokens = _tokens(text)
    _check_depth(text, tokens)
    orders = [index for index, one in enumerate(tokens) if one.token_type.name == "ORDER_BY"]
    if not orders:
        return tokens, []
    if len(orders) > 1:
        raise FilterSyntaxError(text, tokens[orders[1]].start, "ORDER BY stands once, at the end")
    at = orders[0]
    if at + 1 == len(tokens):
        raise FilterSyntaxError(text, len(text.rstrip()), "ORDER BY needs a field")
    return tokens[:at], tokens[at + 1 :]


def _tokens(text: str) -> list[Any]:
    from sqlglot.errors import TokenError

    try:
        found: list[Any] = list(dialect()().tokenize(text))
    except TokenError as error:
        raise FilterSyntaxError(text, _open_quote(text), "this quote is not closed") from error
    except Exception as error:
        # A tokenizer met with text that it was not made for: every way it fails is bad syntax.
        reason = f"cannot be read ({type(error).__name__})"
        raise FilterSyntaxError(text, 0, reason) from error
    for token in found:
        if token.token_type.name not in _ALLOWED:
            raise FilterSyntaxError(text, token.start, f"unexpected {token.text!r}")
    following: list[Any] = [*found[1:], None] if found else []
    return [_named(one, behind) for one, behind in zip(found, following, strict=True)]


_SIGNS: Final = frozenset(
    {"EQ", "NEQ", "LT", "LTE", "GT", "GTE", "GLOB", "COMMA", "PLUS", "AND", "OR", "BETWEEN"}
)
_VALUES: Final = frozenset({"VAR", "IDENTIFIER", "STRING", "NUMBER", "NULL", "TRUE", "FALSE"})
_OTHERS: Final = frozenset({"NOT", "IN", "IS", "ORDER_BY", "L_PAREN", "R_PAREN", "DASH"})
_ALLOWED: Final = _SIGNS | _VALUES | _OTHERS


def _named(token: Any, following: Any) -> Any:
    """Return a name as if it stood in quotes: the parser then sees no word of SQL in it."""
    from sqlglot import Token, TokenType

    calls = following is not None and following.token_type == TokenType.L_PAREN
    if token.token_type != TokenType.VAR or (calls and token.text.casefold() == "now"):
        return token
    return Token(
        TokenType.IDENTIFIER, token.text, token.line, token.col, start=token.start, end=token.end
    )


def _check_depth(text: str, tokens: list[Any]) -> None:
    depth = run = 0
    for token in tokens:
        kind = token.token_type.name
        depth += {"L_PAREN": 1, "R_PAREN": -1}.get(kind, 0)
        run = run + 1 if kind in {"L_PAREN", "NOT", "DASH"} else 0
        if max(depth, run) > MAX_DEPTH:
            raise FilterSyntaxError(text, token.start, f"nested deeper than {MAX_DEPTH}")


_BEHIND_NOT: Final = frozenset({"IN", "BETWEEN"})
_BEFORE_OPERAND: Final = _SIGNS | {"L_PAREN", "DASH"}
_BEHIND_OPERAND: Final = _SIGNS | {"R_PAREN", "IN", "IS"}


def check_neighbours(text: str, tokens: list[Any]) -> None:
    """Refuse in a condition a sign that lacks what it stands behind, and a value or NOT that stands behind another.

    For the first the parser would blame a later word; of the second it makes more than a filter has, such
    as `BETWEEN SYMMETRIC 1 AND 2`, by rules that differ from one release of it to the next.

    Raises:
        FilterSyntaxError: There is such a sign, or such a value.
    """
    operand_missing, operand_there = True, False
    for index, token in enumerate(tokens):
        kind = token.token_type.name
        # The only words left to be more than names are those that are called: `now()`.
        called = index > 1 and kind == "R_PAREN" and tokens[index - 2].token_type.name == "VAR"
        if operand_missing and kind in _BEHIND_OPERAND and not called:
            raise FilterSyntaxError(text, token.start, f"unexpected {token.text!r}")
        negates = kind == "NOT" and _kind(tokens, index + 1) not in _BEHIND_NOT
        if operand_there and (kind in _VALUES or negates):
            raise FilterSyntaxError(text, token.start, f"unexpected {_shown(text, token)}")
        operand_missing, operand_there = kind in _BEFORE_OPERAND, kind in _VALUES | {"R_PAREN"}


def _kind(tokens: list[Any], index: int) -> str:
    return str(tokens[index].token_type.name) if index < len(tokens) else ""


def _shown(text: str, token: Any) -> str:
    return repr(text[token.start : min(token.end + 1, token.start + 24)])


def _open_quote(text: str) -> int:
    """Return where the quote begins that is not closed."""
    quote, begin = "", 0
    for index, character in enumerate(text):
        if not quote and character in {"'", '"'}:
            quote, begin = character, index
        elif character == quote:
            quote = ""  # a doubled quote closes and opens again, at the same place
            if text[index + 1 : index + 2] == character:
                quote = "doubled"
        elif quote == "doubled":
            quote = character
    return begin


@cache
def dialect() -> Any:
    """Return SQL with the words of a filter only, made when the first filter is parsed."""
    from sqlglot import Tokenizer, TokenType
    from sqlglot.dialects.dialect import Dialect

    words = {word: kind for word, kind in Tokenizer.KEYWORDS.items() if word in _WORDS}
    own = {
        **words,
        "STARTS_WITH": TokenType.GLOB,
        "!=": TokenType.NEQ,
        "<>": TokenType.NEQ,
        "<=": TokenType.LTE,
        ">=": TokenType.GTE,
    }
    tokenizer = type("Tokenizer", (Tokenizer,), {"KEYWORDS": own, "COMMENTS": []})
    return type("FilterDialect", (Dialect,), {"Tokenizer": tokenizer})
