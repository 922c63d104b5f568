"""The EventStoreDB adapter against the client package that it is made of, on the same local server (P12)."""

import json
import sys
from dataclasses import dataclass
from typing import Final

from benchmarks.harness import Bench, Reach, Row, Sample, row, run_child

PEER: Final = "the client package itself"


@dataclass(frozen=True, slots=True)
class Work:
    """One comparison.

    Attributes:
        arguments: What both sides do.
        least: How many times as fast ours is to be.
    """

    what: str
    unit: str
    arguments: dict[str, object]
    least: float


WORK: Final = (
    Work(
        "appends, one after the other",
        "appends/s",
        {"what": "appends", "count": 1_500, "at_once": 1},
        1.5,
    ),
    Work(
        "appends, 100 at once",
        "appends/s",
        {"what": "appends", "count": 5_000, "at_once": 100},
        1.5,
    ),
    Work(
        "appends, 1,000 at once",
        "appends/s",
        {"what": "appends", "count": 10_000, "at_once": 1_000},
        2,
    ),
    Work(
        "stored events through a subscription",
        "events/s",
        {"what": "subscription", "count": 20_000},
        0.9,
    ),
)


def p12(bench: Bench, works: tuple[Work, ...] = WORK) -> list[Row]:
    """Measure both sides in turn; needs an environment with a client package."""
    return [row for work in works for row in _compared(bench, work)]


def _compared(bench: Bench, work: Work) -> list[Row]:
    pairs = bench.rounds(
        f"P12, {work.what}",
        lambda: (_side(bench, work, ours=True), _side(bench, work, ours=False)),
    )
    samples = [sample for pair in pairs for sample in pair]
    ours = [mine.values["per_s"] for mine, _ in pairs]
    theirs = [bare.values["per_s"] for _, bare in pairs]
    ratios = [mine / bare for mine, bare in zip(ours, theirs, strict=True)]
    cpu = [mine.values["cpu_us"] for mine, _ in pairs]
    sizes = {name: n for name, n in work.arguments.items() if isinstance(n, int)}
    made = [
        ("", work.unit, ours, None),
        (": CPU on our side", "µs each", cpu, None),
        (f": {PEER}", work.unit, theirs, None),
        (f": against {PEER}", "×", ratios, Reach("≥", work.least, "×")),
    ]
    return [
        row("P12", work.what + what, unit, values, samples, sizes, reach, PEER)
        for what, unit, values, reach in made
    ]


def _side(bench: Bench, work: Work, *, ours: bool) -> Sample:
    given = json.dumps({**work.arguments, "ours": ours})
    command = [sys.executable, "-m", "benchmarks.eventstoredb_calls", given]
    return bench.sample(lambda: run_child(command))
