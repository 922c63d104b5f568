"""User data on its way into an event and out of it again.

The engine never looks inside: a `Payload` is JSON that stands for one value of a declared type, and
pydantic's `TypeAdapter` of that type takes it both ways. What goes in comes out as an equal value, or
it is refused before anything is recorded, where the mistake is, with its path.
"""

import math
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from functools import lru_cache
from types import BuiltinFunctionType, FunctionType, MethodType, UnionType
from typing import Any, Final, TypeVar, Union, cast, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    PydanticSchemaGenerationError,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import CoreConfig, from_json, to_json, to_jsonable_python
from typing_extensions import TypeForm

from aion_es.enum_literals import reading_validator
from aion_es.errors import PayloadError

T = TypeVar("T")
JSON: Final = "application/json"


class Payload(BaseModel):
    """One value of the user's, as it is recorded.

    Attributes:
        content_type: `application/json` for everything that pydantic can write.
        data: The value inline, as plain JSON; base64 text where `encoding` is set.
        encoding: Codecs that were applied to `data`, first applied first; `None` for none.
    """

    # defer_build: building the first model makes pydantic look for plugins in every installed package.
    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    content_type: str = JSON
    data: Any = None
    encoding: tuple[str, ...] | None = None

    @classmethod
    def of(cls, value: object, type: Any = Any, what: str = "value") -> "Payload":
        """Return the payload that records `value` as a `type`; `to(type)` gives an equal value.

        Args:
            value: What to record.
            type: The declared type. `Any`, the default: the value's own class stands for it (its reader
                declares that class), while what a container holds must be plain JSON.
            what: What the value is, for the message ("input of workflow 'checkout'").

        Raises:
            PayloadError: The value does not fit, cannot be written, or would not come back equal; names
                its path and what was found.
        """
        declared: Any = value.__class__ if type is Any else type
        return inline(_encoder(declared, _order(declared))(value, what))

    def to(self, type: TypeForm[T], what: str = "value") -> T:
        """Return the value, validated as `type`. It shares nothing with the payload.

        Raises:
            PayloadError: What was recorded is not a `type`, or not inline JSON; names the path.
        """
        if self.encoding is not None:
            raise PayloadError(
                what, "$", f"is encoded as {', '.join(self.encoding)}; decode it first"
            )
        declared: Any = type
        result: T = _decoder(declared, _order(declared))(self.data, what)
        return result


_set_dict = BaseModel.__dict__["__dict__"].__set__
_set_fields_set = BaseModel.__dict__["__pydantic_fields_set__"].__set__
_set_extra = BaseModel.__dict__["__pydantic_extra__"].__set__
_set_private = BaseModel.__dict__["__pydantic_private__"].__set__


def inline(data: Any) -> Payload:
    """Return the payload of plain JSON values that an `encoder` gave; nothing is checked again.

    The same as `Payload.model_construct(data=data)` at a quarter of its cost, which every activity
    and signal pays.
    """
    payload = object.__new__(Payload)
    _set_dict(payload, {"content_type": JSON, "data": data, "encoding": None})
    _set_fields_set(payload, set())
    _set_extra(payload, None)
    _set_private(payload, None)
    return payload


NOTHING: Final = inline(None)
"""The payload of `None`: of an input that a function does not take, of a result that it does not give."""


@lru_cache(maxsize=4096)
def _adapter(type: Any, _order: str) -> TypeAdapter[Any]:
    if isinstance(type, _FUNCTIONS):  # pydantic would take it, for what it is called with
        raise PayloadError(f"type {type!r}", "$", "is a function, not a type")
    if _mentions_no_fields(type):
        raise PayloadError(
            f"type {type!r}",
            "$",
            "BaseModel has no fields; declare the model itself, or a union of models",
        )
    try:
        config: CoreConfig | None = CoreConfig(val_json_bytes="base64")
        try:
            made = TypeAdapter[Any](type, config=_BASE64)
        except PydanticUserError:  # a model, dataclass or TypedDict brings its own configuration
            made, config = TypeAdapter[Any](type), None
        made.rebuild(raise_errors=True)
    except (PydanticSchemaGenerationError, PydanticUserError, NameError) as error:
        raise PayloadError(
            f"type {type!r}", "$", f"pydantic cannot validate it: {str(error).splitlines()[0]}"
        ) from error
    made.validator = reading_validator(made.core_schema, config) or made.validator
    return made


