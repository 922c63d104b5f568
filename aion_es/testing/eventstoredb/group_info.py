"""What a persistent subscription tells about itself."""

import time
from collections.abc import Sequence
from typing import Any, Final

from aion_es.testing.eventstoredb.consumer_group import ConsumerGroup, Member
from aion_es.testing.eventstoredb.group_settings import ALL, show_position

_PERCENTILES: Final = {
    **{f"Quintile {number + 1}": 200 * number for number in range(5)},
    "90%": 900,
    "95%": 950,
    "99%": 990,
    "99.5%": 995,
    "99.9%": 999,
}
"""The place of each among the ascending times, in thousandths."""


def describe(messages: Any, group: ConsumerGroup, parked: int) -> Any:
    """Return the message that describes a group.

    Args:
        messages: The service's messages.
        group: Which group.
        parked: How many events it has parked.
    """
    settings = group.settings
    known = ""
    if group.last_known is not None:
        everything = settings.stream == ALL
        position = group.last_known.position
        known = show_position(position) if everything else str(group.last_known.revision)
    return messages.SubscriptionInfo(
        event_source=settings.stream,
        group_name=settings.group,
        status="Live" if group.live else "Behind",
        connections=[
            _connection(messages, member, timed=settings.extra_statistics)
            for member in group.members
        ],
        total_items=group.total,
        average_per_second=round(group.total / max(time.monotonic() - group.opened_at, 1)),
        last_checkpointed_event_position=group.checkpoint or "",
        last_known_event_position=known,
        resolve_link_tos=settings.resolve_links,
        start_from=settings.start_text,
        message_timeout_milliseconds=settings.message_timeout,
        extra_statistics=settings.extra_statistics,
        max_retry_count=settings.max_retry_count,
        live_buffer_size=settings.live_buffer_size,
        buffer_size=settings.history_buffer_size,
        read_batch_size=settings.read_batch_size,
        check_point_after_milliseconds=settings.checkpoint_after,
        min_check_point_count=settings.min_checkpoint_count,
        max_check_point_count=settings.max_checkpoint_count,
        read_buffer_count=0 if group.live else len(group.waiting),
        live_buffer_count=len(group.waiting) if group.live else 0,
        retry_buffer_count=len(group.retrying),
        total_in_flight_messages=group.outstanding,
        outstanding_messages_count=group.outstanding,
        named_consumer_strategy=settings.strategy,
        max_subscriber_count=settings.max_subscriber_count,
        parked_message_count=parked,
    )


def _connection(messages: Any, member: Member, *, timed: bool) -> Any:
    info = messages.SubscriptionInfo
    fields = {
        "from": member.peer,  # a keyword of Python's
        "username": member.username,
        "total_items": member.total,
        "available_slots": member.slots - member.held,
        "in_flight_messages": member.held,
        "connection_name": member.name,
    }
    measured = measurements(sorted(member.answer_times)) if timed else {}
    return info.ConnectionInfo(
        **fields,
        observed_measurements=[info.Measurement(key=k, value=v) for k, v in measured.items()],
    )


def measurements(times: Sequence[int]) -> dict[str, int]:
    """Return what the real server makes of how long the latest answers took, under its names.

    Args:
        times: In milliseconds, ascending.
    """
    if not times:
        return {}
    found = {
        "Mean": sum(times) // len(times),
        "Median": times[len(times) // 2],
        "Fastest": times[0],
    }
    for name, thousandths in _PERCENTILES.items():
        found[name] = times[thousandths * len(times) // 1000]
    return {**found, "Highest": times[-1]}
