"""The `aion-es` command: its entry point, which also says what to install where typer and rich are missing."""

import sys
from typing import NoReturn

__all__ = ["run"]


def run() -> NoReturn:
    """Run the command with the program's arguments, and end the process.

    The exit code is 0 if all went well, 1 after an error, which is one line on standard error, and 2
    where the arguments make no sense or the extra `cli` is not installed.
    """
    try:
        from aion_es.cli.main import run_app
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in {"typer", "rich"}:
            raise
        sys.stderr.write(
            f'error: the aion-es command needs {package}: pip install "aion-es[cli]"\n'
        )
        raise SystemExit(2) from None
    run_app()
