"""The benchmarks still run: every workload with tiny sizes, and the harness around them. Nothing is timed."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from benchmarks import measure, peers, recovery, replay, report, startup, throughput, visibility
from benchmarks.__main__ import BENCHMARKS, main
from benchmarks.harness import (
    FULL,
    Bench,
    Guard,
    MeasurementError,
    Reach,
    Row,
    Sample,
    Sizes,
    busy_seconds,
    kill_and_run_again,
    row,
    run_child,
)
from tests.postgresql.cluster import NoPostgreSQLError

TINY = Sizes(
    parallel=3,
    sequential=2,
    steps=3,
    pending=3,
    histories=(10, 40),
    chains=(1, 3),
    loads=2,
    stored=33,
    rows=400,
    rounds=1,
)


@pytest.fixture
def bench() -> Bench:
    return Bench(TINY, Guard(patience=0.0, tries=1), lambda _line: None)


def made(id: str, what: str, peer: str | None = None, median: float = 1.0) -> Row:
    return Row(id, what, "s", median, 1.0, 1.0, None, None, {}, 1, None, {}, peer)


# ---------------------------------------------------------------------------------- workloads


@pytest.mark.parametrize(
    ("name", "arguments", "figures"),
    [
        (
            "parallel",
            {"workflows": 3},
            [
                "workflows_per_s",
                "workflows_per_s_caught_up",
                "events_per_s",
                "events_per_workflow",
                "cpu_ms_per_workflow",
            ],
        ),
        ("sequential", {"workflows": 2}, ["workflows_per_s", "cpu_ms_per_workflow"]),
        ("steps", {"activities": 3}, ["activities_per_s", "cpu_ms_per_activity"]),
        ("due_at_once", {"schedules": 3}, ["seconds", "cpu_seconds", "actions_per_s"]),
        ("idle", {"schedules": 3}, ["row_bytes", "cpu_share", "resident_mib"]),
        ("histories", {"lengths": [10, 40]}, ["events_per_s_10", "events_per_s_40"]),
        (
            "chains",
            {"lengths": [1, 3], "loads": 2},
            ["load_us_1", "continue_us_1", "load_us_3", "continue_us_3"],
        ),
        (
            "catch_up",
            {"events": 33},
            ["events_per_s", "rebuild_events_per_s", "rebuild_s", "catch_up_mib", "peak_mib"],
        ),
    ],
)
async def test_a_measurement_gives_its_figures(
    tmp_path: Path, name: str, arguments: dict[str, object], figures: list[str]
) -> None:
    measured = await measure.measure(name, {"directory": str(tmp_path), **arguments})

    assert list(measured["values"]) == figures
    memory = {"catch_up_mib"}  # so little needs none that was not there
    assert all(value > 0 for name, value in measured["values"].items() if name not in memory)


async def test_pages_are_measured_of_rows_that_were_made_before(tmp_path: Path) -> None:
    await measure.measure("fill", {"directory": str(tmp_path), "rows": 400, "url": ""})
    measured = await measure.measure("pages", {"directory": str(tmp_path), "url": ""})

    questions = [f"{name}_ms" for name in visibility.QUESTIONS]
    assert list(measured["values"]) == [*questions, "region_deep_ms"]
    assert measured["settings"] == {"read model": "sqlite"}


def test_pages_are_measured_on_both_databases_where_there_are_both(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> NoReturn:
        raise NoPostgreSQLError("not here")

    monkeypatch.setattr(visibility, "running_cluster", none)
    rows = visibility.p10(bench)

    assert {row.what.split(",")[0] for row in rows} == {"SQLite"}
    assert len(rows) == len(visibility.QUESTIONS) + 1


def test_the_sizes_of_the_reaches_are_asked_for_by_full() -> None:
    assert (FULL.stored, FULL.rows, FULL.rounds) == (500_000, 1_000_000, 5)


async def test_our_figures_carry_the_durability_that_the_connection_itself_tells(
    tmp_path: Path,
) -> None:
    measured = await measure.measure("sequential", {"directory": str(tmp_path), "workflows": 1})

    assert measured["settings"] == {"journal_mode": "wal", "synchronous": "full"}


async def test_eleven_events_are_recorded_for_a_workflow_of_three_activities(
    tmp_path: Path,
) -> None:
    measured = await measure.measure("parallel", {"directory": str(tmp_path), "workflows": 4})

    assert measured["values"]["events_per_workflow"] == 11.0


async def test_sqlite_is_given_the_rows_that_the_engine_recorded(tmp_path: Path) -> None:
    await measure.measure("parallel", {"directory": str(tmp_path), "workflows": 2})

    measured = await measure.measure("raw_inserts", {"directory": str(tmp_path)})

    assert measured["values"]["rows_per_s"] > 0
    assert measured["settings"] == {"journal_mode": "wal", "synchronous": "full"}


def test_what_is_killed_is_recovered_by_a_new_process(bench: Bench) -> None:
    (figure,) = recovery.p5(bench)

    assert (figure.unit, dict(figure.sizes)) == ("s", {"workflows": 3, "activities": 6})


def test_import_and_opening_are_measured_in_a_fresh_interpreter(bench: Bench) -> None:
    measured = startup.started(bench)

    assert list(measured.values) == ["import_ms", "import_mib", "open_ms", "open_mib"]
    assert measured.values["import_mib"] < measured.values["open_mib"]


def test_the_rows_of_p2_are_measured_in_processes_of_their_own(bench: Bench) -> None:
    ours, raw, share = throughput.p2(bench)

    assert (ours.unit, raw.unit, share.unit, share.reach) == ("events/s", "rows/s", "%", "≥ 30 %")


def test_every_benchmark_of_the_program_is_in_the_documentation() -> None:
    documented = (Path(report.LATEST).with_name("README.md")).read_text(encoding="utf-8")

    assert [name for name in BENCHMARKS if f"| {name.upper()} |" not in documented] == []


# ------------------------------------------------------------------------------------ harness


def test_a_row_tells_median_extremes_and_whether_it_reaches() -> None:
    samples = [Sample({}, {"journal_mode": "wal"}, load) for load in (0.1, 0.3, 0.2)]

    figure = row("P1", "work", "/s", [30.0, 10.0, 20.0], samples, {"n": 3}, Reach("≥", 20, "/s"))

    assert figure == Row(
        "P1", "work", "/s", 20.0, 10.0, 30.0, "≥ 20 /s", True, {"n": 3}, 3, 0.3,
        {"journal_mode": "wal"}, None,
    )  # fmt: skip


def test_a_bound_from_above_is_not_reached_beyond_it() -> None:
    assert [Reach("≤", 250, "ms").holds(value) for value in (250.0, 250.1)] == [True, False]


def test_a_disturbed_measurement_is_repeated_and_the_quietest_one_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Two looks at the machine for waiting, two for each measurement: cores used by others 0, 9, 0, 0.
    seconds = iter([0.0, 0.0, 0.0, 9_000.0, 9_000.0, 9_000.0, 9_000.0, 9_000.0])
    monkeypatch.setattr("benchmarks.harness.busy_seconds", lambda: next(seconds))
    monkeypatch.setattr("benchmarks.harness.own_seconds", lambda: 0.0)
    monkeypatch.setattr("benchmarks.harness._QUIET_WINDOW", 0.001)
    results = iter(["disturbed", "quiet", "never made"])

    assert Guard(patience=60.0, tries=3).measured(lambda: next(results)) == ("quiet", 0.0)


def test_without_patience_a_disturbed_measurement_is_taken_and_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = iter([0.0, 9_000.0])
    monkeypatch.setattr("benchmarks.harness.busy_seconds", lambda: next(seconds))
    results = iter(["disturbed", "never made"])

    result, foreign = Guard(patience=0.0).measured(lambda: next(results))

    assert result == "disturbed"
    assert foreign is not None
    assert foreign > 0.25


def test_where_the_load_cannot_be_told_a_measurement_is_made_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("benchmarks.harness.busy_seconds", lambda: None)

    assert Guard(patience=60.0).measured(lambda: "once") == ("once", None)


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="the load is told by /proc/stat")
def test_the_load_of_this_machine_is_known() -> None:
    seconds = busy_seconds()

    assert seconds is not None
    assert seconds > 0


def test_a_measuring_process_that_fails_is_an_error_and_no_figure() -> None:
    with pytest.raises(MeasurementError, match="ended with 3"):
        run_child([sys.executable, "-c", "import sys; sys.exit(3)"])


def test_a_process_that_ends_before_it_is_killed_is_an_error() -> None:
    with pytest.raises(MeasurementError, match="before it was killed"):
        kill_and_run_again([sys.executable, "-c", "pass"], ["unused"])


# ------------------------------------------------------------------------------- report, program


def test_fresh_rows_replace_theirs_and_keep_the_others() -> None:
    known = [made("P1", "a"), made("P1", "b", peer="dbos"), made("P13", "c")]

    merged = report.merged(known, [made("P1", "a", median=2.0), made("P2", "d")])

    assert [(r.id, r.what, r.median) for r in merged] == [
        ("P1", "a", 2.0),
        ("P1", "b", 1.0),
        ("P2", "d", 1.0),
        ("P13", "c", 1.0),
    ]


def test_a_complete_run_drops_rows_that_are_no_longer_made_and_keeps_those_of_a_peer() -> None:
    known = [made("P1", "gone"), made("P1", "b", peer="dbos")]

    merged = report.merged(known, [made("P2", "d")], complete=True)

    assert [(r.id, r.what) for r in merged] == [("P1", "b"), ("P2", "d")]


def test_the_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    rows = [made("P1", "a"), made("P13", "c", peer="dbos")]
    path = tmp_path / "latest.json"

    report.write(rows, path)

    assert report.read(path) == rows
    assert list(json.loads(path.read_text(encoding="utf-8"))) == ["machine", "settings", "rows"]


def test_there_are_no_rows_before_the_first_run(tmp_path: Path) -> None:
    assert report.read(tmp_path / "latest.json") == []


def test_the_table_shows_what_is_not_reached_and_what_was_disturbed() -> None:
    figure = Row(
        "P1", "work", "/s", 1234.5, 0.5, 2000.0, "≥ 5,000 /s", False, {}, 5, 0.5,
        {"synchronous": "full"},
    )  # fmt: skip

    *_, line = report.table([figure]).splitlines()

    assert [cell.strip() for cell in line.split("  ") if cell] == [
        "P1", "work", "1,234", "0.5 – 2,000", "/s", "≥ 5,000 /s", "NO", "0.50 !", "synchronous=full",
    ]  # fmt: skip


def test_a_dry_run_prints_its_table_and_leaves_the_file_as_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.report.LATEST", tmp_path / "latest.json")
    monkeypatch.setitem(
        vars(sys.modules["benchmarks.__main__"])["BENCHMARKS"],
        "p6",
        lambda bench: [made("P6", f"{bench.sizes.rounds} rounds")],
    )

    assert main(["p6", "--rounds", "2", "--dry"]) == 0
    assert "P6  2 rounds" in capsys.readouterr().out
    assert not (tmp_path / "latest.json").exists()


def test_a_flat_cost_is_told_by_its_largest_deviation_from_the_first() -> None:
    assert replay._deviation([10.0, 9.0, 12.0]) == pytest.approx(20.0)


# ---------------------------------------------------------------------------------------- peer


def test_a_ratio_against_the_peer_is_made_round_by_round_and_says_whose_settings_are_whose(
    monkeypatch: pytest.MonkeyPatch, bench: Bench
) -> None:
    ours = Sample({"seconds": 1.0}, {"synchronous": "full"}, 0.0)
    asked: list[tuple[str, str, int]] = []

    def theirs(
        _bench: Bench, _python: str, _measurement: str, database: str, style: str, count: int
    ) -> Sample:
        asked.append((database, style, count))
        seconds = {"sync": 30.0, "async": 20.0}[style]
        return Sample({"seconds": seconds}, {"journal_mode": "delete"}, 0.1)

    monkeypatch.setattr(peers, "_theirs", theirs)
    monkeypatch.setattr(peers, "_installed", lambda _bench: "python")
    comparison = next(c for c in peers._COMPARISONS if c.id == "P5")
    known = dataclasses.replace(comparison, ours=lambda _bench: ours)
    monkeypatch.setattr(peers, "_COMPARISONS", (known,))

    rows = peers.against_dbos(bench)

    assert [(r.median, r.unit, r.reach, r.reached) for r in rows] == [
        (20.0, "s", None, None),
        (20.0, "×", "≥ 15 ×", True),
        (20.0, "s", None, None),
        (20.0, "×", None, None),
    ]
    assert rows[1].settings == {"synchronous": "full", "peer journal_mode": "delete"}
    assert asked[-2:] == [("default", "async", 3), ("tuned", "async", 3)]
