"""Measures an import and an opening in a fresh interpreter: `startup_probe.py DIRECTORY`; prints one JSON line.

It imports next to nothing itself, so that all of it is counted.
"""

import sys
from time import perf_counter


def _resident_mib() -> float:
    import resource

    with open("/proc/self/statm", encoding="ascii") as pages:  # noqa: PTH123 - pathlib would be counted
        return int(pages.read().split()[1]) * resource.getpagesize() / 2**20


def main() -> None:
    """Print the times in milliseconds and the resident memory in MiB."""
    began = perf_counter()
    from aion_es import Engine

    imported = perf_counter() - began
    after_import = _resident_mib()

    import asyncio
    import json

    async def opened() -> tuple[float, float]:
        began = perf_counter()
        async with Engine.open(f"sqlite:///{sys.argv[1]}/empty.db"):
            return perf_counter() - began, _resident_mib()

    open_s, after_open = asyncio.run(opened())
    values = {
        "import_ms": imported * 1e3,
        "import_mib": after_import,
        "open_ms": open_s * 1e3,
        "open_mib": after_open,
    }
    print(json.dumps({"values": values, "settings": {}}))


if __name__ == "__main__":
    main()