def _mentions_no_fields(declared: Any) -> bool:
    return declared is BaseModel or any(map(_mentions_no_fields, get_args(declared)))


_FUNCTIONS: Final = (FunctionType, BuiltinFunctionType, MethodType)
_BASE64: Final = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
_PLAIN: Final = frozenset({int, str, bool, type(None)})
_INT64: Final = 2**63

_NOT_FINITE: Final = "NaN and infinities cannot be written as JSON"
_ABOUT_A_NAME: Final = frozenset({"missing", "extra_forbidden"})
"""Mistakes whose path ends in a name that is not, or should not be, in the value."""

_NAME: Final = re.compile(r"\w+")

_MAX_DEPTH: Final = 180
"""pydantic's JSON parser gives up at 200 levels, and an event puts a few of its own around a payload."""


def encoder(declared: Any) -> Callable[[object, str], Any]:
    """Return the function that turns a value of type `declared` into plain JSON values.

    It writes the value, reads it back, and compares: whatever JSON or the type would change in silence
    (a tuple in an `Any`, a subclass's fields, a `NaN`) is refused while it can still be mended.

    Raises:
        PayloadError: pydantic cannot validate this type at all.
    """
    return _encoder(declared, _order(declared))


def decoder(declared: Any) -> Callable[[Any, str], Any]:
    """Return the function that turns plain JSON values back into a value of type `declared`.

    Raises:
        PayloadError: pydantic cannot validate this type at all.
    """
    return _decoder(declared, _order(declared))


def _order(declared: Any) -> str:
    """Return what tells `A | B` from `B | A`: they are equal, and yet read some values differently."""
    if isinstance(declared, type):
        return ""
    try:
        return repr(declared) if _has_union(declared) else ""
    except TypeError as error:
        raise PayloadError(f"type {declared!r}", "$", f"cannot be looked up: {error}") from error


@lru_cache(maxsize=4096)
def _has_union(declared: Any) -> bool:
    if get_origin(declared) in {Union, UnionType}:
        return True
    return any(_has_union(part) for part in get_args(declared) if isinstance(part, Hashable))


@lru_cache(maxsize=4096)
def _encoder(declared: Any, order: str) -> Callable[[object, str], Any]:
    types = _adapter(declared, order)
    check, write = types.validator.validate_python, types.serializer.to_json
    read = types.validator.validate_json
    untyped = declared is Any or declared is object

    def encode(value: object, what: str) -> Any:
        if not untyped:
            try:
                check(value, strict=True)
            except ValidationError as error:
                raise _misfit(what, value, error) from error
        try:
            text = write(value, by_alias=True, warnings=False)
            plain = from_json(text, allow_inf_nan=False)
            if len(text) > 2 * _MAX_DEPTH:
                _require_shallow(text, what)
            back = read(text)
            same = bool(back == value)
        except ValidationError as error:
            raise _unreadable(what, value, error) from error
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise _unwritable(what, value, error) from error
        if not same:
            _refuse_difference(what, value, back)
        return plain

    plain_type = type(None) if declared is None else declared
    return _plain_encoder(plain_type, encode) if plain_type in _PLAIN else encode


def _plain_encoder(
    declared: type, general: Callable[[object, str], Any]
) -> Callable[[object, str], Any]:
    """Return an encoder for what is its own JSON, without the way there and back."""

    def encode(value: object, what: str) -> Any:
        if type(value) is declared:
            return value
        return general(value, what)

    def encode_int(value: object, what: str) -> Any:
        if type(value) is int and -_INT64 <= value < _INT64:
            return value
        return general(value, what)  # JSON takes integers of any size, its readers up to a limit

    def encode_str(value: object, what: str) -> Any:
        if type(value) is str and value.isascii():
            return value
        return general(value, what)  # where a lone surrogate would show

    return encode_int if declared is int else encode_str if declared is str else encode


def _require_shallow(text: bytes, what: str) -> None:
    if text.count(b"[") + text.count(b"{") <= _MAX_DEPTH:
        return
    margin = 200 - _MAX_DEPTH
    try:
        from_json(b"[" * margin + text + b"]" * margin)
    except ValueError as error:
        raise _too_deep(what) from error


