"""The elements of an HTML page that is complete in one file: no network, no scripts."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

from kdtool.reporting.blocks import Block, Commands, Facts, Figure, Folded, Heading, Links, Paragraph, Picture, Table
from kdtool.reporting.cells import cell, columns, is_number, title_of
from kdtool.utils.formatting import printable_lines, shown_value

# Charts are drawn for a white page. Their black, white and grey become those of the page; their colours are told apart
# on both.
STYLE = """
:root { color-scheme: light dark; --text: #1f2328; --back: #ffffff; --soft: #59636e; --line: #d1d9e0; --block: #f6f8fa;
  --link: #0969da; --grid: #e5e5e5 }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --back: #0d1117; --soft: #9198a1; --line: #3d444d;
  --block: #161b22; --link: #4493f8; --grid: #2f353d } }
@media print { :root { --text: #000; --back: #fff; --soft: #444; --line: #999; --block: #fff; --link: #000;
  --grid: #ddd; color-scheme: light } }
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); max-width: 72rem;
  margin: 0 auto; padding: 1rem clamp(.75rem, 3vw, 2rem) 3rem; overflow-wrap: break-word }
h1 { font-size: 1.5rem; line-height: 1.25 } h2 { font-size: 1.25rem; margin-top: 2.5rem; padding-bottom: .2rem;
  border-bottom: 1px solid var(--line) } h3 { font-size: 1.05rem; margin: 1.75rem 0 .5rem }
a { color: var(--link) }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums }
td, th { padding: .3rem .9rem .3rem 0; text-align: left; vertical-align: top }
.wide td, .wide th { white-space: nowrap }
thead th { border-bottom: 1px solid var(--soft); position: sticky; top: 0; background: var(--back) }
tbody tr + tr > * { border-top: 1px solid var(--line) }
.facts th { font-weight: 500; color: var(--soft) } .facts td { overflow-wrap: anywhere }
.number { text-align: right }
.wide { overflow-x: auto; margin: .5rem 0 1rem }
pre { background: var(--block); border: 1px solid var(--line); border-radius: 6px; padding: .75rem; margin: .5rem 0;
  user-select: all; -webkit-user-select: all }
