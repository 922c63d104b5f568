"""The due times of a specification: pure, ascending, each once, however far apart."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from itertools import islice, takewhile
from typing import Final

from aion_es.schedules.calendar import Calendar
from aion_es.schedules.cron import Cron
from aion_es.schedules.interval import Interval
from aion_es.schedules.spec import Spec
from aion_es.schedules.walltime import next_instant, to_instant
from aion_es.schedules.zones import zone_of

_MICROSECOND: Final = timedelta(microseconds=1)
_MOST_EXCLUDED: Final = 50_000
"""Stretches in a row that exclusions take away before a specification counts as never due again."""
_FIRST_LOOK: Final = timedelta(minutes=1)


def next_times(
    spec: Spec | Cron | Interval | Calendar, after: datetime, count: int
) -> list[datetime]:
    """Return the first `count` due times after `after` (exclusive), in UTC; fewer if no more come.

    `jitter` and `limit` are of actions, not of times: they are not looked at. A specification that can never
    be due, like 30 February, gives none; it takes a few milliseconds to say so.
    """
    return list(islice(due_times(spec, after), count))


def times_between(
    spec: Spec | Cron | Interval | Calendar, after: datetime, until: datetime
) -> Iterator[datetime]:
    """Yield the due times after `after` (exclusive) up to `until` (inclusive), in UTC."""
    return takewhile(lambda due: due <= until, due_times(spec, after))


def last_time(spec: Spec, after: datetime, until: datetime) -> datetime | None:
    """Return the last of `times_between`, `None` if there are none; costs about what lies close before `until`."""
    back = _FIRST_LOOK
    while True:
        begin = max(after, until - back) if until - after > back else after
        last = None
        for last in times_between(spec, begin, until):  # noqa: B007 - the last one is what is asked for
            pass
        if last is not None or begin == after:
            return last
        back *= 2


def due_times(spec: Spec | Cron | Interval | Calendar, after: datetime) -> Iterator[datetime]:
    """Yield the due times after `after`, in UTC, without end unless the specification has one."""
    if not isinstance(spec, Spec):
        spec = Spec(spec)
    after = after.astimezone(UTC)
    if spec.start_at is not None:
        after = max(after, spec.start_at - _MICROSECOND)
    coming = [_next(form, after) for form in spec.times]
    excluded = 0
    while (due := min((c for c in coming if c is not None), default=None)) is not None:
        if spec.end_at is not None and due > spec.end_at:
            return
        free_from = _end_of_exclusion(spec, due)
        if free_from is None:
            excluded = 0
            yield due
        else:
            excluded += 1
            if excluded > _MOST_EXCLUDED:
                return
        passed = due if free_from is None else free_from
        for index, form in enumerate(spec.times):
            known = coming[index]
            if known is not None and known <= passed:
                coming[index] = _next(form, passed)


def fire_time(spec: Spec, schedule_id: str, due: datetime) -> datetime:
    """Return when the action of a due time is to be taken: the due time and the jitter that falls to it.

    The same for everybody who asks. Less than the distance to the next due time, so that the order stays.
    """
    if not spec.jitter:
        return due
    room = spec.jitter
    for following in due_times(spec, due):
        room = min(room, following - due)
        break
    digest = blake2b(f"{schedule_id}\n{due.isoformat()}".encode(), digest_size=8).digest()
    return due + room // _MICROSECOND * int.from_bytes(digest) // 2**64 * _MICROSECOND


def _next(form: Cron | Interval | Calendar, after: datetime) -> datetime | None:
    if isinstance(form, Interval):
        return form.next_instant(after)
    return next_instant(form.pattern, zone_of(form.tz), after)


def _end_of_exclusion(spec: Spec, due: datetime) -> datetime | None:
    """Return an instant up to which everything from `due` on is excluded; `None` if `due` is not."""
    for form in spec.exclude:
        if isinstance(form, Interval):
            if form.is_due(due):
                return due
            continue
        zone = zone_of(form.tz)
        wall = due.astimezone(zone).replace(tzinfo=None, fold=0)
        if form.stretches.matches(wall):
            return max(due, to_instant(form.stretches.end_of_block(wall), zone) - _MICROSECOND)
    return None
