"""`python -m aion_es.cli` is the `aion-es` command, for where scripts are not on the path."""

from aion_es.cli import run

run()
