"""The program: `python -m benchmarks p1 | p2 | … | all | peers`."""

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from benchmarks import peers, recovery, replay, report, startup, throughput
from benchmarks.harness import Bench, Guard, Row, Sizes

BENCHMARKS: Final[Mapping[str, Callable[[Bench], list[Row]]]] = {
    "p1": throughput.p1,
    "p2": throughput.p2,
    "p3": throughput.p3,
    "p4": throughput.p4,
    "p5": recovery.p5,
    "p6": replay.p6,
    "p7": replay.p7,
    "p13": startup.p13,
}
_PATIENCE: Final = 120.0
_PATIENCE_WITH_PEER: Final = 1_800.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for, print the table and write the file."""
    asked = _parsed(arguments)
    sizes = Sizes() if asked.rounds is None else Sizes(rounds=asked.rounds)
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
    chosen = BENCHMARKS if what == "all" else {what: BENCHMARKS[what]}
    return [row for benchmark in chosen.values() for row in benchmark(bench)]


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("what", choices=[*BENCHMARKS, "all", "peers"])
    parser.add_argument("--rounds", type=int, help=f"default {Sizes().rounds}")
    parser.add_argument(
        "--patience",
        type=float,
        metavar="SECONDS",
        help="to wait in all for a quiet machine and to repeat what was disturbed; "
        f"default {_PATIENCE:g}, with a peer {_PATIENCE_WITH_PEER:g}",
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
