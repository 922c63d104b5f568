"""Types that users declare, one for every way in which they can be awkward to record."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, IntEnum
from typing import Annotated, Any, Final, Generic, Literal, NamedTuple, NotRequired, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    PrivateAttr,
    computed_field,
)
from typing_extensions import TypedDict

from aion_es.payload import Payload

T = TypeVar("T")


class Colour(Enum):
    RED = "red"
    GREEN = "green"


class Level(IntEnum):
    LOW = 1


class Span(Enum):
    SHORT = (1, 2)
    LONG = (3, 4)


class Painted(BaseModel):
    colour: Literal[Colour.RED]
    name: dict[str, str] = {"type": "literal"}  # not a schema, though it looks like a piece of one


class Line(BaseModel):
    sku: str
    quantity: int = 1


class GiftLine(Line):
    card: str = ""


class Order(BaseModel):
    id: UUID
    lines: list[Line] = []
    due: datetime | None = None


class Page(BaseModel, Generic[T]):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    items: list[T]
    after: int | None = None


class Anything(BaseModel):
    value: Any = None


class PlainBlob(BaseModel):
    raw: bytes


class Base64Blob(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
    raw: bytes


class Aliased(BaseModel):
    user_name: str = Field(alias="userName")


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    net: int

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorated property
    @property
    def gross(self) -> int:
        return self.net + 1


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    known: int


class Tracked(BaseModel):
    net: int = 0
    _seen: int = PrivateAttr(default=0)


class Partial(BaseModel):
    shown: int = 0
    hidden: int = Field(default=0, exclude=True)


class Limits(BaseModel):
    model_config = ConfigDict(ser_json_inf_nan="constants")
    upper: float


class TextLimits(BaseModel):
    model_config = ConfigDict(ser_json_inf_nan="strings")
    upper: float


@dataclass
class Parcel:
    weight: float
    stops: tuple[str, ...] = ()
    sent: datetime | None = None


@dataclass(frozen=True)
class Crate:
    parcels: list[Parcel] = field(default_factory=list)
    label: bytes = b""


class Address(TypedDict):
    street: str
    number: NotRequired[int]


class Point(NamedTuple):
    x: int
    y: int = 0


class Handle:
    """A class that defines no equality."""

    def __init__(self, target: Any) -> None:
        self.target = target


HandleField = Annotated[
    Handle,
    PlainValidator(lambda value: value if isinstance(value, Handle) else Handle(value)),
    PlainSerializer(lambda handle: handle.target),
]

PARIS: Final = ZoneInfo("Europe/Paris")
ORDER: Final = Order(id=UUID(int=7), lines=[Line(sku="a"), Line(sku="b", quantity=2)])


def recorded(payload: Payload) -> Payload:
    """The payload as a store gives it back."""
    return Payload.model_validate_json(payload.model_dump_json())
