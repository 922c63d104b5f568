"""A schedule as it is recorded: specification, action and policies, as plain JSON and back."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Final, cast

from pydantic import BeforeValidator, Field, ValidationError

from aion_es.errors import InvalidArgumentError
from aion_es.events.base import RecordedModel
from aion_es.events.values import AttributeValue
from aion_es.payload import NOTHING, Payload
from aion_es.schedules.policies import CatchUp, Overlap
from aion_es.schedules.spec import Spec

DEFAULT_CATCH_UP_WINDOW: Final = timedelta(days=365)


class StartAction(RecordedModel):
    """The workflow that every due time starts.

    Attributes:
        workflow_type: Started on the version that is routed when the time comes.
        input: Of every run.
        task_queue: Recorded with each run. Default: the workflow's own.
        attributes: Search attributes to begin with.
        memo: Anything to keep beside the runs.
        run_timeout: A run is timed out after this long.
        execution_timeout: A chain of runs is timed out after this long.
    """

    workflow_type: str
    input: Payload = NOTHING
    task_queue: str | None = None
    attributes: dict[str, AttributeValue] = Field(default_factory=dict)
    memo: Payload | None = None
    run_timeout: timedelta | None = None
    execution_timeout: timedelta | None = None


def _spec(recorded: Any) -> Any:
    """A single form may stand for the specification that holds nothing else."""
    if isinstance(recorded, dict) and "times" not in recorded:
        return {"times": [cast("Any", recorded)]}
    return cast("Any", recorded)


class ScheduleConfig(RecordedModel):
    """Everything that a schedule is created with; see `aion_es.schedules.definition.Schedule`."""

    spec: Annotated[Spec, BeforeValidator(_spec)]
    action: StartAction
    overlap: Overlap = Overlap.SKIP
    catch_up: CatchUp = CatchUp.ONE
    catch_up_window: timedelta = DEFAULT_CATCH_UP_WINDOW

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> "ScheduleConfig":
        """Return what `plain` wrote; unknown fields are ignored.

        Raises:
            ScheduleSpecError: A cron expression, a calendar's field or a time zone is not understood.
            InvalidArgumentError: It is not of that form; names the field.
        """
        try:
            read = cls.model_validate(config)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InvalidArgumentError("config", f"at {where or '$'}: {first['msg']}") from error
        if read.catch_up_window < timedelta(0):
            raise InvalidArgumentError("catch_up_window", "must not be negative")
        return read

    def plain(self) -> dict[str, Any]:
        """Return it as plain JSON values, every field written out, so that no default can change later."""
        return self.model_dump(mode="json")
