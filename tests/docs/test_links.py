"""Every link of the documentation leads somewhere: to a file, and to a heading that is in it."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, pages, without_code

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    broken = []
    for link in _LINK.findall(without_code(page)):
        if link.startswith(("https://", "mailto:")):
            continue  # not ours to keep; a test needs no network
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_path_that_a_page_names_exists(page: Path) -> None:
    named = set(
        re.findall(r"`((?:aion_es|docs|tests|examples|benchmarks)/[\w./-]*)", page.read_text())
    )
    assert sorted(path for path in named if not (ROOT / path).exists()) == []


def test_every_guide_and_every_decision_is_in_the_list() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    listed = {name for name in _LINK.findall(index) if name.startswith(("guides/", "adr/"))}
    there = {
        f"{folder}/{page.name}"
        for folder in ("guides", "adr")
        for page in (ROOT / "docs" / folder).glob("*.md")
    }
    assert listed == there
