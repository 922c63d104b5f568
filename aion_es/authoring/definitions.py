"""`@workflow` and `@activity`: what a plain function must look like, and what is known of it.

Both decorators give the function back unchanged, with its definition attached: it can still be called
in a unit test. A function that cannot be run durably is refused where it is defined.
"""

import hashlib
import inspect
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from types import SimpleNamespace
from typing import (
    Any,
    Final,
    Literal,
    TypeAlias,
    TypedDict,
    TypeVar,
    get_args,
    get_type_hints,
    overload,
)

from typing_extensions import is_protocol

from aion_es.authoring.options import check_activity_options, check_task_queue
from aion_es.errors import DefinitionError, PayloadError
from aion_es.events.values import ActivityTimeouts, RetryPolicy
from aion_es.ids import DEFAULT_TASK_QUEUE
from aion_es.payload import NOTHING, Payload, decoder, encoder, inline

if sys.version_info >= (3, 14):
    import annotationlib

Executor: TypeAlias = Literal["async", "thread", "process"]
Cancellation: TypeAlias = Literal["try_cancel", "wait", "abandon"]
"""What cancelling an activity's await does: ask and go on, ask and wait for its end, or just go on."""
CANCELLATIONS: Final[tuple[str, ...]] = get_args(Cancellation)

F = TypeVar("F", bound=Callable[..., Any])

_WORKFLOW: Final = "__aion_workflow__"
_ACTIVITY: Final = "__aion_activity__"


class ActivityOptions(TypedDict, total=False):
    """What may be set for an activity, at its decoration or for one call.

    Attributes:
        retry: When and how often to try again. Default: 1 s, doubling to 100 s, without end.
        start_to_close: Bound on one attempt. Default: none.
        schedule_to_close: Bound over all attempts. Default: none.
        schedule_to_start: Bound on the wait for an attempt to begin. Default: none.
        heartbeat: An attempt that is silent for longer has failed. Default: none.
        task_queue: Where it waits. Default: `default`.
        cancellation: See `Cancellation`. Default: `try_cancel`.
        summary: A line for people, at most 200 characters, recorded with the activity: what this call is about.
    """

    retry: RetryPolicy
    start_to_close: timedelta
    schedule_to_close: timedelta
    schedule_to_start: timedelta
    heartbeat: timedelta
    task_queue: str
    cancellation: Cancellation
    summary: str


_OPTIONS: Final = tuple(ActivityOptions.__annotations__)


@dataclass(frozen=True)
class ActivitySettings:
    """Activity options, complete: the recorded ones and the one that only the code needs, `cancellation`."""

    retry: RetryPolicy = field(default_factory=RetryPolicy)
    timeouts: ActivityTimeouts = field(default_factory=ActivityTimeouts)
    heartbeat: timedelta | None = None
    task_queue: str = DEFAULT_TASK_QUEUE
    cancellation: Cancellation = "try_cancel"
    summary: str = ""

    @cached_property
    def is_recorded_first(self) -> bool:
        """Whether an attempt is recorded as begun before its code runs.

        One must be that may be the last, or whose beginning or silence somebody watches.
        """
        return (
            self.retry.max_attempts is not None
            or self.timeouts.schedule_to_start is not None
            or self.heartbeat is not None
        )

    def merged(self, options: ActivityOptions, where: str) -> "ActivitySettings":
        """Return these settings with `options` on top.

        Raises:
            DefinitionError: There is no such option, or it cannot have this value.
        """
        if not options:
            return self
        check_activity_options(where, options, _OPTIONS, CANCELLATIONS)
        return ActivitySettings(
            retry=options.get("retry", self.retry),
            timeouts=ActivityTimeouts(
                schedule_to_start=options.get("schedule_to_start", self.timeouts.schedule_to_start),
                start_to_close=options.get("start_to_close", self.timeouts.start_to_close),
                schedule_to_close=options.get("schedule_to_close", self.timeouts.schedule_to_close),
            ),
            heartbeat=options.get("heartbeat", self.heartbeat),
            task_queue=options.get("task_queue", self.task_queue),
            cancellation=options.get("cancellation", self.cancellation),
            summary=options.get("summary", self.summary),
        )


