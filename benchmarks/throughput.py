"""How much work gets done: many workflows at once, one after the other, and steps in a row (P1 to P4)."""

from benchmarks.harness import Bench, Reach, Row, Sample, fresh_directory, row


def p1(bench: Bench) -> list[Row]:
    """Many workflows at once."""
    count = bench.sizes.parallel
    samples = bench.rounds("P1", lambda: bench.measure("parallel", workflows=count))
    sizes = {"workflows": count, "activities": 3 * count}
    figures = (
        ("workflows_per_s", "until every result is in", "workflows/s"),
        ("workflows_per_s_caught_up", "until visibility has caught up too", "workflows/s"),
        ("cpu_ms_per_workflow", "CPU until every result is in", "ms/workflow"),
    )
    return [
        row(
            "P1",
            f"{count:,} workflows at once, 3 activities each: {what}",
            unit,
            [sample.values[name] for sample in samples],
            samples,
            sizes,
        )
        for name, what, unit in figures
    ]


def p2(bench: Bench) -> list[Row]:
    """The same work, against the rows that SQLite takes by itself."""
    count = bench.sizes.parallel

    def once() -> tuple[Sample, Sample]:
        with fresh_directory() as directory:
            ours = bench.measure("parallel", directory, workflows=count)
            return ours, bench.measure("raw_inserts", directory)

    pairs = bench.rounds("P2", once)
    samples = [sample for pair in pairs for sample in pair]
    ours = [ours.values["events_per_s"] for ours, _ in pairs]
    raw = [raw.values["rows_per_s"] for _, raw in pairs]
    shares = [mine / theirs * 100 for mine, theirs in zip(ours, raw, strict=True)]
    sizes = {"workflows": count, "rows_per_commit": 100}
    return [
        row("P2", "P1's work, as recorded events", "events/s", ours, samples, sizes),
        row("P2", "the same rows inserted into SQLite directly", "rows/s", raw, samples, sizes),
        row(
            "P2",
            "recorded events, of the rows that SQLite takes directly",
            "%",
            shares,
            samples,
            sizes,
            Reach("≥", 30, "%"),
        ),
    ]


def p3(bench: Bench) -> list[Row]:
    """Workflows one after the other."""
    count = bench.sizes.sequential
    samples = bench.rounds("P3", lambda: bench.measure("sequential", workflows=count))
    sizes = {"workflows": count, "activities": count}
    what = "workflows one after the other, 1 activity each"
    speeds = [sample.values["workflows_per_s"] for sample in samples]
    cpu = [sample.values["cpu_ms_per_workflow"] for sample in samples]
    return [
        row("P3", what, "workflows/s", speeds, samples, sizes),
        row("P3", f"{what}: CPU", "ms/workflow", cpu, samples, sizes),
    ]


def p4(bench: Bench) -> list[Row]:
    """Activities one after the other."""
    count = bench.sizes.steps
    samples = bench.rounds("P4", lambda: bench.measure("steps", activities=count))
    sizes = {"workflows": 1, "activities": count}
    what = f"one workflow, {count:,} activities in a row"
    speeds = [sample.values["activities_per_s"] for sample in samples]
    cpu = [sample.values["cpu_ms_per_activity"] for sample in samples]
    return [
        row("P4", what, "activities/s", speeds, samples, sizes),
        row("P4", f"{what}: CPU", "ms/activity", cpu, samples, sizes),
    ]
