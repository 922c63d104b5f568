"""The shape of the package: what imports what, how large a module may be, what it may be called."""

import ast
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import aion_es

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "aion_es"
MODULES = sorted(PACKAGE.rglob("*.py"))

LONGEST = 700
"""Lines; past about 1,000 a reader is lost, and a module grows faster than it is split."""
EMPTY_NAMES = {"util", "utils", "helper", "helpers", "common", "manager", "managers", "misc"}
HEAVY = ["sqlalchemy", "sqlglot", "rich", "typer", "esdbclient", "kurrentdbclient", "pytest"]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported_from_the_port(path: Path) -> set[str]:
    return {
        alias.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "aion_es.store.port"
        for alias in node.names
    }


def test_dependencies_keep_every_import_contract() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_only_the_repository_makes_events_that_are_to_be_appended() -> None:
    outside = [
        path
        for path in MODULES
        if path.relative_to(PACKAGE).parts[0] not in {"store", "testing"}
        and {"NewEvent", "EventWriter"} & imported_from_the_port(path)
    ]
    assert [relative(path) for path in outside] == ["aion_es/aggregates/repository.py"]


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = f"import sys, aion_es; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_package_says_that_it_is_typed() -> None:
    assert files(aion_es).joinpath("py.typed").is_file()


def test_every_module_can_be_read_in_one_sitting() -> None:
    lines = {relative(path): len(path.read_text().splitlines()) for path in MODULES}
    assert {name: n for name, n in lines.items() if n > LONGEST} == {}


def test_every_module_begins_by_saying_what_it_owns() -> None:
    silent = []
    for path in MODULES:
        docstring = ast.get_docstring(ast.parse(path.read_text()))
        if docstring is None or not re.match(r"[^\n]+[.:]$", docstring.splitlines()[0]):
            silent.append(relative(path))
    assert silent == []


def test_every_module_is_named_for_its_concept() -> None:
    words = {
        relative(path): set(re.split(r"[_/.]", path.relative_to(PACKAGE).as_posix()))
        for path in MODULES
    }
    assert {name: found & EMPTY_NAMES for name, found in words.items() if found & EMPTY_NAMES} == {}
