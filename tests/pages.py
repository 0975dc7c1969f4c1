"""The pages of the documentation, and the blocks that a reader copies from them.

What becomes of a block is said by its language and its caption:

| block | what a reader does with it |
| --- | --- |
| with a path as its caption | writes it to that file |
| `sh` | types it |
| `sh`, captioned `Terminal N` | types it in another terminal: it goes on running |
| `text` after `sh` | compares it with what that printed, `…` standing for anything |
| `python` | runs it, as a program or as the body of an async function |
| `toml` | checks it, laid over a minimal file if it is a fragment |
| `console` | reads it: what one of the checks prints, and `test_contract.py` compares |
| `yaml`, `ini`, `nginx` without a caption | reads it: another program's file, as an illustration |
"""

from collections.abc import Iterator
from pathlib import Path

import attrs
from markdown_it import MarkdownIt

PROJECT = Path(__file__).parent.parent
DOCS = PROJECT / "docs"


@attrs.frozen
class Block:
    line: int
    language: str
    caption: str
    text: str

    @property
    def terminal(self) -> bool:
        return self.language == "sh" and self.caption.startswith("Terminal")

    @property
    def file(self) -> str | None:
        return None if self.terminal else self.caption or None


def blocks(page: Path) -> Iterator[Block]:
    """All code blocks of a page, in order; `{literalinclude}` becomes what it includes."""
    for token in MarkdownIt("commonmark").parse(page.read_text()):
        if token.type != "fence":
            if token.type == "code_block":
                assert token.map
                raise ValueError(f"{page}:{token.map[0] + 1}: an indented block: give it a fence")
            continue
        assert token.map
        line = token.map[0] + 1
        directive, _, argument = token.info.partition(" ")
        lines = token.content.splitlines(keepends=True)
        options: dict[str, str] = {}
        while lines and lines[0].startswith(":"):
            name, _, value = lines.pop(0)[1:].partition(":")
            options[name] = value.strip()
        text = "".join(lines).lstrip("\n") if options else token.content
        match directive:
            case "{code-block}":
                yield Block(line, argument, options.get("caption", ""), text)
            case "{literalinclude}":
                included = (page.parent / argument).read_text()
                yield Block(line, options["language"], options.get("caption", ""), included)
            case _ if directive.startswith("{"):
                continue
            case _:
                yield Block(line, token.info, "", text)


def all_pages() -> list[Path]:
    """Every page of the documentation, and what GitHub shows."""
    pages = sorted(
        page for page in DOCS.rglob("*.md") if not {"_build", "benchmarks"} & {*page.parts}
    )
    return [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *pages]
