"""What the guides print is what happens: each page's blocks run in order, as one program."""

import contextlib
import io
import logging
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks

GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
IN_A_PROCESS = {"observability"}
"""They install what a process has once, and keeps: an SDK of OpenTelemetry."""


@pytest.fixture(autouse=True)
def loggers_as_they_were() -> Iterator[None]:
    """A page may silence a logger for itself."""
    yield
    for name in logging.root.manager.loggerDict:
        if name.startswith("aion_es."):
            logging.getLogger(name).setLevel(logging.NOTSET)


def run(page: Path) -> None:
    """Run a page's blocks in this process and directory, and hold what they print against the page."""
    module = types.ModuleType(page.stem.replace("-", "_"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, module.__name__, module)  # where annotations are looked up
        for block in blocks(page):
            printed = io.StringIO()
            # The empty lines make a traceback point into the page.
            code = compile("\n" * (block.line - 1) + block.code, str(page), "exec")
            with contextlib.redirect_stdout(printed):
                exec(code, vars(module))
            if block.output is not None:
                where = f"{page.name}:{block.line}"
                assert printed.getvalue() == block.output, f"{where} prints something else"


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_the_code_of_a_guide_does_what_the_guide_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if page.stem not in IN_A_PROCESS:
        run(page)
        return
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    program = "import sys, pathlib, tests.docs.test_guides as t; t.run(pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-W", "error", "-c", program, str(page)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_a_guide_proves_what_it_says(page: Path) -> None:
    found = list(blocks(page))
    assert found, "a guide without code"
    assert any(block.output is not None or "assert " in block.code for block in found)