@dataclass(frozen=True)
class _Signature:
    """How a function takes its input and what its annotations say; resolved when first needed."""

    function: Callable[..., Any]
    where: str
    input_name: str | None
    input_default: object = None
    """What an input that is left out is. Nobody can tell that from `None`, which is the default of defaults."""

    @cached_property
    def hints(self) -> dict[str, Any]:
        """The annotations, resolved.

        Raises:
            DefinitionError: An annotation names something that cannot be found.
        """
        try:
            return get_type_hints(self.function, include_extras=True)
        except (NameError, TypeError) as error:
            raise DefinitionError(
                self.where,
                f"an annotation cannot be resolved: {error}; define its type at module level",
            ) from error

    @cached_property
    def input_type(self) -> Any:
        """The declared type of the input; `Any` without an annotation; `None` without an input."""
        return None if self.input_name is None else self.hints.get(self.input_name, Any)

    @cached_property
    def result_type(self) -> Any:
        """The declared type of the result; `Any` without an annotation."""
        return self.hints.get("return", Any)

    @cached_property
    def _encode_input(self) -> Callable[[object, str], Any]:
        return encoder(self.input_type)

    @cached_property
    def _encode_result(self) -> Callable[[object, str], Any]:
        return encoder(self.result_type)

    @cached_property
    def _decode_input(self) -> Callable[[Any, str], Any]:
        return decoder(self.input_type)

    @cached_property
    def _decode_result(self) -> Callable[[Any, str], Any]:
        return decoder(self.result_type)

    @cached_property
    def _takes_none(self) -> bool:
        try:
            self._encode_input(None, f"input of {self.where}")
        except PayloadError:
            return False
        return True

    def write_input(self, value: object) -> Payload:
        """Return the payload of an input; of its default, if it is left out.

        Raises:
            PayloadError: It is not of the declared type, or there is none to take.
            DefinitionError: It may be left out and it may be `None`, which mean different things.
        """
        if value is None:
            if self.input_name is None:
                return NOTHING
            if self.input_default is not None:
                value = self._left_out()
        return inline(self._encode_input(value, f"input of {self.where}"))

    def _left_out(self) -> object:
        if self._takes_none:
            raise DefinitionError(
                self.where,
                f"parameter {self.input_name!r} has a default and may be None too: None cannot be told from an input "
                "that is left out; make None the default, or let the type not take it",
            )
        return self.input_default

    def read_input(self, payload: Payload) -> Any:
        """Return the input that was recorded.

        Raises:
            PayloadError: It does not fit the declared type any more.
        """
        return self._decode_input(payload.data, f"recorded input of {self.where}")

    def write_result(self, value: object) -> Payload:
        """Return the payload of a result.

        Raises:
            PayloadError: It is not of the declared type, or cannot be written.
        """
        if value is None and self.result_type in {None, type(None), Any}:
            return NOTHING
        return inline(self._encode_result(value, f"result of {self.where}"))

    def read_result(self, payload: Payload) -> Any:
        """Return the result that was recorded.

        Raises:
            PayloadError: It does not fit the declared type any more.
        """
        return self._decode_result(payload.data, f"recorded result of {self.where}")


