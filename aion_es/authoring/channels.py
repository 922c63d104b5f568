"""Typed channels between a workflow and the rest of the world: signals in, answers out.

A channel is declared once and shared by sender and receiver, so that a type checker knows both ends.
"""

import builtins
import inspect
from typing import Any, Final, Generic, Protocol, overload

from typing_extensions import TypeVar

from aion_es.errors import DefinitionError, InvalidArgumentError
from aion_es.payload import Payload, decoder, encoder, inline

T = TypeVar("T", default=None)
R = TypeVar("R")
A = TypeVar("A", default=None)
T_co = TypeVar("T_co", covariant=True)
R_co = TypeVar("R_co", covariant=True)
A_contra = TypeVar("A_contra", contravariant=True)


class Readable(Protocol[T_co]):
    """A `Signal` as its receiver sees it. What is received may be used as anything wider; what is sent may not."""

    @property
    def name(self) -> str:
        """In the history."""
        ...

    def read(self, payload: Payload) -> T_co:
        """Return the value that was sent."""
        ...


class Askable(Protocol[R_co, A_contra]):
    """A `Query` as its asker sees it; see `Readable`."""

    @property
    def name(self) -> str:
        """What it is asked by."""
        ...

    def copy_argument(self, value: A_contra) -> object:
        """Return the argument as the workflow will see it."""
        ...

    def copy_result(self, value: object) -> R_co:
        """Return the answer as the asker will see it."""
        ...


class Signal(Generic[T]):
    """A message for a workflow: `approval = Signal("approval", Approval)`; without a type it carries nothing.

    Attributes:
        name: In the history.
        type: Of what it carries; anything that pydantic can validate.
    """

    __slots__ = ("_decode", "_encode", "name", "type")

    @overload
    def __init__(self, name: str) -> None: ...
    @overload
    def __init__(self, name: str, type: builtins.type[T]) -> None: ...
    def __init__(self, name: str, type: Any = None) -> None:
        self.name: Final = _check_name("signal", name)
        _check_type(f"signal {name!r}", "what it carries", type, "ctx.on_signal(signal, handler)")
        self.type: Final = type
        self._encode: Final = encoder(type)
        self._decode: Final = decoder(type)

    def __repr__(self) -> str:
        return f"Signal({self.name!r})"

    def write(self, value: T) -> Payload:
        """Return the payload of `value`.

        Raises:
            PayloadError: It is not of the declared type; nothing was sent.
        """
        return inline(self._encode(value, f"payload of signal {self.name!r}"))

    def read(self, payload: Payload) -> T:
        """Return the value that was sent.

        Raises:
            PayloadError: What was sent is not of the declared type.
        """
        value: T = self._decode(payload.data, f"received payload of signal {self.name!r}")
        return value


class Query(Generic[R, A]):
    """A question that a workflow answers without being changed: `phase = Query("phase", str)`.

    Attributes:
        name: What it is asked by.
        result: Type of the answer.
        argument: Type of the argument; `None` for none.
    """

    __slots__ = (
        "_decode_argument",
        "_decode_result",
        "_encode_argument",
        "_encode_result",
        "argument",
        "name",
        "result",
    )

    @overload
    def __init__(self, name: str, result: type[R]) -> None: ...
    @overload
    def __init__(self, name: str, result: type[R], argument: type[A]) -> None: ...
    def __init__(self, name: str, result: Any, argument: Any = None) -> None:
        self.name: Final = _check_name("query", name)
        for what, declared in (("its answer", result), ("its argument", argument)):
            _check_type(f"query {name!r}", what, declared, "ctx.answer(query, handler)")
        self.result: Final = result
        self.argument: Final = argument
        self._encode_result: Final = encoder(result)
        self._decode_result: Final = decoder(result)
        self._encode_argument: Final = encoder(argument)
        self._decode_argument: Final = decoder(argument)

    def __repr__(self) -> str:
        return f"Query({self.name!r})"

    def copy_argument(self, value: A) -> A:
        """Return the argument as the workflow will see it: checked, and sharing nothing with the asker.

        Raises:
            PayloadError: It is not of the declared type.
        """
        what = f"argument of query {self.name!r}"
        copied: A = self._decode_argument(self._encode_argument(value, what), what)
        return copied

    def copy_result(self, value: object) -> R:
        """Return the answer as the asker will see it: checked, and sharing nothing with the workflow.

        Raises:
            PayloadError: It is not of the declared type.
        """
        what = f"answer to query {self.name!r}"
        copied: R = self._decode_result(self._encode_result(value, what), what)
        return copied


def _check_type(channel: str, what: str, declared: object, instead: str) -> None:
    if inspect.isroutine(declared):
        raise DefinitionError(
            channel,
            f"takes the type of {what}, got a function; what handles it is given to {instead}",
        )


def _check_name(kind: str, name: object) -> str:
    if not isinstance(name, str) or not name or len(name) > 255 or not name.isprintable():
        raise InvalidArgumentError(
            f"{kind} name", f"must be 1–255 printable characters, got {name!r}"
        )
    return name
