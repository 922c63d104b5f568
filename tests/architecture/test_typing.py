"""Both type checkers know the types end to end: right uses pass, each wrong one is an error on its line."""

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
WRONG = sorted((HERE / "typing_errors").glob("*.py"))
RIGHT = HERE / "typing_ok.py"

Lines = set[tuple[str, int]]


def expected() -> Lines:
    """Return the lines that end in `# error`."""
    return {
        (path.name, number)
        for path in WRONG
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if line.endswith("# error")
    }


def tool(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode in {0, 1}, f"{command[0]} itself failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def mypy_errors(*paths: Path) -> Lines:
    found = tool("mypy", "--output=json", "--no-error-summary", *map(str, paths))
    errors = [json.loads(line) for line in found.splitlines()]
    return {(Path(e["file"]).name, e["line"]) for e in errors if e["severity"] == "error"}


def pyright_errors(*paths: Path) -> Lines:
    # Files on the command line are checked with the project's own, strict, settings.
    found = tool("pyright", "--outputjson", "--pythonpath", sys.executable, *map(str, paths))
    errors = json.loads(found)["generalDiagnostics"]
    return {
        (Path(e["file"]).name, e["range"]["start"]["line"] + 1)
        for e in errors
        if e["severity"] == "error"
    }


def test_every_file_of_wrong_uses_expects_an_error() -> None:
    assert {name for name, _ in expected()} == {path.name for path in WRONG}
    assert len(WRONG) >= 6


def test_mypy_refuses_exactly_the_wrong_uses() -> None:
    assert mypy_errors(*WRONG, RIGHT) == expected()


def test_pyright_refuses_exactly_the_wrong_uses() -> None:
    assert pyright_errors(*WRONG, RIGHT) == expected()
