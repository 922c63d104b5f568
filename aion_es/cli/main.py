"""The command line as a whole: which commands there are, and what an error looks like.

Each command is a module of its own. A new one is registered at the end of this one.
"""

from importlib.metadata import version
from typing import Annotated, Final, NoReturn

import typer

from aion_es.cli.copy import copy
from aion_es.cli.dev_server import dev_server
from aion_es.cli.doctor import doctor
from aion_es.errors import AionError

app: Final = typer.Typer(
    name="aion-es",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # of what is not ours the plain traceback says more
    rich_markup_mode=None,
)


def run_app() -> NoReturn:
    """Run the command that the program's arguments name, and end the process.

    An error of ours is one line on standard error; any other is a bug, and keeps its traceback.
    """
    try:
        app(prog_name="aion-es")
    except AionError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(1) from None
    raise SystemExit(0)


def _tell_version(*, wanted: bool) -> None:
    if wanted:
        typer.echo(version("aion-es"))
        raise typer.Exit


@app.callback()
def _root(
    *,
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_tell_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Durable workflows, event-sourced: the tools around them."""


app.command()(copy)
app.command()(dev_server)
app.command()(doctor)