pre, code { font: .8125rem/1.55 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere }
small, figcaption { color: var(--soft); font-size: .875rem }
figure { margin: 1rem 0 } figure svg, figure img { max-width: 100%; height: auto }
figure img { background: #fff; border-radius: 6px }
figure svg text { fill: var(--text) !important }
figure svg text[style*="fill: #fefefe"] { fill: #fefefe !important }
figure svg text[style*="fill: #010101"] { fill: #010101 !important }
figure svg [style*="fill: #ffffff"] { fill: var(--back) !important }
figure svg [style*="stroke: #ffffff"] { stroke: var(--back) !important }
figure svg [style*="stroke: #e5e5e5"] { stroke: var(--grid) !important }
figure svg [style*="stroke: #666666"], figure svg [style*="stroke: #999999"] { stroke: var(--soft) !important }
figure svg [style*="stroke: #000000"] { stroke: var(--text) !important }
figure svg [style*="fill: #000000"] { fill: var(--text) !important }
ul.files { padding-left: 1.1rem } details { margin: .5rem 0 } summary { cursor: pointer }
.panels { display: flex; flex-wrap: wrap; gap: .5rem 1rem } .panels > div { flex: 0 1 auto; max-width: 100%;
  overflow-x: auto }
@media (max-width: 40rem) { body { font-size: 15px } td, th { padding-right: .7rem }
  .wide td:first-child { white-space: normal } .panels > div:only-child svg { max-width: none } }
@media print { body { max-width: none; font-size: 10pt } figure, tr, pre { break-inside: avoid }
  h2, h3 { break-after: avoid } .wide { overflow: visible } .wide td, .wide th { white-space: normal }
  details::details-content { display: block; content-visibility: visible } a { text-decoration: none } }
"""

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""What a browser may load and run: no scripts, nothing from elsewhere."""


def page(title: str, parts: Iterable[str]) -> str:
    """Return a complete page; ``parts`` are HTML, ``title`` is plain text."""
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f'<meta name="color-scheme" content="light dark"><title>{_text(title)}</title>'
    )
    body = "\n".join([f"<h1>{_text(title)}</h1>", *parts])
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n'
    )


def render_all(blocks: Iterable[Block]) -> Iterator[str]:
    """Yield the parts of a report as HTML; tables have the name of the heading above them."""
    heading = ""
    for block in blocks:
        heading = block.text if isinstance(block, Heading) else heading
        yield render(block, heading)


def render(block: Block, heading: str = "") -> str:
    """Return a part of a report, under a heading, as HTML."""
    match block:
        case Heading(text, level):
            return f"<h{level}>{_text(text)}</h{level}>"
        case Paragraph(text):
            return f"<p>{_text(text)}</p>"
        case Facts(rows):
            return facts(rows)
        case Table(rows, leave_out, titles):
            return table(rows, leave_out, titles, heading)
        case Figure(svgs, caption):
            return figure(svgs, caption)
        case Picture(svg, caption):
            return picture(svg, caption)
        case Commands(lines):
            return commands(lines)
        case Links(files):
            items = (f'<li><a href="{_text(address)}">{_text(name)}</a></li>' for name, address in files)
            return f'<ul class="files">{"".join(items)}</ul>'
        case Folded(title, parts):
            inner = "".join(render(part, title) for part in parts)
            return f"<details><summary>{_text(title)}</summary>{inner}</details>"


def facts(rows: Iterable[tuple[str, Any]]) -> str:
    """Return a table with a row for each name and value; values that are None or empty are left out."""
    shown = [(name, shown_value(name, value)) for name, value in rows]
    lines = [f"<tr><th>{_text(title_of(name))}</th><td>{_text(text)}</td></tr>" for name, text in shown if text]
    return f'<table class="facts"><tbody>{"".join(lines)}</tbody></table>'


def table(
    rows: Sequence[Mapping[str, Any]],
    leave_out: Iterable[str] = (),
    titles: Mapping[str, str] | None = None,
    name: str = "",
) -> str:
    """Return a table, see `kdtool.reporting.blocks.Table`; screen readers say its ``name``."""
    shown = columns(rows, leave_out)
    classes = {key: ' class="number"' if is_number(rows, key) else "" for key in shown}
    headings = {key: (titles or {}).get(key) or title_of(key) for key in shown}
    head = "".join(f"<th{classes[key]}>{_text(headings[key])}</th>" for key in shown)
    body = "".join(
        f"<tr>{''.join(f'<td{classes[key]}>{_text(cell(row, key))}</td>' for key in shown)}</tr>" for row in rows
    )
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{_text(name) or "table"}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def commands(lines: Iterable[tuple[str, str]]) -> str:
    """Return commands to copy, each with its remark (which may be empty); one click selects a command."""
    return "".join(f"<pre>{_text(line)}</pre>{_remark(remark)}" for line, remark in lines)


def figure(svgs: Sequence[str], caption: str) -> str:
    """Return a figure that kdtool drew; each of the ``svgs`` becomes a part of the page."""
    panels = "".join(f"<div>{svg}</div>" for svg in svgs)
    return (
        f'<figure role="img" aria-label="{_text(caption)}"><div class="panels">{panels}</div>'
        f"<figcaption>{_text(caption)}</figcaption></figure>"
    )


def picture(svg: bytes, caption: str) -> str:
    """Return a picture from any origin, embedded as an image, so that a script in the SVG does not run."""
    data = base64.b64encode(svg).decode()
    image = f'<img alt="{_text(caption)}" src="data:image/svg+xml;base64,{data}">'
    return f"<figure>{image}<figcaption>{_text(caption)}</figcaption></figure>"


def _remark(text: str) -> str:
    return f"<small>{_text(text)}</small>" if text else ""


def _text(text: str) -> str:
    """Return plain text as HTML, also within an attribute, without control characters."""
    return escape(printable_lines(text, None))