@dataclass(frozen=True)
class WorkflowDefinition:
    """A workflow function, its type name, and the label of its version."""

    function: Callable[..., Awaitable[Any]]
    type: str
    version: str
    task_queue: str
    signature: _Signature

    @cached_property
    def code_hash(self) -> str | None:
        """Content hash of the function's source, recorded for information; `None` where there is no source."""
        try:
            source = inspect.getsource(self.function)
        except (OSError, TypeError):
            return None
        return hashlib.sha256(source.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class ActivityDefinition:
    """An activity function, its type name, and how its attempts run."""

    function: Callable[..., Any]
    type: str
    executor: Executor
    settings: ActivitySettings
    signature: _Signature


@overload
def workflow(function: F, /) -> F: ...
@overload
def workflow(
    *, name: str | None = None, version: str = "1", task_queue: str = DEFAULT_TASK_QUEUE
) -> Callable[[F], F]: ...
def workflow(
    function: Any = None,
    /,
    *,
    name: str | None = None,
    version: str = "1",
    task_queue: str = DEFAULT_TASK_QUEUE,
) -> Any:
    """Make an `async def f(ctx: Context, input: I) -> O` a workflow; the input is optional.

    Args:
        function: The function, when used without parentheses.
        name: Type name in the history. Default: the function's name.
        version: Label of this code. A run keeps the version it began with; two labels of one type may be
            registered side by side. An edit under the same label does not strand what is in flight:
            replay decides.
        task_queue: Recorded with each run.

    Raises:
        DefinitionError: The function cannot be a workflow; says what is wrong.
    """

    def decorate(target: Any) -> Any:
        where = _where("workflow", target)
        if not inspect.iscoroutinefunction(target):
            raise DefinitionError(where, "a workflow is an `async def` function")
        _require_label(where, version)
        check_task_queue(where, task_queue)
        parameters = _positional(where, target)
        _require_context_first(where, target, parameters)
        if not 1 <= len(parameters) <= 2:
            raise DefinitionError(
                where,
                f"a workflow takes (ctx) or (ctx, input), this one takes {len(parameters)} parameters; "
                "put several values into one model or dataclass",
            )
        signature = _signature(target, where, parameters[1:])
        definition = WorkflowDefinition(
            target, _name(where, name, target), version, task_queue, signature
        )
        setattr(target, _WORKFLOW, definition)
        return target

    return decorate if function is None else decorate(function)


def define_activity(
    function: Any,
    *,
    name: str | None,
    executor: Literal["thread", "process"] | None,
    options: ActivityOptions,
) -> Any:
    """Attach an activity's definition to `function` and return it; see `aion_es.activity`."""
    where = _where("activity", function)
    is_async = inspect.iscoroutinefunction(function)
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise DefinitionError(
            where, "a generator cannot be an activity; return a list, or heartbeat progress"
        )
    if executor not in {None, "thread", "process"}:
        raise DefinitionError(where, f"executor must be 'thread' or 'process', got {executor!r}")
    if is_async and executor is not None:
        raise DefinitionError(
            where, f"executor={executor!r} is for `def` functions; an `async def` runs on the loop"
        )
    parameters = _positional(where, function)
    if len(parameters) > 1:
        raise DefinitionError(
            where,
            f"an activity takes () or (input), this one takes {len(parameters)} parameters; "
            "put several values into one model or dataclass",
        )
    kind: Executor = "async" if is_async else (executor or "thread")
    signature = _signature(function, where, parameters)
    settings = ActivitySettings().merged(options, where)
    setattr(
        function,
        _ACTIVITY,
        ActivityDefinition(function, _name(where, name, function), kind, settings, signature),
    )
    return function


def workflow_definition(function: object) -> WorkflowDefinition:
    """Return the definition that `@workflow` attached.

    Raises:
        DefinitionError: The function was not decorated.
    """
    definition = getattr(function, _WORKFLOW, None)
    if not isinstance(definition, WorkflowDefinition):
        raise DefinitionError(
            _where("workflow", function), "is not a workflow; decorate it with @workflow"
        )
    return definition


def activity_definition(function: object) -> ActivityDefinition:
    """Return the definition that `@activity` attached.

    Raises:
        DefinitionError: The function was not decorated.
    """
    definition = getattr(function, _ACTIVITY, None)
    if not isinstance(definition, ActivityDefinition):
        raise DefinitionError(
            _where("activity", function), "is not an activity; decorate it with @activity"
        )
    return definition


def _require_label(where: str, version: object) -> None:
    if not isinstance(version, str) or not version:
        raise DefinitionError(where, f"version must be a non-empty str, got {version!r}")


def _where(kind: str, function: object) -> str:
    name = getattr(function, "__qualname__", None)
    return f"{kind} {name!r}" if isinstance(name, str) else f"{kind} {function!r}"


def _name(where: str, name: str | None, function: Any) -> str:
    chosen = function.__name__ if name is None else name
    if not isinstance(chosen, str) or not chosen or len(chosen) > 255 or not chosen.isprintable():
        raise DefinitionError(where, f"name must be 1–255 printable characters, got {chosen!r}")
    return chosen


def _signature(function: Any, where: str, inputs: list[inspect.Parameter]) -> _Signature:
    if not inputs:
        return _Signature(function, where, None)
    (parameter,) = inputs
    default = None if parameter.default is parameter.empty else parameter.default
    return _Signature(function, where, parameter.name, default)


def _positional(where: str, function: Any) -> list[inspect.Parameter]:
    if not inspect.isfunction(function):
        raise DefinitionError(
            where,
            "only plain functions can be decorated, not methods of instances, classes or lambdas' wrappers",
        )
    if sys.version_info >= (3, 14):
        signature = inspect.signature(function, annotation_format=annotationlib.Format.FORWARDREF)
    else:
        signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    scope = function.__qualname__.rpartition(".")[0]
    if parameters and parameters[0].name in {"self", "cls"} and scope[-1:] not in {"", ">"}:
        raise DefinitionError(
            where,
            "a method cannot be decorated, because its object is not recorded; "
            "use a function, at module level or as a @staticmethod",
        )
    for parameter in parameters:
        if parameter.kind not in {parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD}:
            raise DefinitionError(
                where,
                f"parameter {parameter.name!r}: *args, **kwargs and keyword-only parameters have no place in the history",
            )
    return parameters


def _require_context_first(
    where: str, function: Any, parameters: Sequence[inspect.Parameter]
) -> None:
    if any(_annotates_context(function, parameter) for parameter in parameters[1:]):
        raise DefinitionError(where, "the context is the first parameter: (ctx) or (ctx, input)")
    if parameters and _annotates_context(function, parameters[0]) is False:
        raise DefinitionError(
            where,
            f"its first parameter is given the context, and must be annotated as Context: "
            f"not {str(parameters[0])!r}, but '{parameters[0].name}: Context'",
        )


def _annotates_context(function: Any, parameter: inspect.Parameter) -> bool | None:
    """Return whether a parameter is annotated as the context; `None` where that cannot be told."""
    from aion_es.authoring.context import Context  # which is made of definitions

    lone = SimpleNamespace(__annotations__={"it": parameter.annotation})
    try:
        annotation = get_type_hints(lone, function.__globals__)["it"]
    except Exception:  # noqa: BLE001 - whatever an annotation does: it is looked at when it is needed
        return None
    says_something = isinstance(annotation, type) and not is_protocol(annotation)
    if not says_something or annotation in {parameter.empty, object, Any}:
        return None
    return issubclass(annotation, Context)
