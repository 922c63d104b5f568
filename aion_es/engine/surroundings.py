"""What the code of a run needs of the engine that has it in memory."""

from collections.abc import Callable
from dataclasses import dataclass, field

from aion_es.aggregates.attributes import AttributeSchema
from aion_es.engine.input_drift import InputDrift
from aion_es.engine.watchdog import StepWatch


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an execution needs of the engine.

    Attributes:
        schema: Search attributes and their types.
        route: Gives the version of a type that new runs take, `None` where there is none.
        child_version: Gives the version that a child takes, by the parent's type and version and the child's
            type; `None` where there is none.
        max_payload_bytes: How large a value may be.
        watch: Where it is noted which step is being taken.
        serves: Says whether the engine runs the activities of a task queue.
        traced: Somebody records spans.
        drift: Tells of inputs that replay computes differently.
    """

    schema: AttributeSchema
    route: Callable[[str], str | None]
    child_version: Callable[[str, str, str], str | None]
    max_payload_bytes: int
    watch: StepWatch = field(default_factory=StepWatch)
    serves: Callable[[str], bool] = lambda _queue: True
    traced: bool = False
    drift: InputDrift = field(default_factory=InputDrift)
