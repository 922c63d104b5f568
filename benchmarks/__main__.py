"""The program: `python -m benchmarks p1 | p2 | … | all | peers`."""

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from benchmarks import (
    eventstoredb,
    peers,
    recovery,
    replay,
    report,
    schedules,
    startup,
    throughput,
    visibility,
    waking,
)
from benchmarks.harness import FULL, Bench, Guard, Row, Sizes

BENCHMARKS: Final[Mapping[str, Callable[[Bench], list[Row]]]] = {
    "p1": throughput.p1,
    "p2": throughput.p2,
    "p3": throughput.p3,
    "p4": throughput.p4,
    "p5": recovery.p5,
    "p6": replay.p6,
    "p7": replay.p7,
    "p8": waking.p8,
    "p9": visibility.p9,
    "p10": visibility.p10,
    "p11": waking.p11,
    "p13": startup.p13,
    "p14": waking.p14,
    "s1": schedules.s1,
}
NEED_A_CLIENT: Final[Mapping[str, Callable[[Bench], list[Row]]]] = {"p12": eventstoredb.p12}
"""Not among `all`: they run in an environment with a client package of EventStoreDB."""
_PATIENCE: Final = 120.0
_PATIENCE_WITH_PEER: Final = 1_800.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for, print the table and write the file."""
    asked = _parsed(arguments)
    sizes = FULL if asked.full else Sizes()
    if asked.rounds is not None:
        sizes = sizes._replace(rounds=asked.rounds)
    with_peer = asked.what == "peers"
    patience = asked.patience
    if patience is None:
        patience = _PATIENCE_WITH_PEER if with_peer else _PATIENCE
    bench = Bench(sizes, Guard(patience, tries=4 if with_peer else 2), _tell)
    began = time.monotonic()
    fresh = _rows(asked.what, bench)
    known = report.read()
    rows = report.merged(known, fresh, complete=asked.what == "all")
    if not asked.dry:
        report.write(rows)
    _tell(f"took {time.monotonic() - began:.0f} s\n")
    print(report.heading())
    print(report.table(fresh))
    return 0


def _rows(what: str, bench: Bench) -> list[Row]:
    if what == "peers":
        return peers.against_dbos(bench)
    every = {**BENCHMARKS, **NEED_A_CLIENT}
    chosen = BENCHMARKS if what == "all" else {what: every[what]}
    return [row for benchmark in chosen.values() for row in benchmark(bench)]


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("what", choices=[*BENCHMARKS, *NEED_A_CLIENT, "all", "peers"])
    parser.add_argument("--rounds", type=int, help=f"default {Sizes().rounds}")
    parser.add_argument(
        "--patience",
        type=float,
        metavar="SECONDS",
        help="to wait in all for a quiet machine and to repeat what was disturbed; "
        f"default {_PATIENCE:g}, with a peer {_PATIENCE_WITH_PEER:g}",
    )
    parser.add_argument(
        "--full",
        action="store_true",
        help="P9, P10 and S1 at the sizes of their reaches: half an hour",
    )
    parser.add_argument("--dry", action="store_true", help="leave benchmarks/latest.json as it is")
    asked = parser.parse_args(arguments)
    if asked.rounds is not None and asked.rounds < 1:
        parser.error("--rounds is at least 1")
    return asked


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
