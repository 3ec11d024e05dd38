"""A report as Markdown, for a repository or an issue; charts become files beside it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from urllib.parse import quote

from kdtool.reporting.blocks import Block, Commands, Facts, Figure, Folded, Heading, Links, Paragraph, Picture, Table
from kdtool.reporting.cells import cell, columns, is_number, title_of
from kdtool.utils.files import slug
from kdtool.utils.formatting import markdown_code, markdown_text, shown_value


@dataclass
class Markdown:
    """A writer; ``charts`` are the files that the text shows, by the name that they have beside it."""

    prefix: str
    charts: dict[str, bytes] = field(default_factory=dict)

    def text(self, title: str, blocks: Iterable[Block]) -> str:
        """Return a report as text."""
        return (
            "\n\n".join([f"# {markdown_text(title)}", *(part for block in blocks for part in self._parts(block))])
            + "\n"
        )

    def _parts(self, block: Block) -> Iterator[str]:
        match block:
            case Heading(text, level):
                yield f"{'#' * level} {markdown_text(text)}"
            case Paragraph(text):
                yield markdown_text(text)
            case Facts(rows):
                shown = [(name, shown_value(name, value)) for name, value in rows]
                yield "\n".join(
                    f"- {markdown_text(title_of(name))}: {markdown_text(text)}" for name, text in shown if text
                )
            case Table():
                yield _table(block)
            case Figure(svgs, caption):
                yield "\n".join(self._chart(svg.encode(), caption) for svg in svgs)
                yield markdown_text(caption)
            case Picture(svg, caption):
                yield self._chart(svg, caption)
                yield markdown_text(caption)
            case Commands(lines):
                for line, remark in lines:
                    yield markdown_code(f"$ {line}", "console") + (f"\n\n{markdown_text(remark)}" if remark else "")
            case Links(files):
                yield "\n".join(f"- [{markdown_text(name)}](<{address}>)" for name, address in files)
            case Folded(title, parts):
                yield f"<details><summary>{markdown_text(title)}</summary>"
                for part in parts:
                    yield from self._parts(part)
                yield "</details>"

    def _chart(self, svg: bytes, caption: str) -> str:
        name = f"{self.prefix}-{len(self.charts) + 1}-{slug(caption)[:40].strip('-')}.svg"
        self.charts[name] = svg if svg.endswith(b"\n") else svg + b"\n"
        return f"![{markdown_text(caption)}](<{quote(os.fsencode(name))}>)"


def _table(block: Table) -> str:
    keys = columns(block.rows, block.leave_out)
    if not keys:
        return ""
    head = [markdown_text(block.titles.get(key) or title_of(key)) for key in keys]
    ruler = ["---:" if is_number(block.rows, key) else "---" for key in keys]
    rows = [[markdown_text(cell(row, key)) for key in keys] for row in block.rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ruler, *rows))
