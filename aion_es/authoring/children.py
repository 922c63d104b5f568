"""Children: what an author may say when one is started, and the handle that the code holds."""

import asyncio
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypedDict, TypeVar, get_args, overload

from aion_es.authoring.channels import Signal
from aion_es.authoring.definitions import CANCELLATIONS, Cancellation
from aion_es.authoring.options import check_child_options
from aion_es.errors import InvalidArgumentError
from aion_es.events.attributes import SearchAttributeValues
from aion_es.events.values import ParentClose
from aion_es.ids import WorkflowId
from aion_es.payload import Payload

O = TypeVar("O")  # noqa: E741 - the field's letter for an output
T = TypeVar("T")


class ChildOptions(TypedDict, total=False):
    """What may be set when a child is started.

    Attributes:
        id: Its workflow id, 1–255 printable characters. Default: made of the parent's run id and an ordinal,
            the same in every replay.
        parent_close: What becomes of it when its parent closes first: `cancel` (default), `terminate` or
            `abandon`.
        cancellation: What cancelling its await does. Default: `try_cancel`.
        task_queue: Recorded with it. Default: that of its definition.
        attributes: Search attributes that it begins with, as `Context.set_attributes` takes them; `None`
            leaves one out.
    """

    id: str
    parent_close: ParentClose
    cancellation: Cancellation
    task_queue: str
    attributes: SearchAttributeValues


_OPTIONS: Final = tuple(ChildOptions.__annotations__)
_PARENT_CLOSES: Final[tuple[str, ...]] = get_args(ParentClose)


def check_options(workflow_type: str, options: ChildOptions) -> None:
    """Check what is to be set for a child of this type, all but its id.

    Raises:
        DefinitionError: There is no such option, or it cannot have this value.
    """
    where = f"child workflow {workflow_type!r}"
    check_child_options(where, options, _OPTIONS, CANCELLATIONS, _PARENT_CLOSES)


@dataclass(frozen=True, slots=True)
class ChildRequest:
    """A child as the code asks for it.

    Attributes:
        workflow_id: Chosen by the author; `None` for one made of the parent's run id and an ordinal.
        read_result: Makes the result of its recorded form.
    """

    workflow_type: str
    input: Payload
    workflow_id: str | None
    parent_close: ParentClose
    cancellation: Cancellation
    task_queue: str
    attributes: SearchAttributeValues
    read_result: Callable[[Payload], Any]


class ChildRuntime(Protocol):
    """What stands behind a `ChildHandle`."""

    def cancel_child(self, child_workflow_id: WorkflowId, reason: str) -> None:
        """Command that a child be asked to end."""
        ...

    def send_signal(
        self, target_workflow_id: str, name: str, payload: Payload, signal_id: str | None
    ) -> "asyncio.Future[None]":
        """Command a signal to another workflow."""
        ...


class ChildHandle(Generic[O]):
    """A child that this run has started; await it, or `result()`, for its result.

    Attributes:
        workflow_id: Of the child.
    """

    __slots__ = ("_future", "_runtime", "workflow_id")

    def __init__(
        self, runtime: ChildRuntime, workflow_id: WorkflowId, future: "asyncio.Future[O]"
    ) -> None:
        self.workflow_id = workflow_id
        self._runtime = runtime
        self._future = future

    def __repr__(self) -> str:
        return f"ChildHandle({self.workflow_id!r})"

    def __hash__(self) -> int:
        # By its place in the run, not by its address: sets are walked in the same order in every replay.
        return hash(self._future)

    def __await__(self) -> Generator[Any, None, O]:
        return self._future.__await__()

    async def result(self) -> O:
        """Return the child's result, waiting for it; a child that continues as new is followed to its end.

        Cancelling this await cancels the child, as its `cancellation` says.

        Raises:
            ChildWorkflowError: The child failed, was cancelled, terminated or timed out, or could not be started.
        """
        return await self._future

    def done(self) -> bool:
        """Return whether the child's end is known here."""
        return self._future.done()

    def add_done_callback(self, callback: Callable[["asyncio.Future[O]"], object]) -> None:
        """Call back when the child's end is known; `asyncio.wait` needs it."""
        self._future.add_done_callback(callback)

    def remove_done_callback(self, callback: Callable[["asyncio.Future[O]"], object]) -> int:
        """Take callbacks out again, and return how many there were."""
        return self._future.remove_done_callback(callback)

    def cancel(self, reason: str = "") -> None:
        """Ask the child to end; who awaits it learns how it did. Nothing if its end is known.

        Raises:
            InvalidArgumentError: The reason is not a `str`. Nothing is asked.
        """
        if not isinstance(reason, str):  # pyright: ignore[reportUnnecessaryIsInstance] - not all code is checked
            raise InvalidArgumentError("reason", f"must be a str, got {type(reason).__name__}")
        self._runtime.cancel_child(self.workflow_id, reason)

    @overload
    def signal(
        self, signal: Signal[None], /, *, signal_id: str | None = None
    ) -> "asyncio.Future[None]": ...
    @overload
    def signal(
        self, signal: Signal[T], value: T, /, *, signal_id: str | None = None
    ) -> "asyncio.Future[None]": ...
    def signal(
        self, signal: Signal[Any], value: Any = None, /, *, signal_id: str | None = None
    ) -> "asyncio.Future[None]":
        """Send the child a signal; see `Context.send`.

        Raises:
            PayloadError: The value is not of the channel's type. Nothing is sent.
        """
        return self._runtime.send_signal(
            self.workflow_id, signal.name, signal.write(value), signal_id
        )
