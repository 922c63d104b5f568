"""The README's first program runs exactly as it is printed, in a file of its own."""

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks

README = ROOT / "README.md"
LONGEST = 32


def quickstart(directory: Path) -> str:
    """Run the program in `directory` and return what it prints."""
    program = directory / "quickstart.py"
    program.write_text(next(blocks(README)).code)
    done = subprocess.run(
        [sys.executable, "-W", "error", program.name],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_the_quickstart_prints_what_the_readme_says(tmp_path: Path) -> None:
    assert quickstart(tmp_path) == next(blocks(README)).output


def test_the_quickstart_can_be_run_again(tmp_path: Path) -> None:
    assert quickstart(tmp_path) == quickstart(tmp_path)


@pytest.mark.parametrize("seconds", [0.4, 0.9])
def test_the_quickstart_may_be_killed_and_run_again(tmp_path: Path, seconds: float) -> None:
    program = tmp_path / "quickstart.py"
    program.write_text(next(blocks(README)).code)
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, program.name], cwd=tmp_path, stdout=subprocess.DEVNULL
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        process.kill()
        process.wait()
    assert quickstart(tmp_path) == next(blocks(README)).output


def test_the_quickstart_is_short_enough_to_be_read() -> None:
    lines = next(blocks(README)).code.splitlines()
    assert len([line for line in lines if line.strip()]) <= LONGEST


def test_the_quickstart_satisfies_a_strict_type_checker(tmp_path: Path) -> None:
    program = tmp_path / "quickstart.py"
    program.write_text(next(blocks(README)).code)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(program)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
