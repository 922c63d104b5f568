"""What the forms of a specification share: how they are read back from what was recorded."""

from collections.abc import Mapping
from typing import Any, Self, cast

from pydantic import ModelWrapValidatorHandler, model_validator

from aion_es.events.base import RecordedModel


class SpecForm(RecordedModel):
    """A form that is written as `Cron("0 3 * * *")`, with its own `__init__`, and recorded as plain JSON."""

    def __init__(self, **fields: Any) -> None:
        """Take the fields by name; each form gives them a signature."""
        super().__init__(**fields)

    @model_validator(mode="wrap")
    @classmethod
    def _without_unknown_fields(cls, recorded: Any, read: ModelWrapValidatorHandler[Self]) -> Self:
        """Ignore fields of a newer program: pydantic would hand them to `__init__`."""
        if isinstance(recorded, dict):
            known = cast("Mapping[str, Any]", recorded)
            recorded = {name: known[name] for name in cls.model_fields if name in known}
        return read(recorded)