def _too_deep(what: str) -> PayloadError:
    return PayloadError(what, "$", f"is nested more than {_MAX_DEPTH} levels deep")


@lru_cache(maxsize=4096)
def _decoder(declared: Any, order: str) -> Callable[[Any, str], Any]:
    read = _adapter(declared, order).validator.validate_json

    def decode(data: Any, what: str) -> Any:
        if type(data) is declared and declared in _PLAIN:
            return data
        try:
            return read(to_json(data))
        except ValidationError as error:
            raise _misfit(what, data, error) from error
        except ValueError as error:
            raise _unwritable(what, data, error) from error

    return decode


# ------------------------------------------------------------------------- what to say of a mistake


def _misfit(what: str, value: object, error: ValidationError) -> PayloadError:
    """The error for a value that is not of its declared type."""
    path, message, found, more = _first_mistake(value, error)
    return PayloadError(what, path, f"{message}, got {_named(found)}{more}")


def _unreadable(what: str, value: object, error: ValidationError) -> PayloadError:
    """The error for a value whose JSON its own type refuses."""
    if (path := _nonfinite(value)) is not None:
        return PayloadError(what, path, _NOT_FINITE)
    path, message, found, more = _first_mistake(value, error)
    return PayloadError(
        what, path, f"would be written as {_named(found)} and refused when read: {message}{more}"
    )


def _first_mistake(value: object, error: ValidationError) -> tuple[str, str, object, str]:
    """Return path, message and finding of the first mistake, and a note of how many others there are.

    A union reports one mistake per member, all at one path: they are one mistake.
    """
    mistakes = error.errors(include_url=False)
    paths = [_path(value, each["loc"], each["type"] in _ABOUT_A_NAME) for each in mistakes]
    messages = [each["msg"] for each, path in zip(mistakes, paths, strict=True) if path == paths[0]]
    others = len(mistakes) - len(messages)
    return (
        paths[0],
        ", or: ".join(dict.fromkeys(messages)),
        mistakes[0].get("input"),
        f" (and {others} more)" if others else "",
    )


def _path(value: object, location: Sequence[int | str], named: bool) -> str:
    """Return where `location` points; pydantic's labels in it (a union's member) are no steps."""
    path, here = "$", value
    for index, label in enumerate(location):
        found = _part_at(here, label)
        if found is not None:
            step, here = found
            path += step
        elif named and index == len(location) - 1:
            path += _step(label)
    return path


def _part_at(value: object, label: int | str) -> tuple[str, object] | None:
    """Return step and thing of the part of `value` that pydantic calls `label`.

    It calls a key that is neither `str` nor `int` by its `repr`, a bool by its number, and in JSON every key
    by its text there.
    """
    parts = list(_parts(value))
    for key, step, item in parts:
        if type(key) is type(label) and key == label:
            return step, item
    for key, step, item in parts:
        if str(label) in {_key(key), _text(key), str(int(key)) if isinstance(key, bool) else ""}:
            return step, item
    return None


def _unwritable(what: str, value: object, error: BaseException) -> PayloadError:
    """The error for a value that cannot be written as JSON: says which part of it."""
    if (endless := _endless(what, value, "$", ())) is not None:
        return endless
    if (path := _nonfinite(value)) is not None:
        return PayloadError(what, path, _NOT_FINITE)
    path, part, reason = _innermost(value, "$", error)
    advice = (
        '; give its model ser_json_bytes="base64" and val_json_bytes="base64"'
        if isinstance(part, bytes)
        else ""
    )
    return PayloadError(what, path, f"{_named(part)} cannot be written as JSON: {reason}{advice}")


def _endless(what: str, value: object, path: str, above: tuple[int, ...]) -> PayloadError | None:
    if id(value) in above:
        return PayloadError(what, path, f"{type(value).__name__} contains itself")
    if len(above) > _MAX_DEPTH:
        return _too_deep(what)
    for _, step, item in _parts(value):
        if (error := _endless(what, item, path + step, (*above, id(value)))) is not None:
            return error
    return None


def _innermost(value: object, path: str, error: BaseException) -> tuple[str, object, str]:
    """Return path, part and reason of the innermost part of `value` that cannot be written."""
    # Where bytes are text they fail only in the second round, so that they are not blamed for others.
    for bytes_mode in ("base64", "utf8"):
        for _, step, item in _parts(value):
            try:
                from_json(to_json(item, bytes_mode=bytes_mode))
            except (ValueError, TypeError) as inner:
                return _innermost(item, path + step, inner)
    return path, value, str(error).splitlines()[0]


