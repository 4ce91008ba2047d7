"""The pages of the documentation: their blocks of code, links and names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
FENCE = re.compile(
    r"(?:^<!-- not run: (?P<why>[^\n]+) -->\n)?^```(?P<language>[a-z]+)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
NAMED = re.compile(r"# (\S+\.yaml)\n")
"""The first line of YAML that is a file."""


@dataclass(frozen=True)
class Block:
    """A block of code."""

    language: str
    text: str
    why_not_run: str | None

    @property
    def file(self) -> str | None:
        """The name of the file that it is, if it is one."""
        named = NAMED.match(self.text)
        return named[1] if named and self.language == "yaml" else None

    def commands(self) -> Iterator[str]:
        """The lines of a shell, continued ones joined."""
        if self.language == "bash":
            yield from filter(None, self.text.replace("\\\n", " ").splitlines())


def blocks(page: Path) -> list[Block]:
    return [Block(m["language"], m["text"], m["why"]) for m in FENCE.finditer(page.read_text())]


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
