"""What the guides print is what happens: each page's blocks run in order, as one program."""

import contextlib
import io
import sys
import types
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks

GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_the_code_of_a_guide_does_what_the_guide_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType(page.stem.replace("-", "_"))
    monkeypatch.setitem(sys.modules, module.__name__, module)  # where annotations are looked up
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
def test_a_guide_proves_what_it_says(page: Path) -> None:
    found = list(blocks(page))
    assert found, "a guide without code"
    assert any(block.output is not None or "assert " in block.code for block in found)