def _nonfinite(value: object, path: str = "$") -> str | None:
    """Return the path of the first NaN or infinity."""
    if isinstance(value, float):
        return None if math.isfinite(value) else path
    found = (_nonfinite(item, path + step) for _, step, item in _parts(value))
    return next((bad for bad in found if bad is not None), None)


def _refuse_difference(what: str, value: object, back: object) -> None:
    """Refuse `value`, unless it differs from `back` only for want of a comparison.

    Raises:
        PayloadError: Some part would come back as something else.
    """
    difference = _difference(value, back, "$")
    if difference is not None:
        raise PayloadError(what, *difference)


def _difference(value: object, back: object, path: str) -> tuple[str, str] | None:
    """Return path and description of the innermost difference; `None` if no part differs."""
    if value == back or _same_without_eq(value, back):
        return None
    parts = list(_parts(value))
    others = {key: item for key, _, item in _parts(back)}
    if _comparable(value, back):
        changed = [key for key, _, _ in parts if key not in others]
        if changed and isinstance(value, dict):
            return path, f"key {_named(changed[0])} would come back as something else"
        if parts and not changed and len(parts) == len(others):
            found = (_difference(item, others[key], path + step) for key, step, item in parts)
            return next((each for each in found if each is not None), None)
    if _nonfinite(value) == "$":
        return path, _NOT_FINITE
    return path, (
        f"{_named(value)} would come back as {_named(back)}; declare a type that keeps it"
    )


def _comparable(value: object, back: object) -> bool:
    """Tell whether each part of `value` has its counterpart in `back`; a set's members have none."""
    return type(value) is type(back) and not isinstance(value, set | frozenset)


def _same_without_eq(value: object, back: object) -> bool:
    """Tell whether two things are the same although `==` says no.

    Instants in the hour that a zone repeats are unequal to every other zone's (PEP 495), and objects of a
    class without `__eq__` to each other.
    """
    if isinstance(value, datetime) and isinstance(back, datetime):
        aware = value.tzinfo is not None and back.tzinfo is not None
        return aware and value.astimezone(UTC) == back.astimezone(UTC)
    return (
        type(value) is type(back)
        and type(value).__eq__ is object.__eq__
        and hasattr(value, "__dict__")
        and vars(value) == vars(back)
    )


def _parts(value: object) -> Iterator[tuple[object, str, object]]:
    """Yield key, step of the path, and each thing that `value` is made of; nothing for a scalar."""
    if isinstance(value, dict):
        for key, item in cast("dict[object, object]", value).items():
            yield key, _step(key), item
    elif isinstance(value, list | tuple | set | frozenset):
        for index, item in enumerate(cast("Iterable[object]", value)):
            yield index, f"[{index}]", item
    else:
        for name, item in _attributes(value).items():
            yield name, f".{name}", item


def _attributes(value: object) -> dict[str, object]:
    """Return what a model or a dataclass holds; nothing for anything else."""
    if isinstance(value, BaseModel):
        held: dict[str, object] = {
            name: item for name, item in vars(value).items() if name in type(value).model_fields
        }
        return held | (value.__pydantic_extra__ or {}) | (value.__pydantic_private__ or {})
    if is_dataclass(value) and not isinstance(value, type):
        named = (field.name for field in fields(value))
        return {name: getattr(value, name) for name in named if hasattr(value, name)}
    return {}


def _step(key: object) -> str:
    """Return the step of a path that goes to `key`: in brackets where a name could not stand."""
    text = _key(key)
    return f".{text}" if _NAME.fullmatch(text) else f"[{text!r}]"


def _key(key: object) -> str:
    """Return the text that stands for `key` in JSON; what Python says of it, if none does."""
    if isinstance(key, str):
        return str.__str__(key)
    try:
        names: dict[str, None] = to_jsonable_python({key: None})
    except (ValueError, TypeError):
        return _text(key)
    return next(iter(names))


def _text(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - somebody else's __repr__ must not hide what went wrong
        return f"<unprintable {type(value).__name__} object>"  # as pydantic calls it


def _named(value: object) -> str:
    text = _text(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '…'}"
