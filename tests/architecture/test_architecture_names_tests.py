"""ARCHITECTURE.md names the test that holds each invariant; each of those tests exists."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "ARCHITECTURE.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+(?:::\w+)?))?`", TEXT)))
INVARIANTS = re.findall(
    r"^(\d)\. \*\*(.+?)\*\*(.*?)(?=^\d\. \*\*|^#)", TEXT, re.MULTILINE | re.DOTALL
)


def names_in(path: Path) -> set[str]:
    """Return the names of a file's tests, those in classes as `Class::name`."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef):
            found.add(node.name)
            found |= {f"{node.name}::{n.name}" for n in node.body if hasattr(n, "name")}
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
    return found


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_test_that_the_architecture_names_exists(file: str, name: str) -> None:
    path = ROOT / file
    assert path.is_file(), f"{file} does not exist"
    assert not name or name in names_in(path), f"{file} has no {name}"


def test_every_invariant_names_a_test_that_holds_it() -> None:
    assert [number for number, _, _ in INVARIANTS] == ["1", "2", "3", "4", "5", "6"]
    without = [title for _, title, body in INVARIANTS if not re.search(r"`tests/[\w/]+\.py", body)]
    assert without == []
