"""The report: the JSON file with the latest figures, and the table that a person reads."""

import json
import os
import platform
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from benchmarks.harness import MAX_FOREIGN, ROOT, Row

LATEST: Final = ROOT / "benchmarks" / "latest.json"

_HEADINGS: Final = ("id", "what", "median", "min – max", "unit", "reach", "", "others", "settings")


def machine() -> dict[str, Any]:
    """Return what is known of this machine."""
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.release()}",
    }


def settings() -> dict[str, str]:
    """Return the settings that all figures share; each row has its own beside them."""
    return {
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "durability": "full: an acknowledged append survives power loss",
    }


def read(path: Path = LATEST) -> list[Row]:
    """Return the rows of the file; none if there is no file."""
    if not path.exists():
        return []
    return [Row(**form) for form in json.loads(path.read_text(encoding="utf-8"))["rows"]]


def merged(known: Iterable[Row], fresh: Iterable[Row], *, complete: bool = False) -> list[Row]:
    """Return the fresh rows together with the known ones that they do not replace.

    Args:
        known: Of earlier runs.
        fresh: Of this one.
        complete: The fresh ones are all that there is without a peer: drop what else is known of that kind.
    """
    new = list(fresh)
    replaced = {(row.id, row.what) for row in new}
    kept = [
        row
        for row in known
        if (row.id, row.what) not in replaced and (row.peer is not None or not complete)
    ]
    return sorted(new + kept, key=lambda row: (int(row.id[1:]), row.peer is not None))


def write(rows: Iterable[Row], path: Path = LATEST) -> None:
    """Replace the file, in one step."""
    report = {"machine": machine(), "settings": settings(), "rows": [asdict(row) for row in rows]}
    draft = path.with_name(f"{path.name}.tmp")
    draft.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    draft.replace(path)


def heading() -> str:
    """Return machine and settings as one line."""
    known = {**machine(), **settings()}
    return ", ".join(f"{name}: {value}" for name, value in known.items())


def table(rows: Iterable[Row]) -> str:
    """Return the rows as aligned text."""
    lines = [_HEADINGS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADINGS))]
    text = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    return "\n".join([text[0], "-" * len(text[0]), *text[1:]])


def _cells(row: Row) -> tuple[str, ...]:
    foreign = row.foreign_cores
    others = "?" if foreign is None else f"{foreign:.2f}{' !' if foreign > MAX_FOREIGN else ''}"
    reached = "" if row.reached is None else "yes" if row.reached else "NO"
    span = f"{_number(row.min)} – {_number(row.max)}"
    return (
        row.id,
        row.what,
        _number(row.median),
        span,
        row.unit,
        row.reach or "",
        reached,
        others,
        _brief(row.settings),
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _brief(settings: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in settings.items())


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
