"""The command line that the small examples share: it chooses the file in which their events are kept."""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path


def run(
    example: Callable[[Path], Coroutine[None, None, None]],
    description: str | None,
    arguments: Sequence[str] | None = None,
) -> int:
    """Run `example` in a folder: the one that is named, or a temporary one that is gone afterwards.

    Args:
        example: Is given the folder; what happens, it prints.
        description: For `--help`; its first line is shown.
        arguments: Of the command line. Default: those of the program.

    Returns:
        The exit status: 0, or 2 if the folder that is named is in use for something else.
    """
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", help="a new folder that is kept afterwards")
    folder: Path | None = parser.parse_args(arguments).folder
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="aion-es-") as temporary:
            asyncio.run(example(Path(temporary)))
        return 0
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        print(f"error: {folder} is there already; name a new folder", file=sys.stderr)
        return 2
    asyncio.run(example(folder))
    print(f"the events are in {folder / 'aion.db'}")
    return 0
