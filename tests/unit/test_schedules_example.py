"""The example of schedules: it runs, says what was done, and would notice if that were wrong."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from aion_es.events import schedule as ev
from aion_es.ids import RunId, WorkflowId
from examples.schedules.__main__ import is_right, main, picture

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def test_the_example_runs_and_finds_every_due_time_accounted_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--seconds", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" ")[0] for line in lines[1:-1]] == [
        "backup-skip",
        "backup-buffer-one",
        "backup-buffer-all",
        "backup-cancel-previous",
        "backup-terminate-previous",
        "backup-allow-all",
    ]
    assert "▶" in lines[1]
    assert "×" in lines[1]


def taken(second: int) -> ev.ScheduleTriggered:
    return ev.ScheduleTriggered(
        scheduled_for=NOON + second * SECOND,
        workflow_id=WorkflowId(f"w{second}"),
        run_id=RunId("r"),
    )


def waits(second: int) -> ev.ScheduleBuffered:
    return ev.ScheduleBuffered(scheduled_for=NOON + second * SECOND)


def test_a_picture_has_a_sign_for_each_due_time() -> None:
    skipped = ev.ScheduleSkipped(scheduled_for=NOON + 3 * SECOND, reason="overlap")
    assert picture([taken(0), waits(1), waits(2), taken(1), skipped]) == "▶▷…·"


@pytest.mark.parametrize(
    ("events", "starts"),
    [
        pytest.param([taken(0), taken(2)], {"w0": 1, "w2": 1}, id="a due time left out"),
        pytest.param([taken(0), taken(0)], {"w0": 1}, id="taken twice"),
        pytest.param([taken(0)], {}, id="never started"),
        pytest.param([taken(0)], {"w0": 2}, id="started twice"),
    ],
)
def test_what_is_wrong_is_noticed(events: list[ev.ScheduleEvent], starts: dict[str, int]) -> None:
    assert is_right([taken(0), waits(1)], Counter(w0=1))
    assert not is_right(events, Counter(starts))
