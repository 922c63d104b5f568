"""P12 still runs: both sides of each comparison, with tiny sizes. Nothing is timed."""

import pytest

from benchmarks.eventstoredb import WORK, p12
from benchmarks.harness import Bench, Guard, Sizes

pytest.importorskip("grpc", reason="no EventStoreDB client is installed: make test-clients")


def test_both_sides_do_what_is_compared_and_the_ratio_is_of_the_two() -> None:
    bench = Bench(Sizes(rounds=1), Guard(patience=0.0, tries=1), lambda _line: None)
    tiny = tuple(
        work.__class__(work.what, work.unit, {**work.arguments, "count": 5}, work.least)
        for work in WORK[1:]
    )
    rows = p12(bench, tiny)
    for ours, cpu, theirs, ratio in zip(*[iter(rows)] * 4, strict=True):
        assert (cpu.unit, ratio.unit) == ("µs each", "×")
        assert ratio.median == pytest.approx(ours.median / theirs.median, rel=0.01)
    assert [row.what for row in rows[::4]] == [work.what for work in WORK[1:]]
