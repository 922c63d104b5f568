"""What a release recorded, every later one replays: the same commands, in the same order, and none beyond."""

import asyncio
import json
import uuid
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import pytest

from aion_es import Context, workflow
from aion_es.aggregates.attributes import AttributeSchema
from aion_es.aggregates.workflow import Workflow
from aion_es.authoring.definitions import workflow_definition
from aion_es.engine.execution import CodeExecution
from aion_es.engine.replay import replay
from aion_es.engine.surroundings import Surroundings
from aion_es.errors import NonDeterminismError
from aion_es.events.codec import decode_envelope
from aion_es.events.metadata import Envelope
from aion_es.events.workflow import (
    WorkflowCancelled,
    WorkflowCompleted,
    WorkflowContinuedAsNew,
    WorkflowEvent,
    WorkflowFailed,
    WorkflowStarted,
)
from aion_es.ids import StreamName, WorkflowId
from aion_es.store.port import Position, RecordedEvent
from aion_es.testing.clock import ManualClock
from tests.replay.record import DRIVES, HISTORIES, RELEASE
from tests.replay.workflows import WORKFLOWS, customer

History = list[Envelope[WorkflowEvent]]
FILES = sorted(HISTORIES.glob("*/*.json"))
CLOSED_BY_CODE = (WorkflowCompleted, WorkflowFailed, WorkflowCancelled, WorkflowContinuedAsNew)
every_history = pytest.mark.parametrize(
    "path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}"
)


def runs_of(path: Path) -> list[History]:
    """Return the runs of a stored stream, each with its own history."""
    runs: list[History] = []
    for revision, entry in enumerate(json.loads(path.read_text(encoding="utf-8"))):
        envelope = decode_envelope(
            RecordedEvent(
                event_id=uuid.UUID(int=revision),
                type=entry["type"],
                data=json.dumps(entry["data"]).encode(),
                metadata=json.dumps(entry["metadata"], separators=(",", ":")).encode(),
                stream=StreamName(f"aion_workflow-{path.stem}"),
                revision=revision,
                position=Position(revision, revision),
                recorded_at=ManualClock().now(),
            )
        )
        if isinstance(envelope.event, WorkflowStarted):
            runs.append([])
        runs[-1].append(envelope)
    return runs


def replayed(history: Sequence[Envelope[WorkflowEvent]], code: Any) -> CodeExecution:
    """Bring `code` to where `history` ends.

    Raises:
        NonDeterminismError: It commands something else.
    """
    schema = AttributeSchema(customer)
    aggregate = Workflow(WorkflowId(workflow_definition(code).type), schema=schema)
    for envelope in history:
        aggregate.replay(envelope)
    execution = CodeExecution(
        workflow_definition(code),
        aggregate,
        Surroundings(schema, lambda _: "1", lambda *_: "1", 1_000_000),
    )
    try:
        replay(execution, history)
    except BaseException:
        execution.close()
        raise
    return execution


def code_of(path: Path) -> Any:
    return next(code for code in WORKFLOWS if code.__name__ == path.stem)


@every_history
def test_todays_engine_takes_no_new_command_from_a_golden_history(path: Path) -> None:
    for history in runs_of(path):
        execution = replayed(history, code_of(path))
        assert execution.take_commands() == []
        assert execution.finished == isinstance(history[-1].event, CLOSED_BY_CODE)
        execution.close()


@every_history
def test_a_history_that_is_cut_anywhere_is_continued_as_it_was_recorded(path: Path) -> None:
    """Wherever an append ended, the code goes on with just the command that was recorded next, or waits."""
    for history in runs_of(path):
        for end in range(1, len(history)):
            if history[end - 1].metadata.activated:
                execution = replayed(history[:end], code_of(path))
                assert execution.take_commands() == []
                execution.close()


async def _does_nothing(ctx: Context, value: Any = None) -> None:
    await asyncio.get_running_loop().create_future()


async def _sleeps_first(ctx: Context, value: Any = None) -> None:
    await ctx.start_timer("not in any history", timedelta(days=1))


@every_history
@pytest.mark.parametrize("changed", [_does_nothing, _sleeps_first])
def test_changed_code_is_told_apart_from_every_golden_history(path: Path, changed: Any) -> None:
    changed_code = workflow(name=path.stem)(changed)
    for history in runs_of(path):
        with pytest.raises(NonDeterminismError) as caught:
            replayed(history, changed_code)
        assert caught.value.recorded != caught.value.commanded
        assert caught.value.revision >= 1


def test_every_workflow_has_a_history_of_this_release() -> None:
    assert {path.stem for path in FILES if path.parent.name == RELEASE} == set(DRIVES)
    assert {code.__name__ for code in WORKFLOWS} == set(DRIVES)


def test_the_histories_hold_every_event_of_a_workflow() -> None:
    seen = {type(e.event) for path in FILES for run in runs_of(path) for e in run}
    assert seen == set(get_args(WorkflowEvent))


def test_the_histories_hold_every_field_that_came_later() -> None:
    """An event keeps what is set of these (`Event.LATER`); a history without them proves nothing of them."""
    seen = {
        (entry["type"], name)
        for path in FILES
        for entry in json.loads(path.read_text(encoding="utf-8"))
        for name in entry["data"]
    }
    later = {(t.__name__, name) for t in get_args(WorkflowEvent) for name in t.LATER}
    assert later - seen == NOT_IN_A_HISTORY


NOT_IN_A_HISTORY = {("ActivityScheduled", "offered")}
"""That needs a second engine; `tests/e2e/test_task_queues.py` has one."""
