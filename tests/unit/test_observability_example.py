"""The example of observability: it runs as a program, and what it prints is one trace and the metrics."""

import re
import subprocess
import sys

from tests.docs.pages import ROOT

SPAN = re.compile(r"trace (\w{8})  span (\w{8})  in (\w{8}| {8}) +[\d.]+ ms  (.+)")


def test_the_example_prints_one_trace_over_two_engines_and_the_metrics() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "examples.observability"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[-1] == "it is one trace"
    spans = [match.groups() for line in lines if (match := SPAN.fullmatch(line))]
    traces = {name: trace for trace, _, _, name in spans}
    signalled = traces.pop("aion.signal paid")
    assert set(traces) == {
        "aion.start buy",
        "aion.activation buy",
        "aion.activation ship",
        "aion.activity charge",
        "aion.activity charge ConnectionError",
        "aion.activity pack",
    }
    assert len({*traces.values(), signalled}) == 2
    assert len(set(traces.values())) == 1
    assert "aion.activations ship 2 {activation}" in lines
    assert "aion.timers.overdue  0 {timer}" in lines
