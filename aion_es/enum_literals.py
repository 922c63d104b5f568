"""`Literal[Colour.RED]`: pydantic checks and writes it, but does not read its own JSON again; here it does.

JSON has the member's value, which pydantic compares with the member. Members of `StrEnum` and `IntEnum` equal
their values, and need none of this.
"""

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Final, cast

from pydantic_core import CoreConfig, SchemaValidator, core_schema, to_jsonable_python

_HAS_PREBUILT: Final = "_use_prebuilt" in (SchemaValidator.__text_signature__ or "")
"""Whether this pydantic takes a model's own validator, whatever the schema around it says of the model."""
_NO_SCHEMA: Final = frozenset({"default", "metadata", "serialization", "config"})
"""Keys of a schema whose values may be anything of the user's."""


def reading_validator(schema: Any, config: CoreConfig | None) -> SchemaValidator | None:
    """Return a validator that reads literals of enum members from their values; `None` if there are none.

    Args:
        schema: Core schema of a type, as its adapter has it.
        config: What the adapter was configured with.
    """
    read, found = _rewritten(schema)
    if not found:
        return None
    options: dict[str, Any] = {"_use_prebuilt": False} if _HAS_PREBUILT else {}
    return SchemaValidator(read, config, **options)


def _rewritten(part: Any) -> tuple[Any, bool]:
    """Return a core schema with its literals of enum members replaced, and whether there are any."""
    if isinstance(part, dict):
        schema = cast("dict[str, Any]", part)
        if schema.get("type") == "literal":
            return _literal(schema)
        inner = {key: _rewritten(item) for key, item in schema.items() if key not in _NO_SCHEMA}
        changed = {key: item for key, (item, found) in inner.items() if found}
        return (schema | changed if changed else schema), bool(changed)
    if isinstance(part, list | tuple):
        items = [_rewritten(item) for item in cast("Sequence[Any]", part)]
        several = [item for item, _ in items]
        found = any(found for _, found in items)
        return (several if isinstance(part, list) else tuple(several)), found
    return part, False


def _literal(schema: dict[str, Any]) -> tuple[Any, bool]:
    members = [
        each
        for each in schema["expected"]
        if isinstance(each, Enum) and not isinstance(each, str | int)
    ]
    if not members:
        return schema, False
    plain = [each for each in schema["expected"] if not isinstance(each, Enum)]
    given = cast("core_schema.CoreSchema", schema)
    read = core_schema.no_info_before_validator_function(_member_of(members, plain), given)
    return core_schema.json_or_python_schema(json_schema=read, python_schema=given), True


def _member_of(members: list[Enum], plain: list[Any]) -> Callable[[Any], Any]:
    """Return the function that gives the member for a value; a plain value that is expected stays itself."""
    values = [(to_jsonable_python(member), member) for member in members]

    def member_of(found: Any) -> Any:
        if any(type(each) is type(found) and each == found for each in plain):
            return found
        return next(
            (m for value, m in values if type(value) is type(found) and value == found), found
        )

    return member_of
