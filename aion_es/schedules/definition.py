"""A schedule as its author writes it: `Schedule(id=…, spec=…, action=Start(…))`."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar, overload

from aion_es.events.attributes import SearchAttributeValues
from aion_es.schedules.calendar import Calendar
from aion_es.schedules.config import DEFAULT_CATCH_UP_WINDOW
from aion_es.schedules.cron import Cron
from aion_es.schedules.interval import Interval
from aion_es.schedules.policies import CatchUp, Overlap
from aion_es.schedules.spec import Spec

I = TypeVar("I")  # noqa: E741 - the input, as everywhere in the signatures of workflows


@dataclass(frozen=True, slots=True, init=False)
class Start:
    """What every due time does: start a workflow, under an id that the schedule's id and the due time make.

    Attributes:
        workflow: A workflow function, or the name of its type.
        input: Of the declared type; the same for every run.
        attributes: Search attributes to begin with, as `Engine.start` takes them.
        memo: Anything to keep beside the runs, as plain JSON.
        run_timeout: A run is timed out after this long.
        execution_timeout: A chain of runs is timed out after this long.
        task_queue: Recorded with each run. Default: the workflow's own.
    """

    workflow: Callable[..., Awaitable[Any]] | str
    input: Any
    attributes: SearchAttributeValues
    memo: Any
    run_timeout: timedelta | None
    execution_timeout: timedelta | None
    task_queue: str | None

    @overload
    def __init__(
        self,
        workflow: Callable[[Any, I], Awaitable[Any]],
        input: I,
        /,
        *,
        attributes: SearchAttributeValues | None = None,
        memo: object = None,
        run_timeout: timedelta | None = None,
        execution_timeout: timedelta | None = None,
        task_queue: str | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        workflow: Callable[[Any], Awaitable[Any]],
        /,
        *,
        attributes: SearchAttributeValues | None = None,
        memo: object = None,
        run_timeout: timedelta | None = None,
        execution_timeout: timedelta | None = None,
        task_queue: str | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        workflow: str,
        input: object = None,
        /,
        *,
        attributes: SearchAttributeValues | None = None,
        memo: object = None,
        run_timeout: timedelta | None = None,
        execution_timeout: timedelta | None = None,
        task_queue: str | None = None,
    ) -> None: ...
    def __init__(
        self,
        workflow: Callable[..., Awaitable[Any]] | str,
        input: Any = None,
        /,
        *,
        attributes: SearchAttributeValues | None = None,
        memo: object = None,
        run_timeout: timedelta | None = None,
        execution_timeout: timedelta | None = None,
        task_queue: str | None = None,
    ) -> None:
        """Keep it; it is checked when the schedule is created or updated."""
        keep = object.__setattr__  # the class is frozen
        keep(self, "workflow", workflow)
        keep(self, "input", input)
        keep(self, "attributes", dict(attributes or {}))
        keep(self, "memo", memo)
        keep(self, "run_timeout", run_timeout)
        keep(self, "execution_timeout", execution_timeout)
        keep(self, "task_queue", task_queue)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """What is to be done, and when.

    Attributes:
        id: 1–230 printable characters; the workflow ids of its actions begin with it.
        spec: When: one form, several, or a `Spec` with exclusions, bounds, jitter and limit.
        action: What.
        overlap: What is done at a due time while an earlier action still runs.
        catch_up: Which due times that were missed are made up for.
        catch_up_window: Those that are longer ago are not. Default: 365 days.
    """

    id: str
    spec: Spec | Cron | Interval | Calendar | Sequence[Cron | Interval | Calendar]
    action: Start
    overlap: Overlap = Overlap.SKIP
    catch_up: CatchUp = CatchUp.ONE
    catch_up_window: timedelta = field(default=DEFAULT_CATCH_UP_WINDOW)

    @property
    def full_spec(self) -> Spec:
        """The specification, whichever way it was given.

        Raises:
            InvalidArgumentError: There is no form in it.
        """
        return self.spec if isinstance(self.spec, Spec) else Spec(self.spec)
