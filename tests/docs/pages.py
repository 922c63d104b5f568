"""Reading the documentation's pages: their code blocks, the output that is claimed, their links."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(r"^```(?P<language>[\w-]*)[^\n]*\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One Python block.

    Attributes:
        code: What stands between the fences.
        line: Of its first line in the page, from 1.
        output: What a `text` block right after it claims that it prints; `None` if there is none.
    """

    code: str
    line: int
    output: str | None


def pages() -> list[Path]:
    """Return every page of the documentation."""
    folders = ("docs", "examples", "benchmarks")
    return sorted([*ROOT.glob("*.md"), *(p for f in folders for p in (ROOT / f).rglob("*.md"))])


def blocks(page: Path) -> Iterator[Block]:
    """Yield a page's Python blocks, in order."""
    text = page.read_text()
    fences = list(_FENCE.finditer(text))
    for index, fence in enumerate(fences):
        if fence["language"] != "python":
            continue
        following = fences[index + 1] if index + 1 < len(fences) else None
        output = None
        if following is not None and following["language"] == "text":
            between = text[fence.end() : following.start()]
            output = following["code"] if not between.strip() else None
        line = text.count("\n", 0, fence.start("code")) + 1
        yield Block(fence["code"], line, output)


def without_code(page: Path) -> str:
    """Return a page's prose: no fenced blocks, no inline code."""
    return re.sub(r"`[^`\n]*`", "", _FENCE.sub("", page.read_text()))
